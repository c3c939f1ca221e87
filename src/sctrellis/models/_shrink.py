"""The convex stage: coefficients that fit the cells as ridge does, pulled towards what the priors say."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from sctrellis.models._prior import Features, SidePrediction, known_factor, known_logits, predict_effect
from sctrellis.models._ridge import RidgeNetwork

_LOGIT_GRID = np.linspace(-8.0, 8.0, 161)
_PAIRS = 20_000
"""Known pairs whose log-odds are searched at once: 26 MB an array."""


@dataclass(frozen=True, kw_only=True)
class ShrinkConfig:
    """Settings of the convex stage.

    Parameters
    ----------
    lam
        L1 penalty on what a coefficient deviates from its prior mean, per target, on the half-squared loss of one cell.
    lam_mean
        Ridge penalty on the prior means, relative to the ridge strength of the start. Infinity leaves embeddings out;
        ``prior="scale"`` does not read other values.
    sigma_p
        Standard deviation of the log-odds of a known label. Infinity leaves known labels out.
    prior
        ``"mean"``: embeddings move the prior mean of a coefficient; ``"scale"``: its prior standard deviation.
    n_iterations
        Largest number of proximal steps of one solve.
    tol
        Largest change of a coefficient in the last step, relative to the largest coefficient.
    """

    lam: float = 0.02
    lam_mean: float = 0.2
    sigma_p: float = 0.5
    prior: Literal["mean", "scale"] = "mean"
    n_iterations: int = 1_000
    tol: float = 1e-7


@dataclass(frozen=True)
class ShrunkNetwork:
    """Result of :func:`shrink_network`.

    Attributes
    ----------
    weights : (n_regulators, n_genes), float32
        Coefficients ``A = A^e * A^p / 0.5``.
    mean : (n_regulators, n_genes), float32
        Prior mean ``mu`` of ``A^e``.
    scale : (n_regulators, n_genes), float32
        Factor of each coefficient: 1 for a pair of which nothing is known.
    edge_probability : (n_regulators, n_genes), float32
        ``A^p``; 0.5 for a pair of unknown label.
    regulator_prediction, target_prediction
        What the embedding predicts of regulators' and of targets' mean coefficients; None without embedding.
    mean_weights
        Learned weights of the prior mean: intercept, regulator part, target part; 0 where a part is not used.
    n_iterations
        Proximal steps taken.
    """

    weights: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    edge_probability: np.ndarray
    regulator_prediction: SidePrediction | None
    target_prediction: SidePrediction | None
    mean_weights: np.ndarray
    n_iterations: int

    @property
    def uses_embedding(self) -> bool:
        """Whether the embedding predicts either side of the network."""
        sides = (self.regulator_prediction, self.target_prediction)
        return any(side is not None and not np.isnan(side.strength) for side in sides)


class Profile:
    """Half-squared loss of the regulators' coefficients, all other genes' coefficients already optimal.

    For target k it is ``(b - a)' H (b - a) / 2`` with ``a`` the ridge solution and ``H`` the inverse of the regulators'
    block of the precision without k: ``P_RR - P_Rk P_kR / P_kk``. So the p x p matrix ``P_RR^-1`` and one vector per
    target hold it for every target, and non-regulators never appear again.
    """

    def __init__(self, ridge: RidgeNetwork, regulators: torch.Tensor, device: torch.device) -> None:
        precision = torch.from_numpy(ridge.precision).to(device)
        diagonal = torch.from_numpy(ridge.precision_diagonal).to(device)
        n_regulators, n_vars = precision.shape
        self.rho = ridge.rho
        self.precision, self.diagonal = precision, diagonal
        self.own = torch.arange(n_regulators, device=device), regulators
        self.block = precision[:, regulators]
        self.inverse = torch.cholesky_inverse(torch.linalg.cholesky(self.block))
        self.across = self.inverse @ precision
        rest = diagonal - (precision * self.across).sum(0)
        # A regulator as target leaves its own row out, which the mask does; its rank-one term vanishes.
        self.rank_one = torch.where(rest > 1e-12 * diagonal, 1.0 / rest, torch.zeros_like(rest))
        self.rank_one[regulators] = 0.0
        self.start = self.without_self(-precision / diagonal)
        largest = torch.linalg.eigvalsh(self.inverse)[-1]
        self.curvature = largest + (self.across**2).sum(0) * self.rank_one

    def without_self(self, matrix: torch.Tensor) -> torch.Tensor:
        """Return the matrix with 0 for a regulator's coefficient on itself."""
        matrix = matrix.clone()
        matrix[self.own] = 0.0
        return matrix

    def hessian(self, matrix: torch.Tensor) -> torch.Tensor:
        """Return ``H`` times the coefficients of every target; includes the ridge term."""
        product = self.inverse @ matrix
        product += self.across * (self.rank_one * (self.across * matrix).sum(0))
        return self.without_self(product)

    def inverse_hessian(self, matrix: torch.Tensor) -> torch.Tensor:
        """Return ``H^-1`` times the coefficients of every target."""
        product = self.block @ matrix
        product -= self.precision * ((self.precision * matrix).sum(0) / self.diagonal)
        return self.without_self(product)


