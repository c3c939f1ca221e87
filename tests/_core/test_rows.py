import anndata as ad
import numpy as np
import pytest
from helpers import containers
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

import sctrellis as tr
from sctrellis._core.rows import Rows

N_OBS, N_VARS = 41, 13
COLUMNS = np.array([2, 3, 7, 11])


def _matrix():
    rng = np.random.default_rng(0)
    x = rng.gamma(1.0, 1.0, (N_OBS, N_VARS)) * (rng.random((N_OBS, N_VARS)) < 0.5)
    return x.astype(np.float32)


def _assert_reads(rows, expected):
    """Every way of reading gives the same float32 numbers."""
    rng = np.random.default_rng(1)
    assert rows.shape == expected.shape
    blocks = list(rows.blocks(16))
    assert [len(b) for b in blocks] == [16, 16, 9]
    assert all(b.dtype == np.float32 and type(b) is np.ndarray and b.flags.c_contiguous for b in blocks)
    np.testing.assert_array_equal(np.concatenate(blocks), expected)
    for index in (
        rng.permutation(N_OBS),
        np.array([5, 5, 0, 40, 5, 39]),
        np.array([7]),
        np.array([], dtype=int),
        slice(3, 20),
        slice(10, 10),
    ):
        np.testing.assert_array_equal(rows.take(index), expected[index], err_msg=str(index))
    np.testing.assert_array_equal(rows.in_memory(), expected)


@pytest.mark.parametrize("container", containers())
@pytest.mark.parametrize("columns", [None, COLUMNS], ids=["all", "some"])
def test_every_container_reads_the_same(container, columns):
    x = _matrix()
    held = containers()[container](x)
    _assert_reads(Rows(held, columns), x if columns is None else x[:, columns])


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [
        (dtype, kind)
        for kind in (np.asarray, sparse.csr_matrix, sparse.csc_array)
        for dtype in ("float64", "float32", "float16", "int8", "int64", "uint16", "bool")
        if dtype != "float16" or kind is np.asarray  # SciPy has no sparse matrices of 16-bit floats
    ],
)
def test_every_number_type_reads_as_float32(dtype, kind):
    x = np.random.default_rng(0).poisson(1.0, (N_OBS, N_VARS)).astype(dtype)
    _assert_reads(Rows(kind(x)), x.astype(np.float32))


def test_numpy_matrix():
    x = _matrix()
    _assert_reads(Rows(np.asmatrix(x)), x)


def test_duplicate_entries_add_up():
    csr = sparse.csr_matrix((np.array([1.0, 2.0, 4.0]), np.array([1, 1, 0]), np.array([0, 2, 3])), shape=(2, 2))
    np.testing.assert_array_equal(Rows(csr).take(slice(None)), [[0, 3], [4, 0]])


@pytest.mark.parametrize("form", ["dense", "csr", "csc"])
@pytest.mark.parametrize("store", ["h5ad", "zarr"])
@pytest.mark.parametrize("columns", [None, COLUMNS], ids=["all", "some"])
def test_backed_reads_the_same(tmp_path, form, store, columns):
    x = _matrix()
    held = {"dense": np.asarray, "csr": sparse.csr_matrix, "csc": sparse.csc_matrix}[form](x)
    path = tmp_path / f"x.{store}"
    adata = ad.AnnData(held)
    expected = x if columns is None else x[:, columns]
    if store == "h5ad":
        adata.write_h5ad(path)
        backed = ad.read_h5ad(path, backed="r")
        rows = Rows(backed.X, columns)
        assert rows.streamed
        _assert_reads(rows, expected)
        backed.file.close()
    else:
        import zarr

        adata.write_zarr(path)
        group = zarr.open_group(path, mode="r")
        x_on_disk = group["X"] if form == "dense" else ad.io.sparse_dataset(group["X"])
        rows = Rows(x_on_disk, columns)
        assert rows.streamed
        _assert_reads(rows, expected)


def test_views_of_anndata_read_the_same():
    x = _matrix()
    mask = np.arange(N_OBS) % 2 == 0
    for held in (x, sparse.csr_matrix(x), sparse.csc_matrix(x)):
        view = ad.AnnData(held)[mask]
        np.testing.assert_array_equal(Rows(view.X).in_memory(), x[mask])


def test_in_memory_data_is_not_streamed():
    assert not Rows(_matrix()).streamed
    assert not Rows(sparse.csc_matrix(_matrix())).streamed


def test_taking_rows_never_changes_what_is_held():
    x = _matrix()
    held = x.copy()
    rows = Rows(held)
    rows.take(np.array([0, 1]))[:] = -1
    np.testing.assert_array_equal(held, x)


