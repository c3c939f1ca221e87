"""Sets to start a search from: what each way of looking sees of redundancy differs, so several are tried.

Each function takes an objective of T tasks and returns sets (T, R, L) of R starts. Draws are the same for a task
whatever other tasks are beside it.
"""

from collections.abc import Sequence

import torch

from sctrellis.explain._additive import AdditiveObjective
from sctrellis.models._seed import generator

Seed = int | Sequence[int]
"""One seed for all tasks, or one for each."""
_TABLE = 2**22
"""Numbers of the first layer that are weighted at once."""


def best(score: torch.Tensor, objective: AdditiveObjective, n_peaks: int) -> torch.Tensor:
    """Return the ``n_peaks`` legal candidates with the smallest score (T, ..., M): (T, ..., L)."""
    legal = objective.legal.view(objective.n_tasks, *(1,) * (score.ndim - 2), -1)
    return score.masked_fill(~legal, torch.inf).topk(n_peaks, dim=-1, largest=False).indices


def random_orders(objective: AdditiveObjective, n_orders: int, *, seed: Seed) -> torch.Tensor:
    """Return the candidates in random order, those that are not legal last: (T, n_orders, M)."""
    draws = torch.stack([_uniform(objective, seed, i) for i in range(n_orders)], dim=1)
    return draws.masked_fill(~objective.legal[:, None], torch.inf).argsort(dim=2)


def random_sets(objective: AdditiveObjective, n_peaks: int, n_sets: int, *, seed: Seed) -> torch.Tensor:
    """Return sets of legal candidates, all equally likely: (T, n_sets, L)."""
    return random_orders(objective, n_sets, seed=seed)[:, :, :n_peaks]


def grad_x_input(objective: AdditiveObjective, n_peaks: int) -> torch.Tensor:
    """Return the sets that are best to first order from the unperturbed cells: (T, 1, L)."""
    _, d = objective.first_order(objective.pre[:, None])
    return best(d, objective, n_peaks)


def forward_greedy(objective: AdditiveObjective, n_peaks: int) -> torch.Tensor:
    """Return the sets that grow by the exactly best peak, one at a time: (T, 1, L), in the order of choice."""
    everyone = torch.arange(objective.n_candidates, device=objective.device).expand(objective.n_tasks, 1, -1)
    pre, free, chosen = objective.pre[:, None], objective.legal[:, None].clone(), []
    for _ in range(n_peaks):
        loss = objective.add(pre, everyone).masked_fill(~free, torch.inf)
        chosen.append(loss.argmin(dim=-1, keepdim=True))
        free.scatter_(2, chosen[-1], value=False)
        pre = pre + objective.shift(chosen[-1])
    return torch.cat(chosen, dim=-1)


def backward_elimination(
    objective: AdditiveObjective, n_peaks: int, *, among: torch.Tensor | None = None, n_exact: int = 64
) -> torch.Tensor:
    """Return the sets that are left when the peak that is worth least is given back, one at a time.

    Parameters
    ----------
    objective
        The objective.
    n_peaks
        Size of the sets.
    among : (T, M)
        Members at the start; None is all legal candidates.
    n_exact
        Members whose exact worth is compared: those that are worth least to first order, which is computed anew after
        every peak.

    Returns
    -------
    Tensor, shape (T, 1, L)

    Notes
    -----
    A peak that is redundant with others is given back last but one of them, at the price of all of them: groups stay
    whole. Worths that were computed before a peak was given back bound nothing, since those of its partners fall.
    """
    member = (objective.legal if among is None else among).clone()
    while bool((left := member.sum(dim=1) > n_peaks).any()):
        _, worst = _least(objective, member, n_exact)
        member &= ~torch.zeros_like(member).scatter_(1, worst, left[:, None])
    return member.nonzero()[:, 1].view(objective.n_tasks, 1, n_peaks)


def rank_members(objective: AdditiveObjective, index: torch.Tensor) -> torch.Tensor:
    """Return the members of each set (T, L) by worth: every beginning is what elimination keeps of the set."""
    member = torch.zeros_like(objective.legal).scatter_(1, index, value=True)
    order = []
    for _ in range(index.shape[1]):
        _, worst = _least(objective, member, index.shape[1])
        order.append(worst)
        member.scatter_(1, worst, value=False)
    return torch.cat(order[::-1], dim=1)


