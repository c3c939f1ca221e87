"""Read and write slots of AnnData and MuData: the only file that assigns to ``adata.*`` or ``mdata.*``."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse, special

from sctrellis._core import checks, genome
from sctrellis._core.keys import REGULATORS, Keys
from sctrellis._core.rows import Rows


def source(adata: Any, mod: str | None = None) -> Any:
    """Return the AnnData to read: ``adata`` itself, or modality ``mod`` of a MuData."""
    from anndata import AnnData

    if isinstance(adata, AnnData):
        if mod is not None:
            msg = f"`mod={mod!r}` names a modality of a MuData, but `adata` is an AnnData. Leave `mod` out."
            raise ValueError(msg)
        return adata
    if type(adata).__name__ == "MuData":
        if mod is None:
            msg = f"`adata` is a MuData: choose a modality with `mod=`, one of {', '.join(map(repr, adata.mod))}."
            raise ValueError(msg)
        checks.has_slot("mod", mod, adata.mod, "mdata.mod")
        return adata.mod[mod]
    hint = " Wrap it as `anndata.AnnData(df)`, cells x genes." if isinstance(adata, pd.DataFrame | np.ndarray) else ""
    msg = f"Expected `adata` to be an AnnData (or a MuData with `mod=`), found {type(adata).__name__}.{hint}"
    raise TypeError(msg)


def target(adata: Any, *, copy: bool = False, mod: str | None = None) -> tuple[Any, Any]:
    """Return the object to hand back and the AnnData to write to.

    They differ for a MuData only. With ``copy`` both are new; a view becomes an object of its own at the first write.
    """
    source(adata, mod)
    if copy:
        adata = adata.to_memory() if getattr(adata, "isbacked", False) else adata.copy()
    return adata, source(adata, mod)


def read_matrix(adata: Any, layer: str | None = None, *, genes: np.ndarray | None = None) -> Rows:
    """Return the log-normalised expression in X or a layer, checked; warns on what looks wrong."""
    slot = "X" if layer is None else f"layers[{layer!r}]"
    if layer is not None:
        checks.has_slot("layer", layer, adata.layers.keys(), "adata.layers")
    checks.matrix_shape(adata.n_obs, adata.n_vars)
    checks.gene_names(adata.var_names)
    x = adata.X if layer is None else adata.layers[layer]
    if x is None:
        msg = f"`adata.X` is None. Name a layer with `layer=`, one of {', '.join(map(repr, adata.layers)) or 'none'}."
        raise ValueError(msg)
    if getattr(x, "dtype", None) is not None and x.dtype.kind not in "biuf":
        msg = f"Expected `adata.{slot}` to hold numbers, found dtype {x.dtype}. Convert it with `.astype('float32')`."
        raise TypeError(msg)
    rows = Rows(x, genes)
    checks.expression(rows.summary, slot, adata.var_names if genes is None else adata.var_names[genes])
    return rows


def read_regulators(adata: Any, regulators: str | Sequence[str] | None = None) -> np.ndarray:
    """Return the candidate regulators as a Boolean mask over the genes.

    Parameters
    ----------
    adata
        The AnnData.
    regulators
        None for ``.var["is_regulator"]``, the name of another Boolean column of ``.var``, ``"all"`` for every gene, or
        gene names.
    """
    if isinstance(regulators, str) and regulators == "all":
        return np.ones(adata.n_vars, dtype=bool)
    if regulators is None or isinstance(regulators, str):
        column = REGULATORS if regulators is None else regulators
        checks.has_slot(
            "regulators",
            column,
            adata.var.columns,
            "adata.var",
            "Run `sctrellis.pp.regulators(adata, names)` first, or pass `regulators='all'` to let every gene regulate.",
        )
        values = adata.var[column]
        if not pd.api.types.is_bool_dtype(values) or values.isna().any():
            msg = f"Expected `adata.var[{column!r}]` to be Boolean without missing values, found dtype {values.dtype}."
            raise TypeError(msg)
        mask = values.to_numpy(dtype=bool)
        if not mask.any():
            msg = f"`adata.var[{column!r}]` is False for all {adata.n_vars} genes: no gene may regulate."
            raise ValueError(msg)
        return mask
    names = [str(name) for name in regulators]
    mask = adata.var_names.isin(names)
    if not mask.any():
        raise checks.no_match("regulators", names, adata.var_names)
    n_missing = len(set(names) - set(adata.var_names))
    if n_missing:
        missing = [name for name in dict.fromkeys(names) if name not in adata.var_names]
        checks.warn(
            f"{n_missing} of {len(set(names))} `regulators` are not in `adata.var_names` ({checks.some(missing)})."
        )
    return mask


def read_network(adata: Any, key: str, *, argument: str = "network") -> sparse.csr_matrix:
    """Return ``.varp[key]`` as CSR float32 with sorted indices: row = regulator, column = target."""
    checks.has_slot(
        argument,
        key,
        adata.varp.keys(),
        "adata.varp",
        "`pp.network` stores known edges, `tl` functions scores.",
    )
    network = sparse.csr_matrix(adata.varp[key], dtype=np.float32, copy=True)
    network.sort_indices()
    return network


def holds_log_odds(adata: Any, key: str) -> bool:
    """Return whether the record of a network says that its scores are log odds, whose sign is not that of an effect."""
    entry = adata.uns.get(key)
    return isinstance(entry, Mapping) and str(entry.get("score_scale", "")) == "log_odds"


def read_scores(adata: Any, key: str, *, argument: str = "key") -> sparse.csr_matrix:
    """Return ``.varp[key]`` as numbers that are not negative and rise with the belief in an edge.

    Log odds, where the record of the network says that it holds them, become probabilities, in float64 so that high
    ones stay apart; of any other score the sign is that of the effect, and its absolute value is returned.
    """
    scores = read_network(adata, key, argument=argument)
    if holds_log_odds(adata, key):
        return sparse.csr_matrix(
            (special.expit(scores.data.astype(np.float64)), scores.indices, scores.indptr), shape=scores.shape
        )
    return abs(scores)


def values_at(network: sparse.csr_matrix, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Return the stored values at pairs; NaN where a pair is not stored (a stored zero is a value)."""
    n = network.shape[1]
    stored = np.repeat(np.arange(network.shape[0], dtype=np.int64), np.diff(network.indptr)) * n + network.indices
    wanted = row.astype(np.int64) * n + column
    values = np.full(len(wanted), np.nan, dtype=np.result_type(network.dtype, np.float32))
    if len(stored):
        at = np.minimum(np.searchsorted(stored, wanted), len(stored) - 1)
        found = stored[at] == wanted
        values[found] = network.data[at[found]]
    return values


