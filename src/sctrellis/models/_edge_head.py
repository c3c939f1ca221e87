"""Log-odds of an edge from the latent vectors of both genes, and how sure they are."""

import math
from collections.abc import Iterator

import torch
from torch import nn

from sctrellis.models._edge_features import linear

_CHUNK = 2**24
"""Numbers held at once for pairs: 2**24 float32 are 67 MB."""


class EdgeHead(nn.Module):
    r"""One hidden layer on the latent vectors of regulator and target, in that order.

    :math:`\ell_{ij} = w_2 \cdot \mathrm{ReLU}(W_a \mu_i + W_b \mu_j + b_1) + b_2`. The products with :math:`W_a` and
    :math:`W_b` are taken once for each gene, not once for each pair.

    Parameters
    ----------
    latent, hidden
        Length of a latent vector, and width of the hidden layer.
    noise
        Generator of the initial state.
    """

    def __init__(self, latent: int, hidden: int, noise: torch.Generator) -> None:
        super().__init__()
        self.regulator = linear(latent, hidden, noise, bias=False)
        self.target = linear(latent, hidden, noise)
        self.out = linear(hidden, 1, noise)

    def forward(self, mu: torch.Tensor, row: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
        """Return the log-odds of pairs, (n_pairs,), from latent vectors (n_genes, latent)."""
        hidden = torch.relu(self.regulator(mu)[row] + self.target(mu)[column])
        return self.out(hidden).squeeze(-1)

    @torch.no_grad()
    def matrix(self, mu: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return the log-odds of regulators ``rows`` with every gene, (n_rows, n_genes)."""
        return torch.cat([self.out(torch.relu(block)).squeeze(-1) for block, _ in self._blocks(mu, rows)])

    @torch.no_grad()
    def variance(self, mu: torch.Tensor, variance: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        r"""Return the variance of the log-odds of regulators ``rows`` with every gene, (n_rows, n_genes).

        To first order in the latent noise (the delta method): with :math:`p` telling which hidden units are on,
        :math:`q_i = W_a^\top (w_2 \odot p)` and :math:`q_j = W_b^\top (w_2 \odot p)`, it is
        :math:`\sum_k q_{ik}^2 \sigma_{ik}^2 + \sum_k q_{jk}^2 \sigma_{jk}^2`. Good where the noise seldom switches a
        unit, that is for small :math:`\sigma`.

        Parameters
        ----------
        mu, variance : (n_genes, latent)
            Mean and variance of the latent vectors.
        rows : (n_rows,), int64
            Positions of the regulators.
        """
        of_regulator, of_target = (self.out.weight.T * part.weight for part in (self.regulator, self.target))
        parts = []
        for block, chosen in self._blocks(mu, rows):
            on = (block > 0).to(mu.dtype)
            from_regulator = ((on @ of_regulator).square() * variance[chosen][:, None]).sum(-1)
            parts.append(from_regulator + ((on @ of_target).square() * variance).sum(-1))
        return torch.cat(parts)

    def _blocks(self, mu: torch.Tensor, rows: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield what enters the hidden layer's ReLU, (n, n_genes, hidden), and the ``n`` regulators."""
        regulator, target = self.regulator(mu), self.target(mu)
        for chosen in rows.split(max(1, _CHUNK // target.numel())):
            yield regulator[chosen][:, None] + target, chosen


def mean_probability(logits: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    r"""Return :math:`\sigma(\ell / \sqrt{1 + \pi v / 8})`, about the mean probability for log-odds of variance v."""
    return torch.sigmoid(logits / torch.sqrt(1 + math.pi / 8 * variance))
