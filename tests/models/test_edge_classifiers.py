import numpy as np
import pytest
import torch
from torch import nn

from sctrellis.models import _genelink as genelink
from sctrellis.models._edge_classifiers import EdgeConfig, fit_edge_classifier
from sctrellis.models._edge_features import LabelledPairs, PairBatches, dropout
from sctrellis.models._prior import Features
from sctrellis.models._scgreat import Attention, ScGreat
from sctrellis.models._seed import generator
from sctrellis.models._train import Phase, TrainConfig, train

CPU = torch.device("cpu")
NONE = np.zeros(0, np.int64)


def some_pairs(n_regulators=6, n_genes=20, share=0.3, seed=0):
    rng = np.random.default_rng(seed)
    row, column = (part.ravel() for part in np.meshgrid(np.arange(n_regulators), np.arange(n_genes), indexing="ij"))
    kept = row != column
    return LabelledPairs(row[kept], column[kept], rng.random(kept.sum()) < share)


def profiles(n_genes, n_cells, seed=0):
    return np.random.default_rng(seed).normal(size=(n_genes, n_cells)).astype(np.float32)


# batches


def test_an_epoch_has_every_pair_once():
    pairs = some_pairs()
    batches = PairBatches(pairs, 16, 0, CPU)
    found = torch.cat(list(batches.epoch(3))).numpy()
    assert len(list(batches.epoch(3))) == len(batches)
    expected = np.stack([pairs.row, pairs.column, pairs.label], axis=1)
    assert sorted(map(tuple, found)) == sorted(map(tuple, expected))
    assert not np.array_equal(found, torch.cat(list(batches.epoch(4))).numpy())
    np.testing.assert_array_equal(found, torch.cat(list(PairBatches(pairs, 16, 0, CPU).epoch(3))).numpy())


def test_balanced_batches_have_as_many_other_pairs_as_edges_of_each_regulator():
    pairs = some_pairs(share=0.3)
    label = pairs.label.copy()
    label[pairs.row == 2] = True  # one of these other pairs is drawn, more there are not
    label[np.flatnonzero(pairs.row == 2)[0]] = False
    label[pairs.row == 3] = False
    pairs = LabelledPairs(pairs.row, pairs.column, label)
    batches = PairBatches(pairs, 7, 0, CPU, "balanced")
    first, second = (torch.cat(list(batches.epoch(e))).numpy() for e in (0, 1))
    assert len(list(batches.epoch(0))) == len(batches)
    for found in (first, second):
        edges = np.bincount(found[found[:, 2] == 1, 0], minlength=6)
        others = np.bincount(found[found[:, 2] == 0, 0], minlength=6)
        np.testing.assert_array_equal(edges, np.bincount(pairs.row[label], minlength=6))
        np.testing.assert_array_equal(others[[0, 1, 4, 5]], edges[[0, 1, 4, 5]])
        assert others[2] == 1
        assert others[3] == 0
        assert len(np.unique(found, axis=0)) == len(found)
    assert set(map(tuple, first)) != set(map(tuple, second))


def test_max_batches_cuts_an_epoch_short():
    assert [len(b) for b in PairBatches(some_pairs(), 10, 0, CPU, max_batches=2).epoch(0)] == [10, 10]


def test_dropout_keeps_the_mean_and_is_off_without_noise():
    x = torch.ones(200, 200)
    found = dropout(x, 0.25, generator("cpu", 0))
    torch.testing.assert_close(found.unique(), torch.tensor([0.0, 1 / 0.75]))
    assert abs(float(found.mean()) - 1) < 0.01
    assert dropout(x, 0.25, None) is x


# the graph


def test_the_graph_holds_training_edges_both_ways_and_each_gene_itself():
    row, column = np.array([0, 1, 3, 4]), np.array([2, 0, 1, 3])
    found = genelink.message_graph(row, column, NONE, NONE, n_genes=6)
    both = {*zip(row, column, strict=True), *zip(column, row, strict=True), *((i, i) for i in range(6))}
    assert [tuple(pair) for pair in found.T] == sorted(both)


