"""The search finds the best set where it is known, never gets worse, and keeps what it has when it is stopped."""

from itertools import combinations

import numpy as np
import pytest
import torch
from gates import SCENARIOS, best_drop, drop, lay_out, objective, states
from scipy import sparse

from sctrellis.explain import AdditiveObjective, attribute, subset_search
from sctrellis.explain import _starts as starts

N_ELEMENTS, N_CELLS = 24, 400


def oracle(scenario, seeds, **options):
    size, kinds = SCENARIOS[scenario]
    gates = lay_out(kinds)
    tasks = [(gates, states(gates, N_ELEMENTS, N_CELLS, p_open=0.75, seed=s)) for s in seeds]
    return objective(tasks, **options), tasks, size


def shares(result, tasks, size):
    """Return the share of the best possible drop that was found, by what the gates themselves say of the sets."""
    found = [drop(gates, x, chosen.tolist()) for (gates, x), chosen in zip(tasks, result.index, strict=True)]
    return np.array(found) / [best_drop(gates, x, size) for gates, x in tasks]


@pytest.mark.parametrize(
    "scenario", [name if name in "AC" else pytest.param(name, marks=pytest.mark.slow) for name in SCENARIOS]
)
def test_the_portfolio_is_optimal_and_the_published_search_no_worse_than_greedy(scenario):
    goal, tasks, size = oracle(scenario, range(2), dtype=torch.float32)
    found = subset_search(goal, size, seed=[0, 1], max_exhaustive=0)
    assert (shares(found, tasks, size) > 1 - 1e-6).all()
    assert found.swap_optimal.all()
    assert not found.exhaustive.any()
    published = subset_search(goal, size, method="grids", seed=[0, 1])
    greedy = attribute(goal, size, "greedy")
    mean = np.mean((published.before - published.loss).numpy())
    assert mean >= np.mean((greedy.before - greedy.loss[:, 0]).numpy()) - 0.02


def test_brute_force_by_gates_is_brute_force():
    size, kinds = 3, [("OR", 3, 2.0), ("AND", 2, 1.5), ("ADD", 1, 0.5)]
    gates = lay_out(kinds)
    x = states(gates, 9, 200, p_open=0.7, seed=3)
    every = [drop(gates, x, chosen) for chosen in combinations(range(9), size)]
    assert best_drop(gates, x, size) == pytest.approx(max(every), abs=1e-12)
    goal = objective([(gates, x)])
    found = subset_search(goal, size)
    assert found.exhaustive.all()
    assert float((found.before - found.loss)[0]) == pytest.approx(max(every), abs=1e-12)
    assert found.start == ["all_sets"]


def test_elements_that_must_open_together_are_found_where_single_swaps_get_stuck():
    # Three single elements are worth 0.4 each; any two of the group are worth next to nothing, all three 2.
    size, kinds = 3, [("AND", 3, 2.0), *[("ADD", 1, 0.5)] * 4]
    gates = lay_out(kinds)
    tasks = [(gates, states(gates, 12, 100, p_open=0.2, seed=s)) for s in range(3)]
    goal = objective(tasks, sign=-1.0, value=1.0)
    best = subset_search(goal, size)
    found = subset_search(goal, size, max_exhaustive=0, n_restarts=4)
    assert best.exhaustive.all()
    assert [set(s) for s in best.index.tolist()] == [{0, 1, 2}] * 3
    torch.testing.assert_close(found.loss, best.loss, rtol=0, atol=1e-9)
    stuck = torch.stack([ends[:, 1] for name, ends in found.starts.items() if name.startswith("random")])
    assert ((stuck > best.loss + 0.3).sum(dim=0) >= 1).all()


def test_tasks_with_few_and_with_many_sets_side_by_side():
    goal, tasks, size = oracle("C", range(2))
    goal.legal[1, 12:] = False
    limit = 600  # C(12, 4) = 495
    found = subset_search(goal, size, max_exhaustive=limit)
    assert found.exhaustive.tolist() == [False, True]
    assert found.frequency.isnan().all(dim=1).tolist() == [False, True]
    assert torch.stack(found.trace).isnan().all(dim=0).tolist() == [False, True]
    assert (shares(found, tasks, size) > 1 - 1e-9).all()


@pytest.mark.parametrize("method", ["grids", "grids+"])
def test_losses_fall_and_sets_are_sets(method):
    goal, _, size = oracle("A", range(3))
    goal.legal[:, ::5] = False
    found = subset_search(goal, size, method=method, max_exhaustive=0, n_candidates=4)
    trace = torch.stack(found.trace)
    assert (trace.diff(dim=0) <= 0).all()
    torch.testing.assert_close(trace[-1], found.loss)
    torch.testing.assert_close(goal.evaluate(found.index[:, None])[:, 0], found.loss)
    for task, chosen in enumerate(found.index.tolist()):
        assert len(set(chosen)) == size
        assert goal.legal[task, chosen].all()
    for begun, ended in (loss.unbind(1) for loss in found.starts.values()):
        assert (ended <= begun + 1e-9).all()
        assert (ended >= found.loss - 1e-7).all()
    torch.testing.assert_close(found.frequency.sum(dim=1), torch.full((3,), float(size), dtype=torch.float64))


