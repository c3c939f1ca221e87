from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sctrellis import get
from sctrellis._core import checks
from sctrellis.pl import _style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from mudata import MuData


def search_trace(
    mdata: "MuData",
    target: str | None = None,
    group: str | None = None,
    *,
    key: str = "grids",
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw how a search for a set of elements went: what its starts found, and what swaps made of them.

    Where all starts end at one level, the answer does not hang on the start; where they end at many, the landscape is
    rugged, as redundant elements make it.

    Parameters
    ----------
    mdata
        Paired data with sets of :func:`sctrellis.tl.grids`.
    target
        Gene; None takes the first that was searched.
    group
        Group of cells; None takes the first in which the gene was searched.
    key
        Name of the record of ``tl.grids`` in ``mdata.uns``.
    ax
        Axes to draw in; None makes a figure.

    Returns
    -------
    matplotlib.axes.Axes
        The change of log expression. Of a search with several starts, a line for each, from what it found to what swaps
        made of it, the best ones dark, with names where they end; of one with a single start, the best so far by step.

    Raises
    ------
    KeyError
        If there is no such record.
    ValueError
        If the record is of something else, the task was not searched, or all its sets were compared.

    Examples
    --------
    >>> import sctrellis as tr
    >>> mdata = tr.datasets.simulate_multiome(600, 240, 8, n_targets=2, n_groups=2, kinds="ANDADD", seed=1)
    >>> task = mdata.uns["targets"].iloc[0]
    >>> tr.tl.translate(mdata, groupby="cell_group", targets=task["target"], n_runs=1)
    >>> tr.tl.grids(mdata, targets=task["target"], groups=task["group"], n_peaks=2, max_exhaustive=0, n_boot=0)
    >>> ax = tr.pl.search_trace(mdata)
    >>> [label.get_text() for label in ax.get_xticklabels()]
    ['as the start found it', 'after swaps']
    """
    from matplotlib.ticker import MaxNLocator

    record = get.record(mdata, key)
    tables = record.get("tasks"), record.get("trace"), record.get("starts")
    if record.get("method") != "grids" or not all(isinstance(table, pd.DataFrame) for table in tables):
        msg = (
            f"`mdata.uns[{key!r}]` holds no search: it is the record of {record.get('method')!r}. Run "
            "`sctrellis.tl.grids` and pass its `key_added` as `key`."
        )
        raise ValueError(msg)
    tasks, trace, starts = (table.astype({"group": str, "target": str}) for table in tables if table is not None)
    task = _task(tasks, target, group)
    trace, starts = (
        table[(table["target"] == task["target"]) & (table["group"] == task["group"])] for table in (trace, starts)
    )
    if trace.empty:
        msg = (
            f"All sets of {task['target']!r} in {task['group']!r} were compared, so there was no search. Pass "
            "`max_exhaustive=0` to `sctrellis.tl.grids` to search all the same."
        )
        raise ValueError(msg)

    several = len(starts) > 1
    ax = _style.axes(ax, (6.4, 3.6) if several else (4.6, 3.2))
    if several:
        _slopes(ax, starts, sign=-1 if record["params"]["direction"] == "down" else 1)
    else:
        steps, values = trace["step"].to_numpy(), trace["log_delta"].to_numpy()
        steps = np.concatenate([[0], steps, [steps[-1] + 1]])
        values = np.concatenate([starts["first"], values, values[-1:]])
        ax.step(steps, values, where="post", color=_style.COLOURS[0], linewidth=2.0)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_xlabel("step")
    ax.axhline(0, color="0.5", linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
    ax.set_ylabel("change of log expression\n(cells that were searched in)")
    n = f"{len(starts)} starts" if several else "one start"
    ax.set_title(f"{task['target']} in {task['group']}: {task['method']}, {n}", loc="left")
    _style.tidy(ax)
    return ax


def _slopes(ax: "Axes", starts: pd.DataFrame, *, sign: int) -> None:
    """Draw a line from what each start found to what swaps made of it, the best ones dark, and name where they end."""
    best = (sign * starts["last"]).max()
    for ends in starts[["first", "last"]].to_numpy():
        wins = sign * ends[1] >= best - 1e-6
        color, width = (_style.COLOURS[0], 1.8) if wins else ("0.6", 0.9)
        ax.plot([0, 1], ends, marker="o", markersize=4, color=color, linewidth=width, zorder=2 + wins)
    span = float(np.ptp(np.append(starts[["first", "last"]], 0)))
    for level, names in _levels(starts, span):
        ax.annotate(
            names,
            (1, level),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize="small",
            color=_style.INK,
        )
    ax.set_xlim(-0.1, 1.02)
    ax.set_xticks([0, 1], ["as the start found it", "after swaps"])


def _task(tasks: pd.DataFrame, target: str | None, group: str | None) -> pd.Series:
    chosen = tasks[tasks["status"].astype(str) == "ok"]
    for name, wanted in (("target", target), ("group", group)):
        if wanted is not None:
            present = list(dict.fromkeys(chosen[name]))
            chosen = chosen[chosen[name] == wanted]
            if chosen.empty:
                msg = f"`{name}`: {wanted!r} was not searched. Searched: {checks.some(present)}."
                raise ValueError(msg)
    return chosen.iloc[0]


def _levels(starts: pd.DataFrame, span: float) -> list[tuple[float, str]]:
    """Return the levels that starts end at, and who ends there; levels too close to be read apart are one."""
    ordered = starts.sort_values("last")
    levels: list[tuple[float, list[str]]] = []
    for name, last in zip(ordered["start"].astype(str), ordered["last"], strict=True):
        if levels and last - levels[-1][0] < 0.05 * span:
            levels[-1][1].append(name)
        else:
            levels.append((float(last), [name]))
    return [(level, _listed(names)) for level, names in levels]


def _listed(names: list[str]) -> str:
    """Return names in brief: kinds of starts, with their number where there are several."""
    kinds = pd.Series([name.split("_")[0] if name[-1].isdigit() else name for name in names]).value_counts(sort=False)
    return ", ".join(
        f"{n} {kind}" if n > 1 else kind.replace("_", " ")
        for kind, n in zip(kinds.index.astype(str), kinds, strict=True)
    )
