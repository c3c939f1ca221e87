"""tl.infosem: which labels it reads, what it writes and resumes, and how well it recovers planted networks."""

import numpy as np
import pytest
from helpers import content, digest
from scipy import sparse

import sctrellis as tr
from sctrellis import metrics
from sctrellis.tl import _sem

FAST = {"max_epochs": 3, "n_hidden": 4}
PRIORS = {"embedding": "embedding", "known": "truth"}


def informed(n_obs=200, *, scheme=None):
    """Cells of a planted network that embeddings predict, and its labels in folds where a scheme is given."""
    adata = tr.datasets.simulate_grn(
        n_obs, 40, 10, density=0.2, embedding="informative", n_dims=3, prior_strength=1.0, seed=0
    )
    if scheme is not None:
        tr.pp.split_edges(adata, "truth", scheme=scheme, universe="listed", val_frac=0.25)
    return adata


def shuffled_labels(adata, chosen, *, negatives=False, seed=1):
    """Return a copy in which the known edges among the chosen pairs lie elsewhere among them."""
    adata = adata.copy()
    truth = adata.varp["truth"].toarray()
    row, column = np.nonzero(chosen)
    values = truth[row, column]
    if negatives:
        values = np.where(values == 0, -1, values)
    truth[row, column] = np.random.default_rng(seed).permutation(values)
    adata.varp["truth"] = sparse.csr_matrix(truth)
    return adata


def results(adata, **options):
    """Fit, and return every network and the record's weights by name."""
    tr.tl.infosem(adata, keep_stages=True, **{**FAST, **options})
    record = tr.get.record(adata, "infosem")
    found = {name: digest(adata.varp[slot.split("/")[1]]) for name, slot in record["slots"].items()}
    return {**found, **{name: digest(value) for name, value in record["weights"].items()}}


# which labels are read


@pytest.mark.parametrize("scheme", ["edge", "both", "infosem"])
@pytest.mark.parametrize("negatives", ["labelled", "train"])
def test_labels_outside_the_train_fold_change_nothing(scheme, negatives):
    """Acceptance check 17, for every split: what is held out is not read."""
    adata = informed(scheme=scheme)
    options = {**PRIORS, "negatives": negatives}
    folds = adata.varp["truth_fold"].toarray()
    expected = results(adata.copy(), **options)
    assert results(shuffled_labels(adata, folds != 1), **options) == expected
    # Held-out labels that say "no edge" are not read either.
    assert results(shuffled_labels(adata, folds > 1, negatives=True), **options) == expected
    # And the labels of the train fold do matter.
    changed = results(shuffled_labels(adata, folds == 1), **options)
    assert changed["network"] != expected["network"]
    assert changed["convex"] != expected["convex"]
    assert changed["ridge"] == expected["ridge"]


def test_labels_of_unseen_genes_change_nothing():
    """Acceptance check 17: any pair with an unseen gene, in the split by seen and unseen genes."""
    adata = informed(scheme="infosem")
    seen = adata.varp["truth_fold"].toarray() == 1
    regulators, targets = seen.any(1), seen.any(0)
    unseen = ~(regulators | targets)
    assert unseen.sum() >= 5
    expected = results(adata.copy(), **PRIORS)
    assert results(shuffled_labels(adata, unseen[:, None] | unseen), **PRIORS) == expected


def test_without_folds_all_labels_are_read():
    adata = informed()
    expected = results(adata.copy(), known="truth")
    some = np.zeros((adata.n_vars, adata.n_vars), bool)
    some[np.flatnonzero(adata.var["is_regulator"])[:3]] = True
    assert results(shuffled_labels(adata, some), known="truth")["convex"] != expected["convex"]


def test_negatives_of_the_train_fold_are_its_pairs_without_an_edge():
    adata = informed(scheme="edge")
    train = adata.varp["truth_fold"].toarray() == 1
    spelt_out = adata.copy()
    labels = adata.varp["truth"].toarray()
    spelt_out.varp["truth"] = sparse.csr_matrix(np.where(train & (labels == 0), -1, labels).astype(np.float32))
    implied = results(adata.copy(), known="truth", negatives="train")
    assert results(spelt_out.copy(), known="truth", negatives="labelled") == implied
    # Without stored non-edges, "labelled" knows edges only.
    labelled = adata.copy()
    results(labelled, known="truth")
    probability = labelled.varp["infosem_edge_probability"].toarray()
    known = train & (labels > 0)
    assert (probability[known] > 0.5).all()
    assert (probability[adata.var["is_regulator"].to_numpy()][:, ~known.any(0)] <= 0.5).all()
    results(adata, known="truth", negatives="train")
    probability = adata.varp["infosem_edge_probability"].toarray()
    assert (probability[train & (labels == 0)] < 0.5).all()


