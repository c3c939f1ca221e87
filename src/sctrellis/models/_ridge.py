"""Node-wise ridge regression of every gene on all others, in closed form."""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from sctrellis.models._batches import Standardised
from sctrellis.models._device import resolve_device

MAX_SYSTEM = 5_000
"""Largest cells x cells or genes x genes system that is solved; beyond it cells are subsampled."""
_CV_CELLS = 1_000
OTHERS = (1.0, 10.0, 100.0)
_FLOAT64_UP_TO = 2_000


@dataclass(frozen=True)
class RidgeNetwork:
    """Result of :func:`ridge_network`.

    Attributes
    ----------
    weights : (n_regulators, n_genes), float32
        Coefficient of each regulator for each gene; 0 for itself and for constant genes.
    precision : (n_regulators, n_genes), float64
        Regulators' rows of the regularised precision ``P``.
    precision_diagonal : (n_genes,), float64
        Diagonal of ``P``.
    rho
        Ridge strength used.
    others
        How many times more the coefficients of other genes are shrunk than those of regulators.
    cv
        ``rho``, ``others`` and ``error``: cross-validated mean squared error per gene at each strength
        tried; empty where ``rho`` was given.
    """

    weights: np.ndarray
    precision: np.ndarray
    precision_diagonal: np.ndarray
    rho: float
    others: float
    cv: dict[str, np.ndarray]


