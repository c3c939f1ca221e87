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
MESSAGE = -1
"""In place of a label: the pair is not asked about, it carries messages."""


@dataclass(frozen=True)
class Steps:
    """Steps of training: in each, some known edges are asked about, and the others are the graph.

    A batch is int64, shape (n, 3): regulator, target, and the label, or :data:`MESSAGE`.

    Parameters
    ----------
    pairs
        Training pairs.
    regulator, target : (n_messages,), int64
        Edges that may carry messages. Those between the two genes of a pair that is asked about are left out of the
        step, whichever way they point.
    n_genes
        Number of genes.
    asked_frac
        Share of edges that are asked about.
    n_neg
        Other pairs asked about, for each edge that is.
    neg_mode
        ``"uniform"``: drawn from all other pairs; ``"per_regulator"``: as many of each regulator as suit its edges.
    n_steps
        Steps in an epoch.
    seed
        Seed of all draws.
    device
        Where the batches go.
    """

    pairs: LabelledPairs
    regulator: np.ndarray
    target: np.ndarray
    n_genes: int
    asked_frac: float
    n_neg: int
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

    @cached_property
    def _codes(self) -> np.ndarray:
        return unordered(self.regulator, self.target, self.n_genes)

    def __len__(self) -> int:
        return self.n_steps

    def _negatives(self, edges: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        others = self._others
        if self.neg_mode == "uniform":
            n = min(len(others), self.n_neg * len(edges))
            return others[rng.choice(len(others), n, replace=False, shuffle=False)]
        available = np.bincount(self.pairs.row[others], minlength=self.n_genes)
        wanted = np.minimum(self.n_neg * np.bincount(self.pairs.row[edges], minlength=self.n_genes), available)
        start = np.cumsum(available) - available
        drawn = [
            start[i] + rng.choice(available[i], wanted[i], replace=False, shuffle=False) for i in np.flatnonzero(wanted)
        ]
        return others[np.concatenate(drawn)] if drawn else others[:0]

    def step(self, epoch: int, step: int) -> np.ndarray:
        """Return the table of one step."""
        rng = np.random.default_rng([self.seed, epoch, step])
        n_asked = max(1, round(self.asked_frac * len(self._edges)))
        edges = self._edges[rng.permutation(len(self._edges))[:n_asked]]
        asked = np.concatenate([edges, self._negatives(edges, rng)])
        row, column, label = self.pairs.row[asked], self.pairs.column[asked], self.pairs.label[asked]
        sent = ~np.isin(self._codes, unordered(row, column, self.n_genes))
        regulator, target = self.regulator[sent], self.target[sent]
        columns = ((row, regulator), (column, target), (label, np.full(len(regulator), MESSAGE)))
        return np.stack([np.concatenate(parts).astype(np.int64) for parts in columns], axis=1)

    def epoch(self, epoch: int) -> Iterator[torch.Tensor]:
        """Yield the batches of an epoch."""
        for step in range(self.n_steps):
            yield torch.from_numpy(self.step(epoch, step)).to(self.device)


@dataclass(frozen=True)
class AllPairs:
    """The pairs of a fold, all in one batch of int64, shape (n_pairs, 3): regulator, target, label.

    Parameters
    ----------
    pairs
        The pairs.
    seed
        Seed; nothing is drawn.
    device
        Where the batch goes.
    """

    pairs: LabelledPairs
    seed: int
    device: torch.device

    def __len__(self) -> int:
        return 1

    def epoch(self, _epoch: int) -> Iterator[torch.Tensor]:
        """Yield the only batch."""
        columns = (self.pairs.row, self.pairs.column, self.pairs.label)
        yield torch.from_numpy(np.stack([part.astype(np.int64) for part in columns], axis=1)).to(self.device)


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
