"""Knockoffs of regulators: columns that are exchangeable with them, and know nothing of any target."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from scipy import special
from scipy.linalg import cho_factor, cho_solve

from sctrellis.metrics._knockoff_clusters import Clusters
from sctrellis.metrics._knockoff_correlation import shrunk_correlation
from sctrellis.metrics._knockoff_spread import Spread, spread

Law = Literal["copula", "gaussian", "mixture"]
LAWS: tuple[Law, ...] = get_args(Law)
SWEEPS = 8
"""Sweeps over the regulators in which the scores of tied values are drawn."""


@dataclass(frozen=True)
class Generator:
    """A fitted law of the regulators, ready to draw knockoffs.

    Parameters
    ----------
    z : float64, (n, p)
        Standardised scores of the regulators, known covariates taken off.
    offset : float64, (n, p)
        Mean of the scores, and what the covariates explain of them.
    scale : float64, (p,)
        Standard deviation of the scores without the covariates.
    values : float64, (n, p), or None
        Sorted values of each regulator, which knockoffs of the copula take up; None for the Gaussian law.
    location, width : float64, (p,)
        Mean and standard deviation of each regulator, for the Gaussian law.
    correlation, precision : float64, (p, p)
        Shrunk correlation matrix of ``z`` and its inverse.
    s : float64, (p,)
        Diagonal of :func:`spread`.
    root : float64, (p, p)
        Lower Cholesky factor of the covariance of a knockoff given its variables.
    shrinkage
        Weight of the identity in ``correlation``.
    clusters
        Clusters of cells of the mixture, in the units of ``z``; ``correlation`` is that within them. None for other
        laws.
    """

    z: np.ndarray
    offset: np.ndarray
    scale: np.ndarray
    values: np.ndarray | None
    location: np.ndarray
    width: np.ndarray
    correlation: np.ndarray
    precision: np.ndarray
    s: np.ndarray
    root: np.ndarray
    shrinkage: float
    clusters: Clusters | None = None

    @classmethod
    def fit(
        cls,
        x: np.ndarray,
        *,
        law: Law = "copula",
        method: Spread = "mvr",
        covariates: np.ndarray | None = None,
        rng: np.random.Generator,
    ) -> "Generator":
        """Fit the law to regulators, none of which is constant.

        Parameters
        ----------
        x : (n, p)
            Regulators.
        law
            ``"copula"``: scores of the ranks are jointly normal, and knockoffs have the regulators' own values;
            ``"gaussian"``: the regulators are; ``"mixture"``: they are within each of a few clusters of cells.
        method
            See :func:`spread`.
        covariates : (n, k)
            Known covariates, which knockoffs follow as the regulators do.
        rng
            Draws the scores of tied values, and clusters.
        """
        location, width = x.mean(axis=0), x.std(axis=0)
        known = np.zeros((len(x), 0)) if covariates is None else covariates
        values = None
        if law == "copula":
            scores, values = latent_scores(x, known, rng), np.sort(x, axis=0).astype(np.float64)
        else:
            scores = (x - location) / width
        left = residual(scores, known)
        offset = scores - left
        scale = np.maximum(left.std(axis=0), 1e-6)  # a regulator that the covariates explain has no knockoff of its own
        clusters, within = None, left / scale
        if law == "mixture":
            clusters, member = Clusters.fit(left / scale, rng)
            within = left / scale - clusters.means[member]
            spread_within = np.maximum(within.std(axis=0), 1e-6)
            scale, within, clusters = scale * spread_within, within / spread_within, clusters.scaled(spread_within)
        z = left / scale
        correlation, shrinkage = shrunk_correlation(within)
        factor = cho_factor(correlation)
        precision = cho_solve(factor, np.eye(len(correlation)))
        s = spread(correlation, method)
        conditional = 2 * np.diag(s) - s[:, None] * precision * s
        root = np.linalg.cholesky(conditional + 1e-10 * np.eye(len(s)))
        return cls(z, offset, scale, values, location, width, correlation, precision, s, root, shrinkage, clusters)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Return knockoffs as standardised scores, shape (n, p)."""
        return self._drawn(self._centred(rng), rng)

    def without(self, k: int, drawn: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        r"""Return knockoffs of all regulators but one, for that one as a target, from knockoffs of all.

        Parameters
        ----------
        k
            The regulator to leave out.
        drawn : (n, p)
            Knockoffs of all regulators, as :meth:`draw` returns them.
        rng
            One number a cell.

        Returns
        -------
        float64, (n, p - 1)
            Standardised scores with exactly the law that fitting without the regulator, same correlation and s, has.

        Notes
        -----
        With :math:`g = P_{k,-k}` and :math:`h = P_{kk}` of the precision, the inverse without row and column k is
        :math:`P_{-k,-k} - g^\top g / h`. Mean and covariance of a knockoff both change by rank one, so adding
        :math:`(Z_{-k} g^\top / h + Z_k + \zeta / \sqrt h)(g \circ s_{-k})` does it.
        """
        others = np.arange(len(self.s)) != k
        g, h = self.precision[k, others], self.precision[k, k]
        centred = self.z
        if self.clusters is not None:
            # Knockoffs of all know the regulator through the cluster that was drawn: draw both again, without it.
            centred = self._centred(rng, without=k)
            drawn = self._drawn(centred, rng)
        shift = centred[:, others] @ g / h + centred[:, k] + rng.standard_normal(len(self.z)) / np.sqrt(h)
        return drawn[:, others] + np.outer(shift, g * self.s[others])

    def _centred(self, rng: np.random.Generator, without: int | None = None) -> np.ndarray:
        """Return the scores less the mean of a cluster that is drawn given them, or given all but one."""
        if self.clusters is None:
            return self.z
        return self.z - self.clusters.means[self.clusters.draw(self.z, self.precision, rng, without=without)]

    def _drawn(self, centred: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return self.z - (centred @ self.precision) * self.s + rng.standard_normal(self.z.shape) @ self.root.T

    def values_of(self, drawn: np.ndarray, columns: Any = slice(None)) -> np.ndarray:
        """Return knockoffs in the units of the regulators, from standardised scores of the chosen ones."""
        scores = drawn * self.scale[columns] + self.offset[:, columns]
        if self.values is None:
            return scores * self.width[columns] + self.location[columns]
        n = len(scores)
        # The smallest value stands for ranks up to 1 / n, and so on: zeros stay as frequent as they were.
        place = np.clip((special.ndtr(scores) * n).astype(np.int64), 0, n - 1)
        return np.take_along_axis(self.values[:, columns], place, axis=0)


def normal_scores(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return normal quantiles of the ranks of each column, ties broken at random."""
    n = len(x)
    order = np.lexsort((rng.random(x.shape), x), axis=0)
    ranked = special.ndtri(np.arange(1, n + 1) / (n + 1))
    scores = np.empty(x.shape)
    np.put_along_axis(scores, order, np.broadcast_to(ranked[:, None], x.shape), axis=0)
    return scores


def latent_scores(x: np.ndarray, covariates: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return normal scores in which tied values, zeros above all, follow the other regulators as the rest does.

    A tied value only says between which scores it lies. Within these bounds its score is drawn given those of all other
    regulators, regulator by regulator, and the correlation matrix is estimated anew before each sweep. Ties broken at
    random would be independent of each other: correlations would come out too small, knockoffs would show, and false
    discoveries with them.

    Parameters
    ----------
    x : (n, p)
        Regulators.
    covariates : (n, k)
        Known covariates, to draw given them as well.
    rng
        Random numbers.
    """
    (n, p), scores = x.shape, normal_scores(x, rng)
    ordered = np.sort(x, axis=0)
    low, high = (
        np.column_stack([np.searchsorted(ordered[:, j], x[:, j], side) for j in range(p)]) for side in ("left", "right")
    )
    tied = high - low > 1
    low, high = special.ndtri(low / n), special.ndtri(high / n)
    width = covariates.std(axis=0)
    fixed = (covariates - covariates.mean(axis=0)) / np.where(width > 0, width, 1.0)
    z = np.concatenate([scores, fixed], axis=1)
    for _ in range(SWEEPS if tied.any() else 0):
        scale = np.where(z.std(axis=0) > 0, z.std(axis=0), 1.0)
        correlation, _ = shrunk_correlation((z - z.mean(axis=0)) / scale)
        precision = cho_solve(cho_factor(correlation), np.eye(len(correlation)))
        for j in np.flatnonzero(tied.any(axis=0)):
            at, weights = np.flatnonzero(tied[:, j]), -precision[j] / precision[j, j]
            weights[j] = 0.0
            mean, sd = (z @ weights)[at], 1 / np.sqrt(precision[j, j])
            bounds = low[at, j], high[at, j]
            first, last = (special.ndtr((bound - mean) / sd) for bound in bounds)
            drawn = special.ndtri(first + (last - first) * rng.random(len(at)))
            # Far in a tail the probabilities round to 0 or 1: the nearest bound stands for the whole interval.
            z[at, j] = np.clip(mean + sd * np.clip(drawn, -8.0, 8.0), *bounds)
    return z[:, :p]


def residual(x: np.ndarray, covariates: np.ndarray) -> np.ndarray:
    """Return what is left of each column without a regression on the covariates and a constant."""
    directions = basis(np.column_stack([np.ones(len(x)), covariates]))
    return x - directions @ (directions.T @ x)


def basis(design: np.ndarray) -> np.ndarray:
    """Return orthonormal columns that span the columns of a matrix."""
    directions, scale, _ = np.linalg.svd(design, full_matrices=False)
    return directions[:, scale > scale[0] * 1e-10]
