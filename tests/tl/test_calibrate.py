import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
from helpers import content, crowded_toy, fit
from scipy import sparse, special

import sctrellis as tr
from sctrellis import metrics
from sctrellis._core import slots
from sctrellis.tl._methods import METHODS

N, P = 150, 50
FAST = {"n_boot": 50}


def world(seed=0, *, base=-1.5, val_frac=0.4, scheme="edge"):
    """Known edges drawn from log odds that vary by regulator, target and pair; these odds, stored as they are."""
    rng = np.random.default_rng(seed)
    logit = base + rng.normal(size=(P, 1)) + 0.7 * rng.normal(size=(1, N)) + 1.2 * rng.normal(size=(P, N))
    known = np.zeros((N, N), np.float32)
    known[:P] = rng.random((P, N)) < special.expit(logit)
    np.fill_diagonal(known, 0)
    adata = ad.AnnData(np.ones((12, N), np.float32), var=pd.DataFrame(index=[f"g{i}" for i in range(N)]))
    adata.obs_names = [f"c{i}" for i in range(12)]
    adata.varp["network"] = sparse.csr_matrix(known)
    adata.varp["odds"] = slots.network_csr(logit, np.arange(P), np.arange(N), N)
    adata.varp["bold"] = adata.varp["odds"] * 3
    tr.pp.split_edges(adata, val_frac=val_frac, test_frac=0.3, scheme=scheme)
    return adata


def calibrated(adata, key="odds", **options):
    tr.tl.calibrate(adata, key, **{"scale": "log_odds", **FAST, **options})
    return tr.get.record(adata, f"{key}_calibration")


def numbers(record, stage, part="test"):
    table = record["table"]
    return table[(table["stage"] == stage) & (table["part"] == part)].set_index("metric")


def pairs(adata, fold, key):
    folds = (adata.varp["network_fold"] == fold).tocoo()
    label = np.asarray(adata.varp["network"][folds.row, folds.col]).ravel() > 0
    return np.asarray(adata.varp[key][folds.row, folds.col]).ravel(), label


def test_a_scale_is_undone():
    adata = world()
    record = calibrated(adata, "bold", method="temperature")
    assert record["calibrator"]["parameters"]["temperature"] == pytest.approx(3, abs=0.3)
    assert numbers(record, "before").loc["ece_mass", "low"] > 0.05
    for part in ("fit", "test"):
        after = numbers(record, "after", part)
        assert after.loc["ece_mass", "low"] == 0
        assert after.loc["slope", "low"] < 1 < after.loc["slope", "high"]
        assert after.loc["nll", "value"] < numbers(record, "before", part).loc["nll", "value"]
    prob, label = pairs(adata, 3, "bold_prob")
    assert numbers(record, "after").loc["ece_mass", "value"] == pytest.approx(
        metrics.calibration_error(prob, label), abs=1e-5
    )


def test_probabilities_are_of_every_scored_pair_in_their_order():
    adata = world()
    record = calibrated(adata, "bold", method="platt")
    scores, prob = adata.varp["bold"], adata.varp["bold_prob"]
    assert prob.dtype == np.float32
    np.testing.assert_array_equal(prob.indices, scores.indices)
    np.testing.assert_array_equal(prob.indptr, scores.indptr)
    p = record["calibrator"]["parameters"]
    np.testing.assert_allclose(prob.data, special.expit(p["slope"] * scores.data + p["intercept"]), atol=1e-6)
    before, after = numbers(record, "before"), numbers(record, "after")
    assert before.loc["auroc", "value"] == pytest.approx(after.loc["auroc", "value"], abs=1e-12)
    score, label = pairs(adata, 3, "bold")
    assert after.loc["auroc", "value"] == pytest.approx(metrics.auroc(score, label), abs=1e-12)


def test_only_labels_of_the_fold_are_read():
    adata = world()
    calibrated(adata, "bold")
    for fold, same in ((1, True), (3, True), (2, False)):
        other = adata.copy()
        chosen = (other.varp["network_fold"] == fold).tocoo()
        network = other.varp["network"].tolil()
        network[chosen.row[::3], chosen.col[::3]] = 1
        other.varp["network"] = network.tocsr()
        calibrated(other, "bold")
        assert np.array_equal(other.varp["bold_prob"].data, adata.varp["bold_prob"].data) is same


