"""Bad input, as a user would bring it: one clear error or warning, and the object is left as it was."""

import warnings

import anndata as ad
import helpers
import mudata as md
import numpy as np
import pandas as pd
import pytest
import torch
from helpers import accepts, containers, content, crowded_toy, fit
from scipy import sparse

import sctrellis as tr
from sctrellis.tl._methods import METHODS

pytestmark = pytest.mark.filterwarnings("ignore:The latent means of the genes:UserWarning")


@pytest.fixture(params=METHODS, ids=lambda m: m.name)
def method(request):
    """One line of the list of methods."""
    return request.param


def having(argument):
    """Parametrise over the methods whose function has an argument."""
    chosen = [m for m in METHODS if accepts(m, argument)]
    return pytest.mark.parametrize("method", chosen, ids=[m.name for m in chosen])


def assert_raises(call, data, error, message):
    """Assert that a call raises, says why, warns of nothing before, and changes nothing."""
    before = content(data)
    with pytest.raises(error, match=message) as raised:
        call(data)
    assert content(data) == before
    assert type(raised.value) is error  # no library's own subclass, whose message would not be ours


# Values of X: data -> what is wrong with it.


def _nan(adata):
    adata.X[[1, 3], 2] = np.nan


def _inf(adata):
    adata.X[5, 4] = -np.inf


def _nan_in_csr(adata):
    _nan(adata)
    adata.X = sparse.csr_matrix(adata.X)


def _nan_in_dask(adata):
    _nan(adata)
    adata.X = containers()["dask_rows"](adata.X)


def _negative(adata):
    adata.X -= adata.X.mean(axis=0)


def _all_constant(adata):
    adata.X[:] = 0.3


def _no_x(adata):
    adata.X = None


def _object(adata):
    adata.X = adata.X.astype(object)


def _complex(adata):
    adata.X = adata.X.astype(complex)


def _duplicates(adata):
    names = adata.var_names.to_list()
    names[1] = names[7] = names[0]
    adata.var_names = names


def _blank_name(adata):
    adata.var_names = ["", *adata.var_names[1:]]


def _no_column(adata):
    del adata.var["is_regulator"]


def _no_regulator(adata):
    adata.var["is_regulator"] = False


def _text_column(adata):
    adata.var["is_regulator"] = np.where(adata.var["is_regulator"], "yes", "no")


VALUES = {
    "nan": (
        _nan,
        ValueError,
        r"`adata\.X` has 2 NaN or infinite values in 1 genes \('gene_2'\)\. Impute them",
    ),
    "inf": (_inf, ValueError, r"`adata\.X` has 1 NaN or infinite values in 1 genes \('gene_4'\)"),
    "nan_in_csr": (_nan_in_csr, ValueError, r"`adata\.X` has 2 NaN or infinite values in 1 genes"),
    "nan_in_dask": (_nan_in_dask, ValueError, r"`adata\.X` has 2 NaN or infinite values in 1 genes"),
    "negative": (_negative, ValueError, r"`adata\.X` has negative values \(minimum -\d.*\): it looks scaled.*`layer=`"),
    "all_constant": (_all_constant, ValueError, r"All 30 genes of `adata\.X` are constant over the cells"),
    "no_x": (_no_x, ValueError, r"`adata\.X` is None\. Name a layer with `layer=`, one of 'expression'"),
    "object": (_object, TypeError, r"`adata\.X` to hold numbers, found dtype object\. Convert it with `\.astype"),
    "complex": (_complex, TypeError, r"`adata\.X` to hold numbers, found dtype complex128"),
    "duplicate_genes": (
        _duplicates,
        ValueError,
        r"`adata\.var_names` has 1 duplicated names \('gene_0'\).*`adata = adata\[:, ~adata\.var_names\.duplicated",
    ),
    "blank_gene": (_blank_name, ValueError, r"`adata\.var_names` has 1 names that are empty.*position 0"),
    "no_regulators": (
        _no_column,
        KeyError,
        r"`regulators`: 'is_regulator' not found in `adata\.var`.*Run `sctrellis\.pp\.regulators\(adata, ",
    ),
    "no_regulator": (_no_regulator, ValueError, r"`adata\.var\['is_regulator'\]` is False for all 30 genes"),
    "regulators_as_text": (
        _text_column,
        TypeError,
        r"`adata\.var\['is_regulator'\]` to be Boolean.*dtype object",
    ),
}


