from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from sctrellis._core import checks, genome, logs, record, slots
from sctrellis.pp import _coordinates as coordinates
from sctrellis.pp import _read_table as tables

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

_RNA_TYPE, _ATAC_TYPE = "Gene Expression", "Peaks"
_BARCODE = r"([ACGTN]{8,})"
# A promoter peak overlaps the start of transcription or lies beside it; further away chance takes over.
_PROMOTER = 1000
_SHIFTS = (-500_000, -200_000, 200_000, 500_000)


def multiome(
    rna: "AnnData | MuData",
    atac: "AnnData | None" = None,
    *,
    genes: Any = None,
    min_open: float = 0.005,
    binarize: bool = True,
    target_sum: float | None = 1e5,
    match_case: bool = True,
    aliases: Any = None,
) -> "MuData":
    """Pair RNA and ATAC of the same cells in one MuData, with coordinates of genes and peaks.

    Takes counts or log-normalised RNA, and counts or binary ATAC; the inputs are not changed.

    Parameters
    ----------
    rna
        RNA, cells x genes. Or RNA and ATAC together: an AnnData whose ``var["feature_types"]`` says
        ``"Gene Expression"`` and ``"Peaks"``, as ``scanpy.read_10x_h5(path, gex_only=False)`` gives it, or a MuData
        with the modalities ``"rna"`` and ``"atac"``, as muon makes it.
    atac
        ATAC, cells x peaks. Peaks are read from the columns ``chrom``, ``start`` and ``end`` of ``var``, from
        ``interval``, or from names such as ``chr1:100-600``, ``chr1-100-600`` or ``chr1_100_600``.
    genes
        Where genes lie: a DataFrame, or the path of a BED, GTF, GFF3, CSV or parquet file, plain or gzip. Genes are
        looked up by name and by id, without Ensembl's version suffix where need be. None takes the columns of
        ``rna.var``, or its ``interval``, and leaves genes without coordinates where it has none of them.
    min_open
        Fraction of cells, in [0, 1): peaks open in fewer are dropped. Peaks that are never open always are.
    binarize
        Whether to make ATAC 1 where it is above 0. Otherwise it must hold values in [0, 1], such as smoothed ones.
    target_sum
        Total that the counts of every cell are scaled to before the logarithm. The default makes changes of expression
        counts per 100,000. None leaves counts as they are.
    match_case
        Whether ``Gata1`` and ``GATA1`` are different names. A name that would fit several genes fits none.
    aliases
        Mapping or Series from alias to the name in ``rna.var_names``, or a DataFrame with columns ``alias`` and
        ``name``; used for names that are not found otherwise.

    Returns
    -------
    A MuData of the cells that are in both, in the order of ``rna``, with

    ``mdata["rna"].X`` : csr_matrix, float32
        ``log1p`` of the scaled counts; where `rna` holds no counts, its values as they are. Counts are in
        ``layers["counts"]``.
    ``mdata["rna"].var`` : DataFrame
        `chrom`, `start`, `end` (0-based, half-open), `strand` and `tss`; ``""`` and -1 for genes without coordinates.
    ``mdata["atac"].X`` : csr_matrix, float32
        1 where a peak is open. Where `atac` holds counts, they are in ``layers["counts"]``.
    ``mdata["atac"].var`` : DataFrame
        `chrom`, `start`, `end`, and `open_fraction`, the fraction of cells in which the peak is open.
    ``mdata.uns["multiome"]`` : dict
        Record; ``counts`` says how many cells, genes and peaks were matched and dropped.

    Other slots of both, such as ``obs`` and ``obsm``, are kept.

    Raises
    ------
    ValueError
        Where no cell is in both, no peak has coordinates, no gene is found in `genes`, no gene has a peak within
        500 kb, names are repeated, or values are negative or not finite.
    TypeError
        Where an input is of the wrong kind.

    Notes
    -----
    RNA in `X` is taken for counts where it holds whole numbers only, and is then scaled. Other values are kept as they
    are: they may have been normalised over more genes than there are now. To scale the counts of a layer, put them into
    `X` first. Of ATAC, ``layers["counts"]`` decides what is open where there is one, and `X` otherwise.

    The base where transcription starts is `start` on the forward strand and ``end - 1`` on the reverse strand. Without
    a strand it is the middle of the interval, and distances have no direction; ``interval`` in 10x files, which spans
    the starts of a gene's transcripts, is read like that. Several rows of a gene are joined, if they lie on one
    chromosome and strand and within 3 Mb: names of several places have no coordinates. Copies on alternative contigs,
    and those on Y of genes on X, are left out. Chromosomes are spelled as the peaks spell them (``1`` or ``chr1``).

    Warns where cells, genes or peaks fall out, and where peaks lie no nearer to starts of transcription than to places
    200 to 500 kb beside them: genes and peaks are then probably from different genome builds, such as hg19 and hg38.

    Time and memory grow with what is stored in the sparse matrices. SnapATAC2's backed objects are read with
    ``.to_memory()`` first.

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd, sctrellis as tr
    >>> cells = pd.DataFrame(index=[f"cell{i}" for i in range(4)])
    >>> rna = anndata.AnnData(np.array([[3, 0], [1, 2], [0, 4], [2, 2]], "float32"), obs=cells)
    >>> rna.var_names = ["GATA1", "SPI1"]
    >>> atac = anndata.AnnData(np.array([[2, 0], [1, 1], [0, 1], [1, 0]], "float32"), obs=cells[::-1])
    >>> atac.var_names = ["chr1:900-1400", "chr1:8000-8500"]
    >>> genes = pd.DataFrame(
    ...     {"chrom": "1", "start": [1000, 5000], "end": [3000, 7000], "strand": ["+", "-"]}, index=["GATA1", "SPI1"]
    ... )
    >>> mdata = tr.pp.multiome(rna, atac, genes=genes)
    >>> mdata["rna"].var[["chrom", "tss"]].values.tolist()
    [['chr1', 1000], ['chr1', 6999]]
    >>> mdata["atac"].X.toarray()[0].tolist()
    [1.0, 0.0]
    """
    params = record.arguments(multiome, locals())
    from mudata import MuData, set_options

    min_open = checks.number("min_open", min_open, low=0, high=1, open_high=True)
    checks.choice("binarize", binarize, (True, False))
    if target_sum is not None:
        checks.number("target_sum", target_sum, low=0, open_low=True)
    rna, atac = _two(rna, atac)
    for name, modality in (("rna", rna), ("atac", atac)):
        _check_names(name, modality)
    of_rna, of_atac = _shared_cells(rna.obs_names, atac.obs_names)

    expression, rna_counts = _expression(rna, of_rna, target_sum)
    openness, atac_counts = _openness(atac, of_atac, binarize=binarize)
    peaks, formats = coordinates.parse_peaks(atac.var)
    if len(formats) > 1:
        checks.warn(
            f"Names of peaks come in several formats ({', '.join(formats)}). All were read; are all of one set?"
        )
    located = (peaks["chrom"] != "").to_numpy()
    if not located.any():
        msg = (
            f"None of the {len(peaks):,} peaks has coordinates (first names: {checks.some(atac.var_names)}). Name "
            "peaks as in 'chr1:100-600', or put 'chrom', 'start' and 'end' into `atac.var`."
        )
        raise ValueError(msg)
    if not located.all():
        checks.warn(
            f"{int((~located).sum()):,} of {len(peaks):,} peaks have no coordinates and are left out "
            f"({checks.some(atac.var_names[~located])})."
        )
    fraction = openness.getnnz(axis=0) / openness.shape[0]
    kept = located & (fraction >= min_open) & (fraction > 0)
    if not kept.any():
        msg = (
            f"No peak is open in at least {min_open:g} of the {openness.shape[0]:,} cells (the most open one is in "
            f"{fraction.max():.3g}). Lower `min_open`."
        )
        raise ValueError(msg)
    placed = _locate(rna, genes, match_case=match_case, aliases=aliases)
    peaks = peaks[kept].assign(open_fraction=fraction[kept]).set_axis(atac.var_names[kept])
    placed["chrom"] = coordinates.same_naming(placed["chrom"].to_numpy(), peaks["chrom"].to_numpy())
    n_missing = int((placed["chrom"] == "").sum())
    if n_missing < len(placed):
        _check_build(placed, peaks)

    with set_options(pull_on_update=False):
        mdata = MuData(
            {
                "rna": _rebuilt(rna, of_rna, np.arange(rna.n_vars), expression, rna_counts, placed),
                "atac": _rebuilt(atac, of_atac, np.flatnonzero(kept), openness, atac_counts, peaks),
            }
        )
    counts = {
        "cells": len(of_rna),
        "cells_rna": rna.n_obs,
        "cells_atac": atac.n_obs,
        "genes": rna.n_vars,
        "genes_without_coordinates": n_missing,
        "peaks": int(kept.sum()),
        "peaks_without_coordinates": int((~located).sum()),
        "peaks_rarely_open": int((located & ~kept).sum()),
    }
    params |= {"genes": tables.describe(genes), "aliases": tables.describe(aliases)}
    del params["rna"], params["atac"]
    run = record.build("multiome", mdata, params=params, seed=0, slots={}, extra={"counts": counts})
    slots.write(mdata, uns={"multiome": run})
    logs.logger.info(
        "%(cells)d cells in both (RNA %(cells_rna)d, ATAC %(cells_atac)d); %(genes)d genes, "
        "%(genes_without_coordinates)d without coordinates; %(peaks)d peaks, %(peaks_rarely_open)d others open in too "
        "few cells",
        counts,
    )
    return mdata


