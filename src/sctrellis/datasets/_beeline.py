"""The single-cell data of the BEELINE benchmark, read from a folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from scipy import sparse

from sctrellis._core import checks, logs, record, slots
from sctrellis._core.keys import REGULATORS
from sctrellis._settings import settings

if TYPE_CHECKING:
    from anndata import AnnData

_SIZES = ("TFs+500", "TFs+1000")
_FILE = "BL--network.csv"


def beeline(
    cell: str,
    network: str | None = None,
    size: Literal["TFs+500", "TFs+1000"] = "TFs+500",
    *,
    path: str | Path | None = None,
) -> "AnnData":
    """Read expression and a reference network of the BEELINE benchmark from a folder.

    The expression is log-normalised. Nothing is downloaded: Notes say what the folder must hold.

    Parameters
    ----------
    cell
        Cell type, such as ``"mDC"``: the name of a file in ``beeline/expression``.
    network
        Reference network, such as ``"STRING"``, ``"Non-Specific"``, ``"Specific"`` or ``"Lofgof"``: the name of a
        folder in ``beeline/networks``. None reads the expression only.
    size
        Gene set: the varying transcription factors and the 500 or 1000 genes that vary most.
    path
        Folder that holds ``beeline``. None is `settings.dataset_dir`, which the environment variable
        ``SCTRELLIS_DATA`` sets.

    Returns
    -------
    An AnnData with the genes of `size`, and

    `adata.X` : float32, shape (n_obs, n_vars)
        Log-normalised expression.
    `adata.var["is_regulator"]` : bool
        Transcription factors of the data, and all regulators of the network.
    `adata.varp["network"]` : csr_matrix, float32, shape (n_vars, n_vars)
        With `network`: 1 for each reference edge, row = regulator, column = target. Self edges, copies and edges of
        genes without expression are left out.
    `adata.uns["beeline"]` : dict
        The record; ``"reference"`` counts what was kept and left out.

    Raises
    ------
    FileNotFoundError
        If the folder is not there.
    ValueError
        If there is no such cell, network or size; the message lists those that there are. Also if a file lacks what
        it must hold.

    Warns
    -----
    UserWarning
        If the expression lacks genes of the reference: figures then differ from those published for this set.

    Notes
    -----
    The folder holds ``beeline/expression/{cell}.h5ad``, with Boolean columns ``is_tf`` and ``in_{size}`` in `.var`,
    and ``beeline/networks/{network}/{cell}/{size}/BL--network.csv``, plain or gzipped, with the columns ``Gene1``
    (regulator) and ``Gene2`` (target), as BEELINE [1]_ and the benchmarks after it publish them.

    Some reference networks hold regulators that the list of transcription factors misses. They become regulators here,
    as in the lists that come with the networks: else no method could score their edges.

    References
    ----------
    .. [1] Pratapa et al., Benchmarking algorithms for gene regulatory network inference from single-cell
       transcriptomic data, Nature Methods 17, 147-154, 2020.

    Examples
    --------
    >>> import sctrellis as tr
    >>> adata = tr.datasets.beeline("mDC", "STRING")  # doctest: +SKIP
    >>> adata.shape, adata.varp["network"].nnz  # doctest: +SKIP
    ((383, 821), 4815)
    """
    from anndata import read_h5ad

    params = record.arguments(beeline, locals())
    del params["path"]  # where a file lies does not change what it says
    folder = Path(settings.dataset_dir if path is None else path) / "beeline"
    cells = _names(folder / "expression", "*.h5ad")
    networks = _names(folder / "networks", "*/")
    if not cells:
        msg = (
            f"No BEELINE data in '{folder}'. Put `expression/<cell>.h5ad` and "
            f"`networks/<network>/<cell>/<size>/{_FILE}` (or .gz) there; or name the folder that holds "
            "`beeline` with `path=`, `sctrellis.settings.dataset_dir` or the environment variable SCTRELLIS_DATA."
        )
        raise FileNotFoundError(msg)
    checks.choice("cell", cell, cells)
    checks.choice("size", size, _SIZES)
    file = None
    if network is not None:
        checks.choice("network", network, networks)
        file = _network_file(folder / "networks", network, cell, size)

    adata = read_h5ad(folder / "expression" / f"{cell}.h5ad")
    for column in ("is_tf", f"in_{size}"):
        if column not in adata.var or not pd.api.types.is_bool_dtype(adata.var[column]):
            msg = f"Expected '{cell}.h5ad' to have a Boolean column {column!r} in `.var`, found {_columns(adata.var)}."
            raise ValueError(msg)
    adata = adata[:, adata.var[f"in_{size}"].to_numpy(dtype=bool)].copy()
    checks.gene_names(adata.var_names)
    is_regulator = adata.var["is_tf"].to_numpy(dtype=bool)
    varp: dict[str, sparse.csr_matrix] = {}
    reference: dict[str, int] = {}
    if file is not None:
        varp["network"], reference = _read_network(file, adata.var_names)
        is_regulator = is_regulator | (varp["network"].getnnz(axis=1) > 0)
        logs.logger.info("%s: %s", file.parent, reference)
        if reference["n_genes_missing"]:
            checks.warn(
                f"{reference['n_genes_missing']:,} of {reference['n_genes']:,} genes of the {network} network are not "
                f"in the {size} expression of {cell}: {reference['n_edges_dropped']:,} of its "
                f"{reference['n_edges_read']:,} edges are left out, and figures differ from those published."
            )
    run = record.build(
        "beeline",
        adata,
        params=params,
        seed=0,
        slots={"network": "varp/network"} if varp else {},
        extra={"reference": reference},
    )
    logs.added(slots.write(adata, var={REGULATORS: is_regulator}, varp=varp, uns={"beeline": run}))
    return adata


def _names(folder: Path, pattern: str) -> list[str]:
    found = folder.glob(pattern)
    return sorted(item.stem if item.is_file() else item.name for item in found) if folder.is_dir() else []


def _columns(frame: pd.DataFrame) -> str:
    return ", ".join(f"{name} ({frame[name].dtype})" for name in frame.columns) or "no column"


def _network_file(folder: Path, network: str, cell: str, size: str) -> Path:
    for name in (f"{_FILE}.gz", _FILE):
        if (folder / network / cell / size / name).is_file():
            return folder / network / cell / size / name
    found = sorted({f"{f.parts[-4]} {f.parts[-2]}" for f in folder.glob(f"*/{cell}/*/{_FILE}*")})
    msg = f"`network`: no {network} {size} for {cell} in '{folder}'. For {cell} there are {', '.join(found) or 'none'}."
    raise ValueError(msg)


def _read_network(file: Path, var_names: pd.Index) -> tuple[sparse.csr_matrix, dict[str, int]]:
    # "NA" is no missing value but the name of a gene.
    edges = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    if not {"Gene1", "Gene2"} <= set(edges.columns):
        msg = f"Expected '{file}' to have the columns Gene1 and Gene2, found {_columns(edges)}."
        raise ValueError(msg)
    edges = edges[["Gene1", "Gene2"]].apply(lambda names: names.str.strip())
    edges = edges[edges["Gene1"] != edges["Gene2"]].drop_duplicates()
    row, column = (var_names.get_indexer(edges[name]) for name in ("Gene1", "Gene2"))
    known = (row >= 0) & (column >= 0)
    names = pd.unique(edges.to_numpy().ravel())
    if not known.any():
        msg = (
            f"'{file}' has no edge between genes of the expression. First names: {checks.some(names)}; first "
            f"var_names: {checks.some(var_names)}. Do both use the same identifiers?"
        )
        raise ValueError(msg)
    network = sparse.csr_matrix(
        (np.ones(known.sum(), dtype=np.float32), (row[known], column[known])), shape=(len(var_names), len(var_names))
    )
    counted = {
        "n_edges": int(known.sum()),
        "n_edges_read": len(edges),
        "n_edges_dropped": int((~known).sum()),
        "n_genes": len(names),
        "n_genes_missing": int((~np.isin(names, var_names)).sum()),
    }
    return network, counted