@pytest.mark.filterwarnings("ignore:Variable names are not unique:UserWarning")
@pytest.mark.parametrize("case", VALUES)
def test_unusable_data(method, case):
    change, error, message = VALUES[case]
    adata = crowded_toy()
    change(adata)
    assert_raises(lambda data: fit(method, data), adata, error, message)


SHAPES = {
    "no_cells": (np.s_[:0], r"`adata` to have at least 10 cells, found 0: too few to relate genes"),
    "one_cell": (np.s_[:1], r"at least 10 cells, found 1"),
    "nine_cells": (np.s_[:9], r"at least 10 cells, found 9"),
    "one_gene": (np.s_[:, 9:10], r"`adata` to have at least 2 genes, found 1"),  # gene_9 is a regulator
}


@pytest.mark.parametrize("case", SHAPES)
@pytest.mark.parametrize("view", [False, True], ids=["whole", "view"])
def test_too_small_data(method, case, view):
    index, message = SHAPES[case]
    adata = crowded_toy()[index]
    adata = adata if view else adata.copy()
    assert_raises(lambda data: fit(method, data), adata, ValueError, message)
    assert adata.is_view == view


def test_no_genes(method):
    adata = crowded_toy()[:, :0].copy()
    assert_raises(lambda data: fit(method, data), adata, ValueError, r"at least 2 genes, found 0|False for all 0 genes")


MU = r"`adata` is a MuData: choose a modality with `mod=`, one of 'rna'\."
TYPES = {
    "frame": (lambda: crowded_toy().to_df(), TypeError, r"`adata` to be an AnnData.*found DataFrame\. Wrap it as"),
    "array": (lambda: crowded_toy().X, TypeError, r"`adata` to be an AnnData.*found ndarray\. Wrap it as"),
    "path": (lambda: "data.h5ad", TypeError, r"`adata` to be an AnnData \(or a MuData with `mod=`\), found str"),
    "none": (lambda: None, TypeError, r"`adata` to be an AnnData .*found NoneType"),
}

