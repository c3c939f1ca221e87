"""The crossmodal surrogate: autoencoders of both modalities, and translators between their codes."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import nn

from sctrellis.models._edge_features import dropout, linear, normal
from sctrellis.models._translator import Effects, Translator, bag_sums


class BlockLinear(nn.Module):
    """One linear layer for each block, all in one product."""

    def __init__(self, n_blocks: int, n_in: int, n_out: int, noise: torch.Generator) -> None:
        super().__init__()
        self.weight = normal(n_blocks, n_in, n_out, noise=noise, std=1 / math.sqrt(n_in))
        self.bias = nn.Parameter(torch.zeros(n_blocks, n_out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return shape (n, n_blocks, n_out) from (n, n_blocks, n_in)."""
        return torch.einsum("nki,kio->nko", x, self.weight) + self.bias


class Activation(nn.Module):
    """Batch normalisation, a fixed affine map in evaluation mode, and PReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.slope = nn.BatchNorm1d(width), nn.PReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the same shape; all axes but the first are features."""
        return self.slope(self.norm(x.flatten(1))).view(x.shape)


class AtacAutoencoder(nn.Module):
    """One vector per peak, summed within blocks, then a code; and back to the logit of single peaks.

    Parameters
    ----------
    block : (n_peaks,)
        Block of each peak, such as its chromosome.
    width, n_block_hidden, n_latent
        Width of a block's sum, of its hidden layer, and of the code.
    noise
        Generator of the initial state.
    """

    def __init__(
        self, block: torch.Tensor, width: int, n_block_hidden: int, n_latent: int, noise: torch.Generator
    ) -> None:
        super().__init__()
        n_blocks, self.width = int(block.max()) + 1, width
        self.n_blocks, self.n_block_hidden = n_blocks, n_block_hidden
        self.block: torch.Tensor
        self.order: torch.Tensor
        self.register_buffer("block", block, persistent=False)
        self.register_buffer("order", torch.argsort(block, stable=True), persistent=False)
        self.effect = normal(len(block), width, noise=noise, std=0.1)
        self.bias = normal(n_blocks, width, noise=noise, std=0.1)
        self.before = Activation(n_blocks * width)
        self.widen = BlockLinear(n_blocks, width, n_block_hidden, noise)
        self.after = Activation(n_blocks * n_block_hidden)
        self.code = nn.Sequential(linear(n_blocks * n_block_hidden, n_latent, noise), linear(n_latent, n_latent, noise))
        self.spread = nn.Sequential(
            linear(n_latent, n_blocks * n_block_hidden, noise), nn.BatchNorm1d(n_blocks * n_block_hidden)
        )
        self.narrow = BlockLinear(n_blocks, n_block_hidden, width, noise)
        self.last = Activation(n_blocks * width)
        self.loading = normal(len(block), width, noise=noise, std=1 / math.sqrt(width))
        self.level = nn.Parameter(torch.zeros(len(block)))

    def pool(self, x: sparse.csr_matrix) -> torch.Tensor:
        """Return the sums of the open peaks' vectors, shape (n, n_blocks, width): the additive first layer."""
        order = self.order.cpu().numpy()
        columns = sparse.csr_matrix(x)[:, order]
        columns.sort_indices()
        block = self.block[self.order].cpu().numpy()
        return bag_sums(columns, self.effect[self.order], block, self.n_blocks) + self.bias

    def encode(self, pooled: torch.Tensor) -> torch.Tensor:
        """Return codes (n, n_latent) of pooled cells."""
        return self.code(self.after(self.widen(self.before(pooled))).flatten(1))

    def decode(self, code: torch.Tensor) -> torch.Tensor:
        """Return what the logits of each block's peaks are linear in, shape (n, n_blocks, width)."""
        return self.last(self.narrow(self.spread(code).view(len(code), self.n_blocks, self.n_block_hidden)))

    def logits(self, decoded: torch.Tensor, row: torch.Tensor, peak: torch.Tensor) -> torch.Tensor:
        """Return the logits of single entries, so that no other is computed."""
        return (decoded[row, self.block[peak]] * self.loading[peak]).sum(dim=-1) + self.level[peak]


