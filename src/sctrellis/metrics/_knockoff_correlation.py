import numpy as np
from scipy.linalg import eigvalsh

from sctrellis.metrics._association import ledoit_wolf

SMALLEST = 1e-3
"""Least eigenvalue of the correlation matrix: below, copies would make it singular."""


def shrunk_correlation(z: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the Ledoit-Wolf correlation matrix of standardised columns and the weight of the identity in it.

    The weight is raised where an eigenvalue would still be below :data:`SMALLEST`, as with copies among many cells.
    """
    n, p = z.shape
    correlation = z.T @ z / n
    fourth = float(np.square(np.einsum("ij,ij->i", z, z)).mean())
    shrinkage = ledoit_wolf(fourth, float(np.vdot(correlation, correlation)), n, p)
    lowest = float(eigvalsh(correlation, subset_by_index=[0, 0])[0])
    if (1 - shrinkage) * lowest + shrinkage < SMALLEST:
        shrinkage = (SMALLEST - lowest) / (1 - lowest)
    correlation *= 1 - shrinkage
    correlation.flat[:: p + 1] = 1.0
    return correlation, shrinkage
