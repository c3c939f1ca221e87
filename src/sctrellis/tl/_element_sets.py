"""What every method that chooses a set of peaks shares: batches of tasks, and the report on held-out cells."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sctrellis._core import checks, draws, logs, record, slots
from sctrellis._core.keys import Keys
from sctrellis._core.logs import logger
from sctrellis.metrics._deltas import MEASURES, Deltas, deltas, over_tasks
from sctrellis.tl import _element_plan
from sctrellis.tl._element_plan import Plan

if TYPE_CHECKING:
    from mudata import MuData

    from sctrellis.explain import AdditiveObjective


@dataclass(frozen=True)
class Found:
    """What a method found for a batch of tasks, on the cells it was given, as tensors.

    Parameters
    ----------
    index : (T, R, L)
        The sets, as candidates; of R sets the first is reported and all are averaged over.
    score : (T, M)
        Score of each candidate.
    loss : (T, R)
        Loss of the sets on those cells.
    before : (T,)
        Loss with nothing perturbed.
    facts
        Columns of the table of tasks, each (T,).
    trace, starts
        Losses of the search: best after each step (n_steps, T); and by start, first and last (T, 2).
    interrupted
        Whether the search was stopped.
    """

    index: Any
    score: Any
    loss: Any
    before: Any
    facts: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    trace: list[Any] = field(default_factory=list)
    starts: Mapping[str, Any] = field(default_factory=dict)
    interrupted: bool = False


Finder = Callable[["AdditiveObjective", int, list[int]], Found]
"""Takes an objective, the size of the sets and a seed for each task."""


@dataclass(frozen=True)
class Tables:
    """Results as tables, and the bootstrap replicates of the mean over tasks.

    Parameters
    ----------
    sets, tasks, trace, starts
        See the Returns of ``tl.grids``.
    mean
        Change averaged over tasks, as one task.
    interrupted
        Whether the search was stopped before all tasks were done.
    """

    sets: pd.DataFrame
    tasks: pd.DataFrame
    trace: pd.DataFrame
    starts: pd.DataFrame
    mean: Deltas
    interrupted: bool = False


def write_sets(
    mdata: "MuData",
    tool: Callable[..., Any],
    asked: Mapping[str, Any],
    find: Finder,
    *,
    keys: Keys,
    tables: Sequence[str],
) -> "MuData | None":
    """Find the sets that a tool was asked for and write its record; return the copy if one was asked for.

    Parameters
    ----------
    mdata
        Paired data with a surrogate.
    tool
        The public function, which gives the record its name.
    asked
        All its arguments.
    find
        The method.
    keys
        Where the record goes.
    tables
        Which tables the record has.
    """
    seed, n_jobs = checks.seed(asked["seed"]), checks.n_jobs(asked["n_jobs"])
    plan = _element_plan.plan(mdata, asked, seed=seed)
    found = run(plan, find, asked["method"], n_jobs=n_jobs, progress=asked["progress"])
    warn_of(plan, found)
    entry = record.build(
        tool.__name__,
        mdata,
        params=record.arguments(tool, {**asked, "value": plan.value}),
        seed=seed,
        slots={"sets": f"uns/{keys.record}"},
        fit={"device": plan.device, "interrupted": found.interrupted},
        extra={name: getattr(found, name) for name in tables},
    )
    root = mdata.copy() if asked["copy"] else mdata
    logs.added(slots.write(root, uns={keys.record: entry}))
    return root if asked["copy"] else None


def run(plan: Plan, find: Finder, name: str, *, n_jobs: int = 1, progress: bool | None = None) -> Tables:
    """Find and report the sets of all tasks; after an interrupt, of those that were done."""
    if n_jobs == 1:
        results: Iterator[_Batch] = (_batch(plan, group, genes, find) for group, genes in plan.batches)
    else:
        from joblib import Parallel, delayed

        jobs = (delayed(_batch)(plan, group, genes, find) for group, genes in plan.batches)
        results = Parallel(n_jobs=n_jobs, return_as="generator")(jobs)
    done: list[_Batch] = []
    n_tasks = sum(len(genes) for _, genes in plan.batches)
    bar = logs.progress_bar(n_tasks, name, progress=progress, unit="task")
    interrupted = False
    try:
        for batch in results:
            done.append(batch)
            bar.update(len(batch.tasks))
            if batch.interrupted:
                break
    except KeyboardInterrupt:
        if not done:
            raise
        interrupted = True
    finally:
        bar.close()
    interrupted = interrupted or done[-1].interrupted
    if interrupted:
        n_done = sum(len(batch.tasks) for batch in done)
        logger.warning("interrupted after %d of %d tasks; keeping the best sets so far", n_done, n_tasks)
    return _joined(plan, done, name, interrupted=interrupted)


def warn_of(plan: Plan, tables: Tables) -> None:
    """Warn of tasks whose sets mean little."""
    tasks = tables.tasks
    if plan.skipped:
        some = [f"{plan.gene_names[g]} in {group}: {count}" for group, g, count in plan.skipped]
        checks.warn(
            f"{len(plan.skipped)} tasks have fewer than `n_peaks={plan.n_peaks}` candidates and are left out "
            f"({checks.some(some)})."
        )
    done = tasks[tasks["status"] == "ok"]
    unknown = done.loc[~done["learned"], "target"]
    if len(unknown):
        checks.warn(
            f"The surrogate is not known to have learnt anything within the group for {len(unknown)} of {len(done)} "
            f"tasks ({checks.some(dict.fromkeys(unknown))}): their sets say nothing of regulation (`learned` is False)."
        )
    wrong = done.loc[done["search_log_delta"] * plan.sign > -1e-6, "target"]
    if len(wrong):
        way = "down" if plan.sign > 0 else "up"
        checks.warn(
            f"No set of {plan.n_peaks} peaks brings {len(wrong)} of {len(done)} targets {way} "
            f"({checks.some(dict.fromkeys(wrong))}). Lower `n_peaks`, or change `direction` or `value`."
        )


@dataclass(frozen=True)
class _Batch:
    """Tables of one batch of tasks, and what each task changed."""

    sets: pd.DataFrame
    tasks: pd.DataFrame
    trace: pd.DataFrame
    starts: pd.DataFrame
    change: Deltas
    interrupted: bool


def _batch(plan: Plan, group: str, genes: np.ndarray, find: Finder) -> _Batch:
    from sctrellis.explain._peaks import candidates, peak_objective

    search, held = plan.cells[group]
    chosen = candidates(plan.translator, genes, plan.usable[group], plan.links if plan.limited else None)
    names, hashed = plan.gene_names[genes], draws.hashes(plan.gene_names[genes])
    group_hash = int(draws.hashes([group])[0])
    # A task draws what it draws whatever other tasks there are.
    seeds = [_seed(plan.seed, group_hash, int(one)) for one in hashed]

    def objective(cells: np.ndarray) -> "AdditiveObjective":
        return peak_objective(
            plan.translator, plan.accessibility[cells], genes, chosen, groups=plan.groups[cells], value=plan.value,
            sign=plan.sign,
        )  # fmt: skip

    found = find(objective(search), plan.n_peaks, seeds)
    before, after, path = _outputs(objective(held), found.index)
    change = deltas(
        before, after, floor=plan.floor, unit=plan.unit, n_boot=plan.n_boot, seed=_seed(plan.seed, group_hash)
    )
    place = found.index[:, 0].cpu().numpy()
    peaks = np.take_along_axis(chosen.peaks, place, axis=1)
    n_tasks, size = peaks.shape
    learned = plan.learned[group][genes]
    sets = pd.DataFrame(
        {
            "group": group,
            "target": np.repeat(names.to_numpy(), size),
            "rank": np.tile(np.arange(1, size + 1), n_tasks),
            "peak": plan.peak_names[peaks.ravel()],
            "gain": np.diff(path, axis=1).ravel(),
            "cumulative": (path[:, 1:] - path[:, :1]).ravel(),
            "distance": _distances(plan, np.repeat(genes, size), peaks.ravel()),
            "p_open": plan.share_open[group][peaks.ravel()],
            "score": np.take_along_axis(found.score.cpu().numpy(), place, axis=1).ravel().astype(np.float64),
            "learned": np.repeat(learned, size),
            **{name: np.repeat(found.facts[name], size) for name in ("swap_optimal",) if name in found.facts},
        }
    )
    low, high = change.interval()
    measures = {
        name: part[:, i]
        for i, measure in enumerate(MEASURES)
        for name, part in ((measure, change.estimate), (f"{measure}_low", low), (f"{measure}_high", high))
    }
    first = found.before.cpu().numpy()[:, None]
    tasks = pd.DataFrame(
        {
            "group": group,
            "target": names.to_numpy(),
            "status": "ok",
            "learned": learned,
            "n_candidates": chosen.counts,
            "n_search_cells": len(search),
            "n_cells": len(held),
            "search_log_delta": plan.sign * (found.loss.cpu().numpy() - first).mean(axis=1, dtype=np.float64),
            **measures,
            **found.facts,
        }
    )
    trace = _trace(group, names, [plan.sign * (loss.cpu().numpy() - first[:, 0]) for loss in found.trace])
    if found.trace:
        tasks["steps"] = trace.groupby("target")["step"].max().reindex(names, fill_value=0).to_numpy()
    ends = {name: plan.sign * (loss.cpu().numpy() - first) for name, loss in found.starts.items()}
    return _Batch(sets, tasks, trace, _starts(group, names, ends), change, found.interrupted)


def _outputs(objective: "AdditiveObjective", index: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return outputs before (T, C) and after the sets (T, R, C), and means along the first set (T, L + 1)."""
    pre = objective.pre[:, None]
    before = objective.head(pre)
    means = [before.mean(dim=-1)]
    for place in range(index.shape[2]):
        pre = pre + objective.shift(index[:, :1, place : place + 1])
        means.append(objective.head(pre).mean(dim=-1))
    path = np.concatenate([mean.cpu().numpy() for mean in means], axis=1).astype(np.float64)
    return before[:, 0].cpu().numpy(), objective.outputs(index).cpu().numpy(), path


