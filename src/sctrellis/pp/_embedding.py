import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from scipy import sparse

from sctrellis._core import checks, logs, record, slots
from sctrellis._core.keys import Keys
from sctrellis.pp import _identifiers as identifiers
from sctrellis.pp import _read_table as tables

if TYPE_CHECKING:
    from anndata import AnnData

EMBEDDING = "embedding"
"""Default key of gene embeddings."""
_NAMES = ("genes", "names", "gene_names", "symbols", "index")
_VECTORS = ("vectors", "embedding", "embeddings", "X")


def gene_embedding(
    adata: "AnnData",
    vectors: Any,
    *,
    genes: Sequence[str] | None = None,
    match_case: bool = True,
    missing: Literal["nan", "error"] = "nan",
    key_added: str | None = None,
    mod: str | None = None,
    copy: bool = False,
) -> "AnnData | None":
    """Store one vector for each gene, such as a language model's; expression is not read.

    Parameters
    ----------
    adata
        AnnData, cells x genes, or a MuData with ``mod``.
    vectors
        Vectors with the names of their genes: a DataFrame (index = genes), a dict, an AnnData (observations = genes),
        or the path of a npz file (arrays ``genes`` and ``vectors``), a parquet or text table (genes in the index or the
        first column) or a h5ad file. Or an array, or the path of a npy file, shape (n, d), with ``genes``.
    genes
        Names of the n rows of an array that has none.
    match_case
        Whether ``Gata1`` and ``GATA1`` are different genes.
    missing
        What a gene without a vector gets: ``"nan"``, a row of NaN, or ``"error"``.
    key_added
        Key of what is written; None is ``"embedding"``.
    mod
        Modality of a MuData.
    copy
        Whether to return a copy instead of changing ``adata``.

    Returns
    -------
    `None`, or the copy if ``copy=True``. Sets:

    ``adata.varm[key_added]`` : float32, shape (n_vars, d)
        The vectors as they are, neither centred nor scaled; a gene without one is a row of NaN.
    ``adata.uns[key_added]`` : dict
        Record; ``coverage`` counts the genes with a vector.

    Raises
    ------
    ValueError
        Where names and rows differ in number, a gene occurs twice, values are infinite or missing in part of a row, no
        gene matches, a file holds pickled objects, or, with ``missing="error"``, a gene has no vector.
    TypeError
        Where ``vectors`` is nothing that holds vectors, or holds no numbers.
    FileNotFoundError
        Where there is no such file.

    Notes
    -----
    Nothing is unpickled. A row that is all NaN counts as missing.

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd, sctrellis as tr
    >>> adata = anndata.AnnData(np.ones((3, 2), dtype="float32"), var=pd.DataFrame(index=["GATA1", "HBB"]))
    >>> tr.pp.gene_embedding(adata, {"GATA1": [0.5, 1.0], "KLF1": [0.0, 2.0]})
    >>> adata.varm["embedding"]
    array([[0.5, 1. ],
           [nan, nan]], dtype=float32)
    """
    params = record.arguments(gene_embedding, locals())
    root, ad = slots.target(adata, copy=copy, mod=mod)
    key = Keys.for_method(EMBEDDING, key_added).base
    checks.choice("missing", missing, ("nan", "error"))
    checks.gene_names(ad.var_names)
    names, values = _vectors(vectors, genes)
    values, absent = _checked(values, names)

    codes, unique = identifiers.factorize(names)
    if (codes < 0).any():
        msg = (
            f"{(codes < 0).sum()} rows of `vectors` have a blank gene name (first: row "
            f"{np.flatnonzero(codes < 0)[0] + 1})."
        )
        raise ValueError(msg)
    if len(unique) < len(codes):
        repeated = unique[np.bincount(codes) > 1]
        msg = (
            f"{len(repeated)} genes occur more than once in `vectors` ({checks.some(repeated)}). Keep one vector for "
            "each."
        )
        raise ValueError(msg)
    matches = identifiers.match(unique, ad.var_names, match_case=match_case)
    if not matches.found.any():
        raise checks.no_match("vectors", list(unique), ad.var_names)
    position, row = matches.position[matches.found], np.flatnonzero(matches.found)
    twice = np.flatnonzero(np.bincount(position, minlength=ad.n_vars) > 1)
    if len(twice):
        msg = (
            f"{len(twice)} genes have more than one vector when case is ignored ({checks.some(ad.var_names[twice])}). "
            "Keep one "
            "for each, or pass `match_case=True`."
        )
        raise ValueError(msg)
    result = np.full((ad.n_vars, values.shape[1]), np.nan, dtype=np.float32)
    result[position] = np.where(absent[row, None], np.float32(np.nan), values[row])
    lacking = np.isnan(result[:, 0])
    if lacking.all():
        msg = "Every row of `vectors` that belongs to a gene of `adata.var_names` is NaN: no gene has a vector."
        raise ValueError(msg)
    if missing == "error" and lacking.any():
        msg = (
            f"{lacking.sum():,} of {ad.n_vars:,} genes have no vector in `vectors` "
            f"({checks.some(ad.var_names[lacking])}). "
            "Pass `missing='nan'` to give them rows of NaN, or drop these genes."
        )
        raise ValueError(msg)
    matches.warn("vectors")
    params |= {"vectors": tables.describe(vectors), "genes": tables.describe(genes)}
    extra = {"coverage": coverage(lacking, matches)}
    write(ad, key, result, record_of("gene_embedding", ad, key, params, seed=0, extra=extra))
    return root if copy else None


