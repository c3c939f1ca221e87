import mudata as md
import numpy as np
import pandas as pd
import pytest
from element_sets import add_sets, with_sets
from helpers import content, digest
from planted import plant
from scipy import sparse

import sctrellis as tr
from sctrellis import datasets


@pytest.fixture(scope="module")
def simulated():
    """Sets and surrogate are the truth, so that what is found must be too."""
    mdata = with_sets(600, n_targets=4)
    plant(mdata)
    return mdata


@pytest.fixture
def mdata(simulated):
    return simulated.copy()


@pytest.fixture(scope="module")
def fitted(simulated):
    mdata = simulated.copy()
    tr.tl.redundancy(mdata, n_boot=300)
    return mdata


def table(mdata, name, key="grids_redundancy"):
    return tr.get.record(mdata, key)[name]


def test_effects_are_the_true_ones(fitted):
    for task in table(fitted, "tasks").itertuples():
        own = table(fitted, "elements").query("target == @task.target")
        assert task.whole == pytest.approx(datasets.true_drop(fitted, task.target, list(own["peak"])), abs=1e-5)
        for row in own.itertuples():
            assert row.single == pytest.approx(datasets.true_drop(fitted, task.target, [row.peak]), abs=1e-5)
        assert own["shapley"].sum() == pytest.approx(task.whole, abs=1e-5)
        assert task.additivity == pytest.approx(task.whole / own["single"].sum(), rel=1e-4)
        assert task.redundancy == pytest.approx(1 - own["single"].max() / task.whole, abs=1e-4)
        assert task.whole_low < task.whole < task.whole_high
        assert task.exact


def test_pairs_of_a_gate_are_called_and_no_others(fitted):
    truth = fitted.uns["truth"]
    gate = {(t, p): (g, i) for t, p, g, i in truth[["target", "peak", "gate", "gate_id"]].itertuples(index=False)}
    sizes = truth.groupby(["target", "gate_id"]).size()
    for pair in table(fitted, "pairs").itertuples():
        one, other = gate[pair.target, pair.peak_a], gate[pair.target, pair.peak_b]
        together = one == other
        if not together:
            assert (pair.call, pair.call_within) == ("none", "none")
            assert abs(pair.epsilon) < 1e-5
            continue
        expected = "redundant" if one[0] == "OR" else "cooperative"
        assert np.sign(pair.epsilon) == (1 if one[0] == "OR" else -1)
        assert pair.call_within == expected
        if sizes[pair.target, one[1]] == 2:
            assert pair.call == expected


def test_the_network_is_the_pairs(fitted):
    network = fitted["atac"].varp["grids_epistasis"]
    assert isinstance(network, sparse.csr_matrix)
    assert network.dtype == np.float32
    assert abs(network - network.T).max() == 0
    names = fitted["atac"].var_names
    pairs = table(fitted, "pairs")
    found = network[names.get_indexer(pairs["peak_a"]), names.get_indexer(pairs["peak_b"])]
    np.testing.assert_allclose(np.asarray(found).ravel(), pairs["epsilon"], rtol=1e-6)
    assert network.nnz <= 2 * len(pairs)


def test_a_pair_in_two_sets_keeps_the_larger_value(mdata):
    twice = pd.concat([mdata.uns["grids"]["sets"], mdata.uns["grids"]["sets"].assign(group="group_0")])
    mdata.uns["grids"]["sets"] = twice.drop_duplicates(["group", "target", "peak"]).reset_index(drop=True)
    tasks = pd.concat([mdata.uns["grids"]["tasks"], mdata.uns["grids"]["tasks"].assign(group="group_0")])
    mdata.uns["grids"]["tasks"] = tasks.drop_duplicates(["group", "target"]).reset_index(drop=True)
    tr.tl.redundancy(mdata, n_boot=0)
    pairs = table(mdata, "pairs")
    names = mdata["atac"].var_names
    largest = pairs.assign(size=pairs["epsilon"].abs()).groupby(["peak_a", "peak_b"])["size"].max()
    network = mdata["atac"].varp["grids_epistasis"]
    for (a, b), value in largest.items():
        assert abs(network[names.get_loc(a), names.get_loc(b)]) == pytest.approx(value, rel=1e-5, abs=1e-12)
    assert len(pairs) > len(largest)


def test_expression_before_and_after(fitted):
    curves = table(fitted, "expression")
    for task in table(fitted, "tasks").itertuples():
        own = curves.query("target == @task.target")
        assert own["quantile"].tolist() == pytest.approx(np.linspace(0, 1, 101).tolist())
        middle = slice(0, 101)
        drop = np.trapezoid((own["before"] - own["after"]).to_numpy()[middle], own["quantile"])
        assert drop == pytest.approx(task.whole, rel=0.05)


def test_openness_is_that_of_the_cells(fitted):
    atac, obs = fitted["atac"], fitted.obs
    row = table(fitted, "elements").iloc[0]
    cells = ((obs["cell_group"] == row["group"]) & (obs["cell_split"] == "test")).to_numpy()
    column = atac.X[cells][:, atac.var_names.get_loc(row["peak"])]
    assert row["p_open"] == pytest.approx(column.mean())
    n_cells = table(fitted, "tasks").set_index("target").loc[row["target"], "n_cells"]
    assert n_cells == cells.sum()


