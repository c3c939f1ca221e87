"""RegNet: neighbours, gated attention, a latent vector for each gene, and a head that scores pairs of them."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import nn

from sctrellis.models._edge_features import dropout, linear
from sctrellis.models._edge_head import EdgeHead
from sctrellis.models._gated_attention import GatedAttention, Kernel
from sctrellis.models._messages import Direction, MessageGraph
from sctrellis.models._regnet_data import NegMode
from sctrellis.models._seed import generator

Aggregator = Literal["mlp", "eb"]
Stage = Literal["pre", "relu", "out"]
_LOGVAR = (-10.0, 5.0)
"""Log-variances are kept in here, so that an exponential cannot overflow."""


@dataclass(frozen=True, kw_only=True)
class RegNetConfig:
    """Shape of a :class:`RegNet`, and how :func:`fit_regnet` trains it.

    Parameters
    ----------
    direction
        Whose mean a gene hears: that of its ``"regulators"``, of its ``"targets"``, or ``"both"``.
    aggregator
        ``"mlp"``: a hidden layer on own features and neighbour mean side by side. ``"eb"``: a hidden layer on their
        weighted mean, with the weight that the posterior mean of a normal model has.
    n_layers
        Layers over the graph.
    hidden, latent
        Width of the layers, and length of a latent vector.
    attn_keys
        Genes that are attended to: ``"all"``, or ``"regulators"``.
    dropout
        Share of features dropped after each layer over the graph while training.
    n_features
        Principal axes of the cells that the features are coordinates on, at most.
    asked_frac
        Share of the training edges that a step asks about; the others are its graph.
    n_neg
        Other pairs asked about, for each edge that is.
    neg_mode
        ``"uniform"``: drawn from all other training pairs; ``"per_regulator"``: as many of each regulator as suit its
        edges, so that how many targets a regulator has is not learnt.
    reversed_pairs
        ``"learn"``: learn from every training pair; ``"hide"``: not from those whose reverse is held out.
    train_messages
        Whether training edges carry messages; without, those of the prior only.
    beta, free_bits
        Weight of the divergence from a standard normal at the end of its warm-up, and nats of each latent dimension
        that are free of it.
    reconstruction
        Weight of the squared error of the features, as decoded.
    entropy
        Weight of the entropy of the attention, as a share of its largest value; 0 leaves it out.
    max_epochs
        Epochs at most; one has 10 steps.
    lr
        Learning rate.
    patience
        Epochs without a larger average precision on the validation pairs before training stops.
    """

    direction: Direction = "regulators"
    aggregator: Aggregator = "mlp"
    n_layers: int = 2
    hidden: int = 128
    latent: int = 64
    attn_keys: Literal["all", "regulators"] = "all"
    dropout: float = 0.2
    n_features: int = 128
    asked_frac: float = 0.3
    n_neg: int = 5
    neg_mode: NegMode = "uniform"
    reversed_pairs: Literal["learn", "hide"] = "learn"
    train_messages: bool = True
    beta: float = 0.01
    free_bits: float = 0.02
    reconstruction: float = 0.1
    entropy: float = 0.0
    max_epochs: int = 50
    lr: float = 1e-3
    patience: int | None = 8


class Encoding(NamedTuple):
    """What :meth:`RegNet.encode` returns.

    Attributes
    ----------
    mu, logvar : (n_genes, latent)
        Mean and log-variance of the latent vectors.
    gate : (n_genes, hidden)
        Share of the attention's context in each feature.
    attended : (n_genes, hidden)
        Features that enter the attention.
    """

    mu: torch.Tensor
    logvar: torch.Tensor
    gate: torch.Tensor
    attended: torch.Tensor


class SageLayer(nn.Module):
    r"""A layer over the graph: own features ``x`` and neighbour mean ``m`` in, new features out, row by row.

    .. math::

        \text{pre} &= W_2\, \mathrm{ReLU}(W_1 [x \,\|\, m] + b_1) + b_2 \\
        \text{relu} &= \mathrm{ReLU}(\text{pre}) \\
        \text{out} &= \mathrm{Dropout}(\mathrm{LayerNorm}(\text{relu}))

    ``pre`` is piecewise linear in ``x`` and ``m``. With ``aggregator="eb"`` the first line reads
    :math:`W_2\, \mathrm{ReLU}(W_1 u + b_1) + b_2` with :math:`u = w x + (1 - w) m`; see :meth:`own_weight`.

    Parameters
    ----------
    n_in, n_out
        Features of a gene before and after.
    n_means
        Neighbour means side by side in ``m``: 1, or 2 for regulators and targets. ``"eb"`` takes 1.
    aggregator
        ``"mlp"`` or ``"eb"``.
    rate
        Dropout.
    noise
        Generator of the initial state.
    """

    def __init__(
        self, n_in: int, n_out: int, n_means: int, aggregator: Aggregator, rate: float, noise: torch.Generator
    ) -> None:
        super().__init__()
        self.aggregator, self.rate = aggregator, rate
        self.first = linear((1 + n_means) * n_in if aggregator == "mlp" else n_in, n_out, noise)
        self.second = linear(n_out, n_out, noise)
        self.norm = nn.LayerNorm(n_out)
        if aggregator == "eb":
            self.prior, self.prior_by_count, self.noise = (nn.Parameter(torch.zeros(())) for _ in range(3))

    def own_weight(self, count: torch.Tensor, noise_variance: torch.Tensor | None = None) -> torch.Tensor:
        r"""Return the weight :math:`w` of own features under ``"eb"``, (n_genes,).

        :math:`w = \tau^2 / (\tau^2 + \sigma^2)` with :math:`\tau^2 = \mathrm{softplus}(a) + \mathrm{softplus}(b) / n`
        for :math:`n` neighbours, the variance of a gene about its neighbours' mean, and
        :math:`\sigma^2 = \mathrm{softplus}(c)\, v`, that of its measurement.

        Parameters
        ----------
        count : (n_genes,)
            Number of neighbours. A gene without any, whose mean is its own row, is counted as having one.
        noise_variance : (n_genes,)
            Relative variance :math:`v` of the measurement; None is 1.
        """
        softplus = nn.functional.softplus
        tau2 = softplus(self.prior) + softplus(self.prior_by_count) / count.clamp(min=1).to(self.prior.dtype)
        sigma2 = softplus(self.noise) * (1.0 if noise_variance is None else noise_variance)
        return tau2 / (tau2 + sigma2)

    def hidden(
        self, x: torch.Tensor, m: torch.Tensor, count: torch.Tensor, noise_variance: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return what the first ReLU is applied to, (n_genes, n_out), affine in ``x`` and ``m``."""
        if self.aggregator == "mlp":
            return self.first(torch.cat([x, m], dim=-1))
        own = self.own_weight(count, noise_variance)[:, None]
        return self.first(own * x + (1 - own) * m)

    def forward(
        self,
        x: torch.Tensor,
        m: torch.Tensor,
        count: torch.Tensor,
        *,
        noise_variance: torch.Tensor | None = None,
        noise: torch.Generator | None = None,
        stage: Stage = "out",
    ) -> torch.Tensor:
        """Return new features, (n_genes, n_out); row ``i`` depends on row ``i`` of the arguments only.

        Parameters
        ----------
        x : (n_genes, n_in)
            Own features.
        m : (n_genes, n_means * n_in)
            Means over neighbours.
        count, noise_variance : (n_genes,)
            See :meth:`own_weight`; ``"mlp"`` does not read them.
        noise
            Generator of the dropout; None drops nothing.
        stage
            How far to go: ``"pre"``, ``"relu"`` or ``"out"``.
        """
        h = self.second(torch.relu(self.hidden(x, m, count, noise_variance)))
        if stage == "pre":
            return h
        h = torch.relu(h)
        return h if stage == "relu" else dropout(self.norm(h), self.rate, noise)


