"""What the figures of self weights share: the stored values, and how model and controls look."""

from typing import Any

import numpy as np

from sctrellis import get
from sctrellis._core import checks, slots
from sctrellis._core.keys import REGULATORS, Keys
from sctrellis.pl import _style

# Source in the tables of the record: short name of its slots, colour, dashes.
SOURCES: dict[str, tuple[str, str, Any]] = {
    "model": ("", "black", _style.DASHES[0]),
    "random initialisation": ("initialised", _style.COLOURS[2], _style.DASHES[1]),
    "random neighbours": ("rewired", _style.COLOURS[3], _style.DASHES[3]),
}
REGULATOR: dict[str, Any] = {
    "marker": "^",
    "s": 20,
    "facecolors": _style.COLOURS[1],
    "edgecolors": "white",
    "linewidths": 0.3,
}
OTHER: dict[str, Any] = {
    "marker": "o",
    "s": 12,
    "facecolors": "none",
    "edgecolors": _style.COLOURS[0],
    "linewidths": 0.6,
}


def record_of(adata: Any, key: str, mod: str | None) -> tuple[Any, dict[str, Any]]:
    """Return the AnnData and the record of :func:`sctrellis.tl.shrinkage`."""
    ad = slots.source(adata, mod)
    name = Keys(key).of_genes("shrinkage")
    remedy = "Run `sctrellis.tl.shrinkage` first, and pass its `key_added`, or the model's key, as `key`."
    checks.has_slot("key", name, ad.uns.keys(), "adata.uns", remedy)
    record = get.record(ad, name)
    if record.get("method") != "shrinkage":
        msg = f"`adata.uns[{name!r}]` holds no self weights: it is the record of {record.get('method')!r}. {remedy}"
        raise ValueError(msg)
    return ad, record


def of_genes(ad: Any, key: str, name: str) -> np.ndarray:
    """Return a stored quantity of each gene."""
    column = Keys(key).of_genes(name)
    checks.has_slot("key", column, ad.var.columns, "adata.var", "Run `sctrellis.tl.shrinkage` first.")
    return ad.var[column].to_numpy(dtype=np.float64)


def values_of(ad: Any, key: str, source: str, what: str) -> np.ndarray | None:
    """Return finite self weights (``"weight"``) or alignments of the model, or of all controls of a kind."""
    short = SOURCES[source][0]
    if not short:
        values = of_genes(ad, key, "self_weight" if what == "weight" else what)
    else:
        name = Keys(key).of_genes(f"{short}_{what}")
        if name not in ad.varm:
            return None
        values = np.asarray(ad.varm[name], dtype=np.float64).ravel()
    return values[np.isfinite(values)]


def is_regulator(ad: Any) -> np.ndarray:
    """Return which genes may regulate; none where that is not stored."""
    if REGULATORS not in ad.var:
        return np.zeros(ad.n_vars, dtype=bool)
    return ad.var[REGULATORS].to_numpy(dtype=bool)


def histogram(ax: Any, ad: Any, key: str, what: str, edges: np.ndarray) -> None:
    """Draw the model's values as a filled histogram, and those of the controls as outlines of equal area."""
    for source, (_, colour, dashes) in SOURCES.items():
        values = values_of(ad, key, source, what)
        if values is None or not len(values):
            continue
        height, _ = np.histogram(values, edges)
        height = height / len(values)
        if source == "model":
            ax.stairs(height, edges, fill=True, color="0.75", label="model")
            ax.stairs(height, edges, color="black", linewidth=1.0)
        else:
            ax.stairs(height, edges, color=colour, linestyle=dashes, linewidth=1.6, label=source)
    ax.set_ylabel("share of the genes")
    _style.tidy(ax)


def title_of(record: dict[str, Any]) -> str:
    """Return the reading in two lines."""
    head, _, rest = str(record["reading"]["words"]).partition(": ")
    inside = rest.rpartition(" in ")[2]
    return f"{head[:1].upper()}{head[1:]}\n(aligned in {inside})"
