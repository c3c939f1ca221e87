"""Settings of the whole package: what a user sets once a session."""

import logging
import os
from pathlib import Path

_LEVELS = {"error": logging.ERROR, "warning": logging.WARNING, "info": logging.INFO, "debug": logging.DEBUG}

_ACTIONS = ("warn", "error", "off")


class Settings:
    """Session-wide settings, reached as ``sctrellis.settings``.

    Attributes
    ----------
    verbosity
        Level of the messages shown.
    progress
        Progress bars: ``True``, ``False``, or ``None`` to show them on a terminal or in a notebook only.
    device
        Device that ``device="auto"`` stands for: ``"auto"`` takes CUDA when present, else the CPU.
    n_jobs
        Workers of independent fits where a function is called with ``n_jobs=None``.
    max_dense_gb
        Largest dense copy (GB) of a matrix that a function may make; above it, it raises and says the size.
    audit
        What handing out a network without an audit does.
    dataset_dir
        Folder of :mod:`sctrellis.datasets`; the environment variable ``SCTRELLIS_DATA`` sets the default.
    """

    def __init__(self) -> None:
        self._verbosity = "warning"
        self._audit = "warn"
        self.progress: bool | None = None
        self.device = "auto"
        self.n_jobs = 1
        self.max_dense_gb = 8.0
        self.dataset_dir = Path(os.environ.get("SCTRELLIS_DATA", Path.home() / ".cache" / "sctrellis"))

    @property
    def verbosity(self) -> str:
        """Level of the messages shown: ``"error"``, ``"warning"`` (default), ``"info"`` or ``"debug"``.

        Setting it attaches one handler to the logger ``"sctrellis"``; until then the package only logs through
        whatever handlers the application has.
        """
        return self._verbosity

    @verbosity.setter
    def verbosity(self, level: str) -> None:
        if level not in _LEVELS:
            msg = f"Expected `verbosity` to be one of {sorted(_LEVELS)}, found {level!r}."
            raise ValueError(msg)
        logger = logging.getLogger("sctrellis")
        if not any(getattr(handler, "_sctrellis", False) for handler in logger.handlers):
            handler = logging.StreamHandler()
            handler._sctrellis = True  # type: ignore[attr-defined]
            logger.addHandler(handler)
        logger.setLevel(_LEVELS[level])
        self._verbosity = level

    @property
    def audit(self) -> str:
        """What handing out a network without an audit does: ``"warn"`` (default), raise an ``"error"``, or ``"off"``.

        An audit is what :func:`sctrellis.tl.audit` does. It warns once for each network; tables and figures say it
        each time.
        """
        return self._audit

    @audit.setter
    def audit(self, action: str) -> None:
        if action not in _ACTIONS:
            msg = f"Expected `audit` to be one of {list(_ACTIONS)}, found {action!r}."
            raise ValueError(msg)
        self._audit = action

    def __repr__(self) -> str:
        shown = ("verbosity", "progress", "device", "n_jobs", "max_dense_gb", "audit", "dataset_dir")
        return "Settings(" + ", ".join(f"{name}={getattr(self, name)!r}" for name in shown) + ")"


settings = Settings()
