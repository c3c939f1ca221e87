from dataclasses import dataclass

import numpy as np
from scipy import special
from scipy.linalg import cho_factor, cho_solve

from sctrellis.metrics._knockoff_correlation import shrunk_correlation

N_CLUSTERS = 4
"""Clusters at the start."""
_LEAST_CELLS = 10
"""Cells of a cluster: with fewer, it is given up."""
_DIRECTIONS = 10
"""Principal components in which means of clusters differ: with as many means as regulators, cells would recognise the
cluster whose mean they are part of."""
_ROUNDS = 20


@dataclass(frozen=True)
class Clusters:
    """Clusters of cells, each normal around a mean of its own, with one covariance.

    Parameters
    ----------
    means : float64, (k, p)
        Mean of each cluster.
    log_weight : float64, (k,)
        Logarithm of its share of the cells.
    """

    means: np.ndarray
    log_weight: np.ndarray

    @classmethod
    def fit(cls, z: np.ndarray, rng: np.random.Generator) -> "tuple[Clusters, np.ndarray]":
        """Return clusters of standardised cells, and the one that each cell was last drawn into.

        By stochastic EM :cite:p:`celeux1985`: cells are drawn into clusters given the law, and the law is estimated
        given the clusters, so that overlapping clusters are not drawn apart as by hard assignment.
        """
        from sklearn.cluster import KMeans

        directions = np.linalg.svd(z, full_matrices=False)[2][:_DIRECTIONS]
        n_clusters = max(1, min(N_CLUSTERS, len(z) // (2 * _LEAST_CELLS)))
        start = KMeans(n_clusters, n_init=5, random_state=int(rng.integers(2**31))).fit(z @ directions.T)
        member = start.labels_.astype(np.int64)
        for _ in range(_ROUNDS):
            clusters, member = cls._of(z, member, directions)
            left = z - clusters.means[member]
            scale = np.maximum(left.std(axis=0), 1e-6)
            precision = cho_solve(cho_factor(shrunk_correlation(left / scale)[0]), np.eye(z.shape[1]))
            member = clusters.scaled(scale).draw(z / scale, precision, rng)
        return cls._of(z, member, directions)

    @classmethod
    def _of(cls, z: np.ndarray, member: np.ndarray, directions: np.ndarray) -> "tuple[Clusters, np.ndarray]":
        """Return the clusters that cells are members of; small ones join the largest."""
        size = np.bincount(member)
        member = np.where(size[member] < _LEAST_CELLS, size.argmax(), member)
        _, member, size = np.unique(member, return_inverse=True, return_counts=True)
        totals = np.zeros((len(size), len(directions)))
        np.add.at(totals, member, z @ directions.T)
        return cls(totals / size[:, None] @ directions, np.log(size / len(z))), member

    def scaled(self, scale: np.ndarray) -> "Clusters":
        """Return the clusters of regulators that are divided by a scale."""
        return Clusters(self.means / scale, self.log_weight)

    def draw(
        self, z: np.ndarray, precision: np.ndarray, rng: np.random.Generator, *, without: int | None = None
    ) -> np.ndarray:
        """Draw the cluster of each cell given its regulators.

        Parameters
        ----------
        z : (n, p)
            Regulators.
        precision : (p, p)
            Inverse of the covariance within clusters.
        rng
            One number a cell.
        without
            A regulator that the draw must not know.
        """
        chance = np.cumsum(self.posterior(z, precision, without=without), axis=1)
        return (rng.random((len(z), 1)) > chance[:, :-1]).sum(axis=1)

    def posterior(self, z: np.ndarray, precision: np.ndarray, *, without: int | None = None) -> np.ndarray:
        """Return the probability of each cluster given the regulators of a cell, shape (n, k)."""
        fit = np.empty((len(z), len(self.means)))
        for c, mean in enumerate(self.means):
            apart = z - mean
            product = apart @ precision
            distance = np.einsum("ij,ij->i", apart, product)
            if without is not None:  # less what the regulator adds to the others
                distance -= product[:, without] ** 2 / precision[without, without]
            fit[:, c] = self.log_weight[c] - distance / 2
        return np.asarray(special.softmax(fit, axis=1))