def _solve(
    profile: Profile, mean: torch.Tensor, scale: torch.Tensor, start: torch.Tensor, config: ShrinkConfig
) -> tuple[torch.Tensor, int]:
    """Return deviations ``D`` from the prior mean, by accelerated proximal gradient with restarts.

    Minimises over ``b = scale * (mean + D)``: data loss of b, plus ``rho |D|^2 / 2`` and ``lam |D|_1``.
    """
    rho, lam = profile.rho, config.lam
    # The loss without its ridge term has curvature H - rho; the prior puts rho back, on D.
    step = 1.0 / ((profile.curvature - rho).clamp_min(0) * (scale**2).amax(0) + rho)
    deviation, point, momentum = start, start, 1.0
    size = float(profile.start.abs().max()) or 1.0
    for n_steps in range(1, config.n_iterations + 1):  # noqa: B007 - returned
        b = scale * (mean + point)
        gradient = scale * (profile.hessian(b - profile.start) - rho * b) + rho * point
        moved = point - step * gradient
        new = profile.without_self(torch.sign(moved) * (moved.abs() - lam * step).clamp_min(0))
        change = new - deviation
        if float(((point - new) * change).sum()) > 0:  # the momentum points uphill
            momentum = 1.0
        grown = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        point = new + (momentum - 1) / grown * change
        deviation, momentum = new, grown
        if float(change.abs().max()) <= config.tol * size:
            break
    return deviation, n_steps


def _prior_mean(
    profile: Profile,
    effects: torch.Tensor,
    features: Features,
    regulators: np.ndarray,
    config: ShrinkConfig,
) -> tuple[torch.Tensor, SidePrediction, SidePrediction, np.ndarray]:
    """Return the prior mean ``mu_ik = w_0 + w_1 f(h_i) + w_2 g(h_k)`` with f and g cross-fitted over genes.

    The three weights minimise the same loss as the coefficients do, all deviations from the mean profiled out; the
    penalty is on the means themselves (function space), not on weights of the embedding.
    """
    own = profile.own
    counted = torch.ones_like(effects)
    counted[own] = 0.0
    row_mean = ((effects * counted).sum(1) / counted.sum(1)).cpu().numpy()
    column_mean = ((effects * counted).sum(0) / counted.sum(0)).cpu().numpy()
    row_present, present = features.present[regulators], features.present
    row = _present_only(features.values[regulators], row_mean, row_present)
    column = _present_only(features.values, column_mean, present)
    parts: list[tuple[int, torch.Tensor]] = []
    if not np.isnan(row.strength) or not np.isnan(column.strength):
        parts.append((0, counted))
    if not np.isnan(row.strength):
        parts.append((1, counted * torch.from_numpy(row.effect).to(effects)[:, None]))
    if not np.isnan(column.strength):
        parts.append((2, counted * torch.from_numpy(column.effect).to(effects)))
    weights = np.zeros(3)
    if not parts:
        return torch.zeros_like(effects), row, column, weights
    rho = profile.rho
    images = [part - rho * profile.inverse_hessian(part) for _, part in parts]
    system = torch.stack([torch.stack([(a * b).sum() for b in images]) for _, a in parts])
    system += config.lam_mean * torch.stack([torch.stack([(a * b).sum() for _, b in parts]) for _, a in parts])
    right = torch.stack([(a * profile.start).sum() for _, a in parts])
    solution = torch.linalg.solve(system, right)
    mean = torch.zeros_like(effects)
    for (index, part), weight in zip(parts, solution, strict=True):
        weights[index] = float(weight)
        mean += weight * part
    return mean, row, column, weights