def test_the_graph_holds_no_pair_that_is_held_out_in_either_direction():
    # 1 acts on 0, and the test asks whether 0 acts on 1: messages have no direction, so the edge would tell.
    found = genelink.message_graph(np.array([0, 1]), np.array([2, 0]), np.array([0]), np.array([1]), n_genes=3)
    assert [tuple(pair) for pair in found.T] == [(0, 0), (0, 2), (1, 1), (2, 0), (2, 2)]


def test_no_edges_make_a_graph_of_selves():
    np.testing.assert_array_equal(genelink.message_graph(NONE, NONE, NONE, NONE, n_genes=3), [[0, 1, 2]] * 2)


# GENELink


def random_graph(n_genes=9, n_edges=12, seed=0):
    rng = np.random.default_rng(seed)
    row, column = rng.integers(0, n_genes - 1, (2, n_edges))  # the last gene has no edge
    return genelink.message_graph(row, column, NONE, NONE, n_genes=n_genes)


def test_attention_is_the_dense_loop():
    messages = random_graph()
    layer = genelink.GraphAttention(5, 4, 3, generator("cpu", 0))
    with torch.no_grad():
        layer.bias.normal_(generator=generator("cpu", 1))
    x = torch.from_numpy(profiles(9, 5))
    found = layer(x, torch.from_numpy(messages)).detach().numpy()
    weight = layer.project.weight.detach().numpy().reshape(3, 4, 5)
    receive, send, bias = (p.detach().numpy() for p in (layer.receive, layer.send, layer.bias))
    for head in range(3):
        h = x.numpy() @ weight[head].T
        for i in range(9):
            neighbours = messages[1][messages[0] == i]
            logits = np.array([receive[head] @ h[i] + send[head] @ h[j] for j in neighbours])
            logits = np.where(logits > 0, logits, 0.2 * logits)
            alpha = np.exp(logits) / np.exp(logits).sum()
            summed = alpha @ h[neighbours]
            np.testing.assert_allclose(found[i, head], 2 * summed / np.linalg.norm(summed) + bias[head], atol=1e-5)


