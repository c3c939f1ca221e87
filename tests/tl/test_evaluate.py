import hashlib
import logging

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import pytest
from helpers import content
from scipy import sparse

import sctrellis as tr
from sctrellis import metrics

N_VARS, N_REGULATORS = 40, 15
FAST = {"baselines": (), "n_boot": 0}


def pair_values(matrix, pairs):
    """Values at the pairs of a Boolean matrix."""
    return np.asarray(matrix.todense() if sparse.issparse(matrix) else matrix)[pairs]


@pytest.fixture
def grn():
    """40 genes, of which 15 regulate; known edges with folds, and a network that partly knows them."""
    rng = np.random.default_rng(0)
    adata = ad.AnnData(
        rng.gamma(2.0, size=(60, N_VARS)).astype(np.float32),
        obs=pd.DataFrame(index=[f"c{i}" for i in range(60)]),
        var=pd.DataFrame({"is_regulator": np.arange(N_VARS) < N_REGULATORS}, index=[f"g{i}" for i in range(N_VARS)]),
    )
    known = np.zeros((N_VARS, N_VARS), np.float32)
    known[:N_REGULATORS] = rng.random((N_REGULATORS, N_VARS)) < 0.2
    np.fill_diagonal(known, 0)
    known[0, 1:] = 1  # every gene has a known edge, so that the universe is 15 x 40 less self pairs
    universe = np.zeros(known.shape, bool)
    universe[:N_REGULATORS] = True
    np.fill_diagonal(universe, False)
    scores = np.where(universe, rng.normal(size=known.shape) * (1 + known), 0)
    rows, columns = np.nonzero(universe)
    adata.varp["network"] = sparse.csr_matrix(known)
    adata.varp["method"] = sparse.csr_matrix((scores[universe], (rows, columns)), shape=known.shape, dtype=np.float32)
    adata.uns["method"] = {"schema": 1, "method": "infosem"}
    return adata


def add_folds(adata):
    rng = np.random.default_rng(1)
    folds = np.zeros((N_VARS, N_VARS), np.int8)
    folds[:N_REGULATORS] = rng.integers(1, 4, (N_REGULATORS, N_VARS))
    np.fill_diagonal(folds, 0)
    adata.varp["network_fold"] = sparse.csr_matrix(folds)
    return folds


@pytest.mark.parametrize("fold", ["train", "validation", "test", "all", None])
def test_values_are_those_of_the_metrics_on_the_pairs_of_the_fold(grn, fold):
    folds = add_folds(grn)
    code = {"train": 1, "validation": 2, "test": 3}.get(fold)
    pairs = folds > 0 if code is None else folds == code
    table = tr.tl.evaluate(grn, "method", fold=fold, n_boot=30)
    scores = np.abs(pair_values(grn.varp["method"], pairs))
    labels = pair_values(grn.varp["network"], pairs) > 0
    rows, columns = np.nonzero(pairs)
    own = table[table["key"] == "method"].set_index(["metric", "level"])
    assert own.loc[("auprc", "micro"), "value"] == metrics.average_precision(scores, labels)
    assert own.loc[("early_precision_ratio", "micro"), "value"] == metrics.early_precision_ratio(scores, labels)
    by_regulator = metrics.macro(scores, labels, rows)
    np.testing.assert_equal(own.loc[("auroc", "regulator"), "value"], by_regulator.loc["auroc", "mean"])
    limits = (
        metrics.bootstrap(scores, labels, rows=rows, columns=columns, n_boot=30, metrics="auroc").interval().iloc[0]
    )
    assert own.loc[("auroc", "micro"), "low"] == limits["low"]
    first = table.iloc[0]
    assert tuple(first[["n_pairs", "n_positive", "n_regulators"]]) == (len(labels), labels.sum(), len(np.unique(rows)))
    assert set(table["base"]) == {labels.mean()}
    assert set(table["fold"]) == {fold or "all"}


def test_baselines_are_in_the_table_unless_they_are_judged_already(grn):
    add_folds(grn)
    kinds = tr.tl.evaluate(grn, "method", n_boot=0).groupby("key", sort=False)["kind"].first().to_dict()
    assert kinds == {
        "method": "method",
        "random": "baseline",
        "degree": "baseline",
        "pearson": "baseline",
        "ridge": "baseline",
    }
    tr.tl.baseline(grn, "pearson", key_added="corr")
    table = tr.tl.evaluate(grn, ["method", "corr"], baselines=("pearson", "random"), n_boot=0)
    assert table.groupby("key", sort=False)["kind"].first().to_dict() == {
        "method": "method",
        "corr": "baseline",
        "random": "baseline",
    }


