import math

import pytest
import torch

from sctrellis.models import _edge_head as edge_head
from sctrellis.models._edge_head import EdgeHead, mean_probability
from sctrellis.models._seed import generator


def head(dtype=torch.float64):
    return EdgeHead(6, 20, generator("cpu", 0)).to(dtype)


def latent(n=15, dtype=torch.float64, seed=1):
    return torch.randn(n, 6, generator=generator("cpu", seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_products_by_gene_are_those_of_both_vectors_side_by_side(dtype, tolerance, monkeypatch):
    module, mu = head(dtype), latent(dtype=dtype)
    weight = torch.cat([module.regulator.weight, module.target.weight], dim=1)

    def side_by_side(i, j):
        hidden = torch.relu(weight @ torch.cat([mu[i], mu[j]]) + module.target.bias)
        return module.out(hidden).squeeze()

    rows = torch.tensor([2, 5, 9])
    expected = torch.stack([torch.stack([side_by_side(i, j) for j in range(15)]) for i in rows])
    monkeypatch.setattr(edge_head, "_CHUNK", 2 * 15 * 20)  # two regulators at once
    torch.testing.assert_close(module.matrix(mu, rows), expected, rtol=tolerance, atol=tolerance)
    pairs = module(mu, rows.repeat_interleave(15), torch.arange(15).repeat(3)).view(3, 15)
    torch.testing.assert_close(pairs, expected, rtol=tolerance, atol=tolerance)


def test_regulator_and_target_are_not_exchanged():
    module, mu = head(), latent()
    there, back = (module(mu, torch.tensor([i]), torch.tensor([j])).detach() for i, j in ((0, 1), (1, 0)))
    assert there.shape == (1,)  # one pair stays a vector of one
    assert abs(float(there - back)) > 1e-3


@pytest.mark.parametrize("sigma", [0.02, 0.1])
def test_variance_is_that_of_draws(sigma):
    module, mu = head(), latent()
    spread = sigma * (0.5 + torch.rand(15, 6, generator=generator("cpu", 2), dtype=torch.float64) / 2)
    rows = torch.tensor([0, 4])
    found = module.variance(mu, spread.square(), rows)
    noise = generator("cpu", 3)
    draws = torch.stack(
        [
            module.matrix(mu + spread * torch.randn(15, 6, generator=noise, dtype=torch.float64), rows)
            for _ in range(4096)
        ]
    )
    expected = draws.var(0)
    others = torch.ones(2, 15, dtype=torch.bool)
    others[0, 0] = others[1, 4] = False  # a pair of a gene with itself has one draw, not two
    error = ((found - expected).abs() / expected)[others]
    assert float(error.median()) < 0.05
    assert float(error.max()) < 0.3  # a ReLU near 0 is not linear; most pairs have none
    assert float((error < 0.15).double().mean()) > 0.9
    assert float(module.variance(mu, torch.zeros(15, 6, dtype=torch.float64), rows).max()) == 0


def test_mean_probability_is_that_of_draws():
    logits, variance = torch.tensor([-4.0, -1.0, 0.0, 2.0]), torch.tensor([1.0, 4.0, 9.0, 2.0])
    draws = logits + variance.sqrt() * torch.randn(200_000, 4, generator=generator("cpu", 0))
    torch.testing.assert_close(mean_probability(logits, variance), torch.sigmoid(draws).mean(0), rtol=0, atol=0.02)
    torch.testing.assert_close(mean_probability(logits, torch.zeros(4)), torch.sigmoid(logits))
    assert math.isclose(float(mean_probability(torch.tensor(0.0), torch.tensor(5.0))), 0.5)