def _present_only(features: np.ndarray, effect: np.ndarray, present: np.ndarray) -> SidePrediction:
    side = predict_effect(features[present], effect[present])
    full = np.zeros(len(effect))  # a gene without embedding falls back to the intercept
    full[present] = side.effect
    return SidePrediction(full, side.explained, side.strength)


def _prior_scale(
    profile: Profile, effects: torch.Tensor, features: Features, regulators: np.ndarray
) -> tuple[torch.Tensor, SidePrediction, SidePrediction]:
    """Return the factor ``exp(f(h_i) + g(h_k))`` of each coefficient, from cross-fitted log mean magnitudes."""
    size = effects.abs()
    size = size + 1e-3 * size.mean()
    row_log = size.mean(1).log().cpu().numpy()
    column_log = size.mean(0).log().cpu().numpy()
    row = _present_only(features.values[regulators], row_log, features.present[regulators])
    column = _present_only(features.values, column_log, features.present)
    log_scale = torch.from_numpy(row.effect).to(effects)[:, None] + torch.from_numpy(column.effect).to(effects)
    return log_scale.clamp(-np.log(4.0), np.log(4.0)).exp(), row, column


def _update_logits(
    b: np.ndarray,
    mean: np.ndarray,
    other_scale: np.ndarray,
    labels: np.ndarray,
    n_obs: int,
    rho: float,
    c: ShrinkConfig,
) -> np.ndarray:
    """Return the log-odds of known pairs that minimise the loss given the coefficients, each pair on its own.

    Given ``b`` the data no longer matter: what remains is ``rho D^2 / 2 + lam |D|`` with ``D = b / scale - mean``, and
    the Gaussian prior of the log-odds, which is counted once per data set and so is divided by the number of cells.
    """
    centre = known_logits(labels)
    # A^e and A^p are not separately identified: a wider sigma_p means that labels are believed less (through
    # known_factor), never that the factor is free to move by more than one unit of log-odds.
    spread = min(c.sigma_p, 1.0)
    chosen = np.empty(len(b), dtype=np.intp)
    for start in range(0, len(b), _PAIRS):
        part = slice(start, start + _PAIRS)
        candidates = centre[part, None] + _LOGIT_GRID * spread
        deviation = b[part, None] / (known_factor(candidates, c.sigma_p) * other_scale[part, None]) - mean[part, None]
        loss = rho * deviation**2 / 2 + c.lam * np.abs(deviation)
        loss += (_LOGIT_GRID**2) / (2 * n_obs)
        chosen[part] = loss.argmin(axis=1)
    return centre + _LOGIT_GRID[chosen] * spread