def test_a_baseline_gets_what_its_stored_network_gets(grn):
    # The evaluation fits baselines itself; `tl.baseline` stores them. Both must be the same numbers.
    add_folds(grn)
    names = ("degree", "pearson", "ridge", "random")
    fitted = tr.tl.evaluate(grn, "method", baselines=names, n_boot=0)
    for name in names:
        tr.tl.baseline(grn, name, network="network")
    stored = tr.tl.evaluate(grn, ["method", *names], n_boot=0)
    pd.testing.assert_frame_equal(fitted, stored)


def test_degree_is_left_out_without_folds_and_says_so(grn, caplog):
    with caplog.at_level(logging.INFO, logger="sctrellis"):
        table = tr.tl.evaluate(grn, "method", baselines=["degree", "random"], n_boot=0)
    assert set(table["key"]) == {"method", "random"}
    assert set(table["fold"]) == {"all"}
    assert "'degree' counts train edges" in caplog.text
    assert "no folds are stored for 'network'" in caplog.text
    assert "added uns['evaluate']" in caplog.text


def test_degree_knows_the_train_fold_only(grn):
    folds = add_folds(grn)
    options = {"baselines": ["degree"], "metrics": ["auroc"], "n_boot": 0}
    before = tr.tl.evaluate(grn, "method", **options)
    known = grn.varp["network"].toarray()
    known[(folds != 3) & (folds != 1)] = 0  # labels of the validation fold
    known[0, 1:] = np.maximum(known[0, 1:], folds[0, 1:] == 2)  # keep every gene in the universe
    grn.varp["network"] = sparse.csr_matrix(known)
    after = tr.tl.evaluate(grn, "method", **options)
    pd.testing.assert_frame_equal(before, after)


def test_known_non_edges_are_negatives(grn):
    known = grn.varp["network"].tolil()
    pairs = np.argwhere((grn.varp["network"].toarray() == 0) & (np.arange(N_VARS)[:, None] < N_REGULATORS))
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    before = tr.tl.evaluate(grn, "method", **FAST)
    for i, j in pairs[::3]:
        known[i, j] = -1
    grn.varp["network"] = known.tocsr()
    pd.testing.assert_frame_equal(before, tr.tl.evaluate(grn, "method", **FAST))
    labelled = tr.tl.evaluate(grn, "method", universe="labelled", **FAST)
    assert labelled["n_pairs"].iloc[0] == grn.varp["network"].nnz
    assert labelled["n_positive"].iloc[0] == before["n_positive"].iloc[0]


def test_scored_zeros_are_scores_and_absent_pairs_are_not(grn):
    csr = grn.varp["method"].copy()
    csr.data[::2] = 0
    grn.varp["method"] = csr  # zeros stay stored
    assert set(tr.tl.evaluate(grn, "method", **FAST)["scored"]) == {1.0}
    csr.eliminate_zeros()
    grn.varp["method"] = csr
    with pytest.raises(
        ValueError, match=r"'method' has no score for 293 of the 585 pairs, such as 'g0' to 'g1'.*lowes"
    ):
        tr.tl.evaluate(grn, "method", **FAST)
    table = tr.tl.evaluate(grn, "method", missing="lowest", **FAST)
    assert set(table["scored"]) == {292 / 585}


def test_missing_pairs_rank_below_scored_zeros_but_with_them_in_beeline(grn):
    csr = grn.varp["method"].copy()
    kept = np.random.default_rng(0).random(csr.nnz) < 0.7
    coo = csr.tocoo()
    data = np.where(np.arange(csr.nnz) % 3 == 0, 0, coo.data)
    grn.varp["method"] = sparse.csr_matrix((data[kept], (coo.row[kept], coo.col[kept])), shape=csr.shape)
    pairs = csr.toarray() != 0
    labels = pair_values(grn.varp["network"], pairs) > 0
    scores = np.abs(np.where(kept, data, -np.inf)).astype(float) * np.where(kept, 1, -1)
    options = {"missing": "lowest", "metrics": ["auprc", "early_precision"], **FAST}
    ours = tr.tl.evaluate(grn, "method", **options).query("level == 'micro'")["value"].tolist()
    assert ours == [metrics.average_precision(scores, labels), metrics.early_precision(scores, labels)]
    zeros = np.where(kept, scores, 0)
    theirs = tr.tl.evaluate(grn, "method", compat="beeline", **options).query("level == 'micro'")["value"].tolist()
    assert theirs == [
        metrics.average_precision(zeros, labels, interp="trapezoid"),
        metrics.early_precision(zeros, labels, ties="beeline"),
    ]
    deepsem = tr.tl.evaluate(grn, "method", compat="deepsem", **options).query("level == 'micro'")["value"].tolist()
    assert deepsem == pytest.approx([ours[0], metrics.early_precision(scores, labels, ties="deepsem")])


