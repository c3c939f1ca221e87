import numpy as np
import pandas as pd
import pytest
from scipy import special
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss

from sctrellis import metrics
from sctrellis.metrics import _bootstrap, _calibration
from sctrellis.metrics._calibration_table import METRICS

ROWS, COLUMNS = 20, 60
GRID = dict(zip(("rows", "columns"), np.divmod(np.arange(ROWS * COLUMNS), COLUMNS), strict=True))


def world(seed, *, base=-1.5):
    """Log odds that vary by regulator, by target and by pair, and labels drawn with just these odds."""
    rng = np.random.default_rng(seed)
    z = base + rng.normal(size=(ROWS, 1)) + 0.7 * rng.normal(size=(1, COLUMNS)) + rng.normal(size=(ROWS, COLUMNS))
    return z.ravel(), rng.random(ROWS * COLUMNS) < special.expit(z.ravel())


def brute(p, y, edges):
    """The calibration error with given edges, bin after bin, the last one closed."""
    error = 0.0
    for i, (low, high) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        inside = (p >= low) & ((p <= high) if i == len(edges) - 2 else (p < high))
        if inside.any():
            error += inside.sum() * abs(y[inside].mean() - p[inside].mean())
    return error / len(p)


@pytest.mark.parametrize("n_bins", [1, 4, 15])
def test_calibration_error_is_the_definition(n_bins):
    z, y = world(0)
    p = special.expit(z + 0.5)
    found = metrics.calibration_error(p, y, bins="width", n_bins=n_bins)
    assert found == pytest.approx(brute(p, y, np.linspace(0, 1, n_bins + 1)))
    found = metrics.calibration_error(p, y, bins="mass", n_bins=n_bins)
    assert found == pytest.approx(brute(p, y, np.quantile(p, np.linspace(0, 1, n_bins + 1))))
    assert found > 0.05


def test_a_probability_of_one_counts():
    assert metrics.calibration_error([0.0, 1.0, 1.0, 1.0], [False, False, False, False], bins="width") == 0.75


def test_bins_of_equal_mass_never_part_ties():
    p = np.repeat([0.1, 0.2, 0.7], [50, 7, 3])
    y = np.arange(60) % 3 == 0
    # Fifteen bins would cut the fifty equal claims into thirteen parts.
    expected = sum(abs(y[inside].sum() - p[inside].sum()) for inside in (p == 0.1, p > 0.1)) / 60
    order = np.random.default_rng(0).permutation(60)
    assert metrics.calibration_error(p, y) == pytest.approx(expected)
    assert metrics.calibration_error(p[order], y[order]) == pytest.approx(expected)


def test_correction_takes_off_what_chance_adds():
    honest, claimed = [], []
    for seed in range(30):
        z, y = world(seed)
        honest.append([metrics.calibration_error(special.expit(z), y, corrected=c) for c in (False, True)])
        claimed.append([metrics.calibration_error(special.expit(z + 1), y, corrected=c) for c in (False, True)])
    # Under calibration the plain error is all bias; far from it there is next to none.
    assert np.mean(honest, axis=0)[0] > 0.025
    assert np.mean(honest, axis=0)[1] < 0.5 * np.mean(honest, axis=0)[0]
    np.testing.assert_allclose(np.mean(claimed, axis=0), np.mean(claimed, axis=0)[0], rtol=0.1)


@pytest.mark.parametrize(
    ("p", "message"),
    [
        ([0.2, 1.2], r"lie in \[0, 1\], found 0.2 to 1.2. Log odds"),
        ([-0.1, 0.2], r"lie in \[0, 1\], found -0.1"),
        ([0.2, np.nan], "has 1 NaN or infinite"),
        ([[0.2, 0.3]], r"shape \(n,\) with n >= 1"),
        ([], r"shape \(n,\) with n >= 1"),
    ],
)
def test_what_is_no_probability_is_refused(p, message):
    with pytest.raises(ValueError, match=message):
        metrics.calibration_error(p, [True, False])
    with pytest.raises(ValueError, match=message):
        metrics.calibration_table(p, [True, False], rows=[0, 1], columns=[0, 1])


