import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
from helpers import content
from scipy import sparse

import sctrellis as tr
from sctrellis import metrics
from sctrellis._core import slots, universe

FAST = {"n_perm": 49}


def world(seed=0, *, signal=1.5, n=60, p=14):
    """Return data whose known edges depend on popularity and on a number of each pair, the score ``"model"``."""
    rng = np.random.default_rng(seed)
    pair, hub = rng.normal(size=(p, n)), rng.normal(size=(p, 1))
    known = np.zeros((n, n), np.float32)
    known[:p] = rng.random((p, n)) < 1 / (1 + np.exp(1.5 - hub - signal * pair))
    np.fill_diagonal(known, 0)
    adata = ad.AnnData(np.ones((12, n), np.float32), var=pd.DataFrame(index=[f"g{i}" for i in range(n)]))
    adata.varp["network"] = sparse.csr_matrix(known)
    for key, scores in (("model", pair), ("popular", np.repeat(hub, n, axis=1) - 5)):
        adata.varp[key] = slots.network_csr(np.exp(scores), np.arange(p), np.arange(n), n)
    return adata


def test_knowledge_of_pairs_and_knowledge_of_hubs():
    adata = world()
    table = tr.tl.null(adata, "model", **FAST).set_index("metric")
    assert table.loc["auprc", "p"] == 0.02
    assert table.loc["auprc", "ratio_to_null"] > 1.2
    tr.tl.null(adata, "popular", **FAST)
    record = tr.get.record(adata, "popular_null")
    assert set(record["table"]["p"]) == {1}
    assert "the score says no more" in record["words"]
    # Without keeping degrees the same score looks like a discovery: why labels are for contrast only.
    contrast = tr.tl.null(adata, "popular", "labels", key_added="contrast", **FAST)
    assert contrast["p"].iloc[0] == 0.02


def test_the_table_is_that_of_the_arrays():
    adata = world()
    adata.varp["model"].data *= np.where(np.arange(adata.varp["model"].nnz) % 2, 1, -1)  # the sign does not matter
    table = tr.tl.null(adata, "model", metrics=["auroc", "hit_rate"], seed=4, **FAST)
    pairs = universe.pairs(adata.varp["network"], None).tocoo()
    label = np.asarray(adata.varp["network"][pairs.row, pairs.col]).ravel() > 0
    score = np.abs(np.asarray(adata.varp["model"][pairs.row, pairs.col]).ravel())
    expected = metrics.null_test(
        score, label, rows=pairs.row, columns=pairs.col, metrics=["auroc", "hit_rate"], n_perm=49, seed=4
    )
    pd.testing.assert_frame_equal(table[expected.table.columns], expected.table)
    record = tr.get.record(adata, "model_null")
    pd.testing.assert_frame_equal(record["replicates"].reset_index(drop=True), expected.replicates)
    assert record["mixing"] == expected.mixing
    assert (table["n_pairs"] == len(label)).all()
    assert (table["fold"] == "all").all()


def test_log_odds_count_by_their_value():
    adata = world()
    adata.varp["model"].data = np.log(adata.varp["model"].data) - 1
    wrong = tr.tl.null(adata, "model", **FAST)["observed"].iloc[0]
    adata.uns["model"] = {"schema": 1, "method": "x", "score_scale": "log_odds"}
    right = tr.tl.null(adata, "model", **FAST)["observed"].iloc[0]
    assert right > wrong
    assert right == pytest.approx(tr.tl.null(world(), "model", **FAST)["observed"].iloc[0])


def test_a_fold_keeps_its_own_degrees():
    adata = world()
    tr.pp.split_edges(adata)
    table = tr.tl.null(adata, "model", **FAST)
    test = adata.varp["network_fold"] == 3
    assert table["n_pairs"].iloc[0] == test.sum()
    assert table["n_positive"].iloc[0] == (adata.varp["network"] > 0).multiply(test).sum()
    assert table["fold"].iloc[0] == "test"
    assert tr.tl.null(adata, "model", fold="all", **FAST)["n_pairs"].iloc[0] > table["n_pairs"].iloc[0]


