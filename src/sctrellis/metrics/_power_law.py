from dataclasses import dataclass
from typing import Any

import numpy as np

_EXPONENTS = np.linspace(0.1, 2.0, 39)


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """A curve that grows towards a limit, :math:`a - b n^{-c}`.

    Parameters
    ----------
    limit
        What is reached with any number of cells.
    scale
        How far one cell would be from it, at least 0.
    exponent
        How fast it gets there.
    """

    limit: float
    scale: float
    exponent: float

    def __call__(self, n: Any) -> Any:
        """Return the value at `n` cells."""
        return self.limit - self.scale * np.asarray(n, dtype=np.float64) ** -self.exponent


def power_law(n: Any, value: Any, *, highest: float = 1.0) -> PowerLaw:
    """Fit a learning curve.

    Parameters
    ----------
    n : (k,)
        Numbers of cells, at least two different ones.
    value : (k,)
        What was measured with them.
    highest
        Most that the limit can be.

    Returns
    -------
    PowerLaw
        The curve of least squares among those that do not fall. A flat one has scale 0.

    Raises
    ------
    ValueError
        If there are fewer than two numbers of cells, one is not positive, or a value is not finite.

    Notes
    -----
    Linear least squares of limit and scale for each exponent in a grid from 0.1 to 2. Four numbers of cells fix three
    parameters only just: read a limit far beyond the data as a guess.

    Examples
    --------
    >>> from sctrellis import metrics
    >>> curve = metrics.power_law([50, 100, 200, 400], [0.1, 0.2, 0.25, 0.275])
    >>> round(curve.limit, 2), round(curve.exponent, 2), round(float(curve(800)), 3)
    (0.3, 1.0, 0.288)
    """
    n, value = np.asarray(n, dtype=np.float64), np.asarray(value, dtype=np.float64)
    if n.ndim != 1 or n.shape != value.shape or len(np.unique(n)) < 2:
        msg = f"Expected `n` and `value` to hold as many numbers, two different ones at least, found {n.shape}."
        raise ValueError(msg)
    if not (n > 0).all() or not np.isfinite(value).all():
        msg = "Expected `n` to be positive and `value` to be finite."
        raise ValueError(msg)
    mean = float(value.mean())
    best, least = PowerLaw(limit=mean, scale=0.0, exponent=1.0), float(((value - mean) ** 2).sum()) * (1 - 1e-9)
    for exponent in _EXPONENTS:
        falling = n**-exponent
        slope = -float(np.cov(falling, value, bias=True)[0, 1] / falling.var())
        limit = float(value.mean() + slope * falling.mean())
        if limit > highest:
            limit, slope = highest, float(falling @ (highest - value) / (falling @ falling))
        error = float(((limit - slope * falling - value) ** 2).sum())
        if slope > 0 and error < least:
            best, least = PowerLaw(limit=limit, scale=slope, exponent=float(exponent)), error
    return best
