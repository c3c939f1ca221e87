"""The swap search as a torch optimiser: first order proposes, exact evaluation disposes."""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch

from sctrellis.models._seed import generator


class SubsetSwap(torch.optim.Optimizer):
    """Minimise a loss over sets of indices by replacing one member of each set a step.

    First-order scores propose candidates for one slot; the exact loss of every proposed set picks. The parameters are
    index tensors, shape (N, L), each row the set of one problem, whose members are different; a step changes them in
    place. Losses never increase with ``accept=True``.

    Parameters
    ----------
    params
        Index tensors, dtype int64.
    evaluate
        Takes ``index`` (N, L), ``slot`` (N,) and ``candidates`` (N, K) and returns the exact loss (N, K) after the
        member at ``slot`` was replaced.
    legal : (N, M)
        Indices that may be chosen.
    n_candidates
        Candidates of a step by first order.
    n_random
        Candidates that are drawn at random besides: what first order cannot see.
    order
        ``"cyclic"``, slot after slot; or ``"worst_first"``, the member that is worth least to first order, and the next
        where that fails.
    accept
        Whether a swap has to lower the loss. If not, the best candidate is taken whatever it does, and the member
        itself is one of them only where first order ranks it so: the published search.
    tol
        By how much a swap has to lower the loss.
    seed
        Seed of the candidates that are drawn.

    Notes
    -----
    With d the first-order change for each index, replacing r_i by j changes the loss by d_j - d_{r_i}: all slots share
    one ranking of j, and no matrix of L x M is formed. Members of a set are never proposed, so sets keep their size.
    ``state_dict`` holds the best sets and losses and the place in the cycle; with the index tensors it continues a
    search exactly.
    """

    def __init__(
        self,
        params: Iterable[torch.Tensor],
        *,
        evaluate: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
        legal: torch.Tensor,
        n_candidates: int = 32,
        n_random: int = 8,
        order: Literal["cyclic", "worst_first"] = "worst_first",
        accept: bool = True,
        tol: float = 1e-7,
        seed: int = 0,
    ) -> None:
        defaults = {
            "n_candidates": n_candidates,
            "n_random": n_random,
            "order": order,
            "accept": accept,
            "tol": tol,
            "seed": seed,
        }
        super().__init__(params, defaults)
        self.evaluate = evaluate
        self.legal = legal

    @torch.no_grad()
    def step(self, closure: Callable[[], tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:  # type: ignore[override]
        """Try to replace one member of each set; return the losses (N,) after the step.

        Parameters
        ----------
        closure
            Returns the loss (N,) of the sets as they are and the first-order changes d (N, M).
        """
        (group,) = self.param_groups
        (index,) = group["params"]
        state: dict[str, Any] = self.state[index]
        loss, d = closure()
        if not state:
            state.update(_initial(index, loss))
        slot = _slot(index, d, group["order"], state)
        candidates = self._propose(index, slot, d, group, state)
        tried = self.evaluate(index, slot, candidates)
        best = tried.argmin(dim=1, keepdim=True)
        new, chosen = tried.gather(1, best).squeeze(1), candidates.gather(1, best)
        old = index.gather(1, slot[:, None])
        taken = (chosen != old).squeeze(1)
        if group["accept"]:
            # A set that is done stays, so that what is searched beside it does not matter.
            taken &= (new < loss - group["tol"]) & (state["stale"] < index.shape[1])
        index.scatter_(1, slot[:, None], torch.where(taken[:, None], chosen, old))
        now = torch.where(taken, new, loss)
        better = now < state["best_loss"]
        state["best_loss"] = torch.where(better, now, state["best_loss"])
        state["best_index"] = torch.where(better[:, None], index, state["best_index"])
        state["stale"] = torch.where(taken, 0, state["stale"] + 1)
        state["step"] += 1
        return now

    @property
    def finished(self) -> bool:
        """Whether no set has changed for as many steps as it has members."""
        (group,) = self.param_groups
        (index,) = group["params"]
        state: dict[str, Any] = self.state[index]
        return bool(state) and bool((state["stale"] >= index.shape[1]).all())

    def _propose(
        self, index: torch.Tensor, slot: torch.Tensor, d: torch.Tensor, group: dict[str, Any], state: dict[str, Any]
    ) -> torch.Tensor:
        """Return the candidates of one slot of each set, shape (N, K); the member itself where there are too few."""
        member = index.gather(1, slot[:, None])
        rank = d.masked_fill(~self.legal, torch.inf).scatter(1, index, torch.inf)
        if not group["accept"]:
            rank = rank.scatter(1, member, d.gather(1, member))
        value, first = rank.topk(min(group["n_candidates"], rank.shape[1]), dim=1, largest=False)
        first = torch.where(value.isinf(), member, first)
        return torch.cat([first, self._draw(index, member, group, state)], dim=1)

    def _draw(
        self, index: torch.Tensor, member: torch.Tensor, group: dict[str, Any], state: dict[str, Any]
    ) -> torch.Tensor:
        """Return random candidates of each set, the same for a set whatever others are searched beside it."""
        if not group["n_random"]:
            return member[:, :0]
        stream = generator("cpu", group["seed"], state["step"])
        share = torch.rand(group["n_random"], generator=stream).to(index.device)
        counted = self.legal.scatter(1, index, value=False).cumsum(dim=1)
        n_free = counted[:, -1:]
        nth = (share * n_free).long().clamp(max=n_free - 1) + 1
        return torch.where(n_free > 0, torch.searchsorted(counted, nth.clamp(min=1)), member)


def _initial(index: torch.Tensor, loss: torch.Tensor) -> dict[str, Any]:
    return {
        "step": 0,
        "stale": torch.zeros(len(index), dtype=torch.long, device=index.device),
        "best_loss": loss.clone(),
        "best_index": index.clone(),
    }


def _slot(index: torch.Tensor, d: torch.Tensor, order: str, state: dict[str, Any]) -> torch.Tensor:
    """Return which member of each set to replace: (N,)."""
    size = index.shape[1]
    if order == "cyclic":
        return torch.full((len(index),), state["step"] % size, dtype=torch.long, device=index.device)
    # A set that did not change keeps its ranking, so `stale` walks through all of its members.
    ranked = d.gather(1, index).argsort(dim=1, descending=True, stable=True)
    return ranked.gather(1, (state["stale"] % size)[:, None]).squeeze(1)