def test_honest_odds_are_left_alone():
    record = calibrated(world(1))
    for stage in ("before", "after"):
        line = numbers(record, stage)
        assert line.loc["ece_mass", "low"] == 0
        assert line.loc["nll_skill", "low"] > 0.1
    selection = record["selection"].set_index("method")
    assert selection.loc["constant", "nll"] > selection.drop("constant")["nll"].max()
    assert record["calibrator"]["method"] == selection.index[selection["chosen"]].item()
    curve = record["curves"].query("part == 'test' and stage == 'after'")
    assert ((curve["low"] <= curve["probability"]) & (curve["probability"] <= curve["high"])).mean() > 0.85


def test_a_constant_looks_calibrated_and_has_no_skill():
    constant = numbers(calibrated(world()), "constant", "fit")
    assert constant.loc["ece_width", "value"] == pytest.approx(0, abs=1e-9)
    assert constant.loc["nll_skill", "value"] == pytest.approx(0, abs=1e-9)
    assert constant.loc["auroc", "value"] == 0.5


def test_balanced_training_is_shifted_back():
    # One-hot regression on a training fold where edges are as frequent as non-edges.
    adata = world(2, base=-3.5)
    rng = np.random.default_rng(0)
    folds = adata.varp["network_fold"].tolil()
    train = (adata.varp["network_fold"] == 1).tocoo()
    label = np.asarray(adata.varp["network"][train.row, train.col]).ravel() > 0
    dropped = rng.permutation(np.flatnonzero(~label))[label.sum() :]
    folds[train.row[dropped], train.col[dropped]] = 0
    adata.varp["network_fold"] = folds.tocsr().astype(np.int8)
    adata.varp["network_fold"].eliminate_zeros()
    adata.X = rng.gamma(2.0, size=adata.shape).astype(np.float32)
    tr.tl.edge_classifier(adata, "one_hot", regulators="all")
    methods = {}
    for method in ("temperature", "prior_shift", "auto"):
        tr.tl.calibrate(adata, "one_hot", method=method, **FAST)
        methods[method] = tr.get.record(adata, "one_hot_calibration")
    assert methods["prior_shift"]["fit"]["train_share"] == pytest.approx(0.5)
    error = {name: numbers(record, "after").loc["ece_mass", "value"] for name, record in methods.items()}
    assert numbers(methods["auto"], "before").loc["ece_mass", "value"] > 0.2
    assert error["temperature"] > 0.2
    assert error["prior_shift"] < 0.03
    assert error["auto"] < 0.02
    assert methods["auto"]["calibrator"]["method"] != "temperature"


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
@pytest.mark.filterwarnings("ignore:The latent means of the genes:UserWarning")
def test_every_method_can_be_calibrated(method):
    adata = crowded_toy()
    tr.pp.split_edges(adata, test_frac=0.2, val_frac=0.4)
    # A fold that decides when training stops would warn, rightly; another test asks for that.
    fit(method, adata, **({"patience": None} if method.name in ("genelink", "scgreat", "regnet") else {}))
    with pytest.warns(UserWarning, match="known edges of 'network' are in fold 'validation'"):
        tr.tl.calibrate(adata, method.name, n_boot=20)
    scores, prob = adata.varp[method.name], adata.varp[f"{method.name}_prob"]
    assert ((prob.data > 0) & (prob.data < 1)).all()
    scale = {"edge_classifier": "probability", "regnet": "log_odds"}.get(
        method.function_name or method.name, "strength"
    )
    order = np.argsort(scores.data if scale == "log_odds" else np.abs(scores.data))
    assert (np.diff(prob.data[order]) >= 0).all()
    record = tr.get.record(adata, f"{method.name}_calibration")
    assert record["calibrator"]["scale"] == scale
    assert ("before" in set(record["table"]["stage"])) == (scale != "strength")


def test_classes_of_novelty():
    adata = world(3, scheme="infosem", val_frac=0.25)
    everything = calibrated(adata)
    assert everything["fit"]["classes"] == ["UU"]
    # All test pairs would be a mixture; those of the class that was fitted on are reported.
    classes = adata.varp["network_class"].multiply(adata.varp["network_fold"] == 3)
    assert everything["fit"]["n_pairs_test"] == (classes == 4).sum()
    named = calibrated(adata, pair_class="UU")
    assert named["calibrator"]["parameters"] == everything["calibrator"]["parameters"]
    with pytest.raises(ValueError, match="fold 'validation' of class 'SS' of 'network' has no pairs.*scheme='edge'"):
        calibrated(adata, pair_class="SS")
    other = world(3)
    with pytest.raises(KeyError, match="`pair_class`: 'network_class' not found.*scheme='infosem'"):
        calibrated(other, pair_class="UU")


