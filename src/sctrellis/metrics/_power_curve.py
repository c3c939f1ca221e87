from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_ndtr, ndtr, ndtri

from sctrellis._core import checks

_PENALTY = 1e-3
"""Keeps slopes finite where power jumps from 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class PowerCurve:
    """Power as a function of the number of cells and of the size of the effect.

    Parameters
    ----------
    intercept, cells, effect
        Coefficients of 1, log cells and log effect, the effect being r2 / (1 - r2).
    """

    intercept: float
    cells: float
    effect: float

    def power(self, n_cells: Any, r2: Any) -> Any:
        """Return the power with `n_cells` cells for targets whose regulators explain the share `r2`."""
        n_cells, r2 = np.asarray(n_cells, dtype=np.float64), np.asarray(r2, dtype=np.float64)
        return ndtr(self.intercept + self.cells * np.log(n_cells) + self.effect * np.log(r2 / (1 - r2)))

    def minimum_r2(self, n_cells: float, power: float = 0.8) -> float:
        """Return the share from which the power is reached with `n_cells` cells; NaN if it does not grow."""
        if self.effect <= 0:
            return np.nan
        odds = np.exp(min((ndtri(power) - self.intercept - self.cells * np.log(n_cells)) / self.effect, 700.0))
        return float(odds / (1 + odds))

    def n_cells(self, r2: float, power: float = 0.8) -> float:
        """Return the number of cells from which the power is reached; inf if it does not grow with cells."""
        short = ndtri(power) - self.intercept - self.effect * np.log(r2 / (1 - r2))
        if self.cells <= 0:
            return 1.0 if short <= 0 else np.inf
        return float(np.exp(np.clip(short / self.cells, 0.0, 700.0)))


def power_curve(n_cells: Any, r2: Any, power: Any, *, n_tested: int = 100) -> PowerCurve:
    r"""Fit power as a function of the number of cells and of the size of the effect.

    Parameters
    ----------
    n_cells : (k,)
        Numbers of cells.
    r2 : (k,)
        Share of the variance of the targets that their regulators explain, in (0, 1).
    power : (k,)
        Share of the true pairs that was found, in [0, 1].
    n_tested
        True pairs behind each of them.

    Returns
    -------
    PowerCurve
        The curve, which also says the least effect that is found and the cells that are needed.

    Raises
    ------
    ValueError
        If numbers are out of range or do not go together.

    Notes
    -----
    :math:`\Phi(a + b \ln n + c \ln \frac{R^2}{1 - R^2})` by maximum likelihood, with b and c of at least 0. For a
    single test of one effect, the argument would be a threshold and the square root of :math:`n R^2 / (1 - R^2)`; over
    many effects, and a threshold that depends on what else is found, a logarithm fits better.

    Examples
    --------
    >>> from sctrellis import metrics
    >>> curve = metrics.power_curve([100, 100, 400, 400], [0.1, 0.3, 0.1, 0.3], [0.1, 0.6, 0.6, 0.95])
    >>> bool(0.1 < curve.minimum_r2(200, 0.5) < 0.2)
    True
    """
    n_cells, r2, power = (np.asarray(a, dtype=np.float64) for a in (n_cells, r2, power))
    if n_cells.ndim != 1 or not (n_cells.shape == r2.shape == power.shape) or not len(n_cells):
        msg = f"Expected `n_cells`, `r2` and `power` to hold as many numbers, found {n_cells.shape}, {r2.shape}, "
        msg += f"{power.shape}."
        raise ValueError(msg)
    if not ((n_cells > 0) & (r2 > 0) & (r2 < 1) & (power >= 0) & (power <= 1)).all():
        msg = "Expected `n_cells` to be positive, `r2` to lie in (0, 1) and `power` in [0, 1]."
        raise ValueError(msg)
    n_tested = checks.integer("n_tested", n_tested)
    design = np.column_stack([np.ones(len(r2)), np.log(n_cells), np.log(r2 / (1 - r2))])
    middle = np.concatenate([[0.0], design[:, 1:].mean(axis=0)])
    centred = design - middle

    def loss(coefficients: np.ndarray) -> tuple[float, np.ndarray]:
        eta = centred @ coefficients
        up, down = log_ndtr(eta), log_ndtr(-eta)
        density = np.exp(-(eta**2) / 2 - np.log(2 * np.pi) / 2)
        # Ratios of density and tail stay finite far out, where both vanish.
        slope = power * density / np.exp(np.maximum(up, -600)) - (1 - power) * density / np.exp(np.maximum(down, -600))
        value = -float(power @ up + (1 - power) @ down) * n_tested + _PENALTY * float(coefficients @ coefficients)
        return value, -n_tested * (slope @ centred) + 2 * _PENALTY * coefficients

    bounds = [(-20.0, 20.0), (0.0, 20.0), (0.0, 20.0)]
    found = minimize(loss, np.array([0.0, 0.5, 0.5]), jac=True, bounds=bounds, method="L-BFGS-B").x
    return PowerCurve(intercept=float(found[0] - found[1:] @ middle[1:]), cells=float(found[1]), effect=float(found[2]))
