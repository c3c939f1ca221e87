"""What every method that infers a network promises; a new method is one line in `tl/_methods.py`."""

import inspect
import random
from functools import cache

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
import torch
from helpers import accepts, containers, content, crowded_toy, digest, fit
from scipy import sparse

import sctrellis as tr
from sctrellis._core import record
from sctrellis.tl._methods import METHODS

# Toy data have few directions, of which RegNet warns.
pytestmark = pytest.mark.filterwarnings("ignore:The latent means of the genes:UserWarning")


@pytest.fixture(params=METHODS, ids=lambda m: m.name)
def method(request):
    """One line of the list of methods."""
    return request.param


def having(argument):
    """Parametrise over the methods whose function has an argument."""
    chosen = [m for m in METHODS if accepts(m, argument)]
    return pytest.mark.parametrize("method", chosen, ids=[m.name for m in chosen])


@cache
def _fitted(method_name):
    (method,) = (m for m in METHODS if m.name == method_name)
    adata = crowded_toy()
    fit(method, adata)
    return adata


def fitted(method):
    """Return the toy data with the method's result; fitted once a session, so hand out copies."""
    return _fitted(method.name).copy()


def new_slots(before, after):
    """Return the names of the slots that appeared, after asserting that nothing else changed."""
    changed = [slot for slot in before if after.get(slot) != before[slot]]
    assert not changed, f"changed: {changed}"
    return set(after) - set(before)


def assert_same_result(found, expected, method, *, exact=True):
    """Assert that two AnnData hold the same result of a method: every slot that its record names."""
    slots = record.read(expected, method.name)["slots"]
    assert record.read(found, method.name)["slots"] == slots
    for slot in slots.values():
        room, key = slot.split("/")
        one, other = getattr(found, room)[key], getattr(expected, room)[key]
        if exact:
            assert digest(one) == digest(other), slot
        else:
            assert_close(one, other)


def assert_close(one, other):
    """Assert that two slots agree to float32's precision, and that networks score the same pairs."""
    if sparse.issparse(other):
        np.testing.assert_array_equal(one.indptr, other.indptr)
        np.testing.assert_array_equal(one.indices, other.indices)
        one, other = one.data, other.data
    one, other = np.asarray(one), np.asarray(other)
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * np.nanmax(np.abs(other)))


# randomness


def test_same_seed_gives_the_same_bytes(method):
    again = crowded_toy()
    fit(method, again)
    assert content(again) == content(fitted(method))


def test_another_seed_gives_another_result_where_chance_has_a_part(method):
    other = crowded_toy()
    fit(method, other, seed=12345)
    differs = digest(other.varp[method.name]) != digest(fitted(method).varp[method.name])
    assert differs == method.stochastic


def test_a_seed_that_was_drawn_can_be_used_again(method):
    drawn, again = crowded_toy(), crowded_toy()
    fit(method, drawn, seed=None)
    seed = record.read(drawn, method.name)["seed"]
    assert isinstance(seed, int)
    fit(method, again, seed=seed)
    assert content(again) == content(drawn)


def test_global_random_states_are_left_alone(method):
    adata = crowded_toy()

    def states():
        kind, keys, *rest = np.random.get_state()  # noqa: NPY002
        return random.getstate(), (kind, keys.tolist(), *rest), torch.get_rng_state().tolist()

    before = states()
    fit(method, adata)
    assert states() == before


@having("n_jobs")
def test_the_number_of_workers_changes_nothing(method):
    adata = crowded_toy()
    fit(method, adata, n_jobs=2)
    if method.name == "deepsem":  # runs in threads, whose products may sum in another order
        assert_same_result(adata, fitted(method), method, exact=False)
    else:
        assert content(adata) == content(fitted(method))


# what is written, and what is not


def test_only_the_slots_of_the_record_appear(method):
    adata = crowded_toy()
    before = content(adata)
    assert fit(method, adata) is None
    added = new_slots(before, content(adata))
    assert added == {*record.read(adata, method.name)["slots"].values(), f"uns/{method.name}"}


def test_copy_leaves_the_input_alone(method):
    adata = crowded_toy()
    before = content(adata)
    returned = fit(method, adata, copy=True)
    assert content(adata) == before
    assert returned is not adata
    assert content(returned) == content(fitted(method))


