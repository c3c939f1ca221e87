"""Search for the set of peaks whose perturbation moves a model's output most: GRIDS, and a portfolio around it."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import combinations
from typing import Any, Literal

import torch

from sctrellis.explain import _starts as starts
from sctrellis.explain._additive import AdditiveObjective
from sctrellis.explain._subset_swap import SubsetSwap

SearchMethod = Literal["grids", "grids+"]
_SHORTLIST = 512
"""Candidates that the portfolio looks at closely; above, a first pass chooses them."""
_BATCH = 64
"""Cells of a step of the published search."""
_SAME = 1e-7
"""Losses that differ by less are equal."""


@dataclass
class SubsetSearch:
    """The best sets that a search has found so far, one for each of T tasks.

    Parameters
    ----------
    index : (T, L)
        Candidates of the best set, in no order.
    loss : (T,)
        Its loss.
    before : (T,)
        The loss with nothing perturbed.
    start
        Name of the start that led to it, for each task.
    swap_optimal : (T,)
        Whether it was shown that no exchange of one member lowers the loss.
    exhaustive : (T,)
        Whether all sets were compared.
    frequency : (T, M)
        Share of the starts whose final set holds a candidate; NaN, as the next two, where all sets were compared.
    starts
        Loss (T, 2) that each start began and ended with.
    trace
        Best loss (T,) after each step.
    interrupted
        Whether the search was stopped.
    """

    index: torch.Tensor
    loss: torch.Tensor
    before: torch.Tensor
    start: list[str]
    swap_optimal: torch.Tensor
    exhaustive: torch.Tensor
    frequency: torch.Tensor
    starts: dict[str, torch.Tensor] = field(default_factory=dict)
    trace: list[torch.Tensor] = field(default_factory=list)
    interrupted: bool = False

    def offer(self, index: torch.Tensor, loss: torch.Tensor, names: list[str]) -> None:
        """Keep the sets ``index`` (T, R, L) of loss (T, R) that are better than what there is."""
        lowest, at = loss.min(dim=1)
        better = lowest < self.loss - _SAME
        sets = index.gather(1, at[:, None, None].expand(-1, 1, index.shape[2])).squeeze(1)
        self.index = torch.where(better[:, None], sets, self.index)
        self.loss = torch.where(better, lowest, self.loss)
        found = zip(self.start, better.tolist(), at.tolist(), strict=True)
        self.start = [names[best] if is_better else old for old, is_better, best in found]


def subset_search(
    objective: AdditiveObjective,
    n_peaks: int,
    *,
    method: SearchMethod = "grids+",
    n_candidates: int = 32,
    n_restarts: int = 8,
    max_sweeps: int = 50,
    max_exhaustive: int = 5_000,
    max_certified: int = 50_000,
    seed: starts.Seed = 0,
) -> SubsetSearch:
    """Return the sets of ``n_peaks`` candidates with the smallest loss that are found.

    Parameters
    ----------
    objective
        Tasks to search.
    n_peaks
        Size L of the sets.
    method
        ``"grids"``, the published search: one random start, slot after slot, the exactly best of the candidates that
        first order ranks highest, both on 64 cells drawn for the step. ``"grids+"``: all sets where they are few; else
        several starts, each polished by swaps that have to lower the loss.
    n_candidates
        Candidates of a step by first order.
    n_restarts
        Random starts of ``"grids+"``.
    max_sweeps
        Times that every slot is visited, at most.
    max_exhaustive
        Sets up to which all of them are compared. ``"grids+"`` only.
    max_certified
        Swaps up to which all of a final set are tried, and taken where they lower the loss.
    seed
        Seed of random starts and masks, one for all tasks or one for each: then what is found for a task does not
        depend on the tasks beside it.

    Returns
    -------
    SubsetSearch
        The best sets. After an interrupt (Ctrl-C), those found up to then, with ``interrupted``.

    Raises
    ------
    ValueError
        If a task has fewer candidates than `n_peaks`.
    FloatingPointError
        If the loss of the unperturbed cells is not finite.

    Examples
    --------
    Three elements of which any one suffices, and seven that do nothing:

    >>> import numpy as np, torch
    >>> from scipy import sparse
    >>> from sctrellis.explain import AdditiveObjective, subset_search
    >>> x = np.random.default_rng(0).random((200, 10)) < 0.8
    >>> goal = AdditiveObjective.build(
    ...     sparse.csr_matrix(x, dtype=np.float32),
    ...     np.arange(10)[None],
    ...     effects=torch.eye(10)[None],
    ...     pre=torch.from_numpy(x).float()[None, :, None],
    ...     head=lambda pre: pre[..., 0, :3].amax(dim=-1),
    ... )
    >>> sorted(subset_search(goal, 3).index[0].tolist())
    [0, 1, 2]
    """
    fewest = int(objective.legal.sum(dim=1).min())
    if n_peaks > fewest:
        msg = f"Expected `n_peaks` to be at most the {fewest} candidates of the task with the fewest, found {n_peaks}."
        raise ValueError(msg)
    first = starts.random_sets(objective, n_peaks, 1, seed=seed)
    before = objective.loss(objective.pre[:, None])[:, 0]
    if not bool(before.isfinite().all()):
        msg = "The model's output is not finite in the unperturbed cells."
        raise FloatingPointError(msg)
    none = torch.zeros(objective.n_tasks, dtype=torch.bool, device=objective.device)
    result = SubsetSearch(
        index=first[:, 0],
        loss=objective.evaluate(first)[:, 0],
        before=before,
        start=["random"] * objective.n_tasks,
        swap_optimal=none,
        exhaustive=none,
        frequency=torch.zeros_like(objective.effects[..., 0]),
    )
    polish = partial(_polish, n_candidates=n_candidates, max_steps=max_sweeps * n_peaks)
    try:
        if method == "grids":
            _published(objective, first, result, n_candidates, max_sweeps * n_peaks, seed)
        else:
            result.exhaustive = _compare_all(objective, n_peaks, result, max_exhaustive)
            if not bool(result.exhaustive.all()):
                _portfolio(objective, n_peaks, result, polish, n_restarts=n_restarts, seed=seed)
        result.swap_optimal = _certify(objective, result, max_certified, improve=method != "grids")
    except KeyboardInterrupt:
        result.interrupted = True
    # Beside tasks with more sets, those whose sets were all compared are searched too; that must not show.
    searched = ~result.exhaustive
    result.frequency = result.frequency.where(searched[:, None], torch.nan)
    result.trace = [loss.where(searched, torch.nan) for loss in result.trace]
    result.starts = {name: ends.where(searched[:, None], torch.nan) for name, ends in result.starts.items()}
    return result


def _portfolio(
    objective: AdditiveObjective,
    n_peaks: int,
    result: SubsetSearch,
    polish: Callable[..., None],
    *,
    n_restarts: int,
    seed: starts.Seed,
) -> None:
    """Start from what different ways of looking find, and polish each by swaps."""
    scores = starts.masked_scores(objective, seed=seed)
    near, columns = objective, None
    if objective.n_candidates > max(_SHORTLIST, n_peaks):
        columns = _shortlist(objective, scores, n_peaks, seed=seed)
        near, scores = objective.restrict(columns), scores.gather(2, columns[:, None].expand(-1, scores.shape[1], -1))
    sets: list[torch.Tensor] = []
    names: list[str] = []

    def start(index: torch.Tensor, *called: str) -> None:
        sets.append(index)
        names.extend(called)
        result.offer(_global(index, columns), near.evaluate(index), list(called))

    start(starts.backward_elimination(near, n_peaks), "backward")
    start(starts.best(scores, near, n_peaks), *(f"continuation_{rate}" for rate in (0.7, 0.4, 0.1)))
    mask = starts.concrete_mask(near, n_peaks, seed=seed)
    start(starts.best(-mask[:, None], near, n_peaks), "budget_mask")
    start(starts.forward_greedy(near, n_peaks), "greedy")
    if n_restarts:
        restarts = starts.random_sets(near, n_peaks, n_restarts, seed=seed)
        start(restarts, *(f"random_{i}" for i in range(n_restarts)))
    polish(near, torch.cat(sets, dim=1), names, result, columns=columns)
    if columns is not None:  # what the first pass left out gets its chance
        polish(objective, result.index[:, None], ["all_candidates"], result)


def _global(index: torch.Tensor, columns: torch.Tensor | None) -> torch.Tensor:
    """Return sets (T, R, L) of a shortlist as sets of all candidates."""
    return index if columns is None else columns.gather(1, index.flatten(1)).view_as(index)


def _shortlist(objective: AdditiveObjective, scores: torch.Tensor, n_peaks: int, *, seed: starts.Seed) -> torch.Tensor:
    """Return the candidates (T, m) that look best to first order at any share of perturbed peaks, or to the mask."""
    size = max(_SHORTLIST, 2 * n_peaks)
    mask = starts.concrete_mask(objective, n_peaks, seed=seed)
    legal = objective.legal
    rank = torch.stack(
        [score.masked_fill(~legal, torch.inf).argsort(dim=1).argsort(dim=1) for score in (*scores.unbind(1), -mask)]
    )
    return rank.amin(dim=0).topk(size, dim=1, largest=False).indices


def _polish(
    objective: AdditiveObjective,
    index: torch.Tensor,
    names: list[str],
    result: SubsetSearch,
    *,
    n_candidates: int,
    max_steps: int,
    columns: torch.Tensor | None = None,
) -> None:
    """Swap members of the sets ``index`` (T, R, L) until none changes; the result follows every step."""
    n_tasks, n_sets, _ = index.shape
    sets = index.flatten(0, 1).clone()
    n_random = 0 if n_candidates >= objective.n_candidates else n_candidates // 4
    optimiser, closure = _swaps(
        lambda: objective, sets, n_sets, n_candidates=n_candidates, n_random=n_random, tol=_SAME
    )
    begun = objective.evaluate(index)
    for _ in range(max_steps):
        loss = optimiser.step(closure).view(n_tasks, n_sets)
        result.offer(_global(sets.view(index.shape), columns), loss, names)
        result.trace.append(result.loss)
        if optimiser.finished:
            break
    ended = optimiser.state[sets]["best_loss"].view(n_tasks, n_sets)
    result.starts |= {name: torch.stack([begun[:, i], ended[:, i]], dim=1) for i, name in enumerate(names)}
    final = _global(optimiser.state[sets]["best_index"].view(index.shape), columns).flatten(1)
    held = torch.zeros_like(result.frequency).scatter_add_(1, final, torch.ones_like(final, dtype=begun.dtype))
    result.frequency = held / n_sets


def _published(
    objective: AdditiveObjective,
    index: torch.Tensor,
    result: SubsetSearch,
    n_candidates: int,
    max_steps: int,
    seed: starts.Seed,
) -> None:
    """Take the published steps, each on cells of its own; the result keeps the best set by all cells."""
    sets = index[:, 0].clone()
    drawn = [objective]
    optimiser, closure = _swaps(
        lambda: drawn[0], sets, 1, n_candidates=n_candidates, n_random=0, order="cyclic", accept=False
    )
    begun = objective.evaluate(index)
    same_cells = objective.inputs.n_cells <= _BATCH
    for step in range(max_steps):
        if not same_cells:
            drawn[0] = replace(objective, share=starts.some_cells(objective, _BATCH, step, seed=seed))
        optimiser.step(closure)
        result.offer(sets[:, None], objective.evaluate(sets[:, None]), ["random"])
        result.trace.append(result.loss)
        if same_cells and optimiser.finished:
            break
    result.starts["random"] = torch.stack([begun[:, 0], result.loss], dim=1)
    result.frequency = torch.zeros_like(result.frequency).scatter_(1, result.index, 1.0)


def _swaps(
    objective: Callable[[], AdditiveObjective], sets: torch.Tensor, n_sets: int, **options: Any
) -> tuple[SubsetSwap, Callable[[], tuple[torch.Tensor, torch.Tensor]]]:
    """Return the optimiser of ``sets`` (T * R, L), and its closure; both ask for the objective at every step."""

    def by_task(values: torch.Tensor) -> torch.Tensor:
        return values.view(-1, n_sets, *values.shape[1:])

    def closure() -> tuple[torch.Tensor, torch.Tensor]:
        now = objective()
        loss, d = now.first_order(now.perturbed(by_task(sets)))
        return loss.flatten(), d.flatten(0, 1)

    def evaluate(index: torch.Tensor, slot: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
        return objective().swap(by_task(index), by_task(slot), by_task(candidates)).flatten(0, 1)

    legal = objective().legal[:, None].expand(-1, n_sets, -1).flatten(0, 1)
    return SubsetSwap([sets], evaluate=evaluate, legal=legal, **options), closure


def _compare_all(objective: AdditiveObjective, n_peaks: int, result: SubsetSearch, limit: int) -> torch.Tensor:
    """Evaluate every set of the tasks that have at most ``limit`` of them, and return which these are."""
    counts = objective.legal.sum(dim=1)
    few = torch.tensor([math.comb(n, n_peaks) <= limit for n in counts.tolist()], device=objective.device)
    if not bool(few.any()):
        return few
    legal_first = objective.legal.long().argsort(dim=1, descending=True, stable=True)
    every = torch.tensor(list(combinations(range(int(counts[few].max())), n_peaks)), device=objective.device)
    for part in every.split(1_024):
        index = legal_first[:, part.flatten()].view(objective.n_tasks, *part.shape)
        exists = few[:, None] & (part[:, -1] < counts[:, None])
        result.offer(index, objective.evaluate(index).masked_fill(~exists, torch.inf), ["all_sets"] * len(part))
    return few


def _certify(objective: AdditiveObjective, result: SubsetSearch, limit: int, *, improve: bool) -> torch.Tensor:
    """Try every exchange of one member, take the best while it helps, and return for which tasks none does."""
    n_tasks, size = result.index.shape
    able = objective.legal.sum(dim=1) * size <= limit
    everyone = torch.arange(objective.n_candidates, device=objective.device).expand(n_tasks, size, -1)
    slot = torch.arange(size, device=objective.device).expand(n_tasks, -1)
    while bool(able.any()):
        free = objective.legal.scatter(1, result.index, value=False) & able[:, None]
        loss = objective.swap(result.index[:, None].expand(-1, size, -1), slot, everyone)
        lowest, at = loss.masked_fill(~free[:, None], torch.inf).flatten(1).min(dim=1, keepdim=True)
        better = lowest[:, 0] < result.loss - _SAME
        if not improve or not bool(better.any()):
            return able & ~better
        out, new = at // objective.n_candidates, at % objective.n_candidates
        result.offer(result.index.scatter(1, out, new)[:, None], lowest, ["exchange"])
        result.trace.append(result.loss)
    return able