def _two(rna: Any, atac: Any) -> tuple[Any, Any]:
    """Return RNA and ATAC, from two AnnData or from one object that holds both."""
    from anndata import AnnData

    if atac is None and type(rna).__name__ == "MuData":
        for name in ("rna", "atac"):
            checks.has_slot("rna", name, rna.mod, "mdata.mod", "Or pass both as AnnData: `pp.multiome(rna, atac)`.")
        rna, atac = rna.mod["rna"], rna.mod["atac"]
    elif atac is None and isinstance(rna, AnnData):
        types = rna.var["feature_types"].astype(str) if "feature_types" in rna.var else pd.Series(dtype=str)
        found = set(types)
        if not {_RNA_TYPE, _ATAC_TYPE} <= found:
            msg = (
                "Without `atac`, `rna.var['feature_types']` must say which variables are 'Gene Expression' and which "
                f"'Peaks'; found {checks.some(sorted(found)) or 'no such column'}. Pass ATAC as the second argument, "
                "or read the 10x file with `scanpy.read_10x_h5(path, gex_only=False)`."
            )
            raise ValueError(msg)
        rna, atac = rna[:, (types == _RNA_TYPE).to_numpy()], rna[:, (types == _ATAC_TYPE).to_numpy()]
    for name, value in (("rna", rna), ("atac", atac)):
        if not isinstance(value, AnnData):
            hint = " Read it with `.to_memory()` first." if hasattr(value, "to_memory") else ""
            msg = f"Expected `{name}` to be an AnnData, found {type(value).__name__}.{hint}"
            raise TypeError(msg)
    return tuple(a.to_memory() if a.isbacked else a for a in (rna, atac))


