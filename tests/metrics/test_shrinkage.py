import re

import numpy as np
import pytest
from scipy import stats

from sctrellis import metrics
from sctrellis.metrics._against_controls import Against, Difference, against_controls, spearman, spread, verdict
from sctrellis.metrics._rewire import rewire


def conjugate(n_genes=200, n_cells=500, seed=0):
    """Profiles with a known share of noise: the truth that the weights must find."""
    rng = np.random.default_rng(seed)
    weight = np.tile(np.linspace(0.1, 0.9, 9), n_genes // 9 + 1)[:n_genes]
    total = rng.uniform(0.5, 2.0, n_genes)
    tau2, sigma2 = total * weight, total * (1 - weight)
    mean = rng.normal(size=(n_genes, n_cells))
    theta = mean + np.sqrt(tau2)[:, None] * rng.normal(size=mean.shape)
    x = theta + np.sqrt(sigma2)[:, None] * rng.normal(size=mean.shape)
    return x, mean, theta, tau2, sigma2


def test_weight_recovers_the_conjugate_truth_and_the_other_sign_fails():
    x, mean, theta, tau2, sigma2 = conjugate()
    weight = metrics.eb_weight(((x - mean) ** 2).mean(axis=1), sigma2, n_samples=x.shape[1])
    assert np.abs(weight - tau2 / (tau2 + sigma2)).mean() <= 0.05
    off = np.abs(tau2 / (tau2 + sigma2) - 0.5) > 0.05
    assert np.abs(weight - sigma2 / (sigma2 + tau2))[off].mean() >= 0.3
    # The weight is for the gene's own data: with it the posterior mean is nearer to the truth than either end.
    posterior = weight[:, None] * x + (1 - weight)[:, None] * mean
    other = (1 - weight)[:, None] * x + weight[:, None] * mean
    errors = [((estimate - theta) ** 2).mean() for estimate in (posterior, x, mean, other)]
    assert errors[0] < 0.95 * min(errors[1:])


def test_weight_is_james_stein_and_undefined_without_deviation():
    found = metrics.eb_weight([4.0, 1.0, 0.0, np.nan], [1.0, 2.0, 1.0, 1.0], n_samples=10)
    np.testing.assert_allclose(found, [1 - 0.8 / 4, 0.0, np.nan, np.nan])


@pytest.mark.parametrize(
    ("deviation", "noise", "n", "message"),
    [
        ([1.0, 2.0], [1.0], 10, "Expected `noise` to have shape (2,) as `deviation`, found (1,)."),
        ([-1.0], [1.0], 10, "Expected `deviation` not to be negative, found -1."),
        ([1.0], [-2.0], 10, "Expected `noise` not to be negative, found -2."),
        ([1.0], [1.0], 2, "Expected `n_samples` to be at least 3, found 2."),
    ],
)
def test_weight_refuses(deviation, noise, n, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        metrics.eb_weight(deviation, noise, n_samples=n)


def test_counting_noise_is_the_delta_method():
    mean = np.array([0.3, 1.0, 4.0, 50.0])
    slope = 1 / (1 + mean)
    np.testing.assert_allclose(metrics.counting_noise(mean), slope**2 * mean)
    with pytest.raises(ValueError, match=re.escape("Expected `mean` not to be negative, found -1.")):
        metrics.counting_noise([1.0, -1.0])


def test_thinning_measures_the_noise_and_not_the_biology():
    rng = np.random.default_rng(1)
    n_cells, depth = 4000, np.array([5.0, 10.0, 40.0])
    rate = depth * np.exp(0.8 * rng.normal(size=(n_cells, 3)))  # biology varies several-fold between cells
    counts = rng.poisson(rate)
    factor = rng.uniform(0.5, 2.0, size=(n_cells, 1))
    noise = np.log1p(factor * counts) - np.log1p(factor * rate)
    truth = (noise**2).mean(axis=0)
    found = metrics.thinned_noise(counts, np.log1p(factor * counts), seed=2)
    np.testing.assert_allclose(found, truth, rtol=0.25)
    assert (found < 0.4 * np.log1p(factor * counts).var(axis=0)).all()
    np.testing.assert_array_equal(found, metrics.thinned_noise(counts, np.log1p(factor * counts), seed=2))


def test_thinning_leaves_empty_cells_and_refuses_what_is_not_counts():
    counts = np.array([[0, 0], [4, 0]])
    assert np.isfinite(metrics.thinned_noise(counts, np.log1p(counts))).all()
    message = "Expected `counts` to hold counts of molecules, found values that are negative or not whole."
    for wrong in (counts + 0.5, -counts):
        with pytest.raises(ValueError, match=re.escape(message)):
            metrics.thinned_noise(wrong, np.log1p(counts))
    with pytest.raises(ValueError, match=re.escape("Expected `counts` to have shape (2, 2) as `expression`")):
        metrics.thinned_noise(counts[:1], np.log1p(counts))


def edges(seed=99):
    rng = np.random.default_rng(seed)
    dense = rng.random((60, 60)) < np.linspace(0.01, 0.4, 60)[:, None]
    np.fill_diagonal(dense, val=False)
    return np.nonzero(dense)


def test_rewiring_keeps_both_degrees_and_loses_the_edges():
    old = edges()
    new = rewire(*old, np.random.default_rng(0))
    for before, after in zip(old, new, strict=True):
        np.testing.assert_array_equal(np.bincount(after, minlength=60), np.bincount(before, minlength=60))
    pairs = set(zip(*new, strict=True))
    assert len(pairs) == len(old[0])
    assert all(r != c for r, c in pairs)
    expected = sum(
        min(1.0, r * c / len(old[0]))
        for r, c in zip(np.bincount(old[0])[old[0]], np.bincount(old[1])[old[1]], strict=True)
    )
    kept = len(pairs & set(zip(*old, strict=True)))
    assert kept < 1.3 * expected < 0.6 * len(old[0])
    again = rewire(*old, np.random.default_rng(0))
    np.testing.assert_array_equal(again, new)
    assert set(zip(*rewire(*old, np.random.default_rng(1)), strict=True)) != pairs


def test_rewiring_is_fair():
    # Three edges without a common gene: six graphs have these degrees.
    seen = {}
    rng = np.random.default_rng(0)
    for _ in range(1200):
        row, column = rewire(np.array([0, 1, 2]), np.array([3, 4, 5]), rng, n_rounds=8)
        graph = tuple(sorted(zip(row.tolist(), column.tolist(), strict=True)))
        seen[graph] = seen.get(graph, 0) + 1
    assert len(seen) == 6
    assert stats.chisquare(list(seen.values())).pvalue > 1e-3


def test_rewiring_of_extremes():
    full = np.nonzero(~np.eye(4, dtype=bool))
    assert set(zip(*rewire(*full, np.random.default_rng(0)), strict=True)) == set(zip(*full, strict=True))
    nothing = np.zeros(0, np.int64)
    assert len(rewire(nothing, nothing, np.random.default_rng(0))[0]) == 0


def test_spearman_and_spread_of_many_rows():
    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 5, size=(3, 40)), rng.normal(size=(3, 40))
    expected = [stats.spearmanr(a, b).statistic for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(spearman(one, other), expected, atol=1e-12)
    assert np.isnan(spearman(np.ones(5), np.arange(5)))
    np.testing.assert_allclose(spread(other, one), np.diff(np.quantile(other, [0.05, 0.95], axis=1), axis=0)[0])


def related(slope, n=400, seed=0):
    rng = np.random.default_rng(seed)
    quantity = rng.normal(size=n)
    return slope * quantity + rng.normal(size=n), quantity


@pytest.mark.parametrize(
    ("slope", "control", "sign", "expected"),
    [
        (1.0, 0.0, 1, "reproduced"),
        (-1.0, 0.0, 1, "reversed"),
        (-1.0, 0.0, -1, "reproduced"),
        (1.0, 1.0, 1, "not distinguishable from control"),
        (0.0, 0.0, 1, "not distinguishable from control"),
        (0.0, 1.0, 1, "not reproduced"),
        (0.5, 2.0, 1, "not reproduced"),
    ],
)
def test_a_claim_is_judged_against_its_controls(slope, control, sign, expected):
    values, quantity = related(slope)
    noise = np.random.default_rng(5).normal(size=(2, 6, len(quantity)))
    controls = {"one": control * quantity + noise[0], "other": control * quantity + noise[1]}
    found = against_controls(values, quantity, controls, n_boot=200)
    assert verdict(found, sign)[0] == expected
    assert found.low <= found.value <= found.high
    assert found.value == pytest.approx(stats.spearmanr(values, quantity).statistic)
    for name, difference in found.differences.items():
        each = [stats.spearmanr(c, quantity).statistic for c in controls[name]]
        assert difference.control == pytest.approx(np.mean(each))
        assert difference.value == pytest.approx(found.value - np.mean(each))
        assert difference.low <= difference.value <= difference.high


def test_every_kind_of_control_has_its_say():
    values, quantity = related(1.0)
    noise = np.random.default_rng(5).normal(size=(3, len(quantity)))
    found = against_controls(values, quantity, {"far": noise, "near": noise + quantity}, n_boot=200)
    assert verdict(found, 1) == ("not distinguishable from control", "as near")


def test_a_small_difference_is_not_real_however_sure():
    rng = np.random.default_rng(1)
    values, quantity = related(1.0, n=20_000)
    controls = {"near": (0.85 * quantity + rng.normal(size=(2, len(quantity))))}
    found = against_controls(values, quantity, controls, n_boot=100)
    assert 0 < found.differences["near"].low < found.differences["near"].value < 0.1
    assert verdict(found, 1)[0] == "not distinguishable from control"


def test_intervals_cover_and_hold_the_spread_between_controls():
    values, quantity = related(0.5, n=300)
    near = 0.5 * quantity + np.random.default_rng(1).normal(size=len(quantity))
    far = -near
    alone = against_controls(values, quantity, {"c": near}, n_boot=300).differences["c"]
    mixed = against_controls(values, quantity, {"c": np.stack([near, far])}, n_boot=300).differences["c"]
    assert mixed.high - mixed.low > 3 * (alone.high - alone.low)
    found = against_controls(values, quantity, {}, n_boot=2000)
    fisher = np.arctanh(found.value) + np.array([-1.96, 1.96]) * 1.03 / np.sqrt(len(quantity) - 3)
    np.testing.assert_allclose([found.low, found.high], np.tanh(fisher), atol=0.02)


def test_nan_is_left_out_and_few_genes_decide_nothing():
    values, quantity = related(1.0, n=50)
    control = np.random.default_rng(0).normal(size=(2, 50))
    values[3], quantity[4], control[1, 5] = np.nan, np.nan, np.nan
    found = against_controls(values, quantity, {"c": control}, n_boot=50)
    assert found.n_genes == 47
    few = against_controls(values[10:17], quantity[10:17], {"c": control[:, 10:17]}, n_boot=50)
    assert verdict(few, 1) == ("undecided", "no intervals: 7 genes, or no replicates")
    none = against_controls(values[3:4], quantity[3:4], {"c": control[:, 3:4]}, n_boot=50)
    assert np.isnan(none.value)
    assert verdict(against_controls(values, quantity, {}, n_boot=50), 1) == ("undecided", "no controls")


def test_verdict_needs_the_interval_of_the_statistic_itself():
    far = Difference(control=-0.5, value=0.5, low=0.3, high=0.7)
    found = Against(value=0.0, low=-0.1, high=0.1, n_genes=100, differences={"c": far})
    assert verdict(found, 1) == ("not reproduced", "differs from the controls, but not from 0")
