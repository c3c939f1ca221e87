"""Planted targets are what they claim to be, and certificates fail where they must."""

import numpy as np
import pandas as pd
import pytest

from sctrellis import metrics
from sctrellis.metrics._certificate import _stress
from sctrellis.metrics._planted import DECOY_R2, LEVELS, Planter

FAST = {"n_sims": 4, "n_targets": 40, "q": [0.1]}


def cells(n=300, p=25, m=30, seed=0, *, hidden=0.0):
    """Return regulators as counts would give them, half of them zeros, and targets."""
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(n, 1))
    rate = np.exp(0.6 * rng.normal(size=(n, p)) + hidden * factor * rng.normal(size=p))
    depth = np.exp(0.3 * rng.normal(size=(n, 1)))
    x = np.log1p(rng.poisson(depth * rate) / depth)
    shared = rng.normal(size=(n, 3)) @ rng.normal(size=(3, m))
    y = shared + rng.normal(size=(n, m)) + 2 * hidden * factor * rng.normal(size=m)
    return x, y, rng


def r_squared(y, x):
    design = np.column_stack([np.ones(len(x)), x])
    left = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    return 1 - left.var(axis=0) / y.var(axis=0)


def planted(level, **options):
    x, y, rng = cells(2000, **options)
    return Planter.of(x, y, 0.3).plant(level, 60, rng), x, y


@pytest.mark.parametrize("level", LEVELS)
def test_every_target_has_regulators(level):
    world, x, _ = planted(level)
    assert world.y.shape == (2000, 60)
    assert world.true.shape == (world.x.shape[1], 60)
    assert (world.true.sum(axis=0) >= 1).all()
    assert np.isfinite(world.y).all()
    assert (np.ptp(world.x, axis=0) > 0).all()
    if level not in ("measurement", "decoys"):
        np.testing.assert_array_equal(world.x, x)


def test_linear_targets_have_the_wanted_share_and_the_noise_of_the_real_ones():
    world, x, y = planted("linear", m=60)
    shares = [r_squared(world.y[:, j], x[:, world.true[:, j]]) for j in range(60)]
    assert np.mean(shares) == pytest.approx(0.3, abs=0.01)
    # Residuals are as correlated as those of the real targets, in another order.
    found, expected = (
        np.sort(np.abs(np.corrcoef(z.T)[np.triu_indices(60, 1)]))
        for z in (world.y - x @ np.linalg.lstsq(x, world.y, rcond=None)[0], y)
    )
    np.testing.assert_allclose(found.mean(), expected.mean(), atol=0.03)


def test_logic_needs_both_regulators():
    world, x, _ = planted("logic")
    on = x > np.median(x, axis=0)
    for j in range(0, 60, 2):
        both = on[:, world.true[:, j]]
        assert both.shape[1] == 2
        assert len(np.unique(world.y[:, j])) == 2
        np.testing.assert_array_equal(world.y[:, j] > world.y[:, j].mean(), both.all(axis=1))
    assert (world.true[:, 1::2].sum(axis=0) == 1).all()


def test_counts_are_counts():
    world, *_ = planted("counts")
    assert (world.y >= 0).all()
    assert 0.2 < (world.y == 0).mean() < 0.7


def test_thinning_halves_counts():
    world, x, _ = planted("measurement")
    seen, real = np.expm1(world.x), np.expm1(x)
    assert seen.mean() == pytest.approx(real.mean(), rel=0.02)  # in units of the full depth
    assert (world.x == 0).mean() > (x == 0).mean() + 0.1
    assert not seen[real == 0].any()


def test_decoys_look_like_regulators_and_have_no_targets():
    world, x, _ = planted("decoys")
    assert world.n_decoys == 3
    assert world.x.shape[1] == 28
    assert not world.true[25:].any()
    for decoy in world.x[:, 25:].T:
        same = [i for i in range(25) if np.array_equal(np.sort(x[:, i]), np.sort(decoy))]
        near = max(np.corrcoef(decoy, x[:, i])[0, 1] ** 2 for i in same)
        assert near == pytest.approx(DECOY_R2, abs=0.12)


def test_the_confounder_is_that_of_the_real_targets():
    world, x, y = planted("confounder", hidden=0.7)
    leading = np.linalg.svd((y - y.mean(axis=0)) / y.std(axis=0), full_matrices=False)[0][:, 0]
    beside = [abs(np.corrcoef(leading, world.y[:, j])[0, 1]) for j in range(60)]
    assert np.mean(beside) > 0.4


