"""How close selected elements lie to what they should find, always beside what chance would do."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from sctrellis.metrics import _chance as chance
from sctrellis.metrics._intervals import Intervals, near

BINS = (10_000, 100_000, 500_000, 1_000_000, 10_000_000)
"""Upper ends, in bases, of the bins of the distance-decay table; the rest of the chromosome and the others follow."""
_TASKS = 256
"""Tasks whose neighbourhoods are looked at in one go."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What was selected for each task, out of what, and what it should be near.

    Parameters
    ----------
    elements
        All elements.
    task, element : (n_selected,)
        The selected elements of each task; each pair once.
    allowed : (n_tasks, n_elements)
        Boolean CSR of what could be selected; None where all elements could.
    stratum : (n_elements,)
        Group of each element that chance is matched on, counted from 0.
    anchor
        Stretches that a selected element should be near.
    anchor_task : (n_anchors,)
        Task that each of these belongs to.
    chrom : (n_tasks,)
        Chromosome of each task.
    """

    elements: Intervals
    task: np.ndarray
    element: np.ndarray
    allowed: sparse.csr_matrix | None
    stratum: np.ndarray
    anchor: Intervals
    anchor_task: np.ndarray
    chrom: np.ndarray

    @property
    def n_tasks(self) -> int:
        """Number of tasks."""
        return len(self.chrom)


@dataclass(frozen=True)
class _Counts:
    """Elements by task, stratum and distance: last axis in a window, up to each edge; then on the chromosome; all."""

    background: np.ndarray
    selected: np.ndarray

    def urns(self, at: int, *, matched: bool) -> chance.Urns:
        """Return the draws that chance makes: elements up to edge ``at`` are marked."""
        total, marked, drawn = self.background[..., -1], self.background[..., at], self.selected[..., -1]
        if not matched:
            total, marked, drawn = (a.sum(axis=1, keepdims=True) for a in (total, marked, drawn))
        return chance.Urns(total, marked, drawn)


def hit_table(selection: Selection, windows: Sequence[int]) -> pd.DataFrame:
    """Return one row per window, 0 (overlap) first: tasks with a hit and elements in the window, beside chance.

    Chance draws as many elements per task as were selected, without replacement, from all that were allowed
    (``expected``), or from those of the same strata (``matched``). Tasks then form a Poisson-binomial count, elements a
    sum of hypergeometric ones; ``p_value`` is the chance of as many or more.
    """
    edges = [0, *windows]
    counts = _count(selection, edges)
    n_selected = int(counts.selected[..., -1].sum())
    rows = []
    for at, window in enumerate(edges):
        inside = counts.selected[..., at].sum(axis=1)
        row: dict[str, float] = {"window": window, "n_tasks": selection.n_tasks, "n_selected": n_selected}
        row |= {"n_hit": int((inside > 0).sum()), "hit_ratio": float((inside > 0).mean())}
        for matched in (False, True):
            name = "matched" if matched else "expected"
            urns = counts.urns(at, matched=matched)
            hit = 1 - urns.none().prod(axis=1)
            row |= {
                name: float(hit.mean()),
                f"enrichment_{name}": _ratio(row["hit_ratio"], float(hit.mean())),
                f"p_{name}": chance.at_least(chance.poisson_binomial(hit), int(row["n_hit"])),
            }
        row |= {"n_in_window": int(inside.sum()), "share_in_window": inside.sum() / max(n_selected, 1)}
        for matched in (False, True):
            name = "matched" if matched else "expected"
            urns = counts.urns(at, matched=matched)
            mean = float(urns.expected().sum())
            row |= {
                f"share_{name}": mean / max(n_selected, 1),
                f"share_enrichment_{name}": _ratio(float(inside.sum()), mean),
                f"share_p_{name}": chance.at_least(_distribution(urns), int(inside.sum())),
            }
        rows.append(row)
    return pd.DataFrame(rows)


def decay_table(selection: Selection, bins: Sequence[int] = BINS) -> pd.DataFrame:
    """Return selected elements by distance, beside what chance of the same strata puts there, with its 95 % range."""
    counts = _count(selection, bins)
    labels = [*_labels(bins), "same chromosome", "other chromosome"]
    lower = [0, *bins, np.nan]
    upper = [*bins, np.inf, np.nan]
    within = np.diff(counts.background, axis=-1, prepend=0), np.diff(counts.selected, axis=-1, prepend=0)
    rows = []
    for at, label in enumerate(labels):
        marked, found = within[0][..., at], int(within[1][..., at].sum())
        urns = chance.Urns(counts.background[..., -1], marked, counts.selected[..., -1])
        distribution = _distribution(urns)
        low, high = chance.central(distribution)
        expected = float(urns.expected().sum())
        rows.append(
            {
                "bin": label, "low": lower[at], "high": upper[at], "observed": found, "expected": expected,
                "expected_low": low, "expected_high": high, "enrichment": _ratio(found, expected),
                "p_value": chance.at_least(distribution, found),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def confirmed_table(
    *,
    task: np.ndarray,
    distance: np.ndarray,
    linked: np.ndarray,
    selected: np.ndarray,
    bins: Sequence[int] = BINS,
) -> pd.DataFrame:
    """Return how many selected elements a reference confirms, within bins of distance and over all.

    Parameters
    ----------
    task, distance, linked, selected : (n_candidates,)
        Every candidate that the reference judges: its task, its distance from the TSS in bases, whether the reference
        links it to the task's gene, and whether it was selected.
    bins
        Upper ends of the bins.

    Returns
    -------
    DataFrame
        One row per bin that has candidates, then ``"all"``. ``expected`` draws as many as were selected in each task
        and bin at random from that task and bin: what distance alone explains is in it. ``nearest`` takes in each task
        as many of the nearest candidates as were selected, and counts those that are linked.
    """
    place = np.searchsorted(bins, np.abs(distance))
    tasks, index = np.unique(task, return_inverse=True)
    n_bins = len(bins) + 1
    cell = index * n_bins + place
    size = len(tasks) * n_bins

    def per_cell(mask: np.ndarray) -> np.ndarray:
        return np.bincount(cell[mask], minlength=size).reshape(len(tasks), n_bins)

    total, marked, drawn = per_cell(np.ones(len(cell), dtype=bool)), per_cell(linked), per_cell(selected)
    both = per_cell(linked & selected)
    # Position of each candidate among those of its task, the nearest first.
    order = np.lexsort((np.abs(distance), index))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order)) - np.searchsorted(index[order], index[order])
    closest = per_cell(linked & (rank < drawn.sum(axis=1)[index]))
    rows = []
    for label, columns in [*((name, [i]) for i, name in enumerate(_labels(bins, last=True))), ("all", range(n_bins))]:
        part = [a[:, list(columns)] for a in (total, marked, drawn, both, closest)]
        if label != "all" and not part[0].sum():
            continue
        urns = chance.Urns(*part[:3])
        expected, found = float(urns.expected().sum()), int(part[3].sum())
        rows.append(
            {
                "bin": label, "n_candidates": int(part[0].sum()), "n_linked": int(part[1].sum()),
                "n_selected": int(part[2].sum()), "n_confirmed": found, "expected": expected,
                "enrichment": _ratio(found, expected), "p_value": chance.at_least(_distribution(urns), found),
                "nearest": int(part[4].sum()),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def _count(selection: Selection, edges: Sequence[int]) -> _Counts:
    """Count the allowed and the selected elements by task, stratum and distance."""
    n_tasks, n_elements = selection.n_tasks, len(selection.elements)
    n_strata = int(selection.stratum.max()) + 1
    chosen = np.sort(selection.task.astype(np.int64) * n_elements + selection.element)
    shape = (n_tasks, n_strata, len(edges) + 1)
    inside = np.zeros((2, *shape), dtype=np.int64)
    for first in range(0, n_tasks, _TASKS):
        here = np.flatnonzero((selection.anchor_task >= first) & (selection.anchor_task < first + _TASKS))
        query, element, distance = near(selection.elements, selection.anchor.take(here), max(edges))
        # Of several anchors of a task the nearest counts.
        key = selection.anchor_task[here[query]].astype(np.int64) * n_elements + element
        order = np.lexsort((distance, key))
        key, nearest = np.unique(key[order], return_index=True)
        distance = distance[order][nearest]
        task, element = np.divmod(key, n_elements)
        is_allowed = np.ones(len(key), dtype=bool)
        if selection.allowed is not None and len(key):
            is_allowed = np.asarray(selection.allowed[task, element]).ravel().astype(bool)
        at = np.ravel_multi_index((task, selection.stratum[element], np.searchsorted(edges, distance)), shape)
        for i, mask in enumerate((is_allowed, _in_sorted(key, chosen))):
            inside[i] += np.bincount(at[mask], minlength=np.prod(shape)).reshape(shape)
    inside = np.cumsum(inside[..., : len(edges)], axis=-1)
    background = _on_chromosome(selection, n_strata)
    picked = np.zeros((2, n_tasks, n_strata), dtype=np.int64)
    stratum = selection.stratum[selection.element]
    same = selection.elements.chrom[selection.element] == selection.chrom[selection.task]
    np.add.at(picked[0], (selection.task[same], stratum[same]), 1)
    np.add.at(picked[1], (selection.task, stratum), 1)
    return _Counts(
        *(
            np.concatenate([a, np.moveaxis(b, 0, -1)], axis=-1)
            for a, b in zip(inside, (background, picked), strict=True)
        )
    )


def _on_chromosome(selection: Selection, n_strata: int) -> np.ndarray:
    """Return, by task and stratum, the allowed elements on the task's chromosome, and all allowed elements."""
    stratum, chrom = selection.stratum, selection.elements.chrom
    if selection.allowed is None:
        n_chrom = int(max(chrom.max(), selection.chrom.max())) + 1
        known = chrom >= 0
        table = np.bincount(stratum[known] * n_chrom + chrom[known], minlength=n_strata * n_chrom)
        same = table.reshape(n_strata, n_chrom)[:, selection.chrom].T
        return np.stack([same, np.broadcast_to(np.bincount(stratum, minlength=n_strata), same.shape)])
    coo = selection.allowed.tocoo()
    here = chrom[coo.col] == selection.chrom[coo.row]
    counts = np.zeros((2, selection.n_tasks, n_strata), dtype=np.int64)
    np.add.at(counts[0], (coo.row[here], stratum[coo.col[here]]), 1)
    np.add.at(counts[1], (coo.row, stratum[coo.col]), 1)
    return counts


def _in_sorted(keys: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """Whether each key is among sorted ones."""
    if not len(ordered):
        return np.zeros(len(keys), dtype=bool)
    return ordered[np.minimum(np.searchsorted(ordered, keys), len(ordered) - 1)] == keys


def _distribution(urns: chance.Urns) -> np.ndarray:
    return chance.Urns(urns.total.ravel(), urns.marked.ravel(), urns.drawn.ravel()).count()


def _ratio(observed: float, expected: float) -> float:
    return observed / expected if expected > 0 else np.nan


def _labels(bins: Sequence[int], *, last: bool = False) -> list[str]:
    """Return the names of the bins, such as ``"10-100 kb"``."""

    def said(bases: int) -> str:
        return f"{bases / 1e6:g} Mb" if bases >= 1_000_000 else f"{bases / 1e3:g} kb"

    names = []
    for low, high in zip([0, *bins[:-1]], bins, strict=True):
        a, b = said(low), said(high)
        names.append(f"{a.split()[0]}-{b}" if low == 0 or a.split()[1] == b.split()[1] else f"{a}-{b}")
    return names + ([f"over {said(bins[-1])}"] if last else [])