@pytest.mark.parametrize("method", ["grids", "grids+"])
def test_together_equals_one_by_one_and_the_seed_decides(method):
    options = {"method": method, "max_exhaustive": 0, "n_candidates": 3}
    goal, _, size = oracle("E", range(2))
    together = subset_search(goal, size, seed=[5, 6], **options)
    for task in range(2):
        own, _, _ = oracle("E", [task])
        alone = subset_search(own, size, seed=5 + task, **options)
        assert set(alone.index[0].tolist()) == set(together.index[task].tolist())
        assert float(alone.loss[0]) == pytest.approx(float(together.loss[task]), abs=1e-12)
        assert alone.start[0] == together.start[task]
    again = subset_search(goal, size, seed=[5, 6], **options)
    assert torch.equal(again.index, together.index)
    if method == "grids":
        others = [subset_search(goal, size, seed=s, **options).index.tolist() for s in range(4)]
        assert any(other != together.index.tolist() for other in others)


def test_bringing_the_output_up():
    size, kinds = 2, [("OR", 2, 1.0), ("ADD", 1, 0.6), ("ADD", 1, -0.8), ("ADD", 1, -0.7)]
    gates = lay_out(kinds)
    goal = objective([(gates, states(gates, 10, 200, p_open=0.6, seed=0))], sign=-1.0)
    found = subset_search(goal, size, max_exhaustive=0)
    assert set(found.index[0].tolist()) == {3, 4}  # closing what holds it down
    opened = objective([(gates, states(gates, 10, 200, p_open=0.3, seed=0))], sign=-1.0, value=1.0)
    found = subset_search(opened, size, max_exhaustive=0)
    assert 2 in found.index[0]
    assert len({0, 1} & set(found.index[0].tolist())) == 1


def wide(n_candidates=1_500):
    """Return an objective with more candidates than the portfolio looks at closely, and the planted group of three."""
    gates = lay_out([("OR", 3, 2.0), ("ADD", 1, 0.3)])
    x = states(gates, n_candidates, 60, p_open=0.8, seed=0)
    vectors = torch.zeros(n_candidates, 4)
    vectors[:4] = torch.eye(4)
    vectors[4:] = 0.002 * torch.randn(n_candidates - 4, 4, generator=torch.Generator().manual_seed(0))
    return AdditiveObjective.build(
        sparse.csr_matrix(x),
        np.arange(n_candidates)[None],
        effects=vectors[None],
        pre=(torch.from_numpy(x).float() @ vectors)[None, :, None],
        head=lambda pre: sum(gate(pre[..., 0, :]) for gate in gates),
    )


def test_many_candidates_are_searched_through_a_shortlist():
    found = subset_search(wide(), 3, n_restarts=1)
    assert set(found.index[0].tolist()) == {0, 1, 2}
    assert "all_candidates" in found.starts
    assert found.frequency.shape == (1, 1_500)


def test_elimination_keeps_groups_whole_and_ranks_by_worth():
    goal, _, size = oracle("C", range(2))
    assert [set(s) for s in starts.backward_elimination(goal, size)[:, 0].tolist()] == [{0, 1, 2, 3}] * 2
    ranked = starts.rank_members(goal, torch.tensor([[4, 1, 0, 9], [0, 2, 5, 3]]))
    assert set(ranked[0, :2].tolist()) == {0, 1}  # the pair outweighs the additive element, which outweighs 9
    assert ranked[0, 2:].tolist() == [4, 9]
    few = starts.backward_elimination(goal, size, n_exact=8)
    assert torch.equal(few, starts.backward_elimination(goal, size))


def test_interrupt_keeps_the_best_so_far(monkeypatch):
    goal, _, size = oracle("A", range(2))
    whole = subset_search(goal, size, max_exhaustive=0)
    calls = {"n": 0}
    first_order = AdditiveObjective.first_order

    def stopped(self, pre):
        calls["n"] += 1
        if calls["n"] == at:
            raise KeyboardInterrupt
        return first_order(self, pre)

    monkeypatch.setattr(AdditiveObjective, "first_order", stopped)
    losses = []
    for at in (1, 30, 360):
        calls["n"] = 0
        found = subset_search(goal, size, max_exhaustive=0)
        assert found.interrupted == (at <= calls["n"])
        torch.testing.assert_close(goal.evaluate(found.index[:, None])[:, 0], found.loss)
        losses.append(found.loss)
    losses.append(whole.loss)
    assert (torch.stack(losses).diff(dim=0) <= 1e-12).all()
    assert (losses[0] > losses[-1]).all()
    assert not whole.interrupted


def test_a_set_larger_than_the_candidates_is_refused():
    goal, _, _ = oracle("A", range(2))
    goal.legal[1, 3:] = False
    with pytest.raises(ValueError, match="at most the 3 candidates of the task with the fewest, found 4"):
        subset_search(goal, 4)


def test_a_model_that_is_not_finite_is_refused():
    goal, _, size = oracle("A", range(1))
    goal.pre[0, 0, 0, 0] = torch.nan
    with pytest.raises(FloatingPointError, match="not finite in the unperturbed cells"):
        subset_search(goal, size)