def test_resampled_sums_are_weighted_sums():
    rng = np.random.default_rng(0)
    drawn = _bootstrap.draws(ROWS, COLUMNS, 230, 1)
    values, group = rng.normal(size=ROWS * COLUMNS), rng.integers(0, 4, ROWS * COLUMNS)
    found = _calibration.resampled_sums(values, *GRID.values(), drawn, group=group)
    weight = drawn[0][:, GRID["rows"]] * drawn[1][:, GRID["columns"]]
    expected = np.stack([(weight * values * (group == g)).sum(axis=1) for g in range(4)], axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert (drawn[0].sum(axis=1) == ROWS).all()


def test_table_holds_the_numbers_of_others():
    z, y = world(1)
    p = special.expit(0.6 * z + 0.4)
    table = metrics.calibration_table(p, y, **GRID, n_boot=0).set_index("metric")
    share = y.mean()
    fitted = LogisticRegression(C=np.inf, tol=1e-10).fit(np.log(p / (1 - p))[:, None], y)
    expected = {
        "ece_mass": metrics.calibration_error(p, y),
        "ece_width": metrics.calibration_error(p, y, bins="width"),
        "brier": brier_score_loss(y, p),
        "nll": log_loss(y, p),
        "brier_skill": 1 - brier_score_loss(y, p) / brier_score_loss(y, np.full(len(y), share)),
        "nll_skill": 1 - log_loss(y, p) / log_loss(y, np.full(len(y), share)),
        "slope": fitted.coef_[0, 0],
    }
    assert table["value"][list(expected)].to_dict() == pytest.approx(expected, abs=1e-5)
    offset = special.expit(np.log(p / (1 - p)) + table.loc["intercept", "value"])
    assert offset.mean() == pytest.approx(share)
    assert table.loc["slope", "value"] > 1.3
    assert table.loc["intercept", "value"] < -0.3
    assert table["low"].isna().all()
    assert set(table["note"]) == {"no replicates (n_boot=0)"}
    assert tuple(table.index) == METRICS


def test_true_probabilities_are_not_accused():
    inside = {"ece_mass": 0, "ece_width": 0, "slope": 0, "intercept": 0}
    for seed in range(100):
        z, y = world(seed)
        table = metrics.calibration_table(special.expit(z), y, **GRID, n_boot=200, seed=seed).set_index("metric")
        for metric in inside:
            inside[metric] += table.loc[metric, "low"] <= table.loc[metric, "ideal"] <= table.loc[metric, "high"]
    assert min(inside.values()) >= 93, inside


def test_false_probabilities_are():
    caught = 0
    for seed in range(20):
        z, y = world(seed)
        table = metrics.calibration_table(special.expit(2 * z), y, **GRID, n_boot=200, seed=seed).set_index("metric")
        caught += table.loc["ece_mass", "low"] > 0
        assert table.loc["ece_mass", "low"] <= table.loc["ece_mass", "value"] <= table.loc["ece_mass", "high"]
        assert table.loc["slope", "high"] < 1
    assert caught >= 18


def test_slopes_of_replicates_are_those_of_new_fits():
    z, y = world(2)
    p = special.expit(1.4 * z - 0.3)
    drawn = _bootstrap.draws(ROWS, COLUMNS, 40, 0)
    slopes = []
    for u, v in zip(*drawn, strict=True):
        weight = u[GRID["rows"]] * v[GRID["columns"]]
        fitted = LogisticRegression(C=np.inf, tol=1e-10).fit((1.4 * z - 0.3)[:, None], y, sample_weight=weight)
        slopes.append(fitted.coef_[0, 0])
    table = metrics.calibration_table(p, y, **GRID, n_boot=40, seed=0).set_index("metric")
    expected = np.percentile(slopes, [2.5, 97.5])
    assert table.loc["slope", ["low", "high"]].tolist() == pytest.approx(expected.tolist(), abs=0.02)


def test_a_constant_has_no_error_and_no_skill():
    _, y = world(3)
    table = metrics.calibration_table(np.full(len(y), y.mean()), y, **GRID, n_boot=100).set_index("metric")
    for metric in ("ece_mass", "ece_width", "brier_skill", "nll_skill", "intercept"):
        assert table.loc[metric, "value"] == pytest.approx(0, abs=1e-9)
    assert table.loc["brier_skill", "high"] <= 1e-12
    assert np.isnan(table.loc["slope", "value"])


def test_vectors_are_judged_beside_each_other():
    z, y = world(4)
    both = {"honest": special.expit(z), "bold": special.expit(2 * z)}
    table = metrics.calibration_table(both, y, **GRID, n_boot=50)
    alone = metrics.calibration_table(both["bold"], y, **GRID, n_boot=50)
    pd.testing.assert_frame_equal(
        table[table["key"] == "bold"].drop(columns="key").reset_index(drop=True), alone.drop(columns="key")
    )
    with pytest.raises(ValueError, match="equal length, found 1200 and 3 \\('b'\\)"):
        metrics.calibration_table({"a": both["bold"], "b": [0.1, 0.2, 0.3]}, y, **GRID)
    with pytest.raises(ValueError, match="are equal: there is nothing"):
        metrics.calibration_table(both["bold"], np.ones(len(y), bool), **GRID)


def test_few_regulators_get_no_interval():
    z, y = world(5)
    few = GRID["rows"] < 9
    table = metrics.calibration_table(
        special.expit(z)[few], y[few], rows=GRID["rows"][few], columns=GRID["columns"][few]
    )
    assert table[["low", "high"]].isna().all(axis=None)
    assert set(table["note"]) == {"only 9 regulators: an interval needs 10"}


def test_reliability_curve():
    z, y = world(6)
    p = special.expit(z)
    curve = metrics.reliability_curve(p, y, **GRID, n_bins=10, n_boot=200)
    assert curve["n_pairs"].sum() == len(y)
    assert curve["n_positive"].sum() == y.sum()
    assert np.ptp(curve["n_pairs"]) <= 1
    for _, line in curve.iterrows():
        inside = (p >= line["from"]) & (p <= line["to"])
        assert inside.sum() == line["n_pairs"]
        assert line[["probability", "share"]].tolist() == pytest.approx([p[inside].mean(), y[inside].mean()])
    assert ((curve["low"] <= curve["probability"]) & (curve["probability"] <= curve["high"])).sum() >= 8
    error = (curve["n_pairs"] * (curve["share"] - curve["probability"]).abs()).sum() / len(y)
    assert error == pytest.approx(metrics.calibration_error(p, y, n_bins=10))
    assert metrics.reliability_curve(p, y, **GRID, n_boot=0)[["low", "high"]].isna().all(axis=None)


def test_bounds_hold_the_truth_whatever_part_of_it_is_known():
    rng = np.random.default_rng(0)
    truth = rng.beta(0.5, 6, size=200_000)
    edge = rng.random(len(truth)) < truth
    # Between 0.3 and 0.8 of the edges are known, more of the likely ones.
    share = 0.3 + 0.5 * truth
    known = edge & (rng.random(len(truth)) < share)
    low, high = metrics.label_bounds(truth * share, 0.3)
    assert ((low <= truth) & (truth <= high)).all()
    assert low.mean() == pytest.approx(known.mean(), abs=0.003)
    np.testing.assert_array_equal(metrics.label_bounds(truth, 1.0)[1], truth)
    for completeness in (0, 1.1, -1):
        with pytest.raises(ValueError, match=r"`completeness` to lie in \(0, 1\]"):
            metrics.label_bounds(truth, completeness)
