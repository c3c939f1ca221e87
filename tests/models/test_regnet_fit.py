import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch.utils._python_dispatch import TorchDispatchMode

from sctrellis.models import _gated_attention
from sctrellis.models import _regnet_fit as regnet_fit
from sctrellis.models._edge_features import LabelledPairs
from sctrellis.models._regnet import RegNet, RegNetConfig
from sctrellis.models._regnet_data import MESSAGE, Steps
from sctrellis.models._regnet_fit import SupervisedTask, fit_regnet
from sctrellis.models._seed import generator

SMALL = {"hidden": 16, "latent": 8, "n_features": 16, "max_epochs": 3}


def all_pairs(n_regulators, n_genes):
    row, column = (p.ravel() for p in np.meshgrid(np.arange(n_regulators), np.arange(n_genes), indexing="ij"))
    kept = row != column
    return row[kept], column[kept]


def planted(n_regulators=8, n_genes=60, n_cells=100, seed=0):
    """Expression of genes in four programmes; a regulator acts on the genes of the next programme.

    The programme is another one and all four have as many edges: correlation and degree say nothing.
    """
    rng = np.random.default_rng(seed)
    programme = np.arange(n_genes) % 4
    cells = rng.normal(size=(4, n_cells))
    z = cells[programme] + 0.7 * rng.normal(size=(n_genes, n_cells))
    z = (z - z.mean(1, keepdims=True)) / z.std(1, keepdims=True)
    row, column = all_pairs(n_regulators, n_genes)
    return z.astype(np.float32), row, column, (programme[row] + 1) % 4 == programme[column]


def part(row, column, label, chosen):
    return LabelledPairs(row[chosen], column[chosen], label[chosen])


# recovery


@pytest.mark.parametrize("aggregator", ["mlp", "eb"])
@pytest.mark.parametrize("cold", [False, True], ids=["pairs", "targets"])
def test_planted_edges_are_found(aggregator, cold):
    z, row, column, label = planted()
    rng = np.random.default_rng(1)
    test = np.isin(column, [20, 33, 46, 59, 10, 11, 12, 13]) if cold else rng.random(len(row)) < 0.25
    config = RegNetConfig(aggregator=aggregator, hidden=32, latent=16, n_features=16, max_epochs=25, lr=3e-3)
    found = fit_regnet(
        z, part(row, column, label, ~test), np.arange(8), config=config, held=(row[test], column[test]), progress=False
    )
    scores = found.logits[row, column]
    assert roc_auc_score(label[test], scores[test]) > 0.95
    # Log-odds refer to all training pairs, not to those drawn.
    probability = found.probability[row, column]
    assert 0.6 < probability.mean() / label.mean() < 1.6
    assert (found.std > 0).all()
    assert found.logits[0, 1] != found.logits[1, 0]  # a pair is ordered


def test_fits_are_repeatable_and_seeds_differ():
    z, *pairs = planted()
    pairs = LabelledPairs(*pairs)
    before = torch.get_rng_state()
    config = RegNetConfig(**SMALL)
    one, same, other = (fit_regnet(z, pairs, np.arange(8), config=config, seed=s, progress=False) for s in (0, 0, 1))
    np.testing.assert_array_equal(one.logits, same.logits)
    assert not np.array_equal(one.logits, other.logits)
    assert torch.equal(torch.get_rng_state(), before)


# leaks


def test_pairs_held_out_decide_what_is_left_out_and_nothing_else():
    z, row, column, label = planted()
    test = np.random.default_rng(0).random(len(row)) < 0.2
    held = row[test], column[test]
    pairs = part(row, column, label, ~test)
    config = RegNetConfig(**SMALL)
    found = fit_regnet(z, pairs, np.arange(8), config=config, held=held, progress=False)
    asked = {frozenset(pair) for pair in zip(*(p.tolist() for p in held), strict=True)}
    known = zip(pairs.row[pairs.label].tolist(), pairs.column[pairs.label].tolist(), strict=True)
    expected = {pair for pair in known if frozenset(pair) not in asked}
    graph = set(zip(found.model.regulator.tolist(), found.model.target.tolist(), strict=True))
    assert graph == expected
    assert found.fit["n_graph_edges"] == len(expected)
    reverse = {frozenset(p) in asked for p in zip(pairs.row.tolist(), pairs.column.tolist(), strict=True)}
    assert reverse == {True, False}


