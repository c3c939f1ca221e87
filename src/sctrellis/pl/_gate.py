from typing import TYPE_CHECKING, Any

import numpy as np

from sctrellis._core import checks, slots
from sctrellis._core.keys import Keys
from sctrellis.pl import _sensitivity, _style

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

_FEW = 5
"""Genes below which a violin would show a shape that is not there; dots are drawn instead."""


def gate(adata: "AnnData | MuData", key: str = "regnet", *, mod: str | None = None, ax: "Axes | None" = None) -> "Axes":
    r"""Draw how far attention enters the genes' features, for regulators beside other genes.

    Parameters
    ----------
    adata
        The AnnData, or a MuData with ``mod``.
    key
        Key of the fitted RegNet.
    mod
        Modality to use where ``adata`` is a MuData.
    ax
        Axes to draw in; None makes a figure.

    Returns
    -------
    matplotlib.axes.Axes
        One violin for each kind of gene, with its median and quartiles; dots where there are fewer than 5 genes. The
        axis shows the range of the data, not 0 to 1: a narrow one means that the gate is nearly constant.

    Raises
    ------
    KeyError
        If no gate is stored.

    Examples
    --------
    >>> import sctrellis as tr
    >>> adata = tr.datasets.toy()
    >>> tr.pp.split_edges(adata, "network")
    >>> tr.tl.regnet(adata, network="network", max_epochs=1)
    >>> [text.get_text() for text in tr.pl.gate(adata).get_xticklabels()]
    ['regulators\n(6)', 'other genes\n(24)']
    """
    ad = slots.source(adata, mod)
    column = Keys(key).gate
    checks.has_slot("key", column, ad.var.columns, "adata.var", "Run `sctrellis.tl.regnet` first.")
    values, regulator = ad.var[column].to_numpy(dtype=np.float64), _sensitivity.is_regulator(ad)
    ax = _style.axes(ax, (3.6, 3.4))
    labels = []
    for at, (name, which, colour) in enumerate(
        (("regulators", regulator, _style.COLOURS[1]), ("other genes", ~regulator, _style.COLOURS[4]))
    ):
        part = values[which & np.isfinite(values)]
        labels.append(f"{name}\n({len(part):,})")
        if len(part) < _FEW:
            ax.scatter(np.full(len(part), at), part, color=colour)
            continue
        bodies: Any = ax.violinplot(part, [at], widths=0.8, showextrema=False)["bodies"]
        (body,) = bodies
        body.set(facecolor=colour, edgecolor="black", alpha=0.7, linewidth=0.8)
        low, median, high = np.quantile(part, [0.25, 0.5, 0.75])
        ax.vlines(at, low, high, color="black", linewidth=3.5)
        ax.scatter(at, median, color="white", edgecolors="black", s=26, zorder=3)
    ax.set_xticks(range(len(labels)), labels)
    ax.set_ylabel("mean gate\n(share of the attention's context)")
    _style.tidy(ax)
    return ax
