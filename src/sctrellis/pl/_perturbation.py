from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from sctrellis._core import checks
from sctrellis._core import sets as _sets
from sctrellis.pl import _style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from mudata import MuData

_VALUES = {
    "log_delta": "change of predicted log expression",
    "avg_delta": "change of predicted expression",
    "rel_delta_pct": "change of predicted expression (%)",
}
_WIDTH = 0.7


def perturbation(
    mdata: "MuData",
    keys: str | Sequence[str] = "grids",
    *,
    value: Literal["log_delta", "avg_delta", "rel_delta_pct"] = "log_delta",
    ax: "Axes | None" = None,
    **kwargs: Any,
) -> "Axes":
    """Draw how much expression changes when a set is perturbed, by method and by size of the set.

    Parameters
    ----------
    mdata
        Paired RNA and ATAC with results of ``tl.grids`` or ``tl.attribution``.
    keys
        Names of these results in ``mdata.uns``: one per method and size of the set.
    value
        ``"log_delta"``, the scale that is optimised (natural log units); ``"avg_delta"``, in the units of expression;
        or ``"rel_delta_pct"``, relative to each cell's own expression.
    ax
        Axes to draw in; None makes a figure.
    **kwargs
        Passed to :meth:`matplotlib.axes.Axes.scatter` for the means.

    Returns
    -------
    matplotlib.axes.Axes
        Sizes of the set from left to right. A small dot per gene and group of cells, and the mean of each method with
        its 95 % interval: the intervals of the tasks, taken as independent, so other cells but not other genes.

    Raises
    ------
    KeyError
        If there is no such result.
    ValueError
        If an entry holds no element sets, or two are of one method and size.

    See Also
    --------
    sctrellis.pl.perturbation_skill : how well measured knock-outs of genes are predicted.

    Examples
    --------
    >>> import pandas as pd, sctrellis as tr
    >>> mdata = tr.datasets.simulate_multiome(60)
    >>> delta = {"log_delta": -1.0, "log_delta_low": -1.2, "log_delta_high": -0.9}
    >>> tasks = mdata.uns["targets"][["group", "target"]].assign(**delta)
    >>> sets = mdata.uns["truth"][["group", "target", "peak"]].assign(rank=1, gain=-1.0)
    >>> record = {"schema": 1, "method": "grids", "params": {"n_peaks": 1}}
    >>> mdata.uns["grids"] = {**record, "sets": sets, "tasks": tasks}
    >>> tr.pl.perturbation(mdata).get_ylabel()
    'change of predicted log expression'
    """
    checks.choice("value", value, tuple(_VALUES))
    listed = [keys] if isinstance(keys, str) else list(keys)
    if not listed:
        msg = "Expected `keys` to name at least one result, found none."
        raise ValueError(msg)
    runs = pd.DataFrame([_run(mdata, key, value) for key in listed])
    twice = runs[runs.duplicated(["method", "size"], keep=False)]
    if len(twice):
        first = twice.iloc[0]
        msg = (
            f"`keys`: {checks.some(twice['key'], 8)} hold the same method and size ({first['method']!r}, "
            f"{first['size']}). Draw one of them, or each in axes of its own."
        )
        raise ValueError(msg)
    sizes = sorted(runs["size"].unique())
    # Where sets are largest, the method that moves most comes first.
    largest = runs.sort_values(
        ["size", "mean"], ascending=[False, True], key=lambda c: -c.abs() if c.name == "mean" else c
    )
    methods = list(dict.fromkeys(largest["method"]))
    ax = _style.axes(ax, (1.6 + max(2.4, 0.5 * len(runs) + 0.6 * len(sizes)), 3.6))
    ax.axhline(0, color="black", linewidth=1.0, linestyle=":", zorder=1)
    for i, method in enumerate(methods):
        own = runs[runs["method"] == method].sort_values("size")
        at = np.array([sizes.index(size) + _shift(runs, methods, method, size) for size in own["size"]])
        colour, marker = _style.COLOURS[i % 5], _style.MARKERS[i % 7]
        for place, tasks in zip(at, own["tasks"], strict=True):
            ax.scatter(np.full(len(tasks), place), tasks, s=9, color="0.72", linewidths=0, zorder=2)
        if len(own) > 1:
            ax.plot(at, own["mean"], color=colour, linestyle=_style.DASHES[i % 5], linewidth=1.2, zorder=3)
        ax.vlines(at, own["mean"] - own["half"], own["mean"] + own["half"], color=colour, linewidth=2.2, zorder=3)
        options = {"s": 52, "zorder": 4, "edgecolors": colour, "linewidths": 1.4, **kwargs}
        ax.scatter(at, own["mean"], marker=marker, facecolors="white" if i % 2 else colour, label=method, **options)
    ax.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    ax.set_xlim(-0.6, len(sizes) - 0.4)
    ax.set_xlabel("peaks in the set")
    ax.set_ylabel(_VALUES[value])
    _style.tidy(ax)
    _style.legend(ax, handlelength=1.5)
    return ax


def _run(mdata: "MuData", key: str, value: str) -> dict[str, Any]:
    """Return method and size of a run, what it does to each task, and the mean with half its interval."""
    found = _sets.read(mdata, key)
    checks.has_slot("value", value, found.tasks.columns, f"mdata.uns[{key!r}]['tasks']")
    tasks = found.tasks.dropna(subset=[value])
    half = (tasks[f"{value}_high"] - tasks[f"{value}_low"]).to_numpy() / 2
    size = found.record.get("params", {}).get("n_peaks") or found.sets.groupby(["group", "target"]).size().max()
    return {
        "key": key,
        "method": str(tasks["method"].iloc[0]) if "method" in tasks else str(found.record["method"]),
        "size": int(size),
        "tasks": tasks[value].to_numpy(),
        "mean": float(tasks[value].mean()),
        "half": float(np.sqrt((half**2).sum()) / len(tasks)),
    }


def _shift(runs: pd.DataFrame, methods: list[str], method: str, size: int) -> float:
    """Return where a method stands among those that have sets of a size, about 0."""
    there = set(runs.loc[runs["size"] == size, "method"])
    beside = [name for name in methods if name in there]
    return _WIDTH * ((beside.index(method) + 0.5) / len(beside) - 0.5)