@pytest.mark.parametrize("dense", [0, 10**6], ids=["message_by_message", "all_pairs"])
def test_gradients_of_the_sparse_sums(dense, monkeypatch):
    monkeypatch.setattr(genelink, "_DENSE", dense)
    messages = torch.from_numpy(random_graph())
    rng = generator("cpu", 0)
    weight = torch.rand(messages.shape[1], 2, generator=rng, dtype=torch.float64, requires_grad=True)
    h = torch.randn(9, 2, 3, generator=rng, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(genelink._Gather.apply, (weight, h, messages))


def link(messages, x, **options):
    return genelink.GeneLink(torch.from_numpy(x), torch.from_numpy(messages), generator("cpu", 0), lr=0.01, **options)


def test_masking_a_pair_equals_a_graph_without_its_edge():
    row, column, x = np.array([0, 1, 3, 4, 2]), np.array([2, 0, 1, 3, 5]), profiles(7, 6)
    whole = link(genelink.message_graph(row, column, NONE, NONE, n_genes=7), x)
    without = link(genelink.message_graph(row[1:], column[1:], NONE, NONE, n_genes=7), x)
    for pair in ([0, 2], [2, 0]):  # whichever way it is asked
        masked = whole.masked(torch.tensor([pair[0], 6]), torch.tensor([pair[1], 5]))  # 6 -> 5 is no edge
        assert masked.sum() == 2
        for one, other in zip(whole.towers(masked), without.towers(), strict=True):
            torch.testing.assert_close(one, other)


def test_a_batch_is_learnt_from_without_its_own_edges():
    x, messages = profiles(7, 6), genelink.message_graph(np.array([0]), np.array([1]), NONE, NONE, n_genes=7)
    alone = genelink.message_graph(NONE, NONE, NONE, NONE, n_genes=7)
    batch = torch.tensor([[0, 1, 1], [2, 3, 0]])

    def loss(*args, **options):
        return float(link(*args, **options).eval().losses(batch, generator("cpu", 0), 0.0)["loss"].detach())

    assert loss(messages, x) == pytest.approx(loss(alone, x))
    assert loss(messages, x, mask_scored=False) != pytest.approx(loss(alone, x))


def test_genes_without_edges_differ_by_their_expression():
    messages = genelink.message_graph(np.array([0]), np.array([1]), NONE, NONE, n_genes=12)
    scores = link(messages, profiles(12, 5)).score(torch.arange(2, 12))[:, 2:]
    assert len(scores.unique()) == scores.numel()


def test_scores_do_not_depend_on_the_order_of_genes():
    x, row, column = profiles(8, 5), np.array([0, 1, 3, 6]), np.array([2, 0, 1, 3])
    order = np.random.default_rng(4).permutation(8)
    place = np.argsort(order)
    plain = link(genelink.message_graph(row, column, NONE, NONE, n_genes=8), x).score(torch.arange(8))
    moved = link(genelink.message_graph(place[row], place[column], NONE, NONE, n_genes=8), x[order])
    torch.testing.assert_close(moved.score(torch.arange(8)), plain[order][:, order])


# scGREAT


def test_the_transformer_is_that_of_torch():
    layer = Attention(12, 3, 0.0, generator("cpu", 0))
    with torch.random.fork_rng():
        other = nn.TransformerEncoderLayer(12, 3, 24, 0.0, batch_first=True, norm_first=True).train()
    other.self_attn.in_proj_weight = layer.project.weight
    other.self_attn.in_proj_bias = layer.project.bias
    other.self_attn.out_proj.load_state_dict(layer.merge.state_dict())
    other.linear1.load_state_dict(layer.widen.state_dict())
    other.linear2.load_state_dict(layer.narrow.state_dict())
    x = torch.randn(5, 2, 12, generator=generator("cpu", 1))
    torch.testing.assert_close(layer(x, None), other(x))


def great(n_genes=10, missing=(), seed=0):
    rng = np.random.default_rng(seed)
    absent = torch.zeros(n_genes, dtype=torch.bool)
    absent[list(missing)] = True
    features = torch.from_numpy(rng.normal(size=(n_genes, 4)).astype(np.float32))
    return ScGreat(torch.from_numpy(profiles(n_genes, 6)), features, absent, generator("cpu", seed), lr=0.001).eval()


def test_pairs_are_scored_one_by_one_as_all_at_once(monkeypatch):
    from sctrellis.models import _scgreat

    model = great()
    whole = model.score(torch.arange(3))
    tokens = model.genes(torch.arange(10))
    for i, k in [(0, 1), (2, 9), (1, 0)]:
        torch.testing.assert_close(model.pairs(tokens[[i]], tokens[[k]]).detach(), whole[i, [k]])
    monkeypatch.setattr(_scgreat, "_CHUNK", 7)
    torch.testing.assert_close(model.score(torch.arange(3)), whole)
    assert not torch.allclose(whole[0, 1], whole[1, 0])  # a pair has a direction


def test_genes_without_embedding_share_what_is_learnt():
    model = great(missing=[3, 4])
    before = model.score(torch.arange(10))
    with torch.no_grad():
        model.features[3] += 5  # never read
        torch.testing.assert_close(model.score(torch.arange(10)), before, rtol=0, atol=0)
        model.no_text += 1
    changed = (model.score(torch.arange(10)) - before).abs() > 1e-6
    touched = torch.zeros(10, 10, dtype=torch.bool)
    touched[[3, 4]] = touched[:, [3, 4]] = True
    assert not changed[~touched].any()
    assert changed[touched].float().mean() > 0.9


# fits


@pytest.mark.parametrize("method", ["genelink", "scgreat"])
def test_every_parameter_learns_and_dropout_is_for_training_only(method):
    pairs, x = some_pairs(), profiles(20, 8)
    if method == "genelink":
        messages = genelink.message_graph(pairs.row[pairs.label], pairs.column[pairs.label], NONE, NONE, n_genes=20)
        model = genelink.GeneLink(
            torch.from_numpy(x), torch.from_numpy(messages), generator("cpu", 0), lr=0.01, rate=0.5, mask_scored=False
        )
    else:
        features, absent = torch.from_numpy(profiles(20, 3, 1)), torch.arange(20) % 3 == 0
        model = ScGreat(torch.from_numpy(x), features, absent, generator("cpu", 0), lr=0.01)
    (batch,) = PairBatches(pairs, 1_000, 0, CPU).epoch(0)

    def loss(seed):
        return model.losses(batch, generator("cpu", seed), 0.0)["loss"]

    assert loss(0) != loss(1)
    loss(0).backward()
    assert {name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0} == set()
    model.eval()
    assert loss(0) == loss(1)


@pytest.mark.parametrize("method", ["genelink", "scgreat"])
def test_the_training_pairs_can_be_learnt(method):
    pairs, x = some_pairs(share=0.5), profiles(20, 30)
    features = Features(profiles(20, 3, 1), np.ones(20, bool))
    config = EdgeConfig(max_epochs=80, batch_size=200, lr=0.01, mask_scored=False)
    found = fit_edge_classifier(method, x, pairs, np.arange(6), config=config, features=features, progress=False)
    assert found.history["loss"][-1] < 0.45 < 0.6 < found.history["loss"][0]
    score = found.probability[pairs.row, pairs.column]
    assert score[pairs.label].mean() > score[~pairs.label].mean() + 0.3


@pytest.mark.parametrize("method", ["genelink", "scgreat"])
def test_training_stops_where_the_validation_loss_was_smallest(method):
    pairs, x = some_pairs(share=0.5), profiles(20, 30)
    other = LabelledPairs(pairs.row, pairs.column, ~pairs.label)  # what is learnt makes this worse
    features = Features(profiles(20, 3, 1), np.ones(20, bool))
    config = EdgeConfig(max_epochs=60, batch_size=200, lr=0.01, patience=2, mask_scored=False)
    found = fit_edge_classifier(
        method, x, pairs, np.arange(6), config=config, validation=other, features=features, progress=False
    )
    assert found.fit["stopped"] == "early_stopping"
    assert found.fit["epochs"] == found.fit["best_epoch"] + 3 < 60
    assert found.fit["best_epoch"] == int(np.argmin(found.history["validation"]))


def test_genelink_finds_blocks_that_degrees_do_not_show():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    row, column = (part.ravel() for part in np.meshgrid(np.arange(30), np.arange(30, 110), indexing="ij"))
    label = rng.random(len(row)) < np.where(row % 3 == column % 3, 0.7, 0.05)
    seen = rng.random(len(row)) < 0.7
    test = ~seen
    pairs = LabelledPairs(row[seen], column[seen], label[seen])
    config = EdgeConfig(max_epochs=30, batch_size=128, lr=0.003)
    found = fit_edge_classifier(
        "genelink",
        profiles(110, 40),  # noise: only the graph tells
        pairs,
        np.arange(30),
        config=config,
        held=(row[test], column[test]),
        progress=False,
    )
    assert roc_auc_score(label[test], found.probability[row[test], column[test]]) > 0.7


def test_weights_rebuild_the_network():
    pairs, x = some_pairs(), profiles(20, 8)
    config = EdgeConfig(max_epochs=2, batch_size=64, lr=0.01)
    found = fit_edge_classifier("genelink", x, pairs, np.arange(6), config=config, seed=3, progress=False)
    messages = genelink.message_graph(pairs.row[pairs.label], pairs.column[pairs.label], NONE, NONE, n_genes=20)
    model = link(messages, x)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in found.weights.items()})
    np.testing.assert_allclose(torch.sigmoid(model.score(torch.arange(6))), found.probability, rtol=1e-6)


def test_a_loss_that_explodes_is_named_without_expression():
    class Exploding(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def param_groups(self):
            from sctrellis.models._train import ParamGroup

            return {"all": ParamGroup(params=[self.weight], lr=1.0)}

        def losses(self, batch, noise, progress):
            return {"loss": self.weight.sum() * torch.inf}

        def after_epoch(self, epoch):
            pass

    plan = TrainConfig(phases=(Phase(name="fit", n_epochs=1, cycle=(("all",),)),))
    with pytest.raises(FloatingPointError, match=r"Loss became inf at epoch 0 \(fit\)\. Lower the learning rate\.$"):
        train(Exploding(), PairBatches(some_pairs(), 16, 0, CPU), plan)
