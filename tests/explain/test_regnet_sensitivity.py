import re

import numpy as np
import pytest
import torch

from sctrellis.explain import regnet_sensitivity
from sctrellis.explain._regnet_sensitivity import local_responses, local_responses_by_jvp
from sctrellis.models._regnet import RegNet, RegNetConfig, SageLayer
from sctrellis.models._seed import generator

N_GENES, N_KEYS = 40, 10


def model(dtype=torch.float64, *, seed=0, n_layers=2, loops=False, **config):
    """A small model with noise in every parameter, LayerNorm's too, on a graph where some genes stand alone."""
    rng = np.random.default_rng(seed)
    pairs = np.unique(rng.choice(N_KEYS * (N_GENES - 5), 90, replace=False))
    regulator, target = pairs // (N_GENES - 5), pairs % (N_GENES - 5)
    kept = regulator != target
    regulator, target = regulator[kept], target[kept]
    if loops:
        regulator, target = np.append(regulator, [1, 20]), np.append(target, [1, 20])
    built = RegNet(
        torch.from_numpy(rng.normal(size=(N_GENES, 15))).to(dtype),
        torch.from_numpy(regulator),
        torch.from_numpy(target),
        generator("cpu", seed),
        RegNetConfig(hidden=20, latent=5, n_layers=n_layers, **config),
        keys=torch.arange(N_KEYS),
        noise_variance=torch.from_numpy(rng.uniform(0.2, 3, N_GENES)).to(dtype),
    )
    noise = generator("cpu", seed, 1)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=noise))
    return built.to(dtype).eval()


SHAPES = [
    {"direction": d, "aggregator": a, "attn_keys": k}
    for d in ("regulators", "targets", "both")
    for a in ("mlp", "eb")
    for k in ("all", "regulators")
]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "-".join(s.values()))


def latent(net, x, m):
    return net.rest(net.first_layer(x, m), kernel="math")


def first(net):
    with torch.no_grad():
        return net.first_layer(net.features, net.neighbour_mean(net.features))


@every_shape
@pytest.mark.parametrize("n_layers", [1, 2])
def test_local_closed_form_equals_mapped_derivatives(shape, n_layers):
    net = model(n_layers=n_layers, loops=True, **shape)
    h = first(net)
    tangents = torch.randn(2, *h.shape, generator=generator("cpu", 5), dtype=h.dtype)
    with torch.no_grad():
        found = local_responses(net, h, tangents).latent
    expected = local_responses_by_jvp(net, h, tangents)
    assert expected.abs().max() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-10)
    net = net.float()
    with torch.no_grad():
        single = local_responses(net, h.float(), tangents.float()).latent
    scale = expected.norm(dim=-1, keepdim=True)
    assert ((single - expected).abs() / scale).max() < 1e-4


def test_local_closed_form_equals_differences_gene_by_gene():
    net = model()
    h = first(net)
    tangents = torch.randn(1, *h.shape, generator=generator("cpu", 5), dtype=h.dtype)
    with torch.no_grad():
        found, here = local_responses(net, h, tangents).latent[0], net.rest(h)
        for gene in range(N_GENES):
            moved = h.clone()
            moved[gene] += 1e-6 * tangents[0, gene]
            difference = (net.rest(moved) - here)[gene] / 1e-6
            np.testing.assert_allclose(difference, found[gene], rtol=1e-4, atol=1e-4 * found[gene].norm())


def test_chunks_change_nothing(monkeypatch):
    net = model(direction="both")
    whole = regnet_sensitivity(net, depth="stack_local")
    monkeypatch.setattr("sctrellis.explain._regnet_sensitivity._NUMBERS", 200)
    parts = regnet_sensitivity(net, depth="stack_local")
    np.testing.assert_allclose(parts.self_weight, whole.self_weight, atol=1e-12)
    np.testing.assert_allclose(parts.attention_share, whole.attention_share, atol=1e-12)


def test_nothing_of_genes_by_genes_is_kept(monkeypatch):
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        numbers = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            for value in out if isinstance(out, tuple | list) else [out]:
                if isinstance(value, torch.Tensor):
                    self.numbers = max(self.numbers, value.numel())
            return out

    monkeypatch.setattr("sctrellis.explain._regnet_sensitivity._NUMBERS", 2000)
    net = model()
    h = first(net)
    with torch.no_grad(), Largest() as seen:
        local_responses(net, h, torch.ones(2, *h.shape, dtype=h.dtype))
    assert seen.numbers <= 2 * N_GENES * 2 * 20
    assert seen.numbers >= 2 * N_GENES * 20


