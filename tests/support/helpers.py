"""What several test files need: the content of an AnnData as text, and one matrix in every container."""

import hashlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

ALIGNED = ("layers", "obsm", "varm", "obsp", "varp")


def digest(value: Any) -> str:
    """Return the sha256 of a value of any type a slot may hold: equal text means equal content, dtype and container."""
    sha = hashlib.sha256()
    _feed(sha, value)
    return sha.hexdigest()


def _feed(sha: Any, value: Any) -> None:
    sha.update(type(value).__name__.removesuffix("View").encode())
    if hasattr(value, "dask"):
        value = value.compute()
    if sparse.issparse(value):
        sha.update(f"{value.format}{value.shape}".encode())
        for part in (value.data, value.indices, value.indptr):
            _feed(sha, np.asarray(part))
    elif isinstance(value, pd.DataFrame):
        _feed(sha, list(value.columns))
        _feed(sha, value.index)
        for _, column in value.items():
            _feed(sha, column.array)
    elif isinstance(value, pd.Index | pd.api.extensions.ExtensionArray | pd.Series):
        sha.update(f"{value.dtype}{getattr(value, 'name', None)}{list(value)}".encode())
    elif isinstance(value, np.ndarray):
        array = np.asarray(value)
        sha.update(f"{array.dtype}{array.shape}".encode())
        sha.update(str(array.tolist()).encode() if array.dtype.kind in "OT" else np.ascontiguousarray(array).tobytes())
    elif isinstance(value, Mapping):
        for key in sorted(value):
            _feed(sha, key)
            _feed(sha, value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            _feed(sha, item)
    elif hasattr(value, "shape"):  # backed datasets
        _feed(sha, value[:])
    else:
        sha.update(repr(value).encode())


def content(data: Any) -> dict[str, str]:
    """Return slot -> digest of everything in an AnnData or MuData."""
    if type(data).__name__ == "MuData":
        whole = {f"{mod}/{slot}": text for mod in data.mod for slot, text in content(data.mod[mod]).items()}
        return {**whole, "obs": digest(data.obs), "var": digest(data.var), "uns": digest(dict(data.uns))}
    if not isinstance(data, ad.AnnData):
        return {"object": digest(data)}
    found = {"X": digest(data.X), "obs_names": digest(data.obs_names), "var_names": digest(data.var_names)}
    found["raw"] = digest(None if data.raw is None else [data.raw.X, data.raw.var])
    for frame in ("obs", "var"):
        table = getattr(data, frame)
        found |= {f"{frame}/{table.columns[i]}": digest(table.iloc[:, i]) for i in range(table.shape[1])}
    for slot in ALIGNED:
        found |= {f"{slot}/{key}": digest(getattr(data, slot)[key]) for key in getattr(data, slot)}
    return found | {f"uns/{key}": digest(data.uns[key]) for key in data.uns}


def containers() -> dict[str, Callable[[np.ndarray], Any]]:
    """Return name -> function that puts a dense matrix into one kind of container; all hold the same numbers."""
    return {
        "c_order": np.ascontiguousarray,
        "f_order": np.asfortranarray,
        "csr_matrix": sparse.csr_matrix,
        "csc_matrix": sparse.csc_matrix,
        "csr_array": sparse.csr_array,
        "csc_array": sparse.csc_array,
        "csr_unsorted": unsorted_csr,
        "csr_explicit_zeros": csr_with_zeros,
        "dask_rows": lambda x: _dask(x, (7, x.shape[1])),
        "dask_tiles": lambda x: _dask(x, (7, 5)),
        "dask_csr": lambda x: _dask(x, (7, x.shape[1])).map_blocks(sparse.csr_matrix),
        "dask_csc": lambda x: _dask(x, (7, x.shape[1])).map_blocks(sparse.csc_matrix),
    }


def _dask(x: np.ndarray, chunks: tuple[int, int]) -> Any:
    import dask.array as da

    return da.from_array(x, chunks=chunks)


def unsorted_csr(x: np.ndarray) -> sparse.csr_matrix:
    """Return CSR whose column indices run backwards in every row."""
    csr = sparse.csr_matrix(x)
    for start, stop in zip(csr.indptr[:-1], csr.indptr[1:], strict=True):
        csr.indices[start:stop] = csr.indices[start:stop][::-1].copy()
        csr.data[start:stop] = csr.data[start:stop][::-1].copy()
    csr.has_sorted_indices = False
    return csr


def csr_with_zeros(x: np.ndarray) -> sparse.csr_matrix:
    """Return CSR that stores every entry, the zeros too."""
    rows, columns = x.shape
    return sparse.csr_matrix(
        (x.ravel().copy(), np.tile(np.arange(columns), rows), np.arange(rows + 1) * columns), shape=x.shape
    )


def crowded_toy() -> ad.AnnData:
    """Return the toy data with something in every slot, so that a change anywhere shows."""
    from sctrellis import datasets, pp

    rng = np.random.default_rng(0)
    adata = datasets.toy()
    pp.split_edges(adata, "network", test_frac=0.1)
    adata.layers["expression"] = sparse.csr_matrix(adata.X)
    adata.raw = adata.copy()
    adata.obs["depth"] = rng.random(adata.n_obs)
    adata.obs["batch"] = pd.Categorical(rng.choice(["a", "b"], adata.n_obs))
    adata.obsm["X_pca"] = rng.random((adata.n_obs, 2))
    adata.obsp["distances"] = sparse.random(adata.n_obs, adata.n_obs, 0.1, "csr", rng=rng)
    adata.uns["batch_colors"] = np.array(["#000000", "#ffffff"], dtype=object)
    return adata


def fit(method: Any, adata: Any, **changes: Any) -> Any:
    """Call a line of ``METHODS`` with its options for tests, some of them changed."""
    return method.function(adata, **{**method.options, **changes})


def accepts(method: Any, argument: str) -> bool:
    """Return whether the function of a method has an argument."""
    return argument in inspect.signature(method.function).parameters
