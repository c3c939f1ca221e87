import warnings

import joblib
import mudata as md
import numpy as np
import pandas as pd
import pytest
from helpers import content, digest
from scipy import sparse

import sctrellis as tr
from sctrellis._core import sets as element_sets
from sctrellis._core import slots
from sctrellis.tl import _null_draws as null_draws

KEY = "grids_permuted_pairing"
FIT = {"groupby": "cell_group", "n_runs": 1, "max_epochs": 60, "n_null": 0}


def search(mdata, **options):
    """Search, whether or not the surrogate is known to have learnt anything."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        tr.tl.grids(mdata, **options)


def searched(targets, *, size=2, **options):
    """Return simulated data with a surrogate of genes and a search of one task each, in the group given for it."""
    mdata = tr.datasets.simulate_multiome(**options)
    tr.tl.translate(mdata, targets=sorted(targets), **FIT)
    for i, group in enumerate(dict.fromkeys(targets.values())):
        own = [t for t in targets if targets[t] == group]
        search(mdata, targets=own, groups=[group], n_peaks=size, n_boot=0, key_added=f"part{i}")
    parts = [mdata.uns.pop(f"part{i}") for i in range(len(set(targets.values())))]
    joined = {name: pd.concat([part[name] for part in parts], ignore_index=True) for name in ("sets", "tasks")}
    entry = parts[0] | joined
    entry["params"] = {**entry["params"], "targets": None, "groups": None}
    slots.write(mdata, uns={"grids": entry})
    return mdata


@pytest.fixture(scope="module")
def simulated():
    options = {"n_obs": 500, "n_peaks": 240, "n_genes": 8, "n_targets": 2, "n_groups": 2, "kinds": "ANDADD", "seed": 1}
    mdata = tr.datasets.simulate_multiome(**options)
    return searched(dict(mdata.uns["targets"][["target", "group"]].itertuples(index=False)), **options)


@pytest.fixture
def mdata(simulated):
    return simulated.copy()


@pytest.fixture(scope="module")
def nulled(simulated):
    mdata = simulated.copy()
    tr.tl.grids_null(mdata, n_null=3)
    return mdata


def table(mdata, name="tasks", key=KEY):
    return tr.get.record(mdata, key)[name]


def test_planted_sets_are_above_the_null(nulled):
    tasks = table(nulled)
    assert len(tasks) == 2
    assert (tasks["effect"] > tasks["null_max"]).all()
    np.testing.assert_allclose(tasks["p_value"], 1 / (1 + 6))
    np.testing.assert_allclose(tasks["q_value"], 1 / 7)
    np.testing.assert_allclose(tasks["effect"], -nulled.uns["grids"]["tasks"]["log_delta"])


def test_genes_without_elements_are_not_above_the_null():
    # Of 16 genes about which there is nothing to learn.
    groups = {f"gene_{i}": f"group_{i % 2}" for i in range(16)}
    mdata = searched(groups, n_obs=500, n_peaks=480, n_genes=16, n_targets=0, n_groups=2, seed=3)
    tr.tl.grids_null(mdata)
    tasks = table(mdata)
    assert len(tasks) == 16
    assert (tasks["n_null"] == 48).all()
    share, error = (tasks["q_value"] < 0.1).mean(), np.sqrt(0.1 * 0.9 / 16)
    assert share <= 0.1 + 2 * error
    # The best of so many sets has an effect, though there is none: that is why it is compared.
    assert tasks["null_mean"].iloc[0] > 0.005
    assert 0.1 < tasks["p_value"].mean() < 0.9


def test_p_values_by_hand(mdata, nulled):
    null = table(nulled, "null")
    tr.tl.grids_null(mdata, n_null=3, pooled=False)
    pd.testing.assert_frame_equal(table(mdata, "null"), null)
    for tasks, pooled in ((table(nulled), True), (table(mdata), False)):
        for row in tasks.itertuples():
            own = null["effect"] if pooled else null.loc[null["target"] == row.target, "effect"]
            assert row.n_null == len(own)
            assert row.p_value == (1 + (own >= row.effect).sum()) / (1 + len(own))
            assert row.null_q95 == pytest.approx(np.quantile(own, 0.95))


def test_compare_counts_ties_and_leaves_out_what_is_missing():
    from sctrellis.tl._grids_null import _adjusted, _compare

    tasks = pd.DataFrame({"group": ["a", "a", "b"], "target": ["x", "y", "x"], "effect": [2.0, 1.0, 5.0]})
    null = pd.DataFrame(
        {
            "group": ["a", "a", "a", "b"],
            "target": ["x", "x", "y", "x"],
            "draw": [0, 1, 0, 0],
            "effect": [2.0, 1.0, 3.0, np.nan],
        }
    )
    pooled, own = _compare(tasks, null, pooled=True), _compare(tasks, null, pooled=False)
    assert pooled["p_value"].tolist() == [3 / 4, 4 / 4, 1 / 4]
    assert own["p_value"].tolist()[:2] == [2 / 3, 2 / 2]
    assert np.isnan(own["p_value"].iloc[2])
    np.testing.assert_allclose(_adjusted(np.array([0.01, np.nan, 0.04, 0.03])), [0.03, np.nan, 0.04, 0.04])
    assert np.isnan(_adjusted(np.array([np.nan]))).all()


def test_draws_are_added_not_repeated(mdata, nulled, monkeypatch):
    tr.tl.grids_null(mdata, n_null=1)
    calls = []
    one = null_draws.permuted_pairing
    monkeypatch.setattr(null_draws, "permuted_pairing", lambda *a, **k: calls.append(k["draw"]) or one(*a, **k))
    tr.tl.grids_null(mdata, n_null=3)
    assert calls == [1, 2]
    assert digest(mdata.uns[KEY]) == digest(nulled.uns[KEY])
    calls.clear()
    tr.tl.grids_null(mdata, n_null=2)
    assert not calls
    assert table(mdata, "null")["draw"].unique().tolist() == [0, 1]
    mdata.uns["grids"]["params"]["n_restarts"] = 3  # another search: nothing of the old one is taken over
    tr.tl.grids_null(mdata, n_null=1)
    assert calls == [0]
    tr.tl.grids_null(mdata, n_null=1, seed=5)
    assert calls == [0, 0]


def test_an_interrupt_keeps_what_is_done(mdata, nulled, monkeypatch):
    one = null_draws.permuted_pairing

    def stopped(*args, draw, **options):
        if draw == stop_at:
            raise KeyboardInterrupt
        return one(*args, draw=draw, **options)

    monkeypatch.setattr(null_draws, "permuted_pairing", stopped)
    stop_at, before = 0, content(mdata)
    with pytest.raises(KeyboardInterrupt):
        tr.tl.grids_null(mdata, n_null=3)
    assert content(mdata) == before
    stop_at = 2
    tr.tl.grids_null(mdata, n_null=3)
    assert tr.get.record(mdata, KEY)["fit"]["n_done"] == 2
    assert (table(mdata)["n_null"] == 4).all()
    stop_at = None
    tr.tl.grids_null(mdata, n_null=3)
    assert digest(mdata.uns[KEY]) == digest(nulled.uns[KEY])


def test_workers_change_nothing(mdata, nulled):
    with joblib.parallel_config(backend="threading"):
        tr.tl.grids_null(mdata, n_null=3, n_jobs=2)
    assert digest(mdata.uns[KEY]) == digest(nulled.uns[KEY])


def search_of(mdata, seed=0):
    found = element_sets.read(mdata, "grids")
    return null_draws.Search(mdata, found, tr.get.record(mdata, "translate"), "cpu", seed)


def test_expression_moves_within_group_and_fold_and_accessibility_stays(mdata):
    from sctrellis.tl import _translate_report
    from sctrellis.tl._surrogate import read_surrogate

    _, paired, _ = read_surrogate(mdata, "translate")
    partners = _translate_report.permuted_partners(paired, 2, 0)[1]
    made = null_draws._with_partners(search_of(mdata), partners)
    obs = mdata.obs[["cell_group", "cell_split"]].astype(str).to_numpy()
    assert (obs[partners] == obs).all()
    assert (partners != np.arange(mdata.n_obs)).mean() > 0.9
    assert abs(made["rna"].layers["counts"] - mdata["rna"].layers["counts"][partners]).max() == 0
    assert made["atac"].X is mdata["atac"].X or abs(made["atac"].X - mdata["atac"].X).max() == 0
    assert abs(slots.read_cis(made) - slots.read_cis(mdata)).max() == 0
    assert made.obs_names.equals(mdata.obs_names)


def test_batches_are_kept(mdata):
    batch = np.where(np.arange(mdata.n_obs) % 3 == 0, "a", "b")
    mdata.obs["batch"] = pd.Categorical(batch)
    mdata["rna"].layers["counts"] = sparse.csr_matrix(mdata["rna"].layers["counts"])
    caught = []

    def keep(search, partners):
        caught.append(partners)
        raise StopIteration

    patched = pytest.MonkeyPatch()
    patched.setattr(null_draws, "_with_partners", keep)
    with pytest.raises(StopIteration):
        null_draws.permuted_pairing(search_of(mdata), 0, "batch")
    patched.undo()
    assert (batch[caught[0]] == batch).all()


def test_only_its_record_is_written(mdata, nulled):
    before = content(mdata)
    tr.tl.grids_null(mdata, n_null=1)
    after = content(mdata)
    assert {slot for slot in after if after[slot] != before.get(slot)} == {"uns"}
    copied = tr.tl.grids_null(nulled, n_null=1, key_added="mine", copy=True)
    assert set(copied.uns) - set(nulled.uns) == {"mine"}


@pytest.mark.parametrize("form", ["h5mu", "zarr"])
def test_it_survives_a_file(nulled, form, tmp_path):
    if form == "h5mu":
        nulled.write(tmp_path / "x.h5mu")
        back = md.read_h5mu(tmp_path / "x.h5mu")
    else:
        nulled.write_zarr(tmp_path / "x.zarr")
        back = md.read_zarr(tmp_path / "x.zarr")
    for name in ("tasks", "null"):
        found, expected = table(back, name), table(nulled, name)
        text = {c: object for c in expected if expected[c].dtype == object}
        pd.testing.assert_frame_equal(found.astype(text), expected, check_index_type=False)
    tr.tl.grids_null(back, n_null=3)  # stored draws are known again
    assert table(back)["p_value"].tolist() == table(nulled)["p_value"].tolist()


def test_matched_sets(mdata):
    tr.tl.grids_null(mdata, kind="matched_sets", n_null=300)
    tasks = table(mdata, key="grids_matched_sets")
    assert (tasks["n_null"] == 300).all()
    assert (tasks["p_value"] < 0.1).all()
    assert tasks["q_value"].isna().all()
    assert (tasks["null_max"] <= tasks["effect"] + 1e-6).all()  # all sets were compared by the search
    assert len(table(mdata, "null", "grids_matched_sets")) == 200


def test_masks_keep_size_and_openness():
    rng = np.random.default_rng(0)
    x = sparse.csr_matrix(rng.random((50, 30)) < np.linspace(0.05, 0.9, 30))
    chosen = np.zeros(30, dtype=bool)
    chosen[[1, 2, 25]] = True
    masks = null_draws._matched_masks(x, chosen, 400, rng)
    assert (masks.sum(axis=1) == 3).all()
    openness = np.asarray(x.mean(axis=0)).ravel()
    stratum = np.argsort(np.argsort(openness, kind="stable")) * null_draws.STRATA // 30
    for one in range(null_draws.STRATA):
        assert (masks[:, stratum == one].sum(axis=1) == chosen[stratum == one].sum()).all()
    assert masks[:, stratum == stratum[1]].any(axis=0).all()  # every peak of the class is drawn at some time


def test_windows_lie_elsewhere(mdata):
    whole = tr.datasets.simulate_multiome(60, 1200, 40)
    target = whole.uns["targets"].iloc[0]
    sets = pd.DataFrame({"group": [target["group"]], "target": [target["target"]], "rank": [1], "peak": ["p"]})
    found = element_sets.ElementSets(
        "grids", {"params": {"links": "cis", "n_peaks": 3, "min_open": 0.005}}, sets, sets.assign(log_delta=-1.0)
    )
    params = {"rna": "rna", "atac": "atac"}
    search = null_draws.Search(whole, found, {"params": params}, "cpu", 0)
    windows = [null_draws._window(search, target["group"], target["target"], i, 5_000_000) for i in range(4)]
    gene, var = whole["rna"].var.loc[target["target"]], whole["atac"].var
    cis = slots.read_cis(whole)[whole["rna"].var_names.get_loc(target["target"])]
    for window in windows:
        inside = var[window]
        assert set(inside["chrom"]) == {gene["chrom"]}
        assert inside["end"].max() - inside["start"].min() <= 2 * np.abs(cis.data).max() + 3_000
        middle = (inside["start"].min() + inside["end"].max()) / 2
        assert abs(middle - gene["tss"]) > 4_000_000
        assert not set(inside.index) & set(whole["atac"].var_names[cis.indices])
    assert len({tuple(np.flatnonzero(w)) for w in windows}) > 1
    assert null_draws._window(search, target["group"], target["target"], 0, 10**9) is None


def test_pseudo_windows_of_a_surrogate_that_sees_all_peaks():
    mdata = tr.datasets.simulate_multiome(200, 360, 12, n_targets=2, n_groups=2, n_chromosomes=1)
    target = mdata.uns["targets"].iloc[0]
    tr.tl.translate(mdata, "crossmodal", groupby="cell_group", max_epochs=1)
    search(mdata, targets=[target["target"]], groups=[target["group"]], n_peaks=2, n_boot=0)
    tr.tl.grids_null(mdata, kind="pseudo_window", n_null=2)
    tasks, null = (table(mdata, name, "grids_pseudo_window") for name in ("tasks", "null"))
    assert tasks["n_null"].tolist() == [2]
    assert null["effect"].nunique() == 2


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"kind": "shuffle"}, ValueError, "`kind` to be one of 'permuted_pairing', 'pseudo_window', 'matched_sets'"),
        ({"kind": "pseudo_window"}, ValueError, "a cis surrogate sees none.*'crossmodal'"),
        ({"n_null": 0}, ValueError, "`n_null` to be at least 1"),
        ({"pooled": "yes"}, TypeError, "`pooled` to be True or False, found 'yes'"),
        ({"shift": 0}, ValueError, "`shift` to be at least 1"),
        ({"batch": "donor"}, KeyError, "`batch`: 'donor' not found"),
        ({"targets": "XIST"}, KeyError, "`targets`: 'XIST' not found"),
        ({"key": "translate"}, ValueError, "holds no element sets"),
        ({"seed": 2**32}, ValueError, "`seed` to be below"),
        ({"n_jobs": 0}, ValueError, "`n_jobs`"),
        ({"device": "cuda:9"}, ValueError, "`device"),
    ],
)
def test_bad_input(mdata, options, error, text):
    before = content(mdata)
    with pytest.raises(error, match=text):
        tr.tl.grids_null(mdata, **options)
    assert content(mdata) == before