def test_a_prior_carries_messages_but_never_between_genes_of_held_out_pairs():
    z, row, column, label = planted()
    test = np.random.default_rng(0).random(len(row)) < 0.2
    pairs, held = part(row, column, label, ~test), (row[test], column[test])
    config = RegNetConfig(**SMALL)
    prior = np.array([30, held[0][0], held[1][3], 30, 5]), np.array([31, held[1][0], held[0][3], 31, 5])
    found = fit_regnet(z, pairs, np.arange(8), config=config, held=held, prior=prior, progress=False)
    without = fit_regnet(z, pairs, np.arange(8), config=config, held=held, progress=False)
    edges, fewer = (
        set(zip(f.model.regulator.tolist(), f.model.target.tolist(), strict=True)) for f in (found, without)
    )
    assert edges - fewer == {(30, 31)}


def test_without_messages_of_training_edges_only_the_prior_is_heard():
    z, row, column, label = planted()
    pairs, prior = LabelledPairs(row, column, label), (np.array([0, 1]), np.array([30, 31]))
    config = RegNetConfig(**SMALL, train_messages=False)
    none = fit_regnet(z, pairs, np.arange(8), config=config, progress=False)
    assert none.fit["n_graph_edges"] == 0
    assert none.fit["n_isolated_genes"] == len(z)
    heard = fit_regnet(z, pairs, np.arange(8), config=config, prior=prior, progress=False)
    assert heard.model.regulator.tolist() == [0, 1]
    assert heard.model.target.tolist() == [30, 31]
    assert not np.array_equal(heard.logits, none.logits)


@pytest.mark.parametrize("reversed_pairs", ["learn", "hide"])
def test_labels_of_reversed_pairs_can_be_hidden(reversed_pairs):
    z, row, column, label = planted()
    test = np.isin(row, [0, 1])  # regulators held out: the pairs towards them are their reverse
    pairs = part(row, column, label, ~test)
    reverse = pairs.column < 2
    changed = LabelledPairs(pairs.row, pairs.column, np.where(reverse, ~pairs.label, pairs.label))
    one, other = (
        fit_regnet(
            z, p, np.arange(8), config=RegNetConfig(reversed_pairs=reversed_pairs, **SMALL),
            held=(row[test], column[test]), progress=False,
        )
        for p in (pairs, changed)
    )  # fmt: skip
    assert one.fit["n_reverse_held_out"] == reverse.sum() > 0
    assert np.array_equal(one.logits, other.logits) == (reversed_pairs == "hide")


def test_nothing_to_learn_from_is_said():
    z, row, column, label = planted()
    for chosen in (label, ~label):
        with pytest.raises(ValueError, match=r"`pairs` hold \d+ edges and \d+ other pairs to learn from: both kinds"):
            fit_regnet(z, part(row, column, label, chosen), np.arange(8), progress=False)


# losses


def task(n_genes=30, entropy=0.0, **options):
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(n_genes, 6)).astype(np.float32))
    row, column = all_pairs(5, n_genes)
    label = rng.random(len(row)) < 0.3
    edges = torch.from_numpy(row[label]), torch.from_numpy(column[label])
    config = RegNetConfig(hidden=12, latent=4, entropy=entropy, **options)
    net = RegNet(x, *edges, generator("cpu", 0), config, keys=torch.arange(5))
    pairs = LabelledPairs(row, column, label)
    steps = Steps(pairs, row[label], column[label], n_genes, 0.3, 5, "uniform", 1, 0, torch.device("cpu"))
    return SupervisedTask(net, config, -0.4), torch.from_numpy(steps.step(0, 0))


def test_the_loss_is_the_sum_of_its_parts_by_hand():
    module, batch = task(entropy=0.5, beta=0.2, reconstruction=0.3, dropout=0.0)
    net = module.model
    found = module.train().losses(batch, generator("cpu", 7), 0.15)
    row, column, label = batch.T
    sent = label == MESSAGE
    encoding = net.encode(graph=net.graph_of(row[sent], column[sent]))
    z = encoding.mu + torch.exp(encoding.logvar / 2) * torch.randn(encoding.mu.shape, generator=generator("cpu", 7))
    logits = net.head(z, row[~sent], column[~sent]) + 0.4
    edges = torch.nn.functional.binary_cross_entropy_with_logits(logits, label[~sent].float())
    standard = torch.distributions.Normal(0, 1)
    latent = torch.distributions.Normal(encoding.mu, torch.exp(encoding.logvar / 2))
    kl = torch.distributions.kl_divergence(latent, standard).mean(0).clamp(min=0.02).mean()
    reconstruction = (net.decoder(z) - net.features).square().mean()
    entropy = net.entropy(encoding).mean()
    expected = edges + 0.2 * 0.5 * kl + 0.3 * reconstruction + 0.5 * entropy  # half way through the warm-up
    torch.testing.assert_close(found["loss"], expected)
    torch.testing.assert_close(found["edges"], edges)


