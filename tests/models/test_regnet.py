import numpy as np
import pytest
import torch
from torch.func import jvp, vmap

from sctrellis.models._regnet import RegNet, RegNetConfig, load_regnet
from sctrellis.models._seed import generator

N, F = 40, 7
CONFIGS = [
    RegNetConfig(hidden=10, latent=5, direction=direction, aggregator=aggregator, n_layers=n_layers)
    for direction in ("regulators", "targets", "both")
    for aggregator in ("mlp", "eb")
    for n_layers in (1, 2)
]
every_config = pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.direction}-{c.aggregator}-{c.n_layers}")


def model(config, dtype=torch.float64, **options):
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(N, F)).astype(np.float32))
    regulator, target = torch.from_numpy(rng.integers(0, 10, 60)), torch.from_numpy(rng.integers(0, N - 3, 60))
    return RegNet(x, regulator, target, generator("cpu", 0), config, **options).to(dtype).eval()


@every_config
def test_the_parts_make_the_whole(config):
    net = model(config)
    x = net.features
    h = net.first_layer(x, net.neighbour_mean(x))
    encoding = net.encode()
    torch.testing.assert_close(net.rest(h), encoding.mu, rtol=0, atol=1e-14)
    torch.testing.assert_close(net.rest(h, kernel="math"), encoding.mu, rtol=1e-10, atol=1e-12)
    assert torch.equal(net.encode(x, net.graph).mu, encoding.mu)
    entropy = net.entropy(encoding)
    assert ((entropy >= 0) & (entropy <= 1 + 1e-12)).all()


@every_config
def test_rows_of_the_first_layer_do_not_mix(config):
    net = model(config)
    x = net.features
    m = net.neighbour_mean(x)
    whole = net.first_layer(x, m)
    x_changed, m_changed = x.clone(), m.clone()
    x_changed[3] += 1
    m_changed[5] -= 1
    changed = (net.first_layer(x_changed, m_changed) - whole).abs().sum(1) > 0
    assert changed.nonzero().ravel().tolist() == [3, 5]


def test_stages_of_the_first_layer():
    net = model(CONFIGS[0])
    x, layer = net.features, net.sage[0]
    m = net.neighbour_mean(x)
    pre, relu, out = (net.first_layer(x, m, stage=stage) for stage in ("pre", "relu", "out"))
    inside = torch.cat([x, m], dim=1) @ layer.first.weight.T + layer.first.bias
    torch.testing.assert_close(pre, torch.relu(inside) @ layer.second.weight.T + layer.second.bias)
    assert torch.equal(relu, torch.relu(pre))
    torch.testing.assert_close(out, torch.nn.functional.layer_norm(relu, (10,)))


@every_config
def test_permuted_genes_permute_the_result(config):
    net = model(config)
    order = torch.from_numpy(np.random.default_rng(1).permutation(N))
    place = torch.argsort(order)
    other = RegNet(net.features[order], place[net.regulator], place[net.target], generator("cpu", 0), config).double()
    other.load_state_dict(net.state_dict())
    found, expected = other.encode(), net.encode()
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two[order], rtol=0, atol=1e-10)
    rows = torch.arange(6)
    torch.testing.assert_close(
        other.head.matrix(found.mu, place[rows]), net.head.matrix(expected.mu, rows)[:, order], rtol=0, atol=1e-10
    )


@every_config
def test_forward_derivatives_and_maps_go_through(config):
    net = model(config)
    x = net.features
    m = net.neighbour_mean(x)
    h = net.first_layer(x, m)
    tangents = torch.randn(3, *h.shape, generator=generator("cpu", 2), dtype=h.dtype)
    found = vmap(lambda t: jvp(lambda u: net.rest(u, kernel="math"), (h,), (t,))[1])(tangents)
    step = 1e-6
    for one, tangent in zip(found, tangents, strict=True):
        expected = (net.rest(h + step * tangent) - net.rest(h - step * tangent)) / (2 * step)
        torch.testing.assert_close(one, expected, rtol=1e-4, atol=1e-6)


def test_dropout_takes_its_noise_from_the_generator_only():
    net = model(CONFIGS[1]).train()  # without a generator training mode changes nothing
    still = net.encode().mu
    assert torch.equal(net.encode().mu, still)
    once, again = (net.encode(noise=generator("cpu", 5)).mu for _ in range(2))
    assert torch.equal(once, again)
    assert not torch.equal(once, still)


def test_the_weight_of_own_features_is_that_of_the_posterior_mean():
    """tau^2 / (tau^2 + sigma^2) on what was measured: more noise, less weight; more neighbours, less weight."""
    config = RegNetConfig(hidden=10, latent=5, aggregator="eb", n_layers=1)
    variance = torch.linspace(0.5, 2, N)
    net = model(config, noise_variance=variance)
    layer, count = net.sage[0], net.graph.count
    with torch.no_grad():
        layer.prior.fill_(0.3)
        layer.prior_by_count.fill_(-0.2)
        layer.noise.fill_(0.7)
    softplus = np.log1p(np.exp([0.3, -0.2, 0.7]))
    n = np.maximum(count.numpy(), 1)
    tau2, sigma2 = softplus[0] + softplus[1] / n, softplus[2] * variance.double().numpy()
    found = layer.own_weight(count, net.noise_variance).detach().numpy()
    np.testing.assert_allclose(found, tau2 / (tau2 + sigma2), rtol=1e-12)
    x = net.features
    m = net.neighbour_mean(x)
    own = torch.from_numpy(found)[:, None]
    mixed = own * x + (1 - own) * m
    same = net.first_layer(mixed, mixed, stage="pre")  # both alike: the weight has no say
    torch.testing.assert_close(net.first_layer(x, m, stage="pre"), same)


def test_attention_to_regulators_only():
    config = RegNetConfig(hidden=10, latent=5, attn_keys="regulators")
    keys = torch.tensor([0, 4, 9])
    net = model(config, keys=keys)
    encoding = net.encode()
    torch.testing.assert_close(net.attention(encoding.attended, keys).gate, encoding.gate)
    everyone = model(RegNetConfig(hidden=10, latent=5), keys=keys)
    everyone.load_state_dict(net.state_dict())
    assert not torch.allclose(everyone.encode().mu, encoding.mu)
    with pytest.raises(ValueError, match="`keys` is None, and `attn_keys='regulators'` needs"):
        model(config)


@pytest.mark.parametrize("options", [{}, {"keys": torch.tensor([1, 2]), "noise_variance": torch.linspace(0.5, 2, N)}])
def test_a_model_is_rebuilt_from_its_arrays(options):
    config = RegNetConfig(
        hidden=10, latent=5, aggregator="eb", attn_keys="regulators" if options else "all", direction="both"
    )
    net = model(config, torch.float32, **options)
    again = load_regnet(net.arrays(), {**config.__dict__, "unknown": 1})
    assert not again.training
    assert torch.equal(again.encode().mu, net.encode().mu)
    assert torch.equal(
        again.head.matrix(again.encode().mu, torch.arange(4)), net.head.matrix(net.encode().mu, torch.arange(4))
    )
    arrays = net.arrays()
    arrays.pop("state.mean.bias")
    with pytest.raises(ValueError, match=r"`weights` are not those of a RegNet of this `config`: .*mean.bias"):
        load_regnet(arrays, config)
    with pytest.raises(ValueError, match="`weights` are not those of a RegNet"):
        load_regnet(net.arrays(), RegNetConfig(hidden=11, latent=5, aggregator="eb"))
    with pytest.raises(ValueError, match="`weights` are not those of a RegNet"):
        load_regnet({"adjacency": np.eye(3)}, config)
