from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from scipy import optimize, special

from sctrellis._core import checks
from sctrellis.metrics import _calibration, _ranking

Scale = Literal["probability", "log_odds", "strength"]
Recalibration = Literal["prior_shift", "temperature", "platt", "beta", "isotonic"]
SCALES: tuple[Scale, ...] = get_args(Scale)
METHODS: tuple[Recalibration, ...] = get_args(Recalibration)
N_PARTS = 5
"""Parts of the cross-validation that chooses a method."""
MIN_ISOTONIC = 1_000
"""Positive pairs below which ``"auto"`` does not try a map with a step for every pair."""
_MAX_LOG_TEMPERATURE = 7.0
_MIN_SLOPE = 1e-4
_MAX_SLOPE = 1e4
_ON_LOG_ODDS = ("prior_shift", "temperature", "beta")


@dataclass(frozen=True, kw_only=True)
class Calibrator:
    """A map from scores to probabilities that never changes the order of two pairs.

    Parameters
    ----------
    method
        Name of the method, one of ``"prior_shift"``, ``"temperature"``, ``"platt"``, ``"beta"``, ``"isotonic"``.
    scale
        What the scores are: ``"probability"``, ``"log_odds"`` or ``"strength"``.
    parameters
        Numbers of the map by name: ``slope`` and ``intercept``, ``temperature``, ``slope_low``, ``slope_high``, and
        ``shift``, which is added to the log odds at the end.
    knots, values
        Scores and probabilities between which ``"isotonic"`` interpolates; empty for the others.
    selection
        Cross-fitted log-loss of the methods that ``"auto"`` compared, and of a constant.
    """

    method: Recalibration
    scale: Scale
    parameters: Mapping[str, float]
    knots: np.ndarray = field(default_factory=lambda: np.zeros(0))
    values: np.ndarray = field(default_factory=lambda: np.zeros(0))
    selection: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False)

    @property
    def strict(self) -> bool:
        """Whether unequal scores stay unequal, so that no ranking metric changes."""
        return self.method != "isotonic"

    def log_odds(self, scores: Any) -> np.ndarray:
        """Return the calibrated log odds of scores, float64, shape (n,)."""
        z = as_log_odds(scores, self.scale)
        p = self.parameters
        if self.method == "prior_shift":
            fitted = z
        elif self.method == "temperature":
            fitted = z / p["temperature"]
        elif self.method == "platt":
            fitted = p["slope"] * z + p["intercept"]
        elif self.method == "beta":
            low, high = _beta_features(z)
            fitted = p["slope_low"] * low + p["slope_high"] * high + p["intercept"]
        else:
            fitted = _calibration.log_odds(np.interp(z, self.knots, self.values))
        return fitted + p["shift"]

    def probabilities(self, scores: Any) -> np.ndarray:
        """Return the calibrated probabilities of scores, float64, shape (n,)."""
        return special.expit(self.log_odds(scores))

    def shifted(self, share: float, prevalence: float) -> "Calibrator":
        """Return the calibrator for pairs of which another share are edges, the scores meaning the same otherwise."""
        by = float(special.logit(prevalence) - special.logit(share))
        return replace(self, parameters={**self.parameters, "shift": self.parameters["shift"] + by})