def test_gradients_reach_every_parameter():
    for aggregator in ("mlp", "eb"):
        module, batch = task(entropy=0.1, aggregator=aggregator)
        module.train().losses(batch, generator("cpu", 0), 1.0)["loss"].backward()
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, name
            # A key's bias moves all scores of a row alike, which a softmax does not notice.
            assert float(parameter.grad.abs().max()) > 0 or name == "model.attention.key.bias", name


def test_validation_looks_at_the_whole_graph_without_noise():
    module, batch = task()
    pairs = batch[batch[:, 2] != MESSAGE]
    one, other = (module.eval().losses(pairs, generator("cpu", s), 1.0)["loss"] for s in (0, 1))
    logits = module.model.head(module.model.encode().mu, pairs[:, 0], pairs[:, 1]).detach()
    assert float(one) == float(other) == pytest.approx(1 - average_precision_score(pairs[:, 2], logits), abs=1e-12)


def test_free_dimensions_cost_nothing():
    mu, logvar = torch.full((9, 3), 1e-3, requires_grad=True), torch.zeros(9, 3)
    value = regnet_fit.divergence(mu, logvar, 0.02)
    assert float(value.detach()) == pytest.approx(0.02)
    value.backward()
    assert mu.grad is not None
    assert not mu.grad.any()


@pytest.mark.parametrize("ties", [False, True])
def test_average_precision_is_that_of_scikit_learn(ties):
    rng = np.random.default_rng(0)
    scores, label = rng.normal(size=300), rng.random(300) < 0.2
    scores = np.round(scores, 1) if ties else scores
    found = regnet_fit.average_precision(torch.from_numpy(scores), torch.from_numpy(label.astype(np.int64)))
    assert float(found) == pytest.approx(average_precision_score(label, scores), abs=1e-12)


def test_participation_ratio_counts_directions():
    rng = np.random.default_rng(0)
    assert regnet_fit.participation_ratio(rng.normal(size=(100_000, 6))) == pytest.approx(6, abs=0.01)
    line = np.outer(rng.normal(size=500), rng.normal(size=6))
    assert regnet_fit.participation_ratio(line.astype(np.float32)) == pytest.approx(1, abs=1e-3)
    assert regnet_fit.participation_ratio(np.ones((5, 3))) == 0


def test_early_stopping_keeps_the_best_state():
    z, row, column, label = planted()
    rng = np.random.default_rng(0)
    validation = part(row, column, label, fold := rng.random(len(row)) < 0.2)
    config = RegNetConfig(**{**SMALL, "max_epochs": 40, "lr": 0.03}, patience=3)
    found = fit_regnet(
        z, part(row, column, label, ~fold), np.arange(8), config=config, validation=validation,
        held=(validation.row, validation.column), progress=False,
    )  # fmt: skip
    history = found.history["validation"]
    assert found.fit["stopped"] == "early_stopping"
    assert found.fit["best_epoch"] == int(np.argmin(history)) == len(history) - 1 - 3
    scores = found.logits[validation.row, validation.column]
    assert 1 - average_precision_score(validation.label, scores) == pytest.approx(min(history), abs=1e-6)
    no_edge = LabelledPairs(validation.row, validation.column, np.zeros(len(validation), bool))
    config = RegNetConfig(**SMALL)
    blind = fit_regnet(
        z, part(row, column, label, ~fold), np.arange(8), config=config, validation=no_edge, progress=False
    )
    assert "validation" not in blind.history  # nothing to judge by


class Largest(TorchDispatchMode):
    """The largest number of elements that any operation returned."""

    n = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        parts = found if isinstance(found, tuple | list) else (found,)
        self.n = max([self.n, *(p.numel() for p in parts if isinstance(p, torch.Tensor))])
        return found


@pytest.mark.parametrize("attn_keys", ["all", "regulators"])
def test_a_step_holds_no_number_for_every_pair_of_genes(attn_keys, monkeypatch):
    monkeypatch.setattr(_gated_attention, "CHUNK", 32)
    n_genes = 600
    module, batch = task(n_genes, entropy=0.01, attn_keys=attn_keys)
    with Largest() as seen:
        module.train().losses(batch, generator("cpu", 0), 1.0)["loss"].backward()
    assert seen.n < n_genes**2 / 4
