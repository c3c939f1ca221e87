"""Change of predicted expression when elements are perturbed, on the log scale and as published."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MEASURES = ("log_delta", "avg_delta", "rel_delta_pct")


@dataclass(frozen=True)
class Deltas:
    """Mean change over cells of several tasks, and the same in cells drawn with replacement.

    Parameters
    ----------
    estimate : (n_tasks, 3)
        In the order of `MEASURES`: change of log expression; change of expression; change of expression in percent.
    replicates : (n_boot, n_tasks, 3)
        The same for each draw of the cells, which all tasks share.
    """

    estimate: np.ndarray
    replicates: np.ndarray

    def interval(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the 2.5 and 97.5 % points of the replicates, (n_tasks, 3) each; NaN without replicates."""
        if not len(self.replicates):
            return np.full_like(self.estimate, np.nan), np.full_like(self.estimate, np.nan)
        low, high = np.percentile(self.replicates, [2.5, 97.5], axis=0)
        return low, high


def deltas(
    before: np.ndarray,
    after: np.ndarray,
    *,
    floor: float | None = None,
    unit: float = 1.0,
    n_boot: int = 1_000,
    seed: int = 0,
) -> Deltas:
    """Return how much expression changes.

    Parameters
    ----------
    before : (n_tasks, n_cells)
        Log expression.
    after : (n_tasks, n_draws, n_cells)
        Log expression after each of several perturbations, whose changes are averaged.
    floor
        Log expression below which expression counts as if it were there; None has no such limit.
    unit
        Factor of expression.
    n_boot
        Draws of the cells.
    seed
        Seed of the draws.
    """
    raised = (before, after) if floor is None else (np.maximum(before, floor), np.maximum(after, floor))
    u, changed = (np.exp(values.astype(np.float64)) for values in raised)
    change = changed - u[:, None]
    each = np.stack(
        [
            (after - before[:, None]).mean(axis=1, dtype=np.float64),
            unit * change.mean(axis=1),
            100 * (change / u[:, None]).mean(axis=1),
        ],
        axis=-1,
    )  # (n_tasks, n_cells, 3)
    n_cells = before.shape[1]
    drawn = np.random.default_rng(seed).multinomial(n_cells, np.full(n_cells, 1 / n_cells), size=n_boot) / n_cells
    return Deltas(each.mean(axis=1), np.einsum("bc,tcm->btm", drawn, each, optimize=True))


def over_tasks(parts: Sequence[Deltas]) -> Deltas:
    """Return the plain mean over all tasks of several parts, as one task."""
    n_tasks = sum(len(part.estimate) for part in parts)
    estimate = sum(part.estimate.sum(axis=0, keepdims=True) for part in parts) / n_tasks
    replicates = sum(part.replicates.sum(axis=1, keepdims=True) for part in parts) / n_tasks
    return Deltas(np.asarray(estimate), np.asarray(replicates))
