"""Pairs as cells of a regulators x targets table, some of whose cells are no pair."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from sctrellis._core import checks


@dataclass(frozen=True)
class PairTable:
    """Where each pair stands in a regulators x targets table.

    Parameters
    ----------
    row, column : (n,)
        Row and column of each pair.
    place : int32, (n_rows, n_columns)
        Position of the pair of each cell; -1 where a cell is no pair (a self pair, say).
    """

    row: np.ndarray
    column: np.ndarray
    place: np.ndarray

    @classmethod
    def of(cls, rows: Any, columns: Any, n: int) -> "PairTable":
        """Return the table of ``n`` pairs, each of which may stand there once."""
        row_names, row = np.unique(np.asarray(rows), return_inverse=True)
        column_names, column = np.unique(np.asarray(columns), return_inverse=True)
        if row.shape != (n,) or column.shape != (n,):
            msg = f"Expected `rows` and `columns` to have shape ({n},) as `labels`, found {row.shape}, {column.shape}."
            raise ValueError(msg)
        shape = (len(row_names), len(column_names))
        checks.dense_size(shape, "The table of regulators x targets", "Judge on fewer pairs.")
        place = np.full(shape, -1, dtype=np.int32)
        place[row, column] = np.arange(n)
        n_cells = int((place >= 0).sum())
        if n_cells < n:
            msg = f"{n - n_cells:,} of the {n:,} pairs of `rows` and `columns` are copies of others. Keep each once."
            raise ValueError(msg)
        return cls(row, column, place)

    @property
    def allowed(self) -> np.ndarray:
        """Whether each cell is a pair, shape (n_rows, n_columns)."""
        return self.place >= 0