def test_labels_that_a_fit_has_seen_are_refused():
    adata = world()
    adata.uns["model"] = {"schema": 1, "method": "x", "labels_used": "network"}
    with pytest.raises(ValueError, match="would be judged on labels that it has seen"):
        tr.tl.null(adata, "model", **FAST)
    tr.pp.split_edges(adata)
    tr.tl.null(adata, "model", **FAST)
    with pytest.raises(ValueError, match="Use `fold='test'`"):
        tr.tl.null(adata, "model", fold="all", **FAST)


def test_the_order_of_genes_does_not_matter_to_the_number():
    adata = world()
    other = adata[:, np.random.default_rng(3).permutation(adata.n_vars)].copy()
    one, two = (tr.tl.null(a, "model", n_perm=199) for a in (adata, other))
    pd.testing.assert_frame_equal(one[["observed", "identity"]], two[["observed", "identity"]])
    np.testing.assert_allclose(one["null_mean"], two["null_mean"], rtol=0.05)


def test_networks_that_are_not_mixed_are_reported(monkeypatch):
    for name in ("FIRST_ROUNDS", "MAX_ROUNDS"):
        monkeypatch.setattr(f"sctrellis.metrics._degree_null.{name}", 1)
    adata = world()
    with pytest.warns(UserWarning, match="The random networks of 'model' are not mixed: see `words`"):
        tr.tl.null(adata, "model", **FAST)
    record = tr.get.record(adata, "model_null")
    assert not record["mixing"]["mixed"]
    assert record["mixing"]["n_rounds"] == 1
    assert "p is valid, but z is too small" in record["words"]


def test_seeds():
    adata = world()
    one, two, other = (tr.tl.null(adata, "model", seed=seed, **FAST) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(one, two)
    assert (one["null_mean"] != other["null_mean"]).any()
    tr.tl.null(adata, "model", seed=None, **FAST)
    drawn = tr.get.record(adata, "model_null")
    again = tr.tl.null(adata, "model", seed=drawn["seed"], **FAST)
    pd.testing.assert_frame_equal(drawn["table"].reset_index(drop=True), again, check_dtype=False)


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
@pytest.mark.parametrize("kind", ["degree", "maxent"])
def test_round_trip(form, kind, tmp_path):
    adata = world()
    before = content(adata)
    tr.tl.null(adata, "model", kind, key_added="mine", **FAST)
    after = content(adata)
    assert set(after) - set(before) == {"uns/mine"}
    assert {k: after[k] for k in before} == before
    getattr(adata, f"write_{form}")(tmp_path / "a")
    back = getattr(ad, f"read_{form}")(tmp_path / "a")
    one, two = tr.get.record(adata, "mine"), tr.get.record(back, "mine")
    assert (one["words"], one["mixing"], one["params"]) == (two["words"], two["mixing"], two["params"])
    for part in ("table", "replicates"):
        pd.testing.assert_frame_equal(one[part], two[part], check_dtype=False, check_index_type=False)


def test_a_modality():
    adata = world()
    expected = tr.tl.null(adata.copy(), "model", **FAST)
    mdata = md.MuData({"rna": adata})
    pd.testing.assert_frame_equal(tr.tl.null(mdata, "model", mod="rna", **FAST), expected)
    assert "model_null" in mdata["rna"].uns


def one_regulator(adata):
    known = sparse.lil_matrix(adata.varp["network"].shape, dtype=np.float32)
    known[3, 20:30] = 1
    known[3, 40] = -1
    adata.varp["network"] = known.tocsr()


def not_finite(adata):
    adata.varp["model"].data[5] = np.nan


def some_unscored(adata):
    network = adata.varp["model"].tolil()
    network[3] = 0
    adata.varp["model"] = sparse.csr_matrix(network)
    adata.varp["model"].eliminate_zeros()


def no_edges(adata):
    adata.varp["network"] = sparse.csr_matrix(adata.varp["network"].shape, dtype=np.float32)


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        (None, {"key": "absent"}, KeyError, "`key`: 'absent' not found in `adata.varp`"),
        (None, {"key": "network"}, ValueError, "`key`: 'network' is the known network itself"),
        (None, {"network": "absent"}, KeyError, "`network`: 'absent' not found"),
        (None, {"fold": "validation"}, KeyError, "run `sctrellis.pp.split_edges"),
        (None, {"fold": "tests"}, ValueError, "`fold` to be one of"),
        (
            None,
            {"kind": "shuffle"},
            ValueError,
            "`kind` to be one of 'degree', 'regulator', 'labels', 'maxent', 'cells'",
        ),
        (None, {"metrics": ["auprc_ratio"]}, ValueError, "`metrics` to be one of 'auroc', 'auprc'"),
        (None, {"universe": "all"}, ValueError, "`universe` to be one of"),
        (None, {"missing": "drop"}, ValueError, "`missing` to be one of 'error', 'lowest'"),
        (None, {"n_perm": 0}, ValueError, "`n_perm` to be at least 1, found 0"),
        (None, {"n_jobs": 0}, ValueError, "`n_jobs` to be -1"),
        (None, {"seed": -1}, ValueError, "`seed` to be at least 0, found -1"),
        (None, {"key_added": "a/b"}, ValueError, "`key_added` to be a non-empty name"),
        (None, {"mod": "rna"}, ValueError, "`mod='rna'` names a modality"),
        (no_edges, {}, ValueError, "no known edge among the 0 pairs"),
        (not_finite, {}, ValueError, "'model' has 1 NaN or infinite scores"),
        (some_unscored, {}, ValueError, "'model' has no score for .* pairs, such as 'g3' to"),
        (one_regulator, {"universe": "labelled"}, ValueError, "at least 2 regulators in the pairs, found 1"),
    ],
)
def test_bad_input(change, options, error, message):
    adata = world()
    if change is not None:
        change(adata)
    before = content(adata)
    options = {"key": "model", **FAST, **options}
    with pytest.raises(error, match=message):
        tr.tl.null(adata, options.pop("key"), **options)
    assert content(adata) == before