def test_three_layers_take_the_way_of_mapped_derivatives():
    net = model(n_layers=3)
    h = first(net)
    message = "The closed form holds for at most 2 layers over the graph, found 3."
    with pytest.raises(ValueError, match=re.escape(message)):
        local_responses(net, h, h[None])
    found = regnet_sensitivity(net, depth="stack_local")
    assert found.attention_share is None
    gene = 0
    x, m = net.features, net.neighbour_mean(net.features)
    with torch.no_grad():
        lengths = []
        for dx, dm in ((x - m, 0 * m), (0 * x, x - m)):
            moved, back = (h.clone() for _ in range(2))
            moved[gene] = net.first_layer(x + 1e-6 * dx, m + 1e-6 * dm)[gene]
            back[gene] = net.first_layer(x - 1e-6 * dx, m - 1e-6 * dm)[gene]
            lengths.append((net.rest(moved) - net.rest(back))[gene].norm())
    assert found.self_weight[gene] == pytest.approx(float(lengths[0] / sum(lengths)), rel=1e-4)


@pytest.mark.parametrize("direction", ["regulators", "targets"])
def test_joint_equals_two_sided_differences(direction):
    net = model(direction=direction)
    found = regnet_sensitivity(net, depth="stack_joint")
    x, m = net.features, net.neighbour_mean(net.features)
    a, b = (
        (latent(net, x + 1e-6 * dx, m + 1e-6 * dm) - latent(net, x - 1e-6 * dx, m - 1e-6 * dm)).detach() / 2e-6
        for dx, dm in ((x - m, 0 * m), (0 * x, x - m))
    )
    defined = np.isfinite(found.self_weight)
    expected = a.norm(dim=1) / (a.norm(dim=1) + b.norm(dim=1))
    np.testing.assert_allclose(found.self_weight[defined], expected[defined], atol=1e-4)
    expected = (a * b).sum(dim=1) / (a.norm(dim=1) * b.norm(dim=1))
    np.testing.assert_allclose(found.alignment[defined], expected[defined], atol=1e-4)
    for step in (None, 1e-6):
        differences = regnet_sensitivity(net, depth="stack_joint", method="finite_difference", step=step)
        np.testing.assert_allclose(differences.self_weight, found.self_weight, atol=1e-4)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_the_layer_equals_its_closed_form(dtype, tolerance):
    net = model(dtype)
    found = regnet_sensitivity(net)
    layer = net.sage[0]
    x, m = net.features, net.neighbour_mean(net.features)
    w1, w2 = layer.first.weight.detach(), layer.second.weight.detach()
    on = torch.cat([x, m], dim=1) @ w1.T + layer.first.bias.detach() > 0
    a, b = ((on * ((x - m) @ part.T)) @ w2.T for part in w1.split(x.shape[1], dim=1))
    defined = np.isfinite(found.self_weight)
    expected = a.norm(dim=1) / (a.norm(dim=1) + b.norm(dim=1))
    np.testing.assert_allclose(found.self_weight[defined], expected[defined], atol=tolerance)
    expected = (a * b).sum(dim=1) / (a.norm(dim=1) * b.norm(dim=1))
    np.testing.assert_allclose(found.alignment[defined], expected[defined], atol=10 * tolerance)


@pytest.mark.parametrize("direction", ["regulators", "targets", "both"])
def test_differences_inside_the_region_equal_derivatives(direction):
    net = model(direction=direction)
    exact, inside = regnet_sensitivity(net), regnet_sensitivity(net, method="finite_difference")
    np.testing.assert_allclose(inside.self_weight, exact.self_weight, rtol=1e-4)
    np.testing.assert_allclose(inside.alignment, exact.alignment, atol=1e-4)
    near = exact.region_radius[np.isfinite(exact.region_radius)].min()
    far = regnet_sensitivity(net, method="finite_difference", step=50 * near)
    assert np.nanmax(np.abs(far.self_weight - exact.self_weight)) > 1e-3
    assert np.nanmax(np.abs(regnet_sensitivity(net, method="secant").self_weight - exact.self_weight)) > 1e-3