def test_known_edges_rise_and_known_non_edges_fall():
    """Acceptance check 15, for what labels say."""
    adata = informed(scheme="edge")
    results(adata, known="truth", negatives="train")
    train = adata.varp["truth_fold"].toarray() == 1
    labels = adata.varp["truth"].toarray() > 0
    probability = adata.varp["infosem_edge_probability"].toarray()
    size, before = (np.abs(adata.varp[key].toarray()) for key in ("infosem_convex", "infosem_ridge"))
    assert np.median(probability[train & labels]) >= 0.9
    assert np.median(probability[train & ~labels]) <= 0.1
    unknown = probability[(adata.varp["truth_fold"].toarray() > 1)]
    np.testing.assert_array_equal(unknown, np.float32(0.5))
    assert size[train & labels].mean() / before[train & labels].mean() > 1
    assert size[train & ~labels].mean() / before[train & ~labels].mean() < 0.5


def test_what_was_read_is_in_the_record():
    adata = informed(scheme="edge")
    tr.tl.infosem(adata, **PRIORS, **FAST)
    record = tr.get.record(adata, "infosem")
    assert record["labels_used"] == "truth"
    assert record["fit"]["conditioning"] == "all"
    assert record["fit"]["others"] in (1.0, 10.0, 100.0)
    assert set(record["cv"]) == {"rho", "others", "error"}
    errors, tried = np.asarray(record["cv"]["error"]), np.asarray(record["cv"]["rho"])
    others = np.asarray(record["cv"]["others"])
    best = errors.argmin()
    assert record["fit"]["others"] == others[best]
    assert record["fit"]["rho"] >= tried[best]  # the strongest that is nearly as good
    assert {"embedding_regulator_explained", "embedding_target_used", "prior_mean_weights"} <= set(record["fit"])
    tr.tl.infosem(adata, **FAST)
    record = tr.get.record(adata, "infosem")
    assert "labels_used" not in record
    assert "prior_mean_weights" not in record["fit"]


def test_given_strengths_are_used_as_they_are():
    adata, again = informed(), informed()
    tr.tl.infosem(adata, **FAST)
    record = tr.get.record(adata, "infosem")
    given = {name: record["fit"][name] for name in ("rho", "others")}
    tr.tl.infosem(again, **given, **FAST)
    assert digest(again.varp["infosem"]) == digest(adata.varp["infosem"])
    record = tr.get.record(again, "infosem")
    assert "cv" not in record
    assert {name: record["fit"][name] for name in given} == given


# priors that say nothing


@pytest.mark.parametrize(
    "options",
    [{"embedding": "embedding", "lam_mean": np.inf}, {"known": "truth", "sigma_p": np.inf}]
    + [{**PRIORS, "sigma_p": np.inf, "lam_mean": np.inf, "prior": prior} for prior in ("mean", "scale")],
    ids=["embedding", "known", "both", "both_scale"],
)
def test_priors_of_infinite_width_are_no_priors(options):
    """Acceptance check 16."""
    adata, plain = informed(), informed()
    tr.tl.infosem(adata, **options, **FAST)
    tr.tl.infosem(plain, **FAST)
    np.testing.assert_array_equal(adata.varp["infosem"].toarray(), plain.varp["infosem"].toarray())
    assert "embedding_regulator_used" not in tr.get.record(adata, "infosem")["fit"]


def test_priors_of_great_width_are_nearly_none():
    """Acceptance check 16, as a limit: no jump between a large number and infinity."""
    adata, plain = informed(300), informed(300)
    results(adata, embedding="embedding", lam_mean=1e6)
    assert tr.get.record(adata, "infosem")["fit"]["embedding_target_used"]
    wide = informed(300)
    results(wide, known="truth", sigma_p=1e6)
    results(plain)
    for other in (adata, wide):
        one, none = other.varp["infosem_convex"].data, plain.varp["infosem_convex"].data
        assert np.corrcoef(one, none)[0, 1] >= 0.999


