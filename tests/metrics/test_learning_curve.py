"""Learning curves, and what they predict of cells that they have not seen."""

import numpy as np
import pandas as pd
import pytest

from sctrellis import metrics
from sctrellis.metrics._detectable import detectable
from sctrellis.metrics._learning_curve import held_out_r2, split_half
from sctrellis.metrics._thinning import Counts


def world(n, p=20, m=50, seed=0):
    """Return cells with correlated regulators, drawn anew from one law for each call with another seed."""
    fixed, rng = np.random.default_rng(7), np.random.default_rng(seed)
    loadings, effects = fixed.normal(size=(3, p)), fixed.normal(size=(p, m)) * (fixed.random((p, m)) < 0.1)
    x = rng.normal(size=(n, 3)) @ loadings * 0.5 + rng.normal(size=(n, p))
    return x, x @ effects + rng.normal(size=(n, m))


def power_of(table):
    rows = table[table["measure"] == "power"]
    return rows.groupby(["n_cells", "effect"], as_index=False)["value"].mean()


def test_predicted_power_is_that_of_other_cells():
    """Other cells, other numbers of them, other effects."""
    seen = metrics.learning_curve(*world(400), n_draws=1)
    rows = power_of(seen)
    curve = metrics.power_curve(rows["n_cells"], rows["effect"], rows["value"], n_tested=400)
    options = {"r2": [0.07, 0.15, 0.3], "fractions": [0.4, 1], "seed": 5, "n_draws": 1}
    new = power_of(metrics.learning_curve(*world(400, seed=1), **options))
    predicted = curve.power(new["n_cells"], new["effect"])
    assert new["value"].min() < 0.35
    assert new["value"].max() > 0.9
    np.testing.assert_allclose(predicted, new["value"], atol=0.1)
    least, doubled = detectable(seen, n_tested=400, n_boot=20, seed=0)
    line = least[(least["quantity"] == "r2") & (least["power"] == 0.8)].iloc[0]
    assert curve.power(400, line["value"]) == pytest.approx(0.8)
    assert line["low"] <= line["value"] <= line["high"]
    # The cells that this share needs are those that there are.
    assert curve.n_cells(line["value"], 0.8) == pytest.approx(400)
    cells = least[(least["quantity"] == "cells") & (least["power"] == 0.8)]
    assert (np.diff(cells["value"]) < 0).all()
    power = doubled[(doubled["measure"] == "power") & (doubled["effect"] == 0.1)]
    assert power["doubled"].item() == pytest.approx(curve.power(800, 0.1))


def test_more_cells_tell_more():
    table = metrics.learning_curve(*world(320), r2=[0.2], n_draws=1, n_targets=40)
    means = table.groupby(["measure", "fraction"])["value"].mean()
    for measure in ("r2", "power", "jaccard"):
        assert means[measure].iloc[-1] > means[measure].iloc[0]
    assert sorted(table[table["measure"] == "power"]["n_cells"].unique()) == [40, 80, 160, 320]
    assert sorted(table[table["measure"] == "r2"]["n_cells"].unique()) == [30, 60, 120, 240]
    few = metrics.learning_curve(*world(60), r2=[0.2], n_draws=1, n_targets=10, n_repeats=1)
    assert sorted(few["fraction"].unique()) == [0.5, 1.0]  # an eighth and a quarter leave fewer than 20 cells


def test_less_depth_tells_less():
    rng = np.random.default_rng(0)
    rate = np.exp(0.7 * rng.normal(size=(300, 8))) * 2
    counts = rng.poisson(np.column_stack([rate, rate @ rng.dirichlet(np.ones(8) / 4, size=20).T]))
    whole = Counts(counts, np.full(300, 500))
    values = whole.log_normalised(500.0)
    options = {"fractions": [0.125, 1], "r2": [0.2], "n_draws": 1, "n_targets": 40}
    table = metrics.learning_curve(values[:, :8], values[:, 8:], counts=counts, total=whole.total, **options)
    means = table.groupby(["axis", "measure", "fraction"])["value"].mean()
    for measure in ("r2", "power"):
        assert means["depth", measure].iloc[0] < means["depth", measure].iloc[1] - 0.05
        assert means["depth", measure].iloc[1] == means["cells", measure].iloc[1]
    assert "depth" not in metrics.learning_curve(values[:, :8], values[:, 8:], **options)["axis"].unique()


def test_thinning_keeps_the_share_and_no_more():
    rng = np.random.default_rng(0)
    whole = Counts(rng.poisson(5.0, size=(500, 4)), np.full(500, 200))
    part = whole.thinned(0.25, rng)
    rest = whole.minus(part)
    np.testing.assert_array_equal(part.values + rest.values, whole.values)
    assert part.total.mean() == pytest.approx(50, rel=0.02)
    assert part.values.mean() == pytest.approx(1.25, rel=0.05)
    assert (part.total >= part.values.sum(axis=1)).all()
    np.testing.assert_array_equal(Counts(np.zeros((2, 1)), np.zeros(2)).log_normalised(10.0), 0)


