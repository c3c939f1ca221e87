"""What every method that chooses a set of peaks shares: tasks, batches, and the report on held-out cells."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from scipy import sparse

from sctrellis._core import checks, draws, logs, slots
from sctrellis._core.logs import logger
from sctrellis.metrics._deltas import MEASURES, Deltas, deltas
from sctrellis.tl import _surrogate

if TYPE_CHECKING:
    import torch
    from mudata import MuData

    from sctrellis.explain import AdditiveObjective
    from sctrellis.models._translator import Translator

Direction = Literal["down", "up"]
MIN_CELLS = 10
"""Cells that a group must have for the search, and for the report."""
_AT_ONCE = 2**26
"""Numbers of pre-activation, over the starts of a search, that one batch of tasks may hold."""
_STARTS = 16


@dataclass(frozen=True)
class Found:
    """What a method found for a batch of tasks, on the cells it was given.

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

    index: "torch.Tensor"
    score: "torch.Tensor"
    loss: "torch.Tensor"
    before: "torch.Tensor"
    facts: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    trace: "list[torch.Tensor]" = field(default_factory=list)
    starts: "Mapping[str, torch.Tensor]" = field(default_factory=dict)
    interrupted: bool = False


Finder = Callable[["AdditiveObjective", int, list[int]], Found]
"""Takes an objective, the size of the sets and a seed for each task."""


@dataclass(frozen=True)
class Plan:
    """Tasks that were asked for, and the data and surrogate that they need.

    Parameters
    ----------
    translator, accessibility, groups
        The surrogate; the inputs (n_cells, n_peaks); the group of each cell as the surrogate numbers them.
    gene_names, peak_names
        Names in the two modalities.
    batches
        Group and genes of each batch of tasks.
    cells
        For each group, the cells to search in and those to report on.
    usable, share_open
        For each group, which peaks may be chosen, and in which share of the cells each is open.
    learned
        For each group, whether the surrogate learnt anything of each gene.
    links, limited
        Signed distances of genes x peaks or None, and whether candidates are limited to linked peaks.
    skipped
        Group, gene and number of candidates of the tasks that have too few.
    n_peaks, sign, value
        Size of the sets, direction, and what a perturbed peak is set to.
    floor, unit
        How log expression becomes expression; see :func:`sctrellis.metrics._deltas.deltas`.
    n_boot, seed
        Draws of the cells, and the seed of everything.
    """

    translator: "Translator"
    accessibility: sparse.csr_matrix
    groups: np.ndarray
    gene_names: pd.Index
    peak_names: pd.Index
    batches: list[tuple[str, np.ndarray]]
    cells: dict[str, tuple[np.ndarray, np.ndarray]]
    usable: dict[str, np.ndarray]
    share_open: dict[str, np.ndarray]
    learned: dict[str, np.ndarray]
    links: sparse.csr_matrix | None
    limited: bool
    skipped: list[tuple[str, int, int]]
    n_peaks: int
    sign: float
    value: float
    floor: float | None
    unit: float
    n_boot: int
    seed: int


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


