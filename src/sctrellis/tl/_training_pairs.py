"""The labelled pairs that a supervised fit may learn from, and the profiles that it reads."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from sctrellis._core import checks, slots
from sctrellis._core.keys import Keys
from sctrellis._core.rows import Rows

if TYPE_CHECKING:
    from anndata import AnnData

FOLDS = {"train": (1,), "train_validation": (1, 2)}
"""Codes of the folds that are learnt from."""
VALIDATION = 2
MAX_CELLS = 2_000
"""Cells that are read of each gene at most, drawn at random where there are more."""


def read_folds(ad: "AnnData", network: str) -> sparse.csr_matrix:
    """Return the folds of a known network; raises where it has none."""
    folds = slots.read_folds(ad, network)
    if folds is None:
        checks.has_slot(
            "network",
            Keys(network).fold,
            ad.varp.keys(),
            "adata.varp",
            f"Labels to learn from need folds: run `sctrellis.pp.split_edges(adata, {network!r})` first.",
        )
    return folds


def in_folds(folds: sparse.csr_matrix, chosen: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return regulator and target of the pairs in folds, self pairs left out."""
    coo = folds.tocoo()
    kept = np.isin(coo.data, chosen) & (coo.row != coo.col)
    return coo.row[kept].astype(np.int64), coo.col[kept].astype(np.int64)


def scored(mask: np.ndarray, varying: np.ndarray) -> np.ndarray:
    """Return the positions of the regulators that vary, and so can be scored."""
    found = np.flatnonzero(mask & varying)
    if not len(found):
        msg = (
            f"None of the {int(mask.sum())} regulators varies over the cells, so nothing can be scored. Choose others "
            "with `regulators=` or `sctrellis.pp.regulators`."
        )
        raise ValueError(msg)
    return found


def labels(known: sparse.csr_matrix, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Return which pairs are known edges."""
    return np.asarray(known[row, column]).ravel() > 0


def labelled(
    known: sparse.csr_matrix, folds: sparse.csr_matrix, chosen: Sequence[int], network: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return regulator, target and label of the pairs to learn from: the only labels that are read."""
    row, column = in_folds(folds, chosen)
    label = labels(known, row, column)
    if not label.any() or label.all():
        what = "no known edge" if not label.any() else "nothing but known edges"
        msg = (
            f"`network`: {network!r} has {what} among its {len(row):,} training pairs, so nothing can be learnt. Split "
            "it again with another `seed`, a smaller `test_frac` or another `scheme`."
        )
        raise ValueError(msg)
    return row, column, label


def profiles(rows: Rows, seed: int) -> np.ndarray:
    """Return the standardised expression of every gene, float32, shape (n_genes, n_cells)."""
    from sctrellis.models._batches import Standardised

    n_cells, n_genes = rows.shape
    cells: np.ndarray | slice = slice(0, n_cells)
    if n_cells > MAX_CELLS:
        cells = np.sort(np.random.default_rng([seed, n_cells]).choice(n_cells, MAX_CELLS, replace=False))
    remedy = "Select genes first, as in `adata[:, genes].copy()`."
    checks.dense_size((min(n_cells, MAX_CELLS), n_genes), "The profiles of all genes", remedy)
    return np.ascontiguousarray(Standardised(rows).take(cells).T)
