"""GENELink: graph attention over known edges on expression, after its published description."""

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn

from sctrellis.models._edge_features import cross_entropy, dropout, linear, normal
from sctrellis.models._messages import unordered
from sctrellis.models._train import ParamGroup

_SLOPE = 0.2
_DENSE = 64
"""Products of all pairs of genes are cheaper than of those with a message up to so many pairs for each of these."""


def message_graph(
    row: np.ndarray, column: np.ndarray, held_row: np.ndarray, held_column: np.ndarray, *, n_genes: int
) -> np.ndarray:
    """Return the messages that training edges carry, without what would tell of a pair held out.

    Parameters
    ----------
    row, column
        Regulator and target of the training edges.
    held_row, held_column
        Pairs of other folds, edges or not. Messages run both ways, so a training edge from target to regulator of
        such a pair would show as an edge between the two: it is left out as well.
    n_genes
        Number of genes.

    Returns
    -------
    np.ndarray, int64, (2, n_messages)
        Receiver and sender of every message, sorted, each once: both ways along every edge, and each gene to itself.
    """
    codes = unordered(row, column, n_genes)[row != column]
    kept = np.setdiff1d(codes, unordered(held_row, held_column, n_genes))
    one, other, everyone = kept // n_genes, kept % n_genes, np.arange(n_genes)
    messages = np.stack([np.concatenate([one, other, everyone]), np.concatenate([other, one, everyone])])
    return messages[:, np.lexsort((messages[1], messages[0]))]


