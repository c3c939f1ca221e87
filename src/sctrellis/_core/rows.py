"""Cells x genes matrices of any container, read as dense float32 blocks of cells."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import sparse

BLOCK = 512
"""Cells read at once: 512 cells x 20,000 genes are 41 MB of float32."""


@dataclass(frozen=True)
class Summary:
    """What one pass over a matrix says about it; per-gene arrays have shape (n_vars,)."""

    mean: np.ndarray
    std: np.ndarray
    n_nonfinite: np.ndarray
    minimum: float
    maximum: float
    integral: bool


class Rows:
    """Rows of a cells x genes matrix, whatever holds it, as dense float32 blocks.

    Parameters
    ----------
    x
        NumPy array or matrix, SciPy sparse matrix or array, dask array, or a backed (h5ad, zarr) dataset,
        shape (n_obs, n_vars).
    columns
        Boolean mask or positions of the genes to keep; None keeps all.

    Notes
    -----
    Only what is read is made dense, one block at a time. `streamed` says whether rows come from outside memory, where
    neighbouring rows are read much faster than scattered ones.
    """

    def __init__(self, x: Any, columns: np.ndarray | None = None) -> None:
        if isinstance(x, np.matrix):
            x = np.asarray(x)
        if sparse.issparse(x) and x.format != "csr":
            x = x.tocsr()
        self._x = x
        self._columns = None if columns is None else np.arange(x.shape[1])[columns]
        self.streamed = not (isinstance(x, np.ndarray) or sparse.issparse(x))
        self.shape = (int(x.shape[0]), int(x.shape[1]) if self._columns is None else len(self._columns))

    def select(self, columns: np.ndarray) -> "Rows":
        """Return the same rows with only some of the genes."""
        kept = np.arange(self.shape[1])[columns]
        return Rows(self._x, kept if self._columns is None else self._columns[kept])

    def take(self, index: np.ndarray | slice) -> np.ndarray:
        """Return rows as float32, shape (n, n_vars). ``index`` is a slice, or positions in any order."""
        if self.streamed and not isinstance(index, slice):
            # Backed datasets want increasing positions, each once.
            unique, inverse = np.unique(index, return_inverse=True)
            return self._dense(self._x[unique])[inverse]
        return self._dense(self._x[index])

    def blocks(self, size: int = BLOCK) -> Iterator[np.ndarray]:
        """Yield all rows in order, ``size`` at a time."""
        for start in range(0, self.shape[0], size):
            yield self.take(slice(start, min(start + size, self.shape[0])))

    def _dense(self, block: Any) -> np.ndarray:
        if hasattr(block, "compute"):
            block = block.compute()
        if self._columns is not None:
            block = block[:, self._columns]
        if sparse.issparse(block):
            block = block.toarray()
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which `checks` reports
            # One memory order, so that sums, and so results, are the same to the bit whatever holds the matrix.
            return np.asarray(block, dtype=np.float32, order="C")

    @cached_property
    def summary(self) -> Summary:
        """Mean, standard deviation (divisor n) and checks of each gene, in one pass."""
        n_vars = self.shape[1]
        count, mean, squares = 0, np.zeros(n_vars), np.zeros(n_vars)
        nonfinite = np.zeros(n_vars, dtype=np.int64)
        low, high, integral = np.inf, -np.inf, True
        for block in self.blocks():
            finite = np.isfinite(block)
            if not finite.all():
                nonfinite += (~finite).sum(axis=0)
                block = np.where(finite, block, 0)
            low, high = min(low, float(block.min())), max(high, float(block.max()))
            integral = integral and bool((block == np.rint(block)).all())
            # Chan's update: sums of squares about the block's own mean do not cancel.
            block = block.astype(np.float64)
            size, block_mean = len(block), block.mean(axis=0)
            delta = block_mean - mean
            squares += ((block - block_mean) ** 2).sum(axis=0) + delta**2 * count * size / (count + size)
            mean += delta * size / (count + size)
            count += size
        std = np.sqrt(squares / max(count, 1))
        std[std < 1e-7 * np.maximum(1.0, np.abs(mean))] = 0.0
        return Summary(mean, std, nonfinite, low, high, integral)

    def in_memory(self) -> np.ndarray:
        """Return all rows as one dense float32 array; raises above ``settings.max_dense_gb``."""
        from sctrellis._core import checks

        checks.dense_size(
            self.shape, "A dense copy of the matrix", "Select genes first, as in `adata[:, genes].copy()`."
        )
        return np.concatenate(list(self.blocks())) if self.shape[0] else np.zeros(self.shape, np.float32)
