"""Perturbation metrics, skill, baselines and the shuffled network, against closed forms and brute force."""

import numpy as np
import pytest
from scipy import sparse, stats
from sklearn.linear_model import Ridge

from sctrellis import metrics
from sctrellis.metrics import _perturbation_baselines as baselines


@pytest.fixture
def changes():
    rng = np.random.default_rng(0)
    predicted, observed = rng.normal(size=(2, 6, 40))
    excluded = np.zeros((6, 40), bool)
    excluded[np.arange(6), np.arange(6)] = True
    return predicted, observed, excluded


def test_metrics_equal_scipy_on_the_genes_that_are_kept(changes):
    predicted, observed, excluded = changes
    table = metrics.perturbation_metrics(predicted, observed, excluded=excluded, k=5, min_change=0.5)
    for i, row in table.iterrows():
        x, y = predicted[i][~excluded[i]], observed[i][~excluded[i]]
        top = set(np.argsort(-np.abs(x))[:5]) & set(np.argsort(-np.abs(y))[:5])
        changed = np.abs(y) > 0.5
        expected = {
            "mae": np.abs(x - y).mean(),
            "mse": ((x - y) ** 2).mean(),
            "pearson": stats.pearsonr(x, y).statistic,
            "spearman": stats.spearmanr(x, y).statistic,
            "top_overlap": len(top) / 5,
            "direction": (np.sign(x) == np.sign(y))[changed].mean(),
        }
        assert row.to_dict() == pytest.approx(expected)


def test_the_perturbed_gene_cannot_help(changes):
    predicted, observed, excluded = changes
    loud = predicted + 100 * excluded
    options = {"excluded": excluded, "k": 5}
    left, right = (metrics.perturbation_metrics(x, observed, **options) for x in (predicted, loud))
    assert left.equals(right)
    assert not left.equals(metrics.perturbation_metrics(loud, observed, k=5))


def test_no_change_is_no_opinion(changes):
    _, observed, excluded = changes
    table = metrics.perturbation_metrics(np.zeros_like(observed), observed, excluded=excluded, k=13)
    assert table["top_overlap"].to_numpy() == pytest.approx(13 / 39)
    assert table["direction"].to_numpy() == pytest.approx(0.5)
    assert table[["pearson", "spearman"]].isna().all(axis=None)
    flat = metrics.perturbation_metrics(observed, observed, k=3, min_change=np.full(observed.shape, 1e9))
    assert flat["direction"].isna().all()


def test_ties_at_the_edge_of_the_top_are_shared():
    # Two of three tied genes fit beside the first one; the observed top three are genes 0, 1 and 4.
    table = metrics.perturbation_metrics([[3.0, 1.0, 1.0, -1.0, 0.0]], [[9.0, 8.0, 0.0, 0.0, 7.0]], k=3)
    assert table["top_overlap"].item() == pytest.approx((1 + 2 / 3) / 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"predicted": np.zeros((2, 3))},
            r"Expected `predicted` to have shape \(6, 40\) as `observed`, found \(2, 3\)",
        ),
        ({"excluded": np.zeros((6, 3), bool)}, "Expected `excluded` to have shape"),
        ({"observed": np.full((6, 40), np.nan)}, "`observed` has 240 NaN or infinite values"),
        ({"observed": np.zeros(4)}, r"Expected `observed` to have shape \(n_perturbations, n_genes\), found \(4,\)"),
        ({"k": 40}, "Expected `k` to be at most the number of genes that are judged, 39, found 40"),
        ({"k": 0}, "Expected `k` to be at least 1, found 0"),
    ],
)
def test_bad_changes(changes, change, message):
    predicted, observed, excluded = changes
    values = {"predicted": predicted, "observed": observed, "excluded": excluded, "k": 5} | change
    with pytest.raises(ValueError, match=message):
        metrics.perturbation_metrics(**values)


def test_skill_is_gained_over_the_best_baseline():
    rng = np.random.default_rng(0)
    base = rng.gamma(4.0, size=40)
    errors = {"half": base / 2, "equal": rng.permutation(base), "no_change": base, "worse": base * 1.5}
    table = metrics.perturbation_skill(errors, baselines=["worse", "no_change"]).set_index("method")
    assert table["value"].to_dict() == pytest.approx({"half": 0.5, "equal": 0, "no_change": 0, "worse": -0.5})
    assert set(table["best_baseline"]) == {"no_change"}
    # Half the error of every perturbation is half the error of every replicate.
    assert table.loc["half", ["low", "high"]].tolist() == pytest.approx([0.5, 0.5])
    assert table.loc["equal", "low"] < -0.05 < 0.05 < table.loc["equal", "high"]
    assert (table["note"] == "").all()


