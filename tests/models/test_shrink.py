"""The convex stage: solves what it says, and priors help where they know something and cost nothing where not."""

from functools import cache

import numpy as np
import pytest
import torch
from sklearn.linear_model import ElasticNet

from sctrellis import datasets, metrics
from sctrellis._core.rows import Rows
from sctrellis.models import ShrinkConfig, reduce_embedding, ridge_network, shrink_network
from sctrellis.models._batches import Standardised
from sctrellis.models._shrink import Profile, _prior_mean, _solve

N_VARS, N_REGULATORS = 14, 5
TIGHT = {"tol": 1e-10, "n_iterations": 20_000}


def problem(*, everyone=False, others=4.0, rho=0.3, seed=0, n_obs=60):
    """Standardised cells, regulators in no order, and the penalty of each gene."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n_obs, N_VARS)) + rng.normal(size=(n_obs, 2)) @ rng.normal(size=(2, N_VARS))
    regulators = np.ones(N_VARS, bool) if everyone else np.isin(np.arange(N_VARS), rng.permutation(N_VARS)[:5])
    ridge = ridge_network(Rows(x), regulators, rho=rho, others=others, device="cpu")
    z = Standardised(Rows(x)).take(slice(None)).astype(np.float64)
    return ridge, regulators, z, rho * np.where(regulators, 1.0, others)


def profile_of(ridge, regulators):
    return Profile(ridge, torch.from_numpy(np.flatnonzero(regulators)), torch.device("cpu"))


def priors(shape, seed=1):
    rng = np.random.default_rng(seed)
    return torch.tensor(0.2 * rng.normal(size=shape)), torch.tensor(np.exp(0.5 * rng.normal(size=shape)))


@pytest.mark.parametrize("options", [{}, {"everyone": True}, {"n_obs": 12}])
def test_hessian_is_the_loss_with_all_other_genes_optimal(options):
    ridge, regulators, z, penalty = problem(**options)
    profile = profile_of(ridge, regulators)
    moments = z.T @ z / len(z) + np.diag(penalty)
    rng = np.random.default_rng(2)
    vectors = profile.without_self(torch.tensor(rng.normal(size=(regulators.sum(), N_VARS))))
    ahead, back = profile.hessian(vectors).numpy(), profile.inverse_hessian(vectors).numpy()
    own = np.flatnonzero(regulators)
    for target in range(N_VARS):
        kept = own != target
        mine = own[kept]
        rest = np.setdiff1d(np.flatnonzero(~regulators), [target])
        schur = moments[np.ix_(mine, mine)]
        schur = schur - moments[np.ix_(mine, rest)] @ np.linalg.solve(
            moments[np.ix_(rest, rest)], moments[np.ix_(rest, mine)]
        )
        vector = vectors[kept, target].numpy()
        assert np.allclose(ahead[kept, target], schur @ vector, atol=1e-9)
        assert np.allclose(back[kept, target], np.linalg.solve(schur, vector), atol=1e-9)
        assert (ahead[~kept, target] == 0).all()
        assert np.linalg.eigvalsh(schur)[-1] <= float(profile.curvature[target]) * (1 + 1e-9)


def gradient_of_all_genes(z, regulators, penalty, weights, target):
    """Gradient of the half-squared loss in the regulators' coefficients, the other genes' being optimal."""
    moments = z.T @ z / len(z)
    mine = np.setdiff1d(np.flatnonzero(regulators), [target])
    rest = np.setdiff1d(np.flatnonzero(~regulators), [target])
    kept = np.isin(np.flatnonzero(regulators), mine)
    b = weights[kept, target]
    system = moments[np.ix_(rest, rest)] + np.diag(penalty[rest])
    c = np.linalg.solve(system, moments[rest, target] - moments[np.ix_(rest, mine)] @ b)
    gradient = moments[np.ix_(mine, mine)] @ b + moments[np.ix_(mine, rest)] @ c - moments[mine, target]
    return gradient, kept


def check_optimal(z, regulators, penalty, mean, scale, deviation, rho, lam, targets, tol):
    weights = scale * (mean + deviation)
    n_zero = n_free = 0
    for target in targets:
        gradient, kept = gradient_of_all_genes(z, regulators, penalty, weights, target)
        d, s = deviation[kept, target], scale[kept, target]
        slope = s * gradient + rho * d
        free = d != 0
        assert np.abs(slope[free] + lam * np.sign(d[free])).max(initial=0) <= tol
        assert np.abs(slope[~free]).max(initial=0) <= lam + tol
        n_free, n_zero = n_free + free.sum(), n_zero + (~free).sum()
    return n_free, n_zero


@pytest.mark.parametrize("options", [{}, {"everyone": True}, {"n_obs": 12}])
@pytest.mark.parametrize("lam", [0.0, 0.05, 0.3])
def test_solution_is_optimal_for_all_genes_together(options, lam):
    ridge, regulators, z, penalty = problem(**options)
    profile = profile_of(ridge, regulators)
    mean, scale = priors(profile.start.shape)
    mean = profile.without_self(mean)
    config = ShrinkConfig(lam=lam, **TIGHT)
    deviation, _ = _solve(profile, mean, scale, torch.zeros_like(mean), config)
    n_free, n_zero = check_optimal(
        z,
        regulators,
        penalty,
        mean.numpy(),
        scale.numpy(),
        deviation.numpy(),
        ridge.rho,
        lam,
        range(N_VARS),
        1e-7,
    )
    assert n_free > 0
    assert lam == 0 or n_zero > regulators.sum()  # more than the self pairs
    again, _ = _solve(profile, mean, scale, torch.ones_like(mean), config)  # from elsewhere
    assert torch.allclose(again, deviation, atol=1e-7)


@pytest.mark.parametrize("lam", [0.02, 0.2])
@pytest.mark.parametrize("rho", [0.5, 0.01])
@pytest.mark.parametrize("informed", [False, True])
def test_equals_scikit_learn(lam, rho, informed):
    ridge, regulators, z, _ = problem(everyone=True, rho=rho)
    profile = profile_of(ridge, regulators)
    mean, scale = torch.zeros_like(profile.start), torch.ones_like(profile.start)
    if informed:
        mean, scale = priors(profile.start.shape)
        mean = profile.without_self(mean)
    start = torch.zeros_like(mean)
    deviation, _ = _solve(profile, mean, scale, start, ShrinkConfig(lam=lam, **TIGHT))
    model = ElasticNet(alpha=lam + rho, l1_ratio=lam / (lam + rho), fit_intercept=False, tol=1e-12, max_iter=100_000)
    for target in range(N_VARS):
        kept = np.arange(N_VARS) != target
        s, mu = scale[kept, target].numpy(), mean[kept, target].numpy()
        model.fit(z[:, kept] * s, z[:, target] - z[:, kept] @ (s * mu))
        assert np.abs(model.coef_ - deviation[kept, target].numpy()).max() <= 1e-6
    if not informed:
        fit = shrink_network(ridge, regulators, n_obs=60, config=ShrinkConfig(lam=lam, **TIGHT), device="cpu")
        assert np.allclose(fit.weights, deviation.numpy(), atol=1e-6)
        assert fit.n_iterations > 1


def test_without_priors_and_penalty_it_is_the_ridge_start():
    ridge, regulators, _, _ = problem()
    fit = shrink_network(ridge, regulators, n_obs=60, config=ShrinkConfig(lam=0.0), device="cpu")
    assert np.abs(fit.weights - ridge.weights).max() <= 1e-6
    assert (fit.mean == 0).all()
    assert (fit.scale == 1).all()
    assert (fit.edge_probability == 0.5).all()
    assert fit.regulator_prediction is None


def test_a_large_penalty_leaves_the_prior_mean_and_counts_solves():
    ridge, regulators, _, _ = problem()
    solves = []
    options = {"n_obs": 60, "device": "cpu", "on_step": lambda: solves.append(1)}
    assert (shrink_network(ridge, regulators, config=ShrinkConfig(lam=100.0), **options).weights == 0).all()
    assert len(solves) == 1
    short = shrink_network(ridge, regulators, config=ShrinkConfig(lam=0.01, n_iterations=3, tol=0.0), **options)
    assert short.n_iterations == 3


def test_mean_weights_minimise_the_loss_with_deviations_optimal():
    """The three weights equal a brute-force search over the loss in which every target's deviations are solved for."""
    data = case(200, 0)
    profile = profile_of(data.ridge, data.regulators)
    config = ShrinkConfig(lam_mean=0.3)
    mean, row, column, weights = _prior_mean(
        profile, profile.start, data.features, np.flatnonzero(data.regulators), config
    )
    assert np.isfinite([row.strength, column.strength]).all()
    assert (weights != 0).all()
    effects = [np.ones(mean.shape), np.broadcast_to(row.effect[:, None], mean.shape), np.tile(column.effect, (30, 1))]
    parts = [profile.without_self(torch.tensor(np.array(effect))) for effect in effects]
    assert torch.allclose(sum(w * part for w, part in zip(weights, parts, strict=True)), mean)
    rho = data.ridge.rho

    def loss(w):
        mu = sum(wi * part for wi, part in zip(w, parts, strict=True))
        # Stationary in D: H (mu + D - a) - rho (mu + D) + rho D = 0.
        deviation = profile.start - mu + rho * profile.inverse_hessian(mu)
        b = mu + deviation
        off = b - profile.start
        data_loss = (off * profile.hessian(off)).sum() / 2 - rho * (b**2).sum() / 2
        return float(data_loss + rho * (deviation**2).sum() / 2 + config.lam_mean * rho * (mu**2).sum() / 2)

    least = loss(weights)
    for index in range(3):
        for step in (-0.03, 0.03):
            moved = weights.copy()
            moved[index] *= 1 + step
            assert loss(moved) > least