def test_what_holds_and_what_fails():
    x, y, _ = cells(hidden=0.7)
    options = {"levels": ["linear", "confounder"], "n_sims": 6, "q": [0.1], "n_draws": 3}
    found = metrics.certificate(x, y, "knockoffs", **options)
    table = found.table.set_index("level")
    assert table["passes"].tolist() == [True, False]
    assert table.loc["linear", "power"] > 0.7
    assert table.loc["confounder", "fdr"] > 0.2
    assert found.words.startswith("At q = 0.1 the rate holds with linear effects (power 0.")
    assert "; it fails with a hidden cause (0." in found.words


def test_numbers_are_those_of_the_selection():
    """A method that selects everything, and one that selects nothing."""
    x, y, _ = cells()

    def everything(x, y, seed):
        return np.zeros((x.shape[1], y.shape[1]))

    table = metrics.certificate(x, y, everything, levels=["linear", "decoys"], **FAST).table.set_index("level")
    assert table["power"].tolist() == [1, 1]
    assert (table["fdr"] > 0.85).all()
    assert table.loc["decoys", "decoy_rate"] == pytest.approx(3 / 28)
    assert np.isnan(table.loc["linear", "decoy_rate"])
    assert not table["passes"].any()

    def nothing(x, y, seed):
        return np.ones((x.shape[1], y.shape[1]))

    found = metrics.certificate(x, y, nothing, levels=["linear"], **FAST)
    assert found.table[["fdr", "power"]].to_numpy().tolist() == [[0, 0]]
    assert found.table["passes"].all()
    assert found.words == "At q = 0.1 the rate holds with linear effects (power 0.00)."


def test_seeds_and_workers():
    x, y, _ = cells(60, 8, 10)
    options = {**FAST, "levels": ["linear", "counts"]}
    one, two, other, parallel = (
        metrics.certificate(x, y, "partial_test", seed=seed, n_jobs=n_jobs, **options).table
        for seed, n_jobs in ((0, 1), (0, 1), (1, 1), (0, 2))
    )
    pd.testing.assert_frame_equal(one, two)
    pd.testing.assert_frame_equal(one, parallel)
    assert (one["power"] != other["power"]).any()
    # A level is simulated the same whatever the others are.
    alone = metrics.certificate(x, y, "partial_test", **{**options, "levels": ["counts"]}).table
    pd.testing.assert_frame_equal(alone, one[one["level"] == "counts"].reset_index(drop=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "ridge"}, "`method` to be one of 'knockoffs', 'partial_test'; found 'ridge'"),
        ({"levels": ["L0"]}, "`levels` to be one of 'linear', 'logic'"),
        ({"levels": []}, "`levels` and `q` to hold at least one"),
        ({"q": [0.1, 1.0]}, r"`q` to lie in \(0, 1\), found 1.0"),
        ({"n_sims": 1}, "`n_sims` to be at least 2"),
        ({"r2": 1}, r"`r2` to lie in \(0, 1\)"),
        ({"method": lambda x, y, seed: np.ones(3)}, r"`method` to return q-values of shape \(8, 40\), found \(3,\)"),
        ({"x": lambda x: x - 1}, "negative values .* 'measurement' has no counts to thin"),
        ({"y": lambda y: y * 0}, "10 of the 10 columns of `y` are constant"),
    ],
)
def test_bad_input(options, message):
    x, y, _ = cells(60, 8, 10)
    options = {"method": "partial_test", **FAST, **options}
    x, y = options.pop("x", np.asarray)(x), options.pop("y", np.asarray)(y)
    with pytest.raises(ValueError, match=message):
        metrics.certificate(x, y, options.pop("method"), **options)


def test_stress_is_the_worst_rate_of_the_levels_that_pass():
    lines = [("linear", 0.05, 0.06, True), ("logic", 0.05, 0.04, True), ("confounder", 0.05, 0.6, False)]
    lines += [("linear", 0.1, 0.02, True), ("logic", 0.2, 0.5, False)]
    table = pd.DataFrame(lines, columns=["level", "q", "fdr", "passes"])
    stress = _stress(table)
    assert stress["level"].tolist() == ["linear", "linear", ""]
    np.testing.assert_allclose(stress["q_stress"], [0.06, 0.1, np.nan])
