"""Knockoffs: moments, error control and power in simulation, closed forms, and what must not work."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.linear_model import Lasso
from sklearn.metrics import adjusted_rand_score

from sctrellis import metrics
from sctrellis.metrics._knockoff_clusters import Clusters
from sctrellis.metrics._knockoff_correlation import shrunk_correlation
from sctrellis.metrics._knockoff_filter import family_qvalues, knockoff_evalues
from sctrellis.metrics._knockoff_generator import LAWS, Generator, latent_scores, normal_scores, residual
from sctrellis.metrics._knockoff_spread import SPREADS, spread
from sctrellis.metrics._lasso import lasso


def regulators(n, p, rng, *, n_factors=3, load=0.4):
    """Return correlated normal regulators."""
    loadings = load * rng.normal(size=(p, n_factors))
    x = rng.normal(size=(n, n_factors)) @ loadings.T + rng.normal(size=(n, p))
    return (x - x.mean(axis=0)) / x.std(axis=0)


def with_targets(x, m, rng, *, r2=0.3, n_parents=4):
    """Return targets, and which regulators they follow."""
    p = x.shape[1]
    effects = np.zeros((p, m))
    for j in range(m):
        chosen = rng.choice(p, n_parents, replace=False)
        effects[chosen, j] = rng.choice([-1, 1], n_parents) * rng.uniform(0.7, 1.3, n_parents)
    signal = x @ effects
    noise = rng.normal(size=signal.shape) * signal.std(axis=0) * np.sqrt((1 - r2) / r2)
    return signal + noise, effects != 0


def correlation(p, rng):
    x = regulators(3 * p, p, rng)
    return shrunk_correlation(x)[0]


def fitted(law="gaussian", n=4000, p=6, seed=0, **options):
    rng = np.random.default_rng(seed)
    return Generator.fit(regulators(n, p, rng), law=law, rng=rng, **options), rng


# s


@pytest.mark.parametrize("method", SPREADS)
def test_the_diagonal_is_possible_and_optimal(method):
    rng = np.random.default_rng(0)
    r = correlation(12, rng)
    s = spread(r, method)
    assert (s > 0).all()
    assert np.linalg.eigvalsh(2 * r - np.diag(s))[0] > 0

    def objective(v):
        left = 2 * r - np.diag(v)
        if method == "mvr":
            return np.trace(np.linalg.inv(left)) + (1 / v).sum()
        return -np.linalg.slogdet(left)[1] - np.log(v).sum()

    s = s / 0.999  # the margin that keeps it inside
    best = objective(s)
    for j in range(len(s)):
        for step in (-0.02, 0.02):
            other = s.copy()
            other[j] *= 1 + step
            assert objective(other) > best - 1e-4 * abs(best)
    equal = np.full(12, min(1, 2 * np.linalg.eigvalsh(r)[0]) * 0.99)
    assert best < objective(equal)


def test_independent_regulators_get_independent_knockoffs():
    np.testing.assert_allclose(spread(np.eye(5)), 1, atol=2e-3)


# generator


@pytest.mark.parametrize("law", LAWS)
def test_swapping_a_regulator_with_its_knockoff_leaves_second_moments(law):
    generator, rng = fitted(law, n=20_000)
    z, drawn = generator.z, generator.draw(rng)
    p, tolerance = z.shape[1], 4 / np.sqrt(len(z))
    joint = np.cov(np.concatenate([z, drawn], axis=1).T)
    for swapped in ([0], [1, 4], list(range(p))):
        order = np.arange(2 * p)
        order[swapped], order[np.add(swapped, p)] = np.add(swapped, p), swapped
        np.testing.assert_allclose(joint[np.ix_(order, order)], joint, atol=tolerance)
    # Within clusters of the mixture variances are 1, and the clusters add theirs.
    expected = (joint[:p, :p] if law == "mixture" else generator.correlation) - np.diag(generator.s)
    np.testing.assert_allclose(joint[:p, p:], expected, atol=tolerance)


def test_the_copula_keeps_the_values_and_their_frequencies():
    rng = np.random.default_rng(0)
    x = regulators(500, 8, rng)
    x[x < 0.3] = 0  # zeros, as in cells
    generator = Generator.fit(x, rng=rng)
    drawn = generator.values_of(generator.draw(rng))
    for column, knockoff in zip(x.T, drawn.T, strict=True):
        assert set(knockoff) <= set(column)
        assert (knockoff == 0).mean() == pytest.approx((column == 0).mean(), abs=0.09)
    gaussian = Generator.fit(x, law="gaussian", rng=rng)
    assert (gaussian.values_of(gaussian.draw(rng)) < 0).any()


def test_normal_scores_break_ties_at_random():
    x = np.zeros((400, 2))
    x[:50] = 1
    one, two = normal_scores(x, np.random.default_rng(0)).T
    assert (one[:50] > np.sort(one)[-51]).all()
    assert abs(np.corrcoef(one[50:], two[50:])[0, 1]) < 0.2  # ties of two genes are broken apart
    np.testing.assert_allclose(np.sort(one), stats.norm.ppf(np.arange(1, 401) / 401))


def test_scores_of_zeros_follow_the_other_regulators():
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(3000, 1))
    latent = 0.8 * shared + 0.6 * rng.normal(size=(3000, 6))  # correlations of 0.64
    x = np.where(latent > 0.3, np.expm1(latent), 0.0)
    scores = latent_scores(x, np.zeros((3000, 0)), rng)
    apart = np.triu_indices(6, 1)
    found, random = (np.corrcoef(s.T)[apart].mean() for s in (scores, normal_scores(x, rng)))
    assert found == pytest.approx(0.64, abs=0.04)
    assert random < 0.55
    # Each score lies where its value does: below those of all larger values, which keep theirs.
    for column, score in zip(x.T, scores.T, strict=True):
        assert score[column == 0].max() <= score[column > 0].min()
        assert stats.kstest(score, "norm").statistic < 0.03
    np.testing.assert_array_equal(scores[x > 0], normal_scores(x, rng)[x > 0])


def test_scores_of_ties_follow_the_covariates():
    rng = np.random.default_rng(0)
    known = rng.normal(size=(3000, 1))
    latent = 0.8 * known + 0.6 * rng.normal(size=(3000, 2))
    x = np.maximum(latent, 0.5)
    with_known, without = (latent_scores(x, c, rng) for c in (known, known[:, :0]))
    found, less = (np.corrcoef(s[:, 0], known[:, 0])[0, 1] for s in (with_known, without))
    assert found == pytest.approx(0.8, abs=0.04)
    assert less < found - 0.05


@pytest.mark.parametrize("law", LAWS)
def test_leaving_a_regulator_out_equals_fitting_without_it(law):
    """Mean and covariance given the regulators, from the rank-one change and from scratch."""
    generator, _ = fitted(law, n=60, p=7)
    if generator.clusters is not None:
        # One cluster is the Gaussian law; that its draw does not know the regulator is a test of its own.
        first = generator.clusters.means[:1]
        generator = replace(generator, z=generator.z - first, clusters=Clusters(0 * first, np.zeros(1)))
    k, others = 2, np.arange(7) != 2
    r, s = generator.correlation[np.ix_(others, others)], generator.s[others]
    z = generator.z
    inverse = np.linalg.inv(r)
    mean = z[:, others] - z[:, others] @ inverse * s
    covariance = 2 * np.diag(s) - s[:, None] * inverse * s

    class Zero:
        def standard_normal(self, shape):
            return np.zeros(shape)

        def random(self, shape):
            return np.zeros(shape)

    found = generator.without(k, z - z @ generator.precision * generator.s, Zero())
    np.testing.assert_allclose(found, mean, atol=1e-10)
    g, h = generator.precision[k, others], generator.precision[k, k]
    step = np.outer(g * s, g * s) / h
    noise = (generator.root @ generator.root.T)[np.ix_(others, others)] + step
    np.testing.assert_allclose(noise, covariance, atol=1e-9)


def clustered(n, p, rng, *, apart=2.0, k=3, load=0.4):
    """Return regulators of cells in clusters, and the cluster of each cell."""
    member = rng.integers(k, size=n)
    return regulators(n, p, rng, load=load) + apart * rng.normal(size=(k, p))[member], member


def test_clusters_are_found_and_a_posterior_is_that_of_bayes():
    rng = np.random.default_rng(0)
    x, truth = clustered(3000, 8, rng)
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    clusters, member = Clusters.fit(z, rng)
    assert adjusted_rand_score(truth, member) > 0.8
    covariance = np.cov((z - clusters.means[member]).T)
    weight = np.exp(clusters.log_weight)
    assert weight.sum() == pytest.approx(1)
    for without, kept in ((None, np.ones(8, dtype=bool)), (3, np.arange(8) != 3)):
        density = np.column_stack(
            [
                w * stats.multivariate_normal(mean[kept], covariance[np.ix_(kept, kept)]).pdf(z[:, kept])
                for w, mean in zip(weight, clusters.means, strict=True)
            ]
        )
        found = clusters.posterior(z, np.linalg.inv(covariance), without=without)
        np.testing.assert_allclose(found, density / density.sum(axis=1, keepdims=True), atol=1e-8)


def test_a_mixture_left_without_a_regulator_does_not_know_it():
    """Knockoffs of the others, given the others, do not change with the regulator."""
    rng = np.random.default_rng(0)
    x, _ = clustered(400, 5, rng, apart=1.0)
    generator = Generator.fit(x, law="mixture", rng=rng)
    moved = generator.z.copy()
    moved[:, 1] += rng.normal(size=400)
    same, other = (
        g.without(1, g.draw(np.random.default_rng(1)), np.random.default_rng(2))
        for g in (generator, replace(generator, z=moved))
    )
    np.testing.assert_allclose(same, other, atol=1e-9)


def test_clusters_show_in_gaussian_knockoffs_and_not_in_those_of_a_mixture():
    """Third moments: within two clusters of unlike size regulators are skewed together."""
    rng = np.random.default_rng(0)
    member = (rng.random(20_000) < 0.15).astype(int)
    x = regulators(20_000, 4, rng, load=0.2) + 4.0 * member[:, None]
    for law, alike in (("gaussian", False), ("mixture", True)):
        generator = Generator.fit(x, law=law, rng=rng)
        drawn = generator.values_of(generator.draw(rng))
        skew, found = (stats.skew(a, axis=0) for a in (x, drawn))
        assert (np.abs(found - skew) < 0.15).all() == alike
        # A regulator with the knockoffs of two others, beside the three regulators.
        centred, copy = x - x.mean(axis=0), drawn - x.mean(axis=0)
        expected = (centred[:, 0] * centred[:, 1] * centred[:, 2]).mean()
        together = (centred[:, 0] * copy[:, 1] * copy[:, 2]).mean()
        assert (abs(together / expected - 1) < 0.1) == alike


def test_leaving_one_out_draws_that_noise():
    generator, rng = fitted(n=30_000, p=5)
    k, others = 1, np.arange(5) != 1
    drawn = generator.without(k, generator.draw(rng), rng)
    r, s = generator.correlation[np.ix_(others, others)], generator.s[others]
    joint = np.cov(np.concatenate([generator.z[:, others], drawn], axis=1).T)
    np.testing.assert_allclose(joint[4:, 4:], r, atol=0.03)
    np.testing.assert_allclose(joint[:4, 4:], r - np.diag(s), atol=0.03)


def test_knockoffs_follow_the_covariates():
    rng = np.random.default_rng(0)
    batch = (rng.random(5000) < 0.4)[:, None].astype(float)
    x = regulators(5000, 5, rng) + batch * np.array([3, -3, 0, 1, 0])
    for law in LAWS:
        generator = Generator.fit(x, law=law, covariates=batch, rng=rng)
        drawn = generator.values_of(generator.draw(rng))
        for column, knockoff in zip(x.T, drawn.T, strict=True):
            expected, found = (np.corrcoef(c, batch[:, 0])[0, 1] for c in (column, knockoff))
            assert found == pytest.approx(expected, abs=0.06)
    left = residual(x, batch)
    np.testing.assert_allclose(left.T @ batch, 0, atol=1e-8)
    np.testing.assert_allclose(left.mean(axis=0), 0, atol=1e-10)


@pytest.mark.parametrize(("n", "p"), [(30, 50), (200, 20)])
def test_correlations_stay_positive_definite(n, p):
    rng = np.random.default_rng(0)
    z = regulators(n, p, rng)
    z[:, 1] = z[:, 0]  # a copy
    r, shrinkage = shrunk_correlation(z)
    assert np.linalg.eigvalsh(r)[0] >= 0.99e-3
    assert 0 < shrinkage < 1
    np.testing.assert_allclose(np.diagonal(r), 1)


# lasso


@pytest.mark.parametrize(("n", "q"), [(200, 30), (40, 60)])
def test_the_lasso_is_that_of_scikit_learn(n, q):
    rng = np.random.default_rng(0)
    x = regulators(n, q, rng)
    y = with_targets(x, 6, rng)[0]
    y = (y - y.mean(axis=0)) / y.std(axis=0)
    y[:, -1] = rng.normal(size=n) * 1e-3  # below the penalty: all coefficients are 0
    found = lasso(x.T @ x / n, x.T @ y / n, 0.1)
    for j in range(6):
        model = Lasso(alpha=0.1, fit_intercept=False, tol=1e-12, max_iter=100_000).fit(x, y[:, j])
        np.testing.assert_allclose(found[:, j], model.coef_, atol=2e-3)
    gradient = x.T @ y / n - x.T @ x / n @ found
    np.testing.assert_allclose(gradient[found != 0], 0.1 * np.sign(found[found != 0]), atol=2e-3)
    assert (np.abs(gradient) <= 0.1 + 2e-3).all()
    assert not found[:, -1].any()


# filter


def brute_q(w, j):
    levels = [t for t in np.abs(w) if 0 < t <= w[j]]
    return min([1.0, *((1 + (w <= -t).sum()) / (w >= t).sum() for t in levels)]) if w[j] > 0 else 1.0


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(-6, 6), min_size=1, max_size=25))
def test_q_values_are_those_of_the_definition(numbers):
    w = np.array(numbers, dtype=float)
    q = metrics.knockoff_qvalues(w)
    np.testing.assert_allclose(q, [brute_q(w, j) for j in range(len(w))])
    order = np.argsort(w)
    assert (np.diff(q[order]) <= 0).all()  # a larger statistic never has a larger q-value
    np.testing.assert_array_equal(metrics.knockoff_qvalues(w.reshape(1, -1))[0], q)


def test_with_few_selected_nothing_is_certain():
    assert metrics.knockoff_qvalues(np.arange(1, 10)).min() == pytest.approx(1 / 9)


def brute_e_bh(e, level):
    n = len(e)
    order = np.sort(e)[::-1]
    k = max((k for k in range(1, n + 1) if order[k - 1] >= n / (k * level) * (1 - 1e-12)), default=0)
    return e >= order[k - 1] if k else np.zeros(n, bool)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=25), st.sampled_from([0.05, 0.1, 0.5]))
def test_e_bh_selects_what_the_procedure_selects(numbers, level):
    e = np.array(numbers, dtype=float)
    np.testing.assert_array_equal(metrics.e_bh(e) <= level * (1 + 1e-9), brute_e_bh(e, level))


def test_the_e_values_of_one_draw_select_what_the_filter_selects():
    rng = np.random.default_rng(0)
    for _ in range(50):
        w = rng.normal(size=200) + 3 * (rng.random(200) < 0.3)
        e = knockoff_evalues(w, 0.1)
        np.testing.assert_array_equal(metrics.e_bh(e) <= 0.1 * (1 + 1e-12), metrics.knockoff_qvalues(w) <= 0.1)


def test_e_values_of_nothing_are_one_at_most_on_average():
    """The sum over null hypotheses is at most their number: the property that all of it rests on."""
    rng = np.random.default_rng(0)
    null = np.arange(300) >= 60
    sums = [knockoff_evalues(rng.normal(size=300) + 3 * ~null, 0.2)[null].sum() for _ in range(300)]
    assert np.mean(sums) <= 300 + 2 * np.std(sums) / np.sqrt(300)


def test_families():
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(3, 8, 4)) + 2
    tested = np.ones((8, 4), bool)
    tested[2, 1] = False
    pooled, single = (family_qvalues(draws, tested, family, 0.2) for family in ("network", "target"))
    assert np.isnan(pooled[2, 1])
    assert np.isnan(single[2, 1])
    mean = np.mean([knockoff_evalues(draw[tested], 0.4 * 0.2) for draw in draws], axis=0)
    np.testing.assert_array_equal(pooled[tested], metrics.e_bh(mean))
    np.testing.assert_array_equal(
        single[:, 3], metrics.e_bh(np.mean([knockoff_evalues(d[:, 3], 0.4 * 0.2) for d in draws], axis=0))
    )


# all together


def rates(selected, true):
    return (selected & ~true).sum() / max(1, selected.sum()), (selected & true).sum() / true.sum()


@pytest.mark.parametrize("n_draws", [1, 4])
def test_false_discoveries_and_power(n_draws):
    found = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        x = regulators(400, 60, rng)
        y, true = with_targets(x, 40, rng)
        result = metrics.knockoffs(x, y, n_draws=n_draws, seed=seed)
        found.append(rates(result.qvalue <= 0.1, true))
    rate, power = np.array(found).T
    assert rate.mean() <= 0.1 + 2 * rate.std(ddof=1) / np.sqrt(30)
    assert rate.mean() > 0.01  # of a procedure that selects, not of one that hardly does
    assert power.mean() > 0.9


def test_what_must_fail_does():
    """A hidden cause of regulators and targets breaks the claim: the test of the test."""
    found = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        hidden = rng.normal(size=(400, 2))
        x = regulators(400, 60, rng) + hidden @ rng.normal(size=(2, 60))
        y, true = with_targets(x, 40, rng)
        y += 3 * hidden @ rng.normal(size=(2, 40))
        found.append(rates(metrics.knockoffs(x, y, n_draws=1, seed=seed).qvalue <= 0.1, true)[0])
    assert np.mean(found) > 0.2


def test_a_known_cause_is_taken_off():
    found = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        known = rng.normal(size=(400, 2))
        x = regulators(400, 60, rng)
        y, true = with_targets(x, 40, rng)
        x, y = x + known @ rng.normal(size=(2, 60)), y + 3 * known @ rng.normal(size=(2, 40))
        result = metrics.knockoffs(x, y, covariates=known, n_draws=1, seed=seed)
        found.append(rates(result.qvalue <= 0.1, true))
    rate, power = np.mean(found, axis=0)
    assert rate < 0.15
    assert power > 0.85


def test_zeros_break_the_gaussian_law_and_not_the_copula():
    """Two regulators that act together only, with zero-inflated values: Kernfeld's case."""
    found = {law: [] for law in LAWS}
    for seed in range(10):
        rng = np.random.default_rng(seed)
        latent = regulators(400, 40, rng, load=0.6)
        x = np.where(latent > 0.3, np.expm1(latent), 0)
        on = x > np.median(x, axis=0)
        true = np.zeros((40, 60), bool)
        for j in range(60):
            true[rng.choice(40, 2, replace=False), j] = True
        y = np.array([on[:, true[:, j]].all(axis=1) for j in range(60)], dtype=float).T
        for law in LAWS:
            result = metrics.knockoffs(x, y, generator=law, n_draws=1, seed=seed)
            found[law].append(rates(result.qvalue <= 0.1, true)[0])
    copula, gaussian = (np.array(found[law]) for law in ("copula", "gaussian"))
    assert copula.mean() <= 0.1 + 2 * copula.std(ddof=1) / np.sqrt(len(copula))
    assert gaussian.mean() > 0.15