def sparse_labels(rng, n_regulators=120, n_genes=400):
    adata = ad.AnnData(np.zeros((10, n_genes), np.float32))
    known = np.zeros((n_genes, n_genes), np.float32)
    known[:n_regulators] = rng.random((n_regulators, n_genes)) < 0.03
    known[0, 1:] = 1
    np.fill_diagonal(known, 0)
    scores = np.zeros_like(known)
    scores[:n_regulators] = rng.random((n_regulators, n_genes)) + 0.01
    adata.varp["network"], adata.varp["random_scores"] = sparse.csr_matrix(known), sparse.csr_matrix(scores)
    return adata


def test_random_scores_of_regulators_look_random_and_the_whole_matrix_refuses_them():
    adata = sparse_labels(np.random.default_rng(0))
    table = tr.tl.evaluate(adata, "random_scores", **FAST).query("level == 'micro'").set_index("metric")
    assert table.loc["auroc", "value"] == pytest.approx(0.5, abs=0.02)
    assert table.loc["auprc_ratio", "value"] == pytest.approx(1, abs=0.1)
    for missing in ("error", "lowest"):
        with pytest.raises(ValueError, match="'random_scores' scores 280 of the 400 genes as targets only.*beeline_tf"):
            tr.tl.evaluate(adata, "random_scores", universe="beeline_all", missing=missing, **FAST)
    # What it refuses: the same random scores would seem excellent.
    scores, known = adata.varp["random_scores"].toarray(), adata.varp["network"].toarray() > 0
    off = ~np.eye(400, dtype=bool)
    assert metrics.auroc(scores[off], known[off]) > 0.8


def test_listed_takes_the_candidate_regulators_and_all_genes(grn):
    grn.var["is_regulator"] = np.arange(N_VARS) < 5
    table = tr.tl.evaluate(grn, "method", universe="listed", **FAST)
    assert (table["n_pairs"] == 5 * (N_VARS - 1)).all()
    table = tr.tl.evaluate(grn, "method", universe="listed", regulators=["g3", "g4"], **FAST)
    assert (table["n_pairs"] == 2 * (N_VARS - 1)).all()


def test_every_gene_is_a_regulator_in_the_whole_matrix(grn):
    full = np.random.default_rng(0).normal(size=(N_VARS, N_VARS))
    grn.varp["full"] = sparse.csr_matrix(full, dtype=np.float32)
    table = tr.tl.evaluate(grn, "full", universe="beeline_all", baselines=["pearson"], n_boot=0)
    assert set(table["scored"]) == {1.0}  # the baseline too, though only 15 genes are candidate regulators
    assert table["n_pairs"].iloc[0] == N_VARS * (N_VARS - 1)


@pytest.mark.parametrize("used", ["network", ["network", "other"]])
def test_scored_labels_must_not_have_been_used(grn, used):
    grn.uns["method"]["labels_used"] = used
    remedy = "'method' was fitted with labels of 'network'.*split_edges.*fit again"
    with pytest.raises(ValueError, match=remedy):
        tr.tl.evaluate(grn, "method", **FAST)
    with pytest.raises(ValueError, match=remedy):
        tr.tl.evaluate(grn, "method", fold="all", **FAST)
    add_folds(grn)
    with pytest.raises(ValueError, match="'method' was fitted.*Use `fold='test'`"):
        tr.tl.evaluate(grn, "method", fold=None, **FAST)
    with pytest.warns(UserWarning, match="describe the fit, no more"):
        tr.tl.evaluate(grn, "method", fold="train", **FAST)
    assert set(tr.tl.evaluate(grn, "method", **FAST)["fold"]) == {"test"}
    grn.uns["method"]["labels_used"] = "another network"
    tr.tl.evaluate(grn, "method", fold="all", **FAST)


