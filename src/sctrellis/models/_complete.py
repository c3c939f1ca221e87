"""Coefficients of all genes, once those of the regulators are given."""

import numpy as np
import torch

from sctrellis.models._ridge import RidgeNetwork


def complete_network(
    full: RidgeNetwork, weights: np.ndarray, regulators: np.ndarray, device: torch.device
) -> torch.Tensor:
    """Return the network of all genes in which the other genes' coefficients are optimal given the regulators'.

    Parameters
    ----------
    full
        Ridge solution with the rows of all genes.
    weights : (n_regulators, n_genes)
        Coefficients of the regulators.
    regulators : (n_genes,), bool
        The regulators.
    device
        Torch device.

    Returns
    -------
    torch.Tensor, float64, (n_genes, n_genes)
        Row = predictor, column = target; diagonal 0.

    Notes
    -----
    With P(k) the precision without gene k, moving the regulators' coefficients by d from the ridge solution moves the
    others' optimum by ``P(k)_OR P(k)_RR^-1 d``; P(k) is a rank-one change of P, so no system is solved per gene.
    """
    rows = torch.from_numpy(np.flatnonzero(regulators)).to(device)
    regulator = torch.from_numpy(np.array(regulators)).to(device)
    precision = torch.from_numpy(full.precision).to(device)
    diagonal = torch.from_numpy(full.precision_diagonal).to(device)
    network = -precision / diagonal
    network.fill_diagonal_(0.0)
    given = torch.from_numpy(weights).to(precision)
    change = given - network[rows]
    own = torch.arange(len(rows), device=device), rows
    change[own] = 0.0
    between = precision[rows]
    factor = torch.linalg.cholesky(between[:, rows])
    across, solved = torch.cholesky_solve(between, factor), torch.cholesky_solve(change, factor)
    rest = diagonal - (between * across).sum(0)
    # A regulator as target has no rank-one term: leaving its own row out does what the term would.
    scale = torch.where(regulator | (rest <= 1e-12 * diagonal), torch.zeros_like(rest), 1.0 / rest)
    solved += across * (scale * (across * change).sum(0))
    solved[own] = 0.0
    others = torch.nonzero(~regulator).squeeze(1)
    network[others] += precision[others][:, rows] @ solved - precision[others] * ((between * solved).sum(0) / diagonal)
    network[rows] = given
    network.fill_diagonal_(0.0)
    return network
