from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sctrellis._core import checks, slots
from sctrellis._core.keys import Keys
from sctrellis.pl import _sensitivity, _style

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

_PANELS = {"expression": "expression", "latent": "latent mean"}


def latent(
    adata: "AnnData | MuData",
    key: str = "regnet",
    *,
    mod: str | None = None,
    ax: "Sequence[Axes] | None" = None,
) -> "dict[str, Axes]":
    """Draw the maps of the genes by expression and by latent vector side by side.

    Parameters
    ----------
    adata
        The AnnData, or a MuData with ``mod``.
    key
        Key of the fitted RegNet.
    mod
        Modality to use where ``adata`` is a MuData.
    ax
        Two axes to draw in; None makes a figure.

    Returns
    -------
    dict
        ``"expression"`` and ``"latent"`` to their :class:`matplotlib.axes.Axes`. One point a gene, regulators filled;
        genes without messages in the model's graph are crosses where :func:`sctrellis.tl.shrinkage` has counted them.

    Raises
    ------
    KeyError
        If the coordinates are missing.
    ValueError
        If there are not two axes.

    Examples
    --------
    >>> import numpy as np, sctrellis as tr
    >>> adata = tr.datasets.toy()
    >>> for name in ("X_regnet_umap", "X_regnet_expression_umap"):  # as `tr.tl.latent_map` writes them
    ...     adata.varm[name] = np.random.default_rng(0).random((adata.n_vars, 2))
    >>> sorted(tr.pl.latent(adata))
    ['expression', 'latent']
    """
    ad = slots.source(adata, mod)
    keys = Keys(key)
    names = {"expression": keys.expression_map, "latent": keys.latent_map}
    for name in names.values():
        checks.has_slot(
            "key", name, ad.varm.keys(), "adata.varm", f"Run `sctrellis.tl.latent_map(adata, {key!r})` first."
        )
    axes = dict(zip(names, _style.panels(ax, 2, (3.6, 3.4)), strict=True))
    regulator = _sensitivity.is_regulator(ad)
    degree = keys.of_genes("in_degree")
    alone = ad.var[degree].to_numpy() == 0 if degree in ad.var else np.zeros(ad.n_vars, dtype=bool)
    groups: tuple[tuple[np.ndarray, dict[str, Any], str], ...] = (
        (~regulator & ~alone, _sensitivity.OTHER, "other gene"),
        (regulator & ~alone, _sensitivity.REGULATOR, "regulator"),
        (alone, {"marker": "x", "s": 12, "color": "0.35", "linewidths": 0.7}, "no message"),
    )
    for panel, at in axes.items():
        points = np.asarray(ad.varm[names[panel]], dtype=np.float64)
        for which, look, label in groups:
            if which.any():
                at.scatter(*points[which].T, label=label, alpha=0.7, rasterized=True, **look)
        at.set_title(_PANELS[panel], loc="left")
        at.set(xticks=[], yticks=[], xlabel="UMAP 1", ylabel="UMAP 2")
        _style.tidy(at)
    _style.legend(axes["latent"], handlelength=1.0)
    return axes