def test_record_and_round_trip(grn, tmp_path):
    add_folds(grn)
    before = content(grn)
    table = tr.tl.evaluate(grn, ["method"], n_boot=20, key_added="judged")
    after = content(grn)
    assert {k: v for k, v in after.items() if k != "uns/judged"} == before
    entry = tr.get.record(grn, "judged")
    pd.testing.assert_frame_equal(entry["table"].reset_index(drop=True), table, check_index_type=False)
    assert entry["params"]["keys"] == ["method"]
    assert entry["params"]["n_boot"] == 20
    assert (entry["seed"], entry["slots"]["table"]) == (0, "uns/judged/table")
    labels = grn.varp["network"].toarray()[grn.varp["network_fold"].toarray() == 3] > 0
    by_name = pd.MultiIndex.from_arrays(
        [grn.var_names[i] for i in np.nonzero(grn.varp["network_fold"].toarray() == 3)]
    ).argsort()
    assert entry["labels_sha256"] == hashlib.sha256(labels[by_name].astype("u1").tobytes()).hexdigest()
    assert set(entry["curves"]["key"]) == set(table["key"]) == set(entry["scores_sha256"])
    grn.write_h5ad(tmp_path / "a.h5ad")
    grn.write_zarr(tmp_path / "a.zarr")
    for back in (ad.read_h5ad(tmp_path / "a.h5ad"), ad.read_zarr(tmp_path / "a.zarr")):
        again = tr.get.record(back, "judged")["table"]
        assert again["note"].tolist() == table["note"].tolist()
        np.testing.assert_array_equal(again["value"], table["value"])
    tr.tl.evaluate(grn, ["method"], n_boot=20, key_added="judged")
    assert content(grn) == after  # equal runs write equal records


def test_the_order_of_genes_changes_neither_values_nor_hashes(grn):
    add_folds(grn)
    order = np.random.default_rng(0).permutation(N_VARS)
    other = grn[:, order].copy()
    options = {"baselines": ["degree"], "n_boot": 0}
    one, two = tr.tl.evaluate(grn, "method", **options), tr.tl.evaluate(other, "method", **options)
    pd.testing.assert_frame_equal(one, two, rtol=1e-5)
    first, second = grn.uns["evaluate"], other.uns["evaluate"]
    for name in ("universe_sha256", "labels_sha256"):
        assert first[name] == second[name]
    assert first["scores_sha256"]["method"] == second["scores_sha256"]["method"]
    changed = other.varp["method"].copy()
    changed.data[0] += 1
    other.varp["method"] = changed
    tr.tl.evaluate(other, "method", fold="all", **options)
    assert other.uns["evaluate"]["universe_sha256"] != first["universe_sha256"]
    assert other.uns["evaluate"]["scores_sha256"]["method"] != first["scores_sha256"]["method"]


def test_mudata_and_views(grn):
    expected = tr.tl.evaluate(grn, "method", **FAST)
    del grn.uns["evaluate"]
    view = grn[10:]
    pd.testing.assert_frame_equal(tr.tl.evaluate(view, "method", **FAST), expected)
    assert "evaluate" in view.uns
    assert "evaluate" not in grn.uns
    mdata = mudata.MuData({"rna": grn, "other": ad.AnnData(np.ones((60, 2)), obs=grn.obs.copy())})
    pd.testing.assert_frame_equal(tr.tl.evaluate(mdata, "method", mod="rna", **FAST), expected)
    assert "evaluate" in mdata["rna"].uns


def test_constant_genes_rank_last_in_baselines(grn):
    grn.X[:, 3] = 1
    with pytest.warns(UserWarning, match="1 of 40 genes are constant"):
        table = tr.tl.evaluate(grn, "method", baselines=["pearson"], n_boot=0)
    scored = table.groupby("key")["scored"].first()
    assert scored["method"] == 1
    # As regulator the gene has 39 pairs, as target 14.
    assert scored["pearson"] == pytest.approx(1 - (39 + 14) / (15 * 39))


def drop_network(adata):
    del adata.varp["network"]


def no_test_edges(adata):
    folds = add_folds(adata)
    folds[(folds == 3) & (adata.varp["network"].toarray() > 0)] = 1
    adata.varp["network_fold"] = sparse.csr_matrix(folds)


def only_positives(adata):
    known = np.zeros((N_VARS, N_VARS), np.float32)
    known[0, 1:] = 1
    adata.varp["network"] = sparse.csr_matrix(known)


def nan_scores(adata):
    csr = adata.varp["method"].copy()
    csr.data[:2] = np.nan
    adata.varp["method"] = csr