class _Gather(torch.autograd.Function):
    """Weighted sums of senders' features, head by head: sparse products in place of one copy per message."""

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, h: torch.Tensor, messages: torch.Tensor) -> torch.Tensor:
        """Return sums, (n_genes, n_heads, n_out), for weights (n_messages, n_heads) and features of that shape."""
        ctx.save_for_backward(weight, h, messages)
        return torch.stack([_matrix(weight[:, i], messages, len(h)) @ h[:, i] for i in range(h.shape[1])], dim=1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        """Return the gradients of weights and features."""
        (gradient,) = gradients
        weight, h, messages = ctx.saved_tensors
        n_genes, n_heads = h.shape[:2]
        receiver, sender = messages
        # Messages run both ways: the transpose has the same places in the same order.
        mirrored = weight[torch.argsort(sender * n_genes + receiver)]
        of_h = torch.stack([_matrix(mirrored[:, i], messages, n_genes) @ gradient[:, i] for i in range(n_heads)], dim=1)
        few_genes = n_genes**2 <= _DENSE * len(receiver)
        of_weight = [
            (gradient[:, i] @ h[:, i].T)[receiver, sender]
            if few_genes
            else (gradient[receiver, i] * h[sender, i]).sum(-1)
            for i in range(n_heads)
        ]
        return torch.stack(of_weight, dim=1), of_h, None


def _matrix(values: torch.Tensor, messages: torch.Tensor, n_genes: int) -> torch.Tensor:
    shape = (n_genes, n_genes)
    # One head's column lies in memory with gaps, over which products on a GPU read wrong values without saying so.
    return torch.sparse_coo_tensor(messages, values.contiguous(), shape, is_coalesced=True, check_invariants=False)


class GraphAttention(nn.Module):
    r"""Attention of each gene over its neighbours and itself, in several heads.

    With :math:`h = x W`, head by head, gene :math:`i` gets :math:`\sum_j \alpha_{ij} h_j` over itself and its
    neighbours, :math:`\alpha_{ij}` being the softmax over :math:`j` of
    :math:`\mathrm{LeakyReLU}(c \cdot h_i + d \cdot h_j)`; the sum is scaled to a mean square of 1, and a bias is
    added. The published layer scales to length 1: the same up to a factor that the next layer can undo, but products of
    short vectors start near a saddle point and take many steps to leave it.

    Parameters
    ----------
    n_in, n_out
        Features of a gene before, and of each head after.
    n_heads
        Number of heads.
    noise
        Generator of the initial state.
    """

    def __init__(self, n_in: int, n_out: int, n_heads: int, noise: torch.Generator) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.project = linear(n_in, n_heads * n_out, noise, bias=False)
        std = (2 / (n_out + 1)) ** 0.5
        self.receive = normal(n_heads, n_out, noise=noise, std=std)
        self.send = normal(n_heads, n_out, noise=noise, std=std)
        self.bias = nn.Parameter(torch.zeros(n_heads, n_out))

    def forward(self, x: torch.Tensor, messages: torch.Tensor, masked: torch.Tensor | None = None) -> torch.Tensor:
        """Return the genes' new features.

        Parameters
        ----------
        x : (n_genes, n_in)
            Features.
        messages : (2, n_messages), int64
            Receiver and sender of every message, as :func:`message_graph` returns them.
        masked : (n_messages,), bool
            Messages that are not sent.

        Returns
        -------
        torch.Tensor, (n_genes, n_heads, n_out)
            Features by head.
        """
        receiver, sender = messages
        n_genes = len(x)
        h = self.project(x).view(n_genes, self.n_heads, -1)
        logits = (h * self.receive).sum(-1)[receiver] + (h * self.send).sum(-1)[sender]
        logits = nn.functional.leaky_relu(logits, _SLOPE)
        if masked is not None:
            logits = logits.masked_fill(masked[:, None], -torch.inf)
        index = receiver[:, None].expand_as(logits)
        with torch.no_grad():  # softmax does not depend on what is subtracted
            peak = logits.new_full((n_genes, self.n_heads), -torch.inf).scatter_reduce(0, index, logits, "amax")
        weight = torch.exp(logits - peak[receiver])
        total = weight.new_zeros(n_genes, self.n_heads).index_add(0, receiver, weight)
        summed: torch.Tensor = _Gather.apply(weight / total[receiver], h, messages)
        return nn.functional.normalize(summed, dim=-1) * h.shape[-1] ** 0.5 + self.bias


class GeneLink(nn.Module):
    """Two layers of graph attention, a tower for each role, and the product of the two.

    Parameters
    ----------
    expression : (n_genes, n_cells)
        Standardised expression of every gene.
    messages : (2, n_messages), int64
        What :func:`message_graph` returns for the training edges.
    noise
        Generator of the initial state.
    lr
        Learning rate.
    mask_scored
        Whether the messages between the two genes of a pair are held back while the pair is trained on.
    n_hidden, n_heads
        Features of each head, a multiple of 4, and number of heads.
    rate
        Dropout in the towers.
    """

    expression: torch.Tensor
    messages: torch.Tensor
    codes: torch.Tensor

    def __init__(
        self,
        expression: torch.Tensor,
        messages: torch.Tensor,
        noise: torch.Generator,
        *,
        lr: float,
        mask_scored: bool = True,
        n_hidden: int = 64,
        n_heads: int = 3,
        rate: float = 0.01,
    ) -> None:
        super().__init__()
        self.lr, self.mask_scored, self.rate = lr, mask_scored, rate
        # What is fixed is no part of the state: it is as large as the data, and known.
        self.register_buffer("expression", expression, persistent=False)
        self.register_buffer("messages", messages, persistent=False)
        self.register_buffer("codes", messages[0] * len(expression) + messages[1], persistent=False)
        self.first = GraphAttention(expression.shape[1], n_hidden, n_heads, noise)
        self.second = GraphAttention(n_heads * n_hidden, n_hidden, n_heads, noise)
        widths = (n_hidden, n_hidden // 2, n_hidden // 4)
        steps = list(pairwise(widths))
        self.regulator = nn.ModuleList([linear(*step, noise) for step in steps])
        self.target = nn.ModuleList([linear(*step, noise) for step in steps])
        self.offset = nn.Parameter(torch.zeros(()))

    def masked(self, row: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
        """Return which messages run between the genes of a pair, shape (n_messages,)."""
        n_genes = len(self.expression)
        wanted = torch.cat([row * n_genes + column, column * n_genes + row])
        place = torch.searchsorted(self.codes, wanted).clamp_(max=len(self.codes) - 1)
        hidden = torch.zeros_like(self.codes, dtype=torch.bool)
        hidden[place[self.codes[place] == wanted]] = True
        return hidden

    def towers(
        self, masked: torch.Tensor | None = None, noise: torch.Generator | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return vectors of every gene as a regulator and as a target, each (n_genes, d)."""
        hidden = nn.functional.elu(self.first(self.expression, self.messages, masked).flatten(1))
        genes = self.second(hidden, self.messages, masked).mean(1)

        def climb(layers: nn.ModuleList) -> torch.Tensor:
            x = genes
            for layer in layers:
                x = dropout(nn.functional.leaky_relu(layer(x)), self.rate, noise)
            return x

        return climb(self.regulator), climb(self.target)

    def losses(self, batch: torch.Tensor, noise: torch.Generator, progress: float) -> dict[str, torch.Tensor]:
        """Return the cross-entropy of a batch of pairs."""
        row, column, label = batch.unbind(1)
        masked = self.masked(row, column) if self.mask_scored else None
        source, target = self.towers(masked, noise if self.training else None)
        return {"loss": cross_entropy((source[row] * target[column]).sum(1) + self.offset, label)}

    def param_groups(self) -> dict[str, ParamGroup]:
        """Return the only group."""
        return {"all": ParamGroup(params=list(self.parameters()), lr=self.lr, decay="cosine")}

    def after_epoch(self, epoch: int) -> None:
        """Do nothing."""

    @torch.no_grad()
    def score(self, rows: torch.Tensor) -> torch.Tensor:
        """Return log-odds of regulators ``rows`` with every gene, shape (n_rows, n_genes)."""
        source, target = self.towers()
        return source[rows] @ target.T + self.offset
