"""DeepSEM's loss, start and schedule, each against a plain re-implementation."""

import numpy as np
import pytest
import torch

from sctrellis._core.rows import Rows
from sctrellis.models import DeepSEM, DeepSEMConfig, fit_deepsem
from sctrellis.models._batches import Batches, Standardised
from sctrellis.models._seed import child_seeds, generator

CPU = torch.device("cpu")


def rows(n_obs=70, n_vars=11, *, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.gamma(2.0, size=(n_obs, n_vars))
    x[:, n_vars // 2 :] += x[:, : n_vars - n_vars // 2]
    return Rows(np.log1p(x).astype(np.float32))


def module(n_genes=11, *, seed=0, **config):
    return DeepSEM(n_genes, DeepSEMConfig(**{"n_hidden": 5, **config}), generator(CPU, seed))


def state(model):
    return {name: value.detach().numpy().copy() for name, value in model.state_dict().items()}


def fit(config, **changes):
    data = rows()
    return fit_deepsem(data, np.ones(data.shape[1], bool), config=config, device="cpu", **changes)


def perceptron(x, weights, name):
    """Layers ``x @ W + b`` with tanh between them, in float64."""
    layers = sorted(key for key in weights if key.startswith(f"{name}.weights."))
    for i, layer in enumerate(layers):
        x = x @ weights[layer].astype(float) + weights[layer.replace("weights", "biases")]
        if i < len(layers) - 1:
            x = np.tanh(x)
    return x


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("alpha", "beta"), [(100.0, 1.0), (1.0, 0.01)])
def test_the_loss_is_that_of_the_equations(seed, alpha, beta):
    n_cells, n_genes = 6, 11
    model = module(n_genes, seed=seed, alpha=alpha, beta=beta)
    rng = np.random.default_rng(seed)
    with torch.no_grad():  # away from the start, where biases are 0 and the system is nearly singular
        for parameter in model.parameters():
            parameter += torch.from_numpy(rng.normal(size=tuple(parameter.shape)) * 0.1).float()
    x = rng.normal(size=(n_cells, n_genes)).astype(np.float32)
    with torch.no_grad():
        found = model.losses(torch.from_numpy(x), generator(CPU, 9), 0.3)
    noise = torch.randn(n_cells, n_genes, generator=generator(CPU, 9)).numpy().astype(float)

    w = state(model)
    mixing = np.eye(n_genes)
    network = w["adjacency"].astype(float) * (1 - np.eye(n_genes))
    mixing -= network
    encoded = perceptron(np.stack([np.ones_like(x), x], axis=-1).astype(float), w, "encoder")
    mean, log_variance = encoded[..., 0] @ mixing, encoded[..., 1] @ mixing
    z = mean + noise * np.sqrt(np.exp(log_variance) + 1e-10)
    decoded = perceptron((z @ np.linalg.inv(mixing))[..., None], w, "decoder")[..., 0]
    one = np.ones((1, 1))
    prior_mean = perceptron(one, w, "prior_mean") @ mixing
    prior_variance = np.exp(perceptron(one, w, "prior_log_variance") @ mixing) + 1e-8
    variance = np.exp(log_variance) + 1e-8

    def log_normal(value, centre, spread):
        return -0.5 * np.log(2 * np.pi * spread) - (value - centre) ** 2 / (2 * spread)

    kl = (log_normal(z, mean, variance) - log_normal(z, prior_mean, prior_variance)).mean()
    reconstruction = ((x - decoded) ** 2).mean()
    l1 = np.abs(network).sum() / n_genes**2
    expected = {
        "reconstruction": reconstruction,
        "kl": kl,
        "l1": l1,
        "loss": reconstruction + beta * kl + alpha * l1,
    }
    assert found.keys() == expected.keys()
    for part, value in expected.items():
        assert float(found[part]) == pytest.approx(value, rel=2e-4), part


def test_the_start_is_just_past_the_singular_point():
    n_genes = 400
    model = module(n_genes)
    start = model.weights.detach().numpy()
    off = start[~np.eye(n_genes, dtype=bool)] - 1 / (n_genes - 1)
    assert not np.diag(start).any()
    assert off.min() >= -1e-9
    assert off.max() <= 2e-4 + 1e-9
    # Uniform on (0, 2e-4): quantiles to a standard error of 0.5 / sqrt(160,000).
    np.testing.assert_allclose(
        np.quantile(off, [0.1, 0.25, 0.5, 0.75, 0.9]) / 2e-4, [0.1, 0.25, 0.5, 0.75, 0.9], atol=6e-3
    )
    radius = np.abs(np.linalg.eigvals(start)).max()
    assert radius == pytest.approx(1 + 1e-4 * (n_genes - 1), abs=1e-3)


def test_genes_share_their_networks():
    model = module()
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(4, 11)).astype(np.float32))
    order = torch.from_numpy(np.random.default_rng(1).permutation(11))
    entries = torch.stack([torch.ones_like(x), x], dim=-1)
    assert torch.equal(model.encoder(entries)[:, order], model.encoder(entries[:, order]))
    assert {tuple(p.shape) for n, p in model.named_parameters() if p.shape and p.shape[-1] == 11} == {
        (11, 11),  # the adjacency
        (5, 11),  # and the prior of each gene's latent, the only parts that know which gene it is
        (11,),
    }


