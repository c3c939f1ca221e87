import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from helpers import content, crowded_toy
from scipy import sparse, special
from sklearn.metrics import average_precision_score, roc_auc_score

import sctrellis as tr
from sctrellis._core import record
from sctrellis.tl._edge_classifier import EDGE_METHODS

SMALL = {"max_epochs": 2, "batch_size": 128}
OPTIONS = {method: {"embedding": "embedding"} if method in ("scgreat", "embedding") else {} for method in EDGE_METHODS}
OPTIONS["genelink"] |= SMALL
OPTIONS["scgreat"] |= SMALL
WITHOUT_VALIDATION = ("one_hot", "degree", "matcomp", "embedding")
IDENTITY = ("one_hot", "degree", "matcomp")
every_method = pytest.mark.parametrize("method", EDGE_METHODS)


def planted(scheme, seed=0, n_regulators=40, n_genes=160, n_dims=4):
    """Genes whose embeddings say how likely they are joined; expression is noise."""
    rng = np.random.default_rng(seed)
    genes = [f"gene{i}" for i in range(n_genes)]
    adata = AnnData(
        rng.gamma(2.0, size=(40, n_genes)).astype(np.float32),
        var=pd.DataFrame({"is_regulator": np.arange(n_genes) < n_regulators}, index=genes),
    )
    h = rng.normal(size=(n_genes, n_dims))
    logit = -1.5 + 1.5 * (h @ rng.normal(size=n_dims))[:n_regulators, None] + 1.5 * h @ rng.normal(size=n_dims)
    known = np.zeros((n_genes, n_genes), dtype=np.float32)
    known[:n_regulators] = rng.random((n_regulators, n_genes)) < special.expit(logit)
    np.fill_diagonal(known, 0)
    adata.varp["network"] = sparse.csr_matrix(known)
    adata.varm["embedding"] = h.astype(np.float32)
    tr.pp.split_edges(adata, scheme=scheme, seed=seed)
    return adata


def judged(adata, key, fold=3, kind=None):
    """Return labels and scores of the pairs of a fold, and of a class of it."""
    chosen = adata.varp["network_fold"].toarray() == fold
    if kind is not None:
        chosen &= adata.varp["network_class"].toarray() == kind
    return adata.varp["network"].toarray()[chosen] > 0, adata.varp[key].toarray()[chosen]


@pytest.mark.parametrize("method", IDENTITY)
@pytest.mark.parametrize(("scheme", "kind"), [("both", None), ("infosem", 4)])
def test_unseen_genes_get_the_base_rate_exactly(method, scheme, kind):
    adata = planted(scheme)
    tr.tl.edge_classifier(adata, method)
    labels, scores = judged(adata, method, kind=kind)
    assert 0 < labels.sum() < len(labels)
    assert abs(average_precision_score(labels, scores) - labels.mean()) <= 1e-9
    assert roc_auc_score(labels, scores) == 0.5
    if kind is not None:  # while seen genes are told apart
        assert roc_auc_score(*judged(adata, method, kind=1)) > 0.7


@pytest.mark.parametrize(("method", "options"), [("embedding", {}), ("scgreat", {"max_epochs": 6, "batch_size": 256})])
def test_an_embedding_that_knows_edges_is_used_on_unseen_genes(method, options):
    aurocs = []
    for seed in range(2):
        adata = planted("both", seed)
        tr.tl.edge_classifier(adata, method, embedding="embedding", key_added="found", **options)
        aurocs.append(roc_auc_score(*judged(adata, "found")))
    assert np.mean(aurocs) > 0.65


@every_method
def test_labels_that_are_not_learnt_from_change_nothing(method):
    adata = planted("infosem", n_regulators=16, n_genes=50)
    other = adata.copy()
    folds = adata.varp["network_fold"].toarray()
    unread = (folds == 3) | (folds == 0)  # the test, and pairs between the parts
    if method in WITHOUT_VALIDATION:
        unread |= folds == 2
    known = adata.varp["network"].toarray()
    known[unread] = np.random.default_rng(1).permutation(known[unread])
    np.fill_diagonal(known, 0)
    assert (known != adata.varp["network"].toarray()).sum() > 50
    other.varp["network"] = sparse.csr_matrix(known)
    for each in (adata, other):
        tr.tl.edge_classifier(each, method, regulators="is_regulator", key_added="found", **OPTIONS[method])
    assert adata.varp["found"].data.tobytes() == other.varp["found"].data.tobytes()