def plan(
    mdata: "MuData",
    *,
    targets: str | Sequence[str] | None,
    groupby: str | None,
    groups: str | Sequence[str] | None,
    n_peaks: int,
    direction: Direction,
    value: float | None,
    candidates: Any,
    min_open: float,
    n_cells: int,
    n_boot: int,
    key: str,
    links: str,
    seed: int,
    device: str,
) -> Plan:
    """Check what was asked for, read what it needs, and divide it into batches."""
    checks.choice("direction", direction, ("down", "up"))
    checks.integer("n_peaks", n_peaks)
    value = float(direction == "up") if value is None else checks.number("value", value, low=0, high=1)
    checks.number("min_open", min_open, low=0, high=1)
    checks.integer("n_cells", n_cells, minimum=MIN_CELLS)
    checks.integer("n_boot", n_boot, minimum=0)
    from sctrellis.models import resolve_device

    at = resolve_device(device)
    translator, paired, entry = _surrogate.read_surrogate(mdata, key)
    translator = translator.to(at)
    rna, atac = (mdata.mod[entry["params"][name]] for name in ("rna", "atac"))
    masked, limited = _mask(candidates, atac.var_names)
    near = None
    if limited or links in mdata.varp:
        near = slots.read_cis(mdata, links, rna=entry["params"]["rna"], atac=entry["params"]["atac"])
    labels = _labels(mdata, groupby, paired, entry)
    cells = _cells(labels, groups, paired.split, n_cells, seed)
    x = paired.accessibility
    share = {group: np.asarray((x[search] > 0).mean(axis=0)).ravel() for group, (search, _) in cells.items()}
    usable = {group: masked & (open_ >= min_open) & (open_ > 0) for group, open_ in share.items()}
    learned = {group: _learned(entry, rna.var_names, group) for group in cells}
    fitted = translator.genes.cpu().numpy()
    asked = _targets(targets, rna.var_names, fitted, learned)
    batches, skipped = [], []
    for group, (search, _) in cells.items():
        genes = asked if targets is not None else asked[learned[group][asked]]
        counts = _counts(translator, genes, usable[group], near if limited else None)
        enough = counts >= n_peaks
        skipped += [(group, int(g), int(c)) for g, c in zip(genes[~enough], counts[~enough], strict=True)]
        # Like with like: a batch is as wide as its widest task.
        order = genes[enough][np.argsort(counts[enough], kind="stable")]
        widest = int(counts.max(initial=1))
        size = max(len(search) * translator.n_blocks * _STARTS, widest) * translator.width
        step = max(1, _AT_ONCE // size)
        batches += [(group, order[i : i + step]) for i in range(0, len(order), step)]
    _any_left(batches, skipped, n_peaks, rna.var_names, limited=limited)
    total = np.asarray(paired.expression.sum(axis=1)).mean()
    return Plan(
        translator=translator,
        accessibility=x,
        groups=paired.groups,
        gene_names=rna.var_names,
        peak_names=atac.var_names,
        batches=batches,
        cells=cells,
        usable=usable,
        share_open=share,
        learned=learned,
        links=near,
        limited=limited,
        skipped=skipped,
        n_peaks=n_peaks,
        sign=1.0 if direction == "down" else -1.0,
        value=value,
        floor=None if paired.sized else 0.0,
        unit=1e5 / float(total) if paired.sized else 1.0,
        n_boot=n_boot,
        seed=seed,
    )


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
            f"The surrogate learnt nothing within the group for {len(unknown)} of {len(done)} tasks "
            f"({checks.some(dict.fromkeys(unknown))}): their sets say nothing of regulation (`learned` is False)."
        )
    wrong = done.loc[done["search_log_delta"] * plan.sign > 0, "target"]
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
    steps = [plan.sign * (loss.cpu().numpy() - first[:, 0]) for loss in found.trace]
    ends = {name: plan.sign * (loss.cpu().numpy() - first) for name, loss in found.starts.items()}
    return _Batch(sets, tasks, _trace(group, names, steps), _starts(group, names, ends), change, found.interrupted)


def _outputs(objective: "AdditiveObjective", index: "torch.Tensor") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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
    """Return the best change so far at the first step, at the last, and wherever it became better."""
    path = np.array(steps).reshape(len(steps), len(names))
    kept = np.ones(path.shape, dtype=bool)
    kept[1:-1] = path[1:-1] != path[:-2]
    task, step = np.nonzero(kept.T)
    return pd.DataFrame(
        {
            "group": group,
            "target": names.to_numpy()[task],
            "step": step + 1,
            "log_delta": path[step, task].astype(float),
        }
    )


def _starts(group: str, names: pd.Index, ends: Mapping[str, np.ndarray]) -> pd.DataFrame:
    n_tasks = len(names)
    values = np.array(list(ends.values())).reshape(len(ends) * n_tasks, 2).astype(np.float64)
    return pd.DataFrame(
        {
            "group": group,
            "target": np.tile(names.to_numpy(), len(ends)),
            "start": np.repeat(np.array(list(ends), dtype=object), n_tasks),
            "first": values[:, 0],
            "last": values[:, 1],
        }
    )


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
    joined = [batch.change for batch in done]
    estimate = np.concatenate([change.estimate for change in joined]).mean(axis=0, keepdims=True)
    n_done = len(tasks)
    replicates = sum(change.replicates.sum(axis=1, keepdims=True) for change in joined) / n_done
    tasks = pd.concat([tasks, left_out[tasks.columns]], ignore_index=True) if plan.skipped else tasks
    tasks.insert(2, "method", name)
    in_order = [_in_order(plan, pd.concat(parts, ignore_index=True)) for parts in (
        [batch.sets for batch in done], [tasks], [batch.trace for batch in done], [batch.starts for batch in done]
    )]  # fmt: skip
    return Tables(*in_order, mean=Deltas(estimate, np.asarray(replicates)), interrupted=interrupted)


def _in_order(plan: Plan, table: pd.DataFrame) -> pd.DataFrame:
    """Return rows by group and gene in their own order, whatever batch they come from."""
    group = pd.Index(list(plan.cells)).get_indexer(table["group"])
    order = np.lexsort((np.arange(len(table)), plan.gene_names.get_indexer(table["target"]), group))
    return table.iloc[order].reset_index(drop=True)


def _seed(*entropy: int) -> int:
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])


def _mask(candidates: Any, peak_names: pd.Index) -> tuple[np.ndarray, bool]:
    """Return which peaks may be chosen at all, and whether only linked ones may."""
    everyone = np.ones(len(peak_names), dtype=bool)
    if isinstance(candidates, str):
        checks.choice("candidates", candidates, ("cis", "all"))
        return everyone, candidates == "cis"
    given = np.asarray(candidates)
    if given.dtype == bool:
        if given.shape != everyone.shape:
            msg = f"Expected `candidates` to have one value for each of {len(everyone)} peaks, found {given.shape}."
            raise ValueError(msg)
        if not given.any():
            msg = "`candidates` is False for all peaks: none may be chosen."
            raise ValueError(msg)
        return given, False
    known = peak_names.isin([str(name) for name in given.ravel()])
    if not known.any():
        msg = (
            f"None of the {given.size:,} names in `candidates` is a peak ({checks.some(given.ravel())}); first peaks: "
            f"{checks.some(peak_names)}. Pass 'cis', 'all', names of peaks or a Boolean mask over them."
        )
        raise ValueError(msg)
    return known, False


