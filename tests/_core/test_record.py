import hashlib
import math
import sys
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

from sctrellis._core import record


def _adata():
    rng = np.random.default_rng(0)
    return ad.AnnData(
        rng.random((4, 3), dtype=np.float32),
        obs=pd.DataFrame(index=[f"c{i}" for i in range(4)]),
        var=pd.DataFrame(index=["a", "b", "c"]),
    )


def _stored(value, tmp_path):
    """Read `value` back as it was given, from memory, from h5ad and from zarr."""
    adata = _adata()
    adata.uns["k"] = {"schema": 1, "value": record.to_storable(value, "uns['k']")}
    adata.write_h5ad(tmp_path / "x.h5ad")
    adata.write_zarr(tmp_path / "x.zarr")
    files = ad.read_h5ad(tmp_path / "x.h5ad"), ad.read_zarr(tmp_path / "x.zarr")
    return [record.read(a, "k")["value"] for a in (adata, *files)]


def _assert_same(found, expected):
    if isinstance(expected, dict):
        assert isinstance(found, dict)
        assert set(found) == set(expected)
        for key, value in expected.items():
            _assert_same(found[key], value)
    elif isinstance(expected, pd.DataFrame):
        pd.testing.assert_frame_equal(found, expected, check_index_type=False, check_column_type=False)
    elif sparse.issparse(expected):
        assert (found.format, found.shape, found.dtype) == (expected.format, expected.shape, expected.dtype)
        np.testing.assert_array_equal(found.data, expected.data)  # explicit zeros too
        np.testing.assert_array_equal(found.indices, expected.indices)
        np.testing.assert_array_equal(found.indptr, expected.indptr)
    elif isinstance(expected, np.ndarray):
        assert isinstance(found, np.ndarray)
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        np.testing.assert_array_equal(found, expected)
    else:
        assert type(found) is type(expected)
        assert found == expected or (math.isnan(found) and math.isnan(expected))


class _Mode(Enum):
    FAST = "fast"


_FRAME = pd.DataFrame(
    {"loss": [1.5, np.nan], "n": [1, 2], "good": [True, False], "gene": ["a", ""], "kind": pd.Categorical(["u", "v"])},
    index=["x", "y"],
)
_KEPT = {
    "none": None,
    "true": True,
    "int": -(2**63),
    "large": 2**63 - 1,
    "float": 0.1,
    "nan": float("nan"),
    "inf": float("-inf"),
    "str": "é ☃ 'quoted'",
    "empty_str": "",
    "empty_dict": {},
    "nested": {"a": {"b": {"c": None, "d e": "f"}}, "g.h": 1},
    "float32": np.arange(6, dtype=np.float32).reshape(2, 3),
    "float16": np.arange(3, dtype=np.float16),
    "uint64": np.array([2**64 - 1], dtype=np.uint64),
    "bool_array": np.array([True, False]),
    "empty_array": np.zeros((0, 3)),
    "csr": sparse.csr_matrix(([0.0, 2.0], ([0, 1], [2, 0])), shape=(3, 3)),
    "csc": sparse.csc_matrix(np.eye(3, dtype=np.float32)),
    "frame": _FRAME,
    "no_rows": _FRAME[["loss", "n"]].iloc[:0],
}


@pytest.mark.parametrize("name", _KEPT)
def test_permitted_types_survive_both_formats(tmp_path, name):
    for found in _stored(_KEPT[name], tmp_path):
        _assert_same(found, _KEPT[name])


_CONVERTED = {
    "tuple": ((1, 2), np.array([1, 2])),
    "floats": ([1, 2.5, True], np.array([1.0, 2.5, 1.0])),
    "strings": (("a", ""), ["a", ""]),
    "string_array": (np.array(["a", "bc"]), ["a", "bc"]),
    "string_table": (np.array([["a", "b"], ["c", "d"]]), [["a", "b"], ["c", "d"]]),
    "numpy_str": (np.str_("a"), "a"),
    "numpy_int": (np.int8(3), 3),
    "numpy_bool": (np.bool_(True), True),
    "numpy_float": (np.float32(0.5), 0.5),
    "zero_dimensional": (np.array(2.5), 2.5),
    "matrix": (np.asmatrix([[1, 2]]), np.array([[1, 2]])),
    "enum": (_Mode.FAST, "fast"),
    "path": (Path("a") / "b", "a/b"),
    "dtype": (np.dtype("float32"), "float32"),
    "device": (torch.device("cpu"), "cpu"),
    "integer_index": (_FRAME[["n"]].set_axis([0, 1]), _FRAME[["n"]].set_axis(["0", "1"])),
    "pandas_strings": (_FRAME[["gene"]].astype("string"), _FRAME[["gene"]]),
}


