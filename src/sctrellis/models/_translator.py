"""Fitted ATAC-to-RNA surrogates behind one interface: a first layer that adds one vector per open peak, and a head."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import nn

_ROWS = 512
_NUMBERS = 16_000_000
"""Cells, and numbers in the largest activation, when all genes are predicted."""


@dataclass(frozen=True)
class Effects:
    """What each candidate peak adds to the first layer when it opens.

    For several genes all arrays have a leading axis of genes, and are padded to the gene with most candidates: a padded
    place has peak -1 and effect 0.

    Attributes
    ----------
    peaks : (n_candidates,)
        Positions of the peaks that can act on the gene, increasing.
    effect : (n_candidates, width)
        Vector of each peak.
    block : (n_candidates,)
        Block of the pre-activation that the vector is added to.
    """

    peaks: torch.Tensor
    effect: torch.Tensor
    block: torch.Tensor


class Translator(nn.Module, ABC):
    r"""A fitted surrogate of expression from accessibility, in evaluation mode, with an additive first layer.

    With :math:`x_c` the accessibility of cell :math:`c`, :math:`V_j` the vector of peak :math:`j` and :math:`\kappa(j)`
    its block, the pre-activation is :math:`s_{ck} = b_k + \sum_{j: \kappa(j) = k} x_{cj} V_j`, and the predicted log
    expression of gene :math:`g` is a function of :math:`s_c` alone, the head. Setting the peaks of a set :math:`S` to
    :math:`p` therefore moves :math:`s_{ck}` by exactly
    :math:`\sum_{j \in S, \kappa(j) = k} (p_j - x_{cj}) V_j`.

    Genes are named by their positions in the RNA modality, peaks by those in the ATAC modality.

    Attributes
    ----------
    n_peaks
        Peaks of the ATAC modality.
    n_blocks, width
        Blocks of the pre-activation, and their width.
    genes : (n_fitted,)
        Genes that were fitted, increasing.
    """

    n_peaks: int
    n_blocks: int
    width: int
    genes: torch.Tensor

    @abstractmethod
    def effects(self, g: int | torch.Tensor) -> Effects:
        """Return the first-layer vectors of the peaks that can act on gene ``g``, or on each gene of a tensor."""

    @abstractmethod
    def pre_activation(self, x: Any, g: int | torch.Tensor) -> torch.Tensor:
        """Return the first layer's output.

        Parameters
        ----------
        x : (n_cells, n_peaks)
            Accessibility, a SciPy sparse matrix: 0 and 1, or anything between.
        g
            A gene, or a tensor of genes.

        Returns
        -------
        torch.Tensor
            Shape (n_cells, n_blocks, width); with a leading axis of genes where ``g`` is a tensor.
        """

    @abstractmethod
    def head(
        self, pre: torch.Tensor, g: int | torch.Tensor, groups: torch.Tensor, log_size: torch.Tensor
    ) -> torch.Tensor:
        """Return the predicted log expression, not clamped; differentiable in ``pre``.

        Parameters
        ----------
        pre : (..., n_cells, n_blocks, width)
            Pre-activations; where ``g`` is a tensor, the first axis runs over its genes.
        g
            A gene, or a tensor of genes.
        groups : (n_cells,)
            Group of each cell, as a position among those of the fit.
        log_size : (n_cells,)
            Logarithm of the size factor of each cell.

        Returns
        -------
        torch.Tensor
            Shape (..., n_cells).
        """

    def predict(self, x: Any, g: int | torch.Tensor, groups: torch.Tensor, log_size: torch.Tensor) -> torch.Tensor:
        """Return the predicted log expression of cells, shape (n_cells,), with a leading axis for several genes."""
        return self.head(self.pre_activation(x, g), g, groups, log_size)

    @torch.no_grad()
    def predict_all(self, x: Any, groups: np.ndarray, log_size: np.ndarray) -> np.ndarray:
        """Return the predicted log expression of all fitted genes, shape (n_cells, n_fitted), a block at a time."""
        found = np.empty((x.shape[0], len(self.genes)), np.float32)
        x = sparse.csr_matrix(x)
        device = self.genes.device
        for rows in range(0, len(found), _ROWS):
            cells = slice(rows, rows + _ROWS)
            group = torch.from_numpy(groups[cells]).to(device)
            size = torch.from_numpy(log_size[cells]).to(next(self.parameters()))
            step = max(1, _NUMBERS // (_ROWS * self.n_blocks * self.width))
            for start in range(0, len(self.genes), step):
                part = self.predict(x[cells], self.genes[start : start + step], group, size)
                found[cells, start : start + step] = part.T.cpu().numpy()
        return found

    def rows_of(self, g: int | torch.Tensor) -> torch.Tensor:
        """Return the places of genes among those that were fitted; raises for one that was not."""
        asked = torch.as_tensor(g, device=self.genes.device)
        rows = torch.searchsorted(self.genes, asked)
        found = self.genes[rows.clamp(max=len(self.genes) - 1)] == asked
        if not bool(found.all()):
            missing = asked[~found].flatten()[0] if asked.ndim else asked
            msg = f"Gene {int(missing)} was not fitted: the surrogate has {len(self.genes)} genes."
            raise ValueError(msg)
        return rows


def load_translator(record: Mapping[str, Any]) -> Translator:
    """Rebuild a fitted surrogate from its record.

    Parameters
    ----------
    record
        What :func:`sctrellis.tl.translate` wrote to ``mdata.uns[key]``: its ``surrogate`` and ``weights`` are used.

    Returns
    -------
    Translator
        The surrogate, on the CPU, in evaluation mode and without gradients of its weights.

    Raises
    ------
    ValueError
        If the record holds no surrogate.

    Examples
    --------
    >>> import numpy as np, sctrellis as tr
    >>> weights = {"genes": np.array([3]), "indptr": np.array([0, 2]), "peaks": np.array([5, 8])}
    >>> weights |= {"effect": np.eye(2, dtype=np.float32), "bias": np.zeros((1, 2), np.float32)}
    >>> weights |= {"output": np.ones((1, 2), np.float32), "intercept": np.zeros((1, 1), np.float32)}
    >>> record = {"surrogate": {"kind": "cis", "n_peaks": 10, "likelihood": "nb"}, "weights": weights}
    >>> tr.models.load_translator(record).effects(3).peaks
    tensor([5, 8])
    """
    from sctrellis.models._cis_translator import CisTranslator
    from sctrellis.models._crossmodal import CrossmodalTranslator

    facts, weights = record.get("surrogate"), record.get("weights")
    kinds: dict[str, Callable[..., Translator]] = {"cis": CisTranslator, "crossmodal": CrossmodalTranslator}
    if not isinstance(facts, Mapping) or not isinstance(weights, Mapping) or facts.get("kind") not in kinds:
        msg = f"The record of {record.get('method')!r} holds no fitted surrogate. Run `sctrellis.tl.translate` first."
        raise ValueError(msg)
    translator = kinds[str(facts["kind"])](weights, facts)
    return translator.requires_grad_(requires_grad=False).eval()


@dataclass(frozen=True, kw_only=True)
class TranslatorFit:
    """A fitted surrogate as arrays.

    Attributes
    ----------
    surrogate
        Facts that :func:`load_translator` needs beside the arrays.
    weights
        Arrays that rebuild the surrogate.
    history
        One value per epoch of every loss part.
    fit
        Facts of the fit.
    theta : (n_fitted,)
        Inverse dispersion of each gene's counts.
    null : (n_null, n_cells, n_fitted)
        Predictions, less the logarithm of the size factor, of refits to permuted pairs on the test cells; None where
        nothing was fitted again.
    latent
        Codes of all cells by modality, where there are any.
    """

    surrogate: dict[str, Any]
    weights: dict[str, np.ndarray]
    history: dict[str, list[float]]
    fit: dict[str, Any]
    theta: np.ndarray
    null: np.ndarray | None = None
    latent: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class CellBatches:
    """Batches of cells by position, in an order that depends on seed and epoch only.

    Parameters
    ----------
    cells
        Positions of the cells.
    batch_size
        Cells in a batch; the last one of an epoch may be smaller, never a single cell.
    seed
        Seed of the order.
    device
        Where the batches go.
    max_batches
        Batches in an epoch at most; the next epoch starts from another order.
    """

    cells: np.ndarray
    batch_size: int
    seed: int = 0
    device: torch.device = torch.device("cpu")
    max_batches: int | None = None

    def __len__(self) -> int:
        full, rest = divmod(len(self.cells), self.batch_size)
        n_batches = max(1, full + (rest > 1))
        return n_batches if self.max_batches is None else min(n_batches, self.max_batches)

    def epoch(self, epoch: int) -> Iterator[torch.Tensor]:
        """Yield the positions of each batch of an epoch, shape (n,)."""
        order = np.random.default_rng([self.seed, epoch]).permutation(self.cells)[: len(self) * self.batch_size]
        yield from torch.from_numpy(order).to(self.device).split(self.batch_size)


def bag_sums(
    x: sparse.csr_matrix, table: torch.Tensor, bag_of_column: np.ndarray, n_bags: int, *, binary: bool = False
) -> torch.Tensor:
    """Return, for every row and bag of columns, the sum of the columns' vectors weighted by the entries of the row.

    Only stored entries are touched, and nothing of the shape of ``x`` is ever dense.

    Parameters
    ----------
    x : (n_cells, n_columns)
        Sparse matrix with sorted indices.
    table : (n_columns, width)
        Vector of each column.
    bag_of_column : (n_columns,)
        Bag of each column, never decreasing: the entries of a row and bag are then neighbours.
    n_bags
        Number of bags.
    binary
        Whether all stored entries are 1, so that they need not be read.

    Returns
    -------
    torch.Tensor
        Shape (n_cells, n_bags, width).
    """
    n_cells = x.shape[0]
    row = np.repeat(np.arange(n_cells, dtype=np.int64), np.diff(x.indptr))
    sizes = np.bincount(row * n_bags + bag_of_column[x.indices], minlength=n_cells * n_bags)
    offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(sizes)[:-1]])).to(table.device)
    entries = torch.from_numpy(x.indices.astype(np.int64)).to(table.device)
    weights = None if binary else torch.from_numpy(x.data).to(table)
    sums = nn.functional.embedding_bag(entries, table, offsets, mode="sum", per_sample_weights=weights)
    return sums.view(n_cells, n_bags, table.shape[1])
