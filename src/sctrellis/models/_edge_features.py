"""What classifiers of pairs share: batches of labelled pairs, and layers whose randomness is explicit."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import nn

Negatives = Literal["all", "balanced"]


@dataclass(frozen=True)
class LabelledPairs:
    """Pairs of genes and whether they are edges; positions and labels of shape (n_pairs,).

    Parameters
    ----------
    row, column
        Regulator and target.
    label : bool
        Whether the pair is a known edge.
    """

    row: np.ndarray
    column: np.ndarray
    label: np.ndarray

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True)
class PairBatches:
    """Batches of labelled pairs, in an order that depends on seed and epoch only.

    Parameters
    ----------
    pairs
        The pairs.
    batch_size
        Pairs in a batch; the last one of an epoch may be smaller.
    seed
        Seed of the order, and of the pairs drawn.
    device
        Where the batches go.
    negatives
        ``"all"``, or ``"balanced"``: in each epoch as many other pairs of a regulator as it has edges, drawn anew.
    max_batches
        Batches in an epoch at most; the next epoch starts from another order.
    """

    pairs: LabelledPairs
    batch_size: int
    seed: int
    device: torch.device
    negatives: Negatives = "all"
    max_batches: int | None = None

    @cached_property
    def _edges(self) -> np.ndarray:
        """Number of edges of each regulator."""
        return np.bincount(self.pairs.row[self.pairs.label], minlength=int(self.pairs.row.max()) + 1)

    @cached_property
    def _n_pairs(self) -> int:
        if self.negatives == "all":
            return len(self.pairs)
        others = np.bincount(self.pairs.row[~self.pairs.label], minlength=len(self._edges))
        return int(self._edges.sum() + np.minimum(self._edges, others).sum())

    def order(self, epoch: int) -> np.ndarray:
        """Return the pairs of an epoch, shuffled."""
        rng = np.random.default_rng([self.seed, epoch])
        if self.negatives == "all":
            return rng.permutation(len(self.pairs))
        others = np.flatnonzero(~self.pairs.label)
        row = self.pairs.row[others]
        shuffled = np.lexsort((rng.random(len(others)), row))
        start = np.searchsorted(row[shuffled], row[shuffled])
        drawn = others[shuffled][np.arange(len(others)) - start < self._edges[row[shuffled]]]
        return rng.permutation(np.concatenate([np.flatnonzero(self.pairs.label), drawn]))

    def __len__(self) -> int:
        n_batches = max(1, -(-self._n_pairs // self.batch_size))
        return n_batches if self.max_batches is None else min(n_batches, self.max_batches)

    def epoch(self, epoch: int) -> Iterator[torch.Tensor]:
        """Yield the batches of an epoch, int64, shape (n, 3): regulator, target, label."""
        order = self.order(epoch)
        columns = (self.pairs.row, self.pairs.column, self.pairs.label)
        for i in range(len(self)):
            chosen = order[i * self.batch_size : (i + 1) * self.batch_size]
            table = np.stack([part[chosen].astype(np.int64) for part in columns], axis=1)
            yield torch.from_numpy(table).to(self.device)


def linear(n_in: int, n_out: int, noise: torch.Generator, *, bias: bool = True) -> nn.Linear:
    """Return a linear layer drawn from ``noise``: torch's own constructor draws from the global generator."""
    layer = nn.utils.skip_init(nn.Linear, n_in, n_out, bias=bias)
    nn.init.xavier_uniform_(layer.weight, generator=noise)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def normal(*shape: int, noise: torch.Generator, std: float) -> nn.Parameter:
    """Return a parameter drawn from ``noise``."""
    return nn.Parameter(std * torch.randn(*shape, generator=noise))


def dropout(x: torch.Tensor, rate: float, noise: torch.Generator | None) -> torch.Tensor:
    """Return ``x`` with a share of its values 0 and the others scaled up; as it is without ``noise``."""
    if noise is None or rate == 0:
        return x
    kept = torch.rand(x.shape, generator=noise, device=x.device) >= rate
    return x * kept / (1 - rate)


def cross_entropy(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy of pairs."""
    return nn.functional.binary_cross_entropy_with_logits(logits, label.to(logits.dtype))
