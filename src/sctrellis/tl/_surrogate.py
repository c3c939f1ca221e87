"""What a surrogate reads of paired ATAC and RNA, the same when it is fitted and when it is used."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from sctrellis._core import checks, record, slots
from sctrellis._core.keys import CELL_FOLDS
from sctrellis._core.logs import logger

if TYPE_CHECKING:
    from mudata import MuData

    from sctrellis.models import Translator


@dataclass(frozen=True)
class Paired:
    """Paired data as arrays.

    Attributes
    ----------
    accessibility : (n_cells, n_peaks)
        CSR float32 with sorted indices: 0 and 1, or anything between.
    expression : (n_cells, n_genes)
        Counts as CSR float32, or log-normalised values.
    sized
        Whether ``expression`` holds counts.
    log_size : (n_cells,)
        Logarithm of each cell's total count over the mean total; 0 without counts.
    groups : (n_cells,)
        Group of each cell, a position in ``group_names``.
    group_names
        Names of the groups.
    split
        Positions of the cells of each part: ``"train"``, ``"validation"``, ``"test"``.
    """

    accessibility: sparse.csr_matrix
    expression: sparse.csr_matrix
    sized: bool
    log_size: np.ndarray
    groups: np.ndarray
    group_names: list[str]
    split: dict[str, np.ndarray]


def read_paired(
    mdata: "MuData",
    *,
    groupby: str | None,
    counts: str | None,
    layer: str | None,
    split: str,
    rna: str = "rna",
    atac: str = "atac",
) -> Paired:
    """Read both modalities, the groups and the split of the cells, checked.

    Parameters
    ----------
    mdata
        The paired data.
    groupby
        Column of ``.obs`` with the groups of cells; None is one group.
    counts
        Layer of ``mdata[rna]`` with counts; None reads log-normalised values.
    layer
        Layer of ``mdata[rna]`` with log-normalised values, read where there are no counts; None is X.
    split
        Column of ``.obs`` that says what each cell is for.
    rna, atac
        Names of the modalities.
    """
    genes, peaks = slots.multiome(mdata, rna, atac)
    for modality in (genes, peaks):
        checks.gene_names(modality.var_names)
    parts = _split(mdata, split)
    groups, names = _groups(mdata, groupby)
    expression, log_size = _expression(genes, counts, layer, rna)
    return Paired(
        accessibility=_accessibility(peaks, atac),
        expression=expression,
        sized=counts is not None,
        log_size=log_size,
        groups=groups,
        group_names=names,
        split=parts,
    )


def read_surrogate(mdata: "MuData", key: str = "translate") -> "tuple[Translator, Paired, dict[str, Any]]":
    """Return a fitted surrogate, the data as it was fitted to them, and its record.

    Parameters
    ----------
    mdata
        Paired data with the genes and peaks of the fit; the cells may be others.
    key
        Name of the record of ``tl.translate`` in ``mdata.uns``.

    Raises
    ------
    KeyError
        If there is no such record.
    ValueError
        If the record is of something else, or genes or peaks are not those of the fit.
    """
    from sctrellis.models import load_translator

    checks.has_slot("key", key, mdata.uns.keys(), "mdata.uns", "Run `sctrellis.tl.translate(mdata)` first.")
    entry = record.read(mdata, key)
    translator = load_translator(entry)
    params = entry["params"]
    rna, atac = params["rna"], params["atac"]
    for argument, modality, name in zip(("rna", "atac"), slots.multiome(mdata, rna, atac), (rna, atac), strict=True):
        if record.genes_hash(modality.var_names) != entry["surrogate"][f"{argument}_sha256"]:
            what = "genes" if argument == "rna" else "peaks"
            n_then = entry["surrogate"][f"n_{what}"]
            msg = (
                f"`key`: the surrogate at {key!r} was fitted to other {what} than those of `mdata[{name!r}]` "
                f"({n_then:,} then, {modality.n_vars:,} now, or another order). Use the data of the fit, or run "
                "`sctrellis.tl.translate` again."
            )
            raise ValueError(msg)
    paired = read_paired(
        mdata,
        rna=rna,
        atac=atac,
        groupby=params["groupby"],
        counts=params["counts"],
        layer=params["layer"],
        split=params["split"],
    )
    fitted = list(entry["groups"].index)
    if paired.group_names != fitted:
        unknown = [name for name in paired.group_names if name not in fitted]
        if unknown:
            msg = f"`groupby={params['groupby']!r}` has groups without a fit ({checks.some(unknown)})."
            raise ValueError(msg)
        codes = np.array([fitted.index(name) for name in paired.group_names])
        paired = Paired(**{**paired.__dict__, "groups": codes[paired.groups], "group_names": fitted})
    return translator, paired, entry


def _split(mdata: "MuData", column: str) -> dict[str, np.ndarray]:
    checks.has_slot(
        "split",
        column,
        mdata.obs.columns,
        "mdata.obs",
        "Run `sctrellis.pp.split_cells(mdata)` first.",
    )
    values = mdata.obs[column].astype(str).to_numpy()
    parts = {name: np.flatnonzero(values == name) for name in CELL_FOLDS}
    empty = [name for name, cells in parts.items() if len(cells) < 2]
    if empty:
        msg = (
            f"`split`: `mdata.obs[{column!r}]` gives fewer than 2 cells to {checks.some(empty)}; its values are "
            f"{checks.some(np.unique(values))}. Run `sctrellis.pp.split_cells(mdata)`."
        )
        raise ValueError(msg)
    return parts


def _groups(mdata: "MuData", groupby: str | None) -> tuple[np.ndarray, list[str]]:
    if groupby is None:
        return np.zeros(mdata.n_obs, np.int64), ["all"]
    values = pd.Categorical(slots.read_obs(mdata, groupby)).remove_unused_categories()
    missing = int((values.codes < 0).sum())
    if missing:
        msg = (
            f"`groupby={groupby!r}` is missing for {missing:,} of {mdata.n_obs:,} cells. Drop them or name their group."
        )
        raise ValueError(msg)
    return values.codes.astype(np.int64), [str(name) for name in values.categories]


def _accessibility(peaks: Any, atac: str) -> sparse.csr_matrix:
    if peaks.X is None:
        msg = f"`mdata[{atac!r}].X` is None: it holds the accessibility. Run `sctrellis.pp.multiome(rna, atac)`."
        raise ValueError(msg)
    x = sparse.csr_matrix(peaks.X, dtype=np.float32, copy=True)  # it is tidied below, and the user's stays as it is
    x.eliminate_zeros()
    x.sort_indices()
    if not np.isfinite(x.data).all() or (x.data < 0).any():
        msg = f"`mdata[{atac!r}].X` has negative, NaN or infinite values. Accessibility lies in [0, 1]."
        raise ValueError(msg)
    if (x.data > 1).any():
        logger.info("`mdata[%r].X` has values up to %g: a peak counts as open where it is above 0", atac, x.data.max())
        x.data[:] = 1
    return x


def _expression(genes: Any, counts: str | None, layer: str | None, rna: str) -> tuple[sparse.csr_matrix, np.ndarray]:
    if counts is None:
        slots.read_matrix(genes, layer)  # checks the values
        x = genes.X if layer is None else genes.layers[layer]
        return sparse.csr_matrix(x, dtype=np.float32), np.zeros(genes.n_obs, np.float32)
    checks.has_slot("counts", counts, genes.layers.keys(), f"mdata[{rna!r}].layers")
    y = sparse.csr_matrix(genes.layers[counts], dtype=np.float32)
    if not np.isfinite(y.data).all() or (y.data < 0).any() or (y.data != np.rint(y.data)).any():
        msg = (
            f"`counts`: `mdata[{rna!r}].layers[{counts!r}]` has values that are no counts. Name a layer of raw counts, "
            "or pass `counts=None` to read log-normalised values."
        )
        raise ValueError(msg)
    total = np.asarray(y.sum(axis=1)).ravel()
    if (total == 0).any():
        msg = f"{int((total == 0).sum()):,} of {len(total):,} cells have no count in `mdata[{rna!r}]`. Drop them."
        raise ValueError(msg)
    return y, np.log(total / total.mean()).astype(np.float32)
