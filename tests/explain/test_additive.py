"""The objective is exact: what it says after a change is what the whole model says of the changed input."""

from functools import partial

import numpy as np
import pytest
import torch
from allocations import Allocations
from scipy import sparse
from torch import nn

from sctrellis.explain import AdditiveObjective, _additive, _starts, _subset_search, subset_search

N_CELLS, N_PEAKS, N_BLOCKS, WIDTH = 30, 40, 3, 4


class Blocks(nn.Module):
    """A first layer that adds a vector per peak on each of several chromosomes, and a head with normalisation."""

    def __init__(self, n_peaks=N_PEAKS, n_blocks=N_BLOCKS, *, linear=False, dtype=torch.float64, seed=0):
        super().__init__()
        stream = torch.Generator().manual_seed(seed)

        def draw(*shape):
            return torch.randn(*shape, generator=stream, dtype=dtype)

        self.block = torch.arange(n_peaks) * n_blocks // n_peaks
        self.vectors, self.offset = draw(n_peaks, WIDTH), draw(n_blocks, WIDTH)
        self.norm = nn.BatchNorm1d(n_blocks * WIDTH, dtype=dtype)
        self.norm.running_mean, self.norm.running_var = draw(n_blocks * WIDTH), 1 + draw(n_blocks * WIDTH) ** 2
        self.inner, self.outer = draw(n_blocks * WIDTH, 6) / 3, draw(6)
        self.linear = linear
        self.eval().requires_grad_(requires_grad=False)

    def first(self, x):
        sums = [x[..., self.block == k] @ self.vectors[self.block == k] for k in range(len(self.offset))]
        return torch.stack(sums, dim=-2) + self.offset

    def forward(self, pre):
        flat = self.norm(pre.reshape(-1, pre.shape[-2] * pre.shape[-1])).view(*pre.shape[:-2], -1)
        hidden = flat @ self.inner
        return (hidden if self.linear else torch.tanh(hidden)) @ self.outer


def problem(*, value=0.0, soft=False, sign=1.0, n_tasks=2, n_blocks=N_BLOCKS, legal=None, dtype=torch.float64, **model):
    """Return an objective, the model, dense inputs, and the peaks that are each task's candidates."""
    rng = np.random.default_rng(1)
    x = (rng.random((N_CELLS, N_PEAKS)) < 0.3) * (rng.random((N_CELLS, N_PEAKS)) if soft else 1.0)
    x[:, 7] = 0
    net = Blocks(n_blocks=n_blocks, dtype=dtype, **model)
    peaks = np.stack([rng.permutation(N_PEAKS)[:25] for _ in range(n_tasks)])
    peaks[0, 0], peaks[-1, -5:] = 7, -1
    at = torch.from_numpy(np.where(peaks < 0, 0, peaks))
    dense = torch.tensor(x, dtype=dtype)
    objective = AdditiveObjective.build(
        sparse.csr_matrix(x),
        peaks,
        effects=net.vectors[at],
        block=net.block[at],
        pre=net.first(dense).expand(n_tasks, -1, -1, -1),
        head=net,
        sign=sign,
        value=value,
        legal=legal,
    )
    return objective, net, dense, peaks


def dense_loss(net, x, peaks, chosen, value, sign=1.0):
    """Return the loss by the whole model, with the chosen peaks of the input overwritten."""
    changed = x.clone()
    changed[:, peaks[chosen]] = value
    return sign * float(net(net.first(changed)).mean())


@pytest.mark.parametrize("n_blocks", [1, N_BLOCKS])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("value", [0.0, 1.0, 0.3])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_every_move_equals_the_whole_model(n_blocks, soft, value, dtype, tolerance):
    objective, net, x, peaks = problem(value=value, soft=soft, sign=-1.0, n_blocks=n_blocks, dtype=dtype)
    sets = torch.tensor([[[1, 4, 9], [2, 3, 19]], [[0, 5, 11], [19, 18, 3]]])

    def expected(task, chosen):
        return dense_loss(net, x, peaks[task], list(map(int, chosen)), value, -1.0)

    found = objective.evaluate(sets)
    moves = torch.tensor([6, 8, 10]).expand(2, 2, -1)
    base = objective.perturbed(sets)
    added, slot = objective.add(base, moves), torch.tensor([[0, 1], [2, 1]])
    swapped = objective.swap(sets, slot, moves)
    dropped = objective.drop(base, sets)
    members = torch.zeros(2, 2, 25, dtype=dtype).scatter_(2, sets, 1.0)
    torch.testing.assert_close(objective.weighted(members), base, rtol=0, atol=tolerance)
    for t in range(2):
        for r in range(2):
            chosen = sets[t, r].tolist()
            assert float(found[t, r]) == pytest.approx(expected(t, chosen), abs=tolerance)
            for k, new in enumerate([6, 8, 10]):
                other = [*chosen]
                other[int(slot[t, r])] = new
                rest = [p for i, p in enumerate(chosen) if i != k]
                assert float(added[t, r, k]) == pytest.approx(expected(t, [*chosen, new]), abs=tolerance)
                assert float(swapped[t, r, k]) == pytest.approx(expected(t, other), abs=tolerance)
                assert float(dropped[t, r, k]) == pytest.approx(expected(t, rest), abs=tolerance)


