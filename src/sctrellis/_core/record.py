"""Build and read the record of a run in ``.uns[key]``."""

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from sctrellis._core import checks

SCHEMA = 1
_PACKAGES = ("sctrellis", "torch", "numpy", "anndata")
# Arguments that do not change a result: with them, two equal runs would write different records.
_LEFT_OUT = frozenset({"adata", "mdata", "copy", "progress", "n_jobs", "checkpoint", "save_model", "key_added"})


def arguments(function: Callable[..., Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of ``function`` as called, from its ``locals()``, less those that cannot change a result."""
    return {name: values[name] for name in inspect.signature(function).parameters if name not in _LEFT_OUT}


def genes_hash(var_names: Sequence[str]) -> str:
    """Return the sha256 of gene names, in order."""
    return hashlib.sha256("\n".join(map(str, var_names)).encode()).hexdigest()


def build(
    method: str,
    adata: Any,
    *,
    params: Mapping[str, Any],
    seed: int,
    slots: Mapping[str, str],
    layer: str | None = None,
    fit: Mapping[str, Any] | None = None,
    history: Mapping[str, Sequence[float]] | None = None,
    weights: Mapping[str, np.ndarray] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the record of a run, ready for ``.uns``.

    Parameters
    ----------
    method
        Name of the method.
    adata
        The AnnData that was read.
    params
        Every argument, defaults filled in; see :func:`arguments`.
    seed
        The seed really used.
    slots
        What is where, such as ``{"network": "varp/infosem"}``.
    layer
        Layer that was read; None is X.
    fit
        Facts of the fit: epochs, why it stopped, device.
    history
        One sequence of floats per loss part, one value per epoch.
    weights
        Arrays that rebuild the fitted model.
    extra
        Further entries of the method's own.
    """
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    record: dict[str, Any] = {
        "schema": SCHEMA,
        "method": method,
        "versions": versions,
        "params": {**params, "seed": seed} if "seed" in params else dict(params),
        "seed": seed,
        "inputs": {
            "slot": "X" if layer is None else f"layers/{layer}",
            "n_obs": adata.n_obs,
            "n_vars": adata.n_vars,
            "var_names_sha256": genes_hash(adata.var_names),
        },
        "slots": dict(slots),
    }
    if fit is not None:
        record["fit"] = dict(fit)
    if history is not None:
        frame = pd.DataFrame({str(k): np.asarray(v, dtype=np.float64) for k, v in history.items()})
        frame.index = pd.RangeIndex(len(frame)).astype(str)
        frame.index.name = "epoch"
        record["history"] = frame
    if weights is not None:
        record["weights"] = dict(weights)
    record.update(extra or {})
    return to_storable(record, f"uns[{method!r}]")


def read(adata: Any, key: str) -> dict[str, Any]:
    """Return the record at ``.uns[key]`` in plain Python types, the same before and after h5ad or zarr."""
    checks.has_slot("key", key, adata.uns.keys(), "adata.uns", "Run the `sctrellis.tl` function that writes it first.")
    record = adata.uns[key]
    if not isinstance(record, Mapping) or "schema" not in record:
        msg = f"`adata.uns[{key!r}]` is not a record written by sctrellis."
        raise ValueError(msg)
    if int(record["schema"]) > SCHEMA:
        msg = (
            f"`adata.uns[{key!r}]` has schema {record['schema']}; this version reads up to {SCHEMA}. Upgrade sctrellis."
        )
        raise ValueError(msg)
    return _plain(record)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, pd.DataFrame):
        frame = value.copy()
        if frame.index.name == "epoch":
            frame.index = frame.index.astype(int)
        return frame
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.ndim == 0:
        return value.item()
    if hasattr(value, "dtype") and not sparse.issparse(value):
        array = np.asarray(value)
        return array.astype(object).tolist() if array.dtype.kind in "OUT" else array
    return value


def to_storable(value: Any, path: str) -> Any:
    """Return ``value`` in types that survive h5ad and zarr unchanged; raises TypeError naming the path otherwise."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value, path)
    if isinstance(value, Enum):
        return to_storable(value.value, path)
    if isinstance(value, np.generic) and value.dtype.kind in "biuf" and value.dtype.itemsize <= 8:
        return value.item()
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            msg = f"{path}: {value} does not fit 64 bits."
            raise TypeError(msg)
        return value
    if isinstance(value, float):
        return value
    if isinstance(value, Path | np.dtype) or (type(value).__module__, type(value).__name__) == ("torch", "device"):
        return str(value)
    if isinstance(value, Mapping):
        for key in value:
            # A leading dot means a folder to h5ad ('.', '..') or zarr ('.zattrs'), and zarr reads a backslash as '/'.
            if not isinstance(key, str) or not key or "/" in key or "\\" in key or key.startswith("."):
                msg = f"{path}: key {key!r} must be a non-empty str without '/' or '\\', and not start with '.'."
                raise TypeError(msg)
            _text(key, f"{path}: key {key!r}")
        return {key: to_storable(item, f"{path}[{key!r}]") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return _array(value, path)
    if isinstance(value, np.ndarray):
        if np.ma.isMaskedArray(value):
            msg = f"{path}: a masked array loses its mask. Fill it first, as in `array.filled(np.nan)`."
            raise TypeError(msg)
        if _numeric(value.dtype):
            return np.asarray(value)
        if value.dtype.kind in "UO" and all(isinstance(v, str) for v in value.ravel()):
            for text in value.ravel():
                _text(text, path)
            return value.astype(object)
        msg = f"{path}: arrays of dtype {value.dtype} cannot be stored."
        raise TypeError(msg)
    if sparse.issparse(value) and value.format in ("csr", "csc") and _numeric(value.dtype):
        return value
    if isinstance(value, pd.DataFrame):
        return _frame(value, path)
    msg = f"{path}: {type(value).__name__} cannot be stored in h5ad and zarr."
    raise TypeError(msg)


def _numeric(dtype: Any) -> bool:
    # zarr has no floats above 64 bits.
    return dtype.kind in "biuf" and dtype.itemsize <= 8


def _text(value: str, path: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        msg = f"{path}: {value!r} is not valid text ({error.reason})."
        raise TypeError(msg) from None
    if "\0" in value:
        msg = f"{path}: {value!r} has a null character, which h5ad cannot store."
        raise TypeError(msg)
    return str(value)


def _array(value: Sequence[Any], path: str) -> np.ndarray:
    if len(value) == 0:
        return np.zeros(0)
    if all(isinstance(v, str) for v in value):
        return to_storable(np.array(value, dtype=object), path)
    if all(isinstance(v, bool | int | float | np.number | np.bool_) for v in value):
        return to_storable(np.array(value), path)  # integers above 64 bits make an object array
    msg = (
        f"{path}: a list must hold only numbers or only strings, found {checks.some(type(v).__name__ for v in value)}."
    )
    raise TypeError(msg)


def _frame(frame: pd.DataFrame, path: str) -> pd.DataFrame:
    frame = frame.copy()
    name = frame.index.name
    names = list(frame.columns) + ([] if name is None else [name])
    if not all(isinstance(c, str) and c and not {"/", "\\"} & {*c} and c[0] != "." and c != "_index" for c in names):
        msg = f"{path}: names of columns and of the index must be non-empty str without '/', and not '_index'."
        raise TypeError(msg)
    if len(set(names)) < len(names) or isinstance(frame.index, pd.MultiIndex):
        msg = f"{path}: names of columns and of the index must differ, and the index have one level."
        raise TypeError(msg)
    frame.index = frame.index.astype(str)
    frame.index.name = name
    for column in frame.columns:
        dtype = frame[column].dtype
        if isinstance(dtype, pd.CategoricalDtype):
            to_storable(dtype.categories.to_numpy(), f"{path}[{column!r}]")
        elif getattr(dtype, "kind", "O") == "O":
            if not all(isinstance(v, str) for v in frame[column]):
                msg = f"{path}[{column!r}]: a column must hold only numbers, Booleans or strings."
                raise TypeError(msg)
            frame[column] = frame[column].astype(object)  # h5ad refuses pandas' own string dtype
        elif not _numeric(dtype):
            msg = f"{path}[{column!r}]: dtype {dtype} cannot be stored."
            raise TypeError(msg)
    return frame
