r"""How much of what a layer makes of a gene comes from the gene itself, and how much from its neighbours.

A layer is a function :math:`g(x, m)` of a gene's own features and of what its neighbours send. Both are moved along the
line between them, and what comes out is compared: a *response* is the change of the output for one such move.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

Layer = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
SensitivityMethod = Literal["jvp", "finite_difference", "secant"]
METHODS: tuple[SensitivityMethod, ...] = ("jvp", "finite_difference", "secant")


@dataclass(frozen=True, kw_only=True)
class Moves:
    """Where a layer is probed, and along which lines.

    With one neighbour mean, both lines are along ``x - m``.

    Attributes
    ----------
    x : (n_genes, n_features)
        Own features.
    m : (n_genes, n_means * n_features)
        Neighbour means, side by side.
    own_x, own_m
        The gene's move, in the shapes of ``x`` and ``m``: its own features, and with them every mean over no neighbour,
        for which its own features stand in.
    neighbours_m
        The neighbours' move, in the shape of ``m``: each mean to the gene's own features.
    """

    x: torch.Tensor
    m: torch.Tensor
    own_x: torch.Tensor
    own_m: torch.Tensor
    neighbours_m: torch.Tensor


def moves(x: torch.Tensor, m: torch.Tensor, present: torch.Tensor) -> Moves:
    r"""Return the moves of all genes along the lines between their features and their neighbours'.

    Parameters
    ----------
    x : (n_genes, n_features)
        Own features.
    m : (n_genes, n_means * n_features)
        Neighbour means, side by side.
    present : (n_genes, n_means), bool
        Whether a mean is over any neighbour.

    Returns
    -------
    Moves
        Where a layer is probed, and along which lines.

    Notes
    -----
    With several means the gene moves along the mean of :math:`x - m_k` over those that are present. For a layer that
    weighs these means alike, own and neighbours' responses are then parallel, as they are with one.

    Examples
    --------
    >>> import torch
    >>> from sctrellis.explain import moves
    >>> x, m = torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, 1.0]])
    >>> moves(x, m, torch.tensor([[True]])).own_x
    tensor([[2., 0.]])
    """
    n_genes, n_means = present.shape
    delta = (x[:, None, :] - m.view(n_genes, n_means, -1)) * present[:, :, None]
    own = delta.sum(dim=1) / present.sum(dim=1, keepdim=True).clamp(min=1)
    own_m = torch.where(present[:, :, None], 0.0, own[:, None, :]).reshape(m.shape)
    return Moves(x=x, m=m, own_x=own, own_m=own_m, neighbours_m=delta.reshape(m.shape))


def responses(
    layer: Layer, at: Moves, method: SensitivityMethod = "jvp", *, way: torch.Tensor | float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Return how the output of a layer answers to the gene's move and to its neighbours'.

    Parameters
    ----------
    layer
        Function of own features and neighbour means; all genes are moved at once, so that of a layer whose row ``i``
        depends on row ``i`` of its arguments only, row ``i`` of the result belongs to gene ``i``.
    at
        Where, and along which lines.
    method
        ``"jvp"``
            Exact derivatives, as Jacobian-vector products in forward mode.
        ``"finite_difference"``
            :math:`(g(x + t\delta, m) - g(x, m)) / t` with :math:`t` = ``way``; exact where no ReLU changes its side on
            it.
        ``"secant"``
            The whole way: :math:`g(x, m) - g(m, m)` and :math:`g(x, x) - g(x, m)`.
    way
        Share of the way that finite differences go: a number, or one for each gene, (n_genes,).

    Returns
    -------
    own, neighbours : (n_genes, d)
        Responses; all are for moves of length :math:`\lVert \delta \rVert`.

    Examples
    --------
    >>> import torch
    >>> from sctrellis.explain import moves, responses
    >>> x, m = torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, 1.0]])
    >>> responses(lambda x, m: 0.75 * x + 0.25 * m, moves(x, m, torch.tensor([[True]])))
    (tensor([[1.5000, 0.0000]]), tensor([[0.5000, 0.0000]]))
    """
    zero = torch.zeros_like(at.x)
    tangents = ((at.own_x, at.own_m), (zero, at.neighbours_m))
    if method == "jvp":
        # detach: the parameters of a fitted model ask for gradients, which nobody needs here.
        own, neighbours = (torch.func.jvp(layer, (at.x, at.m), v)[1].detach() for v in tangents)
        return own, neighbours
    with torch.no_grad():
        here = layer(at.x, at.m)
        if method == "secant":
            return here - layer(at.x - at.own_x, at.m - at.own_m), layer(at.x, at.m + at.neighbours_m) - here
        t = torch.as_tensor(way, dtype=at.x.dtype, device=at.x.device).expand(len(at.x))[:, None]
        own, neighbours = ((layer(at.x + t * dx, at.m + t * dm) - here) / t for dx, dm in tangents)
        return own, neighbours


