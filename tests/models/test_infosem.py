"""InfoSEM: the variational stage starts at the convex optimum, stays solvable, and is what its parts say."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from sctrellis import datasets
from sctrellis._core.rows import Rows
from sctrellis.models import (
    InfoSEM,
    InfoSEMConfig,
    ShrinkConfig,
    fit_infosem,
    reduce_embedding,
    ridge_network,
    shrink_network,
    spectral_radius,
)
from sctrellis.models._batches import Batches, Standardised
from sctrellis.models._infosem import _all_genes, _regulators_only
from sctrellis.models._seed import child_seeds, generator
from sctrellis.models._train import Phase, TrainConfig, train

CPU = torch.device("cpu")
N_VARS = 26


def simulated(n_obs=300, n_vars=N_VARS, n_regulators=7, *, seed=1):
    """Cells whose embedding predicts the network well enough to be used, and labels of a third of the pairs."""
    adata = datasets.simulate_grn(
        n_obs, n_vars, n_regulators, density=0.2, embedding="informative", n_dims=3, prior_strength=1.0, seed=seed
    )
    regulators = adata.var["is_regulator"].to_numpy()
    rng = np.random.default_rng(seed)
    labels = np.where(adata.varp["truth"].toarray()[regulators] > 0, 1, -1)
    labels[rng.random(labels.shape) > 0.3] = 0
    labels[np.arange(len(labels)), np.flatnonzero(regulators)] = 0
    return Rows(adata.X), regulators, adata.varm["embedding"], labels.astype(np.int8)


def begin(data, regulators, *, embedding=None, labels=None, rho=0.5, others=1.0, **config):
    """The convex stage and the start of the variational stage in which all genes condition."""
    full = ridge_network(data, regulators, rho=rho, others=others, device="cpu", full=True)
    ridge = ridge_network(data, regulators, rho=rho, others=others, device="cpu")
    shrunk = shrink_network(
        ridge,
        regulators,
        n_obs=data.shape[0],
        features=None if embedding is None else reduce_embedding(embedding),
        labels=labels,
        config=ShrinkConfig(**{"lam": 0.0, "n_iterations": 20_000, "tol": 1e-12, **config}),
        device="cpu",
    )
    return ridge, shrunk, _all_genes(full, shrunk, regulators, CPU)


def module(start, **config):
    arrays = (start.start, start.positions, start.centre, start.penalty)
    return InfoSEM(*map(torch.from_numpy, arrays), InfoSEMConfig(**{"n_hidden": 4, **config}), generator(CPU, 0))


def standardised(data):
    return torch.from_numpy(Standardised(data).take(slice(None)))


PRIORS = {
    "none": {},
    "others": {"others": 10.0},
    "embedding": {"embedding": True},
    "scale": {"embedding": True, "prior": "scale"},
    "known": {"labels": True},
    "both": {"embedding": True, "labels": True, "others": 10.0},
}


@pytest.fixture(params=PRIORS.values(), ids=PRIORS)
def started(request):
    data, regulators, embedding, labels = simulated()
    options = dict(request.param)
    if options.pop("embedding", False):
        options["embedding"] = embedding
    if options.pop("labels", False):
        options["labels"] = labels
    return data, regulators, options, *begin(data, regulators, **options)


def test_the_start_solves_the_penalised_regression_of_every_gene(started):
    data, regulators, options, ridge, shrunk, start = started
    z = standardised(data).numpy().astype(float)
    covariance = z.T @ z / len(z)
    penalty = np.full((N_VARS, N_VARS), ridge.rho * options.get("others", 1.0))
    penalty[regulators] = ridge.rho / shrunk.scale.astype(float) ** 2
    centre = np.zeros((N_VARS, N_VARS))
    centre[regulators] = shrunk.scale.astype(float) * shrunk.mean
    if "embedding" in options:  # or there would be nothing to see
        assert np.ptp(shrunk.mean) > 1e-3 or np.ptp(shrunk.scale) > 0.1
    for target in range(N_VARS):
        rest = np.arange(N_VARS) != target
        system = covariance[np.ix_(rest, rest)] + np.diag(penalty[rest, target])
        solution = np.linalg.solve(system, covariance[rest, target] + penalty[rest, target] * centre[rest, target])
        np.testing.assert_allclose(start.start[rest, target], solution, rtol=0, atol=2e-6)
    assert not np.diag(start.start).any()
    np.testing.assert_array_equal(start.start[regulators], shrunk.weights)


def test_with_identity_networks_the_convex_optimum_is_stationary(started):
    data, *_, start = started
    model = module(start).eval()
    cells = standardised(data)
    losses = model.losses(cells, generator(CPU, 0), 1.0)
    (slope,) = torch.autograd.grad(losses["kl"] + losses["penalty"], model.adjacency)
    with torch.no_grad():  # the same elsewhere, for scale
        model.adjacency.mul_(0.5)
    losses = model.losses(cells, generator(CPU, 0), 1.0)
    (elsewhere,) = torch.autograd.grad(losses["kl"] + losses["penalty"], model.adjacency)
    assert float(slope.abs().max()) <= 1e-4 * float(elsewhere.abs().max())


def test_the_untrained_module_is_the_identity():
    data, regulators, *_ = simulated()
    model = module(begin(data, regulators)[-1]).eval()
    cells = standardised(data)
    with torch.no_grad():
        for network in (model.log_variance, model.encoder, model.decoder):
            assert not network(cells.unsqueeze(-1)).any()
        model.log_variance.biases[-1].fill_(-1e9)  # clamped: the least noise there is, e^-3 of a standard deviation
        quiet = model.losses(cells, generator(CPU, 0), 1.0)
        # x + e (I - A)^-1, so the error is that of the noise through the system.
        mixing = torch.linalg.inv(torch.eye(N_VARS) - model.weights)
        noise = torch.randn(cells.shape, generator=generator(CPU, 0)) * np.exp(-3.0)
        np.testing.assert_allclose(float(quiet["reconstruction"]), float(((noise @ mixing) ** 2).mean()), rtol=1e-4)
        z = cells @ (torch.eye(N_VARS) - model.weights)
        expected = 0.5 * (float((z**2).mean()) + np.exp(-6.0) + 6.0 - 1.0)
        assert float(quiet["kl"]) == pytest.approx(expected, rel=1e-5)


def test_the_loss_weighs_its_parts():
    data, regulators, *_ = simulated()
    model = module(begin(data, regulators)[-1], beta=0.7).eval()
    cells = standardised(data)
    with torch.no_grad():
        for progress, ramp in ((0.0, 0.1), (0.15, 0.6), (0.3, 1.0), (1.0, 1.0)):
            parts = {name: float(value) for name, value in model.losses(cells, generator(CPU, 0), progress).items()}
            expected = parts["reconstruction"] + 0.7 * ramp * (parts["kl"] + parts["penalty"])
            assert parts["loss"] == pytest.approx(expected, rel=1e-5)


def test_the_scale_of_the_encoder_cannot_weaken_or_strengthen_the_penalty():
    data, regulators, *_ = simulated()
    model = module(begin(data, regulators)[-1]).train()
    cells = standardised(data)
    with torch.no_grad():
        once, thrice = (model.losses(factor * cells, generator(CPU, 0), 1.0)["kl"] for factor in (1.0, 3.0))
    assert float(once) == pytest.approx(float(thrice), rel=1e-4)


def test_training_reaches_every_parameter_but_no_gene_on_itself():
    data, regulators, *_ = simulated()
    model = module(begin(data, regulators)[-1])
    before = {name: value.clone() for name, value in model.named_parameters()}
    train(model, Batches(Standardised(data), 100, 0, CPU), plan(3))
    for name, value in model.named_parameters():
        assert bool((value != before[name]).any()), name
    assert not torch.diag(model.weights).any()


def plan(n_epochs):
    phase = Phase(name="variational stage", n_epochs=n_epochs, cycle=(("networks", "adjacency"),))
    return TrainConfig(phases=(phase,), clip_norm=1.0)


@pytest.mark.parametrize("kind", ["all", "regulators"])
def test_a_start_past_the_singular_point_comes_back(kind):
    """Acceptance check 29."""
    data, regulators, *_ = simulated(200)
    ridge, shrunk, start = begin(data, regulators, rho=0.1)
    if kind == "regulators":
        start = _regulators_only(ridge, shrunk, regulators)
    rng = np.random.default_rng(0)
    weights = rng.normal(size=start.start.shape).astype(np.float32)
    weights[np.arange(len(weights)), start.positions] = 0
    weights *= np.float32(1.2 / np.abs(np.linalg.eigvals(weights[:, start.positions])).max())
    model = module(start)
    with torch.no_grad():
        model.adjacency.copy_(torch.from_numpy(weights))
    assert spectral_radius(model.weights, model.positions) == pytest.approx(1.2, rel=0.1)
    radii = []

    def on_epoch_end(_epoch, means):
        assert np.isfinite(list(means.values())).all()
        radii.append(np.abs(np.linalg.eigvals(model.weights.detach().numpy()[:, start.positions])).max())

    train(model, Batches(Standardised(data), 50, 0, CPU), plan(50), on_epoch_end=on_epoch_end)
    assert len(radii) == 50
    assert max(radii[1:]) < 1
    assert radii[-1] < 1


def fit(data, regulators, **changes):
    config = changes.pop("config", InfoSEMConfig(rho=1.0, others=1.0, n_epochs=6, n_hidden=4))
    return fit_infosem(data, regulators, config=config, device="cpu", **changes)


@pytest.mark.parametrize("conditioning", ["all", "regulators"])
def test_an_ensemble_is_the_mean_of_runs_with_child_seeds(conditioning):
    data, regulators, embedding, labels = simulated()
    given = {"embedding": embedding, "labels": labels, "conditioning": conditioning, "seed": 5}
    three = fit(data, regulators, n_runs=3, **given)
    rows = np.flatnonzero(regulators) if conditioning == "all" else np.arange(regulators.sum())
    networks = three.weights["adjacency"][:, rows].copy()
    networks[:, np.arange(len(rows)), np.flatnonzero(regulators)] = 0
    np.testing.assert_allclose(three.network, networks.mean(0), rtol=0, atol=1e-7)
    np.testing.assert_allclose(three.std, networks.std(0), rtol=0, atol=1e-7)
    assert three.std.max() > 0
    # The runs are those of the child seeds, and the first ones do not depend on how many there are.
    for n in (1, 2):
        fewer = fit(data, regulators, n_runs=n, **given)
        for name, value in fewer.weights.items():
            np.testing.assert_array_equal(value, three.weights[name][:n])
    assert len(set(child_seeds(5, 3))) == 3
    assert not np.array_equal(networks[0], networks[1])
    np.testing.assert_array_equal(three.stages["deep"], three.network)


def test_a_run_is_one_call_of_the_loop():
    """Run 1 of an ensemble, by hand from the parts."""
    data, regulators, embedding, labels = simulated()
    config = InfoSEMConfig(rho=0.5, others=1.0, n_epochs=5, n_hidden=4, steps_per_epoch=2, batch_size=50)
    found = fit(data, regulators, embedding=embedding, labels=labels, config=config, n_runs=2)
    full = ridge_network(data, regulators, rho=0.5, device="cpu", full=True)
    ridge = ridge_network(data, regulators, rho=0.5, device="cpu")
    features = reduce_embedding(embedding)
    shrunk = shrink_network(ridge, regulators, n_obs=data.shape[0], features=features, labels=labels, device="cpu")
    seed = child_seeds(0, 2)[1]
    start = _all_genes(full, shrunk, regulators, CPU)
    arrays = (start.start, start.positions, start.centre, start.penalty)
    model = InfoSEM(*map(torch.from_numpy, arrays), config, generator(CPU, seed, 2**32))
    train(model, Batches(Standardised(data), 50, seed, CPU, max_batches=2), plan(5))
    np.testing.assert_allclose(found.weights["adjacency"][1], model.adjacency.detach().numpy(), rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.stages["convex"], shrunk.weights, rtol=0, atol=1e-7)
    np.testing.assert_allclose(found.stages["ridge"], ridge.weights, rtol=0, atol=1e-7)
    np.testing.assert_allclose(found.parts["prior_mean"], shrunk.mean, rtol=0, atol=1e-7)
    np.testing.assert_allclose(found.parts["edge_probability"], shrunk.edge_probability, rtol=0, atol=1e-7)


def test_seeds_agree():
    """Acceptance check 28: equal seeds give equal bytes, others nearly the same network.

    Ranks are compared where the convex stage keeps a coefficient: it sets the others to 0, one tie, and the
    variational stage leaves them in the order of its noise.
    """
    adata = datasets.simulate_grn(300, 60, 12)
    data, regulators = Rows(adata.X), adata.var["is_regulator"].to_numpy()
    given = {"config": InfoSEMConfig(), "device": "cpu"}
    fits = [fit_infosem(data, regulators, seed=seed, **given) for seed in (0, 0, 1)]
    one, again, other = (np.abs(fit.network) for fit in fits)
    assert one.tobytes() == again.tobytes()
    assert not np.array_equal(one, other)
    kept = np.logical_and(*(fit.stages["convex"] != 0 for fit in fits[1:]))
    assert spearmanr(one[kept], other[kept]).statistic >= 0.95
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] >= 0.995


def test_no_epochs_end_with_the_convex_stage():
    data, regulators, embedding, labels = simulated()
    config = InfoSEMConfig(rho=0.5, others=1.0, n_epochs=0)
    found = fit(data, regulators, embedding=embedding, labels=labels, config=config)
    deep = fit(
        data, regulators, embedding=embedding, labels=labels, config=InfoSEMConfig(rho=0.5, others=1.0, n_epochs=1)
    )
    np.testing.assert_array_equal(found.network, found.stages["convex"])
    # Which genes' coefficients are computed changes the last bits of a float64 product, no more.
    np.testing.assert_allclose(found.network, deep.stages["convex"], rtol=0, atol=1e-6)
    assert list(found.stages) == ["ridge", "convex"]
    assert list(deep.stages) == ["ridge", "convex", "deep"]
    assert not np.array_equal(deep.network, deep.stages["convex"])
    assert found.history == {}


def test_auto_conditions_on_all_genes_of_a_small_data_set():
    data, regulators, *_ = simulated()
    by_name = {name: fit(data, regulators, conditioning=name) for name in ("auto", "all", "regulators")}
    np.testing.assert_array_equal(by_name["auto"].network, by_name["all"].network)
    assert by_name["auto"].info["conditioning"] == "all"
    assert by_name["regulators"].info["conditioning"] == "regulators"
    assert by_name["all"].weights["adjacency"].shape == (1, N_VARS, N_VARS)
    assert by_name["regulators"].weights["adjacency"].shape == (1, regulators.sum(), N_VARS)
    # Both start from the same network, in which all genes condition.
    np.testing.assert_allclose(by_name["all"].stages["convex"], by_name["regulators"].stages["convex"], atol=1e-6)


def test_an_interrupted_fit_resumes_as_if_nothing_had_happened(tmp_path):
    data, regulators, embedding, labels = simulated()
    config = InfoSEMConfig(rho=1.0, others=1.0, n_epochs=25, n_hidden=4)
    given = {"embedding": embedding, "labels": labels, "config": config, "n_runs": 2}
    whole = fit(data, regulators, **given)
    seen = []

    def stop(epoch, _means):
        seen.append(epoch)
        if len(seen) == 25 + 14:  # in the second run, four epochs after its checkpoint
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(data, regulators, checkpoint=tmp_path / "c", on_epoch_end=stop, **given)
    after = []
    resumed = fit(
        data, regulators, checkpoint=tmp_path / "c", on_epoch_end=lambda epoch, _: after.append(epoch), **given
    )
    assert after == list(range(10, 25))
    assert resumed.history == whole.history
    for name, value in whole.weights.items():
        np.testing.assert_array_equal(resumed.weights[name], value)
    with pytest.raises(ValueError, match="another fit"):
        fit(data, regulators, checkpoint=tmp_path / "c", **{**given, "labels": -labels})
    with pytest.raises(ValueError, match="another fit"):
        fit(data, regulators, checkpoint=tmp_path / "c", seed=1, **given)