def _check_names(name: str, modality: Any) -> None:
    for axis, index in (("cells", modality.obs_names), ("genes" if name == "rna" else "peaks", modality.var_names)):
        repeated = index[index.duplicated()].unique()
        if len(repeated):
            slot = "obs_names" if axis == "cells" else "var_names"
            msg = (
                f"`{name}.{slot}` has {len(repeated):,} repeated {axis} ({checks.some(repeated)}). Drop the copies "
                f"with `~{name}.{slot}.duplicated()`, or make names unique where they are different {axis}."
            )
            raise ValueError(msg)
        if not len(index):
            msg = f"`{name}` has no {axis}."
            raise ValueError(msg)


def _shared_cells(rna: pd.Index, atac: pd.Index) -> tuple[np.ndarray, np.ndarray]:
    """Return positions in both of the cells that are in both, in the order of the first."""
    at = atac.get_indexer(rna)
    of_rna = np.flatnonzero(at >= 0)
    if len(of_rna) == len(rna) == len(atac):
        return of_rna, at
    by_barcode = _by_barcode(rna, atac)
    hint = ""
    if by_barcode > len(of_rna):
        hint = (
            f" {by_barcode:,} match by the barcode alone: names differ in a prefix or in a suffix such as '-1'. Give "
            "both the same names first, as in `atac.obs_names = atac.obs_names.str.replace('-1', '')`."
        )
    if not len(of_rna):
        hint = hint or " Are they of the same cells? Only paired measurements can be used."
        msg = (
            f"None of the {len(rna):,} cells of `rna` is among the {len(atac):,} of `atac` (first names: "
            f"{checks.some(rna)}; {checks.some(atac)}).{hint}"
        )
        raise ValueError(msg)
    checks.warn(
        f"{len(of_rna):,} cells are in both; {len(rna) - len(of_rna):,} of `rna` and {len(atac) - len(of_rna):,} of "
        f"`atac` have no partner and are left out.{hint}"
    )
    return of_rna, at[of_rna]