def coverage(lacking: np.ndarray, matches: identifiers.Matches) -> dict[str, int | float]:
    """Return how many genes have a vector, for the record; logs it."""
    found = int((~lacking).sum())
    logs.logger.info(
        "%d of %d genes (%.1f %%) have a vector; %d names given, %d not in the data, %d matched ignoring case",
        found,
        len(lacking),
        100 * found / len(lacking),
        len(matches.names),
        (~matches.found).sum(),
        (matches.how == identifiers.CASE).sum(),
    )
    return {
        "genes": found,
        "missing": int(lacking.sum()),
        "fraction": found / len(lacking),
        "given": len(matches.names),
        "unknown": int((~matches.found).sum()),
        "case_matches": int((matches.how == identifiers.CASE).sum()),
    }


def record_of(
    method: str, ad: Any, key: str, params: Mapping[str, Any], *, seed: int, extra: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the record of an embedding."""
    return record.build(method, ad, params=params, seed=seed, slots={"embedding": f"varm/{key}"}, extra=extra)


def write(ad: Any, key: str, values: np.ndarray, entry: Mapping[str, Any]) -> None:
    """Write an embedding and its record."""
    logs.added(slots.write(ad, varm={key: values}, uns={key: entry}))


def _vectors(vectors: Any, genes: Sequence[str] | None) -> tuple[Any, Any]:
    """Return gene names and vectors, from whatever holds them."""
    if isinstance(vectors, str | Path):
        names, values = _from_file(vectors, genes)
    elif isinstance(vectors, pd.DataFrame):
        names, values = vectors.index, vectors
    elif isinstance(vectors, Mapping):
        names, values = list(vectors), _stack(vectors)
    elif hasattr(vectors, "obs_names") and hasattr(vectors, "X"):
        names, values = vectors.obs_names, vectors.X
    elif isinstance(vectors, np.ndarray | list | tuple) or sparse.issparse(vectors):
        names, values = None, vectors
    else:
        msg = (
            "Expected `vectors` to be a DataFrame indexed by gene, a dict, an array with `genes`, an AnnData or a "
            "path, found "
            f"{type(vectors).__name__}."
        )
        raise TypeError(msg)
    if names is None:
        if genes is None:
            msg = (
                "`vectors` has no gene names, and rows without names cannot be trusted to be in the order of "
                "`adata.var_names`. Pass them as `genes=`, or a DataFrame indexed by gene."
            )
            raise ValueError(msg)
        if isinstance(genes, str):
            msg = f"Expected `genes` to be a list of gene names, found the str {genes!r}."
            raise TypeError(msg)
        return list(genes), values
    if genes is not None:
        msg = "`vectors` has gene names of its own: leave `genes` out, which names the rows of a plain array."
        raise ValueError(msg)
    return names, values


def _stack(vectors: Mapping[Any, Any]) -> np.ndarray:
    arrays = [np.asarray(value) for value in vectors.values()]
    shapes = {array.shape for array in arrays}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1:
        found = ", ".join(map(str, sorted(shapes)[:4])) or "none"
        msg = f"Expected the vectors of a dict to have one length, found the shapes {found}."
        raise ValueError(msg)
    return np.stack(arrays)


def _from_file(path: str | Path, genes: Sequence[str] | None) -> tuple[Any, Any]:
    """Return gene names (None where the file holds none) and vectors; the first bytes say what the file is."""
    content = tables.read_bytes("vectors", path)
    name = Path(path).name
    try:
        if content.startswith(b"\x93NUMPY"):
            return None, np.load(io.BytesIO(content), allow_pickle=False)
        if content.startswith(b"PK\x03\x04"):
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                return _from_npz({key: arrays[key] for key in arrays.files}, name, genes)
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        if str(error).startswith("`vectors`"):
            raise
        hint = (
            "Arrays of Python objects need pickle, which can run code: store names as `np.array(names, dtype=str)`"
            if "allow_pickle" in str(error)
            else f"{error}; write it again"
        )
        msg = f"`vectors`: '{name}' cannot be read. {hint}."
        raise ValueError(msg) from error
    if content.startswith(b"\x89HDF"):
        import anndata

        try:
            stored = anndata.read_h5ad(path)
        except (OSError, KeyError, ValueError) as error:
            msg = f"`vectors`: '{name}' cannot be read as h5ad ({error}). Is it whole, and not compressed as a whole?"
            raise ValueError(msg) from error
        return stored.obs_names, stored.X
    if content.startswith(b"PAR1"):
        frame = pd.read_parquet(io.BytesIO(content))
        # A parquet file written without its index keeps the genes as a column.
        text = [i for i, dtype in enumerate(frame.dtypes) if not pd.api.types.is_numeric_dtype(dtype)]
        if isinstance(frame.index, pd.RangeIndex) and len(text) == 1:
            return frame.iloc[:, text[0]], frame.drop(columns=frame.columns[text[0]])
        return frame.index, frame
    frame = tables.read_table("vectors", path)
    return frame.iloc[:, 0], frame.iloc[:, 1:].replace("", np.nan)


def _from_npz(arrays: Mapping[str, np.ndarray], name: str, genes: Sequence[str] | None) -> tuple[Any, Any]:
    vectors = next((arrays[key] for key in _VECTORS if key in arrays), None)
    names = next((arrays[key] for key in _NAMES if key in arrays), None)
    if vectors is None or (names is None and genes is None):
        msg = (
            f"`vectors`: expected '{name}' to hold the arrays 'genes' and 'vectors', found "
            f"{checks.some(arrays, 8) or 'none'}."
        )
        raise ValueError(msg)
    return names, vectors


def _checked(values: Any, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return vectors as float32, shape (n, d), and which of them are missing."""
    if sparse.issparse(values):
        checks.dense_size(values.shape, "A dense copy of `vectors`", "Reduce their dimension first.")
        values = values.toarray()
    if isinstance(values, pd.DataFrame):
        text = [column for column in values if not pd.api.types.is_numeric_dtype(values[column])]
        if text:
            try:
                values = values.astype(np.float64)
            except (ValueError, TypeError) as error:
                msg = f"Expected `vectors` to hold numbers; column {text[0]!r} does not ({error})."
                raise TypeError(msg) from error
    try:
        array = np.asarray(values, dtype=np.float64)
    except (ValueError, TypeError) as error:
        msg = f"Expected `vectors` to hold numbers in rows of one length, found {type(values).__name__} ({error})."
        raise TypeError(msg) from error
    if array.ndim != 2 or 0 in array.shape:
        msg = f"Expected `vectors` to have shape (genes, dimensions), both at least 1; found {array.shape}."
        raise ValueError(msg)
    if len(array) != len(names):
        hint = " Is the first row a header? Drop it with `vectors[1:]`." if len(array) == len(names) + 1 else ""
        msg = (
            f"Expected one gene name for each row of `vectors`, found {len(names):,} names and {len(array):,} "
            f"rows.{hint}"
        )
        raise ValueError(msg)
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)  # beyond its range a value becomes infinite, and is refused below
    gaps = np.isnan(array)
    absent = np.asarray(gaps.all(axis=1))
    broken = np.flatnonzero(np.isinf(array).any(axis=1) | (gaps.any(axis=1) & ~absent))
    if len(broken):
        named = np.asarray(names, dtype=object)[broken]
        msg = (
            f"{len(broken)} rows of `vectors` hold infinite values, or NaN beside numbers ({checks.some(named)}). "
            "Drop them, or "
            "make them NaN throughout to mark genes without a vector."
        )
        raise ValueError(msg)
    return array, absent