def test_the_interval_covers_the_skill():
    rng = np.random.default_rng(1)
    hits = 0
    for seed in range(100):
        model, base = rng.gamma(3.0, 0.8 / 3, size=30), rng.gamma(3.0, 1 / 3, size=30)
        table = metrics.perturbation_skill({"m": model, "b": base}, baselines=["b"], n_boot=200, seed=seed)
        hits += table["low"][0] <= 0.2 <= table["high"][0]
    assert hits >= 88


def test_an_interval_errs_towards_telling_nothing():
    rng = np.random.default_rng(0)
    errors = {f"b{i}": rng.gamma(2.0, size=8) for i in range(6)}
    table = metrics.perturbation_skill(errors, baselines=list(errors)).set_index("method")
    best = table["best_baseline"].iloc[0]
    # The best baseline is as good as itself, and no better than the best of a replicate.
    assert table.loc[best, ["value", "high"]].tolist() == [0, 0]
    assert table.loc[best, "low"] < 0
    draws = np.random.default_rng(0).multinomial(8, np.full(8, 1 / 8), size=1000)
    means = {name: draws @ values for name, values in errors.items()}
    expected = np.percentile(1 - means["b0"] / np.minimum.reduce(list(means.values())), 2.5)
    assert table.loc["b0", "low"] == pytest.approx(expected)
    assert table.loc["b0", "high"] == pytest.approx(np.percentile(1 - means["b0"] / means[best], 97.5))


def test_few_perturbations_have_no_interval():
    errors = {"m": [1.0, 1, 1, 1], "b": [2.0, 2, 2, 2]}
    table = metrics.perturbation_skill(errors, baselines=["b"])
    assert table["low"].isna().all()
    assert table["note"][0] == "only 4 perturbations: an interval needs 5"
    rough = metrics.perturbation_skill({k: v * 2 for k, v in errors.items()}, baselines=["b"])
    assert rough["note"][0] == "only 8 perturbations: the interval is rough"
    assert rough["low"][0] == pytest.approx(0.5)
    assert metrics.perturbation_skill(errors, baselines=["b"], n_boot=0)["low"].isna().all()


@pytest.mark.parametrize(
    ("errors", "names", "error", "message"),
    [
        ({"m": [1.0]}, [], ValueError, "`baselines` is empty"),
        ({"m": [1.0]}, ["b"], KeyError, "'b' not found in `mse`"),
        ({"m": [1.0], "b": [1.0, 2.0]}, ["b"], ValueError, "vectors of equal length"),
        ({"m": [-1.0], "b": [1.0]}, ["b"], ValueError, "not negative"),
        ({"m": [1.0], "b": [np.nan]}, ["b"], ValueError, "finite"),
        ({"m": [1.0], "b": [0.0]}, ["b"], ValueError, "no error at all"),
    ],
)
def test_bad_errors(errors, names, error, message):
    with pytest.raises(error, match=message):
        metrics.perturbation_skill(errors, baselines=names)


@pytest.fixture
def screen():
    """Changes that are linear in the features of the perturbed genes, with combinations that add up."""
    rng = np.random.default_rng(0)
    features = {f"g{i}": rng.normal(size=3) for i in range(20)}
    loadings = rng.normal(size=(3, 15))
    perturbations = [[gene] for gene in features] + [["g0", "g1"], ["g2", "g3"]]
    noise = 0.01 * rng.normal(size=(len(perturbations), 15))
    changes = np.array([sum(features[g] for g in genes) @ loadings for genes in perturbations]) + noise
    return changes, perturbations, features


def test_what_is_predicted_was_left_out(screen):
    changes, perturbations, features = screen
    found = metrics.perturbation_baselines(changes, perturbations, features=features)
    assert list(found) == ["no_change", "train_mean", "additive", "linear", "knn"]
    i = 4
    loud = changes.copy()
    loud[i] += 1000
    again = metrics.perturbation_baselines(loud, perturbations, features=features)
    for name in found:
        np.testing.assert_array_equal(found[name][i], again[name][i], err_msg=name)
    others = np.delete(changes, i, axis=0)
    np.testing.assert_allclose(found["train_mean"][i], others.mean(axis=0))
    np.testing.assert_allclose(found["additive"][i], others.mean(axis=0))
    np.testing.assert_allclose(found["additive"][20], changes[0] + changes[1])
    assert not found["no_change"].any()


def test_linear_finds_what_is_linear(screen):
    changes, perturbations, features = screen
    found = metrics.perturbation_baselines(changes, perturbations, features=features)
    error = {name: ((values - changes) ** 2).mean() for name, values in found.items()}
    assert error["linear"] < 0.01 * error["train_mean"]
    assert error["knn"] < 0.8 * error["train_mean"]
    rng = np.random.default_rng(9)
    noise = {gene: rng.normal(size=3) for gene in features}
    useless = metrics.perturbation_baselines(changes, perturbations, features=noise)
    assert ((useless["linear"] - changes) ** 2).mean() < 1.5 * error["train_mean"]