def no_overlap(adata):
    adata.varp["method"] = sparse.csr_matrix((N_VARS, N_VARS), dtype=np.float32)


def no_regulators(adata):
    del adata.var["is_regulator"]


def no_expression(adata):
    adata.X = None


def nothing(adata):
    pass


@pytest.mark.parametrize(
    ("prepare", "options", "error", "message"),
    [
        (nothing, {"keys": "infosem"}, KeyError, "`keys`: 'infosem' not found in `adata.varp`"),
        (nothing, {"keys": []}, ValueError, "`keys` to hold at least one name"),
        (nothing, {"keys": ["method", "method"]}, ValueError, "each once"),
        (nothing, {"keys": "network"}, ValueError, "'network' is the known network itself"),
        (drop_network, {}, KeyError, "`network`: 'network' not found"),
        (nothing, {"fold": "valid"}, ValueError, "`fold`.*'validation'.*'valid'"),
        (nothing, {"fold": "validation"}, KeyError, "'network_fold' not found.*split_edges"),
        (nothing, {"universe": "all"}, ValueError, "`universe`.*'beeline_tf'.*'all'"),
        (nothing, {"missing": "ignore"}, ValueError, "`missing`.*'lowest'.*'ignore'"),
        (nothing, {"compat": "bleval"}, ValueError, "`compat`.*'beeline'.*'bleval'"),
        (nothing, {"metrics": ["auc"]}, ValueError, "`metrics`.*'auroc'.*'auc'"),
        (nothing, {"metrics": []}, ValueError, "`metrics` to hold at least one name"),
        (nothing, {"baselines": ["genie3"]}, ValueError, "`baselines`.*'gbm'.*'genie3'"),
        (nothing, {"n_boot": -1}, ValueError, "`n_boot` to be at least 0"),
        (nothing, {"n_boot": 1.5}, TypeError, "`n_boot` to be an integer"),
        (nothing, {"seed": -1}, ValueError, "`seed` to be at least 0"),
        (nothing, {"n_jobs": 0}, ValueError, "`n_jobs`"),
        (nothing, {"mod": "rna"}, ValueError, "names a modality of a MuData"),
        (nothing, {"key_added": "a/b"}, ValueError, "`key_added`.*without '/'"),
        (nothing, {"layer": "counts", "baselines": ["pearson"]}, KeyError, "`layer`: 'counts' not found"),
        (no_expression, {"baselines": ["pearson"]}, ValueError, "`adata.X` is None"),
        (no_test_edges, {}, ValueError, "'network' has no known edge among the .* pairs .* in fold 'test'"),
        (only_positives, {}, ValueError, "all 39 pairs of `universe='beeline_tf'` are known edges"),
        (nothing, {"universe": "labelled"}, ValueError, "all .* pairs of `universe='labelled'` are known edges"),
        (no_regulators, {"universe": "listed"}, KeyError, "pp.regulators"),
        (nan_scores, {}, ValueError, "'method' has 2 NaN or infinite scores"),
        (no_overlap, {"missing": "lowest"}, ValueError, "no score for 585 of the 585 pairs.*none at all"),
    ],
    ids=lambda value: value.__name__ if callable(value) else None if isinstance(value, dict) else str(value)[:40],
)
def test_bad_input_names_the_remedy_and_changes_nothing(grn, prepare, options, error, message):
    prepare(grn)
    before = content(grn)
    given = {"keys": "method", **FAST, **options}
    with pytest.raises(error, match=message):
        tr.tl.evaluate(grn, given.pop("keys"), **given)
    assert content(grn) == before


def test_worthless_judgements_warn(grn):
    csr = grn.varp["method"].copy()
    csr.data[:] = 0.5
    grn.varp["constant"] = csr
    with pytest.warns(UserWarning, match="'constant' gives all 585 pairs the same score, 0.5"):
        table = tr.tl.evaluate(grn, "constant", metrics=["auroc"], **FAST)
    assert table["value"].iloc[0] == 0.5
    known = np.zeros((N_VARS, N_VARS), np.float32)
    known[[0, 0, 0, 1], [1, 2, 3, 3]] = 1
    grn.varp["network"] = sparse.csr_matrix(known)
    with pytest.warns(UserWarning, match="Only 4 known edges of 'network'"):
        table = tr.tl.evaluate(grn, "method", n_boot=50, baselines=())
    assert table["note"].str.contains("an interval needs 10").all()
    assert table["low"].isna().all()