@pytest.mark.parametrize("name", _CONVERTED)
def test_converted_types_are_the_same_everywhere(tmp_path, name):
    given_, expected = _CONVERTED[name]
    for found in _stored(given_, tmp_path):
        _assert_same(found, expected)


@dataclass(frozen=True)
class _Config:
    lr: float = 0.1


_COLUMN = pd.DataFrame({"a": [1.0]}, index=["r"])
_FORBIDDEN = {
    "set": {1, 2},
    "frozenset": frozenset("a"),
    "series": pd.Series([1.0]),
    "index": pd.Index(["a"]),
    "bytes": b"a",
    "complex": 1j,
    "complex_array": np.zeros(2, complex),
    "large_int": 2**63,
    "large_ints": [1, 2**70],
    "mixed_list": [1, "a"],
    "none_in_list": ["a", None],
    "nested_list": [[1, 2], [3, 4]],
    "dicts_in_list": [{"a": 1}],
    "object_array": np.array([1, "a"], dtype=object),
    "structured": np.zeros(2, dtype=[("a", int)]),
    "dates": np.array(["2020-01-01"], dtype="datetime64[ns]"),
    "date": np.datetime64("2020-01-01", "ns"),
    "timedelta": np.timedelta64(1, "ns"),
    "timestamp": pd.Timestamp("2020-01-01"),
    "missing": pd.NA,
    "masked": np.ma.array([1.0, 2.0], mask=[False, True]),
    "null_character": "a\0b",
    "null_in_list": ["a\0b"],
    "surrogate": "\ud800",
    "coo": sparse.coo_matrix(np.eye(2)),
    "complex_sparse": sparse.csr_matrix(np.eye(2, dtype=complex)),
    "tensor": torch.zeros(2),
    "module": torch.nn.Linear(2, 2),
    "module_type": sys,
    "dataclass": _Config(),
    "function": len,
    "generator": np.random.default_rng(0),
    "date_column": pd.DataFrame({"a": pd.to_datetime(["2020-01-01"])}, index=["r"]),
    "mixed_column": pd.DataFrame({"a": [1, "x"]}, index=["r", "s"]),
    "missing_text": pd.DataFrame({"a": ["x", None]}, index=["r", "s"]),
    "complex_column": pd.DataFrame({"a": [1j]}, index=["r"]),
    "date_categories": pd.DataFrame({"a": pd.Categorical(pd.to_datetime(["2020-01-01"]))}, index=["r"]),
    "integer_column_name": pd.DataFrame([[1.0]], index=["r"]),
    "slash_column_name": _COLUMN.rename(columns={"a": "a/b"}),
    "reserved_column_name": _COLUMN.rename(columns={"a": "_index"}),
    "repeated_column_name": pd.concat([_COLUMN, _COLUMN], axis=1),
    "index_named_as_column": _COLUMN.rename_axis("a"),
    "two_level_index": _COLUMN.set_axis(pd.MultiIndex.from_tuples([("r", "s")])),
}
if np.dtype(np.longdouble).itemsize > 8:
    _FORBIDDEN["long_double"] = np.longdouble(1)
    _FORBIDDEN["long_doubles"] = np.ones(2, np.longdouble)


@pytest.mark.parametrize("name", _FORBIDDEN)
def test_forbidden_types_raise_and_name_the_path(name):
    with pytest.raises(TypeError, match=r"^uns\['k'\]\['params'\]\['here'\]"):
        record.to_storable({"params": {"fine": 1, "here": _FORBIDDEN[name]}}, "uns['k']")


@pytest.mark.parametrize("key", ["a/b", "", 1, None, ("a",), ".", "..", ".zattrs", "a\\b", "a\0", "\ud800"])
def test_forbidden_keys_raise_and_name_the_path(key):
    with pytest.raises(TypeError, match=r"^uns\['k'\]\['params'\]: key "):
        record.to_storable({"params": {key: 1}}, "uns['k']")


_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
_KEYS = _TEXT.filter(lambda k: k and not {"/", "\\"} & {*k} and not k.startswith("."))
_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | _TEXT
    | st.lists(_TEXT, min_size=1, max_size=3)
    | hnp.arrays(
        st.sampled_from(["float64", "float32", "int64", "uint8", "bool"]),
        hnp.array_shapes(min_dims=1, max_dims=2, min_side=0, max_side=3),
    )
)