def test_ridge_is_that_of_sklearn_at_the_strength_of_least_left_out_error():
    rng = np.random.default_rng(0)
    x, new = rng.normal(size=(12, 4)), rng.normal(size=(3, 4))
    y = x @ rng.normal(size=(4, 6)) + rng.normal(size=(12, 6))
    centre = x - x.mean(axis=0)
    total = (centre**2).sum() / 12
    errors = {}
    for strength in baselines._STRENGTHS * total:
        residuals = []
        for i in range(12):
            kept = np.arange(12) != i
            # The dual penalty is on the sum of squares, and the centre is that of the training rows.
            fit = Ridge(alpha=strength, fit_intercept=True).fit(centre[kept], y[kept])
            residuals.append(y[i] - fit.predict(centre[[i]])[0])
        errors[strength] = np.mean(np.square(residuals))
    chosen = min(errors, key=errors.get)
    expected = Ridge(alpha=chosen).fit(centre, y).predict(new - x.mean(axis=0))
    found = y.mean(axis=0) + baselines._ridge(x, y - y.mean(axis=0), new)
    np.testing.assert_allclose(found, expected)


def test_genes_without_features_get_the_mean(screen):
    changes, perturbations, features = screen
    partial = {gene: vector for gene, vector in features.items() if gene != "g5"}
    found = metrics.perturbation_baselines(changes, perturbations, [["g5"], ["new"]], features=partial)
    for name in ("linear", "knn"):
        np.testing.assert_allclose(found[name][0], found["train_mean"][0], atol=1e-12)
    np.testing.assert_allclose(found["train_mean"][1], changes.mean(axis=0))


def test_excluded_changes_are_not_learnt_from(screen):
    changes, perturbations, _ = screen
    excluded = np.zeros(changes.shape, bool)
    excluded[0, 3] = True
    loud = changes.copy()
    loud[0, 3] = 1e6
    first, second = (
        metrics.perturbation_baselines(x, perturbations, excluded=excluded)["train_mean"] for x in (changes, loud)
    )
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first[1, 3], np.delete(changes[:, 3], [0, 1]).mean())


def test_many_perturbations_are_left_out_in_groups():
    n = 130
    changes = np.random.default_rng(0).normal(size=(n, 1))
    found = metrics.perturbation_baselines(changes, [[str(i)] for i in range(n)])["train_mean"].ravel()
    # The mean of the others, a group of two or three left out: never its own value.
    exact = (changes.sum() - changes.ravel()) / (n - 1)
    assert np.unique(found).size == baselines.MAX_FITS
    np.testing.assert_allclose(found, exact, atol=0.05)
    assert (found != exact).all()


@pytest.mark.parametrize(
    ("perturbations", "message"),
    [
        ([["a"], ["b"]], "Expected `perturbations` to have one entry for each of 3 changes, found 2"),
        ([["a"], ["b"], ["b"]], "Expected at least 3 different `perturbations`, each once, found 2 of 3"),
    ],
)
def test_bad_perturbations(perturbations, message):
    with pytest.raises(ValueError, match=message):
        metrics.perturbation_baselines(np.ones((3, 2)), perturbations)


def test_a_shuffled_network_keeps_degrees_and_weights():
    rng = np.random.default_rng(0)
    dense = np.where(rng.random((30, 30)) < rng.random(30), rng.normal(size=(30, 30)), 0.0)
    dense[10:] = 0
    np.fill_diagonal(dense, 0)
    found = metrics.shuffled_network(sparse.csr_matrix(dense), seed=1).toarray()
    for axis in (0, 1):
        np.testing.assert_array_equal((found != 0).sum(axis=axis), (dense != 0).sum(axis=axis))
    np.testing.assert_array_equal(np.sort(found, axis=1), np.sort(dense, axis=1))
    assert not found.diagonal().any()
    assert ((found != 0) & (dense != 0)).sum() < 0.8 * (dense != 0).sum()
    assert (metrics.shuffled_network(dense, seed=1).toarray() == found).all()
    assert (metrics.shuffled_network(dense, seed=2).toarray() != found).any()


def test_where_every_pair_is_an_edge_the_weights_move():
    dense = np.random.default_rng(0).normal(size=(8, 8))
    np.fill_diagonal(dense, 0)
    found = metrics.shuffled_network(dense).toarray()
    assert ((found != 0) == (dense != 0)).all()
    assert (found == dense)[dense != 0].mean() < 0.5
    np.testing.assert_array_equal(np.sort(found, axis=1), np.sort(dense, axis=1))


@pytest.mark.parametrize(
    ("network", "message"),
    [(np.eye(3), "`network` has no edge"), (np.ones((2, 3)), "Expected `network` to be square")],
)
def test_bad_networks(network, message):
    with pytest.raises(ValueError, match=message):
        metrics.shuffled_network(network)