# Numbers on real cells: |Pearson| on mDC TFs+500, early precision ratio and AUPRC ratio.
@pytest.mark.data
@pytest.mark.parametrize(
    ("reference", "density", "early", "area"),
    [("STRING", 0.038, 1.46, 1.10), ("Non-Specific", 0.019, 1.06, 0.94), ("Specific", 0.085, 1.24, 1.08)],
)
def test_pearson_on_mdc(data_dir, reference, density, early, area):
    adata = ad.read_h5ad(data_dir / "beeline" / "expression" / "mDC.h5ad")
    adata = adata[:, adata.var["in_TFs+500"]].copy()
    folder = data_dir / "beeline" / "networks" / reference / "mDC" / "TFs+500"
    edges = pd.read_csv(folder / "BL--network.csv.gz")
    rows, columns = (adata.var_names.get_indexer(edges[c]) for c in ("Gene1", "Gene2"))
    assert (np.r_[rows, columns] >= 0).all()
    shape = (adata.n_vars, adata.n_vars)
    adata.varp["network"] = sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=shape)
    tr.tl.baseline(adata, "pearson", regulators="all")
    for compat in (None, "beeline", "deepsem"):
        table = tr.tl.evaluate(adata, "pearson", baselines=["random"], regulators="all", n_boot=0, compat=compat)
        micro = table.query("level == 'micro'").pivot(index="metric", columns="key", values="value")
        assert table["base"].iloc[0] == pytest.approx(density, abs=0.001)
        assert micro.loc["early_precision_ratio", "pearson"] == pytest.approx(early, abs=0.01)
        assert micro.loc["auprc_ratio", "pearson"] == pytest.approx(area, abs=0.01)
        assert micro.loc["auroc", "random"] == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(("pair_class", "code"), [("SS", 1), ("SU", 2), ("US", 3), ("UU", 4)])
def test_a_class_of_pairs_is_judged_alone(grn, pair_class, code):
    tr.pp.split_edges(grn, scheme="infosem", test_frac=0.4)
    pairs = (grn.varp["network_fold"].toarray() == 3) & (grn.varp["network_class"].toarray() == code)
    table = tr.tl.evaluate(grn, "method", pair_class=pair_class, metrics="auroc", **FAST)
    scores, labels = np.abs(pair_values(grn.varp["method"], pairs)), pair_values(grn.varp["network"], pairs) > 0
    assert table["n_pairs"].iloc[0] == pairs.sum()
    assert table.query("level == 'micro'")["value"].item() == metrics.auroc(scores, labels)
    assert set(table["pair_class"]) == {pair_class}


def test_no_class_is_every_pair_of_the_fold(grn):
    tr.pp.split_edges(grn, scheme="infosem")
    table = tr.tl.evaluate(grn, "method", **FAST)
    assert table["n_pairs"].iloc[0] == (grn.varp["network_fold"].toarray() == 3).sum()
    assert set(table["pair_class"]) == {"all"}


@pytest.mark.parametrize("before", [None, "infosem"])
def test_a_class_needs_a_split_that_has_them(grn, before):
    if before:
        tr.pp.split_edges(grn, scheme=before)
    tr.pp.split_edges(grn, scheme="edge")
    state = content(grn)
    with pytest.raises(
        KeyError, match=r"`pair_class`: 'network_class' not found .* scheme='infosem'\)`: other schemes"
    ):
        tr.tl.evaluate(grn, "method", pair_class="UU", **FAST)
    with pytest.raises(ValueError, match="`pair_class` to be one of 'SS', 'SU', 'US', 'UU'; found 'unseen'"):
        tr.tl.evaluate(grn, "method", pair_class="unseen", **FAST)
    assert content(grn) == state


def test_log_odds_are_ranked_by_their_value_and_effects_by_their_size(grn):
    probability = grn.varp["method"].copy()
    probability.data = 1 / (1 + np.exp(-probability.data))
    grn.varp["probability"], grn.varp["log_odds"] = probability, grn.varp["method"]
    grn.uns["log_odds"] = {"schema": 1, "method": "regnet", "score_scale": "log_odds"}
    table = tr.tl.evaluate(grn, ["method", "log_odds", "probability"], metrics=["auroc"], **FAST)
    value = table.query("level == 'micro'").set_index("key")["value"]
    assert value["log_odds"] == pytest.approx(value["probability"], abs=1e-9)
    assert value["log_odds"] != pytest.approx(value["method"], abs=0.01)
