"""The logger and the progress bar."""

import logging
import sys
from collections.abc import Iterable
from typing import Any, Self

from sctrellis._settings import settings

logger = logging.getLogger("sctrellis")
logger.addHandler(logging.NullHandler())


def added(what: Iterable[str]) -> None:
    """Log the slots that a function wrote, such as ``varp['infosem']``."""
    logger.info("added %s", ", ".join(what))


def progress_bar(total: int, description: str, *, progress: bool | None = None, unit: str = "epoch") -> Any:
    """Return a tqdm bar with an estimated end.

    Parameters
    ----------
    total
        Number of steps.
    description
        Text before the bar.
    progress
        ``True``, ``False``, or ``None`` to follow ``settings.progress`` (and then to stay silent in batch logs).
    unit
        What is counted.
    """
    shown = settings.progress if progress is None else progress
    if shown is None:  # where nobody looks, as tqdm itself decides it
        shown = sys.stderr is not None and sys.stderr.isatty()
    if not shown:
        return _Silent()
    from tqdm.auto import tqdm  # only now: in a notebook it loads the widgets

    return tqdm(total=total, desc=description, unit=unit, leave=False)


class _Silent:
    """A bar that shows nothing, with what is used of tqdm's."""

    disable = True

    def update(self, n: int = 1) -> None:
        """Count nothing."""

    def set_postfix(self, *args: Any, **kwargs: Any) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Nothing to close."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