def test_values_may_differ_by_peak():
    values = torch.rand(2, 25, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    objective, net, x, peaks = problem(value=values)
    changed = x.clone()
    changed[:, peaks[0][[3, 8]]] = values[0, [3, 8]]
    found = objective.evaluate(torch.tensor([[[3, 8]], [[3, 8]]]))[0, 0]
    assert float(found) == pytest.approx(float(net(net.first(changed)).mean()), abs=1e-10)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.3])
@pytest.mark.parametrize("soft", [False, True])
def test_first_order_equals_autograd_on_the_dense_input(value, soft):
    objective, net, x, peaks = problem(value=value, soft=soft)
    sets = torch.tensor([[[1, 4, 9]], [[0, 5, 11]]])
    loss, d = objective.first_order(objective.perturbed(sets))
    for t in range(2):
        changed = x.clone()
        changed[:, peaks[t][sets[t, 0]]] = value
        changed.requires_grad_()
        dense = net(net.first(changed)).mean()
        dense.backward()
        dense = dense.detach()
        change = (changed.grad * (value - x)).sum(dim=0)[peaks[t]]
        real = peaks[t] >= 0
        assert float(loss[t, 0]) == pytest.approx(float(dense), abs=1e-12)
        np.testing.assert_allclose(d[t, 0][real], change[real].detach(), atol=1e-12)


def test_first_order_ranks_as_autograd_in_single_precision():
    objective, net, x, peaks = problem(dtype=torch.float32, n_tasks=1, value=0.0)
    _, d = objective.first_order(objective.pre[:, None])
    leaf = x.double().requires_grad_()
    exact = Blocks(dtype=torch.float64)
    for name in ("vectors", "offset", "inner", "outer"):
        setattr(exact, name, getattr(net, name).double())
    exact.norm = net.norm.double()
    exact(exact.first(leaf)).mean().backward()
    change = (leaf.grad * -x).sum(dim=0)[peaks[0][peaks[0] >= 0]]
    found = d[0, 0][: len(change)]
    np.testing.assert_allclose(found, change, atol=1e-6)
    np.testing.assert_array_equal(found.argsort(), change.argsort())


def test_swaps_of_a_linear_model_equal_their_first_order_change():
    objective, *_ = problem(linear=True)
    sets = torch.tensor([[[1, 4, 9]], [[0, 5, 11]]])
    loss, d = objective.first_order(objective.perturbed(sets))
    moves = torch.tensor([1, 6, 8, 12]).expand(2, 1, -1)
    for slot in range(3):
        exact = objective.swap(sets, torch.full((2, 1), slot), moves) - loss[..., None]
        transition = d.gather(2, moves) - d.gather(2, sets[..., slot : slot + 1])
        stays = moves == sets[..., slot : slot + 1]
        others = ~(moves[..., None] == sets[:, :, None]).any(-1)
        assert torch.equal(transition[stays], torch.zeros(int(stays.sum()), dtype=torch.float64))
        np.testing.assert_allclose(exact[others], transition[others], atol=1e-6)
        dropped = objective.drop(objective.perturbed(sets), sets[..., slot : slot + 1])[..., 0] - loss
        np.testing.assert_allclose(dropped, -d.gather(2, sets[..., slot : slot + 1])[..., 0], atol=1e-6)


def test_a_part_of_the_candidates_is_the_same_objective():
    objective, *_ = problem(value=0.3)
    columns = torch.stack([torch.randperm(20, generator=torch.Generator().manual_seed(t))[:8] for t in range(2)])
    part = objective.restrict(columns)
    sets = torch.tensor([[[0, 3, 5]], [[7, 2, 1]]])
    named = columns[:, None].gather(2, sets)
    torch.testing.assert_close(part.evaluate(sets), objective.evaluate(named), rtol=0, atol=1e-12)
    pre = objective.perturbed(named)
    _, d = objective.first_order(pre)
    _, own = part.first_order(pre)
    torch.testing.assert_close(own[:, 0], d[:, 0].gather(1, columns), rtol=0, atol=1e-12)
    assert torch.equal(part.legal, objective.legal.gather(1, columns))


