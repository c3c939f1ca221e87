from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sctrellis._core import checks
from sctrellis.pl import _evaluated, _style

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

_LEVELS = {"micro": "all pairs", "regulator": "mean over regulators", "target": "mean over targets"}


def scores(
    adata: "AnnData | MuData",
    keys: str | Sequence[str] | None = None,
    *,
    key: str = "evaluate",
    metric: str | None = None,
    level: Literal["micro", "regulator", "target"] = "micro",
    mod: str | None = None,
    ax: "Axes | None" = None,
    **kwargs: Any,
) -> "Axes":
    """Draw one metric of the evaluated networks as dots with their intervals, best on top.

    Methods are filled dots, baselines hollow ones, and a dotted line shows chance.

    Parameters
    ----------
    adata
        The AnnData, or a MuData with ``mod``.
    keys
        Networks to draw. None draws all. Baselines stay beside the networks that you name, unless you name baselines
        too: then only those.
    key
        Name of the record of ``tl.evaluate`` in ``adata.uns``.
    metric
        Metric of the table; None takes ``"auprc_ratio"``, or the table's first metric where that is missing.
    level
        ``"micro"`` over all pairs, ``"regulator"`` or ``"target"`` for the mean over regulators or targets.
    mod
        Modality to use where ``adata`` is a MuData.
    ax
        Axes to draw in; None makes a figure.
    **kwargs
        Passed to :meth:`matplotlib.axes.Axes.scatter`.

    Returns
    -------
    matplotlib.axes.Axes
        Networks from top to bottom by falling value, equal ones by name. A network without a value comes last, without
        a dot; one without an interval (too few regulators to tell) has a dot only.

    Raises
    ------
    KeyError
        If there is no such record, or if it lacks one of ``keys``.
    ValueError
        If the record holds no table, or the table no such metric and level.

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd, sctrellis as tr
    >>> adata = anndata.AnnData(np.ones((3, 2), np.float32))
    >>> table = {"key": ["random", "deepsem"], "kind": ["baseline", "method"], "metric": "auroc", "level": "micro"}
    >>> table = pd.DataFrame({**table, "value": [0.5, 0.8], "low": [0.4, 0.7], "high": [0.6, 0.9], "base": 0.1})
    >>> adata.uns["evaluate"] = {"schema": 1, "method": "evaluate", "table": table}
    >>> ax = tr.pl.scores(adata, metric="auroc")
    >>> [label.get_text() for label in ax.get_yticklabels()], ax.get_xlabel()
    (['deepsem', 'random'], 'AUROC (all pairs; 95 % interval)')
    """
    from matplotlib.lines import Line2D

    checks.choice("level", level, _LEVELS)
    table = _evaluated.choose(_evaluated.part(adata, key, "table", mod), keys, key)
    metrics = list(dict.fromkeys(table["metric"]))
    if metric is None:
        metric = "auprc_ratio" if "auprc_ratio" in metrics else metrics[0]
    checks.choice("metric", metric, metrics)
    rows = table[(table["metric"] == metric) & (table["level"] == level)]
    if rows.empty:
        levels = list(dict.fromkeys(table.loc[table["metric"] == metric, "level"]))
        msg = f"`adata.uns[{key!r}]` has {metric!r} at the levels {levels} only, found `level={level!r}`."
        raise ValueError(msg)
    rows = rows.sort_values(["value", "key"], ascending=[False, True], na_position="last")

    ax = _style.axes(ax, (5.2, 0.9 + 0.32 * len(rows)))
    place = np.arange(len(rows))
    hollow = (rows["kind"] == "baseline").to_numpy()
    value, low, high = (rows[c].to_numpy(dtype=float) for c in ("value", "low", "high"))
    line = ["0.45" if h else _style.COLOURS[0] for h in hollow]
    ax.hlines(place, low, high, color=line, linewidth=1.8, zorder=2)
    dots = {"s": 46, "linewidths": 1.5, "zorder": 3, **kwargs}
    ax.scatter(
        value,
        place,
        facecolors=["white" if h else c for h, c in zip(hollow, line, strict=True)],
        edgecolors=line,
        **dots,
    )
    handles = []
    for name, fill, colour, there in (
        ("method", _style.COLOURS[0], _style.COLOURS[0], not hollow.all()),
        ("baseline", "white", "0.45", hollow.any()),
    ):
        if there:
            mark: dict[str, Any] = {"marker": "o", "markersize": 7, "markerfacecolor": fill, "markeredgewidth": 1.5}
            handles.append(Line2D([], [], color=colour, linewidth=1.8, label=name, **mark))
    chance = _evaluated.chance(metric, level, float(rows["base"].iloc[0]))
    if chance is not None:
        handles.append(
            ax.axvline(chance, color="black", linewidth=1.0, linestyle=":", zorder=1, label=f"chance ({chance:.3g})")
        )
    ax.set_yticks(place, rows["key"])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xlabel(f"{_evaluated.NAMES.get(metric, metric)} ({_LEVELS[level]}; 95 % interval)")
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", color="0.92", linewidth=0.8)
    ax.set_axisbelow(True)
    _style.tidy(ax)
    ax.spines["left"].set_visible(False)
    _style.legend(ax, handles)
    return ax
