import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sctrellis._core import checks, logs, record, slots
from sctrellis._core.keys import Keys
from sctrellis.metrics._deltas import MEASURES
from sctrellis.tl import _element_plan, _element_sets
from sctrellis.tl._attribution import ATTRIBUTION_METHODS, attribute
from sctrellis.tl._element_plan import Direction
from sctrellis.tl._grids import search

if TYPE_CHECKING:
    from mudata import MuData

METHODS = (*ATTRIBUTION_METHODS, "grids", "grids+")


def grids_benchmark(
    mdata: "MuData",
    methods: str | Sequence[str] | None = None,
    *,
    targets: str | Sequence[str] | None = None,
    groupby: str | None = None,
    groups: str | Sequence[str] | None = None,
    n_peaks: int = 10,
    direction: Direction = "down",
    value: float | None = None,
    candidates: "str | Sequence[str] | np.ndarray" = "cis",
    min_open: float = 0.005,
    n_cells: int = 1_024,
    n_boot: int = 1_000,
    key: str = "translate",
    links: str = "cis",
    seed: int | None = 0,
    device: str = "auto",
    n_jobs: int | None = None,
    progress: bool | None = None,
    key_added: str | None = None,
) -> pd.DataFrame:
    r"""Compare methods that choose sets of peaks on the same tasks, one row a method.

    Each method chooses its sets in the training cells of each group, and all are judged on the same test cells by the
    same surrogate. Which method is better on *expression* is another question: a surrogate that learnt nothing rewards
    whoever finds its noise.

    Parameters
    ----------
    mdata
        Paired data with a surrogate of :func:`sctrellis.tl.translate`.
    methods
        ``"grids+"`` and ``"grids"`` of :func:`sctrellis.tl.grids`, and methods of :func:`sctrellis.tl.attribution`,
        each with its defaults; None takes all.
    targets
        Names of the genes to explain; None takes, in each group, those of which the surrogate learnt something there.
    groupby
        Column of ``.obs`` with the groups of cells; None is that of the surrogate.
    groups
        Groups to search in, each on its own; None takes all with at least 10 training and 10 test cells.
    n_peaks
        Size of a set, L.
    direction
        ``"down"`` for sets that lower expression, ``"up"`` for sets that raise it.
    value
        What a perturbed peak is set to, in [0, 1]: 0 closes it, 1 opens it. None closes peaks to go down and opens them
        to go up, as published; closing peaks to go up finds silencers.
    candidates
        ``"cis"`` for the peaks that `links` links to the gene, ``"all"`` for every peak that the surrogate lets act on
        it, names of peaks, or a Boolean mask over the peaks.
    min_open
        Share of the cells of a group in which a peak must be open to be chosen, in [0, 1]; a closed one never is.
    n_cells
        Training cells of a group that are searched in, at most; more are drawn from.
    n_boot
        Draws of the test cells for the intervals; 0 gives none.
    key
        Name of the record of :func:`sctrellis.tl.translate` in ``mdata.uns``.
    links
        Key of ``mdata.varp`` with the linked peaks.
    seed
        Seed in [0, 2**32); None draws one and records it. All methods are given the same.
    device
        Torch device: ``"auto"`` takes CUDA when present, else the CPU; a device that is missing raises.
    n_jobs
        Batches of tasks at once: None is ``settings.n_jobs``, -1 all cores. Through joblib, so
        ``joblib.parallel_config`` applies; the result does not depend on it.
    progress
        Progress bar over tasks; None follows ``settings.progress``.
    key_added
        Key of ``mdata.uns`` for the table and its record; None is ``"grids_benchmark"``.

    Returns
    -------
    DataFrame
        A row for each method, also stored in ``mdata.uns[key_added]["table"]``. ``method``; ``n_peaks``; ``n_tasks``;
        ``log_delta``, ``avg_delta`` and ``rel_delta_pct``, means over tasks as in :func:`sctrellis.tl.grids`, each with
        ``_low`` and ``_high``, a 95 % interval over test cells; ``best_share``, the mean over tasks of ``log_delta`` as
        a share of the largest that any method reached (NaN where none moved expression the right way); ``n_best``,
        tasks in which no other method did better by more than 1e-6 on the cells that were searched in; ``seconds`` on
        the clock. ``mdata.uns[key_added]["tasks"]`` has a row for each method and task.

    Raises
    ------
    KeyError
        If there is no surrogate, no links, or no such column.
    ValueError
        If a method, gene, group or peak is unknown, a group has too few cells, no task has `n_peaks` candidates, the
        surrogate is of other genes or peaks, or a value is out of range.
    TypeError
        If an argument has the wrong type.

    Notes
    -----
    The bootstrap draws the test cells of each group anew, the same draws for every method, and averages over tasks: it
    says how much cells vary, not tasks or fits of the surrogate.

    Examples
    --------
    >>> import sctrellis as tr
    >>> mdata = tr.datasets.simulate_multiome(600, 240, 8, n_targets=2, n_groups=2, kinds="ANDADD", seed=1)
    >>> target = mdata.uns["targets"].iloc[0]
    >>> tr.tl.translate(mdata, groupby="cell_group", targets=target["target"], n_runs=1)
    >>> options = {"targets": target["target"], "groups": target["group"], "n_peaks": 2}
    >>> table = tr.tl.grids_benchmark(mdata, ["random", "grids+"], **options).set_index("method")
    >>> bool(table.loc["grids+", "log_delta"] < table.loc["random", "log_delta"])
    True
    """
    values = locals()
    chosen = list(METHODS) if methods is None else [methods] if isinstance(methods, str) else list(methods)
    for method in chosen:
        checks.choice("methods", method, METHODS)
    if not chosen or len(set(chosen)) < len(chosen):
        msg = f"Expected `methods` to hold at least one name, each once; found {chosen!r}."
        raise ValueError(msg)
    seed = checks.seed(seed)
    n_jobs = checks.n_jobs(n_jobs)
    keys = Keys.for_method("grids_benchmark", key_added)
    plan = _element_plan.plan(mdata, values, seed=seed)
    rows, tasks = [], []
    for method in chosen:
        find = partial(search if method.startswith("grids") else attribute, method=method)
        start = time.perf_counter()
        tables = _element_sets.run(plan, find, method, n_jobs=n_jobs, progress=progress)
        if tables.interrupted:
            raise KeyboardInterrupt  # a comparison of unequal tasks is none
        rows.append(_row(method, plan, tables, time.perf_counter() - start))
        tasks.append(tables.tasks)
    _element_sets.warn_of(plan, tables)
    every = pd.concat(tasks, ignore_index=True, join="inner")
    table = pd.DataFrame(rows)
    for name, column in _compared(every, plan.sign).items():
        table.insert(len(table.columns) - 1, name, column.reindex(table["method"]).to_numpy())
    entry = record.build(
        "grids_benchmark",
        mdata,
        params=record.arguments(grids_benchmark, {**values, "methods": chosen, "value": plan.value}),
        seed=seed,
        slots={"table": f"uns/{keys.record}"},
        fit={"device": plan.device},
        extra={"table": table, "tasks": every},
    )
    logs.added(slots.write(mdata, uns={keys.record: entry}))
    return table


def _row(method: str, plan: _element_plan.Plan, tables: _element_sets.Tables, seconds: float) -> dict[str, Any]:
    low, high = tables.mean.interval()
    row: dict[str, Any] = {
        "method": method,
        "n_peaks": plan.n_peaks,
        "n_tasks": int((tables.tasks["status"] == "ok").sum()),
    }
    for i, measure in enumerate(MEASURES):
        row |= {
            measure: float(tables.mean.estimate[0, i]),
            f"{measure}_low": float(low[0, i]),
            f"{measure}_high": float(high[0, i]),
        }
    return row | {"seconds": seconds}


def _compared(tasks: pd.DataFrame, sign: float) -> dict[str, pd.Series]:
    """Return what each method reached of the best method of each task, and how often it was the best in its search."""
    done = tasks[tasks["status"] == "ok"]

    def by_task(column: str) -> pd.DataFrame:
        return -sign * done.pivot(index=["group", "target"], columns="method", values=column)

    reached, searched = by_task("log_delta"), by_task("search_log_delta")
    best = reached.max(axis=1)
    share = reached.div(best.where(best > 0), axis=0)
    return {
        "best_share": share.mean(),
        "n_best": searched.ge(searched.max(axis=1) - 1e-6, axis=0).sum(),
    }
