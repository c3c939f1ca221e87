import numpy as np
import pytest
from scipy import special
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from sctrellis import metrics
from sctrellis.metrics._calibrators import METHODS, log_loss

STRICT = [name for name in METHODS if name != "isotonic"]


def pairs(seed, n=20_000, *, base=-2.0):
    """Honest log odds and labels drawn with these odds."""
    rng = np.random.default_rng(seed)
    z = rng.normal(base, 1.5, size=n)
    return z, rng.random(n) < special.expit(z)


def fitted(z, y, method, **options):
    return metrics.fit_calibrator(z, y, method, **{"scale": "log_odds", "train_share": 0.5, **options})


def error(found, z, y):
    return metrics.calibration_error(found.probabilities(z), y)


def test_temperature_undoes_a_scale():
    z, y = pairs(0)
    found = fitted(3 * z, y, "temperature")
    assert found.parameters["temperature"] == pytest.approx(3, abs=0.1)
    assert error(found, 3 * z, y) <= 0.02
    assert metrics.calibration_error(special.expit(3 * z), y) > 0.05
    held, labels = pairs(1)
    assert error(found, 3 * held, labels) <= 0.02


@pytest.mark.parametrize("seed", range(40))
def test_the_log_loss_of_the_fit_never_rises(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(4, 300))
    z = rng.normal(rng.normal() * 3, rng.choice([1e-3, 0.1, 1, 30]), size=n)
    y = rng.random(n) < special.expit(rng.choice([-2, 0, 0.3, 1, 5]) * z)
    y[:2] = True, False
    loss = {name: log_loss(fitted(z, y, name).log_odds(z), y) for name in ("temperature", "platt", "beta")}
    assert loss["temperature"] <= log_loss(z, y)
    assert loss["platt"] <= loss["temperature"] + 1e-12
    assert loss["beta"] <= loss["platt"] + 1e-12
    assert all(np.isfinite(list(fitted(z, y, "platt").parameters.values())))


def test_platt_is_an_unpenalised_logistic_regression():
    z, y = pairs(2)
    expected = LogisticRegression(C=np.inf, tol=1e-10).fit((0.5 * z + 1)[:, None], y)
    found = fitted(0.5 * z + 1, y, "platt").parameters
    assert found["slope"] == pytest.approx(expected.coef_[0, 0], abs=1e-4)
    assert found["intercept"] == pytest.approx(expected.intercept_[0], abs=1e-4)
    assert found["slope"] == pytest.approx(2, abs=0.1)
    assert found["intercept"] == pytest.approx(-2, abs=0.1)


def test_beta_finds_a_planted_map():
    rng = np.random.default_rng(3)
    p = rng.beta(0.7, 0.9, size=60_000)
    true = 0.5 * np.log(p) - 2.0 * np.log1p(-p) - 1.0
    found = fitted(special.logit(p), rng.random(len(p)) < special.expit(true), "beta").parameters
    assert found["slope_low"] == pytest.approx(0.5, abs=0.05)
    assert found["slope_high"] == pytest.approx(2.0, abs=0.1)
    assert found["intercept"] == pytest.approx(-1.0, abs=0.1)


def test_prior_shift_is_closed_form():
    z, y = pairs(4)
    found = fitted(z, y, "prior_shift", train_share=0.4)
    by = special.logit(y.mean()) - special.logit(0.4)
    np.testing.assert_allclose(found.log_odds(z), z + by)


def test_isotonic_is_that_of_least_squares():
    z, y = pairs(5, 3_000)
    found = fitted(z, y, "isotonic")
    expected = IsotonicRegression(y_min=0.5 / 3000, y_max=1 - 0.5 / 3000, out_of_bounds="clip").fit(z, y)
    at = np.linspace(-9, 6, 500)
    np.testing.assert_allclose(found.probabilities(at), expected.predict(at), atol=1e-6)
    assert found.probabilities([-100.0])[0] == pytest.approx(0.5 / 3000)
    assert not found.strict


@pytest.mark.parametrize("method", STRICT)
@pytest.mark.parametrize("seed", range(3))
def test_a_monotone_map_leaves_the_ranking_alone(method, seed):
    z, y = pairs(seed, 2_000)
    z = np.round(z, 2)  # with ties
    if seed == 2:
        y = ~y  # the scores point the wrong way: the map must not turn them round
    found = fitted(2 * z + 1, y, method)
    assert found.strict
    for metric in (metrics.auroc, metrics.average_precision):
        assert metric(found.log_odds(2 * z + 1), y) == pytest.approx(metric(z, y), abs=1e-12)
        assert metric(found.probabilities(2 * z + 1), y) == pytest.approx(metric(z, y), abs=1e-12)