def test_epochs_alternate_between_the_networks_and_the_adjacency():
    """One epoch for encoder and decoder is followed by two for the adjacency, and each leaves the other alone."""
    trained = {n: fit(DeepSEMConfig(n_epochs=n, n_hidden=5, lr_decay=1.0)).weights for n in range(1, 8)}
    start = DeepSEM(11, DeepSEMConfig(n_hidden=5), generator(CPU, child_seeds(0, 1)[0], 2**32)).adjacency
    np.testing.assert_array_equal(trained[1]["adjacency"][0], start.detach().numpy())
    for before in range(1, 7):
        moved = {name for name in trained[1] if not np.array_equal(trained[before][name], trained[before + 1][name])}
        if before % 3 == 0:  # epochs 0, 3 and 6 are those of encoder and decoder
            assert moved == set(trained[1]) - {"adjacency"}, before
        else:
            assert moved == {"adjacency"}, before


@pytest.mark.parametrize("run", [0, 1])
def test_training_takes_the_steps_of_two_rmsprops(run):
    """The whole schedule in a plain loop: rates, decay per epoch, state of the optimisers across turns."""
    config = DeepSEMConfig(n_epochs=7, n_hidden=5, batch_size=16, lr=1e-3, lr_adjacency=2e-4, lr_decay=0.8)
    found = fit(config, n_runs=2)

    seed = child_seeds(0, 2)[run]
    model = DeepSEM(11, config, generator(CPU, seed, 2**32))
    batches = Batches(Standardised(rows()), 16, seed, CPU)
    networks = [parameter for name, parameter in model.named_parameters() if name != "adjacency"]
    for_networks = torch.optim.RMSprop(networks, lr=1e-3)
    for_adjacency = torch.optim.RMSprop([model.adjacency], lr=2e-4)
    for epoch in range(7):
        optimiser = for_networks if epoch % 3 == 0 else for_adjacency
        if epoch % 3 == 0:
            optimiser.param_groups[0]["lr"] = 1e-3 * 0.8**epoch
        noise = generator(CPU, seed, epoch)
        for batch in batches.epoch(epoch):
            model.zero_grad()
            model.losses(batch, noise, 0.0)["loss"].backward()
            optimiser.step()
    np.testing.assert_allclose(found.weights["adjacency"][run], model.adjacency.detach().numpy(), rtol=0, atol=1e-7)
    for name, value in model.state_dict().items():
        np.testing.assert_allclose(found.weights[name.replace(".", "_")][run], value.numpy(), rtol=1e-5, atol=1e-6)
    assert found.history["run"] == [0.0] * 7 + [1.0] * 7
    assert all(len(values) == 14 for values in found.history.values())


def test_all_genes_condition_but_only_regulators_are_returned():
    data = rows()
    regulators = np.random.default_rng(3).random(11) < 0.4
    config = DeepSEMConfig(n_epochs=4, n_hidden=5)
    some = fit_deepsem(data, regulators, config=config, device="cpu")
    everyone = fit_deepsem(data, np.ones(11, bool), config=config, device="cpu")
    np.testing.assert_array_equal(some.network, everyone.network[regulators])
    np.testing.assert_array_equal(everyone.network, everyone.weights["adjacency"][0] * (1 - np.eye(11)))
    assert not np.diag(everyone.network).any()
    assert some.std is None


def test_a_stronger_penalty_gives_a_smaller_network():
    sizes = [
        np.abs(fit(DeepSEMConfig(n_epochs=30, n_hidden=5, alpha=alpha, lr_adjacency=1e-3)).network).mean()
        for alpha in (0.0, 10.0, 1000.0)
    ]
    assert sizes[0] > sizes[1] > sizes[2]
