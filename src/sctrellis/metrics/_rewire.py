"""Graphs in which every gene has as many regulators and as many targets as before, but others."""

import numpy as np

_ROUNDS = 40
"""Rounds of swaps. In each, every edge is in one proposal; sparse graphs have forgotten their edges after a few."""


def rewire(
    row: np.ndarray, column: np.ndarray, rng: np.random.Generator, *, n_rounds: int = _ROUNDS
) -> tuple[np.ndarray, np.ndarray]:
    """Return edges drawn at random among all graphs with the same degrees.

    Parameters
    ----------
    row, column : (n_edges,), int64
        Both ends of each edge; no edge twice.
    rng
        Source of randomness.
    n_rounds
        Rounds of swaps.

    Returns
    -------
    row, column
        Edges in another order: every gene is as often in `row`, and as often in `column`, as before. No edge is there
        twice, and no edge joins a gene to itself that did not before.

    Notes
    -----
    Edges are paired at random and swap their columns where both new edges are new (Maslov and Sneppen 2002), half of
    all edges against the other half at once. Where a hub is joined to nearly everything, most of its edges must stay:
    what the degrees alone force is part of the control.
    """
    row, column = row.astype(np.int64), column.astype(np.int64)
    if len(row) < 2:
        return row, column
    n = int(max(row.max(), column.max())) + 1
    half = len(row) // 2
    for _ in range(n_rounds):
        order = rng.permutation(len(row))
        row, column = row[order], column[order]
        one, other = slice(0, half), slice(half, 2 * half)
        present = np.sort(row * n + column)
        first, second = row[one] * n + column[other], row[other] * n + column[one]
        # A coin is flipped for each swap: without it, some graphs could only be reached in an odd number of rounds.
        allowed = (rng.random(half) < 0.5) & (row[one] != column[other]) & (row[other] != column[one])
        allowed &= ~_among(first, present) & ~_among(second, present)
        # Two swaps of one round may propose the same edge; then neither is made.
        proposed = np.concatenate([first, second])
        _, inverse, times = np.unique(
            np.where(np.tile(allowed, 2), proposed, -1 - np.arange(len(proposed))),
            return_inverse=True,
            return_counts=True,
        )
        allowed &= (times[inverse] == 1).reshape(2, -1).all(axis=0)
        swapped = np.flatnonzero(allowed)
        column[swapped], column[swapped + half] = column[swapped + half], column[swapped]
    return row, column


def _among(wanted: np.ndarray, increasing: np.ndarray) -> np.ndarray:
    at = np.minimum(np.searchsorted(increasing, wanted), len(increasing) - 1)
    return increasing[at] == wanted