def self_weight(own: torch.Tensor, neighbours: torch.Tensor) -> torch.Tensor:
    r"""Return the gene's share of the lengths of two responses.

    Parameters
    ----------
    own, neighbours : (n_genes, d)
        Responses :math:`a` and :math:`b` of :func:`responses`.

    Returns
    -------
    (n_genes,)
        :math:`\lVert a \rVert / (\lVert a \rVert + \lVert b \rVert)` row by row; NaN where both are 0.

    Examples
    --------
    >>> import torch
    >>> from sctrellis.explain import self_weight
    >>> self_weight(torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
    tensor([0.7500])
    """
    a, b = (torch.linalg.vector_norm(v, dim=-1) for v in (own, neighbours))
    return a / (a + b)


def alignment(own: torch.Tensor, neighbours: torch.Tensor) -> torch.Tensor:
    """Return whether two responses point the same way.

    Parameters
    ----------
    own, neighbours : (n_genes, d)
        Responses of :func:`responses`.

    Returns
    -------
    (n_genes,)
        Cosine of the angle between them, row by row; NaN where one is 0.

    Examples
    --------
    >>> import torch
    >>> from sctrellis.explain import alignment
    >>> alignment(torch.tensor([[3.0, 0.0], [1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    tensor([1., 0.])
    """
    a, b = (torch.linalg.vector_norm(v, dim=-1, keepdim=True) for v in (own, neighbours))
    return ((own / a) * (neighbours / b)).sum(dim=-1).clamp(-1.0, 1.0)


def region_radius(hidden: Layer, at: Moves) -> torch.Tensor:
    r"""Return how far both moves can go before a ReLU changes its side.

    Parameters
    ----------
    hidden
        Function of own features and neighbour means: the affine argument of the ReLU, (n_genes, n_hidden).
    at
        Where, and along which lines.

    Returns
    -------
    (n_genes,)
        Smallest :math:`|z_h| / |\dot z_h| \cdot \lVert \delta \rVert` over units :math:`h` and both moves, in either
        direction: a length in feature space, as the step of finite differences is. Infinite where no unit changes,
        NaN where there is no move.

    Examples
    --------
    >>> import torch
    >>> from sctrellis.explain import moves, region_radius
    >>> x, m = torch.tensor([[3.0]]), torch.tensor([[1.0]])
    >>> region_radius(lambda x, m: x + m - 3.5, moves(x, m, torch.tensor([[True]])))
    tensor([0.5000])
    """
    z = hidden(at.x, at.m).detach()
    speed = torch.stack([r.abs() for r in responses(hidden, at)]).amax(dim=0)
    length = torch.linalg.vector_norm(at.own_x, dim=1)
    reach = torch.where(speed > 0, z.abs() / speed, torch.inf).amin(dim=1) * length
    return torch.where(length > 0, reach, torch.nan)
