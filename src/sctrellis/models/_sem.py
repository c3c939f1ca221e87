"""The structural equation ``x = x A + z``, solved on the regulators only."""

import torch


def sem_noise(x: torch.Tensor, weights: torch.Tensor, regulators: torch.Tensor) -> torch.Tensor:
    """Return ``z = x (I - A)``, what regulators leave unexplained.

    Parameters
    ----------
    x : (n, n_genes)
        Cells.
    weights : (n_regulators, n_genes)
        Regulators' rows ``B`` of ``A``; all other rows are zero. A regulator's own entry must be 0.
    regulators : (n_regulators,)
        Gene position of each row.

    Returns
    -------
    torch.Tensor, (n, n_genes)
        The noise.

    Examples
    --------
    >>> import torch
    >>> sem_noise(torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 2.0]]), torch.tensor([0]))
    tensor([[1., 1.]])
    """
    return x - x[:, regulators] @ weights


def sem_response(z: torch.Tensor, weights: torch.Tensor, regulators: torch.Tensor) -> torch.Tensor:
    """Return ``x = z (I - A)^-1``, the cells that noise gives rise to.

    Parameters
    ----------
    z : (n, n_genes)
        Noise.
    weights, regulators
        See :func:`sem_noise`.

    Returns
    -------
    torch.Tensor, (n, n_genes)
        The cells.

    Notes
    -----
    With ``E`` selecting the regulators, ``A = E B`` and by the Woodbury identity
    ``(I - E B)^-1 = I + E (I - B E)^-1 B``: only the regulators x regulators system is solved, and ``x = z + x_R B``.

    Examples
    --------
    >>> import torch
    >>> sem_response(torch.tensor([[1.0, 1.0]]), torch.tensor([[0.0, 2.0]]), torch.tensor([0]))
    tensor([[1., 3.]])
    """
    system = torch.eye(len(regulators), dtype=z.dtype, device=z.device) - weights[:, regulators]
    return z + torch.linalg.solve(system, z[:, regulators], left=False) @ weights


def sem_intervention(
    clamped: torch.Tensor, weights: torch.Tensor, regulators: torch.Tensor, *, n_steps: int | None = None
) -> torch.Tensor:
    """Return how all genes change where some are held at a given change.

    Parameters
    ----------
    clamped : (n, n_genes)
        Change that a gene is held at, one perturbation a row; NaN where a gene is free.
    weights, regulators
        See :func:`sem_noise`.
    n_steps
        How far effects travel: 1 reaches direct targets only. None is the steady state.

    Returns
    -------
    torch.Tensor, (n, n_genes)
        The changes; clamped genes have theirs exactly.

    Notes
    -----
    A clamped gene no longer listens to its regulators. The steady state solves ``x = x A`` on the free genes. Instead
    of one system per perturbation, the response ``T`` to a unit impulse on each clamped gene is solved for once, in
    :func:`sem_response`; the impulses ``u`` that bring a set ``P`` to its wanted change follow from the small system
    ``u T[P, P] = clamped[P]``, and ``x = u T[P]``. With `n_steps`, ``x <- x A`` on the free genes, so many times.

    Examples
    --------
    >>> import torch
    >>> weights, nan = torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, 3.0]]), float("nan")
    >>> clamped, regulators = torch.tensor([[1.0, nan, nan]]), torch.tensor([0, 1])
    >>> sem_intervention(clamped, weights, regulators)
    tensor([[1., 2., 6.]])
    >>> sem_intervention(clamped, weights, regulators, n_steps=1)
    tensor([[1., 2., 0.]])
    """
    free = clamped.isnan()
    held = clamped.nan_to_num()
    if n_steps is not None:
        state = held
        for _ in range(n_steps):
            state = torch.where(free, state[:, regulators] @ weights, held)
        return state
    genes = (~free).any(dim=0).nonzero().squeeze(1)
    impulses = torch.zeros(len(genes), clamped.shape[1], dtype=clamped.dtype, device=clamped.device)
    impulses[torch.arange(len(genes), device=clamped.device), genes] = 1
    response = sem_response(impulses, weights, regulators)
    changes = torch.empty_like(held)
    for i, known in enumerate(~free[:, genes]):
        rows = response[known]
        strength = torch.linalg.solve(rows[:, genes[known]], held[i, genes[known]][None], left=False)
        changes[i] = (strength @ rows)[0]
    return torch.where(free, changes, held)


def sem_logdet(weights: torch.Tensor, regulators: torch.Tensor) -> torch.Tensor:
    """Return ``log |det(I - A)|``, from the regulators' own block.

    Parameters
    ----------
    weights, regulators
        See :func:`sem_noise`.

    Returns
    -------
    torch.Tensor, scalar
        The log-determinant; minus infinity where the system is singular.

    Examples
    --------
    >>> import torch
    >>> sem_logdet(torch.tensor([[0.0, 2.0]]), torch.tensor([0]))
    tensor(0.)
    """
    block = torch.eye(len(regulators), dtype=weights.dtype, device=weights.device) - weights[:, regulators]
    return torch.linalg.slogdet(block).logabsdet


@torch.no_grad()
def spectral_radius(weights: torch.Tensor, regulators: torch.Tensor, n_iterations: int = 30) -> float:
    """Return an estimate of the spectral radius of ``A``, by power iterations on the regulators' block.

    Parameters
    ----------
    weights, regulators
        See :func:`sem_noise`.
    n_iterations
        Products with the block.

    Returns
    -------
    float
        Growth of a vector per product, averaged over the last half, which evens out the turns of complex pairs. Few
        iterations may fall short of the radius by some per cent.

    Examples
    --------
    >>> import torch
    >>> round(spectral_radius(torch.tensor([[0.0, 0.5], [0.5, 0.0]]), torch.tensor([0, 1])), 3)
    0.5
    """
    block = weights[:, regulators]
    vector = torch.linspace(1.0, 2.0, len(block), dtype=block.dtype, device=block.device)
    vector = vector / vector.norm()
    growth = []
    for _ in range(n_iterations):
        vector = vector @ block
        norm = vector.norm()
        if norm == 0:
            return 0.0
        growth.append(norm.log())
        vector = vector / norm
    return float(torch.stack(growth[n_iterations // 2 :]).mean().exp())
