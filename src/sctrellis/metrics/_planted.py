"""Targets with known regulators, planted on real regulators: the levels of a certificate."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from scipy.linalg import cholesky

from sctrellis.metrics._knockoff_correlation import shrunk_correlation
from sctrellis.metrics._knockoff_generator import residual

Level = Literal["linear", "logic", "counts", "measurement", "confounder", "decoys"]
LEVELS: tuple[Level, ...] = get_args(Level)
DECOY_R2 = 0.9
"""Squared correlation of a decoy with the regulator that it looks like."""
_DISPERSION = 0.1
"""Squared coefficient of variation of counts beyond Poisson noise."""


@dataclass(frozen=True)
class Planted:
    """What a method sees, and the truth.

    Parameters
    ----------
    x : (n, p)
        Regulators as the method sees them, decoys last.
    y : (n, m)
        Targets.
    true : bool, (p, m)
        Which regulators each target follows.
    n_decoys
        Number of decoys among the regulators.
    """

    x: np.ndarray
    y: np.ndarray
    true: np.ndarray
    n_decoys: int = 0


@dataclass(frozen=True)
class Planter:
    """Real regulators, and what planted targets take from the real ones.

    Parameters
    ----------
    x : (n, p)
        Real regulators.
    noise : (m_real, m_real)
        Upper Cholesky factor of the correlation of what regulators leave of the real targets.
    factor : (n,)
        Leading principal component of the real targets, standardised.
    share
        Its share of their variance.
    r2
        Share of the variance of a target that its regulators explain.
    """

    x: np.ndarray
    noise: np.ndarray
    factor: np.ndarray
    share: float
    r2: float

    @classmethod
    def of(cls, x: np.ndarray, y: np.ndarray, r2: float) -> "Planter":
        """Learn noise and hidden factor from real targets, none of them constant."""
        n, p = x.shape
        z = _standard(y)
        left, scale, _ = np.linalg.svd(z, full_matrices=False)
        share = float(scale[0] ** 2 / (scale**2).sum())
        # With many regulators the residuals would be empty: the leading components stand for all of them.
        directions = np.linalg.svd(_standard(x), full_matrices=False)[0][:, : min(p, n // 4)]
        noise = cholesky(shrunk_correlation(_standard(residual(z, directions)))[0])
        return cls(x, noise, left[:, 0] * np.sqrt(n), share, r2)

    def plant(self, level: Level, n_targets: int, rng: np.random.Generator) -> Planted:
        """Return planted targets of one level."""
        n, p = self.x.shape
        x, n_decoys = self.x, 0
        candidates = np.arange(p)
        if level == "decoys":
            n_decoys = -(-p // 10)
            candidates = rng.permutation(p)[:n_decoys]
            x = np.concatenate([x, _decoys(x[:, candidates], rng)], axis=1)
        true = np.zeros((x.shape[1], n_targets), dtype=bool)
        z, on = _standard(self.x), self.x > np.median(self.x, axis=0)
        signal = np.empty((n, n_targets))
        for j in range(n_targets):
            # Half of the targets follow a regulator that has a decoy, if there are any.
            pool = candidates if n_decoys and j % 2 else np.arange(p)
            count = 1 + (j % 2 == 0) if level == "logic" else max(1, rng.poisson(2))
            parents = rng.choice(pool, min(count, len(pool)), replace=False)
            true[parents, j] = True
            if level == "logic":
                signal[:, j] = on[:, parents].all(axis=1)
            else:
                effects = rng.choice([-1, 1], len(parents)) * rng.uniform(0.5, 1.5, len(parents))
                signal[:, j] = z[:, parents] @ effects
        signal = _standard(signal)
        noise = self._noise(n_targets, rng) * np.sqrt((1 - self.r2) / self.r2)
        if level == "logic":
            noise[:, ::2] = 0  # two regulators together, without noise; one alone, with noise
        y = signal + noise
        if level == "confounder":
            weight = np.sqrt(self.share / (1 - self.share)) * y.std(axis=0)
            y = y + self.factor[:, None] * weight * rng.choice([-1, 1], n_targets)
        if level == "counts":
            y = _counted(_standard(y), rng)
        if level == "measurement":
            x = _thinned(x, rng)
        return Planted(x, y, true, n_decoys)

    def _noise(self, n_targets: int, rng: np.random.Generator) -> np.ndarray:
        chosen = rng.permutation(np.resize(np.arange(len(self.noise)), n_targets))
        drawn = rng.standard_normal((len(self.x), len(self.noise))) @ self.noise
        own = rng.standard_normal((len(self.x), n_targets))
        # Where more targets are planted than there are real ones, copies share half of their noise.
        repeated = np.bincount(chosen, minlength=len(self.noise))[chosen] > 1
        return np.where(repeated, (drawn[:, chosen] + own) / np.sqrt(2), drawn[:, chosen])


def _standard(x: np.ndarray) -> np.ndarray:
    std = x.std(axis=0)
    return (x - x.mean(axis=0)) / np.where(std > 0, std, 1.0)


def _decoys(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return columns with the values of others, whose ranks follow theirs."""
    score = np.sqrt(DECOY_R2) * _standard(x) + np.sqrt(1 - DECOY_R2) * rng.standard_normal(x.shape)
    decoys = np.empty_like(x)
    np.put_along_axis(decoys, np.argsort(score, axis=0), np.sort(x, axis=0), axis=0)
    return decoys


def _counted(level: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return log-normalised counts whose log rates are the levels: about one a gene, log depths with an sd of 0.3."""
    depth = np.exp(0.3 * rng.standard_normal((len(level), 1)))
    rate = depth * np.exp(0.7 * level) * rng.gamma(1 / _DISPERSION, _DISPERSION, size=level.shape)
    return np.log1p(rng.poisson(rate) / depth)


def _thinned(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return log-normalised values as half of the counts would give them."""
    values = np.expm1(x)
    # The smallest positive value of a cell is one count, if cells were normalised by their totals.
    unit = np.min(np.where(values > 0, values, np.inf), axis=1, keepdims=True)
    unit = np.where(np.isfinite(unit), unit, 1.0)
    counts = np.rint(np.minimum(values / unit, 1e6)).astype(np.int64)
    thinned = np.log1p(2 * unit * rng.binomial(counts, 0.5))
    lost = np.ptp(thinned, axis=0) == 0
    thinned[:, lost] = x[:, lost]  # a regulator that no cell would show any more stays as it is
    return thinned
