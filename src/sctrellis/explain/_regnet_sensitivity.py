"""Own and neighbours' share of what RegNet makes of each gene: after its first layer, or in its latent vector."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import numpy as np
import torch
from torch import nn

from sctrellis.explain._sensitivity import (
    Moves,
    SensitivityMethod,
    alignment,
    moves,
    region_radius,
    responses,
    self_weight,
)
from sctrellis.models._messages import MessageGraph, Neighbours
from sctrellis.models._regnet import RegNet, SageLayer

Depth = Literal["layer", "stack_local", "stack_joint"]
DEPTHS: tuple[Depth, ...] = ("layer", "stack_local", "stack_joint")
_NUMBERS = 2**23
"""Numbers held at once for a chunk of rows or edges: 67 MB of float64."""
_JOINT_WAY = 1e-6
"""Share of the way that finite differences through everything go: no region is known there, and float64 allows it."""


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """How the output of a model answers to each gene and to its neighbours; arrays of shape (n_genes,).

    Attributes
    ----------
    self_weight
        Own share of the responses' lengths, in [0, 1]; NaN where a gene has no neighbours or nothing answers.
    alignment
        Cosine of the angle between the two responses; NaN where one of them is 0.
    region_radius
        Distance to the next kink of the first layer; see :func:`~sctrellis.explain.region_radius`.
    attention_share
        With ``depth="stack_local"`` and up to two layers over the graph: share of the gene's own response that comes
        through attention. Else None.
    """

    self_weight: np.ndarray
    alignment: np.ndarray
    region_radius: np.ndarray
    attention_share: np.ndarray | None = None


def regnet_sensitivity(
    model: RegNet,
    graph: MessageGraph | None = None,
    *,
    depth: Depth = "layer",
    method: SensitivityMethod = "jvp",
    step: float | None = None,
) -> Sensitivity:
    r"""Return how a RegNet answers to each gene's own features and to its neighbours' mean.

    Parameters
    ----------
    model
        The model, in float64 where its device has it.
    graph
        Graph of the messages; None is the model's own.
    depth
        ``"layer"``
            The first layer, before its outer ReLU: there the two are mixed. Piecewise linear.
        ``"stack_local"``
            The latent mean of the gene, where only this gene's output of the first layer is moved.
        ``"stack_joint"``
            The latent mean of the gene, where the outputs of all genes are moved at once: with what they do to each
            other through later layers and attention.
    method
        See :func:`responses`; ``"stack_local"`` takes ``"jvp"`` only.
    step
        Length of the step of finite differences. None is half the region radius of each gene, or with
        ``"stack_joint"`` a millionth of the way; a number is with ``"stack_joint"`` the step of the median gene.

    Returns
    -------
    Sensitivity
        An array over the genes for each quantity.

    Raises
    ------
    ValueError
        If `depth` and `method` do not go together.

    Examples
    --------
    >>> import numpy as np, sctrellis as tr
    >>> from sctrellis.explain import regnet_sensitivity
    >>> rng = np.random.default_rng(0)
    >>> row, column = np.repeat(np.arange(3), 9), np.tile(np.arange(3, 12), 3)
    >>> pairs = tr.models.LabelledPairs(row, column, rng.random(27) < 0.3)
    >>> config = tr.models.RegNetConfig(max_epochs=2, hidden=8, latent=4)
    >>> expression = rng.normal(size=(12, 40)).astype(np.float32)
    >>> model = tr.models.fit_regnet(expression, pairs, np.arange(3), config=config).model
    >>> regnet_sensitivity(model).self_weight.shape
    (12,)
    """
    graph = graph or model.graph
    x = model.features
    present = torch.stack([n.count > 0 for n in graph.neighbours], dim=1)
    at = moves(x, graph.mean(x), present)
    first = cast("SageLayer", model.sage[0])
    radius = region_radius(lambda x, m: first.hidden(x, m, graph.count, model.noise_variance), at)
    share = None
    if depth == "layer":
        own, neighbours = responses(
            lambda x, m: model.first_layer(x, m, graph, stage="pre"), at, method, way=_ways(at, radius, step)
        )
    elif depth == "stack_joint":
        own, neighbours = responses(
            lambda x, m: model.rest(model.first_layer(x, m, graph), graph, kernel="math"),
            at,
            method,
            way=_JOINT_WAY if step is None else step / _usual_length(at),
        )
    else:
        if method != "jvp":
            msg = f"`depth='stack_local'` moves one gene at a time and takes `method='jvp'` only, found {method!r}."
            raise ValueError(msg)
        tangents = responses(lambda x, m: model.first_layer(x, m, graph), at)
        with torch.no_grad():
            h = model.first_layer(at.x, at.m, graph)
            if len(model.sage) > 2:
                own, neighbours = local_responses_by_jvp(model, h, torch.stack(tangents), graph)
            else:
                found = local_responses(model, h, torch.stack(tangents), graph)
                own, neighbours = found.latent
                share = _numpy(found.attention_share[0])
    # A gene without a move is undefined, not 0 / 0 by the luck of rounding.
    moved = _length(at) > 0
    own, neighbours = (torch.where(moved[:, None], r, 0.0) for r in (own, neighbours))
    return Sensitivity(
        self_weight=_numpy(self_weight(own, neighbours)),
        alignment=_numpy(alignment(own, neighbours)),
        region_radius=_numpy(radius),
        attention_share=share,
    )


def _length(at: Moves) -> torch.Tensor:
    return torch.linalg.vector_norm(at.own_x, dim=1)


def _usual_length(at: Moves) -> float:
    length = _length(at)
    return float(length[length > 0].median()) if (length > 0).any() else 1.0


def _ways(at: Moves, radius: torch.Tensor, step: float | None) -> torch.Tensor:
    """Return the share of the way to go for each gene; 1 for genes that stay or never meet a kink."""
    way = (radius / 2 if step is None else step) / _length(at)
    return torch.where(torch.isfinite(way) & (way > 0), way, 1.0)


def _numpy(values: torch.Tensor) -> np.ndarray:
    return values.cpu().numpy()


class Local(NamedTuple):
    """Responses of each gene's own latent mean; leading dimension one per tangent.

    Attributes
    ----------
    latent : (n_tangents, n_genes, latent)
        Responses.
    attention_share : (n_tangents, n_genes)
        Length of what comes through the context, as a share of its sum with what passes by the attention.
    """

    latent: torch.Tensor
    attention_share: torch.Tensor


def local_responses(model: RegNet, h: torch.Tensor, tangents: torch.Tensor, graph: MessageGraph | None = None) -> Local:
    r"""Return how the latent mean of each gene answers where only its own first-layer features are moved.

    Parameters
    ----------
    model
        The model.
    h : (n_genes, hidden)
        Output of its first layer.
    tangents : (n_tangents, n_genes, hidden)
        Moves of that output.
    graph
        Graph of the messages; None is the model's own.

    Raises
    ------
    ValueError
        If the model has more than two layers over the graph: use :func:`local_responses_by_jvp`.

    Notes
    -----
    The diagonal blocks of the Jacobian times the tangents, in closed form. A gene's move reaches its latent vector by
    itself and, through the second layer, by every gene that hears it and that it attends to:

    .. math::

        dh_i &= J_i (W_s t_i + W_n M_{ii} t_i), \qquad dh_{j \leftarrow i} = J_j W_n M_{ji} t_i \\
        dc_i &= \sum_j \beta_{ij} (v_j - c_i)
            + \sum_j a_{ij} \Big[ \frac{q_i \cdot dk_{j \leftarrow i}}{\sqrt d} (v_j - c_i) + dv_{j \leftarrow i} \Big],
        \qquad \beta_{ij} = a_{ij} \frac{k_j \cdot dq_i}{\sqrt d}

    with :math:`M` the means over neighbours, :math:`J_j` the derivative of the second layer behind its first product
    (ReLU, product, ReLU, LayerNorm at row :math:`j`), and the second sum over :math:`i` itself and the genes that hear
    it. Gate, residual and LayerNorm follow row by row. Cost: some :math:`8 n^2 d` for the attention, in chunks of rows,
    and :math:`2 d^2` for each message and tangent.
    """
    graph = graph or model.graph
    if len(model.sage) > 2:
        msg = f"The closed form holds for at most 2 layers over the graph, found {len(model.sage)}."
        raise ValueError(msg)
    if len(model.sage) == 1:
        return _through_attention(model, h, tangents, ())
    layer = _Linearised(cast("SageLayer", model.sage[1]), h, graph)
    z = layer.own_scale * (tangents @ layer.own_matrix.T)
    heard = []
    for neighbours, matrix in zip(graph.neighbours, layer.mean_matrices, strict=True):
        through = tangents @ matrix.T
        # With no neighbour, a gene's own row stands in for the mean; an edge to itself is part of one.
        itself = (neighbours.count == 0).to(h.dtype)
        loops = neighbours.receiver[neighbours.receiver == neighbours.sender]
        itself = itself.index_add(0, loops, 1 / neighbours.count[loops].to(h.dtype))
        z = z + layer.mean_scale * itself[:, None] * through
        heard.append(_Heard(neighbours, through, layer))
    everyone = torch.arange(len(h), device=h.device)
    return _through_attention(model, layer.out, layer.behind(z, everyone), heard)


class _Linearised:
    """The second layer over the graph, and its derivatives row by row."""

    def __init__(self, layer: SageLayer, h: torch.Tensor, graph: MessageGraph) -> None:
        hidden = layer.hidden(h, graph.mean(h), graph.count)
        pre = layer.second(torch.relu(hidden))
        after = torch.relu(pre)
        self.out = layer.norm(after)
        self._hidden_on, self._pre_on, self._second = hidden > 0, pre > 0, layer.second.weight
        self._norm = _LinearisedNorm(layer.norm, after)
        width = h.shape[1]
        matrix = layer.first.weight
        if layer.aggregator == "mlp":
            self.own_matrix, *self.mean_matrices = matrix.split(width, dim=1)
            self.own_scale = self.mean_scale = h.new_ones(len(h), 1)
        else:
            self.own_matrix, self.mean_matrices = matrix, [matrix]
            self.own_scale = layer.own_weight(graph.count)[:, None]
            self.mean_scale = 1 - self.own_scale

    def behind(self, dz: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return what a change of the hidden argument at ``rows`` does to the output, (..., n_rows, hidden)."""
        pre = (dz * self._hidden_on[rows]) @ self._second.T
        return self._norm(pre * self._pre_on[rows], rows)


