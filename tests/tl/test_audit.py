"""tl.audit runs what applies, keeps what is done, tells what failed, and never speaks for other scores."""

import anndata as ad
import numpy as np
import pytest
from helpers import content, unsorted_csr
from scipy import sparse

import sctrellis as tr
from sctrellis._core import audited
from sctrellis.tl import _audit

FAST = {"n_boot": 50, "n_perm": 99, "progress": False}
PARTS = ["baseline", "null", "calibration", "information"]


@pytest.fixture(autouse=True)
def _warn(monkeypatch):
    monkeypatch.setattr(tr.settings, "_audit", "warn")
    monkeypatch.setattr(audited, "_told", set())


@pytest.fixture(autouse=True)
def quick_cells(monkeypatch):
    """The part that looks at the cells, made small; return how often it was run."""
    runs = []
    information = tr.tl.information

    def small(adata, **options):
        runs.append(options)
        information(adata, fractions=[0.5, 1], r2=[0.2, 0.4], n_targets=15, n_repeats=1, n_sims=2, n_draws=2, **options)

    monkeypatch.setattr(_audit, "information", small)
    return runs


@pytest.fixture(scope="module")
def simulated():
    adata = tr.datasets.simulate_grn(150, 60, 15, density=0.2, seed=1)
    adata.varp["network"] = adata.varp["truth"]
    tr.pp.split_edges(adata, val_frac=0.25, seed=0)
    tr.tl.baseline(adata, "ridge")
    return adata


@pytest.fixture
def adata(simulated):
    return simulated.copy()


def audit_of(adata, key="ridge"):
    return tr.get.record(adata, key)["audit"]


def open_parts(adata, key):
    states = audited.states(adata, key)
    return [part for part in PARTS if not states[part].startswith((audited.DONE, audited.SKIPPED))]


def rows(table):
    return table.set_index("part")


def test_a_true_network_passes_and_a_random_one_does_not(adata):
    tr.tl.baseline(adata, "random")
    adata.varp["truth_like"] = adata.varp["truth"] * 1.0 + adata.varp["random"] * 0.1
    entry = {**adata.uns["random"], "slots": {"network": "varp/truth_like"}, "method": "given"}
    adata.uns["truth_like"] = entry
    good, bad = (rows(tr.tl.audit(adata, key, **FAST)) for key in ("truth_like", "random"))
    assert list(good["passed"])[:3] == ["yes", "yes", "yes"]
    assert list(bad["passed"])[:3] == ["no", "no", "no"]
    # The cells are the same, whoever reads them.
    assert good.loc["information", "found"] == bad.loc["information", "found"]


def test_numbers_are_those_of_the_functions_that_are_run(adata):
    table = rows(tr.tl.audit(adata, "ridge", **FAST))
    alone = tr.tl.evaluate(
        adata, "ridge", metrics=["auprc", "auroc"], n_boot=50, missing="lowest", key_added="alone", progress=False
    )
    found = tr.get.record(adata, "ridge_audit_baseline")["table"]
    np.testing.assert_array_equal(found["value"], alone["value"])
    null = tr.tl.null(adata, "ridge", n_perm=99, missing="lowest")
    assert f"p = {null['p'].iloc[0]:.2g})" in table.loc["null", "found"]


def test_differences_of_evaluate_are_those_of_its_values(adata):
    table = tr.tl.evaluate(adata, "ridge", n_boot=50, progress=False)
    value = table[table["level"] == "micro"].set_index(["key", "metric"])["value"]
    gains = tr.get.record(adata, "evaluate")["differences"]
    assert set(gains["baseline"]) == set(table["key"]) - {"ridge"}
    for gain in gains.itertuples():
        assert gain.value == pytest.approx(value[gain.key, gain.metric] - value[gain.baseline, gain.metric])
        assert gain.low <= gain.high


def test_what_is_done_is_kept_and_new_scores_are_audited_anew(adata, quick_cells):
    first = tr.tl.audit(adata, "ridge", **FAST)
    before = content(adata)
    again = tr.tl.audit(adata, "ridge", **FAST)
    assert again.to_dict() == first.to_dict()  # seconds too: nothing was run
    assert content(adata) == before
    other = rows(tr.tl.audit(adata, "ridge", **{**FAST, "n_perm": 50}))
    assert other.loc["null", "found"] != rows(first).loc["null", "found"]
    adata.varp["ridge"] = adata.varp["ridge"] * 2 - adata.varp["truth"]
    assert audited.states(adata, "ridge") == {}
    changed = rows(tr.tl.audit(adata, "ridge", **FAST))
    assert changed.loc["baseline", "found"] != rows(first).loc["baseline", "found"]
    tr.tl.baseline(adata, "ridge")
    assert "audit" not in adata.uns["ridge"]
    assert len(quick_cells) == 1  # the cells have not changed


def test_what_a_budget_leaves_open_is_done_by_the_next_call(adata):
    table = rows(tr.tl.audit(adata, "ridge", budget=0, **FAST))
    assert set(table["state"]) == {"failed: the budget of 0 s was used up"}
    assert open_parts(adata, "ridge") == PARTS
    assert set(tr.tl.audit(adata, "ridge", **FAST)["state"]) == {"done"}
    assert open_parts(adata, "ridge") == []