def test_regulators_as_targets():
    rng = np.random.default_rng(0)
    x = regulators(600, 15, rng, load=0)
    x[:, 3] = x[:, :3].sum(axis=1) + 0.7 * rng.normal(size=600)
    y = np.column_stack([x, x[:, [5]] + rng.normal(size=600)[:, None]])
    own = np.append(np.arange(15), -1)
    result = metrics.knockoffs(x, y, own=own, n_draws=2, q=0.3)
    assert np.isnan(result.qvalue[np.arange(15), np.arange(15)]).all()
    assert not result.statistic[np.arange(15), np.arange(15)].any()
    assert np.isfinite(result.qvalue).sum() == 16 * 15 - 15
    assert (result.statistic[:3, 3] > 0.2).all()
    assert result.statistic[5, 15] > 0.3
    assert result.draws.shape == (2, 15, 16)


def test_the_statistic_has_the_sign_of_the_effect():
    rng = np.random.default_rng(0)
    x = regulators(500, 10, rng)
    y = np.column_stack([x[:, 0] - x[:, 1], -x[:, 2]]) + rng.normal(size=(500, 2))
    found = metrics.knockoffs(x, y, n_draws=2).statistic
    assert found[0, 0] > 0 > found[1, 0]
    assert found[2, 1] < 0
    assert (found.astype(bool).sum(axis=0) < 6).all()


