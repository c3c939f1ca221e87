from typing import Any

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from sctrellis._core import checks
from sctrellis.metrics._effective_size import standardised


def collinear_groups(x: Any, *, threshold: float = 0.95) -> np.ndarray:
    """Find columns that are nearly copies of each other, directly or through others.

    Parameters
    ----------
    x : (n, p)
        Regulators.
    threshold
        Absolute correlation above which two columns are of one group, in (0, 1).

    Returns
    -------
    int64, (p,)
        Group of each column, numbered from 1 in the order of their first columns; 0 for a column that is alone. A
        constant column is alone.

    Raises
    ------
    ValueError
        If the matrix is not one, has fewer than 2 rows, or the threshold is out of range.

    Notes
    -----
    Groups are connected components: two members may be less correlated with each other than with a third one. Which of
    a group regulates cannot be told from the data; that some of it does can.

    Examples
    --------
    >>> import numpy as np
    >>> from sctrellis import metrics
    >>> x = np.random.default_rng(0).normal(size=(50, 3))
    >>> metrics.collinear_groups(np.column_stack([x, -x[:, 1]])).tolist()
    [0, 1, 0, 1]
    """
    x = np.asarray(x)
    if x.ndim != 2 or len(x) < 2:
        msg = f"Expected `x` to be a matrix of at least 2 rows, found shape {x.shape}."
        raise ValueError(msg)
    threshold = checks.number("threshold", threshold, low=0, high=1, open_low=True, open_high=True)
    z = standardised(x)
    _, component = connected_components(csr_matrix(np.abs(z.T @ z) / len(z) > threshold), directed=False)
    large = np.flatnonzero(np.bincount(component) > 1)
    number = np.zeros(component.max() + 1, dtype=np.int64)
    first = [np.argmax(component == k) for k in large]
    number[large[np.argsort(first)]] = np.arange(1, len(large) + 1)
    return number[component]