def test_prevalence_moves_log_odds():
    adata = world()
    share = calibrated(adata, method="platt")["fit"]["share"]
    before = special.logit(adata.varp["odds_prob"].data.astype(float))
    record = calibrated(adata, method="platt", prevalence=0.01)
    after = special.logit(adata.varp["odds_prob"].data.astype(float))
    by = special.logit(0.01) - special.logit(share)
    inside = np.abs(before) < 4
    np.testing.assert_allclose((after - before)[inside], by, atol=1e-4)
    assert record["calibrator"]["parameters"]["shift"] == pytest.approx(by)
    # The report is on pairs that have the share that they have.
    assert numbers(record, "after").loc["ece_mass", "low"] == 0


def test_completeness_bounds():
    adata = world()
    record = calibrated(adata, completeness=0.4)
    prob, high = adata.varp["odds_prob"], adata.varp["odds_prob_high"]
    np.testing.assert_allclose(high.data, np.minimum(1, prob.data / 0.4), rtol=1e-5)
    assert record["fit"]["n_above_completeness"] == (prob.data > 0.4).sum() > 0
    calibrated(adata)
    assert adata.varp["odds_prob_high"].nnz == 0


def test_folds_that_were_learnt_from_are_refused():
    adata = crowded_toy()
    tr.pp.split_edges(adata, test_frac=0.2, val_frac=0.4)
    tr.tl.edge_classifier(adata, "one_hot")
    with pytest.raises(ValueError, match="`fold='train'`: 'one_hot' has learnt from the labels.*`fold='validation'`"):
        tr.tl.calibrate(adata, "one_hot", fold="train")
    tr.tl.edge_classifier(adata, "one_hot", fold="train_validation")
    with pytest.raises(ValueError, match="`fold='validation'`: 'one_hot' has learnt.*Fit it with `fold='train'`"):
        tr.tl.calibrate(adata, "one_hot")
    with pytest.raises(ValueError, match="`fold='test'` would fit the probabilities on the pairs"):
        tr.tl.calibrate(adata, "one_hot", fold="test")
    tr.tl.baseline(adata, "pearson")
    with pytest.warns(UserWarning, match="Only"):
        tr.tl.calibrate(adata, "pearson", fold="train", **FAST)
    tr.tl.edge_classifier(adata, "genelink", max_epochs=2)
    with (
        pytest.warns(UserWarning, match="decided when the training of 'genelink' stopped"),
        pytest.warns(UserWarning, match="Only"),
    ):
        tr.tl.calibrate(adata, "genelink", **FAST)


@pytest.mark.parametrize(
    ("spoil", "options", "error", "message"),
    [
        (lambda a: None, {"key": "nowhere"}, KeyError, "`key`: 'nowhere' not found"),
        (lambda a: None, {"network": "nowhere"}, KeyError, "`network`: 'nowhere' not found"),
        (lambda a: None, {"key": "network"}, ValueError, "is the known network itself"),
        (lambda a: None, {"key": "network_fold"}, ValueError, "holds what 'split_edges' wrote, not scores"),
        (lambda a: a.varp.pop("network_fold"), {}, KeyError, r"'network_fold' not found.*pp.split_edges"),
        (lambda a: None, {"scale": None}, ValueError, "'odds' has no record in `adata.uns` that says what"),
        (lambda a: None, {"scale": "probability"}, ValueError, "'odds' has scores from .* Pass `scale='log_odds'`"),
        (lambda a: None, {"scale": "logit"}, ValueError, "`scale` to be one of"),
        (lambda a: None, {"method": "spline"}, ValueError, "`method` to be one of"),
        (lambda a: None, {"method": "beta", "scale": "strength"}, ValueError, "needs log odds or probabilities"),
        (lambda a: None, {"method": "prior_shift"}, ValueError, "needs the share of edges among the training pairs"),
        (lambda a: None, {"fold": "valid"}, ValueError, "`fold` to be one of 'validation', 'train'"),
        (lambda a: None, {"pair_class": "XX"}, ValueError, "`pair_class` to be one of"),
        (lambda a: None, {"prevalence": 0}, ValueError, r"`prevalence` to lie in \(0, 1\)"),
        (lambda a: None, {"completeness": 1.2}, ValueError, r"`completeness` to lie in \(0, 1\]"),
        (lambda a: None, {"n_bins": 0}, ValueError, "`n_bins` to be at least 1"),
        (lambda a: None, {"n_boot": -1}, ValueError, "`n_boot` to be at least 0"),
        (lambda a: None, {"seed": -1}, ValueError, "`seed` to be at least 0"),
        (lambda a: None, {"key_added": "a/b"}, ValueError, "`key_added`"),
        (lambda a: None, {"mod": "rna"}, ValueError, "names a modality"),
        (lambda a: a.varp["odds"].data.__setitem__(3, np.nan), {}, ValueError, "has 1 NaN or infinite scores"),
        (lambda a: a.varp["network"].data.fill(-1), {}, ValueError, "has no known edge among its"),
        (lambda a: a.varp.__setitem__("odds", sparse.csr_matrix((N, N))), {}, ValueError, "'odds' scores none of them"),
        (lambda a: a.varp["network_fold"].data.fill(1), {}, ValueError, "'validation' of 'network' has no pairs"),
    ],
)
def test_bad_input(spoil, options, error, message):
    adata = world()
    spoil(adata)
    before = content(adata)
    options = {"key": "odds", "scale": "log_odds", **options}
    with pytest.raises(error, match=message):
        tr.tl.calibrate(adata, options.pop("key"), **options)
    assert content(adata) == before


