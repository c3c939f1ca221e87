from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from sctrellis._core import checks
from sctrellis.pl import _sensitivity, _style

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

Panel = Literal["in_degree", "distribution", "mean_expression"]
_PANELS: tuple[Panel, ...] = ("in_degree", "distribution", "mean_expression")
_MESSAGES = {
    "regulators": "regulators in the message graph",
    "targets": "targets in the message graph",
    "both": "regulators and targets in the message graph",
}


def shrinkage(
    adata: "AnnData | MuData",
    key: str = "regnet",
    *,
    panels: Sequence[Panel] | Panel = _PANELS,
    mod: str | None = None,
    ax: "Axes | Sequence[Axes] | None" = None,
) -> "dict[str, Axes]":
    """Draw self weights against in-degree and mean expression, and their distribution, with those of the controls.

    Parameters
    ----------
    adata
        The AnnData, or a MuData with ``mod``.
    key
        ``key_added`` of :func:`sctrellis.tl.shrinkage`: the key of the model where it was left out.
    panels
        ``"in_degree"`` and ``"mean_expression"``: one point a gene, regulators filled; medians in bins with 95 % bands,
        of model and controls. ``"distribution"``: histograms.
    mod
        Modality to use where ``adata`` is a MuData.
    ax
        Axes to draw in, one for each panel; None makes a figure.

    Returns
    -------
    dict
        Panel to its :class:`matplotlib.axes.Axes`. Genes without neighbours have no self weight: they are counted in a
        strip at 0, not drawn. The scale at the right is the neighbours' share.

    Raises
    ------
    KeyError
        If there is no such record or column.
    ValueError
        If the record is of another method, a panel is unknown, or there are not as many axes as panels.

    Examples
    --------
    >>> import sctrellis as tr
    >>> adata = tr.datasets.toy()
    >>> tr.pp.split_edges(adata, "network")
    >>> tr.tl.regnet(adata, network="network", max_epochs=1)
    >>> tr.tl.shrinkage(adata, n_init=1, n_rewired=2, n_boot=20)
    >>> tr.pl.shrinkage(adata)["in_degree"].get_xlabel()
    'regulators in the message graph'
    """
    chosen: tuple[Any, ...] = (panels,) if isinstance(panels, str) else tuple(panels)
    for panel in chosen:
        checks.choice("panels", panel, _PANELS)
    ad, record = _sensitivity.record_of(adata, key, mod)
    axes = dict(zip(chosen, _style.panels(ax, len(chosen), (4.4, 3.6)), strict=True))
    curves = record["curves"].astype({"quantity": str, "source": str})
    for panel, at in axes.items():
        if panel == "distribution":
            _sensitivity.histogram(at, ad, key, "weight", np.linspace(0, 1, 41))
            at.set_xlim(0, 1)
            at.set_xlabel("self weight")
        else:
            _against(at, ad, key, panel, curves[curves["quantity"] == panel])
            if panel == "in_degree":
                _degrees(at, ad, key, record["direction"])
            else:
                at.set_xlabel("mean expression")
    first = axes[chosen[0]]
    first.set_title(_sensitivity.title_of(record), loc="left", fontsize="medium")
    handles: dict[str, Any] = {}
    for at in axes.values():
        handles |= {label: handle for handle, label in zip(*at.get_legend_handles_labels(), strict=True)}
    _style.legend(axes[chosen[-1]], list(handles.values()), labels=list(handles), bbox_to_anchor=(1.25, 1.0))
    return axes


def _against(ax: "Axes", ad: "AnnData", key: str, quantity: str, curves: pd.DataFrame) -> None:
    x, weight = (_sensitivity.of_genes(ad, key, name) for name in (quantity, "self_weight"))
    regulator = _sensitivity.is_regulator(ad)
    for which, look, label in (
        (~regulator, _sensitivity.OTHER, "other gene"),
        (regulator, _sensitivity.REGULATOR, "regulator"),
    ):
        if (which & np.isfinite(weight)).any():
            ax.scatter(x[which], weight[which], label=label, alpha=0.45, zorder=1, rasterized=True, **look)
    for source, (_, colour, dashes) in _sensitivity.SOURCES.items():
        line = curves[curves["source"] == source].sort_values("x")
        if line.empty:
            continue
        ax.fill_between(line["x"], line["low"], line["high"], color=colour, alpha=0.25, linewidth=0, zorder=2)
        ax.plot(line["x"], line["value"], color=colour, linestyle=dashes, linewidth=1.8, label=source, zorder=3)
    ax.set_ylim(0, 1)
    ax.set_ylabel("self weight")
    both_ways: Any = (_rest, _rest)
    ax.secondary_yaxis("right", functions=both_ways).set_ylabel("neighbours' share")
    ax.spines["top"].set_visible(False)


def _degrees(ax: "Axes", ad: "AnnData", key: str, direction: str) -> None:
    from matplotlib.ticker import FuncFormatter

    degree, weight = (_sensitivity.of_genes(ad, key, name) for name in ("in_degree", "self_weight"))
    ax.set_xscale("symlog", linthresh=1, linscale=0.5)
    ax.set_xlim(-0.5, max(2.0, 1.3 * np.nanmax(degree)))
    # Decades below 1 mean nothing for a number of genes.
    most = max(np.nanmax(degree), 1)
    # A single decade would leave the axis with one number beside 0.
    steps = (1,) if most >= 20 else (1, 2, 5)
    ticks = [10**i * step for i in range(int(np.log10(most)) + 1) for step in steps]
    ax.set_xticks([0, *(tick for tick in ticks if tick <= most)])
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_locator(_no_ticks())
    n_alone = int((degree == 0).sum())
    if n_alone:
        ax.axvspan(-0.5, 0.5, facecolor="0.93", edgecolor="0.8", hatch="//", linewidth=0, zorder=0)
        ax.text(
            0.0, 0.5, f"{n_alone:,} genes without: undefined", rotation=90, ha="center", va="center", fontsize="small",
            color=_style.INK, bbox={"facecolor": "0.93", "edgecolor": "none", "pad": 1.5},
        )  # fmt: skip
    ax.set_xlabel(_MESSAGES[direction])


def _no_ticks() -> Any:
    from matplotlib.ticker import NullLocator

    return NullLocator()


def _rest(weight: np.ndarray) -> np.ndarray:
    return 1 - weight