def test_closed_and_padded_candidates_are_not_legal():
    wanted = np.ones((2, 25), bool)
    wanted[0, 3] = False
    objective, _, x, peaks = problem(legal=wanted)
    expected = wanted & (peaks >= 0) & (x.numpy()[:, peaks] > 0).any(axis=0)
    assert not expected[0, 0]  # peak 7, open nowhere
    np.testing.assert_array_equal(objective.legal, expected)


def test_a_model_in_training_is_refused():
    net = Blocks().train()
    with pytest.raises(ValueError, match=r"training mode.*Call `model.eval\(\)` first"):
        AdditiveObjective.build(
            sparse.eye(4, format="csr"),
            np.arange(4)[None],
            effects=net.vectors[None, :4],
            pre=torch.zeros(1, 4, N_BLOCKS, WIDTH, dtype=torch.float64),
            head=net.forward,
        )


def test_a_step_holds_nothing_of_cells_by_peaks_or_of_set_by_peaks():
    from sctrellis.explain import SubsetSwap

    n_cells, n_peaks, size = 64, 20_000, 40
    rng = np.random.default_rng(0)
    x = sparse.random(n_cells, n_peaks, density=0.01, format="csr", rng=rng, data_rvs=np.ones)
    net = Blocks(n_peaks, dtype=torch.float32)
    pre = torch.zeros(1, n_cells, N_BLOCKS, WIDTH)
    with Allocations() as made:
        objective = AdditiveObjective.build(
            x, np.arange(n_peaks)[None], effects=net.vectors[None], block=net.block[None], pre=pre, head=net
        )
        sets = objective.legal[0].nonzero()[:size].T.clone()

        def closure():
            loss, d = objective.first_order(objective.perturbed(sets[:, None]))
            return loss[:, 0], d[:, 0]

        def evaluate(index, slot, candidates):
            return objective.swap(index[:, None], slot[:, None], candidates[:, None])[:, 0]

        optimiser = SubsetSwap([sets], evaluate=evaluate, legal=objective.legal)
        before = closure()[0]
        assert optimiser.step(closure) < before
    assert max(made.numbers) <= 8 * WIDTH * n_peaks < min(n_cells, size) * n_peaks


@pytest.mark.parametrize("method", ["grids", "grids+"])
def test_a_whole_search_holds_nothing_of_cells_by_peaks_or_of_set_by_peaks(method, monkeypatch):
    # Primes: a tensor whose size is a multiple of two of them has both dimensions, in whatever shape. What is done in
    # chunks of a fixed size is done in small ones, as it is where there are many peaks.
    n_cells, n_peaks, size = 53, 1_009, 11
    monkeypatch.setattr(_subset_search, "_SHORTLIST", 32)
    monkeypatch.setattr(_starts, "concrete_mask", partial(_starts.concrete_mask, n_steps=20))
    monkeypatch.setattr(_additive, "_CHUNK", 2**13)
    monkeypatch.setattr(_starts, "_TABLE", 2**13)
    x = sparse.random(n_cells - 1, n_peaks, density=0.05, format="csr", rng=np.random.default_rng(0), data_rvs=np.ones)
    x = sparse.vstack([np.ones((1, n_peaks)), x], format="csr")  # every peak is open somewhere
    net = Blocks(n_peaks, dtype=torch.float32)
    options = {"effects": net.vectors[None], "block": net.block[None], "pre": torch.zeros(1, n_cells, N_BLOCKS, WIDTH)}

    def build():
        return AdditiveObjective.build(x, np.arange(n_peaks)[None], head=net, **options)

    build()  # what is imported at the first call is no part of it
    with Allocations(numpy=True) as built:
        objective = build()
    with Allocations() as searched:
        # The last certificate would list all exchanges of one member, up to 50,000 of them.
        found = subset_search(objective, size, method=method, max_sweeps=2, n_restarts=1, max_certified=0)
    assert objective.legal.all()
    assert found.loss < found.before
    for made in (built, searched):
        assert made.multiples(n_cells * n_peaks) == []
        assert made.multiples(size * n_peaks) == []
        assert max(made.numbers) >= n_peaks  # the hook sees what is there
    assert 0 < built.peak_bytes < 4 * n_cells * n_peaks


def test_the_hook_sees_what_is_flattened_or_dense():
    with Allocations(numpy=True) as made:
        torch.ones(53, 5, 1_009).flatten()
        np.ones((53, 1_009))
    assert made.multiples(53 * 1_009) == [53 * 5 * 1_009]
    assert made.peak_bytes > 8 * 53 * 1_009