def test_key_added_moves_every_slot(method):
    adata = crowded_toy()
    before = content(adata)
    fit(method, adata, key_added="mine")
    added = new_slots(before, content(adata))
    usual = new_slots(before, content(fitted(method)))

    def renamed(slot):
        room, key = slot.split("/")
        before, name, after = key.partition(method.name)
        assert name
        assert before in ("", "X_")
        return f"{room}/{before}mine{after}"

    assert added == {renamed(slot) for slot in usual}
    found, expected = record.read(adata, "mine"), record.read(fitted(method), method.name)
    assert found.pop("slots") == {name: renamed(slot) for name, slot in expected.pop("slots").items()}
    assert digest(found) == digest(expected)  # the name of the slot is no part of the run
    np.testing.assert_array_equal(adata.varp["mine"].data, fitted(method).varp[method.name].data)


def test_a_second_run_replaces_the_first(method):
    adata = fitted(method)
    adata.varp[method.name].data[:] = -5
    fit(method, adata)
    assert content(adata) == content(fitted(method))


def test_the_network(method):
    adata = fitted(method)
    network = adata.varp[method.name]
    assert isinstance(network, sparse.csr_matrix)
    assert network.dtype == np.float32
    assert network.has_canonical_format
    assert np.isfinite(network.data).all()
    regulators = np.flatnonzero(adata.var["is_regulator"])
    scored = network.astype(bool).astype(int)
    scored.data[:] = 1
    expected = np.zeros(network.shape, dtype=int)  # row = regulator, column = target; every pair but the self pairs
    expected[regulators] = 1
    np.fill_diagonal(expected, 0)
    np.testing.assert_array_equal(scored.toarray(), expected)


def test_the_record_is_complete(method):
    adata = fitted(method)
    found = record.read(adata, method.name)
    assert {"schema", "method", "versions", "params", "seed", "inputs", "slots"} <= set(found)
    assert found["schema"] == record.SCHEMA
    assert found["method"] == method.name
    assert found["versions"]["sctrellis"] == tr.__version__
    assert set(found["versions"]) == {"sctrellis", "torch", "numpy", "anndata"}
    arguments = inspect.signature(method.function).parameters
    assert set(found["params"]) == set(arguments) - record._LEFT_OUT
    for name, value in method.options.items():
        if name in found["params"]:
            assert np.array_equal(found["params"][name], value), name
    assert found["seed"] == found["params"]["seed"] == 0
    assert found["inputs"] == {
        "slot": "X",
        "n_obs": adata.n_obs,
        "n_vars": adata.n_vars,
        "var_names_sha256": record.genes_hash(adata.var_names),
    }
    assert found["slots"]["network"] == f"varp/{method.name}"
    for slot in found["slots"].values():
        room, key = slot.split("/")
        assert key in getattr(adata, room)


def test_get_record_reads_it(method):
    assert digest(tr.get.record(fitted(method), method.name)) == digest(record.read(fitted(method), method.name))


# the same data, held differently


# Every container reads the same (tests/_core/test_rows.py); these differ in memory order, sparsity and streaming.
@pytest.mark.parametrize("container", ["f_order", "csr_matrix", "csc_array", "csr_unsorted", "dask_rows", "dask_csc"])
def test_every_container_gives_the_same_result(method, container):
    adata = crowded_toy()
    adata.X = containers()[container](adata.X)
    before = content(adata)
    fit(method, adata)
    new_slots(before, content(adata))
    assert_same_result(adata, fitted(method), method)


def test_double_precision_gives_the_same_result(method):
    adata = crowded_toy()
    adata.X = adata.X.astype(np.float64)
    fit(method, adata)
    assert_same_result(adata, fitted(method), method)


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix], ids=["dense", "csr"])
def test_a_backed_file_gives_the_same_result_and_stays_as_it_is(method, form, tmp_path):
    adata = crowded_toy()
    adata.X = form(adata.X)
    adata.write_h5ad(tmp_path / "x.h5ad")
    file = (tmp_path / "x.h5ad").read_bytes()
    backed = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    assert fit(method, backed) is None
    assert backed.isbacked
    assert_same_result(backed, fitted(method), method, exact=not method.stochastic)
    backed.file.close()
    assert (tmp_path / "x.h5ad").read_bytes() == file


def test_layer_reads_the_layer_only(method):
    adata = crowded_toy()
    adata.layers["expression"] = adata.X.copy()
    adata.X = np.full(adata.shape, np.nan, dtype=np.float32)
    fit(method, adata, layer="expression")
    assert_same_result(adata, fitted(method), method)
    assert record.read(adata, method.name)["inputs"]["slot"] == "layers/expression"


@pytest.mark.parametrize("axis", ["cells", "genes"])
def test_a_view_gives_what_its_copy_gives(method, axis):
    parent = crowded_toy()
    before = content(parent)
    kept = np.random.default_rng(1).random(parent.n_obs if axis == "cells" else parent.n_vars) < 0.8
    view = parent[kept] if axis == "cells" else parent[:, kept]
    copied = view.copy()
    fit(method, view)
    fit(method, copied)
    assert content(view) == content(copied)
    assert content(parent) == before