def test_scale_and_monotone_transformation():
    rng = np.random.default_rng(0)
    x = regulators(200, 10, rng)
    y = with_targets(x, 5, rng)[0]
    plain = metrics.knockoffs(x, y, n_draws=2)
    moved = metrics.knockoffs(3 * x + 2, 0.1 * y - 4, n_draws=2)
    np.testing.assert_allclose(plain.statistic, moved.statistic, atol=1e-4)


def test_seeds_and_workers():
    rng = np.random.default_rng(0)
    x = regulators(100, 10, rng)
    y = with_targets(x, 5, rng)[0]
    one, two, other, parallel = (
        metrics.knockoffs(x, y, n_draws=3, seed=seed, n_jobs=n_jobs).draws
        for seed, n_jobs in ((0, 1), (0, 1), (1, 1), (0, 2))
    )
    np.testing.assert_array_equal(one, two)
    np.testing.assert_allclose(one, parallel, atol=1e-6)
    assert (one != other).any()


def test_fewer_cells_than_regulators_and_constant_targets():
    rng = np.random.default_rng(0)
    x = regulators(40, 80, rng)
    y = np.column_stack([x[:, 0] * 2 + 0.1 * rng.normal(size=40), np.ones(40)])
    result = metrics.knockoffs(x, y, n_draws=2)
    assert result.diagnostics["shrinkage"] > 0.1
    assert result.statistic[:, 0].argmax() == 0
    assert not result.statistic[:, 1].any()
    assert (result.qvalue[:, 1] == 1).all()


