"""Counts as a shallower sequencing run would have given them."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Counts:
    """Counts of some genes, with the depth of the cells.

    Parameters
    ----------
    values : int64, (n, p)
        Counts of the genes.
    total : int64, (n,)
        Counts of all genes of a cell, those of other genes too.
    """

    values: np.ndarray
    total: np.ndarray

    def thinned(self, fraction: float, rng: np.random.Generator) -> "Counts":
        """Return what is left if every molecule is kept with the probability `fraction`."""
        values = rng.binomial(self.values, fraction)
        return Counts(values, values.sum(axis=1) + rng.binomial(self.total - self.values.sum(axis=1), fraction))

    def minus(self, other: "Counts") -> "Counts":
        """Return the molecules that are not in `other`."""
        return Counts(self.values - other.values, self.total - other.total)

    def log_normalised(self, scale: float) -> np.ndarray:
        """Return log(1 + `scale` x count / depth), float32; cells without counts are 0."""
        return np.log1p(self.values * (scale / np.maximum(self.total, 1))[:, None]).astype(np.float32)