def _by_barcode(rna: pd.Index, atac: pd.Index) -> int:
    """Return how many cells would match by the barcode within their names."""
    one, other = (pd.Series(index.astype(str)).str.extract(_BARCODE, expand=False).dropna() for index in (rna, atac))
    return int(one.drop_duplicates(keep=False).isin(other.drop_duplicates(keep=False)).sum())


def _csr(name: str, slot: str, x: Any, cells: np.ndarray) -> sparse.csr_matrix:
    """Return the values of some cells as CSR float32, checked."""
    if x is None:
        msg = f"`{name}.{slot}` is None: there are no values."
        raise ValueError(msg)
    x = x[cells]
    x = x.compute() if hasattr(x, "compute") else x
    if getattr(x, "dtype", np.dtype(object)).kind not in "biuf":
        msg = f"Expected `{name}.{slot}` to hold numbers, found dtype {x.dtype}."
        raise TypeError(msg)
    csr = sparse.csr_matrix(x, dtype=np.float32)
    csr.sum_duplicates()
    csr.eliminate_zeros()
    bad = int((~np.isfinite(csr.data)).sum())
    if bad:
        msg = f"`{name}.{slot}` has {bad:,} NaN or infinite values."
        raise ValueError(msg)
    if csr.nnz and csr.data.min() < 0:
        msg = (
            f"`{name}.{slot}` has negative values (minimum {csr.data.min():.4g}): it looks scaled. Pass counts or "
            "log-normalised values."
        )
        raise ValueError(msg)
    if not csr.nnz:
        msg = f"`{name}.{slot}` holds only zeros."
        raise ValueError(msg)
    return csr


def _integral(csr: sparse.csr_matrix) -> bool:
    return bool((csr.data == np.floor(csr.data)).all())


def _expression(
    rna: Any, cells: np.ndarray, target_sum: float | None
) -> tuple[sparse.csr_matrix, sparse.csr_matrix | None]:
    """Return log-normalised expression, and counts where there are any."""
    counts = _csr("rna", "layers['counts']", rna.layers["counts"], cells) if "counts" in rna.layers else None
    x = _csr("rna", "X", rna.X, cells)
    if not _integral(x):
        return x, counts
    counts = x.copy() if counts is None else counts
    if target_sum is not None:
        # By hand, as scanpy does it, for it would write into an AnnData.
        total = np.asarray(x.sum(axis=1)).ravel()
        x = sparse.csr_matrix(sparse.diags(target_sum / np.maximum(total, 1)) @ x, dtype=np.float32).log1p()
        logs.logger.info("`rna.X` holds counts: scaled to %g a cell, and log1p", target_sum)
    return x, counts


def _openness(atac: Any, cells: np.ndarray, *, binarize: bool) -> tuple[sparse.csr_matrix, sparse.csr_matrix | None]:
    """Return which peaks are open, and counts where there are any."""
    counts = _csr("atac", "layers['counts']", atac.layers["counts"], cells) if "counts" in atac.layers else None
    x = _csr("atac", "X", atac.X, cells)
    if not binarize:
        if x.data.max() > 1:
            msg = (
                f"With `binarize=False`, `atac.X` must hold values in [0, 1], found up to {x.data.max():.4g}. Scale "
                "them, or leave `binarize=True`."
            )
            raise ValueError(msg)
        return x, counts
    if counts is None and _integral(x) and x.data.max() > 1:
        counts = x.copy()
        logs.logger.info("`atac.X` holds counts: kept in layers['counts'], and made 1 where above 0")
    x = (x if counts is None else counts).copy()
    x.data = np.ones_like(x.data)
    return x, counts


