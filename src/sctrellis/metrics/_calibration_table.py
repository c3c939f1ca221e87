from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from sctrellis._core import checks
from sctrellis.metrics import _calibration, _ranking
from sctrellis.metrics._bootstrap import Bootstrap, draws, why_not
from sctrellis.metrics._calibration import Bins
from sctrellis.metrics._calibration_error import calibration_error, gaps

METRICS = ("ece_mass", "ece_width", "brier", "nll", "brier_skill", "nll_skill", "slope", "intercept")
_ECE: dict[str, Bins] = {"ece_mass": "mass", "ece_width": "width"}
_STEPS = 50
_BINNED_STEPS = 8
_SLOPE_BINS = 50
_SINGULAR = 1e14
_CONSTANT = 1e-3
"""Standard deviation of log odds below which they are taken for a constant, which has no slope."""


def calibration_table(
    probabilities: Any,
    labels: Any,
    *,
    rows: Any,
    columns: Any,
    n_bins: int = 15,
    n_boot: int = 500,
    level: float = 0.95,
    seed: int | None = 0,
) -> pd.DataFrame:
    r"""How far claimed probabilities can be trusted, and how much they say beyond the share of edges.

    Parameters
    ----------
    probabilities : (n,)
        One vector in [0, 1], or a mapping from names to vectors.
    labels : (n,)
        Boolean, or 0 and 1.
    rows, columns : (n,)
        Regulator and target of each pair.
    n_bins
        Bins at most of the calibration errors. Equal probabilities are never parted, and empty bins are left out.
    n_boot
        Replicates of the two-way bootstrap; 0 leaves its limits NaN.
    level
        Coverage of the intervals, in (0, 1).
    seed
        Seed of the resampling, in [0, 2**32); None draws one.

    Returns
    -------
    DataFrame
        One row per vector (``key``) and ``metric``, with ``value``, ``low``, ``high``, ``corrected``, ``ideal``,
        ``base`` (share of edges), ``n_pairs``, ``n_positive`` and ``note`` (why limits are NaN, or empty). Metrics:

        ``"ece_mass"``, ``"ece_width"``
            :func:`calibration_error` with bins of equal mass and of equal width; ``corrected`` has it less its bias.
        ``"brier"``, ``"nll"``
            Mean squared error, and log-loss in nats.
        ``"brier_skill"``, ``"nll_skill"``
            One minus their ratio to those of the constant share of edges: 0 says no more than that share, 1 everything.
        ``"slope"``
            Slope of a logistic regression of the labels on the claimed log odds: below 1 where claims are too extreme.
            NaN where they hardly vary (standard deviation below 0.001).
        ``"intercept"``
            Its intercept with the slope held at 1: below 0 where the mean claim is too high.

    Raises
    ------
    ValueError
        On probabilities outside [0, 1], NaN, arrays of unequal length and labels that are all equal.

    Notes
    -----
    Limits resample regulators and targets at once (:func:`bootstrap`), with the bins as they are. A resampled
    calibration error is never 0, so percentiles alone would rule out perfect calibration. With :math:`g` the gaps
    between share and claim, :math:`g^*` those of a replicate, and :math:`\|g\| = \sum_b (n_b / n) |g_b|`, the
    triangle inequality gives the lower limit: :math:`\max(0, \|g\| - q)`, where :math:`q` is the upper percentile of
    :math:`\|g^* - g\|`. It is 0 just where a test would not reject calibration. The upper limit is the percentile of
    :math:`\|g^*\|`, which errs on the high side. Slope and intercept are fitted again in each replicate, to pairs put
    together in 50 bins of claimed probability. Logarithms are taken of probabilities cut at 1e-7 and its complement.

    References
    ----------
    Slope and intercept: :cite:p:`vancalster2019`.

    Examples
    --------
    >>> import numpy as np
    >>> from sctrellis import metrics
    >>> rng = np.random.default_rng(0)
    >>> rows, columns = np.divmod(np.arange(4000), 100)
    >>> honest = rng.beta(1, 4, size=4000)
    >>> labels = rng.random(4000) < honest
    >>> table = metrics.calibration_table(honest, labels, rows=rows, columns=columns, n_boot=100).set_index("metric")
    >>> bool(table.loc["ece_mass", "low"] == 0), bool(table.loc["brier_skill", "low"] > 0)
    (True, True)
    """
    n_bins, n_boot, seed = (
        checks.integer("n_bins", n_bins),
        checks.integer("n_boot", n_boot, minimum=0),
        checks.seed(seed),
    )
    level = checks.number("level", level, low=0, high=1, open_low=True, open_high=True)
    vectors = {
        str(name): _calibration.as_probabilities(vector)
        for name, vector in (
            probabilities if isinstance(probabilities, Mapping) else {"probabilities": probabilities}
        ).items()
    }
    n = len(next(iter(vectors.values())))
    for name, vector in vectors.items():
        if len(vector) != n:
            msg = f"Expected `probabilities` to hold vectors of equal length, found {n} and {len(vector)} ({name!r})."
            raise ValueError(msg)
    found = _ranking.as_labels(labels, n)
    if not found.any() or found.all():
        msg = f"All {n:,} `labels` are equal: there is nothing that a probability could tell apart."
        raise ValueError(msg)
    row_names, row = np.unique(np.asarray(rows), return_inverse=True)
    column_names, column = np.unique(np.asarray(columns), return_inverse=True)
    if row.shape != (n,) or column.shape != (n,):
        msg = (
            f"Expected `rows` and `columns` to have shape ({n},) as `probabilities`, found {row.shape} and "
            f"{column.shape}."
        )
        raise ValueError(msg)
    reason = why_not(len(row_names), len(column_names), n_boot)
    drawn = draws(len(row_names), len(column_names), 0 if reason else n_boot, seed)
    judged = [_Judged(vector, found, row, column, n_bins) for vector in vectors.values()]
    resampled = [] if reason else [one.replicates(drawn) for one in judged]
    shape = (0, len(vectors), len(METRICS))
    table = Bootstrap(
        names=tuple(vectors),
        metrics=METRICS,
        estimate=np.array([one.estimate() for one in judged]),
        replicates=np.stack([values for values, _ in resampled], axis=1) if resampled else np.zeros(shape),
        level=level,
        reason=reason,
    ).interval()
    for metric in _ECE if resampled else ():
        noise = np.array([np.percentile(noise[metric], 50 * (1 + level)) for _, noise in resampled])
        where = table["metric"] == metric
        table.loc[where, "low"] = np.maximum(0.0, table.loc[where, "value"] - noise)
    corrected = [
        calibration_error(vector, found, bins=_ECE[metric], n_bins=n_bins, corrected=True) if metric in _ECE else np.nan
        for vector in vectors.values()
        for metric in METRICS
    ]
    ideal = dict.fromkeys((*_ECE, "intercept"), 0.0) | {"slope": 1.0, "brier_skill": np.nan, "nll_skill": np.nan}
    table["corrected"] = corrected
    table["ideal"] = table["metric"].map(ideal).astype(float)
    return table.assign(base=float(found.mean()), n_pairs=n, n_positive=int(found.sum()), note=reason)


