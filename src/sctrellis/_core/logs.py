"""The logger and the progress bar."""

import logging
from collections.abc import Iterable
from typing import Any

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
    from tqdm.auto import tqdm

    shown = settings.progress if progress is None else progress
    return tqdm(total=total, desc=description, unit=unit, disable=None if shown is None else not shown, leave=False)
