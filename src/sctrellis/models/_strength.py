"""How much to trust the embedding, judged by cells that were left out."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from sctrellis.models._batches import Standardised
from sctrellis.models._complete import complete_network
from sctrellis.models._prior import Features
from sctrellis.models._ridge import RidgeNetwork, ridge_network
from sctrellis.models._shrink import ShrinkConfig, shrink_network

STRENGTHS = (0.05, 0.2, 1.0, 5.0, float("inf"))
_HELD_OUT = 1_000
_KEPT = 1 / 3


def choose_prior_strength(
    rows: Any,
    regulators: np.ndarray,
    ridge: RidgeNetwork,
    *,
    features: Features,
    labels: np.ndarray | None,
    config: ShrinkConfig,
    device: torch.device,
    seed: int,
) -> tuple[ShrinkConfig, dict[str, np.ndarray] | None]:
    """Choose the penalty on the prior means by how well held-out cells are reconstructed, never by a known network.

    A fifth of the cells, at most 1,000, is held out; the network is fitted on the others with each strength, and
    predicts every gene of the held-out cells from all other genes. Taken is the largest strength that keeps a third of
    what the best one gains over leaving the embedding out: a mean that predicts cells well because it knows the hubs
    can still rank their edges worse, so no more of it is let in than is needed.

    Parameters
    ----------
    rows
        Cells x genes source.
    regulators : (n_genes,), bool
        The regulators.
    ridge
        Ridge start on all cells, whose strength is kept.
    features
        Reduced embeddings.
    labels
        Labels of known pairs, or None.
    config
        Settings of the convex stage.
    device
        Torch device.
    seed
        Seed of the cells held out.

    Returns
    -------
    tuple
        The settings with the chosen strength, and ``lam_mean`` and ``error`` of each strength; the settings as given
        and None where the embedding predicts nothing, so that its strength does not matter.
    """
    n_obs = rows.shape[0]
    order = np.random.default_rng([seed, 2]).permutation(n_obs)
    n_held_out = min(n_obs // 5, _HELD_OUT)
    held_out, kept = np.sort(order[:n_held_out]), np.sort(order[n_held_out:])
    full = ridge_network(
        rows, regulators, rho=ridge.rho, others=ridge.others, device=device, seed=seed, full=True, cells=kept
    )
    index = np.flatnonzero(regulators)
    start = replace(full, weights=full.weights[index], precision=full.precision[index])
    cells = torch.from_numpy(Standardised(rows).take(held_out)).to(device)
    varying = torch.from_numpy(rows.summary.std > 0).to(device)
    errors = []
    for strength in STRENGTHS:
        tried = replace(config, lam_mean=strength)
        shrunk = shrink_network(
            start, regulators, n_obs=len(kept), features=features, labels=labels, config=tried, device=device
        )
        if strength == STRENGTHS[0] and not shrunk.uses_embedding:
            return config, None
        network = complete_network(full, shrunk.weights, regulators, device).to(cells)
        errors.append(float(((cells - cells @ network) ** 2)[:, varying].mean()))
    error = np.array(errors)
    enough = error <= error[-1] - _KEPT * (error[-1] - error.min())
    chosen = STRENGTHS[int(np.flatnonzero(enough)[-1])]
    return replace(config, lam_mean=chosen), {"lam_mean": np.array(STRENGTHS), "error": error}
