"""Expression as a known function of which elements are open: objectives whose best set is known without a search."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from scipy import sparse

from sctrellis.explain import AdditiveObjective


@dataclass(frozen=True)
class Gate:
    """Some elements, and what they do together: open by ``"OR"`` any, ``"AND"`` all, ``"ADD"`` each adds ``beta``."""

    kind: str
    members: tuple[int, ...]
    beta: float

    def __call__(self, x):
        """Return the effect on log expression of states (..., M), arrays or tensors."""
        own = x[..., list(self.members)]
        if self.kind == "OR":
            return self.beta * (1 - (1 - own).prod(-1))
        return self.beta * (own.prod(-1) if self.kind == "AND" else own.sum(-1))


SCENARIOS = {
    "A": (3, [("OR", 3, 2.0), ("AND", 3, 1.5), ("ADD", 1, 0.5), ("ADD", 1, 0.5)]),
    "B": (6, [("OR", 3, 2.0), ("AND", 3, 1.5), ("ADD", 1, 0.5), ("ADD", 1, 0.5)]),
    "C": (4, [("OR", 2, 1.5), ("OR", 2, 1.2), *[("ADD", 1, 0.4)] * 4]),
    "D": (3, [("AND", 3, 1.5), ("AND", 2, 1.5), *[("ADD", 1, 0.4)] * 3]),
    "E": (4, [("OR", 4, 2.5), *[("ADD", 1, 0.3)] * 6]),
}
"""Size of the set, and gates (kind, members, beta)."""


def lay_out(kinds: Sequence[tuple[str, int, float]]) -> list[Gate]:
    """Return gates on elements 0, 1, … in turn."""
    gates, at = [], 0
    for kind, size, beta in kinds:
        gates.append(Gate(kind, tuple(range(at, at + size)), beta))
        at += size
    return gates


def states(gates, n_elements, n_cells, *, p_open, seed):
    """Return cells x elements of 0 and 1: planted ones open with ``p_open``, the others in 5 to 60 % of cells."""
    rng = np.random.default_rng(seed)
    share = rng.uniform(0.05, 0.6, n_elements)
    share[sorted({m for gate in gates for m in gate.members})] = p_open
    return (rng.random((n_cells, n_elements)) < share).astype(np.float64)


def objective(tasks, *, dtype=torch.float64, sign=1.0, value=0.0):
    """Return the objective of tasks, pairs of gates and states with equally many cells and elements.

    Every element has a coordinate of its own, so that the gates are functions of the pre-activation.
    """
    stacked = np.vstack([x for _, x in tasks])
    n_cells, n_elements = tasks[0][1].shape
    peaks = np.arange(n_elements)[None].repeat(len(tasks), 0)
    # One matrix for all: the elements of task t are columns of their own.
    wide = sparse.block_diag([x for _, x in tasks], format="csr")
    wide = sum(wide[i * n_cells : (i + 1) * n_cells] for i in range(len(tasks)))
    peaks = peaks + n_elements * np.arange(len(tasks))[:, None]

    def head(pre):
        return torch.stack([sum(g(pre[t, :, :, 0]) for g in gates) for t, (gates, _) in enumerate(tasks)])

    return AdditiveObjective.build(
        wide,
        peaks,
        effects=torch.eye(n_elements, dtype=dtype).expand(len(tasks), -1, -1),
        pre=torch.tensor(stacked, dtype=dtype).view(len(tasks), n_cells, 1, n_elements),
        head=head,
        sign=sign,
        value=value,
    )


def drop(gates, x, members):
    """Return how much the mean falls when ``members`` are closed."""
    closed = x.copy()
    closed[:, list(members)] = 0
    return float(np.mean(sum(g(x) for g in gates) - sum(g(closed) for g in gates)))


def best_drop(gates, x, size):
    """Return the largest fall that closing ``size`` elements can bring.

    Gates have no element in common, so the best set is made of the best subset of each: all subsets of every gate are
    compared, and sizes are shared out exactly.
    """
    total = np.full(size + 1, -np.inf)
    total[0] = 0.0
    for gate in gates:
        own = [
            max(drop([gate], x, chosen) for chosen in combinations(gate.members, k))
            for k in range(min(size, len(gate.members)) + 1)
        ]
        total = np.array([max(total[k - j] + own[j] for j in range(min(k, len(own) - 1) + 1)) for k in range(size + 1)])
    return total.max()
