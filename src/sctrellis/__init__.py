"""Gene regulatory networks from single cells, with the baseline, the null and the calibration beside them."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from sctrellis._settings import settings

if TYPE_CHECKING:
    from sctrellis import datasets, explain, get, metrics, models, pl, pp, tl

__version__ = version("sctrellis")
__all__ = ["datasets", "explain", "get", "metrics", "models", "pl", "pp", "settings", "tl"]

_ROOMS = frozenset(__all__) - {"settings"}


def __getattr__(name: str) -> Any:
    # A room is imported on first use: `import sctrellis` must not wait for torch, scanpy or matplotlib.
    if name in _ROOMS:
        return import_module(f"sctrellis.{name}")
    msg = f"module 'sctrellis' has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted([*globals(), *_ROOMS])
