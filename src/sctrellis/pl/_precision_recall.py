from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sctrellis.pl import _evaluated, _style

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData


def precision_recall(
    adata: "AnnData | MuData",
    keys: str | Sequence[str] | None = None,
    *,
    key: str = "evaluate",
    mod: str | None = None,
    ax: "Axes | None" = None,
    **kwargs: Any,
) -> "Axes":
    """Draw precision against recall of the evaluated networks, with the baselines and chance.

    Methods are thick coloured lines that also differ in their dashes, baselines thin grey lines with hollow marks.

    Parameters
    ----------
    adata
        The AnnData, or a MuData with ``mod``.
    keys
        Networks to draw. None draws all. Baselines stay beside the networks that you name, unless you name baselines
        too: then only those.
    key
        Name of the record of ``tl.evaluate`` in ``adata.uns``.
    mod
        Modality to use where ``adata`` is a MuData.
    ax
        Axes to draw in; None makes a figure.
    **kwargs
        Passed to :meth:`matplotlib.axes.Axes.plot`.

    Returns
    -------
    matplotlib.axes.Axes
        One line per network, in the legend from the highest AUPRC to the lowest, and one for chance: the share of
        positive pairs. The y axis ends a little above the highest precision at a recall of 0.01 or more, since the
        precision of the very first edges is mostly noise.

    Raises
    ------
    KeyError
        If there is no such record, or if it lacks one of ``keys``.
    ValueError
        If the record holds no curves.

    Notes
    -----
    Reads two tables of the record. ``curves``: columns ``key``, ``kind`` (``"method"`` or ``"baseline"``), ``recall``
    and ``precision``, a few hundred rows per key in the order of the ranking; nothing is computed here. ``table``: the
    AUPRC of each key and the share of positives (``base``), both over all pairs (level ``"micro"``). Lines are
    steps, so that the area under them is the AUPRC. No precision exists at recall 0: each line begins there at the
    precision of its first point with a positive recall.

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd, sctrellis as tr
    >>> adata = anndata.AnnData(np.ones((3, 2), np.float32))
    >>> curves = {"key": ["deepsem"] * 2 + ["random"] * 2, "kind": ["method"] * 2 + ["baseline"] * 2}
    >>> curves = pd.DataFrame({**curves, "recall": [0.5, 1.0, 0.5, 1.0], "precision": [1.0, 0.4, 0.2, 0.2]})
    >>> table = {"key": ["deepsem", "random"], "kind": ["method", "baseline"], "metric": "auprc", "level": "micro"}
    >>> table = pd.DataFrame({**table, "value": [0.7, 0.2], "base": 0.2})
    >>> adata.uns["evaluate"] = {"schema": 1, "method": "evaluate", "curves": curves, "table": table}
    >>> ax = tr.pl.precision_recall(adata)
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['deepsem (0.700)', 'random (0.200)', 'chance (0.200)']
    """
    curves = _evaluated.choose(_evaluated.part(adata, key, "curves", mod), keys, key)
    table = _evaluated.part(adata, key, "table", mod)
    micro = table[(table["metric"] == "auprc") & (table["level"] == "micro")]
    area = dict(zip(micro["key"], micro["value"], strict=True))
    base = float(table["base"].iloc[0])

    names = sorted(dict.fromkeys(curves["key"]), key=lambda name: (-area.get(name, -np.inf), name))
    ax = _style.axes(ax, (5.6, 3.6))
    top, drawn = base, {"method": 0, "baseline": 0}
    for name in names:
        curve = curves[curves["key"] == name]
        kind = "baseline" if (curve["kind"] == "baseline").all() else "method"
        recall, precision = curve["recall"].to_numpy(dtype=float), curve["precision"].to_numpy(dtype=float)
        if recall[0] > recall[-1]:
            recall, precision = recall[::-1], precision[::-1]
        recall, precision = recall[recall > 0], precision[recall > 0]
        top = max(top, precision[recall >= 0.01].max())
        label = f"{name} ({area[name]:.3f})" if name in area else name
        look = {**_look(kind, drawn[kind]), "drawstyle": "steps-pre", **kwargs}
        ax.plot(np.append(0.0, recall), np.append(precision[0], precision), label=label, **look)
        drawn[kind] += 1
    ax.axhline(base, color="black", linewidth=1.0, linestyle=":", label=f"chance ({base:.3f})")
    ax.set_xlim(0, 1)
    ax.set_ylim(0, min(1.02, 1.1 * top))
    ax.set_xlabel("recall (share of known edges found)")
    ax.set_ylabel("precision (share of top edges known)")
    _style.tidy(ax)
    _style.legend(ax, title="network (AUPRC)" if area else None, alignment="left")
    return ax


def _look(kind: str, i: int) -> dict[str, Any]:
    """Return how to draw the ``i``-th line of its kind."""
    if kind == "method":
        # Colours and dashes go round at different speeds, so that every pair of them is used.
        n = len(_style.COLOURS)
        dash = _style.DASHES[(i + i // n) % len(_style.DASHES)]
        return {"color": _style.COLOURS[i % n], "linestyle": dash, "linewidth": 2.0, "zorder": 3}
    return {
        "color": _style.GREYS[i % len(_style.GREYS)],
        "linewidth": 0.9,
        "marker": _style.MARKERS[i % len(_style.MARKERS)],
        "markersize": 5,
        "markerfacecolor": "white",
        "markevery": (0.03 + 0.02 * (i % 4), 0.15),
        "zorder": 2,
    }
