"""Networks of the same degrees, drawn by trades of targets between pairs of regulators."""

from dataclasses import dataclass

import numpy as np

from sctrellis.metrics._pair_table import PairTable

EDGES_AT_ONCE = 2**17
"""Edges of all chains that run together: enough to hide the cost of a call, few enough to stay in the cache."""


@dataclass(frozen=True)
class Curveball:
    """Chains of networks that keep every degree and stay within the cells of a table.

    Parameters
    ----------
    place : int32, (n_rows, n_columns)
        Position of the pair of each cell; -1 where a cell is no pair.
    """

    place: np.ndarray

    @classmethod
    def of(cls, table: PairTable) -> "Curveball":
        """Return the chains of a table, its columns padded so that shifts replace divisions."""
        n_rows, n_columns = table.place.shape
        place = np.full((n_rows, 1 << (n_columns - 1).bit_length()), -1, dtype=np.int32)
        place[:, :n_columns] = table.place
        return cls(place)

    def run(self, cells: np.ndarray, n_rounds: int, rng: np.random.Generator) -> np.ndarray:
        """Return chains after rounds in which every regulator trades once, with a partner drawn at random.

        Parameters
        ----------
        cells : int64, (n_chains, n_edges)
            Edges as cells, ``row * place.shape[1] + column``.
        n_rounds
            Number of rounds.
        rng
            Random numbers.
        """
        (n_chains, n_edges), (n_rows, width) = cells.shape, self.place.shape
        bits, allowed = (width - 1).bit_length(), self.place.ravel() >= 0
        n_pairs = (n_rows + 1) // 2
        row, column = (cells >> bits).ravel(), (cells & (width - 1)).ravel()
        chain = np.repeat(np.arange(n_chains) * n_rows, n_edges)
        offset = np.arange(n_chains)[:, None] * (2 * n_pairs)
        partners = np.zeros((n_chains, 2 * n_pairs), dtype=np.int64)
        seat = np.empty((n_chains, n_rows), dtype=np.int64)
        shift = 63 - (n_chains * n_pairs).bit_length()
        for _ in range(n_rounds):
            order = rng.random((n_chains, n_rows)).argsort(axis=1)
            np.put_along_axis(seat, order, np.arange(n_rows) + offset, axis=1)
            partners[:, :n_rows] = order
            if n_rows % 2:
                partners[:, -1] = order[:, -1]  # the regulator left over trades with itself
            seats = seat.ravel()[chain + row]
            # Sorted by pair of regulators, then target, then side: a target of both stands there twice in a row.
            key = (seats >> 1 << bits | column) << 1 | (seats & 1)
            key.sort()
            side, cell = key & 1, key >> 1
            column, pair = cell & (width - 1), cell >> bits
            same = cell[1:] == cell[:-1]
            free = np.ones(len(cell), dtype=bool)
            free[1:] = ~same
            free[:-1] &= ~same
            of_pair = partners.ravel()
            free &= allowed[of_pair[(pair << 1) | (side ^ 1)] << bits | column]
            at = np.flatnonzero(free)
            # The sides of a pair's free targets, in random order.
            drawn = rng.integers(0, 1 << (shift - 1), size=len(at))
            shuffled = pair[at] << shift | drawn << 1 | side[at]
            shuffled.sort()
            side[at] = shuffled & 1
            row = of_pair[pair << 1 | side]
        return (row << bits | column).reshape(n_chains, n_edges)

    def cells(self, row: np.ndarray, column: np.ndarray) -> np.ndarray:
        """Return pairs as cells."""
        return row.astype(np.int64) * self.place.shape[1] + column

    def positions(self, cells: np.ndarray) -> np.ndarray:
        """Return cells as positions of pairs."""
        return self.place.ravel()[cells]