@every_method
def test_labels_of_training_do_matter(method):
    adata = planted("both", n_regulators=16, n_genes=50)
    other = adata.copy()
    known, train = other.varp["network"].toarray(), other.varp["network_fold"].toarray() == 1
    known[train] = np.random.default_rng(1).permutation(known[train])
    other.varp["network"] = sparse.csr_matrix(known)
    for each in (adata, other):
        tr.tl.edge_classifier(each, method, key_added="found", **OPTIONS[method])
    assert not np.allclose(adata.varp["found"].data, other.varp["found"].data, atol=1e-6)


@pytest.mark.parametrize("method", ["genelink", "scgreat"])
def test_validation_decides_when_to_stop_and_is_named(method):
    adata = planted("edge", n_regulators=16, n_genes=50)
    tr.tl.edge_classifier(adata, method, **OPTIONS[method])
    found = record.read(adata, method)
    assert found["folds_used"] == ["train", "validation"]
    assert list(found["history"]) == ["loss", "validation"]
    assert found["params"]["max_epochs"] == len(found["history"]) == 2
    assert found["params"]["lr"] > 0
    tr.tl.edge_classifier(adata, method, patience=None, **OPTIONS[method])
    found = record.read(adata, method)
    assert found["folds_used"] == ["train"]
    assert list(found["history"]) == ["loss"]


def test_both_folds_are_learnt_from_on_request():
    adata = planted("edge", n_regulators=16, n_genes=50)
    folds = adata.varp["network_fold"]
    for method in ("one_hot", "genelink"):
        tr.tl.edge_classifier(adata, method, fold="train_validation", **OPTIONS[method])
        found = record.read(adata, method)
        assert found["folds_used"] == ["train", "validation"]
        assert found["fit"]["n_train_pairs"] == (folds.data < 3).sum()
    tr.tl.edge_classifier(adata, "one_hot")
    assert record.read(adata, "one_hot")["fit"]["n_train_pairs"] == (folds.data == 1).sum()


def test_the_graph_of_genelink_holds_only_training_edges():
    adata = planted("edge", n_regulators=16, n_genes=50)
    tr.tl.edge_classifier(adata, "genelink", **OPTIONS["genelink"])
    known, folds = adata.varp["network"].toarray() > 0, adata.varp["network_fold"].toarray()
    train, held = known & (folds == 1), folds > 1
    expected = np.triu(train | train.T, 1) & ~held & ~held.T
    assert record.read(adata, "genelink")["fit"]["n_graph_edges"] == expected.sum()
    assert expected.sum() < np.triu(train | train.T, 1).sum()  # some had their reverse in the test


def test_regulators_of_the_network_are_scored_too():
    adata = planted("edge")
    adata.var["is_regulator"] = np.arange(adata.n_vars) == 100
    tr.tl.edge_classifier(adata, "degree")
    rows = np.flatnonzero(np.diff(adata.varp["degree"].indptr))
    assert set(rows) == {*np.flatnonzero(np.diff(adata.varp["network_fold"].indptr)), 100}
    table = tr.tl.evaluate(adata, "degree", baselines=["random"], metrics=["auroc"], n_boot=0)
    assert table.query("key == 'degree' and level == 'micro'")["value"].item() > 0.7


def test_evaluate_refuses_to_judge_on_what_was_learnt():
    adata = planted("edge")
    tr.tl.edge_classifier(adata, "one_hot")
    with pytest.raises(ValueError, match=r"'one_hot' was fitted with labels of 'network'"):
        tr.tl.evaluate(adata, "one_hot", fold="all", baselines=[])


@every_method
def test_weights_are_stored(method):
    adata = planted("edge", n_regulators=16, n_genes=50)
    tr.tl.edge_classifier(adata, method, key_added="found", **OPTIONS[method])
    weights = record.read(adata, "found")["weights"]
    assert all(np.isfinite(value).all() for value in weights.values())
    if method in ("one_hot", "degree", "embedding"):
        logits = weights["intercept"] + weights["regulator"][:, None] + weights["target"]
        row, column = adata.varp["found"].nonzero()
        np.testing.assert_allclose(adata.varp["found"].data, special.expit(logits)[row, column], rtol=1e-6)


def test_no_more_cells_than_needed_are_read(monkeypatch):
    from sctrellis.tl import _training_pairs

    monkeypatch.setattr(_training_pairs, "MAX_CELLS", 15)
    adata = crowded_toy()
    tr.tl.edge_classifier(adata, "genelink", **OPTIONS["genelink"])
    weights = record.read(adata, "genelink")["weights"]
    assert weights["first.project.weight"].shape[1] == 15
    assert record.read(adata, "genelink")["fit"]["n_cells"] == 15


