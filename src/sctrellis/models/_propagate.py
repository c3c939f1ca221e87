from typing import NamedTuple

import numpy as np
import torch

from sctrellis.models._device import resolve_device
from sctrellis.models._sem import sem_intervention, spectral_radius

_POWER_ITERATIONS = 200


class Propagated(NamedTuple):
    """Result of :func:`propagate`.

    Attributes
    ----------
    changes : (n, n_genes), float64
        Change of every gene; None where effects do not die out.
    radius
        Spectral radius of the effects as given.
    factor
        What all effects were scaled by.
    """

    changes: np.ndarray | None
    radius: float
    factor: float


def propagate(
    weights: np.ndarray,
    regulators: np.ndarray,
    clamped: np.ndarray,
    *,
    n_steps: int | None = None,
    max_radius: float | None = None,
    device: str | torch.device = "auto",
) -> Propagated:
    """Propagate changes of some genes through a linear network, if its effects die out.

    Parameters
    ----------
    weights : (n_regulators, n_genes)
        Effect of each regulator on each gene; 0 on itself.
    regulators : (n_regulators,)
        Gene position of each row.
    clamped : (n, n_genes)
        Change that a gene is held at, one perturbation a row; NaN where a gene is free.
    n_steps
        How far effects travel: 1 reaches direct targets only. None is the steady state.
    max_radius
        Where the spectral radius is larger, all effects are scaled down to it; None leaves them.
    device
        Torch device; ``"auto"`` takes CUDA when present, else the CPU.

    Returns
    -------
    Propagated
        Changes, spectral radius and factor.

    Notes
    -----
    See :func:`sem_intervention` for the equations. In float64.

    Examples
    --------
    >>> import numpy as np
    >>> from sctrellis import models
    >>> weights, clamped = np.array([[0.0, 2.0]]), np.array([[1.0, np.nan]])
    >>> models.propagate(weights, np.array([0]), clamped, device="cpu").changes.tolist()
    [[1.0, 2.0]]
    """
    where = resolve_device(device) if isinstance(device, str) else device
    effects = torch.from_numpy(np.asarray(weights, dtype=np.float64)).to(where)
    rows = torch.from_numpy(np.asarray(regulators, dtype=np.int64)).to(where)
    radius = spectral_radius(effects, rows, n_iterations=_POWER_ITERATIONS)
    factor = max_radius / radius if max_radius is not None and radius > max_radius else 1.0
    if n_steps is None and radius * factor >= 1:
        return Propagated(None, radius, factor)
    held = torch.from_numpy(np.asarray(clamped, dtype=np.float64)).to(where)
    found = sem_intervention(held, effects * factor, rows, n_steps=n_steps)
    return Propagated(found.cpu().numpy(), radius, factor)