def test_an_interrupt_keeps_what_was_done(adata, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(_audit, "calibrate", stopped)
    with pytest.raises(KeyboardInterrupt):
        tr.tl.audit(adata, "ridge", **FAST)
    assert audit_of(adata)["table"]["part"].tolist() == ["baseline", "null"]
    monkeypatch.undo()
    monkeypatch.setattr(_audit, "evaluate", stopped)  # is not called again
    tr.tl.audit(adata, "ridge", **FAST, budget=0)
    assert audit_of(adata)["baseline"] == "done"


def test_a_part_that_fails_stops_nothing_and_is_told(adata):
    adata.var["is_regulator"] = False
    table = rows(tr.tl.audit(adata, "ridge", **FAST))
    assert table.loc["information", "state"].startswith("failed: ")
    assert table.loc[["null", "calibration"], "state"].tolist() == ["done", "done"]


def test_without_known_edges_or_folds_parts_are_skipped_for_a_reason(adata):
    del adata.varp["network_fold"]
    assert rows(tr.tl.audit(adata, "ridge", **FAST)).loc["calibration", "state"].startswith("skipped: no folds")
    del adata.varp["network"]
    table = rows(tr.tl.audit(adata, "ridge", **FAST))
    assert [state.split(":")[0] for state in table["state"]] == ["skipped", "skipped", "skipped", "done"]
    assert open_parts(adata, "ridge") == []


def test_labels_of_the_fit_are_not_judged_on(adata):
    del adata.varp["network_fold"]
    tr.pp.split_edges(adata, val_frac=0.25, seed=0)
    tr.tl.edge_classifier(adata, "one_hot", progress=False)
    table = rows(tr.tl.audit(adata, "one_hot", **FAST, fold="all"))
    assert "seen" in table.loc["baseline", "state"]
    assert "seen" in table.loc["null", "state"]
    held_out = rows(tr.tl.audit(adata, "one_hot", **FAST))
    assert "tl.bias_audit" in held_out.loc["baseline", "found"]
    assert "tl.bias_audit" not in rows(tr.tl.audit(adata, "ridge", **FAST)).loc["baseline", "found"]


def test_only_slots_that_are_named_appear(adata):
    before = content(adata)
    tr.tl.audit(adata, "ridge", **FAST)
    after = content(adata)
    assert {slot for slot in before if before[slot] != after[slot]} == {"uns/ridge"}
    assert set(after) - set(before) == {
        "uns/ridge_audit_baseline",
        "uns/ridge_audit_null",
        "uns/ridge_audit_calibration",
        "uns/information",
        "var/information_detection",
        "var/information_reliability",
        "var/information_group",
    }


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_an_audit_survives_a_file(adata, tmp_path, kind):
    tr.tl.audit(adata, "ridge", **FAST)
    file = tmp_path / f"cells.{kind}"
    getattr(adata, f"write_{kind}")(file)
    back = getattr(ad, f"read_{kind}")(file)
    assert audited.states(back, "ridge") == dict.fromkeys(PARTS, "done")
    pd_equal = tr.tl.audit(back, "ridge", **FAST).to_dict("list") == audit_of(adata)["table"].to_dict("list")
    assert pd_equal


def test_scores_of_another_package_can_be_audited(adata):
    adata.varp["mine"] = abs(adata.varp["ridge"])
    assert "audit" not in tr.get.edges(adata, "mine", n_top=3).attrs
    table = tr.tl.audit(adata, "mine", **FAST)
    assert set(table["state"]) == {"done"}
    assert tr.get.edges(adata, "mine", n_top=3).attrs["audit"] == "audited"


@pytest.mark.parametrize("form", ["float64", "csc", "unsorted", "dense"])
def test_scores_in_any_form_stay_audited(adata, form):
    scores = abs(adata.varp["ridge"]).astype(np.float64) * 1.1
    make = {"csc": sparse.csc_matrix, "dense": lambda x: x.toarray(), "unsorted": lambda x: unsorted_csr(x.toarray())}
    adata.varp["mine"] = make.get(form, lambda x: x)(scores)
    tr.tl.audit(adata, "mine", **FAST)
    assert open_parts(adata, "mine") == []


def test_another_split_or_other_expression_is_audited_anew(adata):
    first = rows(tr.tl.audit(adata, "ridge", **FAST))
    tr.pp.split_edges(adata, val_frac=0.25, seed=7)
    second = rows(tr.tl.audit(adata, "ridge", **FAST))
    for part in PARTS[:3]:
        assert second.loc[part, "found"] != first.loc[part, "found"]
    adata.X = adata.X[:, ::-1].copy()  # the baselines read expression
    assert rows(tr.tl.audit(adata, "ridge", **FAST)).loc["baseline", "found"] != second.loc["baseline", "found"]


def test_a_record_of_other_cells_stays_the_users(adata, quick_cells):
    adata.layers["other"] = adata.X * np.float32(0.5)
    _audit.information(adata, layer="other")
    before = content(adata)
    tr.tl.audit(adata, "ridge", **FAST)
    after = content(adata)
    assert {slot for slot in before if before[slot] != after[slot]} == {"uns/ridge"}
    assert audit_of(adata)["records"]["information"] == "ridge_audit_information"
    assert "ridge_audit_information" in adata.uns
    tr.tl.audit(adata, "ridge", **FAST)
    assert len(quick_cells) == 2  # theirs, ours, and ours is kept


def test_other_regulators_are_other_information(adata, quick_cells):
    tr.tl.audit(adata, "ridge", **FAST)
    adata.var["is_regulator"] &= np.arange(adata.n_vars) != np.flatnonzero(adata.var["is_regulator"])[0]
    tr.tl.baseline(adata, "ridge")
    tr.tl.audit(adata, "ridge", **FAST)
    assert len(quick_cells) == 2


def test_numbers_are_those_of_the_records(adata):
    tr.tl.audit(adata, "ridge", **FAST)
    numbers = audit_of(adata)["numbers"]
    table, gains = (tr.get.record(adata, "ridge_audit_baseline")[name] for name in ("table", "differences"))
    micro = table[(table["level"] == "micro") & (table["metric"] == "auprc")].set_index("key")["value"]
    best = micro.drop("ridge").idxmax()
    assert (numbers["best_baseline"], numbers["auprc"]) == (best, micro["ridge"])
    assert numbers["difference"] == pytest.approx(micro["ridge"] - micro[best])
    gain = gains[(gains["metric"] == "auprc") & (gains["baseline"] == best)].iloc[0]
    assert (numbers["difference_low"], numbers["difference_high"]) == (gain["low"], gain["high"])
    null = tr.get.record(adata, "ridge_audit_null")["table"].set_index("metric").loc["auprc"]
    assert (numbers["null_ratio"], numbers["null_p"]) == (null["ratio_to_null"], null["p"])
    assert numbers["information"] == tr.get.record(adata, "information")["verdict"]["code"]
    del adata.varp["network"]
    tr.tl.audit(adata, "ridge", **FAST)
    assert np.isnan(audit_of(adata)["numbers"]["auprc"])


# the gate


def test_a_network_says_that_it_is_unaudited_until_it_was_audited(adata):
    with pytest.warns(audited.NotAuditedWarning, match=r"sctrellis.tl.audit\(adata, 'ridge'\)"):
        edges = tr.get.edges(adata, "ridge", n_top=3)
    assert edges.attrs["audit"] == "UNAUDITED: baseline, null, calibration, information open"
    # Warned once (a second warning would be an error here), said each time.
    assert tr.get.graph(adata, "ridge", n_top=3).graph["audit"] == edges.attrs["audit"]
    assert tr.get.decoupler_net(adata, "ridge").attrs["audit"] == edges.attrs["audit"]
    ax = tr.pl.network(adata, "ridge", n_edges=5)
    assert any("UNAUDITED" in text.get_text() for text in ax.texts)
    tr.tl.audit(adata, "ridge", **FAST)
    assert tr.get.edges(adata, "ridge", n_top=3).attrs["audit"] == "audited"
    assert not any("AUDITED" in text.get_text() for text in tr.pl.network(adata, "ridge", n_edges=5).texts)


def test_a_part_that_is_open_is_named(adata):
    adata.var["is_regulator"] = False
    tr.tl.audit(adata, "ridge", **FAST)
    # Baselines and the cells ask for regulators, null and calibration do not.
    with pytest.warns(audited.NotAuditedWarning, match="UNAUDITED: baseline, information open"):
        tr.get.edges(adata, "ridge", n_top=3)


def test_known_edges_and_other_matrices_need_no_audit(adata):
    adata.varp["other"] = sparse.csr_matrix(np.eye(adata.n_vars, dtype=np.float32))
    for key in ("truth", "network", "other"):
        assert "audit" not in tr.get.edges(adata, key, n_top=3).attrs


def test_the_setting_raises_or_is_silent(adata, monkeypatch):
    monkeypatch.setattr(tr.settings, "_audit", "error")
    with pytest.raises(ValueError, match="UNAUDITED"):
        tr.get.edges(adata, "ridge")
    tr.settings.audit = "off"
    assert "audit" not in tr.get.edges(adata, "ridge", n_top=3).attrs
    with pytest.raises(ValueError, match="Expected `audit` to be one of"):
        tr.settings.audit = "never"


# bad input


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"key": "absent"}, KeyError, "absent"),
        ({"key": "network"}, ValueError, "known network itself"),
        ({"fold": "exam"}, ValueError, "`fold`"),
        ({"universe": "all"}, ValueError, "`universe`"),
        ({"budget": -1}, ValueError, "`budget`"),
        ({"n_perm": 0}, ValueError, "`n_perm`"),
        ({"layer": "absent"}, KeyError, "absent"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(adata, changes, error, words):
    before = content(adata)
    key = changes.pop("key", "ridge")
    with pytest.raises(error, match=words):
        tr.tl.audit(adata, key, **{**FAST, **changes})
    assert content(adata) == before