def test_missing_scores_may_come_last():
    adata = world()
    some_unscored(adata)
    assert tr.tl.null(adata, "model", missing="lowest", **FAST)["observed"].notna().all()


@pytest.mark.data
def test_correlation_is_below_density_and_above_its_degree_null(data_dir):
    adata = tr.datasets.beeline("mDC", "Non-Specific", path=data_dir)
    tr.tl.baseline(adata, "pearson")
    line = tr.tl.null(adata, "pearson", metrics=["auprc"], n_perm=200).iloc[0]
    assert line["observed"] == pytest.approx(0.0180, abs=5e-5)
    assert line["chance"] == pytest.approx(0.0191, abs=5e-5)
    assert line["null_mean"] == pytest.approx(0.0160, abs=1e-4)
    assert 12 < line["z"] < 15
    record = tr.get.record(adata, "pearson_null")
    assert record["mixing"]["overlap_expected"] == pytest.approx(0.1401, abs=2e-4)
    assert "ranks popular genes so low that chance does better" in record["words"]


@pytest.mark.data
def test_nearly_all_pairs_are_correlated_beside_shuffled_cells(data_dir):
    """The share that the guide names, and why q-values of this null would be worth nothing."""
    adata = tr.datasets.beeline("mDC", "STRING", path=data_dir)
    tr.tl.baseline(adata, "pearson")
    tr.tl.null(adata, "pearson", "cells", n_perm=20)
    shuffled = tr.get.record(adata, "pearson_null_cells")["shuffled"]
    assert shuffled["share_beyond"] == pytest.approx(0.826, abs=0.01)
    assert shuffled["null_q95"] == pytest.approx(0.100, abs=0.002)