class RnaAutoencoder(nn.Module):
    """Expression to a code and back; the last layer can be asked for single genes."""

    def __init__(self, n_genes: int, hidden: tuple[int, int], n_latent: int, noise: torch.Generator) -> None:
        super().__init__()
        wide, narrow = hidden
        self.code = nn.Sequential(
            linear(n_genes, wide, noise), Activation(wide), linear(wide, narrow, noise), Activation(narrow),
            linear(narrow, n_latent, noise),
        )  # fmt: skip
        self.spread = nn.Sequential(
            linear(n_latent, narrow, noise), Activation(narrow), linear(narrow, wide, noise), Activation(wide)
        )
        self.out = linear(wide, n_genes, noise)

    def decode(self, code: torch.Tensor) -> torch.Tensor:
        """Return expression (n, n_genes), not clamped."""
        return self.out(self.spread(code))


class GatedAffine(nn.Module):
    """A soft mixture of affine maps, applied three times, that starts near the identity."""

    def __init__(self, n_latent: int, n_maps: int, noise: torch.Generator) -> None:
        super().__init__()
        self.gate = nn.Sequential(linear(n_latent, 128, noise), nn.ReLU(), linear(128, n_maps, noise))
        self.map = normal(3, n_maps, n_latent, n_latent, noise=noise, std=0.01)
        self.map.data += torch.eye(n_latent)
        self.shift = normal(3, n_maps, n_latent, noise=noise, std=0.01)
        self.slope = nn.ModuleList([nn.PReLU(init=1.0), nn.PReLU(init=1.0)])

    def forward(self, code: torch.Tensor) -> torch.Tensor:
        """Return codes in the other space, same shape."""
        share = torch.softmax(self.gate(code), dim=-1)
        for i in range(3):
            # One product for all maps: a matrix for each cell would be read once and used once.
            weighted = (share[:, :, None] * code[:, None]).flatten(1)
            code = weighted @ self.map[i].transpose(1, 2).flatten(0, 1) + share @ self.shift[i]
            code = self.slope[i](code) if i < 2 else code
        return code


class Discriminator(nn.Module):
    """Whether a code is one of its own modality: one logit for each group of cells."""

    def __init__(self, n_latent: int, n_groups: int, noise: torch.Generator) -> None:
        super().__init__()
        self.linear = nn.ModuleList([linear(n_latent, 20, noise), linear(20, 10, noise), linear(10, n_groups, noise)])
        self.slope = nn.ModuleList([nn.PReLU(), nn.PReLU()])

    def forward(self, code: torch.Tensor, group: torch.Tensor, noise: torch.Generator | None) -> torch.Tensor:
        """Return the logit of each cell's group, shape (n,)."""
        hidden = dropout(self.slope[0](self.linear[0](code)), 0.1, noise)
        logits = self.linear[2](self.slope[1](self.linear[1](hidden)))
        return logits.gather(1, group[:, None])[:, 0]


class CrossmodalNetwork(nn.Module):
    """Both autoencoders and both translators.

    Parameters
    ----------
    block : (n_peaks,)
        Block of each peak.
    n_genes
        Genes.
    shape
        ``width``, ``n_block_hidden``, ``n_latent``, ``n_maps`` and the two widths ``rna_wide`` and ``rna_narrow``.
    noise
        Generator of the initial state.
    """

    def __init__(self, block: torch.Tensor, n_genes: int, shape: Mapping[str, int], noise: torch.Generator) -> None:
        super().__init__()
        n_latent = shape["n_latent"]
        self.atac = AtacAutoencoder(block, shape["width"], shape["n_block_hidden"], n_latent, noise)
        self.rna = RnaAutoencoder(n_genes, (shape["rna_wide"], shape["rna_narrow"]), n_latent, noise)
        self.to_rna = GatedAffine(n_latent, shape["n_maps"], noise)
        self.to_atac = GatedAffine(n_latent, shape["n_maps"], noise)


