"""Effective sizes, collinear groups, audits of components, reliability, and the verdict on a set of cells."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from sctrellis import metrics
from sctrellis.metrics._components import components
from sctrellis.metrics._information_verdict import verdict

FAST = {"fractions": [0.5, 1], "r2": [0.2, 0.4], "n_targets": 20, "n_repeats": 2, "n_sims": 2, "n_draws": 2}


def cells(n=120, p=10, m=25, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.gamma(2.0, size=(n, p))
    return x, x @ rng.normal(size=(p, m)) + 2 * rng.normal(size=(n, m)), rng


# --- effective size


@pytest.mark.parametrize("shape", [(200, 500), (500, 200), (150, 150)])
def test_independent_genes_have_the_ratio_of_shuffled_ones(shape):
    x = np.random.default_rng(1).normal(size=shape)
    found = metrics.effective_size(x)
    assert found.ratio == pytest.approx(1.0, abs=0.02)
    assert (found.n_cells, found.n_genes) == shape


def test_the_size_is_that_of_the_gram_matrix():
    x, y, _ = cells()
    for part in (x, y, y[:15]):
        z = (part - part.mean(axis=0)) / part.std(axis=0)
        gram = z @ z.T
        expected = np.trace(gram) ** 2 / np.trace(gram @ gram)
        assert metrics.effective_size(part).n_eff == pytest.approx(expected, rel=1e-5)


def test_the_size_of_shuffled_genes_needs_no_shuffle():
    x, _, rng = cells(40, 30)
    x[:, 0] = 0
    x[0, 0] = 1  # any values: one cell that shows the gene
    squares = [30**2 / metrics.effective_size(rng.permuted(x, axis=0)).n_eff for _ in range(400)]
    expected = 30**2 / metrics.effective_size(x).permuted
    assert np.mean(squares) == pytest.approx(expected, abs=4 * np.std(squares) / 20)


def test_copies_of_cells_are_worth_nothing():
    x, y, _ = cells()
    one, two = metrics.effective_size(y), metrics.effective_size(np.concatenate([y, y]))
    assert two.n_eff == pytest.approx(one.n_eff, rel=1e-5)
    assert two.ratio < one.ratio
    constant = metrics.effective_size(np.column_stack([y, np.ones(len(y))]))
    assert constant == one


def test_a_shared_factor_shrinks_the_size():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 100)) + 5 * rng.normal(size=(300, 1))
    assert metrics.effective_size(x).n_eff < 1.2


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones((10, 4)), "Only 0 of the 4 columns"),
        (np.arange(4.0), "matrix of at least 3 rows"),
        (np.array([[1.0, np.nan]] * 4), "4 NaN or infinite"),
    ],
)
def test_matrices_without_a_size(x, message):
    with pytest.raises(ValueError, match=message):
        metrics.effective_size(x)


# --- groups


def test_groups_are_chains_of_near_copies():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 400))
    step = 0.25 * rng.normal(size=400)
    chain = [a, a + step, a + 2 * step]  # the ends are less than 0.95 correlated
    x = np.column_stack([b, chain[0], rng.normal(size=400), -b, chain[2], np.ones(400), chain[1]])
    assert abs(np.corrcoef(chain[0], chain[2])[0, 1]) < 0.95
    assert metrics.collinear_groups(x).tolist() == [1, 2, 0, 1, 2, 0, 2]
    assert not metrics.collinear_groups(x[:, [1, 4]]).any()
    with pytest.raises(ValueError, match="`threshold`"):
        metrics.collinear_groups(x, threshold=1.0)
    with pytest.raises(ValueError, match="matrix of at least 2 rows"):
        metrics.collinear_groups(x[0])


# --- components


@pytest.mark.parametrize("shape", [(60, 40), (600, 500), (260, 900)])
def test_components_are_those_of_a_full_decomposition(shape):
    x = np.random.default_rng(0).normal(size=shape) * np.linspace(1, 3, shape[1])
    x += 2 * x[:, [0]]
    scores, share = components(x, 4)
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    left, scale, _ = np.linalg.svd(z, full_matrices=False)
    np.testing.assert_allclose(np.abs(np.sum(scores * left[:, :4], axis=0)), 1, atol=1e-4)
    np.testing.assert_allclose(share, scale[:4] ** 2 / (scale**2).sum(), rtol=1e-4)


@pytest.mark.parametrize("explained", [0.25, 0.5, 0.9])
def test_a_planted_batch_is_recovered(explained):
    rng = np.random.default_rng(3)
    batch = np.repeat([0.0, 1.0], 200)
    noise = rng.normal(size=400)
    noise -= np.polyval(np.polyfit(batch, noise, 1), batch)
    factor = np.sqrt(explained) * (batch - 0.5) / 0.5 + np.sqrt(1 - explained) * noise / noise.std()
    x = 2 * np.outer(factor, rng.choice([-1, 1], 200)) + rng.normal(size=(400, 200))
    table = metrics.component_audit(x, {"batch": batch, "other": rng.normal(size=(400, 5))}, n_components=3)
    found = table.set_index(["covariate", "component"])["adjusted_r2"]
    assert found["batch", 1] == pytest.approx(explained, abs=0.05)
    assert abs(found["other", 1]) < 0.03
    assert found["together", 1] == pytest.approx(explained, abs=0.05)
    share = table[table["covariate"] == "batch"].set_index("component")["share"]
    mean = sum(found["batch", k] * share[k] for k in (1, 2, 3)) / share[0]
    assert found["batch", 0] == pytest.approx(mean)


def test_many_categories_do_not_look_like_an_explanation():
    rng = np.random.default_rng(0)
    x, indicators = rng.normal(size=(100, 50)), np.eye(40)[rng.integers(0, 40, 100)]
    many = metrics.component_audit(x, {"well": indicators}, n_components=10)
    assert abs(many["adjusted_r2"][many["component"] == 0].item()) < 0.1
    all_of_them = metrics.component_audit(x, {"cell": np.eye(100)}, n_components=2)
    assert all_of_them["adjusted_r2"].isna().all()


@pytest.mark.parametrize(
    ("covariates", "message"),
    [
        ({}, "at least one covariate"),
        ({"a": np.ones(3)}, r"`covariates\['a'\]` to hold 120 finite rows"),
        ({"a": np.full(120, np.nan)}, "finite rows"),
    ],
)
def test_covariates_that_cannot_explain(covariates, message):
    with pytest.raises(ValueError, match=message):
        metrics.component_audit(cells()[1], covariates)


def test_discoveries_that_rest_on_a_hidden_cause_vanish():
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(300, 1))
    x, y = rng.normal(size=(300, 12)) + hidden, rng.normal(size=(300, 40)) + 2 * hidden
    table = metrics.component_removal(x, y, n_components=[0, 1, 40], covariates=hidden, n_draws=2)
    assert table["removed"].tolist() == ["nothing", "1 components", "covariates"]  # 40 would explain the regulators
    for test in ("partial_test", "knockoffs"):
        counts = table.set_index("removed")[test]
        assert counts["nothing"] > 100
        assert counts["covariates"] < 10
        assert counts["1 components"] < 10


def test_least_squares_has_no_answer_for_copies_and_few_cells():
    x, y, _ = cells(25, 30, 20)
    found = metrics.component_removal(x, y, n_components=[0], n_draws=1)
    assert np.isnan(found["partial_test"].item())
    x, y, _ = cells()
    found = metrics.component_removal(np.column_stack([x, x[:, 0]]), y, n_components=[0], n_draws=1)
    assert np.isnan(found["partial_test"].item())


# --- reliability


def test_reliability_is_the_share_that_is_no_noise():
    rng = np.random.default_rng(0)
    rate = rng.gamma(4.0, 1 / 4, size=(4000, 3)) * [2.0, 8.0, 40.0]
    counts = rng.poisson(rate)
    total = np.full(4000, 10_000)
    truth = [np.corrcoef(np.log1p(c), np.log1p(r))[0, 1] ** 2 for c, r in zip(counts.T, rate.T, strict=True)]
    found = metrics.measurement_reliability(counts, total, n_repeats=5)
    np.testing.assert_allclose(found, truth, atol=0.05)
    assert found[0] < 0.4
    assert found[2] > 0.85


def test_counts_of_nothing_have_no_reliability():
    rng = np.random.default_rng(0)
    counts = np.column_stack([rng.poisson(3.0, size=300), np.zeros(300)])
    found = metrics.measurement_reliability(counts, np.full(300, 500))
    assert found[0] < 0.15  # pure noise of counting
    assert np.isnan(found[1])
    again = metrics.measurement_reliability(counts, np.full(300, 500))
    np.testing.assert_array_equal(found, again)
    counts[:150, 0] += 20
    one, two = (metrics.measurement_reliability(counts, np.full(300, 500), seed=k)[0] for k in (0, 1))
    assert one != two
    assert min(one, two) > 0.5


@pytest.mark.parametrize(
    ("counts", "total", "message"),
    [
        (np.full((5, 2), 0.5), None, "raw counts"),
        (np.full((5, 2), -1), None, "raw counts"),
        (np.ones((5, 2)), np.ones(5), "at least those of the genes"),
        (np.ones((5, 2)), np.full(4, 9), "counts of each cell"),
    ],
)
def test_counts_that_are_none(counts, total, message):
    with pytest.raises(ValueError, match=message):
        metrics.measurement_reliability(counts, total)


# --- the whole


def test_all_parts_say_the_same_again():
    x, y, rng = cells()
    batch, groups = rng.normal(size=120), rng.integers(0, 4, 120)
    options = {"covariates": {"batch": batch}, "groups": groups, **FAST}
    one, two = (metrics.information(x, y, **options) for _ in range(2))
    for field in dataclasses.fields(one):
        a, b = getattr(one, field.name), getattr(two, field.name)
        if isinstance(a, pd.DataFrame):
            pd.testing.assert_frame_equal(a, b)
        elif isinstance(a, np.ndarray):
            np.testing.assert_array_equal(a, b)
        else:
            assert a == b
    assert one.size["what"].tolist()[:3] == ["all genes", "regulators", "cells of 0"]
    assert one.size["what"].tolist()[-1] == "means of groups"
    whole = metrics.effective_size(np.concatenate([x, y], axis=1))
    assert one.size["n_eff"][0] == whole.n_eff
    assert set(one.components["covariate"]) == {"batch", "genes detected", "together"}
    other = metrics.information(x, y, seed=1, **options)
    assert not other.curve["value"].equals(one.curve["value"])


def test_few_cells_say_what_shrinkage_did():
    x, y, _ = cells(40, 50, 20)
    found = metrics.information(x, y, **FAST)
    assert 0 < found.diagnostics["shrinkage"] < 1
    words = " ".join(found.words)
    assert "There are 40 cells for 50 regulators: their correlations are shrunk towards zero by" in words
    assert f"{100 * found.diagnostics['shrinkage']:.0f} %" in words
    assert found.removal["partial_test"].isna().all()
    assert found.code != "I3"


def test_copies_are_named_as_groups():
    x, y, _ = cells()
    found = metrics.information(np.column_stack([x, 2 * x[:, :2]]), y, **FAST)
    assert found.group.tolist() == [1, 2, *[0] * 8, 1, 2]
    assert any(words.startswith("4 regulators form 2 groups of near copies") for words in found.words)
    assert found.diagnostics["mean_s"] < 0.8 * metrics.information(x, y, **FAST).diagnostics["mean_s"]


def test_negative_regulators_have_no_depth():
    x, y, _ = cells()
    found = metrics.information(x - 1, y, **FAST)
    assert "measurement" not in found.certificate["level"].tolist()
    assert found.code != "I3"


@pytest.mark.parametrize(
    ("carried", "code", "words"),
    [
        ((), "I0", "Nothing can be certified"),
        (("logic",), "I1", "with regulators that act together, but not with linear effects and counted targets"),
        (("linear", "logic"), "I1", "with linear effects and regulators that act together, but not with counted"),
        (("linear", "logic", "counts"), "I2", "with regulators measured at half the depth and a hidden cause. Look"),
        (("linear", "logic", "counts", "measurement"), "I2", "not with a hidden cause. Look"),
        (("linear", "logic", "counts", "measurement", "confounder"), "I3", "even with regulators"),
    ],
)
def test_the_verdict_follows_the_certificate(carried, code, words):
    levels = ["linear", "logic", "counts", "measurement", "confounder"]
    table = pd.DataFrame({"level": levels, "q": 0.2, "passes": [k in carried for k in levels], "power": 0.5})
    # The other rate must not decide.
    table = pd.concat([table.assign(q=0.1, passes=True), table])
    found = verdict(table)
    assert found[0] == code
    assert words in found[1]
    weak = verdict(table.assign(power=0.05))
    assert weak[0] == "I0"