class _Judged:
    """One vector of probabilities with its labels: what the table says, and what each replicate would say."""

    def __init__(self, p: np.ndarray, y: np.ndarray, row: np.ndarray, column: np.ndarray, n_bins: int) -> None:
        self.p, self.y, self.row, self.column = p, y * 1.0, row, column
        self.codes = {metric: _calibration.bin_codes(p, bins, n_bins) for metric, bins in _ECE.items()}
        self.z = _calibration.log_odds(p)
        self.brier, self.nll = (p - y) ** 2, np.logaddexp(0, np.where(y, -self.z, self.z))
        self.slope = _newton(np.column_stack([self.z, np.ones(len(p))]), self.y, np.zeros(len(p)))
        self.intercept = _newton(np.ones((len(p), 1)), self.y, self.z)

    def estimate(self) -> list[float]:
        errors = []
        for metric in _ECE:
            gap, size, _ = gaps(self.p, self.y, self.codes[metric])
            errors.append(float(size @ np.abs(gap) / size.sum()))
        brier, nll, share = self.brier.mean(), self.nll.mean(), self.y.mean()
        skills = [1 - brier / (share * (1 - share)), 1 - nll / _entropy(share)]
        return [*errors, brier, nll, *skills, self.slope[0], self.intercept[0]]

    def replicates(self, drawn: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return the metrics of each replicate, and how far its gaps are from those of the data."""

        def sums(values: np.ndarray, group: np.ndarray | None = None) -> np.ndarray:
            return _calibration.resampled_sums(values, self.row, self.column, drawn, group=group)

        ones = np.ones(len(self.p))
        total = sums(ones)[:, 0]
        errors, noise = [], {}
        for metric, code in self.codes.items():
            gap, _, _ = gaps(self.p, self.y, code)
            # By the replicate's own number of pairs: n_b / n times the gap is the sum of y - p over n.
            deviation = sums(self.y - self.p, code)
            held = sums(ones, code)
            errors.append(np.abs(deviation).sum(axis=1) / total)
            noise[metric] = np.abs(deviation - held * gap).sum(axis=1) / total
        brier, nll, share = (sums(v)[:, 0] / total for v in (self.brier, self.nll, self.y))
        share = np.where((share > 0) & (share < 1), share, np.nan)
        skills = [1 - brier / (share * (1 - share)), 1 - nll / _entropy(share)]
        return np.column_stack([*errors, brier, nll, *skills, *self._slopes(sums)]), noise

    def _slopes(self, sums: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return slope and intercept of each replicate, from Newton steps on pairs put together in bins."""
        code = _calibration.bin_codes(self.p, "mass", _SLOPE_BINS)
        centre = np.bincount(code, self.z) / np.bincount(code)
        weight, edges = sums(np.ones(len(self.p)), code), sums(self.y, code)
        whole = np.bincount(code)[None].astype(np.float64), np.bincount(code, self.y)[None]
        ones = np.ones((len(centre), 1))

        def refit(x: np.ndarray, offset: np.ndarray, fitted: np.ndarray) -> np.ndarray:
            # What binning shifts, it shifts in the data and in a replicate alike.
            of_data, of_replicates = (
                _binned_newton(x, w, e, offset, fitted)[:, 0] for w, e in (whole, (weight, edges))
            )
            return fitted[0] + of_replicates - of_data

        slopes = refit(np.column_stack([centre, ones]), np.zeros(len(centre)), self.slope)
        return slopes, refit(ones, centre, self.intercept)


def _binned_newton(
    x: np.ndarray, weight: np.ndarray, edges: np.ndarray, offset: np.ndarray, start: np.ndarray
) -> np.ndarray:
    """Return the coefficients of a logistic regression for each row of weights; NaN where there is no optimum."""
    theta = np.tile(start, (len(weight), 1))
    if np.isnan(start).any():
        return theta
    for _ in range(_BINNED_STEPS):
        p = special.expit(offset + theta @ x.T)
        gradient = (edges - weight * p) @ x
        hessian = np.einsum("bn,ni,nj->bij", weight * p * (1 - p), x, x)
        lost = ~(np.linalg.cond(hessian) < _SINGULAR)
        hessian[lost] = np.eye(x.shape[1])
        theta += np.linalg.solve(hessian, gradient[..., None])[..., 0]
        theta[lost] = 0.0
    theta[lost] = np.nan
    return theta


def _entropy(share: Any) -> Any:
    return special.entr(share) + special.entr(1 - share)


def _newton(x: np.ndarray, y: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Return the coefficients of a logistic regression by damped Newton steps; NaN where there is no finite optimum."""
    if (x.std(axis=0)[:-1] < _CONSTANT).any():
        return np.full(x.shape[1], np.nan)

    def loss(theta: np.ndarray) -> float:
        z = offset + x @ theta
        return float((np.logaddexp(0, z) - y * z).mean())

    theta = np.zeros(x.shape[1])
    at = loss(theta)
    for _ in range(_STEPS):
        p = special.expit(offset + x @ theta)
        gradient = x.T @ (y - p)
        hessian = (x * (p * (1 - p))[:, None]).T @ x
        if np.linalg.cond(hessian) > _SINGULAR:
            break
        step = np.linalg.solve(hessian, gradient)
        scale = 1.0
        while loss(theta + scale * step) > at and scale > 1e-6:
            scale /= 2
        theta, at = theta + scale * step, loss(theta + scale * step)
        if np.abs(scale * step).max() < 1e-9 * (1 + np.abs(theta).max()):
            return theta
    return np.full(x.shape[1], np.nan)
