"""The objective of genes of a fitted surrogate in one group of cells."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse

from sctrellis.explain._additive import AdditiveObjective
from sctrellis.models._translator import Effects, Translator


@dataclass(frozen=True)
class Candidates:
    """Peaks that may be chosen for each of T genes, increasing and padded.

    Parameters
    ----------
    peaks : (T, M)
        Positions of the peaks; -1 where a gene has fewer.
    places : (T, M)
        Where they stand among the peaks that the surrogate lets act on the gene.
    """

    peaks: np.ndarray
    places: np.ndarray

    @property
    def counts(self) -> np.ndarray:
        """Number of candidates of each gene: (T,)."""
        return (self.peaks >= 0).sum(axis=1)


def candidates(
    translator: Translator, genes: np.ndarray, usable: np.ndarray, links: sparse.csr_matrix | None = None
) -> Candidates:
    """Return the peaks that may be chosen for each gene.

    Parameters
    ----------
    translator
        The surrogate, which says what peaks can act on a gene at all.
    genes : (T,)
        Positions of the genes.
    usable : (n_peaks,)
        Peaks that may be chosen for any gene.
    links : (n_all_genes, n_peaks)
        Peaks near each gene, to which its candidates are limited; None does not limit them.
    """
    peaks = _effects(translator, genes).peaks.cpu().numpy()
    kept = (peaks >= 0) & usable[np.maximum(peaks, 0)]
    if links is not None:
        near, own = links[genes], np.arange(len(genes), dtype=np.int64) * links.shape[1]
        linked = np.repeat(own, np.diff(near.indptr)) + near.indices
        kept &= np.isin(own[:, None] + peaks, linked)
    places = np.argsort(~kept, axis=1, kind="stable")[:, : max(1, int(kept.sum(axis=1).max()))]
    chosen = np.take_along_axis(np.where(kept, peaks, -1), places, axis=1)
    return Candidates(chosen, places)


def peak_objective(
    translator: Translator,
    x: sparse.csr_matrix,
    genes: np.ndarray,
    chosen: Candidates,
    *,
    groups: np.ndarray,
    value: float = 0.0,
    sign: float = 1.0,
) -> AdditiveObjective:
    """Return the objective of moving the predicted log expression of genes in cells of mean size by perturbing peaks.

    Parameters
    ----------
    translator
        The surrogate.
    x : (n_cells, n_peaks)
        Accessibility of the cells.
    genes : (T,)
        Positions of the genes.
    chosen
        Their candidates.
    groups : (n_cells,)
        Group of each cell, as the surrogate numbers them.
    value
        What a perturbed peak is set to.
    sign
        1 to bring expression down, -1 to bring it up.
    """
    if translator.training:
        msg = "The surrogate is in training mode, where outputs depend on the batch. Call `.eval()` first."
        raise ValueError(msg)
    found = _effects(translator, genes)
    device = found.effect.device
    at = torch.as_tensor(chosen.places, device=device)
    asked, of_cells = torch.as_tensor(genes, device=device), torch.as_tensor(groups, device=device)
    no_size = torch.zeros(len(groups), dtype=found.effect.dtype, device=device)

    def head(pre: torch.Tensor) -> torch.Tensor:
        return translator.head(pre, asked, of_cells, no_size)

    return AdditiveObjective.build(
        x,
        chosen.peaks,
        effects=found.effect.gather(1, at[..., None].expand(-1, -1, found.effect.shape[-1])),
        block=found.block.gather(1, at),
        pre=translator.pre_activation(x, asked),
        head=head,
        value=value,
        sign=sign,
    )


def _effects(translator: Translator, genes: np.ndarray) -> Effects:
    return translator.effects(torch.as_tensor(genes, device=translator.genes.device))