@pytest.mark.parametrize("direction", ["regulators", "targets", "both"])
@pytest.mark.parametrize("depth", ["layer", "stack_local", "stack_joint"])
def test_genes_without_neighbours_are_undefined(depth, direction):
    net = model(direction=direction)
    found = regnet_sensitivity(net, depth=depth)
    alone = (net.graph.count == 0).numpy()
    assert 0 < alone.sum() < N_GENES
    for values in (found.self_weight, found.alignment, found.region_radius):
        np.testing.assert_array_equal(np.isnan(values), alone)


@pytest.mark.parametrize("depth", ["layer", "stack_local"])
def test_genes_to_which_no_unit_answers_are_undefined(depth):
    net = model()
    with torch.no_grad():
        net.sage[0].first.bias.fill_(-1e6)
    found = regnet_sensitivity(net, depth=depth)
    assert np.isnan(found.self_weight).all()
    assert np.isnan(found.alignment).all()
    assert (found.region_radius[(net.graph.count > 0).numpy()] > 1e3).all()


@pytest.mark.parametrize("direction", ["regulators", "targets", "both"])
def test_an_empirical_bayes_layer_shrinks_by_its_own_weight(direction):
    net = model(direction=direction, aggregator="eb")
    weight = net.sage[0].own_weight(net.graph.count, net.noise_variance).detach().numpy()
    defined = (net.graph.count > 0).numpy()
    assert np.ptp(weight[defined]) > 0.2
    for depth in ("layer", "stack_local"):
        found = regnet_sensitivity(net, depth=depth)
        np.testing.assert_allclose(found.self_weight[defined], weight[defined], atol=1e-12)
        np.testing.assert_allclose(found.alignment[defined], 1, atol=1e-12)


@pytest.mark.parametrize("depth", ["layer", "stack_local", "stack_joint"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_permuted_genes_only_permute(depth, dtype, tolerance):
    net = model(dtype)
    order = np.random.default_rng(3).permutation(N_GENES)
    place = torch.from_numpy(np.argsort(order))
    other = RegNet(
        net.features[order], place[net.regulator], place[net.target], generator("cpu", 0), net.config,
        noise_variance=net.noise_variance[order],
    )  # fmt: skip
    other.load_state_dict(net.state_dict())
    one, moved = (regnet_sensitivity(n.to(dtype), depth=depth) for n in (net, other))
    np.testing.assert_allclose(moved.self_weight, one.self_weight[order], atol=tolerance)
    np.testing.assert_allclose(moved.alignment, one.alignment[order], atol=10 * tolerance)


def test_one_gene_at_a_time_cannot_be_stepped():
    message = "`depth='stack_local'` moves one gene at a time and takes `method='jvp'` only, found 'secant'."
    with pytest.raises(ValueError, match=re.escape(message)):
        regnet_sensitivity(model(), depth="stack_local", method="secant")


def test_an_empirical_bayes_layer_learns_the_conjugate_weight():
    """200 genes x 500 cells from the normal model with known noise; the layer is trained to predict what is behind."""
    rng = np.random.default_rng(0)
    n_genes, n_cells, tau2 = 200, 500, 0.6
    truth = np.tile(np.linspace(0.1, 0.9, 9), 23)[:n_genes]
    noise_variance = tau2 * (1 - truth) / truth
    m = rng.normal(size=(n_genes, n_cells))
    theta = m + np.sqrt(tau2) * rng.normal(size=m.shape)
    x = theta + np.sqrt(noise_variance)[:, None] * rng.normal(size=m.shape)
    x, m, theta, variance = (torch.from_numpy(v) for v in (x, m, theta, noise_variance))
    layer = SageLayer(n_cells, 8, 1, "eb", 0.0, generator("cpu", 0)).double()
    count = torch.ones(n_genes)
    optimiser = torch.optim.Adam([layer.prior, layer.prior_by_count, layer.noise], lr=0.05)
    for _ in range(200):
        w = layer.own_weight(count, variance)[:, None]
        loss = (w * x + (1 - w) * m - theta).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    found = layer.own_weight(count, variance).detach().numpy()
    assert np.abs(found - truth).mean() <= 0.05
    off = np.abs(truth - 0.5) > 0.05
    assert np.abs(found - (1 - truth))[off].mean() >= 0.3  # sigma^2 / (sigma^2 + tau^2) on own data is the wrong way
