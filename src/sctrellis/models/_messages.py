"""Graphs that carry messages between genes: which edges they may hold, and means over neighbours."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch

Direction = Literal["regulators", "targets", "both"]
DIRECTIONS: tuple[Direction, ...] = ("regulators", "targets", "both")
_GATHERED = 2**24
"""Numbers gathered at once for a mean: 2**24 float32 are 67 MB."""


def unordered(one: np.ndarray, other: np.ndarray, n_genes: int) -> np.ndarray:
    """Return a number for each pair of genes that is the same whichever of the two comes first."""
    return np.minimum(one, other).astype(np.int64) * n_genes + np.maximum(one, other)


@dataclass(frozen=True)
class Neighbours:
    """Messages of one kind.

    Parameters
    ----------
    receiver, sender : (n_messages,), int64
        Who gets a message, and from whom.
    count : (n_genes,)
        Number of messages that each gene gets.
    """

    receiver: torch.Tensor
    sender: torch.Tensor
    count: torch.Tensor

    def mean(self, h: torch.Tensor) -> torch.Tensor:
        """Return the mean of ``h``, (n_genes, d), over each gene's neighbours; a gene without keeps its own row.

        Plain additions by index: they have forward and backward derivatives and can be mapped, which products with
        sparse matrices cannot.
        """
        width = max(1, _GATHERED // max(1, len(self.receiver)))
        parts = h.split(width, dim=1)
        total = torch.cat([torch.zeros_like(p).index_add(0, self.receiver, p[self.sender]) for p in parts], dim=1)
        count = self.count.to(h.dtype)[:, None]
        return torch.where(count > 0, total / count.clamp(min=1), h)


@dataclass(frozen=True)
class MessageGraph:
    """Directed edges between genes, and along which way messages run.

    Parameters
    ----------
    regulator, target : (n_edges,), int64
        The edges.
    n_genes
        Number of genes.
    direction
        ``"regulators"``: each gene hears its regulators; ``"targets"``: its targets; ``"both"``.
    merged
        Whether with ``"both"`` one mean is taken over regulators and targets together, instead of one over each.
    """

    regulator: torch.Tensor
    target: torch.Tensor
    n_genes: int
    direction: Direction = "regulators"
    merged: bool = False

    @cached_property
    def neighbours(self) -> tuple[Neighbours, ...]:
        """One set of messages, or two: from regulators, and from targets."""
        ways = []
        if self.direction != "targets":
            ways.append((self.target, self.regulator))
        if self.direction != "regulators":
            ways.append((self.regulator, self.target))
        if self.merged and len(ways) == 2:
            ways = [(torch.cat([ways[0][0], ways[1][0]]), torch.cat([ways[0][1], ways[1][1]]))]
        return tuple(Neighbours(to, by, torch.bincount(to, minlength=self.n_genes)) for to, by in ways)

    @cached_property
    def count(self) -> torch.Tensor:
        """Number of neighbours of each gene, (n_genes,)."""
        return torch.stack([n.count for n in self.neighbours]).sum(0)

    def mean(self, h: torch.Tensor) -> torch.Tensor:
        """Return the means over neighbours, side by side where there are two sets: (n_genes, d) or (n_genes, 2 d)."""
        return torch.cat([n.mean(h) for n in self.neighbours], dim=1)
