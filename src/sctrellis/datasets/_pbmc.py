"""Blood cells that come with scanpy, and the regulators among their genes."""

import warnings
from typing import TYPE_CHECKING

import pandas as pd
from scipy import sparse

from sctrellis._core import checks
from sctrellis._core.keys import REGULATORS

if TYPE_CHECKING:
    from anndata import AnnData

# Proteins that bind DNA at sequences of their own, and POU2AF1, which acts with the octamer-binding factors only.
# fmt: off
_FACTORS = [
    "BBX", "EGR1", "FLI1", "FOS", "GATA2", "GATA3", "HES1", "HES4", "HHEX", "HMGA1", "IRF1", "IRF7", "IRF8", "JUNB",
    "KLF3", "KLF6", "LYL1", "NFE2", "POU2AF1", "SOX4", "SP100", "SP110", "SPI1", "SPIB", "ZNF22", "ZNF524",
    "ZNF600", "ZNF706", "ZNF710",
]

# Proteins without such a site that repress, activate or open chromatin through those that have one.
_COFACTORS = [
    "AES", "ARID4B", "BRD7", "CHD4", "DAXX", "EPC1", "HMGB2", "HOPX", "ID2", "KAT5", "NCOR1", "SMARCB1", "SP140",
    "TSC22D1",
]
# fmt: on


def pbmc_regulators() -> list[str]:
    """List the human transcriptional regulators among the genes of :func:`pbmc`.

    Returns
    -------
    Gene symbols, sorted: 29 transcription factors and 14 cofactors.

    Notes
    -----
    Of the 765 genes, those were taken that a curated list of human transcription factors names, and, checked one by
    one, those that wider lists name and that are established as corepressors, coactivators or chromatin regulators.
    Left out, though such lists name them, are the general machinery of transcription (such as GTF2E2, POLR2G,
    SUPT4H1), histones, proteins that bind RNA (such as HNRNPK, SFPQ, ZFP36L2), regulators upstream of a
    transcription factor (NFKBIA), and genes that are there for one report only (such as PHB, MIF, SOD1).

    The symbols are those of the data: AES is now called TLE5.

    Examples
    --------
    >>> import sctrellis as tr
    >>> names = tr.datasets.pbmc_regulators()
    >>> len(names), names[:3]
    (43, ['AES', 'ARID4B', 'BBX'])
    """
    return sorted(_FACTORS + _COFACTORS)


def pbmc() -> "AnnData":
    """Read 700 blood cells and 765 genes that come with scanpy, log-normalised, with their regulators marked.

    They are `scanpy.datasets.pbmc68k_reduced` [1]_ without the scaling: its `X` is scaled and negative in parts, and
    the log-normalised values wait in its `raw`. Needs no network.

    Returns
    -------
    An AnnData with

    `adata.X` : csr_matrix, float32, shape (700, 765)
        Log-normalised expression.
    `adata.var["is_regulator"]` : bool
        The genes of :func:`pbmc_regulators`.
    `adata.obs["bulk_labels"]` : category
        Cell type; also the other columns of the original, such as `louvain` and `phase`.
    `adata.obsm["X_umap"]` : shape (700, 2)
        Coordinates for plots.

    References
    ----------
    .. [1] Zheng et al., Massively parallel digital transcriptional profiling of single cells, Nature Communications 8,
       14049, 2017.

    Examples
    --------
    >>> import sctrellis as tr
    >>> adata = tr.datasets.pbmc()
    >>> adata.shape, int(adata.var["is_regulator"].sum())
    ((700, 765), 43)
    """
    from anndata import AnnData

    with warnings.catch_warnings():
        # The file is years old, and scanpy and anndata say so each time; its user can do nothing about it.
        warnings.simplefilter("ignore")
        import scanpy as sc

        original = sc.datasets.pbmc68k_reduced()
    raw = original.raw
    checks.gene_names(raw.var_names)
    names = raw.var_names.astype(str)
    return AnnData(
        sparse.csr_matrix(raw.X, dtype="float32"),
        obs=original.obs.copy(),
        var=pd.DataFrame({REGULATORS: names.isin(pbmc_regulators())}, index=names),
        obsm={"X_umap": original.obsm["X_umap"].copy()},
        uns={key: value.copy() for key, value in original.uns.items() if key.endswith("_colors")},
    )