def test_an_embedding_that_predicts_nothing_changes_nothing():
    adata, plain = informed(), informed()
    adata.varm["embedding"] = np.random.default_rng(3).normal(size=(adata.n_vars, 4)).astype(np.float32)
    found, expected = results(adata, embedding="embedding"), results(plain)
    fit = tr.get.record(adata, "infosem")["fit"]
    assert not fit["embedding_regulator_used"]
    assert not fit["embedding_target_used"]
    assert found["network"] == expected["network"]
    assert not adata.varp["infosem_prior_mean"].toarray().any()


def test_genes_without_embedding_are_left_to_the_cells():
    adata = informed(300)
    missing = np.random.default_rng(0).random(adata.n_vars) < 0.3
    adata.varm["embedding"][missing] = np.nan
    results(adata, embedding="embedding")
    assert np.isfinite(adata.varp["infosem"].data).all()
    mean = adata.varp["infosem_prior_mean"].toarray()
    regulators = adata.var["is_regulator"].to_numpy()
    # Where both genes have none the prior mean is its intercept, for all pairs alike.
    inside = mean[np.ix_(regulators & missing, ~regulators & missing)]
    assert np.ptp(inside) == 0
    assert np.ptp(mean[np.ix_(regulators & ~missing, ~regulators & ~missing)]) > 0


# runs, stages, files


def test_every_stage_is_kept_on_request_and_changes_nothing_else():
    kept, plain = informed(), informed()
    tr.tl.infosem(kept, **PRIORS, keep_stages=True, **FAST)
    tr.tl.infosem(plain, **PRIORS, **FAST)
    assert {key for key in plain.varp if key.startswith("infosem")} == {"infosem"}
    stages = {"ridge", "convex", "deep", "prior_mean", "edge_probability"}
    assert {key for key in kept.varp if key.startswith("infosem")} == {"infosem", *(f"infosem_{s}" for s in stages)}
    assert digest(kept.varp["infosem"]) == digest(plain.varp["infosem"]) == digest(kept.varp["infosem_deep"])
    scale = informed()
    tr.tl.infosem(scale, **PRIORS, prior="scale", keep_stages=True, **FAST)
    assert "infosem_prior_scale" in scale.varp
    assert "infosem_prior_mean" not in scale.varp
    assert (scale.varp["infosem_prior_scale"].data > 0).all()


def test_no_epochs_write_the_convex_stage():
    adata, deep = informed(), informed()
    tr.tl.infosem(adata, **PRIORS, max_epochs=0, keep_stages=True)
    tr.tl.infosem(deep, **PRIORS, keep_stages=True, **FAST)
    assert digest(adata.varp["infosem"]) == digest(adata.varp["infosem_convex"])
    assert "infosem_deep" not in adata.varp
    assert "history" not in tr.get.record(adata, "infosem")
    np.testing.assert_allclose(adata.varp["infosem"].data, deep.varp["infosem_convex"].data, rtol=0, atol=1e-6)