def test_known_non_edges_only_are_nothing_to_calibrate_to():
    adata = world()
    folds = adata.varp["network_fold"].multiply(adata.varp["network"] > 0)
    adata.varp["network_fold"] = sparse.csr_matrix(folds)
    with pytest.raises(ValueError, match="nothing but known edges among its"):
        calibrated(adata)


def test_without_test_pairs_only_the_fit_is_reported():
    adata = world()
    adata.varp["network_fold"].data[adata.varp["network_fold"].data == 3] = 1
    record = calibrated(adata)
    assert set(record["table"]["part"]) == set(record["curves"]["part"]) == {"fit"}


def test_unscored_pairs_are_left_out_and_counted():
    adata = world()
    adata.varp["odds"] = sparse.csr_matrix(adata.varp["odds"].multiply(np.arange(N) != 7))
    adata.varp["odds"].eliminate_zeros()
    record = calibrated(adata)
    lost = ((adata.varp["network_fold"] == 2).tocoo().col == 7).sum()
    assert record["fit"]["n_unscored_fit"] == lost > 0
    assert adata.varp["odds_prob"].nnz == adata.varp["odds"].nnz


def test_slots_and_round_trips(tmp_path):
    adata = world()
    before = content(adata)
    other = tr.tl.calibrate(adata, "odds", scale="log_odds", key_added="mine", copy=True, completeness=0.9, **FAST)
    assert content(adata) == before
    assert set(content(other)) - set(before) == {"varp/mine_prob", "varp/mine_prob_high", "uns/mine_calibration"}
    again = tr.tl.calibrate(adata, "odds", scale="log_odds", key_added="mine", copy=True, completeness=0.9, **FAST)
    assert content(again) == content(other)
    other.write_h5ad(tmp_path / "a.h5ad")
    other.write_zarr(tmp_path / "a.zarr")
    expected = tr.get.record(other, "mine_calibration")
    for back in (ad.read_h5ad(tmp_path / "a.h5ad"), ad.read_zarr(tmp_path / "a.zarr")):
        found = tr.get.record(back, "mine_calibration")
        for name in ("table", "curves", "selection"):
            pd.testing.assert_frame_equal(
                found[name].reset_index(drop=True),
                expected[name].reset_index(drop=True),
                check_dtype=False,
                check_categorical=False,
            )
        assert found["calibrator"]["parameters"] == pytest.approx(expected["calibrator"]["parameters"])
        np.testing.assert_array_equal(back.varp["mine_prob"].toarray(), other.varp["mine_prob"].toarray())


def test_mudata():
    adata = world()
    mdata = md.MuData({"rna": adata.copy(), "atac": ad.AnnData(np.ones((12, 3), np.float32))})
    with pytest.raises(ValueError, match="choose a modality"):
        tr.tl.calibrate(mdata, "odds", scale="log_odds")
    tr.tl.calibrate(mdata, "odds", scale="log_odds", mod="rna", **FAST)
    calibrated(adata)
    np.testing.assert_array_equal(mdata.mod["rna"].varp["odds_prob"].data, adata.varp["odds_prob"].data)


def test_probabilities_that_a_method_wrote_are_not_replaced_in_silence(caplog):
    def told():
        return [message for message in caplog.messages if "calibrated ones replace them" in message]

    adata = world()
    entry = {"schema": 1, "method": "regnet", "score_scale": "log_odds"}
    adata.uns["odds"] = {**entry, "slots": {"network": "varp/odds", "probability": "varp/odds_prob"}}
    adata.varp["odds_prob"] = own = adata.varp["odds"].copy()
    tr.tl.calibrate(adata, "odds", **FAST, key_added="beside")
    assert not told()
    assert np.array_equal(adata.varp["odds_prob"].data, own.data)
    tr.tl.calibrate(adata, "odds", **FAST)
    assert len(told()) == 1
    assert "regnet" in told()[0]
