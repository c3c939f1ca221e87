import numpy as np
import pandas as pd
import pytest
from scipy import special
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score

from sctrellis.metrics import _pair_classifiers as classifiers


@pytest.fixture
def pairs():
    """Labelled pairs of 8 regulators and 25 targets among 30 genes, of two roles each unseen genes 28 and 29."""
    rng = np.random.default_rng(0)
    row, column = (part.ravel() for part in np.meshgrid(np.arange(8), np.arange(3, 28), indexing="ij"))
    kept = (row != column) & (rng.random(len(row)) < 0.8)
    row, column = row[kept], column[kept]
    bias = rng.normal(size=30)
    return row, column, rng.random(len(row)) < special.expit(bias[row] + bias[column])


def test_one_hot_is_the_regression_on_dummies(pairs):
    row, column, label = pairs
    dummies = np.zeros((len(row), 60))
    dummies[np.arange(len(row)), row] = 1
    dummies[np.arange(len(row)), 30 + column] = 1
    model = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit(dummies, label)
    found = classifiers.one_hot(row, column, label, 30).probability(np.arange(8))
    np.testing.assert_allclose(found[row, column], model.predict_proba(dummies)[:, 1], atol=1e-4)


def test_degree_by_hand():
    # Regulator 0 has 2 of 3 pairs, regulator 1 has 0 of 1; the base rate is 1/2.
    row, column, label = np.array([0, 0, 0, 1]), np.array([2, 3, 4, 2]), np.array([True, True, False, False])
    found = classifiers.degree(row, column, label, 6)
    assert found.intercept == 0
    np.testing.assert_allclose(special.expit(found.regulator), [2.5 / 4, 0.5 / 2, 0.5, 0.5, 0.5, 0.5])
    np.testing.assert_allclose(special.expit(found.target), [0.5, 0.5, 1.5 / 3, 1.5 / 2, 0.5 / 2, 0.5])


FITS = {
    "one_hot": lambda pairs, n: classifiers.one_hot(*pairs, n),
    "degree": lambda pairs, n: classifiers.degree(*pairs, n),
    "matcomp": lambda pairs, n: classifiers.complete_matrix(*pairs, n, n_factors=2, seed=0),
}


@pytest.mark.parametrize("name", FITS)
def test_unseen_genes_tie_exactly(pairs, name):
    found = FITS[name](pairs, 30).probability(np.array([0, 28, 29]))
    assert len(np.unique(found[1:, [0, 1, 2, 28, 29]])) == 1  # 0 to 2 were regulators only
    assert len(np.unique(found[0])) > 2
    labels = np.random.default_rng(1).random(10) < 0.3
    base = labels.mean()
    assert abs(average_precision_score(labels, found[1:, [0, 1, 2, 28, 29]].ravel()) - base) <= 1e-9


@pytest.mark.parametrize("name", FITS)
def test_arrays_rebuild_the_score(pairs, name):
    found = FITS[name](pairs, 30)
    arrays = found.arrays()
    again = classifiers.PairScores(float(arrays.pop("intercept")[0]), **arrays)
    np.testing.assert_array_equal(again.probability(np.arange(8)), found.probability(np.arange(8)))


def test_matrix_completion_is_at_an_optimum(pairs):
    row, column, label = pairs
    found = classifiers.complete_matrix(row, column, label, 30, n_factors=3, seed=0, max_iter=5_000)

    def loss(values):
        logits = values.intercept + values.regulator[row] + values.target[column]
        logits = logits + (values.regulator_factors[row] * values.target_factors[column]).sum(1)
        fit = np.logaddexp(0, logits).sum() - logits[label].sum()
        single = (values.regulator**2).sum() + (values.target**2).sum()
        return fit + single / 2 + (values.regulator_factors**2).sum() + (values.target_factors**2).sum()

    best, rng = loss(found), np.random.default_rng(2)
    for _ in range(20):
        arrays = {name: value + 0.01 * rng.normal(size=value.shape) for name, value in found.arrays().items()}
        moved = classifiers.PairScores(float(arrays.pop("intercept")[0]), **arrays)
        assert loss(moved) > best


def test_matrix_completion_finds_blocks():
    rng = np.random.default_rng(0)
    row, column = (part.ravel() for part in np.meshgrid(np.arange(40), np.arange(40, 140), indexing="ij"))
    label = rng.random(len(row)) < np.where(row % 4 == column % 4, 0.8, 0.05)
    train = rng.random(len(row)) < 0.7
    seen = row[train], column[train], label[train]

    def auroc(fitted):
        return roc_auc_score(label[~train], fitted.probability(np.arange(40))[row, column][~train])

    assert auroc(classifiers.complete_matrix(*seen, 140, n_factors=4, seed=0)) > 0.85
    assert auroc(FITS["degree"](seen, 140)) < 0.6
    assert auroc(FITS["one_hot"](seen, 140)) < 0.6


def test_feature_regression_is_additive_in_the_features(pairs):
    row, column, label = pairs
    rng = np.random.default_rng(3)
    features, missing = rng.normal(size=(30, 3)), np.arange(30) % 7 == 0
    features[missing] = 0
    table = np.column_stack([features, missing])
    model = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000)
    model.fit(np.hstack([table[row], table[column]]), label)
    found = classifiers.feature_regression(row, column, label, features, missing).probability(np.arange(8))
    expected = model.predict_proba(np.hstack([table[row], table[column]]))[:, 1]
    np.testing.assert_allclose(found[row, column], expected, atol=1e-5)
    assert len({found[1, k] for k in np.flatnonzero(missing)}) == 1  # what has no features is alike


def test_feature_regression_says_what_it_needs(pairs, monkeypatch):
    from sctrellis import settings

    monkeypatch.setattr(settings, "max_dense_gb", 1e-6)
    with pytest.raises(ValueError, match=r"The table of pairs by features needs .*max_dense_gb"):
        classifiers.feature_regression(*pairs, np.ones((30, 3)), np.zeros(30, bool))


@pytest.mark.data
def test_one_hot_on_the_published_split_of_mesc(data_dir):
    folder = data_dir / "embeddings" / "scGREAT_biobert_mESC"
    n_genes = len(pd.read_csv(folder / "Target.csv"))
    train, test = (pd.read_csv(folder / f"{part}_set.csv.gz") for part in ("Train", "Test"))
    seen = train["TF"].to_numpy(), train["Target"].to_numpy(), train["Label"].to_numpy() > 0
    found = {}
    for name in ("one_hot", "degree"):
        scores = FITS[name](seen, n_genes).probability(np.arange(n_genes))
        found[name] = average_precision_score(test["Label"], scores[test["TF"], test["Target"]])
    assert 0.84 < found["one_hot"] < 0.87
    assert 0.84 < found["degree"] < 0.87