# Each example writes two files; shrinking a failure would take minutes.
@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.dictionaries(
        _KEYS,
        st.recursive(_LEAVES, lambda inner: st.dictionaries(_KEYS, inner, max_size=3), max_leaves=4),
        min_size=1,
        max_size=6,
    )
)
def test_any_nested_record_survives_both_formats(tmp_path, value):
    for found in _stored(value, tmp_path):
        _assert_same(found, value)


def _tool(adata, regulators=None, *, lr=0.1, n_jobs=1, copy=False, progress=None, key_added=None, seed=0):
    """Stand in for a function of `tl`."""
    return record.arguments(_tool, locals())


def test_arguments_are_those_that_can_change_a_result():
    assert _tool("x", lr=0.5, n_jobs=3, copy=True, seed=None) == {"regulators": None, "lr": 0.5, "seed": None}


def _build(**changes):
    options = {
        "params": {"lr": 0.1, "seed": None, "regulators": ("a", "b")},
        "seed": 7,
        "slots": {"network": "varp/m"},
        "layer": "log",
        "fit": {"epochs": 2, "device": torch.device("cpu")},
        "history": {"loss": [2.0, 1.0]},
        "weights": {"w": np.eye(2, dtype=np.float32)},
        "extra": {"method_of_its_own": 3},
    }
    return record.build("m", _adata(), **(options | changes))


def test_build_is_complete():
    found = _build()
    assert set(found["versions"]) == {"sctrellis", "torch", "numpy", "anndata"}
    assert found["versions"]["numpy"] == np.__version__
    assert found["params"]["seed"] == 7  # the seed really used, so that the parameters alone repeat the run
    assert found["inputs"] == {
        "slot": "layers/log",
        "n_obs": 4,
        "n_vars": 3,
        "var_names_sha256": hashlib.sha256(b"a\nb\nc").hexdigest(),
    }
    assert found["fit"] == {"epochs": 2, "device": "cpu"}
    assert found["method_of_its_own"] == 3
    assert _build(layer=None)["inputs"]["slot"] == "X"
    assert not {"fit", "history", "weights"} & set(_build(fit=None, history=None, weights=None))


def test_build_names_the_path_of_what_cannot_be_stored():
    with pytest.raises(TypeError, match=r"^uns\['m'\]\['params'\]\['x'\]: set cannot be stored"):
        _build(params={"x": {1}})


def test_genes_hash_depends_on_names_and_order():
    assert record.genes_hash(["a", "b"]) == hashlib.sha256(b"a\nb").hexdigest()
    assert record.genes_hash(["a", "b"]) != record.genes_hash(["b", "a"])


def test_equal_runs_write_equal_records():
    _assert_same(_build(), _build())
    assert "/" not in repr(_build()["versions"])


def test_whole_record_survives_both_formats(tmp_path):
    adata = _adata()
    adata.uns["m"] = _build()
    first = record.read(adata, "m")
    assert first["params"]["regulators"] == ["a", "b"]
    assert first["history"].index.tolist() == [0, 1]
    assert first["history"].index.name == "epoch"
    adata.write_h5ad(tmp_path / "x.h5ad")
    adata.write_zarr(tmp_path / "x.zarr")
    for back in (ad.read_h5ad(tmp_path / "x.h5ad"), ad.read_zarr(tmp_path / "x.zarr")):
        _assert_same(record.read(back, "m"), first)


def test_reading_does_not_change_the_record():
    adata = _adata()
    adata.uns["m"] = _build()
    record.read(adata, "m")["history"]["loss"] = 0.0
    record.read(adata, "m")["fit"]["epochs"] = 9
    _assert_same(adata.uns["m"], _build())


def test_read_errors():
    adata = _adata()
    with pytest.raises(KeyError, match=r"`key`: 'm' not found in `adata.uns`. Available: none. Run the"):
        record.read(adata, "m")
    adata.uns |= {"other": {"params": {}}, "text": "a", "newer": {"schema": 2}}
    for key in ("other", "text"):
        with pytest.raises(ValueError, match=rf"`adata.uns\['{key}'\]` is not a record written by sctrellis"):
            record.read(adata, key)
    with pytest.raises(ValueError, match=r"has schema 2; this version reads up to 1\. Upgrade sctrellis"):
        record.read(adata, "newer")
