"""Standardised cells, and batches of them in an order that suits where they are stored."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

_BLOCK = 64
"""Neighbouring cells that a shuffle keeps together when they are read from disk."""
_WINDOW = 16
"""Batches that are read from disk at once."""


@dataclass(frozen=True)
class Standardised:
    """Expression with mean 0 and variance 1 per gene, read block by block; a constant gene is 0 everywhere.

    Parameters
    ----------
    rows
        Source of cells: any object with ``shape``, ``summary``, ``streamed`` and ``take``, such as ``_core.rows.Rows``.
    clip
        Largest absolute value after standardisation.
    weights : (n_genes,)
        Factor of each gene after standardisation; None is 1.
    """

    rows: Any
    clip: float = 10.0
    weights: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Cells and genes."""
        return self.rows.shape

    def take(self, index: np.ndarray | slice) -> np.ndarray:
        """Return standardised cells, float32, shape (n, n_genes)."""
        summary = self.rows.summary
        scale = np.divide(1.0, summary.std, out=np.zeros_like(summary.std), where=summary.std > 0)
        block = self.rows.take(index)
        block = (block - summary.mean.astype(np.float32)) * scale.astype(np.float32)
        np.clip(block, -self.clip, self.clip, out=block)
        return block if self.weights is None else block * self.weights.astype(np.float32)


@dataclass(frozen=True)
class Batches:
    """Batches of standardised cells, in an order that depends on seed and epoch only.

    Parameters
    ----------
    data
        The cells.
    batch_size
        Cells in a batch; the last one of an epoch may be smaller, never a single cell.
    seed
        Seed of the order.
    device
        Where the batches go.
    cells
        Positions of the cells to draw from; None is all.
    max_batches
        Batches in an epoch at most; the next epoch starts from another order.
    """

    data: Standardised
    batch_size: int
    seed: int
    device: torch.device
    cells: np.ndarray | None = None
    max_batches: int | None = None

    def order(self, epoch: int) -> np.ndarray:
        """Return the cells of an epoch, shuffled.

        In memory every cell moves. From disk whole runs of neighbours move, and then the cells inside a window of
        runs: reads stay contiguous and a batch still mixes distant cells.
        """
        cells = np.arange(self.data.shape[0]) if self.cells is None else self.cells
        rng = np.random.default_rng([self.seed, epoch])
        if not self.data.rows.streamed:
            return rng.permutation(cells)
        runs = [cells[start : start + _BLOCK] for start in range(0, len(cells), _BLOCK)]
        shuffled = [runs[i] for i in rng.permutation(len(runs))]
        width = max(1, _WINDOW * self.batch_size // _BLOCK)
        windows = [np.concatenate(shuffled[start : start + width]) for start in range(0, len(shuffled), width)]
        return np.concatenate([rng.permutation(window) for window in windows])

    def __len__(self) -> int:
        n_cells = self.data.shape[0] if self.cells is None else len(self.cells)
        full, rest = divmod(n_cells, self.batch_size)
        n_batches = max(1, full + (rest > 1))
        return n_batches if self.max_batches is None else min(n_batches, self.max_batches)

    def epoch(self, epoch: int) -> Iterator[torch.Tensor]:
        """Yield the batches of an epoch, float32, shape (n, n_genes)."""
        order = self.order(epoch)[: len(self) * self.batch_size]
        # From disk a window of runs is read once, not once for every batch that has cells of it.
        ahead = self.batch_size * (_WINDOW if self.data.rows.streamed else 1)
        for start in range(0, len(order), ahead):
            block = torch.from_numpy(self.data.take(order[start : start + ahead]))
            for batch in block.split(self.batch_size):
                yield batch.to(self.device)