def fit_calibrator(
    scores: Any,
    labels: Any,
    method: Literal["auto", "prior_shift", "temperature", "platt", "beta", "isotonic"] = "auto",
    *,
    scale: Scale,
    rows: Any = None,
    train_share: float | None = None,
    seed: int | None = 0,
) -> Calibrator:
    r"""Fit a monotone map from scores to probabilities.

    Parameters
    ----------
    scores : (n,)
        Score of each pair; higher is more likely an edge.
    labels : (n,)
        Boolean, or 0 and 1. None of them may have entered the scores.
    method
        With :math:`z` the log odds of the score (or the score itself, for ``scale="strength"``):

        ``"prior_shift"``
            :math:`z + \mathrm{logit}\,\pi - \mathrm{logit}\,\pi_\text{train}`, with :math:`\pi` the share of edges
            among the labels. Nothing else is fitted.
        ``"temperature"``
            :math:`z / T`.
        ``"platt"``
            :math:`a z + b`.
        ``"beta"``
            :math:`a \ln p - b \ln (1 - p) + c`, with :math:`p` the probability that is scored: ``"platt"`` where
            :math:`a = b`.
        ``"isotonic"``
            The increasing step function of least squares, interpolated.
        ``"auto"``
            The one of them with the smallest cross-fitted log-loss; ``"isotonic"`` takes part from 1,000 positives.
    scale
        What the scores are: ``"probability"`` in [0, 1], ``"log_odds"``, or ``"strength"``, any other number. It is
        never guessed. Only ``"platt"`` and ``"isotonic"`` make sense of a strength.
    rows : (n,)
        Regulator of each pair. Cross-fitting leaves out fifths of the regulators in turn; None leaves out fifths of the
        pairs.
    train_share
        Share of edges among the pairs that the scores were trained on. ``"prior_shift"`` only.
    seed
        Seed of the division into fifths, in [0, 2**32); None draws one.

    Returns
    -------
    Calibrator
        Its methods ``log_odds(scores)`` and ``probabilities(scores)`` apply the map to any scores.

    Raises
    ------
    ValueError
        Where the labels are all equal, scores are NaN or outside their scale, or a method does not fit the scale.

    Notes
    -----
    Parameters minimise the log-loss, with slopes held positive, so that AUROC and AUPRC stay what they were for all
    but ``"isotonic"``, which can tie pairs. On the labels of the fit the log-loss is never larger than without a map
    for ``"temperature"``, and never larger than that for ``"platt"``. The calibration error has no such guarantee.

    The temperature cannot move the mean: where edges were more frequent in training than here it hardly helps, however
    it is chosen. ``"isotonic"`` claims no probability below half a pair, :math:`1 / 2n`, nor above its complement.

    References
    ----------
    :cite:p:`guo2017calibration`, :cite:p:`platt1999`, :cite:p:`kull2017beta`, :cite:p:`zadrozny2002`; the shift:
    :cite:p:`saerens2002`.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.special import expit
    >>> from sctrellis import metrics
    >>> rng = np.random.default_rng(0)
    >>> z = rng.normal(-2, 1.5, size=20000)
    >>> labels = rng.random(20000) < expit(z)
    >>> found = metrics.fit_calibrator(3 * z, labels, "temperature", scale="log_odds")
    >>> round(found.parameters["temperature"], 1)
    3.0
    """
    checks.choice("method", method, ("auto", *METHODS))
    checks.choice("scale", scale, SCALES)
    seed = checks.seed(seed)
    z = as_log_odds(scores, scale)
    found = _ranking.as_labels(labels, len(z))
    if not found.any() or found.all():
        what = "positive" if not found.any() else "negative"
        msg = f"None of the {len(found):,} `labels` is {what}: there is nothing to calibrate to."
        raise ValueError(msg)
    if train_share is not None:
        train_share = checks.number("train_share", train_share, low=0, high=1, open_low=True, open_high=True)
    if method != "auto":
        _check_method(method, scale, train_share)
        return _fit(method, z, found, scale, train_share)
    part = _parts(len(z), rows, seed)
    candidates = [
        name
        for name in METHODS
        if (scale != "strength" or name not in _ON_LOG_ODDS)
        and (name != "prior_shift" or train_share is not None)
        and (name != "isotonic" or found.sum() >= MIN_ISOTONIC)
    ]
    losses = {name: _cross_fitted(name, z, found, part, scale, train_share) for name in candidates}
    # Where no division leaves edges and others to fit on, nothing can be compared.
    comparable = all(np.isfinite(loss) for loss in losses.values())
    chosen: Recalibration = min(candidates, key=lambda name: losses[name]) if comparable else "platt"
    table = [{"method": "constant", "nll": _constant(found, part)}]
    table += [{"method": name, "nll": losses[name]} for name in candidates]
    selection = pd.DataFrame(table)
    selection["chosen"] = selection["method"] == chosen
    return replace(_fit(chosen, z, found, scale, train_share), selection=selection)


def as_log_odds(scores: Any, scale: Scale) -> np.ndarray:
    """Return what the maps work on: log odds, or strengths as they are."""
    if scale == "probability":
        return _calibration.log_odds(_calibration.as_probabilities(scores))
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        msg = f"Expected `scores` to have shape (n,) with n >= 1, found {values.shape}."
        raise ValueError(msg)
    n_bad = int((~np.isfinite(values)).sum())
    if n_bad:
        msg = f"`scores` has {n_bad:,} NaN or infinite values. Leave out pairs without a score."
        raise ValueError(msg)
    return values


def _check_method(method: str, scale: Scale, train_share: float | None) -> None:
    if scale == "strength" and method in _ON_LOG_ODDS:
        msg = (
            f"`method={method!r}` needs log odds or probabilities, and these scores are strengths of no known meaning. "
            "Use 'platt' or 'isotonic'; or say with `scale=` what the scores are."
        )
        raise ValueError(msg)
    if method == "prior_shift" and train_share is None:
        msg = (
            "`method='prior_shift'` needs the share of edges among the training pairs: pass `train_share=`, or use "
            "'platt', which fits the shift."
        )
        raise ValueError(msg)


def _fit(method: Recalibration, z: np.ndarray, y: np.ndarray, scale: Scale, train_share: float | None) -> Calibrator:
    fitted = _FITS[method](z, y, train_share)
    knots, values = fitted.pop("knots", np.zeros(0)), fitted.pop("values", np.zeros(0))
    return Calibrator(method=method, scale=scale, parameters={"shift": 0.0, **fitted}, knots=knots, values=values)


def _shift(z: np.ndarray, y: np.ndarray, train_share: float | None) -> dict[str, Any]:
    return {"shift": float(special.logit(y.mean()) - special.logit(train_share))}