@pytest.mark.parametrize("container", ["c_order", "csr_matrix", "dask_csr"])
def test_select_composes(container):
    x = _matrix()
    rows = Rows(containers()[container](x))
    first = np.array([1, 4, 6, 9, 12])
    mask = np.array([True, False, True, False, True])
    np.testing.assert_array_equal(rows.select(first).select(mask).in_memory(), x[:, first][:, mask])
    np.testing.assert_array_equal(rows.select(np.arange(N_VARS) > 6).in_memory(), x[:, 7:])
    np.testing.assert_array_equal(rows.select(first).select(np.array([2, 0])).take(np.array([3])), x[3:4, [6, 1]])


@pytest.mark.parametrize("container", [*containers(), "backed"])
def test_summary_equals_numpy(tmp_path, container):
    x = _matrix()
    if container == "backed":
        ad.AnnData(sparse.csr_matrix(x)).write_h5ad(tmp_path / "x.h5ad")
        held = ad.read_h5ad(tmp_path / "x.h5ad", backed="r").X
    else:
        held = containers()[container](x)
    summary = Rows(held).summary
    exact = x.astype(np.float64)
    np.testing.assert_allclose(summary.mean, exact.mean(0), rtol=1e-10)
    np.testing.assert_allclose(summary.std, exact.std(0), rtol=1e-10)
    assert (summary.minimum, summary.maximum) == (x.min(), x.max())
    assert not summary.integral
    assert not summary.n_nonfinite.any()


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e5])
def test_summary_is_exact_under_large_offsets(offset):
    # Several blocks, and means far above the spread: naive sums of squares lose every digit here.
    x = (np.random.default_rng(0).normal(size=(1700, 6)) + offset).astype(np.float32)
    summary = Rows(x).summary
    exact = x.astype(np.float64)
    np.testing.assert_allclose(summary.mean, exact.mean(0), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(summary.std, exact.std(0), rtol=1e-10)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 30), st.integers(1, 4)),
        elements=st.floats(0, 1e4, width=32, allow_subnormal=False),
    )
)
def test_summary_equals_numpy_for_any_matrix(x):
    summary = Rows(x).summary
    exact = x.astype(np.float64)
    np.testing.assert_allclose(summary.mean, exact.mean(0), rtol=1e-10, atol=1e-300)
    np.testing.assert_allclose(summary.std, exact.std(0), rtol=1e-9, atol=1e-6)
    assert summary.integral == bool((x == np.rint(x)).all())


@pytest.mark.parametrize("value", [0.1, 1e-3, 123.4, 1e6])
def test_constant_genes_have_no_spread_at_all(value):
    x = np.full((1000, 2), value, dtype=np.float64)
    x[:, 1] += np.random.default_rng(0).normal(size=1000) * value
    std = Rows(x).summary.std
    assert std[0] == 0
    assert std[1] > 0


def test_nonfinite_values_are_counted_by_gene():
    x = _matrix()
    x[[0, 5, 40], 1] = np.nan
    x[3, 4], x[4, 4] = np.inf, -np.inf
    expected = np.zeros(N_VARS, int)
    expected[1], expected[4] = 3, 2
    for held in (x, sparse.csr_matrix(x)):
        np.testing.assert_array_equal(Rows(held).summary.n_nonfinite, expected)


def test_what_float32_cannot_hold_counts_as_infinite():
    x = np.ones((12, 2))
    x[3, 1] = 1e300
    np.testing.assert_array_equal(Rows(x).summary.n_nonfinite, [0, 1])


def test_whole_numbers_are_noticed():
    assert Rows(np.random.default_rng(0).poisson(3, (20, 3))).summary.integral
    assert Rows(np.ones((20, 3), bool)).summary.integral
    assert not Rows(np.full((20, 3), 0.5)).summary.integral


def test_in_memory_refuses_what_is_too_large(monkeypatch):
    monkeypatch.setattr(tr.settings, "max_dense_gb", 1e-6)
    with pytest.raises(ValueError, match=r"A dense copy of the matrix needs .* GB .*Select genes first"):
        Rows(sparse.random(1000, 1000, 0.01, "csr")).in_memory()


def test_only_read_blocks_become_dense():
    # 4e10 entries would be 160 GB: one pass of blocks must not try.
    rows = Rows(sparse.csr_matrix((200_000, 200_000)))
    assert rows.take(slice(100, 103)).sum() == 0
    np.testing.assert_array_equal(rows.select(np.array([3, 5])).summary.std, [0, 0])