def test_up_turns_the_sign(mdata):
    mdata.uns["grids"]["params"]["direction"] = "up"
    tr.tl.redundancy(mdata, n_boot=0)
    entry = tr.get.record(mdata, "grids_redundancy")
    assert entry["sign"] == 1
    assert (entry["tasks"]["whole"] < 0).all()


def test_only_its_slots_are_written(simulated, mdata):
    before = content(mdata)
    assert tr.tl.redundancy(mdata, n_boot=20) is None
    after = content(mdata)
    assert {slot for slot in after if after[slot] != before.get(slot)} == {"atac/varp/grids_epistasis", "uns"}
    assert set(mdata.uns) - set(simulated.uns) == {"grids_redundancy"}


def test_copy_and_key_added(mdata):
    before = content(mdata)
    copied = tr.tl.redundancy(mdata, n_boot=20, key_added="mine", copy=True)
    assert content(mdata) == before
    assert {"mine_redundancy"} == set(copied.uns) - set(mdata.uns)
    assert "mine_epistasis" in copied["atac"].varp


def test_runs_are_equal_and_sets_do_not_depend_on_one_another(mdata, fitted):
    tr.tl.redundancy(mdata, n_boot=300)
    assert digest(mdata.uns["grids_redundancy"]) == digest(fitted.uns["grids_redundancy"])
    target = mdata.uns["targets"]["target"].iloc[1]
    tr.tl.redundancy(mdata, n_boot=300, targets=[target])
    alone, among = table(mdata, "pairs"), table(fitted, "pairs").query("target == @target")
    pd.testing.assert_frame_equal(alone.reset_index(drop=True), among.reset_index(drop=True))
    tr.tl.redundancy(mdata, n_boot=300, targets=[target], seed=1)
    other = table(mdata, "pairs")
    assert not np.array_equal(other["epsilon_low"], alone["epsilon_low"])
    np.testing.assert_array_equal(other["epsilon"], alone["epsilon"])


@pytest.mark.parametrize("form", ["h5mu", "zarr"])
def test_it_survives_a_file(fitted, form, tmp_path):
    if form == "h5mu":
        fitted.write(tmp_path / "x.h5mu")
        back = md.read_h5mu(tmp_path / "x.h5mu")
    else:
        fitted.write_zarr(tmp_path / "x.zarr")
        back = md.read_zarr(tmp_path / "x.zarr")
    for name in ("tasks", "elements", "pairs", "expression"):
        found, expected = table(back, name), table(fitted, name)
        text = [c for c in expected if expected[c].dtype == object]
        pd.testing.assert_frame_equal(found.astype(dict.fromkeys(text, object)), expected, check_index_type=False)
    assert abs(back["atac"].varp["grids_epistasis"] - fitted["atac"].varp["grids_epistasis"]).max() == 0
    tr.tl.redundancy(back, n_boot=300)
    np.testing.assert_allclose(table(back, "pairs")["epsilon_low"], table(fitted, "pairs")["epsilon_low"])


def test_a_set_of_one(mdata):
    add_sets(mdata, n_peaks=1)
    tr.tl.redundancy(mdata, n_boot=20)
    entry = tr.get.record(mdata, "grids_redundancy")
    assert "pairs" not in entry
    assert (entry["tasks"]["redundancy"] == 0).all()
    assert mdata["atac"].varp["grids_epistasis"].nnz == 0


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"key": "search"}, KeyError, "'search' not found"),
        ({"key": "translate"}, ValueError, "holds no element sets: it is the record of 'translate'"),
        ({"targets": ["XIST"]}, KeyError, "`targets`: 'XIST' not found"),
        ({"groups": ["T"]}, KeyError, "`groups`: 'T' not found"),
        ({"n_boot": -1}, ValueError, "`n_boot` to be at least 0"),
        ({"n_permutations": 1}, ValueError, "`n_permutations` to be at least 2"),
        ({"seed": -1}, ValueError, "`seed` to be at least 0"),
        ({"device": "cuda:7"}, ValueError, "`device"),
        ({"key_added": "a/b"}, ValueError, "`key_added`"),
    ],
)
def test_bad_input(mdata, options, error, text):
    before = content(mdata)
    with pytest.raises(error, match=text):
        tr.tl.redundancy(mdata, **options)
    assert content(mdata) == before


def test_a_surrogate_that_is_gone_or_of_other_peaks(mdata):
    other = mdata.copy()
    other["atac"].var_names = other["atac"].var_names[::-1]
    other.update()
    with pytest.raises(ValueError, match="fitted to other peaks"):
        tr.tl.redundancy(other)
    del mdata.uns["translate"]
    with pytest.raises(KeyError, match="'translate' not found.*tl.translate"):
        tr.tl.redundancy(mdata)


def test_a_group_without_held_out_cells(mdata):
    group = mdata.uns["grids"]["sets"]["group"].iloc[0]
    mdata.obs.loc[mdata.obs["cell_group"] == group, "cell_split"] = "train"
    with pytest.raises(ValueError, match=f"Group '{group}' has 0 held-out cells"):
        tr.tl.redundancy(mdata)