class RegNet(nn.Module):
    """Layers over the graph, gated attention, a latent normal for each gene, and a head on pairs of latent vectors.

    What is computed is a function of features and graph; both can be replaced call by call, and default to what the
    module was made with. Without a ``noise`` generator everything is deterministic, in training mode too.

    Parameters
    ----------
    features : (n_genes, n_features)
        Features of the genes.
    regulator, target : (n_edges,), int64
        Edges along which messages run.
    noise
        Generator of the initial state.
    config
        Shape of the model.
    keys : (n_keys,), int64
        Genes that are attended to with ``attn_keys="regulators"``.
    noise_variance : (n_genes,)
        Relative variance of the measurement of each gene, for the first layer with ``aggregator="eb"``; None is 1.
    """

    features: torch.Tensor
    regulator: torch.Tensor
    target: torch.Tensor
    keys: torch.Tensor | None
    noise_variance: torch.Tensor | None

    def __init__(
        self,
        features: torch.Tensor,
        regulator: torch.Tensor,
        target: torch.Tensor,
        noise: torch.Generator,
        config: RegNetConfig,
        *,
        keys: torch.Tensor | None = None,
        noise_variance: torch.Tensor | None = None,
    ) -> None:
        super().__init__()
        if config.attn_keys == "regulators" and keys is None:
            msg = "`keys` is None, and `attn_keys='regulators'` needs the positions of the regulators."
            raise ValueError(msg)
        self.config = config
        # What is fixed is no part of the state: it is as large as the data, and known.
        self.register_buffer("features", features, persistent=False)
        self.register_buffer("regulator", regulator, persistent=False)
        self.register_buffer("target", target, persistent=False)
        self.register_buffer("keys", keys if config.attn_keys == "regulators" else None, persistent=False)
        self.register_buffer("noise_variance", noise_variance, persistent=False)
        n_features, hidden = features.shape[1], config.hidden
        n_means = 2 if config.direction == "both" and config.aggregator == "mlp" else 1
        widths = [n_features] + [hidden] * config.n_layers
        self.sage = nn.ModuleList(
            SageLayer(n_in, hidden, n_means, config.aggregator, config.dropout, noise) for n_in in widths[:-1]
        )
        self.attention = GatedAttention(hidden, noise)
        self.mean = linear(hidden, config.latent, noise)
        self.logvar = linear(hidden, config.latent, noise)
        self.decoder = nn.Sequential(linear(config.latent, hidden, noise), nn.ReLU(), linear(hidden, n_features, noise))
        self.head = EdgeHead(config.latent, hidden, noise)

    def graph_of(self, regulator: torch.Tensor, target: torch.Tensor) -> MessageGraph:
        """Return the graph of some edges, with messages as this model sends them."""
        config = self.config
        merged = config.aggregator == "eb"
        return MessageGraph(regulator, target, len(self.features), config.direction, merged=merged)

    @property
    def graph(self) -> MessageGraph:
        """The graph of the edges that the model was made with."""
        return self.graph_of(self.regulator, self.target)

    def neighbour_mean(self, h: torch.Tensor, graph: MessageGraph | None = None) -> torch.Tensor:
        """Return the means of ``h`` over neighbours, (n_genes, n_means * d); a gene without keeps its own row."""
        return (graph or self.graph).mean(h)

    def first_layer(
        self,
        x: torch.Tensor,
        m: torch.Tensor,
        graph: MessageGraph | None = None,
        *,
        noise: torch.Generator | None = None,
        stage: Stage = "out",
    ) -> torch.Tensor:
        """Return the first layer's features, (n_genes, hidden), from own features and neighbour means.

        Parameters
        ----------
        x : (n_genes, n_features)
            Own features.
        m : (n_genes, n_means * n_features)
            Means over neighbours, as :meth:`neighbour_mean` returns them, or any other rows.
        graph
            Graph that tells how many neighbours there are, which only ``"eb"`` reads.
        noise
            Generator of the dropout; None drops nothing.
        stage
            ``"pre"``: piecewise linear in ``x`` and ``m``; ``"relu"``: after the ReLU; ``"out"``: after LayerNorm and
            dropout as well, which is what :meth:`rest` takes.
        """
        count = (graph or self.graph).count
        return self.sage[0](x, m, count, noise_variance=self.noise_variance, noise=noise, stage=stage)

    def after_first(
        self,
        h: torch.Tensor,
        graph: MessageGraph | None = None,
        *,
        noise: torch.Generator | None = None,
        kernel: Kernel = "fused",
    ) -> Encoding:
        """Return the latent vectors, and the gate, from the first layer's features, (n_genes, hidden)."""
        graph = graph or self.graph
        for layer in self.sage[1:]:
            h = layer(h, graph.mean(h), graph.count, noise=noise)
        attended = self.attention(h, self.keys, kernel=kernel)
        logvar = self.logvar(attended.h).clamp(*_LOGVAR)
        return Encoding(self.mean(attended.h), logvar, attended.gate, h)

    def rest(self, h: torch.Tensor, graph: MessageGraph | None = None, *, kernel: Kernel = "fused") -> torch.Tensor:
        """Return the latent means, (n_genes, latent), from the first layer's features; all that follows that layer.

        With ``kernel="math"`` every operation has forward and backward derivatives and can be mapped.
        """
        return self.after_first(h, graph, kernel=kernel).mu

    def encode(
        self,
        x: torch.Tensor | None = None,
        graph: MessageGraph | None = None,
        *,
        noise: torch.Generator | None = None,
        kernel: Kernel = "fused",
    ) -> Encoding:
        """Return the latent vectors of all genes: :meth:`after_first` of :meth:`first_layer`.

        Parameters
        ----------
        x : (n_genes, n_features)
            Features; None is the model's own.
        graph
            Graph; None is the model's own.
        noise
            Generator of the dropout; None drops nothing.
        kernel
            Kernel of the attention; see :meth:`GatedAttention.forward`.
        """
        x, graph = self.features if x is None else x, graph or self.graph
        h = self.first_layer(x, graph.mean(x), graph, noise=noise)
        return self.after_first(h, graph, noise=noise, kernel=kernel)

    def entropy(self, encoding: Encoding) -> torch.Tensor:
        """Return the entropy of each gene's attention as a share of its largest value, (n_genes,)."""
        n_keys = len(self.features) if self.keys is None else len(self.keys)
        return self.attention.entropy(encoding.attended, self.keys) / math.log(max(n_keys, 2))

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays that :func:`load_regnet` rebuilds the model from: state, features and graph."""
        fixed = {"features": self.features, "regulator": self.regulator, "target": self.target}
        optional = {"keys": self.keys, "noise_variance": self.noise_variance}
        fixed |= {name: value for name, value in optional.items() if value is not None}
        parts = {f"state.{name}": value for name, value in self.state_dict().items()} | fixed
        return {name: value.detach().cpu().numpy() for name, value in parts.items()}


def load_regnet(weights: Mapping[str, np.ndarray], config: RegNetConfig | Mapping[str, Any]) -> RegNet:
    """Return a fitted model with its features and its graph.

    Parameters
    ----------
    weights
        Arrays of the fit: ``weights`` of its record.
    config
        Shape of the model: ``config`` of its record.

    Returns
    -------
    RegNet
        The model, on the CPU, in evaluation mode.

    Raises
    ------
    ValueError
        If the arrays are not those of such a model.

    Examples
    --------
    >>> import sctrellis as tr
    >>> adata = tr.datasets.toy()
    >>> tr.pp.split_edges(adata, "network")
    >>> tr.tl.regnet(adata, network="network", max_epochs=1)
    >>> record = tr.get.record(adata, "regnet")
    >>> model = tr.models.load_regnet(record["weights"], record["config"])
    >>> model.encode().mu.shape
    torch.Size([30, 64])
    """
    if not isinstance(config, RegNetConfig):
        known = {field.name for field in dataclasses.fields(RegNetConfig)}
        config = RegNetConfig(**{name: value for name, value in config.items() if name in known})
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in weights.items()}
    try:
        model = RegNet(
            tensors["features"],
            tensors["regulator"].long(),
            tensors["target"].long(),
            generator("cpu", 0),
            config,
            keys=tensors["keys"].long() if "keys" in tensors else None,
            noise_variance=tensors.get("noise_variance"),
        )
        state = {name.removeprefix("state."): v for name, v in tensors.items() if name.startswith("state.")}
        model.load_state_dict(state)
    except (KeyError, RuntimeError) as error:
        msg = f"`weights` are not those of a RegNet of this `config`: {' '.join(str(error).split())}"
        raise ValueError(msg) from error
    return model.eval()