def cells(*, linked, seed=0, n_obs=120):
    """Return cells in two batches, whose genes follow their batch and, if linked, one another."""
    rng = np.random.default_rng(seed)
    batch = rng.integers(2, size=n_obs)
    x = rng.normal(size=(n_obs, 40)) + 3 * batch[:, None]
    known = np.zeros((40, 40), np.float32)
    known[np.arange(8), np.arange(8, 16)] = 1
    known[np.arange(8), np.arange(16, 24)] = 1
    if linked:
        x[:, 8:16] += 2 * x[:, :8]
    adata = ad.AnnData(x - x.min(), var=pd.DataFrame(index=[f"g{i}" for i in range(40)]))
    adata.obs["batch"] = pd.Categorical(batch.astype(str))
    adata.varp["network"] = sparse.csr_matrix(known)
    adata.varp["model"] = slots.network_csr(np.abs(np.corrcoef(x.T))[:8] + 1e-6, np.arange(8), np.arange(40), 40)
    return adata


def test_shuffled_cells_say_only_that_genes_are_related():
    unrelated = cells(linked=False)
    unrelated.X = np.random.default_rng(1).random(unrelated.shape)
    quiet = {"n_perm": 99, "metrics": "auroc", "kind": "cells"}
    tr.tl.null(unrelated, "model", **quiet)
    assert tr.get.record(unrelated, "model_null_cells")["shuffled"]["share_beyond"] == pytest.approx(0.05, abs=0.04)
    # A common cause makes every pair related, edge or not: no evidence for an edge, and no q-value comes of it.
    adata = cells(linked=False)
    before = {slot: set(getattr(adata, slot)) for slot in ("varp", "layers", "obsm", "varm")}
    table = tr.tl.null(adata, "model", **quiet)
    record = tr.get.record(adata, "model_null_cells")
    assert record["shuffled"]["share_beyond"] > 0.95
    assert "no evidence for an edge" in record["words"]
    assert table["p"].item() > 0.05
    assert before == {slot: set(getattr(adata, slot)) for slot in before}
    assert "model_null" not in adata.uns
    # Within batches the common cause is kept, in shuffled cells too.
    tr.tl.null(adata, "model", strata="batch", key_added="within", **quiet)
    assert tr.get.record(adata, "within")["shuffled"]["share_beyond"] < 0.15
    linked = tr.tl.null(cells(linked=True), "model", strata="batch", **quiet)
    assert linked["p"].item() == 0.01


def test_shuffles_keep_the_cells_of_each_batch_and_their_null_is_that_of_permutations():
    """Each target keeps its values within each batch; so |r| has the mean of random permutations, by brute force."""
    rng = np.random.default_rng(0)
    x, y, group = rng.normal(size=(30, 2)), rng.gamma(1.0, size=(30, 3)), np.repeat([0, 1, 2], 10)
    y += 5 * group[:, None]
    rows, columns = np.divmod(np.arange(6), 3)
    labels = np.arange(6) % 2 == 0
    where = {"rows": rows, "columns": columns, "metrics": "auroc", "n_perm": 2000, "seed": 0}
    found = metrics.cells_null(labels, labels, x=x, y=y, strata=group, **where).shuffled["null_q95"]
    quantiles = []
    for _ in range(2000):
        moved = np.column_stack([np.concatenate([rng.permutation(c[group == g]) for g in range(3)]) for c in y.T])
        quantiles.append(np.quantile(np.abs(np.corrcoef(x.T, moved.T)[:2, 2:]), 0.95))
    assert found == pytest.approx(np.mean(quantiles), rel=0.03)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"strata": "batch", "kind": "degree"}, ValueError, "`strata`: 'batch' is read by `kind='cells'` only"),
        ({"layer": "counts", "kind": "labels"}, ValueError, "`layer`: 'counts' is read by `kind='cells'` only"),
        ({"strata": "donor"}, KeyError, "`strata`: 'donor' not found in `adata.obs`. Available: 'batch'"),
        ({"layer": "counts"}, KeyError, "`layer`: 'counts' not found"),
    ],
)
def test_what_shuffled_cells_need(change, error, message):
    with pytest.raises(error, match=message):
        tr.tl.null(cells(linked=False), "model", **{"kind": "cells", "n_perm": 9} | change)