def shrink_network(
    ridge: RidgeNetwork,
    regulators: np.ndarray,
    *,
    n_obs: int,
    features: Features | None = None,
    labels: np.ndarray | None = None,
    config: ShrinkConfig = ShrinkConfig(),
    device: str | torch.device = "auto",
    on_step: Callable[[], None] | None = None,
) -> ShrunkNetwork:
    """Refit the regulators' coefficients under the priors, by convex optimisation from the ridge start.

    Parameters
    ----------
    ridge
        Result of :func:`ridge_network` for the same regulators.
    regulators : (n_genes,), bool
        The regulators.
    n_obs
        Cells behind the ridge start.
    features
        Reduced embeddings; None leaves them out.
    labels : (n_regulators, n_genes)
        1 known edge, -1 known non-edge, 0 unknown; None knows nothing.
    config
        Settings.
    device
        Torch device.
    on_step
        Called after each solve.

    Returns
    -------
    ShrunkNetwork
        Coefficients and the priors as learned.

    Notes
    -----
    With ``b = s (mu + D)`` the loss per target is the data term of the ridge start, profiled over all genes that are
    not regulators, plus ``rho |D|^2 / 2 + lam |D|_1``. Without priors (mu = 0, s = 1) and with lam = 0 the
    ridge start is the solution. One product with ``H`` costs O(p^2 G).

    Examples
    --------
    >>> import numpy as np, sctrellis as tr
    >>> from sctrellis._core.rows import Rows
    >>> x = np.random.default_rng(0).normal(size=(50, 4))
    >>> regulators = np.array([True, True, False, False])
    >>> ridge = tr.models.ridge_network(Rows(x), regulators)
    >>> fit = tr.models.shrink_network(ridge, regulators, n_obs=50, config=tr.models.ShrinkConfig(lam=0.0))
    >>> bool(np.allclose(fit.weights, ridge.weights, atol=1e-6))
    True
    """
    from sctrellis.models._device import resolve_device

    device = resolve_device(device)
    index = torch.from_numpy(np.flatnonzero(regulators)).to(device)
    profile = Profile(ridge, index, device)
    zeros = torch.zeros_like(profile.start)
    ones = torch.ones_like(zeros)
    known = None if labels is None or np.isinf(config.sigma_p) else np.nonzero(labels)
    seen = np.zeros(0) if labels is None or known is None else labels[known]
    logits = known_logits(seen)
    steps = 0

    def factors(side: torch.Tensor) -> torch.Tensor:
        if known is None:
            return side
        scale = side.clone()
        scale[known] *= torch.from_numpy(known_factor(logits, config.sigma_p)).to(scale)
        return scale

    mean, side, scale = zeros, ones, factors(ones)
    row = column = None
    mean_weights = np.zeros(3)
    deviation = zeros
    if features is not None and not np.isinf(config.lam_mean):
        effects = profile.start
        if known is not None:  # labels reach other pairs through the effects that embeddings predict
            deviation, steps = _solve(profile, zeros, scale, zeros, config)
            effects = scale * deviation
        if config.prior == "mean":
            mean, row, column, mean_weights = _prior_mean(
                profile, effects, features, np.flatnonzero(regulators), config
            )
        else:
            side, row, column = _prior_scale(profile, effects, features, np.flatnonzero(regulators))
            scale = factors(side)
    for _ in range(1 if known is None else 5):
        deviation, taken = _solve(profile, mean, scale, deviation, config)
        steps += taken
        if on_step is not None:
            on_step()
        if known is not None:
            b, centre, others = (part[known].cpu().numpy() for part in (scale * (mean + deviation), mean, side))
            logits = _update_logits(b, centre, others, seen, n_obs, profile.rho, config)
            new = factors(side)
            # Keep b where it is; its split into factor and deviation changes.
            deviation = profile.without_self(scale * (mean + deviation) / new - mean)
            scale = new
    if known is not None:
        deviation, taken = _solve(profile, mean, scale, deviation, config)
        steps += taken
    weights = profile.without_self(scale * (mean + deviation))
    probability = np.full(tuple(zeros.shape), 0.5, dtype=np.float32)
    if known is not None:
        probability[known] = known_factor(logits, config.sigma_p) / 2
    return ShrunkNetwork(
        weights=weights.float().cpu().numpy(),
        mean=mean.float().cpu().numpy(),
        scale=scale.float().cpu().numpy(),
        edge_probability=probability,
        regulator_prediction=row,
        target_prediction=column,
        mean_weights=mean_weights,
        n_iterations=steps,
    )
