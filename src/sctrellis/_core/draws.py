"""Draws that are keyed by names: what one gene or cell draws does not depend on which others there are."""

import hashlib
from collections.abc import Iterable

import numpy as np
import pandas as pd

from sctrellis._core.keys import CELL_FOLDS


def hashes(names: Iterable[str]) -> np.ndarray:
    """Return 64 bits of the sha256 of each name."""
    digests = b"".join(hashlib.sha256(str(name).encode()).digest()[:8] for name in names)
    return np.frombuffer(digests, dtype="<u8")


def uniform(seed: int, purpose: str, *keys: np.ndarray) -> np.ndarray:
    """Return a number in [0, 1) for each combination of hashes, the same in any company and order.

    A counter-based generator (SplitMix64's finaliser, applied once for each part of the key) instead of a sequential
    one: what one gene draws must not depend on which other genes there are.
    """
    start = hashlib.sha256(f"{seed} {purpose}".encode()).digest()[:8]
    state = _mix(np.frombuffer(start, dtype="<u8").astype(np.uint64))
    for value in keys:
        state = _mix(state ^ value.astype(np.uint64))
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(state: np.ndarray) -> np.ndarray:
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def folds(names: Iterable[str], groups: np.ndarray, validation: float, test: float, seed: int) -> pd.Categorical:
    """Divide cells into those for training, validation and test, in the same shares within every group.

    A group of at least three cells has one in each part whose share is not 0; the cells of a smaller group train.

    Parameters
    ----------
    names
        Names of the cells; they decide the draw, so that the order of the cells does not matter.
    groups : (n_cells,)
        Code of each cell's group, from 0.
    validation, test
        Shares of the cells.
    seed
        Seed of the draw.
    """
    size = np.bincount(groups)
    large = size >= 3
    n_test = np.where(large, np.maximum(np.floor(size * test + 0.5), float(test > 0)), 0)
    n_validation = np.where(large, np.maximum(np.floor(size * validation + 0.5), float(validation > 0)), 0)
    # Rounding up must leave a small group cells to train on, and to test on.
    n_validation = np.where(large, np.minimum(n_validation, size - 1 - (test > 0)), 0)
    n_test = np.where(large, np.minimum(n_test, size - 1 - n_validation), 0)
    order = np.lexsort((uniform(seed, "cell", hashes(names)), groups))
    rank = np.empty(len(groups), dtype=np.int64)
    rank[order] = np.arange(len(groups)) - np.repeat(np.cumsum(size) - size, size)
    tested, held = n_test[groups], (n_test + n_validation)[groups]
    labels = np.array(CELL_FOLDS, dtype=object)
    return pd.Categorical(labels[np.where(rank < tested, 2, np.where(rank < held, 1, 0))], list(CELL_FOLDS))