def read_folds(adata: Any, network: str) -> sparse.csr_matrix | None:
    """Return the folds of ``network`` (1 train, 2 validation, 3 test; absent = outside the universe), or None."""
    key = Keys(network).fold
    if key not in adata.varp:
        return None
    folds = sparse.csr_matrix(adata.varp[key], dtype=np.int8, copy=True)
    folds.sort_indices()
    return folds


def read_embedding(adata: Any, key: str) -> np.ndarray:
    """Return ``.varm[key]`` as float32, shape (n_vars, d); a NaN row is a gene without embedding."""
    remedy = "`sctrellis.pp.gene_embedding` and `sctrellis.pp.text_embedding` write one."
    checks.has_slot("embedding", key, adata.varm.keys(), "adata.varm", remedy)
    stored = adata.varm[key]
    values = stored.toarray() if sparse.issparse(stored) else np.asarray(stored)
    if values.dtype.kind not in "biuf":
        msg = f"Expected `adata.varm[{key!r}]` to hold numbers, found dtype {values.dtype}."
        raise TypeError(msg)
    values = values.astype(np.float32)
    if values.ndim != 2 or values.shape[1] == 0:
        msg = f"Expected `adata.varm[{key!r}]` to have shape (n_vars, d) with d >= 1, found {values.shape}."
        raise ValueError(msg)
    if np.isinf(values).any():
        msg = f"`adata.varm[{key!r}]` has infinite values. Rebuild it; missing genes are rows of NaN."
        raise ValueError(msg)
    if np.isnan(values).any(axis=1).all():
        msg = f"`adata.varm[{key!r}]` is NaN for every gene: no gene has an embedding."
        raise ValueError(msg)
    return values


