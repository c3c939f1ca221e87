"""What a search has to beat: peaks scored one by one, and the best of them taken as the set."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from sctrellis.explain import _starts as starts
from sctrellis.explain._additive import AdditiveObjective
from sctrellis.models._seed import generator

AttributionMethod = Literal[
    "random",
    "saliency",
    "grad_x_input",
    "smoothgrad",
    "fimap",
    "fimap_budget",
    "sage",
    "single_knockout",
    "greedy",
]
ATTRIBUTION_METHODS: tuple[AttributionMethod, ...] = get_args(AttributionMethod)
_AT_ONCE = 2**22
"""Numbers that are computed at once."""


@dataclass(frozen=True)
class Attribution:
    """Scores of the candidates, and the sets that follow from them.

    Parameters
    ----------
    score : (T, M)
        Worth of each candidate, larger for more; NaN where it cannot be chosen.
    index : (T, R, L)
        The set, best member first; several sets for ``"random"``.
    loss : (T, R)
        Loss of the sets.
    before : (T,)
        The loss with nothing perturbed.
    """

    score: torch.Tensor
    index: torch.Tensor
    loss: torch.Tensor
    before: torch.Tensor


def attribute(
    objective: AdditiveObjective,
    n_peaks: int,
    method: AttributionMethod,
    *,
    n_draws: int = 20,
    n_noisy: int = 50,
    noise: float = 0.15,
    n_permutations: int = 256,
    depth: int | None = None,
    seed: starts.Seed = 0,
) -> Attribution:
    """Return sets of ``n_peaks`` candidates by a method that scores peaks, and the scores.

    Parameters
    ----------
    objective
        Tasks to explain.
    n_peaks
        Size L of the sets.
    method
        ``"random"``: legal candidates, all equally likely. ``"saliency"``: mean over cells of the absolute slope at the
        input. ``"smoothgrad"``: the same over noisy inputs. ``"grad_x_input"``: first-order change by the perturbation.
        ``"fimap"``: logits of a random mask for all cells, learnt by gradient with a price for each peak;
        ``"fimap_budget"``: with a price only for peaks above ``n_peaks``. ``"sage"``: mean change by a peak when peaks
        are perturbed in random order. ``"single_knockout"``: exact change by the peak alone. ``"greedy"``: exact change
        when it was added to those before it.
    n_draws
        Sets of ``"random"``.
    n_noisy, noise
        Noisy inputs of ``"smoothgrad"`` and their standard deviation; inputs run from 0 to 1.
    n_permutations
        Orders of ``"sage"``.
    depth
        Peaks that are perturbed of each order; None is ``n_peaks``, the published choice. With all candidates the
        scores are Shapley values and add up to the change by all of them.
    seed
        Seed of draws, one for all tasks or one for each.

    Returns
    -------
    Attribution
        Scores and sets.

    Examples
    --------
    Elements that add up, the second three times as much as the first:

    >>> import numpy as np, torch
    >>> from scipy import sparse
    >>> from sctrellis.explain import AdditiveObjective, attribute
    >>> x = np.ones((5, 3), np.float32)
    >>> goal = AdditiveObjective.build(
    ...     sparse.csr_matrix(x),
    ...     np.arange(3)[None],
    ...     effects=torch.tensor([[[1.0], [3.0], [0.0]]]),
    ...     pre=torch.full((1, 5, 1, 1), 4.0),
    ...     head=lambda pre: pre[..., 0, 0],
    ... )
    >>> attribute(goal, 1, "single_knockout").score
    tensor([[1., 3., 0.]])
    """
    start = objective.pre[:, None]
    before = objective.loss(start)[:, 0]
    index = None
    if method == "random":
        index = starts.random_sets(objective, n_peaks, n_draws, seed=seed)
        score = _share(objective, index)
    elif method == "saliency":
        score = _mean_slope(objective, start)
    elif method == "smoothgrad":
        noisy = _noisy(objective, n_noisy, noise, seed)
        score = torch.stack([_mean_slope(objective, pre) for pre in noisy]).mean(dim=0)
    elif method == "grad_x_input":
        score = -objective.first_order(start)[1][:, 0]
    elif method in ("fimap", "fimap_budget"):
        budget = 0.2 if method == "fimap_budget" else None
        score = starts.concrete_mask(objective, n_peaks, budget=budget, seed=seed)
    elif method == "sage":
        score = _shapley(objective, n_permutations, n_peaks if depth is None else depth, seed)
    elif method == "single_knockout":
        everyone = torch.arange(objective.n_candidates, device=objective.device).expand(objective.n_tasks, 1, -1)
        score = before[:, None] - objective.add(start, everyone)[:, 0]
    else:
        index = starts.forward_greedy(objective, n_peaks)
        grown = torch.stack([objective.evaluate(index[:, :, : k + 1])[:, 0] for k in range(n_peaks)], dim=1)
        gain = torch.cat([before[:, None], grown], dim=1).diff(dim=1).neg()
        score = torch.zeros_like(objective.effects[..., 0]).scatter_(1, index[:, 0], gain)
    if index is None:
        index = starts.best(-score[:, None], objective, n_peaks)
    return Attribution(
        score=score.masked_fill(~objective.legal, torch.nan),
        index=index,
        loss=objective.evaluate(index),
        before=before,
    )


def _share(objective: AdditiveObjective, index: torch.Tensor) -> torch.Tensor:
    """Return the share of the sets (T, R, L) that hold each candidate: (T, M)."""
    members = index.flatten(1)
    held = torch.zeros_like(objective.effects[..., 0])
    return held.scatter_add_(1, members, torch.ones_like(members, dtype=held.dtype)) / index.shape[1]


def _mean_slope(objective: AdditiveObjective, pre: torch.Tensor) -> torch.Tensor:
    """Return the mean over cells of the absolute slope of the output in each input: (T, M).

    Slopes of a cell cost one product; those of all cells and candidates are never held together.
    """
    _, gradient = objective.gradient(pre)
    slope = torch.zeros_like(objective.effects[..., 0])
    size = max(1, _AT_ONCE // (objective.n_tasks * objective.inputs.n_cells))
    for block in range(gradient.shape[3]):
        here = objective.block == block
        for part in here.any(dim=0).nonzero()[:, 0].split(size):
            each = gradient[:, 0, :, block] @ objective.effects[:, part].transpose(1, 2)
            slope[:, part] += each.abs().sum(dim=1) * here[:, part]
    return slope


def _noisy(objective: AdditiveObjective, n: int, noise: float, seed: starts.Seed) -> Iterator[torch.Tensor]:
    """Yield pre-activations (T, 1, C, B, W) of cells whose candidates' inputs have independent normal noise.

    The noise of a sum is normal with covariance noise^2 sum_j V_j V_j', so it is drawn there: equal in distribution,
    without a matrix of cells x peaks.
    """
    n_blocks, width = objective.pre.shape[2:]
    products = torch.zeros(
        objective.n_tasks, n_blocks, width, width, dtype=objective.pre.dtype, device=objective.device
    )
    for block in range(n_blocks):
        vectors = objective.effects * (objective.block == block)[..., None]
        products[:, block] = vectors.transpose(1, 2) @ vectors
    spread, axes = torch.linalg.eigh(products)
    root = noise * axes * spread.clamp(min=0).sqrt()[..., None, :]
    seeds = [seed] if isinstance(seed, int) else seed
    for i in range(n):
        draws = [torch.randn(objective.pre.shape[1:], generator=generator("cpu", one, i)) for one in seeds]
        standard = torch.stack(draws).to(objective.pre).expand_as(objective.pre)
        yield (objective.pre + (root[:, None] @ standard[..., None]).squeeze(-1))[:, None]


def _shapley(objective: AdditiveObjective, n_permutations: int, depth: int, seed: starts.Seed) -> torch.Tensor:
    """Return the mean fall of the loss by each candidate over the first ``depth`` places of random orders: (T, M)."""
    orders = starts.random_orders(objective, n_permutations, seed=seed)
    n_legal = objective.legal.sum(dim=1)[:, None]
    total, count = torch.zeros_like(objective.effects[..., 0]), torch.zeros_like(objective.effects[..., 0])
    for part in orders.split(max(1, _AT_ONCE // objective.pre.numel()), dim=1):
        pre = objective.pre[:, None].expand(-1, part.shape[1], -1, -1, -1)
        loss = objective.loss(pre)
        for place in range(min(depth, int(n_legal.max()))):
            peak, exists = part[:, :, place], (place < n_legal).to(loss.dtype)
            pre = pre + objective.shift(peak[..., None]) * exists[..., None, None, None]
            now = objective.loss(pre)
            total.scatter_add_(1, peak, (loss - now) * exists)
            count.scatter_add_(1, peak, exists.expand_as(now))
            loss = now
    return total / count.clamp(min=1)