# bad input


def _no_folds(adata):
    del adata.varp["network_fold"]


def _no_training_edges(adata):
    adata.varp["network"] = adata.varp["network"].multiply(adata.varp["network_fold"] > 1).tocsr()


def _only_training_edges(adata):
    adata.varp["network"] = (adata.varp["network_fold"] > 0).astype(np.float32)


def _same_vectors(adata):
    adata.varm["embedding"][:] = 0.1


def _no_regulator_covered(adata):
    adata.varm["embedding"][adata.var["is_regulator"]] = np.nan


def _nothing(adata):
    pass


BAD = {
    "unknown_method": (
        _nothing,
        {"method": "onehot"},
        ValueError,
        r"`method` to be one of 'one_hot', 'degree'.*'onehot'",
    ),
    "unknown_fold": (_nothing, {"fold": "test"}, ValueError, r"`fold` to be one of 'train', 'train_validation'; found"),
    "no_network": (_nothing, {"network": "chip"}, KeyError, r"`network`: 'chip' not found in `adata\.varp`"),
    "no_folds": (
        _no_folds,
        {},
        KeyError,
        r"'network_fold' not found.*run `sctrellis\.pp\.split_edges\(adata, 'network'\)` first",
    ),
    "no_edges": (_no_training_edges, {}, ValueError, r"'network' has no known edge among its \d+ training pairs"),
    "only_edges": (_only_training_edges, {}, ValueError, r"'network' has nothing but known edges among its"),
    "no_embedding": (
        _nothing,
        {"method": "scgreat"},
        ValueError,
        r"`method='scgreat'` needs gene embeddings: name them with `embedding=`.*Available: 'embedding'",
    ),
    "unknown_embedding": (
        _nothing,
        {"method": "embedding", "embedding": "biobert"},
        KeyError,
        r"`embedding`: 'biobert' not found in `adata\.varm`\. Available: 'embedding'",
    ),
    "same_vectors": (
        _same_vectors,
        {"method": "embedding", "embedding": "embedding"},
        ValueError,
        r"`adata\.varm\['embedding'\]` is the same for all genes",
    ),
    "no_regulator_covered": (
        _no_regulator_covered,
        {"method": "scgreat", "embedding": "embedding"},
        ValueError,
        r"covers 24 of 30 genes, none of them among the 6 regulators",
    ),
    "negatives": (_nothing, {"negatives": "some"}, ValueError, r"`negatives` to be one of 'all', 'balanced'"),
    "n_factors": (_nothing, {"n_factors": 0}, ValueError, r"`n_factors` to be at least 1, found 0"),
    "max_epochs": (_nothing, {"max_epochs": 0}, ValueError, r"`max_epochs` to be at least 1, found 0"),
    "batch_size": (_nothing, {"batch_size": 1.5}, TypeError, r"`batch_size` to be an integer, found 1\.5"),
    "lr": (_nothing, {"lr": 0}, ValueError, r"`lr` to lie in \(0, inf\], found 0"),
    "patience": (_nothing, {"patience": 0}, ValueError, r"`patience` to be at least 1, found 0"),
    "mask_scored": (_nothing, {"mask_scored": "yes"}, TypeError, r"`mask_scored` to be True or False, found 'yes'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_and_changes_nothing(case):
    change, options, error, message = BAD[case]
    adata = crowded_toy()
    change(adata)
    before = content(adata)
    with pytest.raises(error, match=message):
        tr.tl.edge_classifier(adata, **options)
    assert content(adata) == before


def test_one_regulator_is_enough():
    adata = planted("edge", n_regulators=1, n_genes=60)
    tr.pp.split_edges(adata, universe="listed")
    for method in EDGE_METHODS:
        tr.tl.edge_classifier(adata, method, key_added="found", **OPTIONS[method])
        assert adata.varp["found"].nnz == 59
        assert ((adata.varp["found"].data > 0) & (adata.varp["found"].data < 1)).all()


def test_torch_is_not_loaded_without_need():
    import subprocess
    import sys

    code = (
        "import sys, sctrellis as tr; adata = tr.datasets.toy(); tr.pp.split_edges(adata);"
        "tr.tl.edge_classifier(adata); tr.tl.edge_classifier(adata, 'matcomp'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