def _temperature(z: np.ndarray, y: np.ndarray, train_share: float | None) -> dict[str, Any]:
    # Convex in 1 / T, so there is one minimum in t = log T; t = 0, no change, is always among the choices.
    bounds = (-_MAX_LOG_TEMPERATURE, _MAX_LOG_TEMPERATURE)
    found = optimize.minimize_scalar(
        lambda t: log_loss(z * np.exp(-t), y), bounds=bounds, method="bounded", options={"xatol": 1e-8}
    )
    t = min((0.0, float(found.x)), key=lambda t: log_loss(z * np.exp(-t), y))
    return {"temperature": float(np.exp(t))}


def _platt(z: np.ndarray, y: np.ndarray, train_share: float | None) -> dict[str, Any]:
    slope = 1 / _temperature(z, y, None)["temperature"]
    (slope,), intercept = _linear(z[:, None], y, [slope])
    return {"slope": slope, "intercept": intercept}


def _beta(z: np.ndarray, y: np.ndarray, train_share: float | None) -> dict[str, Any]:
    platt = _platt(z, y, None)
    (low, high), intercept = _linear(
        np.column_stack(_beta_features(z)), y, [platt["slope"], platt["slope"]], platt["intercept"]
    )
    return {"slope_low": low, "slope_high": high, "intercept": intercept}


def _isotonic(z: np.ndarray, y: np.ndarray, train_share: float | None) -> dict[str, Any]:
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(y_min=0.5 / len(y), y_max=1 - 0.5 / len(y), out_of_bounds="clip").fit(z, y)
    return {"knots": fitted.X_thresholds_.astype(np.float64), "values": fitted.y_thresholds_.astype(np.float64)}


_FITS: dict[Recalibration, Callable[[np.ndarray, np.ndarray, float | None], dict[str, Any]]] = {
    "prior_shift": _shift,
    "temperature": _temperature,
    "platt": _platt,
    "beta": _beta,
    "isotonic": _isotonic,
}


def _beta_features(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ln p and -ln(1 - p) of log odds, without going through p."""
    return -np.logaddexp(0, -z), np.logaddexp(0, z)


def log_loss(z: np.ndarray, y: np.ndarray) -> float:
    """Return the mean log-loss of log odds, in nats."""
    return float(np.logaddexp(0, np.where(y, -z, z)).mean())


def _linear(
    features: np.ndarray, y: np.ndarray, start: Sequence[float], intercept: float = 0.0
) -> tuple[list[float], float]:
    """Minimise the log-loss over positive slopes and an intercept; never ends above where it starts."""
    spread = features.std(axis=0)
    spread[spread == 0] = 1.0
    x = np.column_stack([features / spread, np.ones(len(features))])

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        z = x @ theta
        return log_loss(z, y), x.T @ (special.expit(z) - y) / len(y)

    first = np.append(np.asarray(start) * spread, intercept)
    least = np.minimum(_MIN_SLOPE, first[:-1])  # the start must be allowed, or the guarantee is lost
    bounds = [*((low, max(_MAX_SLOPE, at)) for low, at in zip(least, first[:-1], strict=True)), (None, None)]
    found = optimize.minimize(
        loss, first, jac=True, bounds=bounds, method="L-BFGS-B", options={"maxiter": 1000, "ftol": 1e-14, "gtol": 1e-9}
    )
    theta = found.x if found.fun <= loss(first)[0] else first
    return [float(v) for v in theta[:-1] / spread], float(theta[-1])


def _parts(n: int, rows: Any, seed: int) -> np.ndarray:
    """Return the part of each pair: whole regulators where there are enough of them."""
    rng = np.random.default_rng(seed)
    if rows is not None:
        names, group = np.unique(np.asarray(rows), return_inverse=True)
        if group.shape != (n,):
            msg = f"Expected `rows` to have shape ({n},) as `scores`, found {group.shape}."
            raise ValueError(msg)
        if len(names) >= N_PARTS:
            return rng.permutation(len(names))[group] % N_PARTS
    return rng.permutation(n) % N_PARTS


def _cross_fitted(
    method: Recalibration, z: np.ndarray, y: np.ndarray, part: np.ndarray, scale: Scale, train_share: float | None
) -> float:
    """Return the mean log-loss of every pair under the map that was fitted without its part; NaN if one has no edge."""
    total = 0.0
    for i in np.unique(part):
        out = part == i
        if not y[~out].any() or y[~out].all():
            return np.nan
        # The maps work on log odds from here on, whatever the scores were.
        fitted = _fit(method, z[~out], y[~out], "log_odds" if scale == "probability" else scale, train_share)
        total += log_loss(fitted.log_odds(z[out]), y[out]) * out.sum()
    return total / len(y)


def _constant(y: np.ndarray, part: np.ndarray) -> float:
    """Return the cross-fitted log-loss of the share of edges."""
    total = 0.0
    for i in np.unique(part):
        out = part == i
        share = np.clip(y[~out].mean(), _calibration.CLIP, 1 - _calibration.CLIP)
        total += log_loss(np.full(int(out.sum()), special.logit(share)), y[out]) * out.sum()
    return total / len(y)
