import numpy as np
import pytest
import torch
from torch import nn

from sctrellis.explain import alignment, moves, region_radius, responses, self_weight

F64 = torch.float64


def points(n=30, f=6, n_means=1, seed=0, dtype=F64):
    generator = torch.Generator().manual_seed(seed)
    x, m = (torch.randn(n, k * f, generator=generator, dtype=dtype) for k in (1, n_means))
    present = torch.ones(n, n_means, dtype=torch.bool)
    return x, m, present


def matrix(*shape, seed=1, dtype=F64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def split(layer, at, **kwargs):
    own, neighbours = responses(layer, at, **kwargs)
    return self_weight(own, neighbours).numpy(), alignment(own, neighbours).numpy()


@pytest.mark.parametrize("method", ["jvp", "finite_difference", "secant"])
def test_a_linear_mixture_has_its_own_weight(method):
    at = moves(*points())
    w, mixing = torch.linspace(0.02, 0.98, 30, dtype=F64)[:, None], matrix(6, 4)
    weight, angle = split(lambda x, m: (w * x + (1 - w) * m) @ mixing, at, method=method, way=0.5)
    np.testing.assert_allclose(weight, w[:, 0], atol=1e-12)
    np.testing.assert_allclose(angle, 1, atol=1e-12)


def test_whatever_follows_a_mixture_does_not_matter():
    at = moves(*points())
    w, mixing = torch.linspace(0.02, 0.98, 30, dtype=F64)[:, None], matrix(6, 4)

    def layer(x, m):
        h = torch.tanh((w * x + (1 - w) * m) @ mixing)
        return nn.functional.layer_norm(torch.sin(3 * h), (4,))

    weight, angle = split(layer, at)
    np.testing.assert_allclose(weight, w[:, 0], atol=1e-10)
    np.testing.assert_allclose(angle, 1, atol=1e-10)


def test_a_contrast_is_told_from_a_mixture_by_the_alignment_alone():
    at = moves(*points())
    weight, angle = split(lambda x, m: x - m, at)
    np.testing.assert_allclose(weight, 0.5, atol=1e-12)
    np.testing.assert_allclose(angle, -1, atol=1e-12)


def test_the_other_shape_of_the_posterior_mean_is_noticed():
    # The weight is that of own data, tau^2 / (tau^2 + sigma^2); its complement is the shrinkage.
    tau2, sigma2 = torch.linspace(0.1, 0.9, 30, dtype=F64)[:, None], torch.linspace(0.9, 0.1, 30, dtype=F64)[:, None]
    w = tau2 / (tau2 + sigma2)
    weight, _ = split(lambda x, m: w * x + (1 - w) * m, moves(*points()))
    np.testing.assert_allclose(weight, w[:, 0], atol=1e-12)
    assert np.abs(weight - (sigma2 / (tau2 + sigma2))[:, 0].numpy())[np.abs(w[:, 0] - 0.5) > 0.15].min() > 0.3


def test_two_means_weighed_alike_are_one_mixture():
    x, m, present = points(n_means=2)
    present[:10, 0], present[10:20, 1] = False, False
    # As in the model, the gene's own row stands in for a mean over nothing.
    m = torch.where(present.repeat_interleave(6, dim=1), m, x.repeat(1, 2))
    mixing = matrix(6, 4)

    def layer(x, m):
        return (0.4 * x + 0.3 * m[:, :6] + 0.3 * m[:, 6:]) @ mixing

    weight, angle = split(layer, moves(x, m, present))
    np.testing.assert_allclose(weight, [0.7] * 20 + [0.4] * 10, atol=1e-12)
    np.testing.assert_allclose(angle, 1, atol=1e-12)


def test_without_neighbours_or_with_nothing_to_answer_it_is_undefined():
    x, m, present = points(n=4)
    m[0] = x[0]  # a gene whose neighbours' mean is its own profile
    present[1] = False
    at = moves(x, m, present)
    alive = torch.tensor([1.0, 1.0, 0.0, 1.0], dtype=F64)[:, None]
    own, neighbours = responses(lambda x, m: alive * x + 0 * m, at)
    assert np.isnan(self_weight(own, neighbours)).tolist() == [True, True, True, False]
    assert np.isnan(alignment(own, neighbours)).all()
    assert self_weight(own, neighbours)[3] == 1
    assert np.isnan(region_radius(lambda x, m: x + m, at)).tolist() == [True, True, False, False]


def perceptron(dtype=F64, f=6, hidden=16):
    """A layer with a hidden ReLU, as RegNet's, and its parts."""
    w1, b1, w2 = matrix(hidden, 2 * f, dtype=dtype), matrix(hidden, seed=2, dtype=dtype), matrix(5, hidden, dtype=dtype)

    def hidden_argument(x, m):
        return torch.cat([x, m], dim=1) @ w1.T + b1

    return lambda x, m: torch.relu(hidden_argument(x, m)) @ w2.T, hidden_argument, (w1, b1, w2)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (F64, 1e-12)])