class _LinearisedNorm:
    """The derivative of a LayerNorm row by row."""

    def __init__(self, norm: nn.LayerNorm, x: torch.Tensor) -> None:
        centred = x - x.mean(dim=-1, keepdim=True)
        self._scale = torch.rsqrt(centred.square().mean(dim=-1, keepdim=True) + norm.eps)
        self._unit, self._weight = centred * self._scale, norm.weight

    def __call__(self, dx: torch.Tensor, rows: torch.Tensor | slice = slice(None)) -> torch.Tensor:
        unit = self._unit[rows]
        along = (unit * dx).mean(dim=-1, keepdim=True)
        return self._weight * self._scale[rows] * (dx - dx.mean(dim=-1, keepdim=True) - unit * along)


class _Heard(NamedTuple):
    """Messages of one kind in the second layer: who hears each gene, and what a gene's move sends, before masks."""

    neighbours: Neighbours
    through: torch.Tensor
    layer: _Linearised

    def chunks(self, is_key: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Yield sender and receiver of messages to keys, and what each move makes of the receiver's features."""
        sent, got, count = self.neighbours.sender, self.neighbours.receiver, self.neighbours.count
        kept = is_key[got] & (sent != got)
        sent, got = sent[kept], got[kept]
        size = max(1, _NUMBERS // (4 * self.through[:, 0].numel()))
        for sender, receiver in zip(sent.split(size), got.split(size), strict=True):
            share = self.layer.mean_scale[receiver] / count[receiver, None]
            yield sender, receiver, self.layer.behind(share * self.through[:, sender], receiver)


def _through_attention(model: RegNet, h: torch.Tensor, dh: torch.Tensor, heard: Sequence[_Heard]) -> Local:
    """Carry moves of each gene's features, and of those that hear it, through attention, gate and latent mean."""
    attention, scale = model.attention, h.shape[1] ** -0.5
    attended = torch.arange(len(h), device=h.device) if model.keys is None else model.keys
    place = torch.full((len(h),), -1, device=h.device).index_put((attended,), torch.arange(len(attended)).to(h.device))
    is_key = place >= 0
    query, key, value = attention.query(h), attention.key(h[attended]), attention.value(h[attended])
    dquery = dh @ attention.query.weight.T

    # The gene's own query, over all keys: the only part that takes all pairs, in chunks of rows.
    context, dcontext, lse = torch.empty_like(h), torch.empty_like(dh), h.new_empty(len(h))
    size = max(1, _NUMBERS // ((2 + 2 * len(dh)) * len(attended)))
    for start in range(0, len(h), size):
        rows = slice(start, start + size)
        scores = scale * (query[rows] @ key.T)
        lse[rows] = torch.logsumexp(scores, dim=1)
        weights = torch.exp(scores - lse[rows, None])
        context[rows] = weights @ value
        change = weights * (scale * (dquery[:, rows] @ key.T))
        dcontext[:, rows] = change @ value - change.sum(dim=-1, keepdim=True) * context[rows]

    # What moves as key and value: the gene itself, and those that hear it.
    towards = query @ attention.key.weight  # q . dk = (W_k' q) . dh
    moved = torch.zeros_like(dh)  # sum of weights times dh; values are linear in it

    def add(sender: torch.Tensor, receiver: torch.Tensor, change: torch.Tensor) -> None:
        at = place[receiver]
        weights = torch.exp(scale * (query[sender] * key[at]).sum(dim=-1) - lse[sender])[:, None]
        dscore = scale * (towards[sender] * change).sum(dim=-1, keepdim=True)
        dcontext.index_add_(1, sender, weights * dscore * (value[at] - context[sender]))
        moved.index_add_(1, sender, weights * change)

    add(attended, attended, dh[:, attended])
    for messages in heard:
        for sender, receiver, change in messages.chunks(is_key):
            add(sender, receiver, change)
    dcontext += moved @ attention.value.weight.T

    gate = torch.sigmoid(attention.gate(torch.cat([h, context], dim=-1)))
    dgate = gate * (1 - gate) * (torch.cat([dh, dcontext], dim=-1) @ attention.gate.weight.T)
    let_in, passed = gate * dcontext, (1 - gate) * dh
    dmixed = dgate * (context - h) + let_in + passed
    norm = _LinearisedNorm(attention.norm, h + attention.out(gate * context + (1 - gate) * h))
    latent = norm(dh + dmixed @ attention.out.weight.T) @ model.mean.weight.T
    return Local(latent, self_weight(let_in, passed))


def local_responses_by_jvp(
    model: RegNet, h: torch.Tensor, tangents: torch.Tensor, graph: MessageGraph | None = None
) -> torch.Tensor:
    """Return the latent responses of :func:`local_responses` by one Jacobian-vector product per gene and tangent.

    For any number of layers; costs as much as some ``3 n_tangents n_genes`` runs of the model.
    """
    graph = graph or model.graph
    every = torch.arange(len(h), device=h.device)

    def one(gene: torch.Tensor, move: torch.Tensor) -> torch.Tensor:
        alone = (every == gene).to(h.dtype)
        change = torch.func.jvp(lambda h: model.rest(h, graph, kernel="math"), (h,), (alone[:, None] * move,))[1]
        return alone @ change

    n_keys = len(h) if model.keys is None else len(model.keys)
    size = max(1, _NUMBERS // (4 * len(h) * max(n_keys, h.shape[1])))
    mapped = torch.func.vmap(one, chunk_size=size)
    return torch.stack([mapped(every, t).detach() for t in tangents])
