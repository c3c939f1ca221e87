"""Baselines measure what they say: slopes, first-order changes, exact effects, Shapley values."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from gates import SCENARIOS, lay_out, objective, states

from sctrellis.explain import attribute, subset_search
from sctrellis.explain._attribution import ATTRIBUTION_METHODS, _noisy


def oracle(kinds=SCENARIOS["A"][1], n_tasks=2, n_elements=12, **options):
    gates = lay_out(kinds)
    tasks = [(gates, states(gates, n_elements, 150, p_open=0.75, seed=s)) for s in range(n_tasks)]
    return objective(tasks, **options), gates, [x for _, x in tasks]


@pytest.mark.parametrize("method", ATTRIBUTION_METHODS)
def test_every_method_gives_legal_sets_and_their_losses(method):
    goal, *_ = oracle()
    goal.legal[0, :2] = False
    found = attribute(goal, 3, method, n_permutations=8)
    assert found.index.shape == (2, 20 if method == "random" else 1, 3)
    assert found.score.isnan()[0].tolist() == [True, True] + [False] * 10
    torch.testing.assert_close(goal.evaluate(found.index), found.loss)
    torch.testing.assert_close(found.before, goal.loss(goal.pre[:, None])[:, 0])
    for task, sets in enumerate(found.index.tolist()):
        assert all(len(set(chosen)) == 3 and goal.legal[task, chosen].all() for chosen in sets)
    if method not in ("random", "greedy"):
        best = found.score.nan_to_num(-torch.inf).topk(3).values
        torch.testing.assert_close(found.score.gather(1, found.index[:, 0]), best)
    again = attribute(goal, 3, method, n_permutations=8)
    assert torch.equal(again.index, found.index)
    alone, *_ = oracle(n_tasks=1)
    alone.legal[0, :2] = False
    assert torch.equal(attribute(alone, 3, method, n_permutations=8).index[0], found.index[0])


def test_grad_x_input_is_the_first_proposal_of_the_search():
    goal, *_ = oracle()
    _, d = goal.first_order(goal.pre[:, None])
    found = attribute(goal, 3, "grad_x_input")
    torch.testing.assert_close(found.score, -d[:, 0])
    assert torch.equal(found.index[:, 0], d[:, 0].topk(3, largest=False).indices)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_saliency_is_the_mean_absolute_slope(sign):
    goal, gates, xs = oracle([("OR", 3, 2.0), ("AND", 2, -1.5), ("ADD", 1, 0.5)], sign=sign)
    found = attribute(goal, 3, "saliency")
    for task, x in enumerate(xs):
        leaf = torch.from_numpy(x).requires_grad_()
        sum(gate(leaf) for gate in gates).sum().backward()
        np.testing.assert_allclose(found.score[task], leaf.grad.abs().mean(dim=0), atol=1e-12)


def test_noise_of_the_sums_has_the_spread_that_noise_of_the_inputs_gives():
    goal, *_ = oracle(n_tasks=1)
    vectors = torch.randn(12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    goal = replace(goal, effects=vectors[None])
    drawn = torch.cat([pre - goal.pre[:, None] for pre in _noisy(goal, 200, 0.3, 0)], dim=1)
    flat = drawn.reshape(-1, 12)
    expected = 0.09 * vectors.T @ vectors
    found = flat.T @ flat / len(flat)
    assert float((found - expected).norm() / expected.norm()) < 0.03
    assert float(flat.mean(dim=0).abs().max()) < 0.02 * float(expected.diagonal().sqrt().max())


def test_smoothgrad_without_noise_is_saliency():
    goal, *_ = oracle()
    calm = attribute(goal, 3, "smoothgrad", noise=0.0, n_noisy=2)
    torch.testing.assert_close(calm.score, attribute(goal, 3, "saliency").score)
    rough = attribute(goal, 3, "smoothgrad")
    assert not torch.allclose(rough.score, calm.score)


@pytest.mark.parametrize("method", ["sage", "single_knockout", "greedy"])
def test_effects_of_an_additive_model_are_exact(method):
    betas = [0.9, -0.4, 0.7, 0.5, 0.3]
    goal, _, xs = oracle([("ADD", 1, beta) for beta in betas], n_elements=8)
    size = 8 if method == "greedy" else 2
    found = attribute(goal, size, method, n_permutations=40)
    expected = np.array([x.mean(axis=0) * [*betas, 0, 0, 0] for x in xs])
    np.testing.assert_allclose(found.score, expected, atol=1e-12)


def test_shapley_values_add_up_to_the_effect_of_all():
    goal, *_ = oracle()
    goal.legal[1, 5:] = False
    found = attribute(goal, 3, "sage", n_permutations=30, depth=12)
    members = goal.legal[:, None].double()
    everything = found.before - goal.loss(goal.weighted(members))[:, 0]
    torch.testing.assert_close(found.score.nansum(dim=1), everything)


def test_shapley_values_of_a_redundant_pair_are_equal_shares():
    goal = objective([(lay_out([("OR", 2, 1.0)]), np.ones((20, 5)))])
    found = attribute(goal, 2, "sage", n_permutations=4_000, depth=5)
    np.testing.assert_allclose(found.score[0], [0.5, 0.5, 0, 0, 0], atol=0.03)
    assert attribute(goal, 2, "single_knockout").score.abs().max() == 0


def test_a_price_for_each_peak_is_not_a_budget():
    goal, gates, xs = oracle(SCENARIOS["D"][1], n_tasks=3, n_elements=24)
    best = subset_search(goal, 3, max_exhaustive=0)
    budget, priced = attribute(goal, 3, "fimap_budget"), attribute(goal, 3, "fimap")
    optimum = best.before - best.loss
    assert ((budget.before - budget.loss[:, 0]) / optimum).mean() > 0.95
    assert ((priced.before - priced.loss[:, 0]) / optimum).mean() < 0.9


def test_random_scores_are_shares_of_the_draws():
    goal, *_ = oracle()
    found = attribute(goal, 3, "random", n_draws=50)
    torch.testing.assert_close(found.score.sum(dim=1), torch.full((2,), 3.0, dtype=torch.float64))
    assert float(found.score.min()) > 0.05
