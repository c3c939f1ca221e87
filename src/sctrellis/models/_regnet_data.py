"""What RegNet is trained on: features of genes from their cells, edges that may be messages, and steps of pairs."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch

from sctrellis.models._edge_features import LabelledPairs
from sctrellis.models._messages import unordered

NegMode = Literal["uniform", "per_regulator"]
ASKED, SENT, SILENT = 0, 1, 2
"""What a pair does in a step: it is scored; it is an edge that carries messages; or it is only counted."""


@dataclass(frozen=True)
class Steps:
    """Steps of training: in each, some known edges are asked about and the others are the graph.

    A batch is int64, shape (n, 4): regulator, target, label, and :data:`ASKED`, :data:`SENT` or :data:`SILENT`.

    Parameters
    ----------
    pairs
        Training pairs.
    allowed : (n_edges,), bool
        Which of the edges among the pairs, in their order, may carry messages.
    n_genes
        Number of genes.
    asked_frac
        Share of edges that are asked about.
    n_neg
        Other pairs asked about, for each edge that is.
    neg_mode
        ``"uniform"``: drawn from all other pairs; ``"per_regulator"``: so many of each regulator as are its edges.
    n_steps
        Steps in an epoch.
    seed
        Seed of all draws.
    device
        Where the batches go.
    """

    pairs: LabelledPairs
    allowed: np.ndarray
    n_genes: int
    asked_frac: float
    n_neg: float
    neg_mode: NegMode
    n_steps: int
    seed: int
    device: torch.device

    @cached_property
    def _edges(self) -> np.ndarray:
        return np.flatnonzero(self.pairs.label)

    @cached_property
    def _others(self) -> np.ndarray:
        """Pairs that are no known edges, sorted by regulator."""
        others = np.flatnonzero(~self.pairs.label)
        return others[np.argsort(self.pairs.row[others], kind="stable")]

    def __len__(self) -> int:
        return self.n_steps

    def _negatives(self, edges: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        others = self._others
        if self.neg_mode == "uniform":
            n = min(len(others), round(self.n_neg * len(edges)))
            return others[rng.choice(len(others), n, replace=False, shuffle=False)]
        wanted = np.round(self.n_neg * np.bincount(self.pairs.row[edges], minlength=self.n_genes)).astype(np.int64)
        available = np.bincount(self.pairs.row[others], minlength=self.n_genes)
        start = np.cumsum(available) - available
        drawn = [
            start[i] + rng.choice(available[i], min(wanted[i], available[i]), replace=False, shuffle=False)
            for i in np.flatnonzero((wanted > 0) & (available > 0))
        ]
        return others[np.concatenate(drawn)] if drawn else others[:0]

    def step(self, epoch: int, step: int) -> np.ndarray:
        """Return the table of one step."""
        rng = np.random.default_rng([self.seed, epoch, step])
        order = rng.permutation(len(self._edges))
        n_asked = min(max(1, round(self.asked_frac * len(order))), len(order))
        asked = np.zeros(len(order), dtype=bool)
        asked[order[:n_asked]] = True
        negatives = self._negatives(self._edges[asked], rng)
        scored = np.concatenate([self._edges[asked], negatives])
        rest, sent = self._edges[~asked], self.allowed[~asked]
        # An edge between the two genes of a pair that is asked about would tell, whichever way it points.
        row, column = self.pairs.row, self.pairs.column
        told = unordered(row[scored], column[scored], self.n_genes)
        sent = sent & ~np.isin(unordered(row[rest], column[rest], self.n_genes), told)
        chosen = np.concatenate([scored, rest])
        role = np.concatenate([np.full(len(scored), ASKED), np.where(sent, SENT, SILENT)])
        return np.stack([row[chosen], column[chosen], self.pairs.label[chosen], role], axis=1).astype(np.int64)

    def epoch(self, epoch: int) -> Iterator[torch.Tensor]:
        """Yield the batches of an epoch."""
        for step in range(self.n_steps):
            yield torch.from_numpy(self.step(epoch, step)).to(self.device)


def reduce_cells(profiles: np.ndarray, n_features: int) -> np.ndarray:
    r"""Return the genes' coordinates on the first principal axes of the cells.

    The reduction is linear in the profiles: with :math:`V` the axes of the :math:`n` cells, features are
    :math:`Z V \sqrt{d / n}`, whose mean square is at most 1.

    Parameters
    ----------
    profiles : (n_genes, n_cells)
        Standardised expression of every gene.
    n_features
        Number of axes at most; there are no more than cells or genes.

    Returns
    -------
    np.ndarray, float32, (n_genes, d)
        Features.
    """
    z = profiles.astype(np.float64)
    by_genes = len(z) < z.shape[1]
    values, vectors = np.linalg.eigh(z @ z.T if by_genes else z.T @ z)
    kept = np.flatnonzero(values > values[-1] * 1e-10)[::-1][:n_features]
    axes = z.T @ vectors[:, kept] / np.sqrt(values[kept]) if by_genes else vectors[:, kept]
    # Eigenvectors have no sign of their own; the cell furthest out decides, so that the order of genes does not.
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(len(kept))])
    return (z @ axes * np.sqrt(len(kept) / z.shape[1])).astype(np.float32)