# On simulated cells ---------------------------------------------------------------------------------------------------


class Case:
    """Simulated cells with a network that follows the embedding; the ridge start is made once."""

    def __init__(self, n_obs, seed):
        adata = datasets.simulate_grn(n_obs=n_obs, n_regulators=30, embedding="informative", seed=seed)
        control = datasets.simulate_grn(n_obs=n_obs, n_regulators=30, embedding="random", seed=seed)
        self.n_obs, self.seed = n_obs, seed
        self.regulators = adata.var["is_regulator"].to_numpy()
        self.truth = adata.varp["truth"].toarray()[self.regulators] > 0
        self.pairs = np.flatnonzero(self.regulators)[:, None] != np.arange(adata.n_vars)
        self.embedding, self.control = adata.varm["embedding"], control.varm["embedding"]
        self.features = reduce_embedding(self.embedding)
        self.ridge = ridge_network(Rows(adata.X), self.regulators, others=10.0, device="cpu")
        self.uninformed = self.fit()

    def fit(self, **options):
        config = ShrinkConfig(**options.pop("config", {}))
        return shrink_network(self.ridge, self.regulators, n_obs=self.n_obs, config=config, device="cpu", **options)

    def auprc(self, weights, pairs=None):
        pairs = self.pairs if pairs is None else pairs
        return metrics.average_precision(np.abs(weights)[pairs], self.truth[pairs])

    def gain(self, features, **options):
        return self.auprc(self.fit(features=features, **options).weights) - self.auprc(self.uninformed.weights)

    def split(self):
        """Genes of which labels are known (three of four regulators and of the others), and labels of their pairs."""
        rng = np.random.default_rng([self.seed, 7])
        seen = np.zeros(len(self.regulators), dtype=bool)
        for side in (self.regulators, ~self.regulators):
            genes = rng.permutation(np.flatnonzero(side))
            seen[genes[: 3 * len(genes) // 4]] = True
        known = seen[self.regulators][:, None] & seen & self.pairs
        unseen = ~seen[self.regulators][:, None] & ~seen & self.pairs
        return np.where(self.truth, 1, -1) * known, unseen, seen


@cache
def case(n_obs, seed):
    return Case(n_obs, seed)


@pytest.mark.parametrize(
    ("n_obs", "bar"),
    [(200, 0.05), *(pytest.param(n, 0.03, marks=pytest.mark.slow) for n in (100, 400, 800))],
)
def test_informative_embeddings_help_and_random_ones_cost_nothing(n_obs, bar):
    cases = [case(n_obs, seed) for seed in range(8)]
    gains = np.array([one.gain(one.features) for one in cases])
    assert gains.mean() >= bar
    assert (gains > 0).sum() >= 7
    costs = np.array([one.gain(reduce_embedding(one.control)) for one in cases])
    assert costs.mean() >= -0.02
    assert costs.min() >= -0.05
    by_mean = [one.auprc(one.fit(features=one.features).mean) for one in cases]
    assert np.mean(by_mean) >= 0.3  # 0.1 by chance
    missing = []
    for one in cases:
        embedding = one.embedding.copy()
        embedding[np.random.default_rng(one.seed).permutation(len(embedding))[::2]] = np.nan
        fit = one.fit(features=reduce_embedding(embedding))
        assert np.isfinite(fit.weights).all()
        missing.append(one.auprc(fit.weights) - one.auprc(one.uninformed.weights))
    assert np.mean(missing) >= 0.4 * gains.mean()


@pytest.mark.parametrize("n_obs", [200, pytest.param(400, marks=pytest.mark.slow)])
def test_known_pairs_do_not_harm_pairs_of_unseen_genes(n_obs):
    changes = []
    for seed in range(8):
        one = case(n_obs, seed)
        labels, unseen, _ = one.split()
        without = one.auprc(one.fit(features=one.features).weights, unseen)
        changes.append(one.auprc(one.fit(features=one.features, labels=labels).weights, unseen) - without)
    assert np.mean(changes) >= -0.01


def test_labels_without_embedding_stay_in_their_columns():
    one = case(200, 0)
    labels, unseen, seen = one.split()
    tight = {"tol": 1e-9, "n_iterations": 20_000}
    informed, uninformed = one.fit(labels=labels, config=tight), one.fit(config=tight)
    assert np.abs(informed.weights - uninformed.weights)[:, ~seen].max() <= 1e-6
    assert np.abs(informed.weights - uninformed.weights)[:, seen].max() > 1e-3
    assert unseen[:, ~seen].any()


def test_labels_reach_unseen_genes_through_the_prior_mean_only():
    """Columns without labels solve the problem with the learned mean and factor 1: nothing else has leaked in."""
    one = case(200, 1)
    labels, _, seen = one.split()
    tight = {"tol": 1e-9, "n_iterations": 20_000}
    fit = one.fit(features=one.features, labels=labels, config=tight)
    assert (fit.scale[:, ~seen] == 1).all()
    assert (fit.edge_probability[:, ~seen] == 0.5).all()
    profile = profile_of(one.ridge, one.regulators)
    mean = torch.from_numpy(fit.mean.astype(np.float64))
    deviation, _ = _solve(profile, mean, torch.ones_like(mean), torch.zeros_like(mean), ShrinkConfig(**tight))
    assert np.abs(fit.weights - (mean + deviation).numpy())[:, ~seen].max() <= 1e-5


def test_labels_of_unseen_genes_are_not_read():
    one = case(200, 2)
    labels, _, seen = one.split()
    rng = np.random.default_rng(0)
    hidden = one.pairs & ~(seen[one.regulators][:, None] & seen)
    other = one.truth.copy()
    other[hidden] = rng.permutation(one.truth[hidden])
    again = np.where(other, 1, -1) * (labels != 0)
    first, second = (one.fit(features=one.features, labels=values).weights for values in (labels, again))
    assert np.array_equal(first, second)


def test_edge_probabilities_are_calibrated_and_doubt_wrong_labels():
    medians, wrong, right = [], [], []
    for seed in range(4):
        one = case(200, seed)
        labels, _, _ = one.split()
        fit = one.fit(features=one.features, labels=labels, config={"sigma_p": 0.5})
        medians.append([np.median(fit.edge_probability[labels == label]) for label in (1, -1, 0)])
        rng = np.random.default_rng(seed)
        flipped = np.where(rng.random(labels.shape) < 0.2, -labels, labels)
        doubted = one.fit(features=one.features, labels=flipped, config={"sigma_p": 0.5}).edge_probability
        wrong.append(doubted[(flipped == 1) & (labels == -1)].mean())
        right.append(doubted[(flipped == 1) & (labels == 1)].mean())
    medians = np.array(medians)
    assert (medians[:, 0] >= 0.9).all()
    assert (medians[:, 1] <= 0.1).all()
    assert (medians[:, 2] == 0.5).all()
    assert (np.array(wrong) < np.array(right)).all()


def correlation(one, fit):
    return np.corrcoef(np.abs(fit.weights[one.pairs]), np.abs(one.uninformed.weights[one.pairs]))[0, 1]


@pytest.mark.parametrize("size", [np.inf, 1e6])
def test_disbelieved_priors_recover_the_uninformed_fit(size):
    one = case(200, 0)
    labels, _, _ = one.split()
    believed = one.fit(features=one.features, labels=labels)
    assert correlation(one, believed) < 0.99
    without_labels = one.fit(labels=labels, config={"sigma_p": size})
    without_embedding = one.fit(features=one.features, config={"lam_mean": size})
    without_both = one.fit(features=one.features, labels=labels, config={"sigma_p": size, "lam_mean": size})
    for fit in (without_labels, without_embedding, without_both):
        assert correlation(one, fit) >= 0.999
    if size == np.inf:
        assert np.array_equal(without_both.weights, one.uninformed.weights)


@pytest.mark.parametrize("prior", ["mean", "scale"])
def test_priors_are_reported_as_used(prior):
    one = case(200, 3)
    labels, _, _ = one.split()
    fit = one.fit(features=one.features, labels=labels, config={"prior": prior})
    assert np.isfinite(fit.weights).all()
    assert (fit.weights[~one.pairs] == 0).all()
    assert fit.target_prediction.explained > 0.2
    unknown = fit.scale[labels == 0]
    if prior == "mean":
        assert (unknown == 1).all()
        assert fit.mean_weights[2] > 0
        expected = fit.mean_weights[0] + fit.mean_weights[1] * fit.regulator_prediction.effect[:, None]
        expected = expected + fit.mean_weights[2] * fit.target_prediction.effect
        assert np.allclose(fit.mean[one.pairs], expected[one.pairs], atol=1e-6)
    else:
        assert (fit.mean == 0).all()
        assert unknown.min() >= 0.25 - 1e-6
        assert unknown.max() <= 4 + 1e-6
        assert unknown.std() > 0.1
    assert np.median(fit.scale[labels == -1]) < 0.2 * np.median(unknown)
    assert np.median(fit.scale[labels == 1]) > 1.5 * np.median(unknown)


def test_a_scale_prior_that_knows_nothing_changes_nothing():
    one = case(200, 0)
    fit = one.fit(features=reduce_embedding(one.control), config={"prior": "scale"})
    assert np.array_equal(fit.weights, one.uninformed.weights)


def test_embeddings_of_no_gene_change_nothing():
    one = case(200, 0)
    fit = one.fit(features=reduce_embedding(np.full((200, 6), np.nan)))
    assert np.array_equal(fit.weights, one.uninformed.weights)
    same = np.ones((200, 6))
    same[~one.regulators] = np.random.default_rng(0).normal(size=(170, 6))  # regulators alike: nothing to tell them by
    assert np.isfinite(one.fit(features=reduce_embedding(same)).weights).all()


@pytest.mark.parametrize("prior", ["mean", "scale"])
def test_permuted_genes_permute_the_result(prior):
    one = case(200, 3)
    labels, _, _ = one.split()
    config = {"prior": prior, "tol": 1e-9, "n_iterations": 20_000}
    fit = one.fit(features=one.features, labels=labels, config=config)
    order = np.random.default_rng(5).permutation(200)
    x = datasets.simulate_grn(n_obs=200, n_regulators=30, embedding="informative", seed=3).X[:, order]
    rows = np.argsort(np.argsort(order)[one.regulators])
    ridge = ridge_network(Rows(x), one.regulators[order], others=10.0, device="cpu")
    moved = shrink_network(
        ridge,
        one.regulators[order],
        n_obs=200,
        features=reduce_embedding(one.embedding[order]),
        labels=labels[np.ix_(rows, order)],
        config=ShrinkConfig(**config),
        device="cpu",
    )
    assert np.abs(moved.weights - fit.weights[np.ix_(rows, order)]).max() <= 1e-6