@pytest.mark.parametrize("n", [60, 100, 400])
def test_held_out_variance_is_never_far_below_none(n):
    """More regulators than cells, as many, and fewer: the penalty keeps noise from being fitted."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n + 300, 100)) + rng.normal(size=(n + 300, 1))
    noise = rng.normal(size=(n + 300, 20))
    assert held_out_r2(x[:n], noise[:n], x[n:], noise[n:]) > -0.1
    y = 2 * x[:, :20] + noise
    assert held_out_r2(x[:n], y[:n], x[n:], y[n:]) > 0.3


def test_halves_agree_where_there_is_something_to_agree_on():
    x, y = world(2000, m=200)
    assert split_half(x, y) > 0.6
    noise = np.random.default_rng(0).normal(size=y.shape)
    assert split_half(x, noise) < 0.05


def test_same_seed_same_curve():
    options = {"fractions": [0.5, 1], "r2": [0.2], "n_draws": 1, "n_targets": 10}
    one, two = (metrics.learning_curve(*world(80), seed=3, n_jobs=k, **options) for k in (1, 2))
    pd.testing.assert_frame_equal(one, two)
    assert not one["value"].equals(metrics.learning_curve(*world(80), seed=4, **options)["value"])


def test_a_regulator_lost_with_the_cells_is_missed():
    x, y = world(200, p=4)
    x[:, 0] = 0
    x[:2, 0] = 1  # seldom among a quarter of the cells
    table = metrics.learning_curve(x, y, fractions=[0.25], r2=[0.4], n_draws=1, n_targets=20)
    assert table["value"].notna().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fractions": [0.0]}, r"`fractions` to lie in \(0, 1\]"),
        ({"fractions": []}, "hold a value each"),
        ({"r2": [1.0]}, r"`r2` to lie in \(0, 1\)"),
        ({"q": 1.0}, "`q`"),
        ({"n_repeats": 0}, "`n_repeats` to be at least 1"),
        ({"counts": np.ones((80, 3))}, "one column for each regulator and target"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(ValueError, match=message):
        metrics.learning_curve(*world(80), **options)


def test_too_few_cells_and_constant_targets():
    x, y = world(80)
    with pytest.raises(ValueError, match="at least 20 cells; found 15"):
        metrics.learning_curve(x[:15], y[:15])
    y[:, 0] = 1
    with pytest.raises(ValueError, match="1 of the 50 columns of `y` are constant"):
        metrics.learning_curve(x, y)


# --- the fits


def test_a_power_curve_recovers_its_own_numbers():
    truth = metrics.PowerCurve(intercept=-3.0, cells=0.9, effect=0.7)
    n, r2 = (a.ravel() for a in np.meshgrid([50, 100, 400, 900], [0.03, 0.1, 0.3]))
    found = metrics.power_curve(n, r2, truth.power(n, r2), n_tested=10_000)
    for name in ("intercept", "cells", "effect"):
        assert getattr(found, name) == pytest.approx(getattr(truth, name), rel=0.01)


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_power_that_never_moves(power):
    found = metrics.power_curve([50, 100, 50, 100], [0.1, 0.1, 0.3, 0.3], [power] * 4)
    assert found.power(70, 0.2) == pytest.approx(power, abs=0.02)
    assert metrics.PowerCurve(intercept=-1.0, cells=0.0, effect=0.0).n_cells(0.1) == np.inf
    assert np.isnan(metrics.PowerCurve(intercept=-1.0, cells=1.0, effect=0.0).minimum_r2(100))


def test_a_power_curve_jumps_without_overflow():
    found = metrics.power_curve([50, 100, 50, 100], [0.1, 0.1, 0.3, 0.3], [0.0, 0.0, 1.0, 1.0])
    assert 0.1 < found.minimum_r2(70, 0.5) < 0.3
    assert found.effect > 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([50], [0.1, 0.2], [0.5]), "as many numbers"),
        (([50], [1.0], [0.5]), "`r2` to lie in"),
        (([0], [0.1], [0.5]), "`n_cells` to be positive"),
        (([50], [0.1], [np.nan]), "`power` in"),
    ],
)
def test_power_curves_of_nonsense(arguments, message):
    with pytest.raises(ValueError, match=message):
        metrics.power_curve(*arguments)


@pytest.mark.parametrize("exponent", [0.5, 1.0])
def test_a_power_law_recovers_its_own_numbers(exponent):
    n = np.array([50, 100, 200, 400])
    found = metrics.power_law(n, 0.4 - 1.5 * n**-exponent)
    assert found.limit == pytest.approx(0.4, abs=1e-6)
    assert found(800) == pytest.approx(0.4 - 1.5 * 800**-exponent)


def test_a_power_law_does_not_fall_and_has_a_ceiling():
    flat = metrics.power_law([50, 100, 200], [0.3, 0.2, 0.1])
    assert (flat.scale, float(flat(1000))) == (0.0, pytest.approx(0.2))
    steep = metrics.power_law([50, 100, 200], [0.5, 0.7, 0.95])
    assert steep.limit <= 1.0
    assert steep(400) > steep(200)
    with pytest.raises(ValueError, match="two different ones"):
        metrics.power_law([50, 50], [0.1, 0.2])
    with pytest.raises(ValueError, match="finite"):
        metrics.power_law([50, 100], [0.1, np.nan])
