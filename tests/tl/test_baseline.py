import os
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from helpers import containers, content
from scipy import sparse
from scipy.stats import spearmanr
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import Ridge
from sklearn.metrics import average_precision_score, roc_auc_score

import sctrellis as tr
from sctrellis._core import record, slots
from sctrellis._core.rows import Rows
from sctrellis.tl import _baseline_scores as scores_file
from sctrellis.tl._baseline_scores import BASELINES, baseline_scores

CLOSED = ("pearson", "spearman", "pearson_pc1", "partial", "ridge")


def expression(n_cells=60, n_genes=12, seed=0):
    """Log-normal-like values in [0, 10) with three shared factors and a fifth zeros."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n_cells, 3)) @ rng.normal(size=(3, n_genes)) + rng.normal(size=(n_cells, n_genes))
    return np.clip(x - np.quantile(x, 0.2, axis=0), 0, 9).astype(np.float32)


def known_network(n_vars=12, n_regulators=4, seed=0):
    """Edges and non-edges of the regulators, with folds 1 to 3 on all their pairs but the self pairs."""
    rng = np.random.default_rng(seed)
    network = np.zeros((n_vars, n_vars), dtype=np.float32)
    network[:n_regulators] = np.where(rng.random((n_regulators, n_vars)) < 0.4, 1.0, -1.0)
    np.fill_diagonal(network, 0)
    folds = np.where(network != 0, rng.integers(1, 4, network.shape), 0).astype(np.int8)
    return network, folds


def make(x=None, **kwargs):
    x = expression(**kwargs) if x is None else x
    adata = ad.AnnData(x)
    adata.var_names = [f"G{i}" for i in range(x.shape[1])]
    adata.obs_names = [f"c{i}" for i in range(x.shape[0])]
    adata.var["is_regulator"] = np.arange(x.shape[1]) < 4
    network, folds = known_network(x.shape[1])
    adata.varp["known"] = sparse.csr_matrix(network)
    adata.varp["known_fold"] = sparse.csr_matrix(folds)
    return adata


def scored(adata, method, **kwargs):
    """Scores of the regulators, dense."""
    found = tr.tl.baseline(adata, method, network="known", copy=True, **kwargs)
    return found.varp[method].toarray()[np.flatnonzero(adata.var["is_regulator"])]


OFF = ~np.eye(4, 12, dtype=bool)


def test_pearson_and_spearman_are_those_of_numpy_and_scipy(monkeypatch):
    monkeypatch.setattr(scores_file, "CHUNK", 60 * 5)  # three chunks of genes
    adata = make()
    wanted = np.corrcoef(adata.X.astype(np.float64), rowvar=False)[:4]
    np.testing.assert_allclose(scored(adata, "pearson")[OFF], wanted[OFF], atol=2e-6)
    assert (wanted[OFF] < 0).any()
    np.testing.assert_allclose(scored(adata, "spearman")[OFF], spearmanr(adata.X).statistic[:4][OFF], atol=2e-6)


def test_pearson_pc1_is_the_correlation_of_residuals():
    adata = make()
    z = adata.X.astype(np.float64)
    z = (z - z.mean(0)) / z.std(0)
    u, s, vt = np.linalg.svd(z, full_matrices=False)
    wanted = np.corrcoef(z - s[0] * np.outer(u[:, 0], vt[0]), rowvar=False)[:4]
    np.testing.assert_allclose(scored(adata, "pearson_pc1")[OFF], wanted[OFF], atol=2e-5)
    tr.tl.baseline(adata, "pearson_pc1")
    assert record.read(adata, "pearson_pc1")["fit"]["pc1_share"] == pytest.approx(s[0] ** 2 / 60 / 12, rel=1e-4)


@pytest.mark.parametrize("n_cells", [60, 11])
def test_partial_is_that_of_sklearn_with_more_and_with_fewer_cells_than_genes(n_cells):
    adata = make(n_cells=n_cells)
    z = adata.X.astype(np.float64)
    z = (z - z.mean(0)) / z.std(0)
    fit = LedoitWolf(assume_centered=True).fit(z)
    scale = np.sqrt(np.diag(fit.precision_))
    wanted = (-fit.precision_ / np.outer(scale, scale))[:4]
    np.testing.assert_allclose(scored(adata, "partial")[OFF], wanted[OFF], atol=2e-5)
    tr.tl.baseline(adata, "partial")
    assert record.read(adata, "partial")["fit"]["shrinkage"] == pytest.approx(fit.shrinkage_, rel=1e-4)


def test_ridge_is_a_ridge_regression_of_each_gene_at_the_recorded_strength():
    adata = make()
    tr.tl.baseline(adata, "ridge")
    entry = record.read(adata, "ridge")
    z = adata.X.astype(np.float64)
    z = (z - z.mean(0)) / z.std(0)
    wanted = np.zeros((12, 12))
    for gene in range(12):
        others = np.arange(12) != gene
        fit = Ridge(alpha=60 * entry["fit"]["rho"], fit_intercept=False).fit(z[:, others], z[:, gene])
        wanted[others, gene] = fit.coef_
    np.testing.assert_allclose(adata.varp["ridge"].toarray()[:4][OFF], wanted[:4][OFF], atol=1e-5)
    assert {"rho", "error"} <= set(entry["cv"].columns)


def test_degree_counts_the_train_edges_by_hand():
    adata = make()
    network, folds = known_network()
    train = (network > 0) & (folds == 1)
    wanted = np.log1p(train.sum(1))[:4, None] + np.log1p(train.sum(0))
    np.testing.assert_allclose(scored(adata, "degree")[OFF], wanted[OFF], rtol=1e-6)


def test_degree_does_not_see_validation_and_test_labels():
    adata = make()
    before = scored(adata, "degree")
    network, folds = known_network()
    held_out = np.nonzero(folds > 1)
    network[held_out] = np.random.default_rng(1).permutation(network[held_out])
    adata.varp["known"] = sparse.csr_matrix(network)
    np.testing.assert_array_equal(scored(adata, "degree"), before)
    train = np.nonzero(folds == 1)
    network[train] = -network[train]
    adata.varp["known"] = sparse.csr_matrix(network)
    assert (scored(adata, "degree") != before).any()


@pytest.mark.parametrize("method", BASELINES)
def test_every_pair_of_a_regulator_and_another_gene_is_stored(method):
    adata = make()
    tr.tl.baseline(adata, method, network="known")
    found = adata.varp[method]
    assert found.dtype == np.float32
    assert found.nnz == 4 * 11
    assert np.isfinite(found.data).all()
    assert (found.tocoo().row < 4).all()
    assert (found.tocoo().row != found.tocoo().col).all()


@pytest.mark.parametrize("method", BASELINES)
def test_constant_genes_are_not_scored(method):
    x = expression()
    x[:, [2, 7]] = 1.5  # a regulator and a target
    adata = make(x)
    with pytest.warns(UserWarning, match="2 of 12 genes are constant"):
        tr.tl.baseline(adata, method, network="known")
    found = adata.varp[method]
    assert found.nnz == 3 * 9
    assert found[:, [2, 7]].nnz == 0
    assert found[[2, 7]].nnz == 0
    # What is scored is what would be without those genes; random numbers and sampled trees are drawn anew.
    if method in CLOSED:
        kept = np.delete(np.arange(12), [2, 7])
        alone = adata[:, kept].copy()
        tr.tl.baseline(alone, method, key_added="alone")
        np.testing.assert_allclose(alone.varp["alone"].toarray(), found[kept][:, kept].toarray(), atol=1e-5)


@pytest.mark.parametrize("container", containers())
def test_containers_give_equal_scores(container, monkeypatch):
    monkeypatch.setattr(scores_file, "CHUNK", 60 * 5)
    x = expression()
    other = make(containers()[container](x))
    for method in CLOSED:  # sums over another memory order differ in the last bit
        np.testing.assert_allclose(scored(other, method), scored(make(x), method), atol=1e-6, err_msg=method)
    np.testing.assert_array_equal(scored(other, "gbm"), scored(make(x), "gbm"))


@pytest.mark.parametrize("method", ["pearson", "spearman", "pearson_pc1", "partial", "ridge", "gbm"])
def test_backed_file_is_streamed(method, tmp_path):
    adata = make(sparse.csr_matrix(expression()))
    adata.write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    tr.tl.baseline(backed, method)
    np.testing.assert_array_equal(backed.varp[method].toarray()[:4], scored(adata, method))


@pytest.mark.parametrize("method", [*CLOSED, "degree"])
def test_permuting_genes_permutes_scores(method):
    adata = make(n_cells=80)
    order = np.random.default_rng(1).permutation(12)
    permuted = adata[:, order].copy()
    for each in (adata, permuted):
        tr.tl.baseline(each, method, network="known")
    wanted = adata.varp[method].toarray()[np.ix_(order, order)]
    np.testing.assert_allclose(permuted.varp[method].toarray(), wanted, atol=1e-5)


@pytest.mark.parametrize("method", CLOSED[:4])
def test_permuting_cells_changes_nothing(method):
    adata = make(n_cells=80)
    permuted = adata[np.random.default_rng(1).permutation(80)].copy()
    np.testing.assert_allclose(scored(permuted, method), scored(adata, method), atol=1e-5)


def test_gbm_does_not_depend_on_workers_or_chunks(monkeypatch):
    adata = make()
    alone = scored(adata, "gbm", n_jobs=1)
    np.testing.assert_array_equal(scored(adata, "gbm", n_jobs=2), alone)
    monkeypatch.setattr(scores_file, "CHUNK", 60)
    monkeypatch.setattr(scores_file, "TARGETS_PER_TASK", 1)
    np.testing.assert_array_equal(scored(adata, "gbm"), alone)


def test_gbm_finds_nonlinear_parents_that_pearson_misses():
    rng = np.random.default_rng(0)
    n_regulators, n_targets = 20, 15
    regulators = rng.normal(size=(400, n_regulators))
    truth = np.zeros((n_regulators, n_targets), dtype=bool)
    truth[rng.integers(n_regulators, size=n_targets), np.arange(n_targets)] = True
    # Even in the parent: no correlation, all information.
    targets = np.abs(regulators) @ truth + 0.3 * rng.normal(size=(400, n_targets))
    adata = ad.AnnData((np.hstack([regulators, targets]) + 6).astype(np.float32))
    adata.var["is_regulator"] = np.arange(adata.n_vars) < n_regulators
    auroc = {}
    for method in ("gbm", "pearson"):
        tr.tl.baseline(adata, method)
        auroc[method] = roc_auc_score(truth.ravel(), np.abs(adata.varp[method].toarray()[:20, 20:]).ravel())
    assert auroc["gbm"] > 0.95
    assert auroc["pearson"] < 0.7


def test_seeds_decide_random_and_gbm():
    adata = make()
    for method in ("random", "gbm"):
        np.testing.assert_array_equal(scored(adata, method, seed=5), scored(adata, method, seed=5))
        assert (scored(adata, method, seed=5) != scored(adata, method, seed=6))[OFF].mean() > 0.5
    uniform = scored(adata, "random")[OFF]
    assert uniform.min() >= 0
    assert uniform.max() < 1


def test_seed_none_is_drawn_and_recorded():
    adata = make()
    tr.tl.baseline(adata, "random", seed=None)
    drawn = record.read(adata, "random")["seed"]
    np.testing.assert_array_equal(scored(adata, "random", seed=drawn), adata.varp["random"].toarray()[:4])


@pytest.mark.parametrize("method", BASELINES)
def test_array_scores_are_what_is_stored(method):
    adata = make()
    mask = adata.var["is_regulator"].to_numpy()
    known = {"network": slots.read_network(adata, "known"), "folds": slots.read_folds(adata, "known")}
    found = baseline_scores(method, Rows(adata.X), mask, **known)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[OFF], scored(adata, method)[OFF])


def test_array_scores_of_a_constant_gene_are_nan():
    x = expression()
    x[:, [1, 9]] = 0
    found = baseline_scores("random", Rows(x), np.arange(12) < 4)
    assert np.isnan(found[1]).all()
    assert np.isnan(found[:, [1, 9]]).all()
    assert np.isfinite(np.delete(np.delete(found, 1, 0), [1, 9], 1)).all()


def test_record_says_whose_labels_were_seen():
    adata = make()
    for method in ("degree", "pearson"):
        tr.tl.baseline(adata, method, network="known")
    assert record.read(adata, "degree")["labels_used"] == "known"
    assert record.read(adata, "degree")["fit"]["n_train_edges"] > 0
    assert "labels_used" not in record.read(adata, "pearson")
    assert record.read(adata, "pearson")["params"]["method"] == "pearson"


@pytest.mark.parametrize("method", ["ridge", "gbm", "degree"])
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_results_survive_files(method, suffix, tmp_path):
    adata = make()
    tr.tl.baseline(adata, method, network="known")
    getattr(adata, f"write_{suffix}")(tmp_path / f"a.{suffix}")
    again = getattr(ad, f"read_{suffix}")(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(again.varp[method].toarray(), adata.varp[method].toarray())
    old, new = record.read(adata, method), record.read(again, method)
    assert old["fit"] == new["fit"]
    if method == "ridge":
        pd.testing.assert_frame_equal(old["cv"], new["cv"])


def test_layer_key_and_modality():
    mudata = pytest.importorskip("mudata")
    adata = make()
    adata.layers["other"] = expression(seed=3)
    tr.tl.baseline(adata, layer="other", key_added="r")
    np.testing.assert_array_equal(adata.varp["r"].toarray()[:4], scored(make(adata.layers["other"]), "pearson"))
    assert record.read(adata, "r")["inputs"]["slot"] == "layers/other"
    assert "pearson" not in adata.varp
    mdata = mudata.MuData({"rna": make()})
    tr.tl.baseline(mdata, mod="rna")
    np.testing.assert_array_equal(mdata["rna"].varp["pearson"].toarray()[:4], scored(make(), "pearson"))


def no_folds(adata):
    del adata.varp["known_fold"]


def no_train_edges(adata):
    folds = adata.varp["known_fold"].copy()
    folds.data[:] = 3
    adata.varp["known_fold"] = folds


def constant_regulators(adata):
    adata.X[:, :4] = 1


def one_varying_gene(adata):
    adata.X[:, 1:] = 1


BAD = {
    "method": (lambda a: None, {"method": "pearsons"}, ValueError, r"`method`.*'pearson'.*'pearsons'"),
    "no network": (lambda a: None, {"method": "degree"}, ValueError, "name them with `network=`"),
    "network": (lambda a: None, {"method": "degree", "network": "x"}, KeyError, r"`network`: 'x' not found.*'known'"),
    "no folds": (no_folds, {"method": "degree", "network": "known"}, ValueError, r"pp\.split_edges"),
    "no train": (no_train_edges, {"method": "degree", "network": "known"}, ValueError, "no edge in the train fold"),
    "layer": (lambda a: None, {"layer": "x"}, KeyError, "`layer`: 'x' not found"),
    "seed": (lambda a: None, {"seed": -1}, ValueError, "`seed` to be at least 0, found -1"),
    "n_jobs": (lambda a: None, {"n_jobs": 0}, ValueError, "`n_jobs`.*found 0"),
    "key": (lambda a: None, {"key_added": "a/b"}, ValueError, "`key_added`.*'a/b'"),
    "regulators": (lambda a: None, {"regulators": ["TP53"]}, ValueError, "None of the 1 names in `regulators`"),
    "constant": (constant_regulators, {}, ValueError, "None of the 4 candidate regulators varies"),
    "one gene": (one_varying_gene, {}, ValueError, "Only one of the 12 genes varies"),
    "mod": (lambda a: None, {"mod": "rna"}, ValueError, "adata` is an AnnData"),
}


@pytest.mark.filterwarnings("ignore:.*genes are constant")
@pytest.mark.parametrize("case", BAD)
def test_bad_input_says_what_to_do_and_changes_nothing(case):
    spoil, arguments, error, message = BAD[case]
    adata = make()
    spoil(adata)
    before = content(adata)
    with pytest.raises(error, match=message):
        tr.tl.baseline(adata, **arguments)
    assert content(adata) == before


@pytest.mark.parametrize("method", ["partial", "spearman", "gbm"])
def test_what_would_not_fit_in_memory_says_so(method, monkeypatch):
    monkeypatch.setattr(tr.settings, "max_dense_gb", 1e-7)
    adata = make()
    with pytest.raises(ValueError, match="max_dense_gb"):
        tr.tl.baseline(adata, method)
    assert method not in adata.varp


@pytest.mark.data
def test_ratios_on_mdc():
    folder = os.environ.get("SCTRELLIS_DATA")
    if folder is None or not (Path(folder) / "beeline").is_dir():
        pytest.skip("SCTRELLIS_DATA does not name a folder with beeline/")
    adata = ad.read_h5ad(Path(folder) / "beeline/expression/mDC.h5ad")
    adata = adata[:, adata.var["in_TFs+500"]].copy()
    wanted = {  # average precision over density, infosem.md C.5: STRING, Non-Specific, Specific
        "pearson": (1.10, 0.94, 1.08),
        "spearman": (1.20, 1.02, 1.06),
        "pearson_pc1": (1.40, 1.60, 0.94),
        "ridge": (1.66, 1.79, 1.04),
    }
    for method in wanted:
        tr.tl.baseline(adata, method, regulators="all")
    for position, name in enumerate(("STRING", "Non-Specific", "Specific")):
        edges = pd.read_csv(Path(folder) / f"beeline/networks/{name}/mDC/TFs+500/BL--network.csv.gz")
        sources, targets = (adata.var_names.get_indexer(edges[column]) for column in ("Gene1", "Gene2"))
        truth = np.zeros((adata.n_vars, adata.n_vars), dtype=bool)
        truth[sources, targets] = True
        pairs = np.ix_(np.unique(sources), np.union1d(sources, targets))
        other = pairs[0] != pairs[1]
        for method, ratios in wanted.items():
            score = np.abs(adata.varp[method].toarray()[pairs][other])
            label = truth[pairs][other]
            ratio = average_precision_score(label, score) / label.mean()
            assert ratio == pytest.approx(ratios[position], abs=0.02), f"{method}, {name}"