def _locate(rna: Any, genes: Any, *, match_case: bool, aliases: Any) -> pd.DataFrame:
    """Return where the genes of `rna` lie, by name."""
    if genes is not None:
        located = coordinates.locate_genes(genes, rna.var_names, match_case=match_case, aliases=aliases)
    else:
        own = coordinates.own_table(rna.var)
        if own is None:
            located = pd.DataFrame(
                {"chrom": "", "start": -1, "end": -1, "strand": "", "tss": -1}, index=range(rna.n_vars)
            )
            logs.logger.info("no coordinates of genes: pass `genes=`, which `pp.cis_links` needs")
            return located.set_axis(rna.var_names)
        located = coordinates.locate_genes(own, rna.var_names, match_case=True, aliases=None)
    missing = (located["chrom"] == "").to_numpy()
    if missing.any():
        checks.warn(
            f"{int(missing.sum()):,} of {rna.n_vars:,} genes have no coordinates, and so no cis links "
            f"({checks.some(rna.var_names[missing])})."
        )
    unstranded = ~missing & (located["strand"] == "").to_numpy()
    if unstranded.any():
        checks.warn(
            f"{int(unstranded.sum()):,} genes have no strand: their TSS is taken as the middle of the interval, and "
            "upstream is not told from downstream. A GTF or a BED file with six columns has strands."
        )
    return located.set_axis(rna.var_names)


def _check_build(genes: pd.DataFrame, peaks: pd.DataFrame) -> None:
    """Raise where no gene has a peak in its window; warn where peaks avoid or ignore where transcription starts."""
    codes, names = pd.factorize(peaks["chrom"].to_numpy())
    gene_codes = pd.Index(names).get_indexer(genes["chrom"])
    forward = (genes["strand"] != "-").to_numpy()
    tss, start, end = genes["tss"].to_numpy(), peaks["start"].to_numpy(), peaks["end"].to_numpy()

    def n_near(window: int, shift: int = 0) -> int:
        links = genome.cis(codes, start, end, gene_codes, tss + shift, forward, window)
        return int((np.diff(links.indptr) > 0).sum())

    hint = "Are both of the same species and genome build (hg19 or hg38)?"
    if not n_near(500_000):
        msg = (
            f"None of the {int((genes['chrom'] != '').sum()):,} genes with coordinates has a peak within 500 kb "
            f"(chromosomes of genes: {checks.some(genes['chrom'][genes['chrom'] != ''].unique())}; of peaks: "
            f"{checks.some(names)}). {hint}"
        )
        raise ValueError(msg)
    near, elsewhere = n_near(_PROMOTER), np.mean([n_near(_PROMOTER, shift) for shift in _SHIFTS])
    n_genes = int((gene_codes >= 0).sum())
    # Four standard deviations of a Poisson count.
    if n_genes >= 100 and near < elsewhere + 4 * np.sqrt(elsewhere + 1):
        checks.warn(
            f"Only {near:,} of {n_genes:,} genes have a peak within 1 kb of where transcription starts, and "
            f"{elsewhere:,.0f} would by chance. {hint}"
        )


def _rebuilt(
    modality: Any,
    cells: np.ndarray,
    variables: np.ndarray,
    x: sparse.csr_matrix,
    counts: sparse.csr_matrix | None,
    places: pd.DataFrame,
) -> "AnnData":
    """Return some cells and variables as an AnnData of its own, with new values and coordinates."""
    from anndata import AnnData

    def own(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
        return matrix if len(variables) == matrix.shape[1] else matrix[:, variables]

    part = modality[cells, variables].copy()
    layers = {name: part.layers[name] for name in part.layers if name != "counts"}
    if counts is not None:
        layers["counts"] = own(counts)
    return AnnData(
        own(x),
        obs=part.obs,
        var=part.var.drop(columns=places.columns, errors="ignore").join(places),
        uns=part.uns,
        layers=layers,
        **{slot: dict(getattr(part, slot)) for slot in ("obsm", "varm", "obsp", "varp")},
    )
