"""Attention of each gene over all genes, let in by a gate: a fused kernel, and the same in plain operations."""

import math
from typing import Literal, NamedTuple

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from sctrellis.models._edge_features import linear

Kernel = Literal["fused", "math"]
CHUNK = 1_024
"""Genes whose attention to all others is held at once where it is held at all: 1,024 x 20,000 float32 are 82 MB."""


class Attended(NamedTuple):
    """What gated attention returns, each (n_genes, width).

    Attributes
    ----------
    h
        New features.
    gate
        Share of the context in each feature, in (0, 1).
    context
        Weighted mean of the values of all keys.
    """

    h: torch.Tensor
    gate: torch.Tensor
    context: torch.Tensor


class GatedAttention(nn.Module):
    r"""Single-head attention, a gate between a gene's own features and the context, and a residual.

    With :math:`q, k, v` linear in :math:`h` and :math:`a_{ij}` the softmax over keys :math:`j` of
    :math:`q_i \cdot k_j / \sqrt d`, the context is :math:`c_i = \sum_j a_{ij} v_j`, the gate
    :math:`g = \sigma(W_g [h \,\|\, c] + b_g)`, and the new features are
    :math:`\mathrm{LayerNorm}(h + W_o (g \odot c + (1 - g) \odot h) + b_o)`.

    Parameters
    ----------
    width
        Features of a gene.
    noise
        Generator of the initial state.
    """

    def __init__(self, width: int, noise: torch.Generator) -> None:
        super().__init__()
        self.query, self.key, self.value = (linear(width, width, noise) for _ in range(3))
        self.gate = linear(2 * width, width, noise)
        self.out = linear(width, width, noise)
        self.norm = nn.LayerNorm(width)

    def forward(self, h: torch.Tensor, keys: torch.Tensor | None = None, *, kernel: Kernel = "fused") -> Attended:
        """Return the new features, and what they are made of.

        Parameters
        ----------
        h : (n_genes, width)
            Features.
        keys : (n_keys,), int64
            Genes that are attended to; None is all.
        kernel
            ``"fused"``: memory linear in the number of genes; no forward derivatives. ``"math"``: plain softmax over
            rows in chunks, the same numbers to rounding, with derivatives of any kind.
        """
        context = self.context(h, keys, kernel=kernel)
        gate = torch.sigmoid(self.gate(torch.cat([h, context], dim=-1)))
        mixed = gate * context + (1 - gate) * h
        return Attended(self.norm(h + self.out(mixed)), gate, context)

    def context(self, h: torch.Tensor, keys: torch.Tensor | None = None, *, kernel: Kernel = "fused") -> torch.Tensor:
        """Return the weighted means of the values, (n_genes, width); see :meth:`forward`."""
        query, key, value = self._projected(h, keys)
        if kernel == "fused":
            query, key, value = query[None, None], key[None, None], value[None, None]  # batch and heads
            return nn.functional.scaled_dot_product_attention(query, key, value)[0, 0]
        parts = [torch.softmax(_scores(rows, key), dim=-1) @ value for rows in query.split(CHUNK)]
        return torch.cat(parts)

    def entropy(self, h: torch.Tensor, keys: torch.Tensor | None = None) -> torch.Tensor:
        r"""Return the entropy of each gene's attention in nats, (n_genes,), exactly.

        :math:`H_i = \log \sum_j e^{s_{ij}} - \sum_j a_{ij} s_{ij}`, by chunks of rows that are computed again for the
        gradient instead of kept.
        """
        query, key, _ = self._projected(h, keys)
        parts = [
            checkpoint(_entropy, rows, key, use_reentrant=False, preserve_rng_state=False)
            for rows in query.split(CHUNK)
        ]
        return torch.cat(parts)

    def _projected(self, h: torch.Tensor, keys: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        attended = h if keys is None else h[keys]
        return self.query(h), self.key(attended), self.value(attended)


def _scores(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    return query @ key.T / math.sqrt(query.shape[-1])


def _entropy(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    scores = _scores(query, key)
    lse = torch.logsumexp(scores, dim=-1)
    return lse - (torch.exp(scores - lse[:, None]) * scores).sum(-1)
