"""scGREAT: a transformer over the two genes of a pair, after its published description."""

from dataclasses import dataclass

import torch
from torch import nn

from sctrellis.models._edge_features import cross_entropy, dropout, linear, normal
from sctrellis.models._train import ParamGroup

_CHUNK = 16_384
"""Pairs scored at once."""


class Attention(nn.Module):
    """Self-attention and a feed-forward block over a few tokens, each with a residual and a norm before it."""

    def __init__(self, width: int, n_heads: int, rate: float, noise: torch.Generator) -> None:
        super().__init__()
        self.n_heads, self.rate = n_heads, rate
        self.before_attention, self.before_forward = nn.LayerNorm(width), nn.LayerNorm(width)
        self.project, self.merge = linear(width, 3 * width, noise), linear(width, width, noise)
        self.widen, self.narrow = linear(width, 2 * width, noise), linear(2 * width, width, noise)

    def forward(self, x: torch.Tensor, noise: torch.Generator | None) -> torch.Tensor:
        """Return new tokens, shape (n, n_tokens, width) as before."""
        n, n_tokens, width = x.shape
        parts = self.project(self.before_attention(x)).view(n, n_tokens, 3, self.n_heads, -1)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        weight = torch.softmax(query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5, dim=-1)
        mixed = (weight @ value).transpose(1, 2).reshape(n, n_tokens, width)
        x = x + dropout(self.merge(mixed), self.rate, noise)
        return x + dropout(self.narrow(torch.relu(self.widen(self.before_forward(x)))), self.rate, noise)


@dataclass(frozen=True, kw_only=True)
class ScGreatShape:
    """Sizes of the network; the published ratios between them, at an eighth of the width.

    Parameters
    ----------
    width
        Length of a token, a multiple of 3 and of ``n_heads``.
    n_layers, n_heads
        Of the transformer.
    rate, head_rate
        Dropout in the transformer and in the head.
    """

    width: int = 96
    n_layers: int = 2
    n_heads: int = 4
    rate: float = 0.1
    head_rate: float = 0.2


class ScGreat(nn.Module):
    """Tokens of the two genes from expression, embedding and role; a transformer; a head on both tokens.

    Parameters
    ----------
    expression : (n_genes, n_cells)
        Standardised expression of every gene.
    features : (n_genes, d)
        Fixed embedding of every gene; 0 for genes without one.
    missing : (n_genes,), bool
        Genes without an embedding: they share a vector that is learnt.
    noise
        Generator of the initial state.
    lr
        Learning rate.
    shape
        Sizes.
    """

    expression: torch.Tensor
    features: torch.Tensor
    missing: torch.Tensor

    def __init__(
        self,
        expression: torch.Tensor,
        features: torch.Tensor,
        missing: torch.Tensor,
        noise: torch.Generator,
        *,
        lr: float,
        shape: ScGreatShape | None = None,
    ) -> None:
        super().__init__()
        shape = ScGreatShape() if shape is None else shape
        self.lr, self.head_rate = lr, shape.head_rate
        width, third = shape.width, shape.width // 3
        self.register_buffer("expression", expression, persistent=False)
        self.register_buffer("features", features, persistent=False)
        self.register_buffer("missing", missing, persistent=False)
        self.profile = nn.ModuleList([linear(expression.shape[1], 2 * third, noise), linear(2 * third, width, noise)])
        self.text = linear(features.shape[1], width, noise)
        self.no_text = normal(width, noise=noise, std=0.1)
        self.role = normal(2, width, noise=noise, std=0.1)
        self.blocks = nn.ModuleList([Attention(width, shape.n_heads, shape.rate, noise) for _ in range(shape.n_layers)])
        widths = (2 * width, 4 * third, 2 * third, third)
        self.head = nn.ModuleList([linear(a, b, noise) for a, b in zip(widths[:-1], widths[1:], strict=True)])
        self.bend = nn.ModuleList([nn.PReLU() for _ in self.head])
        self.last = linear(third, 1, noise)

    def genes(self, chosen: torch.Tensor) -> torch.Tensor:
        """Return tokens of genes before their role is known, shape (n, width)."""
        x = self.expression[chosen]
        for layer in self.profile:
            x = nn.functional.leaky_relu(layer(x))
        text = torch.where(self.missing[chosen][:, None], self.no_text, self.text(self.features[chosen]))
        return x + text

    def pairs(self, source: torch.Tensor, target: torch.Tensor, noise: torch.Generator | None = None) -> torch.Tensor:
        """Return log-odds of pairs of tokens, shape (n,)."""
        x = torch.stack([source, target], dim=1) + self.role
        for layer in self.blocks:
            x = layer(x, noise)
        x = x.flatten(1)
        wide = x.new_zeros(0)
        for i, (layer, bend) in enumerate(zip(self.head, self.bend, strict=True)):
            x = dropout(bend(layer(x)), self.head_rate, noise)
            wide = x if i == 0 else wide
        return self.last(x + wide.view(len(x), -1, 4).mean(-1)).squeeze(1)

    def losses(self, batch: torch.Tensor, noise: torch.Generator, progress: float) -> dict[str, torch.Tensor]:
        """Return the cross-entropy of a batch of pairs."""
        chosen, place = torch.unique(batch[:, :2], return_inverse=True)
        tokens = self.genes(chosen)
        logits = self.pairs(tokens[place[:, 0]], tokens[place[:, 1]], noise if self.training else None)
        return {"loss": cross_entropy(logits, batch[:, 2])}

    def param_groups(self) -> dict[str, ParamGroup]:
        """Return the only group."""
        return {"all": ParamGroup(params=list(self.parameters()), lr=self.lr, decay="cosine")}

    def after_epoch(self, epoch: int) -> None:
        """Do nothing."""

    @torch.no_grad()
    def score(self, rows: torch.Tensor) -> torch.Tensor:
        """Return log-odds of regulators ``rows`` with every gene, shape (n_rows, n_genes)."""
        n_genes = len(self.expression)
        tokens = self.genes(torch.arange(n_genes, device=rows.device))
        found = torch.empty(len(rows) * n_genes, device=rows.device)
        for start in range(0, len(found), _CHUNK):
            pair = torch.arange(start, min(start + _CHUNK, len(found)), device=rows.device)
            found[start : start + len(pair)] = self.pairs(tokens[rows[pair // n_genes]], tokens[pair % n_genes])
        return found.view(len(rows), n_genes)