def balanced_training(seed):
    """Log odds of a model that was trained on as many negatives as positives, where 3 % are positive."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(40_000, 3))
    y = rng.random(len(x)) < special.expit(-4.2 + x @ [1.0, -0.8, 0.5])
    train, held = np.arange(20_000), np.arange(20_000, 40_000)
    positive = train[y[train]]
    drawn = rng.choice(train[~y[train]], len(positive), replace=False)
    sample = np.concatenate([positive, drawn])
    model = LogisticRegression().fit(x[sample], y[sample])
    return model.decision_function(x[held]), y[held]


@pytest.mark.parametrize("seed", range(3))
def test_balanced_training_needs_an_intercept(seed):
    z, y = balanced_training(seed)
    half, other = np.arange(10_000), np.arange(10_000, 20_000)

    def after(method):
        return error(fitted(z[half], y[half], method), z[other], y[other])

    raw = metrics.calibration_error(special.expit(z[other]), y[other])
    assert raw > 0.3
    assert after("temperature") > 0.3
    for method in ("auto", "prior_shift", "platt", "beta"):
        assert after(method) < 0.02, method
    selection = fitted(z[half], y[half], "auto").selection.set_index("method")
    assert selection["nll"].idxmin() == selection.index[selection["chosen"]].item()
    assert selection.loc["temperature", "nll"] > selection.loc["constant", "nll"]


def test_auto_leaves_out_regulators():
    # All edges of a regulator are alike: its own pairs would betray the others in a division by pairs.
    rng = np.random.default_rng(0)
    rows = np.repeat(np.arange(40), 50)
    z = np.repeat(rng.normal(size=40), 50) + 1e-3 * rng.normal(size=2000)
    y = np.repeat(rng.random(40) < 0.5, 50)
    found = fitted(z, y, "auto", rows=rows).selection.set_index("method")["nll"]
    by_pair = fitted(z, y, "auto").selection.set_index("method")["nll"]
    assert found["platt"] > by_pair["platt"]
    assert found["constant"] > by_pair["constant"]


def test_the_cross_fitted_loss_is_of_maps_that_have_not_seen_the_pair():
    z, y = pairs(6, 1_000)
    rows = np.arange(1_000) % 25
    part = np.random.default_rng(7).permutation(25)[rows] % 5
    losses = []
    for i in range(5):
        found = fitted(z[part != i], y[part != i], "platt")
        losses.append(np.logaddexp(0, np.where(y, -1, 1) * found.log_odds(z))[part == i])
    expected = np.concatenate(losses).mean()
    selection = fitted(z, y, "auto", rows=rows, seed=7).selection.set_index("method")
    assert selection.loc["platt", "nll"] == pytest.approx(expected)
    assert "isotonic" not in selection.index


def test_isotonic_takes_part_from_a_thousand_positives():
    z, y = pairs(8)
    assert y.sum() > 1_000
    bent = np.where(z < -2, z, -2 + 0.05 * (z + 2))  # what no parametric map here undoes
    found = fitted(bent, y, "auto")
    assert found.method == "isotonic"
    assert error(found, bent, y) < 0.02


def test_scales():
    z, y = pairs(9, 2_000)
    of_log_odds, of_probabilities = fitted(z, y, "platt"), fitted(special.expit(z), y, "platt", scale="probability")
    np.testing.assert_allclose(of_log_odds.log_odds(z), of_probabilities.log_odds(special.expit(z)), atol=1e-4)
    strength = np.exp(z)
    found = fitted(strength, y, "auto", scale="strength")
    assert found.method == "platt"
    assert set(found.selection["method"]) == {"constant", "platt"}
    assert metrics.auroc(found.log_odds(strength), y) == pytest.approx(metrics.auroc(z, y), abs=1e-12)
    for method in ("temperature", "beta", "prior_shift"):
        with pytest.raises(ValueError, match=f"`method='{method}'` needs log odds or probabilities"):
            fitted(strength, y, method, scale="strength")
    with pytest.raises(ValueError, match=r"lie in \[0, 1\]"):
        fitted(z, y, "platt", scale="probability")


def test_shifted_is_for_another_share_of_edges():
    z, y = pairs(10, 200_000, base=0.0)
    found = fitted(z, y, "platt")
    rng = np.random.default_rng(0)
    kept = ~y | (rng.random(len(y)) < 0.1)  # nine of ten edges are lost
    moved = found.shifted(y.mean(), y[kept].mean())
    assert error(moved, z[kept], y[kept]) < 0.01 < error(found, z[kept], y[kept])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": np.zeros(4)}, "None of the 4 `labels` is positive"),
        ({"y": np.ones(4)}, "None of the 4 `labels` is negative"),
        ({"z": [0.1, np.nan, 0.2, 0.3]}, "`scores` has 1 NaN or infinite"),
        ({"z": [0.1, np.inf, 0.2, 0.3]}, "`scores` has 1 NaN or infinite"),
        ({"z": [[0.1, 0.2]]}, r"`scores` to have shape \(n,\)"),
        ({"method": "auot"}, "`method` to be one of 'auto'"),
        ({"scale": "logit"}, "`scale` to be one of 'probability'"),
        ({"method": "prior_shift", "train_share": None}, "needs the share of edges among the training pairs"),
        ({"train_share": 1.0}, r"`train_share` to lie in \(0, 1\)"),
        ({"rows": [1, 2]}, r"`rows` to have shape \(4,\)"),
    ],
)
def test_bad_input(change, message):
    given = {"z": [0.1, 0.4, 0.2, 0.3], "y": [0, 1, 0, 1], "method": "auto", **change}
    with pytest.raises(ValueError, match=message):
        fitted(given.pop("z"), given.pop("y"), given.pop("method"), **given)


def test_small_folds_fall_back_to_platt():
    found = fitted([0.1, 0.4, 0.2, 0.3], [0, 1, 0, 0], "auto", rows=[1, 2, 3, 4])
    assert found.method == "platt"
    assert found.selection["nll"].isna().tolist() == [False, True, True, True, True]
