"""How well predicted expression follows what was observed: all genes at once, with the means of groups taken out."""

import numpy as np
from scipy import sparse, special


def correlation(observed: np.ndarray, predicted: np.ndarray, groups: np.ndarray | None = None) -> np.ndarray:
    """Return Pearson's r of each gene over cells, of deviations from the means of groups where there are any.

    Parameters
    ----------
    observed, predicted : (n_cells, n_genes)
        Values of the same cells.
    groups : (n_cells,)
        Code of each cell's group; None is one group.

    Returns
    -------
    np.ndarray, shape (n_genes,)
        NaN where one of both does not vary within any group.
    """
    one, other = (_centred(values, groups) for values in (observed, predicted))
    return _ratio((one * other).sum(axis=0), np.sqrt((one**2).sum(axis=0) * (other**2).sum(axis=0)))


def correlation_by_group(observed: np.ndarray, predicted: np.ndarray, groups: np.ndarray, n_groups: int) -> np.ndarray:
    """Return Pearson's r of each gene within each group, shape (n_groups, n_genes)."""
    one, other = (_centred(values, groups) for values in (observed, predicted))
    parts = [group_means(values, groups, n_groups) for values in (one * other, one**2, other**2)]
    return _ratio(parts[0], np.sqrt(parts[1] * parts[2]))


def slope(observed: np.ndarray, predicted: np.ndarray, groups: np.ndarray | None = None) -> np.ndarray:
    """Return the slope of observed on predicted values within groups: 1 is calibrated, less is too bold."""
    one, other = (_centred(values, groups) for values in (observed, predicted))
    return _ratio((one * other).sum(axis=0), (other**2).sum(axis=0))


def group_means(values: np.ndarray, groups: np.ndarray, n_groups: int) -> np.ndarray:
    """Return the mean of each group, shape (n_groups, n_genes); NaN for a group without cells."""
    size = np.bincount(groups, minlength=n_groups)
    member = sparse.csr_matrix((np.ones(len(groups)), (groups, np.arange(len(groups)))), (n_groups, len(groups)))
    return _ratio(member @ values, size[:, None].astype(float))


def nb_deviance(y: np.ndarray, log_mean: np.ndarray, theta: np.ndarray | float) -> np.ndarray:
    """Return the deviance of negative binomial counts with inverse dispersion ``theta``, shape (n_genes,)."""
    log_ratio = np.log(y + theta) - np.logaddexp(np.log(theta), log_mean)
    return 2 * (special.xlogy(y, y) - y * log_mean - (y + theta) * log_ratio).sum(axis=0)


def _centred(values: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if groups is None:
        return values - values.mean(axis=0)
    means = group_means(values, groups, int(groups.max()) + 1)
    return values - means[groups]


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Return a quotient, NaN where what stands below is nothing but rounding."""
    below = np.broadcast_to(below, np.shape(above))
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 1e-12)
