"""The optimiser: sets stay sets, losses never rise, and a stopped search goes on as if it had not stopped."""

import numpy as np
import pytest
import torch
from gates import lay_out, objective, states
from scipy import sparse

from sctrellis.explain import AdditiveObjective, SubsetSwap

KINDS = [("OR", 3, 2.0), ("AND", 3, 1.5), ("ADD", 1, 0.5), ("ADD", 1, 0.5)]
N_ELEMENTS = 24


def searched(n_tasks=3, size=4, **options):
    gates = lay_out(KINDS)
    goal = objective([(gates, states(gates, N_ELEMENTS, 120, p_open=0.75, seed=s)) for s in range(n_tasks)])
    stream = torch.Generator().manual_seed(0)
    sets = torch.stack([torch.randperm(N_ELEMENTS, generator=stream)[:size] for _ in range(n_tasks)])
    return goal, sets, *wired(goal, sets, **options)


def wired(goal, sets, **options):
    def closure():
        loss, d = goal.first_order(goal.perturbed(sets[:, None]))
        return loss[:, 0], d[:, 0]

    def evaluate(index, slot, candidates):
        return goal.swap(index[:, None], slot[:, None], candidates[:, None])[:, 0]

    return SubsetSwap([sets], evaluate=evaluate, legal=goal.legal, **{"n_candidates": 6, **options}), closure


@pytest.mark.parametrize("order", ["cyclic", "worst_first"])
def test_sets_keep_their_size_and_losses_never_rise(order):
    goal, sets, optimiser, closure = searched(order=order)
    goal.legal[:, 20:] = False
    sets.clamp_(max=19)
    sets[:] = torch.arange(4)
    last = closure()[0]
    for _ in range(30):
        loss = optimiser.step(closure)
        assert (loss <= last).all()
        torch.testing.assert_close(loss, goal.evaluate(sets[:, None])[:, 0])
        assert all(len(set(row)) == 4 and max(row) < 20 for row in sets.tolist())
        last = loss
    assert optimiser.finished


def test_a_finished_search_cannot_be_bettered_by_its_candidates():
    goal, sets, optimiser, closure = searched(n_candidates=N_ELEMENTS, n_random=0)
    while not optimiser.finished:
        loss = optimiser.step(closure)
    everyone = torch.arange(N_ELEMENTS).expand(3, 1, -1)
    free = goal.legal.scatter(1, sets, value=False)
    for slot in range(4):
        tried = goal.swap(sets[:, None], torch.full((3, 1), slot), everyone)[:, 0]
        assert (tried[free] >= loss[:, None].expand_as(tried)[free] - 1e-7).all()


def parabola():
    """Return an objective whose slope at the best element points to a far worse one."""
    vectors = torch.tensor([[[1.0], [3.0]]], dtype=torch.float64)
    return AdditiveObjective.build(
        sparse.csr_matrix(np.ones((5, 2))),
        np.arange(2)[None],
        effects=vectors,
        pre=torch.full((1, 5, 1, 1), 4.0, dtype=torch.float64),
        head=lambda pre: (pre[..., 0, 0] - 2.9) ** 2,
    )


def test_the_published_search_moves_where_it_must_and_remembers_the_best():
    sets = torch.tensor([[0]])
    optimiser, closure = wired(parabola(), sets, n_candidates=1, n_random=0, order="cyclic", accept=False)
    losses = [float(optimiser.step(closure)) for _ in range(4)]
    np.testing.assert_allclose(losses, [1.9**2, 0.1**2, 1.9**2, 0.1**2])
    state = optimiser.state[sets]
    assert float(state["best_loss"]) == pytest.approx(0.01)
    assert state["best_index"].tolist() == [[0]]


def test_a_swap_that_does_not_help_is_refused():
    sets = torch.tensor([[0]])
    optimiser, closure = wired(parabola(), sets, n_candidates=1)
    assert float(optimiser.step(closure)) == pytest.approx(0.01)
    assert sets.tolist() == [[0]]
    assert optimiser.finished


@pytest.mark.parametrize("n_before", [0, 1, 5])
def test_a_state_dict_continues_the_search(n_before):
    _, sets, optimiser, closure = searched()
    for _ in range(n_before):
        optimiser.step(closure)
    goal, again = searched()[0], sets.clone()
    other, other_closure = wired(goal, again)
    other.load_state_dict(optimiser.state_dict())
    for _ in range(6):
        torch.testing.assert_close(other.step(other_closure), optimiser.step(closure), rtol=0, atol=0)
        assert torch.equal(again, sets)
    for name, value in optimiser.state[sets].items():
        assert np.array_equal(other.state[again][name], value), name


def test_a_set_of_everything_stays():
    _, sets, optimiser, closure = searched(size=N_ELEMENTS)
    before = sets.clone()
    optimiser.step(closure)
    assert torch.equal(sets, before)