EDGES = pd.DataFrame({"source": ["gene_9"], "target": ["gene_0"]})
VECTORS = pd.DataFrame(np.ones((2, 2)), index=["gene_0", "gene_9"])
CALLS = {
    "pp.regulators": lambda data, **options: tr.pp.regulators(data, ["gene_9"], **options),
    "pp.network": lambda data, **options: tr.pp.network(data, EDGES, **options),
    "pp.split_edges": lambda data, **options: tr.pp.split_edges(data, "network", **options),
    "pp.gene_embedding": lambda data, **options: tr.pp.gene_embedding(data, VECTORS, **options),
    "pp.text_embedding": lambda data, **options: tr.pp.text_embedding(
        data, {"gene_0": "binds dna", "gene_9": "binds dna"}, **options
    ),
    "tl.evaluate": lambda data, **options: tr.tl.evaluate(data, "network", **options),
    **{f"tl.{m.name}": (lambda data, m=m, **options: fit(m, data, **options)) for m in METHODS},
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("case", TYPES)
def test_wrong_type(call, case):
    make, error, message = TYPES[case]
    assert_raises(CALLS[call], make(), error, message)


@pytest.mark.parametrize("call", CALLS)
def test_modality(call):
    with md.set_options(pull_on_update=False):
        mdata = md.MuData({"rna": crowded_toy()})
    assert_raises(CALLS[call], mdata, ValueError, MU)
    unknown = r"`mod`: 'adt' not found in `mdata\.mod`\. Available: 'rna'"
    assert_raises(lambda data: CALLS[call](data, mod="adt"), mdata, KeyError, unknown)
    unneeded = r"`mod='rna'` names a modality of a MuData, but `adata` is an AnnData\. Leave `mod` out"
    assert_raises(lambda data: CALLS[call](data, mod="rna"), crowded_toy(), ValueError, unneeded)


NAMED = [c for c in CALLS if c != "pp.split_edges"]  # which names its slots after the network


@pytest.mark.parametrize("call", NAMED)
@pytest.mark.parametrize(
    ("key", "error", "message"),
    [
        ("a/b", ValueError, r"`key_added` to be a non-empty name without '/'.*found 'a/b': h5ad and zarr use"),
        ("", ValueError, r"`key_added` to be a non-empty name"),
        (".hidden", ValueError, r"`key_added`.*found '\.hidden'"),
        (3, TypeError, r"`key_added` to be a str, found 3"),
    ],
)
def test_names_that_cannot_be_slots(call, key, error, message):
    assert_raises(lambda data: CALLS[call](data, key_added=key), crowded_toy(), error, message)


SEEDED = ["pp.split_edges", "pp.text_embedding", "tl.evaluate", *(f"tl.{m.name}" for m in METHODS)]


@pytest.mark.parametrize("call", SEEDED)
@pytest.mark.parametrize(
    ("seed", "error", "message"),
    [
        (-1, ValueError, r"`seed` to be at least 0, found -1"),
        (2**32, ValueError, r"`seed` to be below 2\*\*32 = 4294967296, found 4294967296"),
        (1.0, TypeError, r"`seed` to be an integer, found 1\.0"),
        ("1", TypeError, r"`seed` to be an integer, found '1'"),
        (True, TypeError, r"`seed` to be an integer, found True"),
    ],
)
def test_seed(call, seed, error, message):
    assert_raises(lambda data: CALLS[call](data, seed=seed), crowded_toy(), error, message)


@having("n_jobs")
@pytest.mark.parametrize(
    ("n_jobs", "error", "message"),
    [
        (0, ValueError, r"`n_jobs` to be -1 \(all cores\) or at least 1, found 0"),
        (-2, ValueError, r"`n_jobs` to be -1 \(all cores\) or at least 1, found -2"),
        (1.5, TypeError, r"`n_jobs` to be an integer or None, found 1\.5"),
    ],
)
def test_n_jobs(method, n_jobs, error, message):
    assert_raises(lambda data: fit(method, data, n_jobs=n_jobs), crowded_toy(), error, message)


DEVICE = [m for m in METHODS if accepts(m, "device")]


@pytest.mark.parametrize("method", DEVICE, ids=[m.name for m in DEVICE])
@pytest.mark.parametrize("device", ["gpu", "cuda:99", "tpu"])
def test_unknown_device(method, device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert_raises(lambda data: fit(method, data, device=device), crowded_toy(), ValueError, rf"`device[`=].*{device}")


def test_layer(method):
    message = r"`layer`: 'counts' not found in `adata\.layers`\. Available: 'expression'"
    assert_raises(lambda data: fit(method, data, layer="counts"), crowded_toy(), KeyError, message)


def test_layer_is_named_where_it_is_bad(method):
    adata = crowded_toy()
    adata.layers["scaled"] = adata.X - 3
    message = r"`adata\.layers\['scaled'\]` has negative values"
    assert_raises(lambda data: fit(method, data, layer="scaled"), adata, ValueError, message)


@having("regulators")
@pytest.mark.parametrize(
    ("regulators", "error", "message"),
    [
        (["STAT1", "GATA1"], ValueError, r"None of the 2 names in `regulators` is in `adata\.var_names`.*'gene_0'"),
        (["Gene_9"], ValueError, r"None of the 1 names.*1 of them match when case is ignored"),
        ([], ValueError, r"`regulators` is empty"),
        ("TFs", KeyError, r"`regulators`: 'TFs' not found in `adata\.var`\. Available: .*'is_regulator'"),
        ("offset", TypeError, r"`adata\.var\['offset'\]` to be Boolean"),
    ],
    ids=["other_identifiers", "other_case", "empty", "column", "number_column"],
)
def test_regulators(method, regulators, error, message):
    assert_raises(lambda data: fit(method, data, regulators=regulators), crowded_toy(), error, message)


# Doubtful data: a warning that says what to do, at the user's line, and a result.


def caught(call, adata):
    """Return the warnings of a call, after asserting that they point at the caller: here, `helpers.fit`."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        call(adata)
    assert {w.filename for w in found} <= {helpers.__file__}
    # That a small fit uses few dimensions is true, and another matter.
    return [text for w in found if not (text := str(w.message)).startswith("The latent means of the genes")]


def test_raw_counts_warn(method):
    adata = crowded_toy()
    adata.X = np.random.default_rng(0).poisson(np.expm1(adata.X / 2) * 20).astype(np.float32)
    (message,) = caught(lambda data: fit(method, data), adata)
    assert "`adata.X` holds only integers up to" in message
    assert "sc.pp.normalize_total(adata); sc.pp.log1p(adata)" in message
    assert method.name in adata.varp


def test_unlogged_values_warn(method):
    adata = crowded_toy()
    adata.X = np.expm1(adata.X)
    (message,) = caught(lambda data: fit(method, data), adata)
    assert "rarely pass 20. Run `sc.pp.log1p(adata)`" in message


def test_constant_genes_warn_and_get_no_edges(method):
    adata = crowded_toy()
    regulator = int(np.flatnonzero(adata.var["is_regulator"])[0])
    adata.X[:, [0, regulator]] = [0.0, 1.5]
    (message,) = caught(lambda data: fit(method, data), adata)
    first, second = sorted([0, regulator])
    assert f"2 of 30 genes are constant in `adata.X` ('gene_{first}', 'gene_{second}'); they get no edges" in message
    network = adata.varp[method.name]
    assert network[[0, regulator]].nnz == 0
    assert network[:, [0, regulator]].nnz == 0
    n_regulators = adata.var["is_regulator"].sum() - 1
    assert network.nnz == n_regulators * (30 - 3)
    assert np.isfinite(network.data).all()


@having("regulators")
def test_some_unknown_regulators_warn(method):
    names = ["gene_9", "gene_12", "STAT1"]
    (message,) = caught(lambda data: fit(method, data, regulators=names), adata := crowded_toy())
    assert message == "1 of 3 `regulators` are not in `adata.var_names` ('STAT1')."
    assert set(np.flatnonzero(np.diff(adata.varp[method.name].indptr))) == {9, 12}


# Unusual data that is fine.


@pytest.mark.parametrize(
    ("dtype", "form"),
    [("int64", np.asarray), ("uint16", sparse.csr_matrix), ("bool", np.asarray), ("bool", sparse.csc_matrix)],
    ids=["int", "csr_of_unsigned", "bool", "csc_of_bool"],
)
def test_whole_numbers_give_what_floats_give(method, dtype, form):
    # Small whole numbers may be anything, such as binarised expression: no warning, which would be an error here.
    x = np.random.default_rng(0).poisson(1.0, (60, 30)).clip(0, 1 if dtype == "bool" else 15)
    whole, floats = crowded_toy(), crowded_toy()
    whole.X, floats.X = form(x.astype(dtype)), x.astype(np.float32)
    fit(method, whole)
    fit(method, floats)
    np.testing.assert_array_equal(whole.varp[method.name].toarray(), floats.varp[method.name].toarray())
    assert whole.X.dtype == dtype


def test_duplicate_cell_names_do_no_harm(method):
    adata = crowded_toy()
    expected = adata.copy()
    fit(method, expected)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata.obs_names = ["cell"] * adata.n_obs
        fit(method, adata)
    np.testing.assert_array_equal(adata.varp[method.name].toarray(), expected.varp[method.name].toarray())


def test_a_backed_view_becomes_an_object_in_memory(method, tmp_path):
    crowded_toy().write_h5ad(tmp_path / "x.h5ad")
    backed = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    view, expected = backed[:50], crowded_toy()[:50].copy()
    fit(method, view)
    fit(method, expected)
    np.testing.assert_array_equal(view.varp[method.name].toarray(), expected.varp[method.name].toarray())
    backed.file.close()