# exchangeability


def test_knockoffs_pass_the_swap_test_and_others_do_not():
    rng = np.random.default_rng(0)
    x = regulators(400, 12, rng, load=1.5)
    generator = Generator.fit(x, rng=rng)
    good = metrics.exchangeability(x, generator.values_of(generator.draw(rng)))
    assert good["full_swap_p"] > 0.05
    assert good["partial_swap_p"] > 0.05
    assert good["cross_error"] < 0.1
    assert 0 < good["mean_correlation"] < 1
    shuffled = metrics.exchangeability(x, rng.permuted(x, axis=0))
    assert shuffled["full_swap_p"] < 0.01
    assert shuffled["correlation_error"] > 0.2
    assert metrics.exchangeability(x, x)["mean_correlation"] == pytest.approx(1)


def bad(**change):
    rng = np.random.default_rng(0)
    arguments = {"x": rng.normal(size=(30, 4)), "y": rng.normal(size=(30, 3))}
    for name, edit in change.items():
        arguments[name] = edit(arguments[name]) if callable(edit) else edit
    return arguments


def with_constant(x):
    return np.column_stack([x, np.ones(len(x))])


def with_nan(x):
    x[3, 1] = np.nan
    return x


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": 0.0}, r"`q` to lie in \(0, 1\), found 0.0"),
        ({"q": 1.0}, r"`q` to lie in \(0, 1\), found 1.0"),
        ({"n_draws": 0}, "`n_draws` to be at least 1"),
        ({"family": "regulator"}, "`family` to be one of 'network', 'target'; found 'regulator'"),
        ({"statistic": "ridge"}, "`statistic` to be one of 'lasso'; found 'ridge'"),
        ({"generator": "sdp"}, "`generator` to be one of 'copula', 'gaussian', 'mixture'"),
        ({"spread": "sdp"}, "`spread` to be one of 'mvr', 'maxent'"),
        ({"x": with_constant}, "1 of the 5 columns of `x` are constant .first at 4"),
        ({"x": lambda x: x[:, :1]}, "at least 10 rows and 2 columns"),
        ({"x": with_nan}, "`x` has 1 NaN or infinite"),
        ({"y": with_nan}, "`y` has 1 NaN or infinite"),
        ({"y": lambda y: y[:-1]}, r"`y` to be a matrix of as many rows as `x`, found shape \(29, 3\)"),
        ({"own": np.array([0, 1, 4])}, "`own` to be 3 integers from -1 to 3"),
        ({"covariates": np.ones((30, 0))}, "`covariates` to be a matrix"),
        ({"seed": -1}, "`seed` to be at least 0"),
    ],
)
def test_bad_input(change, message):
    arguments = bad(**change)
    with pytest.raises(ValueError, match=message):
        metrics.knockoffs(arguments.pop("x"), arguments.pop("y"), **arguments)


def test_bad_numbers():
    with pytest.raises(ValueError, match="`statistics` has 1 NaN"):
        metrics.knockoff_qvalues([1, np.nan])
    with pytest.raises(ValueError, match="`evalues` to be non-negative"):
        metrics.e_bh([1, -1])
    with pytest.raises(ValueError, match="matrices of one shape with at least 10 rows"):
        metrics.exchangeability(np.ones((5, 2)), np.ones((5, 2)))