def test_names_and_annotations_of_cells_change_nothing(method):
    adata = crowded_toy()
    adata.obs_names = [f"renamed{i}" for i in range(adata.n_obs)]
    adata.obs["depth"] = 0.0
    fit(method, adata)
    assert_same_result(adata, fitted(method), method)
    assert digest(adata.uns[method.name]) == digest(fitted(method).uns[method.name])


def test_the_order_of_genes_is_the_order_of_the_network(method):
    plain = crowded_toy()
    order = np.random.default_rng(1).permutation(plain.n_vars)
    permuted = plain[:, order].copy()
    fit(method, permuted)
    found, expected = permuted.varp[method.name], fitted(method)[:, order].varp[method.name].tocsr()
    expected.sort_indices()
    # Which pairs are scored follows the genes always.
    np.testing.assert_array_equal(found.indptr, expected.indptr)
    np.testing.assert_array_equal(found.indices, expected.indices)
    if method.follows_genes:
        np.testing.assert_allclose(found.data, expected.data, rtol=1e-4, atol=1e-5 * np.abs(expected.data).max())


@pytest.mark.parametrize("copy", [False, True])
def test_a_modality_of_a_mudata(method, copy):
    other = ad.AnnData(
        np.ones((60, 4), np.float32),
        obs=pd.DataFrame(index=crowded_toy().obs_names),
        var=pd.DataFrame(index=[f"peak{i}" for i in range(4)]),
    )
    with md.set_options(pull_on_update=False):  # else mudata itself adds columns to its copies
        mdata = md.MuData({"rna": crowded_toy(), "atac": other})
        before = content(mdata)
        returned = fit(method, mdata, mod="rna", copy=copy)
    if copy:
        assert content(mdata) == before
    else:
        assert returned is None
    result = returned if copy else mdata
    assert {slot.split("/")[0] for slot in new_slots(before, content(result))} == {"rna"}
    assert_same_result(result.mod["rna"], fitted(method), method)


# afterwards


def test_edges_follow_the_genes(method):
    adata = fitted(method)
    kept = np.random.default_rng(2).random(adata.n_vars) < 0.6
    names = set(adata.var_names[kept])
    edges = tr.get.edges(adata, method.name)
    expected = edges[edges["source"].isin(names) & edges["target"].isin(names)]
    found = tr.get.edges(adata[:, kept].copy(), method.name)
    order = ["source", "target"]
    pd.testing.assert_frame_equal(
        found.astype(dict.fromkeys(order, str)).sort_values(order, ignore_index=True),
        expected.astype(dict.fromkeys(order, str)).sort_values(order, ignore_index=True),
    )
    assert len(found) == np.sum(kept & adata.var["is_regulator"]) * (kept.sum() - 1)


@pytest.mark.parametrize("store", ["h5ad", "zarr"])
def test_results_survive_a_file(method, store, tmp_path):
    adata = fitted(method)
    getattr(adata, f"write_{store}")(tmp_path / "x")
    back = getattr(ad, f"read_{store}")(tmp_path / "x")
    for slot in record.read(adata, method.name)["slots"].values():
        room, key = slot.split("/")
        assert_close(getattr(back, room)[key], getattr(adata, room)[key])
        again, first = getattr(back[:, :], room)[key], getattr(adata, room)[key]
        if sparse.issparse(first):
            again, first = again.data, first.data
        np.testing.assert_array_equal(np.asarray(again), np.asarray(first))
    found, expected = tr.get.record(back, method.name), tr.get.record(adata, method.name)
    for part in set(expected) | set(found):
        if isinstance(expected[part], pd.DataFrame):
            pd.testing.assert_frame_equal(found[part], expected[part], check_index_type=False)
        else:
            assert digest(found[part]) == digest(expected[part]), part
    fit(method, back)
    assert_same_result(back, adata, method)


# devices


def test_it_runs_without_cuda(method, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    adata = crowded_toy()
    fit(method, adata)
    assert_same_result(adata, fitted(method), method, exact=not torch.version.cuda)


DEVICE = [m for m in METHODS if accepts(m, "device")]


@pytest.mark.parametrize("method", DEVICE, ids=[m.name for m in DEVICE])
@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_a_device_that_is_missing_raises(method, device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    adata = crowded_toy()
    before = content(adata)
    with pytest.raises(ValueError, match=r"`device[`=].*cuda"):
        fit(method, adata, device=device)
    assert content(adata) == before