class _System:
    """The smaller of the two equivalent systems: genes x genes (primal) or cells x cells (dual).

    With ``Z`` the standardised cells (n x G), ``C = (n rho I + Z'Z)^-1`` and ``M = (n rho I + ZZ')^-1``, everything
    that is needed follows from either: ``P = n C = (I - Z'M Z) / rho`` and ``M Z = Z C``.
    """

    def __init__(self, data: Standardised, cells: np.ndarray | None, device: torch.device) -> None:
        n_obs, n_vars = data.shape
        self.device = device
        self.cells = cells
        self.n = n_obs if cells is None else len(cells)
        self.data = data
        self.dual = n_vars > self.n
        size = min(self.n, n_vars)
        self.dtype = torch.float64
        self.cv_dtype = torch.float64 if size <= _FLOAT64_UP_TO else torch.float32
        self.weights = torch.ones(n_vars, dtype=self.dtype, device=device)
        self._regulators_gram: torch.Tensor | None = None
        if self.dual:
            self.z = torch.from_numpy(data.take(slice(None) if cells is None else cells)).to(device)
            self.gram = self._cells_gram(slice(None))
        else:
            self.gram = torch.zeros(n_vars, n_vars, dtype=self.dtype, device=device)
            for start in range(0, self.n, 512):
                part = self.block(slice(start, start + 512)).to(self.dtype)
                self.gram.addmm_(part.T, part)

    def _cells_gram(self, genes: slice | torch.Tensor) -> torch.Tensor:
        """Return ``ZZ'`` over some genes."""
        gram = torch.zeros(self.n, self.n, dtype=self.dtype, device=self.device)
        for part in self.z[:, genes].split(2048, dim=1):
            part = part.to(self.dtype)
            gram.addmm_(part, part.T)
        return gram

    def reweighted(self, ratio: float, regulators: torch.Tensor) -> "_System":
        """Return the system in which coefficients of genes that are not regulators are shrunk ``ratio`` times more.

        A penalty ``ratio`` times stronger is the common penalty on a gene scaled down by ``sqrt(ratio)``. Products of
        cells are reused: only the dual system multiplies the regulators out once more.
        """
        if ratio == 1.0:
            return self
        found = copy(self)
        found.weights = torch.full_like(self.weights, ratio**-0.5)
        found.weights[regulators] = 1.0
        if self.dual:
            if self._regulators_gram is None:
                self._regulators_gram = self._cells_gram(regulators)
            found.gram = (self.gram - self._regulators_gram).div_(ratio).add_(self._regulators_gram)
        else:
            found.gram = (self.gram * found.weights).mul_(found.weights[:, None])
        return found

    def block(self, index: slice | np.ndarray) -> torch.Tensor:
        """Standardised cells, float32, shape (n, G)."""
        if self.dual:
            return self.z[index]
        # A slice stays a slice: neighbouring cells are read much faster from disk.
        return torch.from_numpy(self.data.take(index if self.cells is None else self.cells[index])).to(self.device)

    def largest_eigenvalue(self) -> float:
        """Largest eigenvalue of ``S = Z'Z / n``, by power iterations."""
        # Not ones: genes sum to 0 over the cells, so ones are in the null space of the dual system.
        vector = self.gram[:, [int(self.gram.norm(dim=0).argmax())]]
        for _ in range(30):
            vector = self.gram @ vector
            vector /= vector.norm()
        return float((vector.T @ self.gram @ vector) / self.n)

    def inverse(self, rho: float, dtype: torch.dtype) -> torch.Tensor:
        """``C`` or ``M``, whichever is smaller."""
        system = self.gram.to(dtype, copy=True)
        system.diagonal().add_(self.n * rho)
        return torch.cholesky_inverse(torch.linalg.cholesky(system))

    def held_out_error(self, rho: float, folds: list[np.ndarray], scale: torch.Tensor) -> float:
        """Exact cross-validated squared error of every gene regressed on all others, averaged.

        With ``v = M z_k`` and ``q = z_k' v``, leaving out gene k as a predictor is a rank-one change of ``M``, and
        leaving out the cells ``F`` a block inverse; both together give the held-out residual
        ``w / (1 - q + v_F' w)`` with ``w = (M_FF)^-1 v_F``.
        """
        # Each fit sees fewer cells, and its strength is relative to those.
        rho = rho * (1 - len(folds[0]) / self.n)
        inverse = self.inverse(rho, self.cv_dtype)
        weights = self.weights.to(self.cv_dtype)
        if not self.dual:
            q = 1 - self.n * rho * inverse.diagonal()
        else:
            z = self.z * weights
            q = torch.cat([(part * (inverse @ part)).sum(0) for part in z.split(2048, dim=1)])
        total = 0.0
        for fold in folds:
            if self.dual:
                v, block = inverse[fold] @ z, inverse[fold][:, fold]
            else:
                z = self.block(fold) * weights
                v = z @ inverse
                block = (torch.eye(len(fold), dtype=self.cv_dtype, device=self.device) - v @ z.T) / (self.n * rho)
            w = torch.cholesky_solve(v, torch.linalg.cholesky(block))
            residual = w / (1 - q + (v * w).sum(0))
            total += float(((residual / scale) ** 2)[:, torch.isfinite(scale)].mean())
        return total / len(folds)

    def precision(self, rho: float, regulators: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Regulators' rows of ``P``, shape (p, G), and its diagonal."""
        inverse = self.inverse(rho, self.dtype)
        if not self.dual:
            return self.n * inverse[regulators], self.n * inverse.diagonal()
        n_vars = self.z.shape[1]
        z_regulators = self.z[:, regulators] * self.weights[regulators]
        left = z_regulators.T @ inverse
        rows = torch.empty(len(regulators), n_vars, dtype=self.dtype, device=self.device)
        diagonal = torch.empty(n_vars, dtype=self.dtype, device=self.device)
        for start in range(0, n_vars, 2048):
            part = self.z[:, start : start + 2048] * self.weights[start : start + 2048]
            rows[:, start : start + 2048] = -(left @ part) / rho
            diagonal[start : start + 2048] = (1 - (part * (inverse @ part)).sum(0)) / rho
        rows[torch.arange(len(regulators)), regulators] = diagonal[regulators]
        return rows, diagonal


Error = Callable[[float], float]


class _Search:
    """Search for a strength on a grid of factor 2 from ``start``, given errors with one minimum; each is tried once."""

    def __init__(self, start: float) -> None:
        self.start = start
        self.tried: dict[int, float] = {}
        self.best = 0

    def at(self, step: int, error: Error) -> float:
        """Return the error at a step of the grid."""
        if step not in self.tried:
            self.tried[step] = error(self.start * 2.0**step)
        return self.tried[step]

    def minimise(self, error: Error, step: int = 0) -> float:
        """Walk from a step to the minimum, and return the error there."""
        while self.at(step - 1, error) < self.at(step, error) and step > -12:
            step -= 1
        while self.at(step + 1, error) < self.at(step, error) and step < 12:
            step += 1
        self.best = step
        return self.tried[step]

    def largest(self, error: Error, tolerance: float) -> float:
        """Walk on from the minimum, and interpolate the largest strength within tolerance of it."""
        # Where little is explained, a fraction of the error would admit the empty model: the bound also keeps 9/10 of
        # what the best strength explains of the unit variance.
        step, best = self.best, self.tried[self.best]
        bound = best + min(tolerance * best, 0.1 * max(1.0 - best, 0.0))
        while self.at(step + 1, error) <= bound and step < 16:
            step += 1
        # Linear in log2: without it a bound just missed by a grid point would halve the strength.
        here, beyond = self.at(step, error), self.at(step + 1, error)
        fraction = 0.0 if beyond <= here else min(1.0, (bound - here) / (beyond - here))
        return self.start * 2.0 ** (step + fraction)

    def table(self) -> dict[str, np.ndarray]:
        """Return the strengths tried, in order, and their errors."""
        order = sorted(self.tried)
        return {
            "rho": np.array([self.start * 2.0**step for step in order]),
            "error": np.array([self.tried[step] for step in order]),
        }


def _choose(error: Error, start: float, tolerance: float) -> tuple[float, dict[str, np.ndarray]]:
    """Return the largest strength within tolerance of the minimum, and the table of those tried."""
    search = _Search(start)
    search.minimise(error)
    return search.largest(error, tolerance), search.table()


def ridge_network(
    rows: Any,
    regulators: np.ndarray,
    *,
    rho: float | None = None,
    others: float | None = 1.0,
    tolerance: float = 0.05,
    device: str | torch.device = "auto",
    seed: int = 0,
    full: bool = False,
    cells: np.ndarray | None = None,
) -> RidgeNetwork:
    """Regress every gene on all other genes with a ridge penalty, in closed form.

    Parameters
    ----------
    rows
        Cells x genes source with ``shape``, ``summary`` and ``take``, such as ``_core.rows.Rows``; standardised inside.
    regulators : (n_genes,), bool
        Genes whose coefficients are returned. All genes are predictors.
    rho
        Ridge strength on the scale of the correlation matrix. None takes the largest one whose cross-validated error is
        within ``tolerance`` of the smallest, tried on a grid of factor 2
        and interpolated.
    others
        How many times more strongly the coefficients of genes that are not regulators are shrunk: 1 treats all genes
        alike, a large value leaves the regulators alone. None takes the one with the smallest cross-validated error
        among 1, 10 and 100.
    tolerance
        How much worse than the smallest cross-validated error the chosen strength may be, as a fraction.
    device
        Torch device.
    seed
        Seed of the cross-validation folds, and of the cells drawn where there are more than the solver takes.
    full
        Return the coefficients of all genes, not only those of the regulators.
    cells
        Positions of the cells to fit; None is all. Genes are standardised over all cells.

    Returns
    -------
    RidgeNetwork
        Coefficients, the precision they come from, and the choice of strength.

    Notes
    -----
    With ``S = Z'Z/n`` and ``P = (S + rho I)^-1`` the coefficient of gene i for gene k is ``-P_ik / P_kk``. The smaller
    of the genes x genes and the cells x cells system is solved; where both pass 5,000 the cells are subsampled. Cost:
    O(m^3 + m n G) for a system of size m, and as much again for every strength tried: the five-fold cross-validation is
    exact, for every gene at once, from one inverse. It holds out at most 1,000 cells a fold.

    Examples
    --------
    >>> import numpy as np, sctrellis as tr
    >>> from sctrellis._core.rows import Rows
    >>> x = np.random.default_rng(0).normal(size=(50, 4))
    >>> x[:, 1] += x[:, 0]
    >>> fit = tr.models.ridge_network(Rows(x), np.array([True, False, False, False]))
    >>> int(np.abs(fit.weights[0]).argmax())
    1
    """
    device = resolve_device(device)
    regulators = np.asarray(regulators, dtype=bool)
    n_vars = rows.shape[1]
    n_obs = rows.shape[0] if cells is None else len(cells)
    rng = np.random.default_rng(seed)
    if n_obs > MAX_SYSTEM and n_vars > MAX_SYSTEM:
        drawn = np.sort(rng.choice(n_obs, MAX_SYSTEM, replace=False))
        cells, n_obs = drawn if cells is None else np.asarray(cells)[drawn], MAX_SYSTEM
    order = rng.permutation(n_obs)
    size = min(-(-len(order) // 5), _CV_CELLS)
    folds = [np.sort(order[i * size : (i + 1) * size]) for i in range(min(5, 2 * _CV_CELLS // size))]
    folds = [fold for fold in folds if len(fold)]
    positions = torch.from_numpy(np.flatnonzero(regulators)).to(device)
    varying = torch.from_numpy(rows.summary.std > 0).to(device)
    alike = _System(Standardised(rows), cells, device)

    def error_in(system: _System) -> Error:
        scale = system.weights.where(varying, torch.inf)
        return partial(system.held_out_error, folds=folds, scale=scale)

    searches: dict[float, _Search] = {}
    if rho is None:
        step, ratios = 0, OTHERS if others is None else (others,)
        if regulators.all():
            ratios = ratios[:1]  # no gene is shrunk differently
        for ratio in ratios:
            system = alike.reweighted(ratio, positions)
            searches[ratio] = _Search(0.1 * system.largest_eigenvalue())
            searches[ratio].minimise(error_in(system), step)
            step = searches[ratio].best  # the next minimum is not far
        ratio = min(searches, key=lambda tried: searches[tried].tried[searches[tried].best])
    else:
        ratio = OTHERS[0] if others is None else others
    system = alike.reweighted(ratio, positions)
    chosen = searches[ratio].largest(error_in(system), tolerance) if rho is None else rho
    tables = [{**found.table(), "others": np.full(len(found.tried), tried)} for tried, found in searches.items()]
    index = torch.from_numpy(np.arange(n_vars) if full else np.flatnonzero(regulators)).to(device)
    precision, diagonal = system.precision(chosen, index)
    # Back from scaled to standardised genes; constant genes keep their diagonal 1 / (rho * ratio).
    scale = system.weights
    precision, diagonal = precision.mul_(scale[index, None]).mul_(scale), diagonal * scale**2
    coefficients = -precision / diagonal
    coefficients[torch.arange(len(index)), index] = 0
    return RidgeNetwork(
        weights=coefficients.float().cpu().numpy(),
        precision=precision.cpu().numpy(),
        precision_diagonal=diagonal.cpu().numpy(),
        rho=float(chosen),
        others=float(ratio),
        cv={name: np.concatenate([table[name] for table in tables]) for name in (tables[0] if tables else {})},
    )
