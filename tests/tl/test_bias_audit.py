import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
from helpers import content
from known_pairs import N, P, store, world
from scipy import sparse, special, stats
from sklearn.linear_model import LogisticRegression

import sctrellis as tr
from sctrellis import metrics
from sctrellis._core import slots
from sctrellis.metrics._label_scores import degree_scores, one_hot_scores

FAST = {"n_boot": 100}


def train_of(adata):
    train = (adata.varp["network_fold"] == 1).tocoo()
    return train.row, train.col, np.asarray(adata.varp["network"][train.row, train.col]).ravel() > 0


def learned(adata, kernel):
    """Scores of a kernel that learns from the train fold, of every pair."""
    row, column = (values.ravel() for values in np.indices((P, N)))
    return kernel(*train_of(adata), row, column).reshape(P, N)


def code(adata):
    return tr.get.record(adata, "bias_audit")["verdict"]["code"]


@pytest.mark.parametrize("scheme", ["edge", "infosem"])
def test_one_hot_regression_audited_is_itself(scheme):
    adata, _ = world()
    tr.pp.split_edges(adata, scheme=scheme)
    store(adata, special.expit(learned(adata, one_hot_scores)))
    table = tr.tl.bias_audit(adata, "model", **FAST)
    seen = table.query("pair_class == 'SS' and level == 'micro' and metric != 'hit_rate'")
    np.testing.assert_allclose(seen["bias_fraction"], 1, atol=0.02)
    np.testing.assert_allclose(seen[["bias_fraction_low", "bias_fraction_high"]], 1, atol=0.02)
    assert code(adata) == "B1"
    assert set(table["verdict"]) == {"B1"}
    gains = tr.get.record(adata, "bias_audit")["incremental"].query("pair_class == 'SS'").set_index("features")["gain"]
    assert gains["one_hot + model"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_a_planted_signal_of_pairs_survives(seed):
    adata, pair = world(seed)
    store(adata, special.expit(pair))
    tr.pp.split_edges(adata, scheme="infosem", seed=seed)
    table = tr.tl.bias_audit(adata, "model", **FAST).set_index(["pair_class", "metric", "level"])
    assert code(adata) == "B3"
    assert table.loc[("UU", "auroc", "pair"), "over_chance_low"] > 0
    tr.pp.split_edges(adata, scheme="both", seed=seed)
    tr.tl.bias_audit(adata, "model", **FAST)
    assert code(adata) == "B3"
    tr.pp.split_edges(adata, scheme="edge", seed=seed)
    tr.tl.bias_audit(adata, "model", **FAST)
    assert code(adata) == "B2"
    words = tr.get.record(adata, "bias_audit")["verdict"]["words"]
    assert "Unseen genes were not judged: split with `scheme='infosem'`" in words


@pytest.mark.parametrize("scheme", ["edge", "target", "regulator", "infosem"])
def test_popularity_is_called_popularity(scheme):
    adata, _ = world(1)
    tr.pp.split_edges(adata, scheme=scheme)
    store(adata, learned(adata, degree_scores))
    table = tr.tl.bias_audit(adata, "model", **FAST)
    assert code(adata) == "B0"
    seen = {"target": "SU", "regulator": "US"}.get(scheme, "SS")
    relations = tr.get.record(adata, "bias_audit")["correlations"].set_index("pair_class").loc[seen]
    assert relations["pairs"] == pytest.approx(1)
    line = table.query("pair_class == @seen and metric == 'auroc' and level == 'micro'").iloc[0]
    assert (line["over_degree"], line["over_degree_high"]) == (0, 0)


@pytest.mark.parametrize("seed", range(3))
def test_noise_is_neither(seed):
    adata, _ = world(seed)
    store(adata, np.random.default_rng(99 + seed).random((P, N)))
    tr.pp.split_edges(adata, scheme="infosem", seed=seed)
    table = tr.tl.bias_audit(adata, "model", **FAST)
    assert code(adata) in ("B0", "B1")
    line = table.query("pair_class == 'UU' and metric == 'auroc' and level == 'micro'").iloc[0]
    assert np.isnan(line["bias_fraction"])
    assert line["note"] == "the model cannot be told from chance"


def test_hubs_among_unseen_genes_are_no_knowledge_of_pairs():
    rng = np.random.default_rng(0)
    adata, _ = world(0, signal=0)
    hub = rng.normal(size=(P, 1)) * 1.5
    known = np.zeros((N, N), np.float32)
    known[:P] = rng.random((P, N)) < special.expit(hub - 1)
    np.fill_diagonal(known, 0)
    adata.varp["network"] = sparse.csr_matrix(known)
    store(adata, np.repeat(special.expit(hub), N, axis=1))
    tr.pp.split_edges(adata, scheme="infosem")
    table = tr.tl.bias_audit(adata, "model", **FAST).set_index(["pair_class", "metric", "level"])
    assert code(adata) == "B2"
    assert "only between regulators" in tr.get.record(adata, "bias_audit")["verdict"]["words"]
    assert table.loc[("UU", "auroc", "pair"), "model"] == 0.5


def test_numbers_are_those_of_an_independent_reckoning():
    adata, pair = world(3)
    tr.pp.split_edges(adata)
    store(adata, special.expit(pair))
    table = tr.tl.bias_audit(adata, "model", n_boot=0).set_index(["metric", "level"])
    row, column, label = train_of(adata)
    test = (adata.varp["network_fold"] == 3).tocoo()
    found = np.asarray(adata.varp["network"][test.row, test.col]).ravel() > 0
    x = np.zeros((len(row), 2 * N))
    x[np.arange(len(row)), row] = x[np.arange(len(row)), N + column] = 1
    fitted = LogisticRegression(C=1, tol=1e-8, max_iter=5000).fit(x, label)
    logit = fitted.intercept_[0] + fitted.coef_[0][test.row] + fitted.coef_[0][N + test.col]
    scores = np.asarray(adata.varp["model"][test.row, test.col]).ravel()
    for metric, measure in (("auroc", metrics.auroc), ("auprc", metrics.average_precision)):
        chance = {"auroc": 0.5, "auprc": found.mean()}[metric]
        line = table.loc[(metric, "micro")]
        assert line["one_hot"] == pytest.approx(measure(logit, found), abs=1e-5)
        assert line["model"] == pytest.approx(measure(scores, found))
        assert line["chance"] == pytest.approx(chance)
        assert line["over_one_hot"] == pytest.approx(line["model"] - line["one_hot"])
    # Without replicates there is no interval to decide by.
    assert code(adata) == "undecided"
    record = tr.get.record(adata, "bias_audit")
    out_degree, in_degree = np.bincount(row[label], minlength=N), np.bincount(column[label], minlength=N)
    popularity = (np.log1p(out_degree[test.row]) + np.log1p(in_degree[test.col])).astype(np.float32)
    relations = record["correlations"].iloc[0]
    assert relations["pairs"] == pytest.approx(stats.spearmanr(scores, popularity).statistic)
    means = [scores[test.row == i].mean() for i in range(P)]
    assert relations["regulator_means"] == pytest.approx(stats.spearmanr(means, out_degree[:P]).statistic)
    regulators = record["regulators"].set_index("regulator")
    assert regulators.loc["g7", "n_train"] == (row == 7).sum()
    assert regulators.loc["g7", "train_rate"] == pytest.approx(label[row == 7].mean())
    assert regulators.loc["g7", "test_rate"] == pytest.approx(found[test.row == 7].mean())
    counts = out_degree[:P]
    gini = np.abs(counts[:, None] - counts).sum() / (2 * P * counts.sum())
    assert record["imbalance"]["gini_out_degree"] == pytest.approx(gini)


def test_one_hot_is_at_chance_between_unseen_genes():
    adata, pair = world(2)
    tr.pp.split_edges(adata, scheme="infosem")
    store(adata, special.expit(pair))
    table = tr.tl.bias_audit(adata, "model", **FAST)
    unseen = table[(table["pair_class"] == "UU") & (table["level"] == "micro")]
    for key in ("one_hot", "degree"):
        np.testing.assert_allclose(unseen[key], unseen["chance"], atol=1e-9)
    np.testing.assert_allclose(unseen["bias_fraction"].dropna(), 0, atol=1e-9)
    assert list(dict.fromkeys(table["pair_class"])) == ["all", "SS", "SU", "US", "UU"]
    assert set(tr.get.record(adata, "bias_audit")["correlations"].set_index("pair_class").loc["UU", ["pairs"]].isna())


def test_few_regulators_leave_it_undecided():
    adata, pair = world()
    keep = np.r_[0:6, P:N]
    small = adata[:, keep].copy()
    small.varp["model"] = slots.network_csr(pair[:6, keep], np.arange(6), np.arange(len(keep)), len(keep))
    tr.pp.split_edges(small)
    table = tr.tl.bias_audit(small, "model", **FAST)
    assert code(small) == "undecided"
    assert "only 6 regulators" in table["note"].iloc[0]
    assert table["model_low"].isna().all()


def test_the_order_of_genes_does_not_matter():
    adata, pair = world(1)
    tr.pp.split_edges(adata)
    store(adata, special.expit(pair))
    other = adata[:, np.random.default_rng(5).permutation(N)].copy()
    one, two = (tr.tl.bias_audit(a, "model", n_boot=0) for a in (adata, other))
    numbers = one.select_dtypes("number").columns
    np.testing.assert_allclose(one[numbers], two[numbers], atol=1e-6)


def test_missing_scores_come_last_or_are_refused():
    adata, pair = world()
    tr.pp.split_edges(adata)
    store(adata, special.expit(pair))
    network = adata.varp["model"].tolil()
    network[3] = 0
    adata.varp["model"] = sparse.csr_matrix(network)
    adata.varp["model"].eliminate_zeros()
    before = content(adata)
    with pytest.raises(ValueError, match="'model' has no score for .* pairs, such as 'g3' to"):
        tr.tl.bias_audit(adata, "model", **FAST)
    assert content(adata) == before
    assert tr.tl.bias_audit(adata, "model", missing="lowest", **FAST)["model"].notna().any()


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_round_trip(form, tmp_path):
    adata, pair = world()
    tr.pp.split_edges(adata, scheme="infosem")
    store(adata, special.expit(pair))
    before = set(content(adata))
    tr.tl.bias_audit(adata, "model", key_added="mine", **FAST)
    assert set(content(adata)) - before == {"uns/mine"}
    getattr(adata, f"write_{form}")(tmp_path / "a")
    back = getattr(ad, f"read_{form}")(tmp_path / "a")
    one, two = tr.get.record(adata, "mine"), tr.get.record(back, "mine")
    assert one["verdict"] == two["verdict"]
    pd.testing.assert_frame_equal(one["table"], two["table"], check_dtype=False)


def test_a_modality():
    adata, pair = world()
    tr.pp.split_edges(adata)
    store(adata, special.expit(pair))
    expected = tr.tl.bias_audit(adata.copy(), "model", **FAST)
    mdata = md.MuData({"rna": adata})
    pd.testing.assert_frame_equal(tr.tl.bias_audit(mdata, "model", mod="rna", **FAST), expected)
    assert "bias_audit" in mdata["rna"].uns


def no_folds(adata):
    del adata.varp["network_fold"]


def no_train_edges(adata):
    elsewhere = adata.varp["network_fold"].toarray() != 1
    adata.varp["network"] = sparse.csr_matrix(adata.varp["network"].toarray() * elsewhere)


def not_finite(adata):
    adata.varp["model"].data[5] = np.nan


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        (None, {"key": "absent"}, KeyError, "`key`: 'absent' not found in `adata.varp`"),
        (None, {"key": "network"}, ValueError, "`key`: 'network' is the known network itself"),
        (None, {"network": "absent"}, KeyError, "`network`: 'absent' not found"),
        (no_folds, {}, KeyError, r"'network_fold' not found .* run `sctrellis.pp.split_edges\(adata, 'network'\)`"),
        (no_train_edges, {}, ValueError, "fold 'train' of 'network' has no known edge among its"),
        (not_finite, {}, ValueError, "'model' has 1 NaN or infinite scores"),
        (None, {"fold": "train"}, ValueError, "`fold` to be one of 'validation', 'test'; found 'train'"),
        (None, {"missing": "drop"}, ValueError, "`missing` to be one of 'error', 'lowest'"),
        (None, {"n_boot": -1}, ValueError, "`n_boot` to be at least 0, found -1"),
        (None, {"seed": -1}, ValueError, "`seed` to be at least 0, found -1"),
        (None, {"key_added": "a/b"}, ValueError, "`key_added` to be a non-empty name"),
        (None, {"mod": "rna"}, ValueError, "`mod='rna'` names a modality"),
    ],
)
def test_bad_input(change, options, error, message):
    adata, pair = world()
    tr.pp.split_edges(adata)
    store(adata, special.expit(pair))
    if change is not None:
        change(adata)
    before = content(adata)
    options = {"key": "model", **options}
    with pytest.raises(error, match=message):
        tr.tl.bias_audit(adata, options.pop("key"), **options)
    assert content(adata) == before


@pytest.mark.data
def test_published_split_of_mouse_stem_cells(data_dir):
    folder = data_dir / "embeddings" / "scGREAT_biobert_mESC"
    train, test = (pd.read_csv(folder / f"{name}_set.csv.gz") for name in ("Train", "Test"))
    one_hot = one_hot_scores(train["TF"], train["Target"], train["Label"], test["TF"], test["Target"])
    label = test["Label"].to_numpy() == 1
    assert 0.84 < metrics.average_precision(one_hot, label) < 0.87
    out_degree = degree_scores(
        train["TF"], np.arange(len(train)) + 10**6, train["Label"], test["TF"], np.zeros(len(test)) - 1
    )
    assert metrics.average_precision(out_degree, label) == pytest.approx(0.70, abs=0.01)