def _least(objective: AdditiveObjective, member: torch.Tensor, n_exact: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the loss after the member that is worth least is given back, and which that is: (T, 1) each."""
    pre = objective.weighted(member[:, None].to(objective.pre.dtype))
    size = int(member.sum(dim=1).max())
    if size > n_exact:
        _, d = objective.first_order(pre)
        rank = -d[:, 0]
    else:
        rank = member.new_zeros(member.shape, dtype=objective.pre.dtype)
    value, tried = rank.masked_fill(~member, torch.inf).topk(min(size, n_exact), dim=1, largest=False)
    loss = objective.drop(pre, tried[:, None])[:, 0].masked_fill(value.isinf(), torch.inf)
    smallest, at = loss.min(dim=1, keepdim=True)
    return smallest, tried.gather(1, at)


def masked_scores(
    objective: AdditiveObjective, *, rates: tuple[float, ...] = (0.7, 0.4, 0.1), n_masks: int = 16, seed: Seed
) -> torch.Tensor:
    """Return first-order changes where peaks are already perturbed at random, one score a rate: (T, n_rates, M).

    The mean over masks is the gradient of the multilinear extension of the objective: with its partners absent in part
    of the masks, a redundant peak shows.
    """
    scores = []
    for level, rate in enumerate(rates):
        masks = [_uniform(objective, seed, level, i) < rate for i in range(n_masks)]
        members = torch.stack(masks, dim=1) & objective.legal[:, None]
        size = max(1, _TABLE // max(1, objective.effects.numel() + objective.pre.numel()))
        total = torch.zeros_like(objective.effects[..., 0])
        for part in members.split(size, dim=1):
            _, d = objective.first_order(objective.weighted(part.to(objective.pre.dtype)))
            total += d.sum(dim=1)
        scores.append(total / n_masks)
    return torch.stack(scores, dim=1)


def concrete_mask(
    objective: AdditiveObjective,
    n_peaks: int,
    *,
    budget: float | None = 0.2,
    penalty: float = 0.05,
    n_steps: int = 300,
    lr: float = 0.1,
    seed: Seed,
) -> torch.Tensor:
    """Return the logits of one random mask for all cells, learnt by gradient: (T, M).

    Parameters
    ----------
    objective
        The objective.
    n_peaks
        Size of the sets.
    budget
        Weight of the squared number of peaks above ``n_peaks``; None has ``penalty`` instead.
    penalty
        Weight of the number of peaks, without a budget.
    n_steps, lr
        Steps and learning rate of Adam.
    seed
        Seed of the masks, or one for each task.
    """
    legal = objective.legal
    # From far too many peaks the budget alone would move the mask for a long time.
    share = (2 * n_peaks / legal.sum(dim=1, keepdim=True)).clamp(max=0.119)
    logits = torch.where(legal, torch.logit(share), -torch.inf).to(objective.pre.dtype)
    optimiser = torch.optim.Adam([logits], lr=lr)
    for step in range(n_steps):
        heat = 1.0 - 0.7 * step / max(1, n_steps - 1)
        noise = torch.logit(_uniform(objective, seed, step), eps=1e-6).to(logits.dtype)
        mask = torch.sigmoid((logits + noise) / heat)
        _, d = objective.first_order(objective.weighted(mask[:, None]))
        on = torch.sigmoid(logits)
        price = penalty if budget is None else 2 * budget * (on.sum(dim=1, keepdim=True) - n_peaks).clamp(min=0)
        logits.grad = (d[:, 0] * mask * (1 - mask) / heat + price * on * (1 - on)).masked_fill(~legal, 0.0)
        optimiser.step()
    return logits


def some_cells(objective: AdditiveObjective, n_cells: int, step: int, *, seed: Seed) -> torch.Tensor:
    """Return weights (T, C) that share out the mean among ``n_cells`` cells drawn for a step."""
    seeds = [seed] if isinstance(seed, int) else seed
    total = objective.inputs.n_cells
    weights = torch.zeros(len(seeds), total, dtype=objective.pre.dtype)
    for row, one in zip(weights, seeds, strict=True):
        row[torch.randperm(total, generator=generator("cpu", one, step))[:n_cells]] = 1 / n_cells
    return weights.to(objective.device).expand(objective.n_tasks, -1)


def _uniform(objective: AdditiveObjective, seed: Seed, *entropy: int) -> torch.Tensor:
    """Return one number in [0, 1) per candidate, (T, M); the first ones do not depend on how many there are."""
    n_tasks, n_candidates = objective.legal.shape
    seeds = [seed] if isinstance(seed, int) else seed
    rows = [torch.rand(n_candidates, generator=generator("cpu", one, *entropy)) for one in seeds]
    return torch.stack(rows).to(objective.device).expand(n_tasks, -1)