def multiome(mdata: Any, rna: str = "rna", atac: str = "atac") -> tuple[Any, Any]:
    """Return the two modalities of a MuData, which hold the same cells in the same order."""
    if type(mdata).__name__ != "MuData":
        hint = " Build one with `sctrellis.pp.multiome(rna, atac)`."
        msg = f"Expected `mdata` to be a MuData with paired RNA and ATAC, found {type(mdata).__name__}.{hint}"
        raise TypeError(msg)
    for argument, name in (("rna", rna), ("atac", atac)):
        checks.has_slot(argument, name, mdata.mod, "mdata.mod")
    modalities = mdata.mod[rna], mdata.mod[atac]
    for name, modality in zip((rna, atac), modalities, strict=True):
        if not modality.obs_names.equals(mdata.obs_names):
            n_shared = int(modality.obs_names.isin(mdata.obs_names).sum())
            msg = (
                f"The cells of `mdata[{name!r}]` are not those of `mdata`, in the same order: {modality.n_obs:,} and "
                f"{mdata.n_obs:,} cells, {n_shared:,} shared. Pair them with `sctrellis.pp.multiome(rna, atac)`."
            )
            raise ValueError(msg)
    return modalities


def read_obs(mdata: Any, column: str, *, argument: str = "groupby") -> pd.Series:
    """Return a column of ``.obs``, of the MuData or else of the first modality that has it, by cell."""
    tables = [mdata.obs, *(modality.obs for modality in getattr(mdata, "mod", {}).values())]
    checks.has_slot(argument, column, dict.fromkeys(name for table in tables for name in table), "mdata.obs")
    table = next(table for table in tables if column in table)
    return table[column].reindex(mdata.obs_names)


def read_cis(mdata: Any, key: str = "cis", *, rna: str = "rna", atac: str = "atac") -> sparse.csr_matrix:
    """Return the distances of ``mdata.varp[key]`` as CSR float32, shape (n_genes, n_peaks).

    Rows are the genes of ``mdata[rna]`` and columns the peaks of ``mdata[atac]``. A distance of 0 is a stored zero:
    read the links from ``indptr`` and ``indices``, never from ``nonzero()``.
    """
    multiome(mdata, rna, atac)
    checks.has_slot("key", key, mdata.varp.keys(), "mdata.varp", "Run `sctrellis.pp.cis_links(mdata)` first.")
    rows, columns = variables(mdata, rna), variables(mdata, atac)
    stored = sparse.csr_matrix(mdata.varp[key], dtype=np.float32)[rows][:, columns]
    stored.sort_indices()
    return genome.decode(stored)


def cis_network(mdata: Any, distances: sparse.csr_matrix, *, rna: str = "rna", atac: str = "atac") -> sparse.csr_matrix:
    """Return distances of genes x peaks as :func:`read_cis` expects them in ``mdata.varp``."""
    stored = genome.encode(distances).tocoo()
    rows, columns = variables(mdata, rna), variables(mdata, atac)
    index = (rows[stored.row], columns[stored.col])
    return sparse.csr_matrix((stored.data, index), shape=(mdata.n_vars, mdata.n_vars))


def variables(mdata: Any, mod: str) -> np.ndarray:
    """Return the positions, among the variables of a MuData, of those of a modality."""
    position = np.asarray(mdata.varmap[mod]).ravel()
    here = np.flatnonzero(position > 0)
    positions = here[np.argsort(position[here], kind="stable")]
    if not mdata.var_names[positions].equals(mdata.mod[mod].var_names):
        msg = f"The variables of `mdata[{mod!r}]` have changed since `mdata` was made. Call `mdata.update()` first."
        raise ValueError(msg)
    return positions


def positions(modality: Any, names: Sequence[str] | pd.Series, where: str) -> np.ndarray:
    """Return the positions of variables by name, in order; ``where`` says what named them, for the message."""
    at = modality.var_names.get_indexer(list(names))
    if (at < 0).any():
        missing = list(dict.fromkeys(name for name, i in zip(names, at, strict=True) if i < 0))
        msg = (
            f"{len(missing)} names in `{where}` are no longer variables of their modality ({checks.some(missing)}): it "
            "was filtered or renamed since. Run the search again."
        )
        raise ValueError(msg)
    return at


