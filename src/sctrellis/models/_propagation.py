"""Changes of some genes, carried through a network to all; arrays in, arrays out."""

import numpy as np
import torch

from sctrellis.models._device import resolve_device
from sctrellis.models._sem import sem_intervention, spectral_radius


def propagate(
    weights: np.ndarray,
    regulators: np.ndarray,
    clamped: np.ndarray,
    *,
    n_steps: int | None,
    max_radius: float | None,
    n_iterations: int,
    device: str | torch.device = "auto",
) -> tuple[np.ndarray, float, float]:
    """Return how all genes change, the spectral radius of the network, and what its effects were scaled by.

    Parameters
    ----------
    weights : (n_regulators, n_genes)
        Effects of the regulators.
    regulators : (n_regulators,)
        Positions of the regulators among the genes.
    clamped : (n, n_genes)
        Change that a gene is held at, one perturbation a row; NaN where a gene is free. Returned as it is where effects
        would not die out.
    n_steps
        How far effects travel; None is the steady state.
    max_radius
        Spectral radius that larger ones are scaled down to; None scales nothing.
    n_iterations
        Iterations for the spectral radius.
    device
        Torch device.
    """
    place = resolve_device(device)
    effects, rows = torch.from_numpy(weights).to(place), torch.from_numpy(regulators).to(place)
    radius = spectral_radius(effects, rows, n_iterations=n_iterations)
    factor = max_radius / radius if max_radius is not None and radius > max_radius else 1.0
    if n_steps is None and radius * factor >= 1:
        return clamped, radius, factor
    found = sem_intervention(torch.from_numpy(clamped).to(place), effects * factor, rows, n_steps=n_steps)
    return found.cpu().numpy(), radius, factor