def test_derivatives_equal_the_closed_form(dtype, tolerance):
    at = moves(*points(dtype=dtype))
    layer, hidden, (w1, _, w2) = perceptron(dtype)
    weight, angle = split(layer, at)
    on = hidden(at.x, at.m) > 0
    delta = at.x - at.m
    a, b = ((on * (delta @ part.T)) @ w2.T for part in w1.split(6, dim=1))
    np.testing.assert_allclose(weight, a.norm(dim=1) / (a.norm(dim=1) + b.norm(dim=1)), atol=tolerance)
    expected = (a * b).sum(dim=1) / (a.norm(dim=1) * b.norm(dim=1))
    np.testing.assert_allclose(angle, expected, atol=tolerance)


def test_differences_are_exact_inside_the_region_and_not_across_its_border():
    at = moves(*points(n=200))
    layer, hidden, _ = perceptron()
    radius, length = region_radius(hidden, at), (at.x - at.m).norm(dim=1)
    exact, _ = split(layer, at)
    inside, _ = split(layer, at, method="finite_difference", way=0.5 * radius / length)
    np.testing.assert_allclose(inside, exact, rtol=1e-4)
    # The radius is tight: some unit changes its side just beyond it, and none before, both ways.
    here = hidden(at.x, at.m) > 0
    for reach, same in ((0.999, True), (1.001, False)):
        t = (reach * radius / length)[:, None]
        delta = t * (at.x - at.m)
        stays = [
            ((hidden(at.x + s * delta, at.m) > 0) == here).all(dim=1)
            & ((hidden(at.x, at.m + s * delta) > 0) == here).all(dim=1)
            for s in (1, -1)
        ]
        assert bool((stays[0] & stays[1]).eq(same).all())


def test_a_kink_misleads_differences_and_not_derivatives():
    # Unit 0 is 0.005 below its kink for every gene: the step of 0.01 crosses it, the derivative knows only this side.
    x, m = torch.tensor([[0.0, 0.0]], dtype=F64), torch.tensor([[-1.0, 0.0]], dtype=F64)
    at = moves(x, m, torch.ones(1, 1, dtype=torch.bool))

    def layer(x, m):
        return torch.stack([torch.relu(x[:, 0] - 0.005) * 10 + x[:, 0], m[:, 0]], dim=1)

    exact, _ = split(layer, at)
    crossed, _ = split(layer, at, method="finite_difference", way=0.01)
    assert exact == pytest.approx(0.5, abs=1e-12)
    assert abs(crossed - exact) > 1e-3
    assert region_radius(lambda x, m: x - 0.005, at).item() == pytest.approx(0.005)


def test_the_radius_without_a_kink_is_infinite():
    at = moves(*points())
    assert torch.isinf(region_radius(lambda x, m: torch.ones(len(x), 2, dtype=F64) + 0 * x[:, :2], at)).all()


def test_the_secant_goes_the_whole_way():
    at = moves(*points())
    layer, _, _ = perceptron()
    own, neighbours = responses(layer, at, "secant")
    np.testing.assert_allclose(own, layer(at.x, at.m) - layer(at.m, at.m), atol=1e-12)
    np.testing.assert_allclose(neighbours, layer(at.x, at.x) - layer(at.x, at.m), atol=1e-12)
