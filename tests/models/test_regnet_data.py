import numpy as np
import pytest
import torch

from sctrellis.models._edge_features import LabelledPairs
from sctrellis.models._messages import unordered
from sctrellis.models._regnet_data import MESSAGE, AllPairs, Steps, reduce_cells

CPU = torch.device("cpu")
N = 25


def some_pairs(seed=0, share=0.3):
    rng = np.random.default_rng(seed)
    row, column = (part.ravel() for part in np.meshgrid(np.arange(6), np.arange(N), indexing="ij"))
    kept = (row != column) & (rng.random(len(row)) < 0.8)
    row, column = row[kept], column[kept]
    return LabelledPairs(row, column, rng.random(len(row)) < share)


def steps(neg_mode="uniform", asked_frac=0.3, n_neg=2, seed=0, pairs=None):
    pairs = pairs or some_pairs()
    edges = pairs.row[pairs.label], pairs.column[pairs.label]
    return Steps(pairs, *edges, N, asked_frac, n_neg, neg_mode, 3, seed, CPU)


def as_set(row, column):
    return set(zip(row.tolist(), column.tolist(), strict=True))


@pytest.mark.parametrize("neg_mode", ["uniform", "per_regulator"])
def test_what_is_asked_about_and_what_carries_messages_are_apart(neg_mode):
    pairs = some_pairs()
    known = as_set(pairs.row[pairs.label], pairs.column[pairs.label])
    others = as_set(pairs.row[~pairs.label], pairs.column[~pairs.label])
    source = steps(neg_mode)
    for epoch in range(3):
        batches = list(source.epoch(epoch))
        assert len(batches) == len(source) == 3
        for batch in batches:
            row, column, label = batch.numpy().T
            sent = as_set(row[label == MESSAGE], column[label == MESSAGE])
            edges, drawn = (as_set(row[label == k], column[label == k]) for k in (1, 0))
            assert len(edges) == round(0.3 * len(known))
            assert edges <= known
            assert drawn <= others  # negatives: training pairs that are no known edges
            assert sent <= known
            assert not sent & edges
            assert not {(j, i) for i, j in sent} & (edges | drawn)
            # An edge that neither is asked about nor lies between genes of a pair that is asked about is in the graph.
            told = {frozenset(pair) for pair in edges | drawn}
            assert sent == {pair for pair in known if frozenset(pair) not in told}


def test_negatives_are_as_many_as_asked_for():
    row, _, label = steps(n_neg=2).step(0, 0).T
    assert (label == 0).sum() == 2 * (label == 1).sum()
    row, _, label = steps("per_regulator", n_neg=2).step(0, 0).T
    pairs = some_pairs()
    available = np.bincount(pairs.row[~pairs.label], minlength=6)
    expected = np.minimum(2 * np.bincount(row[label == 1], minlength=6), available)
    np.testing.assert_array_equal(np.bincount(row[label == 0], minlength=6), expected)
    row, column, label = steps(n_neg=10_000).step(0, 0).T  # more than there are: each once
    assert len(as_set(row[label == 0], column[label == 0])) == (label == 0).sum() == (~pairs.label).sum()


def test_every_negative_is_drawn_in_the_end():
    pairs = some_pairs(share=0.5)
    source = steps(pairs=pairs)
    drawn = set()
    for epoch in range(30):
        for batch in source.epoch(epoch):
            row, column, label = batch.numpy().T
            drawn |= as_set(row[label == 0], column[label == 0])
    assert drawn == as_set(pairs.row[~pairs.label], pairs.column[~pairs.label])


def test_steps_depend_on_seed_epoch_and_step_only():
    one, same, other = steps(), steps(), steps(seed=1)
    np.testing.assert_array_equal(one.step(2, 1), same.step(2, 1))
    for found in (one.step(2, 0), one.step(1, 1), other.step(2, 1)):
        assert not np.array_equal(found, one.step(2, 1))


def test_messages_that_are_not_learnt_are_sent_unless_they_tell():
    pairs = some_pairs()
    nothing = Steps(pairs, np.array([20]), np.array([21]), N, 0.3, 2, "uniform", 1, 0, CPU).step(0, 0)
    assert as_set(*nothing[nothing[:, 2] == MESSAGE, :2].T) == {(20, 21)}
    row, column, label = nothing.T
    asked = np.flatnonzero(label == 1)[0]
    told = Steps(pairs, column[[asked]], row[[asked]], N, 0.3, 2, "uniform", 1, 0, CPU).step(0, 0)
    assert unordered(row[[asked]], column[[asked]], N) in unordered(*told[told[:, 2] != MESSAGE, :2].T, N)
    assert (told[:, 2] != MESSAGE).all()


def test_all_pairs_are_one_batch():
    pairs = some_pairs()
    (batch,) = AllPairs(pairs, 0, CPU).epoch(7)
    np.testing.assert_array_equal(batch.numpy(), np.stack([pairs.row, pairs.column, pairs.label], axis=1))


# features


@pytest.mark.parametrize("shape", [(30, 80), (80, 30)], ids=["more_cells", "more_genes"])
def test_features_keep_products_of_genes(shape):
    z = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    found = reduce_cells(z, 1_000)
    assert found.shape == (shape[0], 30)
    np.testing.assert_allclose(found @ found.T, z @ z.T * 30 / shape[1], atol=1e-3)
    left, size, _ = np.linalg.svd(z, full_matrices=False)
    first = reduce_cells(z, 4)
    expected = left[:, :4] * size[:4] * np.sqrt(4 / shape[1])
    np.testing.assert_allclose(np.abs(first), np.abs(expected), atol=1e-4)


@pytest.mark.parametrize("shape", [(30, 80), (80, 30)], ids=["more_cells", "more_genes"])
def test_features_do_not_depend_on_the_order_of_genes_or_cells(shape):
    rng = np.random.default_rng(0)
    z = rng.normal(size=shape).astype(np.float32)
    genes, cells = rng.permutation(shape[0]), rng.permutation(shape[1])
    found = reduce_cells(z, 6)
    np.testing.assert_allclose(reduce_cells(z[genes], 6), found[genes], atol=1e-5)
    np.testing.assert_allclose(reduce_cells(z[:, cells], 6), found, atol=1e-5)


def test_features_of_few_directions():
    rng = np.random.default_rng(0)
    z = (rng.normal(size=(20, 3)) @ rng.normal(size=(3, 50))).astype(np.float32)
    z[4] = 0  # a constant gene
    found = reduce_cells(z, 10)
    assert found.shape[1] == 3
    assert not found[4].any()