def test_an_ensemble_is_the_mean_of_its_runs_with_any_number_of_workers():
    one, three, parallel = informed(), informed(), informed()
    tr.tl.infosem(one, **PRIORS, **FAST)
    tr.tl.infosem(three, **PRIORS, n_runs=3, **FAST)
    tr.tl.infosem(parallel, **PRIORS, n_runs=3, n_jobs=2, **FAST)
    # To rounding: products inside threads may sum in another order.
    for key in ("infosem", "infosem_std"):
        np.testing.assert_allclose(parallel.varp[key].data, three.varp[key].data, rtol=1e-4, atol=1e-6)
    runs = tr.get.record(three, "infosem")["weights"]["adjacency"]
    network, spread = three.varp["infosem"].tocoo(), three.varp["infosem_std"].tocoo()
    np.testing.assert_allclose(network.data, runs.mean(0)[network.row, network.col], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(spread.data, runs.std(0)[spread.row, spread.col], rtol=1e-3, atol=1e-7)
    alone = one.varp["infosem"].tocoo()
    np.testing.assert_array_equal(alone.data, runs[0][alone.row, alone.col])
    assert tr.get.record(three, "infosem")["history"]["run"].tolist() == [0.0] * 3 + [1.0] * 3 + [2.0] * 3


def test_a_stopped_fit_changes_nothing_and_resumes(monkeypatch, tmp_path):
    options = {**PRIORS, "max_epochs": 24, "n_hidden": 4, "n_runs": 2}
    whole, stopped = informed(scheme="edge"), informed(scheme="edge")
    tr.tl.infosem(whole, **options)
    before = content(stopped)
    seen = []
    build = _sem.epoch_bar

    def with_stop(*args, **kwargs):
        bar, callback = build(*args, **kwargs)

        def on_epoch_end(epoch, means):
            callback(epoch, means)
            seen.append(epoch)
            if len(seen) == 24 + 13:
                raise KeyboardInterrupt

        return bar, on_epoch_end

    monkeypatch.setattr(_sem, "epoch_bar", with_stop)
    with pytest.raises(KeyboardInterrupt):
        tr.tl.infosem(stopped, checkpoint=tmp_path / "c", **options)
    assert content(stopped) == before
    tr.tl.infosem(stopped, checkpoint=tmp_path / "c", **options)
    assert seen[24 + 13 :] == list(range(10, 24))
    assert content(stopped) == content(whole)
    # Other cells, another split of the labels and other settings are other fits.
    resplit = informed(scheme="both")
    for other, changes in ((stopped[5:].copy(), {}), (resplit, {}), (stopped, {"beta": 0.5}), (stopped, {"seed": 2})):
        before = content(other)
        with pytest.raises(ValueError, match=r"of another fit: its data, settings or seed differ"):
            tr.tl.infosem(other, checkpoint=tmp_path / "c", **{**options, **changes})
        assert content(other) == before


@pytest.mark.parametrize("max_epochs", [0, 3])
def test_the_saved_model_is_the_one_in_the_record(max_epochs, tmp_path):
    adata = informed()
    tr.tl.infosem(adata, **PRIORS, sigma_p=np.inf, save_model=tmp_path / "m", n_hidden=4, max_epochs=max_epochs)
    saved = tr.models.load(tmp_path / "m", var_names=list(adata.var_names))
    weights = tr.get.record(adata, "infosem")["weights"]
    assert saved.method == "infosem"
    assert saved.config["n_hidden"] == 4
    assert saved.config["shrink"]["sigma_p"] == np.inf
    assert saved.weights.keys() == weights.keys()
    for name, value in saved.weights.items():
        assert digest(value) == digest(weights[name])
    # Adjacency and positions give the network back.
    network = np.zeros((adata.n_vars, adata.n_vars), np.float32)
    network[saved.weights["positions"][0]] = saved.weights["adjacency"][0]
    found = adata.varp["infosem"].tocoo()
    np.testing.assert_array_equal(found.data, network[found.row, found.col])


@pytest.mark.parametrize("conditioning", ["auto", "all", "regulators"])
def test_conditioning(conditioning):
    adata = informed()
    tr.tl.infosem(adata, **PRIORS, conditioning=conditioning, **FAST)
    record = tr.get.record(adata, "infosem")
    assert record["fit"]["conditioning"] == ("regulators" if conditioning == "regulators" else "all")
    n_rows = 10 if conditioning == "regulators" else adata.n_vars
    assert record["weights"]["adjacency"].shape == (1, n_rows, adata.n_vars)


# bad input


def _fold_without_edges(adata):
    folds = adata.varp["truth_fold"].toarray()
    folds[adata.varp["truth"].toarray() > 0] = 3
    adata.varp["truth_fold"] = sparse.csr_matrix(folds)


def _no_edges(adata):
    del adata.varp["truth_fold"]
    adata.varp["truth"] = -adata.varp["truth"]


def _no_folds(adata):
    del adata.varp["truth_fold"]


def _all_nan(adata):
    adata.varm["embedding"][:] = np.nan


def _infinite(adata):
    adata.varm["embedding"][2, 1] = np.inf


def _unchanged(adata):
    pass


BAD = {
    "prior": (_unchanged, {"prior": "median"}, ValueError, r"`prior` to be one of 'mean', 'scale'; found 'median'"),
    "conditioning": (_unchanged, {"conditioning": "some"}, ValueError, r"`conditioning` to be one of 'auto', 'all'"),
    "negatives": (_unchanged, {"negatives": "all"}, ValueError, r"`negatives` to be one of 'labelled', 'train'"),
    "lam": (_unchanged, {"lam": -0.1}, ValueError, r"`lam` to lie in \[0, inf\], found -0\.1"),
    "lam_inf": (_unchanged, {"lam": np.inf}, ValueError, r"`lam` to be a finite number, found inf"),
    "lam_mean": (_unchanged, {"lam_mean": -1}, ValueError, r"`lam_mean` to lie in \[0, inf\], found -1"),
    "sigma_p": (_unchanged, {"sigma_p": 0}, ValueError, r"`sigma_p` to lie in \(0, inf\], found 0"),
    "rho": (_unchanged, {"rho": 0}, ValueError, r"`rho` to lie in \(0, inf\], found 0"),
    "others": (_unchanged, {"others": 0.5}, ValueError, r"`others` to lie in \[1, inf\], found 0\.5"),
    "beta": (_unchanged, {"beta": 4}, ValueError, r"`beta` to lie in \[0, 2\], found 4"),
    "max_epochs": (_unchanged, {"max_epochs": -1}, ValueError, r"`max_epochs` to be at least 0, found -1"),
    "n_components": (_unchanged, {"n_components": 0}, ValueError, r"`n_components` to be at least 1, found 0"),
    "batch_size": (_unchanged, {"batch_size": True}, TypeError, r"`batch_size` to be an integer, found True"),
    "no_embedding": (_unchanged, {"embedding": "gpt"}, KeyError, r"`embedding`: 'gpt' not found.*pp\.gene_embedding"),
    "nan_embedding": (_all_nan, {}, ValueError, r"`adata\.varm\['embedding'\]` is NaN for every gene"),
    "infinite_embedding": (_infinite, {}, ValueError, r"`adata\.varm\['embedding'\]` has infinite values"),
    "no_network": (_unchanged, {"known": "string"}, KeyError, r"`known`: 'string' not found.*pp\.network"),
    "fold_without_edges": (_fold_without_edges, {}, ValueError, r"`known='truth'`: its train fold has no edge"),
    "network_without_edges": (_no_edges, {}, ValueError, r"`known='truth'`: it has no edge from a regulator"),
    "no_folds": (
        _no_folds,
        {"negatives": "train"},
        ValueError,
        r"needs the train fold.*pp\.split_edges\(adata, 'truth'",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    change, options, error, message = BAD[case]
    adata = informed(scheme="edge")
    change(adata)
    before = content(adata)
    with pytest.raises(error, match=message):
        tr.tl.infosem(adata, **{**PRIORS, **FAST, **options})
    assert content(adata) == before


def test_an_embedding_of_another_length_cannot_be_stored():
    adata = informed()
    with pytest.raises(ValueError, match="length|shape"):
        adata.varm["embedding"] = np.zeros((adata.n_vars - 1, 3), np.float32)


def test_a_system_too_large_for_memory_is_refused(monkeypatch):
    """With all genes the system is genes x genes, with regulators only regulators x genes."""
    adata = informed()
    # 8 matrices of 40 x 40 float32 are 51 kB; of 10 x 40, 13 kB.
    monkeypatch.setattr(tr.settings, "max_dense_gb", 3e-5)
    with pytest.raises(ValueError, match=r"Fitting the network needs .*conditioning='regulators'"):
        tr.tl.infosem(adata, conditioning="all", **FAST)
    tr.tl.infosem(adata, conditioning="regulators", **FAST)


# recovery


def precision(adata, key, *, signed=False):
    """Average precision over regulators x genes, and the share of edges."""
    index = np.flatnonzero(adata.var["is_regulator"])
    counted = np.ones((len(index), adata.n_vars), bool)
    counted[np.arange(len(index)), index] = False
    score = adata.varp[key].toarray()[index][counted]
    truth = adata.varp["truth"].toarray()[index][counted] > 0
    return metrics.average_precision(score if signed else np.abs(score), truth), truth.mean()


def every(fast, rest):
    """Parametrise over one seed always, and over several where slow tests run."""
    return pytest.mark.parametrize(
        "seeds", [pytest.param(fast, id="fast"), pytest.param(rest, id="all", marks=pytest.mark.slow)]
    )


@every([0], range(6))
@pytest.mark.parametrize(
    ("n_obs", "counts", "least", "above_correlation"),
    [(800, False, 0.85, 0.10), (200, False, 0.78, 0.05), (800, True, 0.42, 0.0), (200, True, 0.18, -0.03)],
    ids=["check_4", "check_5", "check_6", "check_7"],
)
def test_planted_networks_are_recovered(n_obs, counts, least, above_correlation, seeds):
    """Acceptance checks 4 to 7. With few cells of counts nothing beats correlation, and nobody should claim so."""
    found = []
    for seed in seeds:
        adata = tr.datasets.simulate_grn(n_obs, counts=counts, seed=seed)
        tr.tl.infosem(adata)
        tr.tl.baseline(adata, "pearson")
        found.append([*precision(adata, "infosem"), precision(adata, "pearson")[0]])
    ours, base, correlation = np.mean(found, axis=0)
    assert ours >= least
    assert ours >= correlation + above_correlation
    if counts:
        assert ours >= (6 if n_obs == 800 else 3) * base


@every([1], range(8))
@pytest.mark.parametrize(
    "n_obs", [200, pytest.param(100, marks=pytest.mark.slow), pytest.param(800, marks=pytest.mark.slow)]
)
def test_informative_embeddings_gain_and_random_ones_cost_nothing(n_obs, seeds):
    """Acceptance checks 8, 9, 10 and 11, after the convex and after the deep stage."""
    stages = ("infosem_convex", "infosem_deep")
    gains, costs, priors = [], [], []
    for seed in seeds:
        score = {}
        for name, kind, embedding in (
            ("none", "informative", None),
            ("informed", "informative", "embedding"),
            ("random", "random", "embedding"),
        ):
            adata = tr.datasets.simulate_grn(n_obs, embedding=kind, seed=seed)
            tr.tl.infosem(adata, embedding=embedding, keep_stages=True)
            score[name] = np.array([precision(adata, key)[0] for key in stages])
            if name == "informed":
                priors.append(precision(adata, "infosem_prior_mean", signed=True))  # all effects are positive
        gains.append(score["informed"] - score["none"])
        costs.append(score["none"] - score["random"])
    assert (np.mean(gains, axis=0) >= (0.05 if n_obs == 200 else 0.03)).all()
    assert (np.sum(np.array(gains) > 0, axis=0) >= 7 / 8 * len(gains)).all()
    assert (np.mean(costs, axis=0) <= 0.02).all()
    assert np.max(costs) <= 0.05
    assert np.mean(priors, axis=0)[0] >= 0.30  # the prior alone, at 0.1 by chance


@every([0], range(5))
def test_embeddings_of_half_of_the_genes_still_help(seeds):
    """Acceptance check 12."""
    gains = []
    for seed in seeds:
        adata = tr.datasets.simulate_grn(200, embedding="informative", seed=seed)
        half = adata.copy()
        half.varm["embedding"][np.random.default_rng(seed).random(adata.n_vars) < 0.5] = np.nan
        score = []
        for data, embedding in ((adata, None), (adata, "embedding"), (half, "embedding")):
            tr.tl.infosem(data, embedding=embedding, max_epochs=0)
            score.append(precision(data, "infosem")[0])
            assert np.isfinite(data.varp["infosem"].data).all()
        gains.append([score[1] - score[0], score[2] - score[0]])
    whole, part = np.mean(gains, axis=0)
    assert part >= 0.4 * whole > 0


# real cells


@pytest.mark.data
@pytest.mark.parametrize(
    ("network", "ridge", "least"),
    [
        ("STRING", 1.66, 1.60),
        pytest.param("Non-Specific", 1.79, 1.75, marks=pytest.mark.slow),
        pytest.param("Specific", 1.04, 0.95, marks=pytest.mark.slow),
    ],
)
def test_dendritic_cells(data_dir, network, ridge, least):
    """Acceptance checks 24 and 25: nothing was tuned on these cells."""
    adata = tr.datasets.beeline("mDC", network, path=data_dir)
    tr.tl.infosem(adata, rho=30.0, others=1.0, max_epochs=0, keep_stages=True, key_added="fixed")
    tr.tl.infosem(adata)
    table = tr.tl.evaluate(adata, ["infosem", "fixed_ridge"], baselines=[], metrics=["auprc_ratio"], n_boot=0)
    ratio = table.query("level == 'micro'").set_index("key")["value"]
    assert ratio["fixed_ridge"] == pytest.approx(ridge, abs=0.02)
    assert ratio["infosem"] >= least