def _labels(mdata: "MuData", groupby: str | None, paired: Any, entry: Mapping[str, Any]) -> np.ndarray:
    if groupby is None or groupby == entry["params"]["groupby"]:
        return np.asarray(paired.group_names, dtype=object)[paired.groups]
    return slots.read_obs(mdata, groupby).astype(str).to_numpy(dtype=object)


def _cells(
    labels: np.ndarray, groups: str | Sequence[str] | None, split: Mapping[str, np.ndarray], n_cells: int, seed: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the cells to search in and to report on, of each group."""
    present = list(dict.fromkeys(sorted(labels)))
    named = present if groups is None else [groups] if isinstance(groups, str) else [str(group) for group in groups]
    unknown = [group for group in named if group not in present]
    if unknown or not named:
        msg = f"`groups`: no cell is in {checks.some(unknown) or 'no group'}. Groups: {', '.join(map(repr, present))}."
        raise ValueError(msg)
    found, small = {}, []
    for group in dict.fromkeys(named):
        own = labels == group
        search, held = (cells[own[cells]] for cells in (split["train"], split["test"]))
        if min(len(search), len(held)) < MIN_CELLS:
            small.append(f"{group}: {len(search)} training and {len(held)} test cells")
            continue
        if len(search) > n_cells:
            stream = np.random.default_rng([seed, int(draws.hashes([group])[0])])
            search = np.sort(stream.choice(search, n_cells, replace=False))
        found[group] = (search, held)
    if small:
        msg = f"{len(small)} groups have fewer than {MIN_CELLS} training or test cells ({checks.some(small)})"
        if groups is not None or not found:
            msg += ". Name other `groups`, merge groups, or split again with `sctrellis.pp.split_cells`."
            raise ValueError(msg)
        checks.warn(f"{msg} and are left out.")
    return found


def _learned(entry: Mapping[str, Any], gene_names: pd.Index, group: str) -> np.ndarray:
    """Return for each gene whether the surrogate learnt anything within the group, or within any where it has others."""
    table = entry["by_group"]
    own = table[table["group"].astype(str) == group]
    if len(own):
        flags = pd.Series(own["learned"].to_numpy(dtype=bool), index=own["gene"].astype(str))
    else:
        flags = pd.Series(entry["genes"]["learned"].to_numpy(dtype=bool), index=entry["genes"].index.astype(str))
    return flags.reindex(gene_names, fill_value=False).to_numpy(dtype=bool)


def _targets(
    targets: str | Sequence[str] | None, gene_names: pd.Index, fitted: np.ndarray, learned: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Return the positions of the genes to explain, increasing."""
    if targets is None:
        any_group = np.logical_or.reduce(list(learned.values()))
        found = fitted[any_group[fitted]]
        if not len(found):
            msg = (
                f"The surrogate learnt nothing of any of its {len(fitted)} genes within these groups, so no target is "
                "worth a search. Name `targets` to search all the same."
            )
            raise ValueError(msg)
        return found
    asked = checks.gene_positions("targets", targets, gene_names)
    missing = gene_names[np.setdiff1d(asked, fitted)]
    if len(missing):
        msg = (
            f"{len(missing)} of {len(asked)} `targets` have no fit in the surrogate ({checks.some(missing)}): they have "
            "no peak in their window, or were left out. Run `sctrellis.tl.translate` with them, or a wider window."
        )
        raise ValueError(msg)
    return asked


def _counts(
    translator: "Translator", genes: np.ndarray, usable: np.ndarray, links: sparse.csr_matrix | None
) -> np.ndarray:
    from sctrellis.explain._peaks import candidates

    parts = [candidates(translator, genes[i : i + 64], usable, links).counts for i in range(0, len(genes), 64)]
    return np.concatenate([*parts, np.zeros(0, dtype=np.int64)])


def _any_left(
    batches: list[tuple[str, np.ndarray]],
    skipped: list[tuple[str, int, int]],
    n_peaks: int,
    gene_names: pd.Index,
    *,
    limited: bool,
) -> None:
    if batches:
        return
    group, gene, most = max(skipped, key=lambda task: task[2])
    wider = "widen the window of `sctrellis.pp.cis_links`, pass `candidates='all'`" if limited else "allow more peaks"
    msg = (
        f"No task has `n_peaks={n_peaks}` candidates: the most are {most}, for {gene_names[gene]!r} in {group!r}. Lower "
        f"`n_peaks`, {wider}, or lower `min_open`."
    )
    raise ValueError(msg)
