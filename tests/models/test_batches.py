"""Standardised cells and their batches: every cell once, in an order of seed and epoch, in runs where they stream."""

import dask.array as da
import numpy as np
import pytest
import torch
from scipy import sparse

from sctrellis._core.rows import Rows
from sctrellis.models._batches import Batches, Standardised

CPU = torch.device("cpu")


def batches(n_obs, batch_size, *, streamed=False, **options):
    """Batches of cells whose first gene counts them."""
    x = np.column_stack([np.arange(n_obs), np.random.default_rng(0).random(n_obs)]).astype(np.float32)
    rows = Rows(da.from_array(x, chunks=(100, 2)) if streamed else x)
    return Batches(Standardised(rows, clip=np.inf), batch_size, options.pop("seed", 0), CPU, **options)


def counted(source, epoch=0):
    """Cells of each batch, read back from the first gene."""
    summary = source.data.rows.summary
    return [np.rint(b[:, 0].numpy() * summary.std[0] + summary.mean[0]).astype(int) for b in source.epoch(epoch)]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("n_obs", "batch_size", "sizes"),
    [(12, 4, [4, 4, 4]), (10, 4, [4, 4, 2]), (3, 4, [3]), (4, 4, [4]), (300, 128, [128, 128, 44])],
)
def test_every_cell_once_an_epoch(streamed, n_obs, batch_size, sizes):
    source = batches(n_obs, batch_size, streamed=streamed)
    found = counted(source)
    assert [len(cells) for cells in found] == sizes
    assert len(source) == len(sizes)
    assert sorted(np.concatenate(found)) == list(range(n_obs))


def test_no_batch_of_a_single_cell():
    source = batches(9, 4)
    assert [len(cells) for cells in counted(source)] == [4, 4]
    assert len(source) == 2
    left_out = {(set(range(9)) - set(np.concatenate(counted(source, epoch)))).pop() for epoch in range(40)}
    assert len(left_out) > 4  # another one each time


@pytest.mark.parametrize("streamed", [False, True])
def test_order_depends_on_seed_and_epoch_only(streamed):
    def order(seed, epoch):
        return tuple(batches(500, 32, streamed=streamed, seed=seed).order(epoch))

    assert order(1, 2) == order(1, 2)
    assert len({order(seed, epoch) for seed in range(3) for epoch in range(3)}) == 9
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    order(0, 0)
    assert np.array_equal(state, np.random.get_state()[1])  # noqa: NPY002
    # Reading out of turn, or not at all, changes nothing: a resumed fit sees the same batches.
    source = batches(500, 32, streamed=streamed)
    list(source.epoch(0))
    later = [b.numpy() for b in source.epoch(7)]
    assert all(map(np.array_equal, later, (b.numpy() for b in batches(500, 32, streamed=streamed).epoch(7))))


def test_streamed_cells_move_in_runs():
    source = batches(64 * 40, 16, streamed=True)
    order = source.order(3)
    assert sorted(order) == list(range(64 * 40))
    runs = order.reshape(-1, 256)  # sixteen batches
    for window in runs:
        first = np.unique(window // 64)
        assert len(first) == 4
        assert np.array_equal(np.sort(window), (64 * first[:, None] + np.arange(64)).ravel())
    assert (np.diff(runs[0]) != 1).mean() > 0.9  # shuffled inside
    assert not np.array_equal(np.unique(runs[0] // 64), np.arange(4))
    one_batch = order[:16]
    assert len(np.unique(one_batch // 64)) > 1


def test_streamed_cells_are_read_in_few_and_contiguous_pieces(monkeypatch):
    reads = []
    take = Rows.take
    monkeypatch.setattr(Rows, "take", lambda self, index: reads.append(index) or take(self, index))
    source = batches(64 * 40, 16, streamed=True)
    source.data.rows.summary  # noqa: B018 - its own pass
    reads.clear()
    assert len(list(source.epoch(0))) == 160
    assert len(reads) == 10
    # Four runs a read, each contiguous: not the few cells of every run that one batch needs.
    assert all((np.diff(np.sort(read)) > 1).sum() <= 3 for read in reads)
    few = batches(64 * 40, 16, streamed=True, max_batches=3)
    few.data.rows.summary  # noqa: B018
    reads.clear()
    list(few.epoch(0))
    assert [len(read) for read in reads] == [48]


@pytest.mark.parametrize("streamed", [False, True])
def test_only_the_cells_given(streamed):
    cells = np.random.default_rng(1).permutation(400)[:150]
    source = batches(400, 40, streamed=streamed, cells=cells)
    found = counted(source)
    assert [len(part) for part in found] == [40, 40, 40, 30]
    assert sorted(np.concatenate(found)) == sorted(cells)


def test_short_epochs():
    source = batches(100, 10, max_batches=3)
    assert len(source) == len(counted(source)) == 3
    drawn = [frozenset(np.concatenate(counted(source, epoch))) for epoch in range(12)]
    assert len(set(drawn)) == 12
    assert len(frozenset().union(*drawn)) > 90
    assert len(batches(100, 10, max_batches=30)) == 10


def test_standardised_equals_numpy():
    rng = np.random.default_rng(0)
    x = (rng.random((50, 6)) * np.arange(1, 7) + 100).astype(np.float32)
    x[:, 2] = 3.25
    x[0, 4] = 1e6
    got = Standardised(Rows(x)).take(slice(None))
    exact = x.astype(np.float64)
    std = exact.std(axis=0)
    std[2] = np.inf
    expected = np.clip((exact - exact.mean(axis=0)) / std, -10, 10)
    assert got.dtype == np.float32
    assert np.allclose(got, expected, atol=1e-3)
    assert (got[:, 2] == 0).all()
    # An outlier of n cells lies at most sqrt(n) from the mean, which 10 does not clip here; 5 does.
    assert Standardised(Rows(x), clip=5.0).take(slice(None)).max() == 5
    weights = rng.random(6)
    assert np.allclose(Standardised(Rows(x), weights=weights).take(slice(None)), got * weights, rtol=1e-6)
    assert np.array_equal(Standardised(Rows(sparse.csr_matrix(x))).take(slice(3, 9)), got[3:9])
    order = rng.permutation(50)
    assert np.array_equal(Standardised(Rows(da.from_array(x, chunks=(7, 6)))).take(order), got[order])


def test_input_is_not_changed():
    x = np.random.default_rng(0).random((20, 3)).astype(np.float32)
    before = x.copy()
    source = Batches(Standardised(Rows(x)), 8, 0, CPU)
    for batch in source.epoch(0):
        batch.mul_(0)
    Standardised(Rows(x)).take(slice(None))[:] = 7
    assert np.array_equal(x, before)