def coordinates(modality: Any, where: str, columns: Sequence[str] = ("chrom", "start", "end")) -> pd.DataFrame:
    """Return columns of ``.var`` with the chromosome as str, empty where unknown, and positions as int64, then -1."""
    for column in columns:
        remedy = "`sctrellis.pp.multiome(rna, atac, genes=...)` writes coordinates."
        checks.has_slot("mdata", column, modality.var.columns, f"{where}.var", remedy)
    table = modality.var[list(columns)].copy()
    table["chrom"] = table["chrom"].astype(str)
    whole = [column for column in columns if column != "chrom"]
    return table.fillna(dict.fromkeys(whole, -1)).astype(dict.fromkeys(whole, np.int64))


def openness(peaks: Any) -> np.ndarray:
    """Return the share of cells in which each peak is open."""
    return np.asarray((peaks.X != 0).sum(axis=0)).ravel() / peaks.n_obs


def network_csr(scores: np.ndarray, rows: np.ndarray, columns: np.ndarray, n_vars: int) -> sparse.csr_matrix:
    """Return scores of regulators x targets as a gene x gene CSR, with every scored pair stored, zeros too.

    Parameters
    ----------
    scores : (n_rows, n_columns)
        Edge scores.
    rows, columns
        Increasing gene positions of the regulators and of the targets.
    n_vars
        Number of genes.
    """
    n_rows, n_columns = scores.shape
    row = np.repeat(np.asarray(rows, dtype=np.int32), n_columns)
    column = np.tile(np.asarray(columns, dtype=np.int32), n_rows)
    data = np.ascontiguousarray(scores, dtype=np.float32).ravel()
    kept = row != column
    counts = np.bincount(row[kept], minlength=n_vars)
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return sparse.csr_matrix((data[kept], column[kept], indptr), shape=(n_vars, n_vars))


def write(
    adata: Any,
    *,
    obs: Mapping[str, Any] | None = None,
    var: Mapping[str, Any] | None = None,
    varp: Mapping[str, Any] | None = None,
    varm: Mapping[str, Any] | None = None,
    obsm: Mapping[str, Any] | None = None,
    layers: Mapping[str, Any] | None = None,
    uns: Mapping[str, Any] | None = None,
) -> list[str]:
    """Write results into the slots and return their names; nothing is written unless everything can be.

    Parameters
    ----------
    adata
        The AnnData, or the MuData itself.
    obs, var, varp, varm, obsm, layers, uns
        Key to value; ``varp`` values become CSR float32 (int8 stays int8).
    """
    networks: dict[str, Any] = {}
    for key, value in (varp or {}).items():
        csr = sparse.csr_matrix(value)
        if csr.dtype != np.int8:
            csr = csr.astype(np.float32)
        csr.sort_indices()
        if csr.shape != (adata.n_vars, adata.n_vars):
            msg = f"A network of shape {csr.shape} cannot be written for {adata.n_vars} genes."
            raise ValueError(msg)
        networks[key] = csr
    genes, cells = (adata.n_vars, "genes"), (adata.n_obs, "cells")
    by_row = (("obs", obs, cells), ("var", var, genes), ("varm", varm, genes), ("obsm", obsm, cells))
    for slot, values, (length, what) in by_row:
        for key, value in (values or {}).items():
            if np.shape(value)[:1] not in ((), (length,)):
                msg = f"`{slot}[{key!r}]` of shape {np.shape(value)} cannot be written for {length} {what}."
                raise ValueError(msg)
    for key, value in (layers or {}).items():
        if np.shape(value) != adata.shape:
            msg = (
                f"`layers[{key!r}]` of shape {np.shape(value)} cannot be written for an object of shape {adata.shape}."
            )
            raise ValueError(msg)
    if adata.is_view:
        adata._init_as_actual(adata.to_memory() if adata.isbacked else adata.copy())
    for key, value in (obs or {}).items():
        adata.obs[key] = value
    for key, value in (var or {}).items():
        adata.var[key] = value
    for key, value in networks.items():
        adata.varp[key] = value
    for key, value in (varm or {}).items():
        adata.varm[key] = value
    for key, value in (obsm or {}).items():
        adata.obsm[key] = value
    for key, value in (layers or {}).items():
        adata.layers[key] = value
    for key, value in (uns or {}).items():
        adata.uns[key] = value
    named = {"obs": obs, "var": var, "varp": varp, "varm": varm, "obsm": obsm, "layers": layers, "uns": uns}
    return [f"{slot}[{key!r}]" for slot, values in named.items() for key in (values or {})]