def _distances(plan: Plan, genes: np.ndarray, peaks: np.ndarray) -> np.ndarray:
    if plan.links is None:
        return np.full(len(genes), np.nan)
    return slots.values_at(plan.links, genes, peaks).astype(np.float64)


def _trace(group: str, names: pd.Index, steps: list[np.ndarray]) -> pd.DataFrame:
    """Return the best change so far at the first step, and wherever it became better."""
    path = np.array(steps, dtype=np.float64).reshape(len(steps), len(names))
    kept = np.ones(path.shape, dtype=bool)
    kept[1:] = path[1:] != path[:-1]
    task, step = np.nonzero((kept & ~np.isnan(path)).T)
    return pd.DataFrame(
        {"group": group, "target": names.to_numpy()[task], "step": step + 1, "log_delta": path[step, task]}
    )


def _starts(group: str, names: pd.Index, ends: Mapping[str, np.ndarray]) -> pd.DataFrame:
    values = np.array(list(ends.values()), dtype=np.float64).reshape(len(ends) * len(names), 2)
    table = pd.DataFrame(
        {
            "group": group,
            "target": np.tile(names.to_numpy(), len(ends)),
            "start": np.repeat(np.array(list(ends), dtype=object), len(names)),
            "first": values[:, 0],
            "last": values[:, 1],
        }
    )
    return table.dropna(ignore_index=True)


