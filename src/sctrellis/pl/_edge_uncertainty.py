from typing import TYPE_CHECKING

import numpy as np

from sctrellis._core import audited, checks, slots
from sctrellis._core.keys import Keys
from sctrellis.pl import _style

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData


def edge_uncertainty(
    adata: "AnnData | MuData",
    key: str = "regnet",
    *,
    n_top: int = 500,
    mod: str | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the standard deviation of each pair's log-odds against its probability.

    Parameters
    ----------
    adata
        The AnnData, or a MuData with ``mod``.
    key
        Key of the fitted network.
    n_top
        Pairs of the highest probability that are marked.
    mod
        Modality to use where ``adata`` is a MuData.
    ax
        Axes to draw in; None makes a figure.

    Returns
    -------
    matplotlib.axes.Axes
        Number of pairs in hexagons, on a logarithmic grey scale, and the top pairs as circles. The probability is on a
        logarithmic axis where it spans two decades or more.

    Raises
    ------
    KeyError
        If the network has no probability or no standard deviation.
    ValueError
        If `n_top` is negative, or no pair has both.

    Examples
    --------
    >>> import sctrellis as tr
    >>> adata = tr.datasets.toy()
    >>> tr.pp.split_edges(adata, "network")
    >>> tr.tl.regnet(adata, network="network", max_epochs=1)
    >>> tr.pl.edge_uncertainty(adata, n_top=20).get_xlabel()
    'probability of an edge'
    """
    n_top = checks.integer("n_top", n_top, minimum=0)
    ad = slots.source(adata, mod)
    keys = Keys(key)
    for name in (keys.prob, keys.std):
        checks.has_slot("key", name, ad.varp.keys(), "adata.varp", "`sctrellis.tl.regnet` writes both.")
    probability = slots.read_network(ad, keys.prob, argument="key").tocoo()
    p = probability.data.astype(np.float64)
    sd = slots.values_at(slots.read_network(ad, keys.std, argument="key"), probability.row, probability.col)
    sd = sd.astype(np.float64)
    there = np.isfinite(p) & np.isfinite(sd)
    if not there.any():
        msg = f"`key`: no pair of {key!r} has both a probability and a standard deviation."
        raise ValueError(msg)
    p, sd = p[there], sd[there]
    ax = _style.axes(ax, (5.4, 3.6))
    logarithmic = p.min() > 0 and p.max() >= 100 * p.min()
    drawn = ax.hexbin(
        p, sd, gridsize=45, bins="log", mincnt=1, cmap="Greys", linewidths=0.1,
        xscale="log" if logarithmic else "linear",
    )  # fmt: skip
    ax.figure.colorbar(drawn, ax=ax, label="pairs")
    top = np.argsort(-p, kind="stable")[:n_top]
    if len(top):
        ax.scatter(
            p[top], sd[top], s=12, facecolors="none", edgecolors=_style.COLOURS[1], linewidths=0.7, alpha=0.8,
            label=f"top {len(top):,}",
        )  # fmt: skip
        ax.legend(loc="best", frameon=True, framealpha=0.9, edgecolor="0.8")
    ax.set_xlabel("probability of an edge")
    ax.set_ylabel("SD of the log-odds (delta method)")
    _style.tidy(ax)
    _style.banner(ax, audited.say(ad, key))
    return ax
