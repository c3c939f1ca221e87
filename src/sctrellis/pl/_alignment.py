from typing import TYPE_CHECKING

import numpy as np

from sctrellis.pl import _sensitivity, _style

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData


def alignment(
    adata: "AnnData | MuData", key: str = "regnet", *, mod: str | None = None, ax: "Axes | None" = None
) -> "Axes":
    """Draw how far own and neighbours' responses point the same way: where they do not, nothing is shrunk.

    Parameters
    ----------
    adata
        The AnnData, or a MuData with ``mod``.
    key
        ``key_added`` of :func:`sctrellis.tl.shrinkage`: the key of the model where it was left out.
    mod
        Modality to use where ``adata`` is a MuData.
    ax
        Axes to draw in; None makes a figure.

    Returns
    -------
    matplotlib.axes.Axes
        Histogram of the alignments of the model's genes, with those of the controls as outlines. The upright line is
        the alignment from which on a gene is called shrinkage-like; the title says how many are.

    Raises
    ------
    KeyError
        If there is no such record or column.
    ValueError
        If the record is of another method.

    Examples
    --------
    >>> import sctrellis as tr
    >>> adata = tr.datasets.toy()
    >>> tr.pp.split_edges(adata, "network")
    >>> tr.tl.regnet(adata, network="network", max_epochs=1)
    >>> tr.tl.shrinkage(adata, n_init=1, n_rewired=2, n_boot=20)
    >>> tr.pl.alignment(adata).get_xlabel()
    "alignment of own and neighbours' response (cosine)"
    """
    ad, record = _sensitivity.record_of(adata, key, mod)
    ax = _style.axes(ax, (5.6, 3.4))
    _sensitivity.histogram(ax, ad, key, "alignment", np.linspace(-1, 1, 41))
    border = float(record["params"]["min_alignment"])
    ax.axvline(border, color=_style.INK, linewidth=1.2, linestyle=(0, (2, 2)), label=f"shrinkage-like from {border:g}")
    ax.set_xlim(-1.0, 1.0)
    ax.set_xlabel("alignment of own and neighbours' response (cosine)")
    ax.set_title(_sensitivity.title_of(record), loc="left", fontsize="medium")
    _style.legend(ax)
    return ax