def _joined(plan: Plan, done: list[_Batch], name: str, *, interrupted: bool) -> Tables:
    left_out = pd.DataFrame(
        {
            "group": [group for group, *_ in plan.skipped],
            "target": [plan.gene_names[gene] for _, gene, _ in plan.skipped],
            "status": "too few candidates",
            "learned": [bool(plan.learned[group][gene]) for group, gene, _ in plan.skipped],
            "n_candidates": [count for *_, count in plan.skipped],
            "n_search_cells": [len(plan.cells[group][0]) for group, *_ in plan.skipped],
            "n_cells": [len(plan.cells[group][1]) for group, *_ in plan.skipped],
        }
    )
    tasks = pd.concat([batch.tasks for batch in done], ignore_index=True)
    for column in tasks.columns.difference(left_out.columns):
        kind = tasks[column].dtype.kind
        left_out[column] = {"f": np.nan, "b": False, "i": 0, "u": 0}.get(kind, "")
    tasks = pd.concat([tasks, left_out[tasks.columns]], ignore_index=True) if plan.skipped else tasks
    tasks.insert(2, "method", name)
    return Tables(
        sets=_in_order(plan, pd.concat([batch.sets for batch in done], ignore_index=True)),
        tasks=_in_order(plan, tasks),
        trace=_in_order(plan, pd.concat([batch.trace for batch in done], ignore_index=True)),
        starts=_in_order(plan, pd.concat([batch.starts for batch in done], ignore_index=True)),
        mean=over_tasks([batch.change for batch in done]),
        interrupted=interrupted,
    )


def _in_order(plan: Plan, table: pd.DataFrame) -> pd.DataFrame:
    """Return rows by group and gene in their own order, whatever batch they come from."""
    group = pd.Index(list(plan.cells)).get_indexer(pd.Index(table["group"]))
    order = np.lexsort((np.arange(len(table)), plan.gene_names.get_indexer(pd.Index(table["target"])), group))
    return table.iloc[order].reset_index(drop=True)


def _seed(*entropy: int) -> int:
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])