class CrossmodalTranslator(Translator):
    r"""The fitted crossmodal surrogate.

    The first layer sums one vector per open peak within each chromosome; the head encodes these sums, translates the
    code to that of the RNA, and decodes it. Group and size of a cell are not used: it predicts log-normalised
    expression.

    Parameters
    ----------
    weights
        ``genes`` (n_fitted,), ``block`` (n_peaks,), and the state of a :class:`CrossmodalNetwork`.
    facts
        ``n_peaks``, and the sizes of the network.
    """

    def __init__(self, weights: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
        super().__init__()
        self.register_buffer("genes", torch.from_numpy(np.asarray(weights["genes"], np.int64)))
        block = torch.from_numpy(np.asarray(weights["block"], np.int64))
        shape = {name: int(facts[name]) for name in SIZES}
        network = CrossmodalNetwork(block, len(self.genes), shape, torch.Generator())
        state = network.state_dict()
        for name, value in state.items():
            state[name] = torch.from_numpy(np.array(weights[name])).view(value.shape).to(value.dtype)
        network.load_state_dict(state)
        self.network = network
        self.n_peaks, self.n_blocks, self.width = int(facts["n_peaks"]), network.atac.n_blocks, network.atac.width

    def effects(self, g: int | torch.Tensor) -> Effects:
        """Return the vectors of all peaks: each of them can act on each gene."""
        rows, atac = self.rows_of(g), self.network.atac
        shape = (*rows.shape, self.n_peaks)
        peaks = torch.arange(self.n_peaks, device=self.genes.device).expand(shape)
        return Effects(peaks, atac.effect.expand(*shape, self.width), atac.block.expand(shape))

    def pre_activation(self, x: Any, g: int | torch.Tensor) -> torch.Tensor:
        """Return the sums by chromosome, shape (n_cells, n_blocks, width), the same for all genes."""
        if x.shape[1] != self.n_peaks:
            msg = f"Expected `x` to have the {self.n_peaks} peaks of the fit, found {x.shape[1]}."
            raise ValueError(msg)
        rows = self.rows_of(g)
        pooled = self.network.atac.pool(x)
        return pooled.expand(*rows.shape, *pooled.shape)

    def head(
        self, pre: torch.Tensor, g: int | torch.Tensor, groups: torch.Tensor, log_size: torch.Tensor
    ) -> torch.Tensor:
        """Return the predicted log-normalised expression, shape (..., n_cells)."""
        if self.training:
            msg = "The surrogate is in training mode, where normalisation depends on the other cells. Call `.eval()`."
            raise ValueError(msg)
        rows, out = self.rows_of(g), self.network.rna.out
        hidden = self._hidden(pre.reshape(-1, self.n_blocks, self.width)).view(*pre.shape[:-2], -1)
        weight, bias = out.weight[rows], out.bias[rows]
        if rows.ndim:
            between = (1,) * (hidden.ndim - 2)
            weight, bias = weight.view(len(rows), *between, -1), bias.view(len(rows), *between)
        return (hidden * weight).sum(dim=-1) + bias

    @torch.no_grad()
    def predict_all(self, x: Any, groups: np.ndarray, log_size: np.ndarray) -> np.ndarray:
        """Return the predicted log-normalised expression of all fitted genes, shape (n_cells, n_fitted)."""
        x = sparse.csr_matrix(x)
        parts = [self.network.rna.out(self._hidden(self.network.atac.pool(x[start : start + 512])))
                 for start in range(0, x.shape[0], 512)]  # fmt: skip
        return torch.cat(parts).cpu().numpy() if parts else np.zeros((0, len(self.genes)), np.float32)

    @torch.no_grad()
    def predict_accessibility(self, y: np.ndarray, peaks: np.ndarray) -> np.ndarray:
        """Return the probability that peaks are open, from log-normalised expression.

        Parameters
        ----------
        y : (n_cells, n_fitted)
            Expression of the fitted genes.
        peaks : (n,)
            Positions of the peaks asked for.

        Returns
        -------
        np.ndarray, float32, shape (n_cells, n)
        """
        network = self.network
        codes = network.to_atac(network.rna.code(torch.from_numpy(np.asarray(y)).to(network.atac.effect)))
        row = torch.arange(len(y), device=codes.device)[:, None]
        peak = torch.from_numpy(np.asarray(peaks, np.int64)).to(codes.device)[None]
        return torch.sigmoid(network.atac.logits(network.atac.decode(codes), row, peak)).cpu().numpy()

    def _hidden(self, pooled: torch.Tensor) -> torch.Tensor:
        """Return what expression is linear in."""
        network = self.network
        return network.rna.spread(network.to_rna(network.atac.encode(pooled)))


SIZES = ("width", "n_block_hidden", "n_latent", "n_maps", "rna_wide", "rna_narrow")
"""What the sizes of a network are called."""
