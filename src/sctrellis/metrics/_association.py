"""Association of regulators with genes: correlation in its variants, from blocks of cells."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import get_lapack_funcs, solve_triangular
from scipy.sparse.linalg import LinearOperator, eigsh
from scipy.stats import rankdata

RANKED_AT_ONCE = 128
"""Columns ranked at once: ranking needs five times the memory of what it ranks."""


@dataclass(frozen=True)
class Standardiser:
    """Blocks of cells as z-scores; `mean` and `std` (none zero) have shape (n_genes,)."""

    mean: np.ndarray
    std: np.ndarray

    def __call__(self, block: np.ndarray, dtype: type = np.float32) -> np.ndarray:
        """Return the z-scores of a block, shape (n, n_genes)."""
        # Centred in float64: a gene with a large mean and a small spread would lose its digits in float32.
        return ((block - self.mean) / self.std).astype(dtype, copy=False)


def cross_correlation(
    blocks: Iterable[np.ndarray], standardise: Standardiser, regulators: np.ndarray
) -> tuple[np.ndarray, float]:
    """Return Pearson correlations of regulators with genes, from one pass over the cells.

    Parameters
    ----------
    blocks
        Blocks of cells, shape (n, n_genes) each, none constant over all cells.
    standardise
        Makes z-scores of a block.
    regulators
        Positions of the regulators among the genes, shape (n_regulators,).

    Returns
    -------
    correlation : float64, (n_regulators, n_genes)
        Not clipped: rounding can take it just past 1.
    fourth
        Mean over the cells of the fourth power of the cell's norm, which Ledoit-Wolf shrinkage needs.
    """
    total = np.zeros((len(regulators), len(standardise.mean)))
    count, fourth = 0, 0.0
    for block in blocks:
        z = standardise(block)
        total += z[:, regulators].T @ z
        fourth += float(np.square(np.einsum("ij,ij->i", z, z, dtype=np.float64)).sum())
        count += len(z)
    total /= count
    return total, fourth / count


def leading_component(z_blocks: Callable[[], Iterable[np.ndarray]], n_genes: int) -> tuple[float, np.ndarray]:
    """Return the largest eigenvalue of the correlation matrix and its eigenvector; the matrix is never formed.

    Parameters
    ----------
    z_blocks
        Called for each pass over the cells (20 to 60), returns their z-scores in blocks, shape (n, n_genes) each.
    n_genes
        Number of genes.

    Returns
    -------
    value
        Variance of the first principal component of the z-scores.
    vector : float64, (n_genes,)
        Its loadings, of unit length.
    """

    def multiply(vector: np.ndarray) -> np.ndarray:
        result, count = np.zeros(n_genes), 0
        for z in z_blocks():
            result += z.T @ (z @ vector.ravel().astype(np.float32))
            count += len(z)
        return result / count

    if n_genes <= 3:  # too small for Lanczos
        values, vectors = np.linalg.eigh(np.column_stack([multiply(unit) for unit in np.eye(n_genes)]))
        return float(values[-1]), vectors[:, -1]
    operator = LinearOperator((n_genes, n_genes), matvec=multiply, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(n_genes)
    # float32 products carry some 1e-6; a smaller tolerance would iterate on rounding.
    value, vector = eigsh(operator, k=1, which="LA", v0=start, tol=1e-5)
    return float(value[0]), vector[:, 0]


def remove_component(correlation: np.ndarray, regulators: np.ndarray, value: float, vector: np.ndarray) -> np.ndarray:
    """Return correlations of what is left of the genes without one principal component.

    Parameters
    ----------
    correlation : (n_regulators, n_genes)
        Pearson correlations.
    regulators
        Positions of the regulators among the genes.
    value, vector
        Eigenvalue and eigenvector of the correlation matrix.

    Notes
    -----
    The residual Z - Z v v' has covariance C - value v v', so the cells are not needed again. A gene that is all
    component, less than 1e-6 of its variance being left, scores 0.
    """
    left = 1.0 - value * vector**2
    kept = left > 1e-6
    scale = np.where(kept, 1.0 / np.sqrt(np.where(kept, left, 1.0)), 0.0)
    residual = correlation - value * np.outer(vector[regulators], vector)
    return residual * scale[regulators][:, None] * scale


def standard_ranks(block: np.ndarray) -> np.ndarray:
    """Return the z-scored ranks of each column, ties at their mean rank; float32, (n_cells, n_genes)."""
    ranks = np.empty(block.shape, dtype=np.float32)
    for start in range(0, block.shape[1], RANKED_AT_ONCE):
        columns = slice(start, start + RANKED_AT_ONCE)
        ranked = rankdata(block[:, columns], axis=0)
        ranked -= ranked.mean(axis=0)
        std = ranked.std(axis=0)
        ranks[:, columns] = ranked / np.where(std > 0, std, 1.0)
    return ranks


def ledoit_wolf(fourth: float, squares: float, n_cells: int, n_genes: int) -> float:
    """Return the Ledoit-Wolf weight of the identity for a correlation matrix.

    Parameters
    ----------
    fourth
        Mean over the cells of the fourth power of the cell's norm.
    squares
        Sum of the squared correlations, diagonal included.
    n_cells, n_genes
        Shape of the data.
    """
    distance = squares - n_genes
    if distance <= 0:
        return 1.0
    return float(np.clip((fourth - squares) / n_cells / distance, 0.0, 1.0))


def partial_from_covariance(
    correlation: np.ndarray, fourth: float, n_cells: int, regulators: np.ndarray
) -> tuple[np.ndarray, float]:
    """Return shrunk partial correlations from the genes x genes correlation matrix, which is overwritten.

    Parameters
    ----------
    correlation : float64, (n_genes, n_genes)
        Correlation matrix.
    fourth
        Mean over the cells of the fourth power of the cell's norm.
    n_cells
        Number of cells.
    regulators
        Positions of the regulators among the genes.

    Returns
    -------
    partial : float64, (n_regulators, n_genes)
        Correlation of a regulator with a gene given all other genes.
    shrinkage
        Weight of the identity, in [0, 1].
    """
    n_genes = len(correlation)
    shrinkage = ledoit_wolf(fourth, float(np.vdot(correlation, correlation)), n_cells, n_genes)
    correlation *= 1.0 - shrinkage
    correlation.flat[:: n_genes + 1] += shrinkage
    factor, invert = get_lapack_funcs(("potrf", "trtri"), (correlation,))
    # The matrix is symmetric, so its transpose is the Fortran order that LAPACK can overwrite.
    lower, info = factor(correlation.T, lower=1, clean=1, overwrite_a=1)
    if info:
        msg = (
            "The correlation matrix of the genes is singular even when shrunk, so there are no partial correlations. "
            "Drop genes that are copies of each other."
        )
        raise ValueError(msg)
    root, _ = invert(lower, lower=1, overwrite_c=1)  # precision = root' root
    length = np.sqrt(np.einsum("ij,ij->j", root, root))
    partial = -(root[:, regulators].T @ root) / length[regulators][:, None] / length
    return partial, shrinkage


def partial_from_cells(z: np.ndarray, regulators: np.ndarray) -> tuple[np.ndarray, float]:
    """Return what :func:`partial_from_covariance` does, by a cells x cells system: for fewer cells than genes.

    Parameters
    ----------
    z : float64, (n_cells, n_genes)
        z-scores.
    regulators
        Positions of the regulators among the genes.

    Notes
    -----
    With ridge = shrinkage / (1 - shrinkage), the precision is proportional to I - Z' (n ridge I + Z Z')^-1 Z.
    """
    n_cells, n_genes = z.shape
    gram = z @ z.T
    fourth = float(np.square(np.diagonal(gram)).mean())
    shrinkage = ledoit_wolf(fourth, float(np.vdot(gram, gram)) / n_cells**2, n_cells, n_genes)
    if shrinkage == 1.0:
        return np.zeros((len(regulators), n_genes)), shrinkage
    if shrinkage == 0.0:
        msg = "Ledoit-Wolf shrinkage is 0 with fewer cells than genes: are cells copies of each other?"
        raise ValueError(msg)
    gram.flat[:: n_cells + 1] += n_cells * shrinkage / (1.0 - shrinkage)
    root = solve_triangular(np.linalg.cholesky(gram), z, lower=True, check_finite=False)
    length = np.sqrt(1.0 - np.einsum("ij,ij->j", root, root))
    product = root[:, regulators].T @ root
    # The identity minus the product: only self pairs see the identity, and they are dropped.
    return product / length[regulators][:, None] / length, shrinkage
