import math

import numpy as np
import pytest
import torch

from sctrellis.models import _regnet_transfer as transfer
from sctrellis.models._edge_features import LabelledPairs, cross_entropy
from sctrellis.models._regnet import RegNet, RegNetConfig
from sctrellis.models._regnet_fit import fit_regnet
from sctrellis.models._regnet_transfer import TransferConfig, TransferTask, transfer_regnet
from sctrellis.models._seed import generator

N, LABELS = 24, np.random.default_rng(3).random(92) < 0.3
ROW, COLUMN = (
    part[np.repeat(np.arange(4), N) != np.tile(np.arange(N), 4)]
    for part in (np.repeat(np.arange(4), N), np.tile(np.arange(N), 4))
)
PAIRS = LabelledPairs(ROW, COLUMN, LABELS)
GENES = np.arange(N)


def profiles(n_cells=40, seed=0, n_genes=N):
    """Genes follow four programmes, the same in all cells."""
    rng = np.random.default_rng(seed)
    loadings = np.random.default_rng(99).normal(size=(n_genes, 4))
    z = loadings @ rng.normal(size=(4, n_cells)) + 0.3 * rng.normal(size=(n_genes, n_cells))
    return ((z - z.mean(1, keepdims=True)) / z.std(1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def source():
    """A fitted model."""
    config = RegNetConfig(hidden=12, latent=6, n_features=8, max_epochs=5)
    return fit_regnet(profiles(), PAIRS, np.arange(4), config=config, progress=False).model


def task(source, importance=None, **options):
    net = RegNet(source.features, source.regulator, source.target, generator("cpu", 0), source.config)
    net.load_state_dict(source.state_dict())
    with torch.no_grad():
        reference = source.encode().mu
    return TransferTask(net, TransferConfig(**options), torch.arange(N), reference, importance or {})


# contrast


def test_contrast_of_orthonormal_vectors_has_a_closed_form():
    vectors = torch.eye(7, dtype=torch.float64)
    one, other = torch.tensor([0, 3]), torch.tensor([1, 5])
    # All cosines are 0, and a gene is not compared with itself.
    assert float(transfer.info_nce(vectors, one, other, 0.07)) == pytest.approx(math.log(6), abs=1e-12)
    twins = vectors.clone()
    twins[1] = 3 * twins[0]  # length plays no part
    expected = math.log(math.exp(1 / 0.5) + 5) - 1 / 0.5
    assert float(transfer.info_nce(twins, one[:1], other[:1], 0.5)) == pytest.approx(expected, abs=1e-12)


def test_contrast_does_not_overflow():
    value = transfer.info_nce(torch.ones(5, 3), torch.tensor([0]), torch.tensor([1]), 1e-3)
    assert float(value) == pytest.approx(math.log(4), abs=1e-3)


# relations


def test_relations_do_not_notice_a_rotation_but_other_vectors():
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(9, 4)))
    turn = torch.from_numpy(np.linalg.qr(rng.normal(size=(4, 4)))[0])
    assert float(transfer.relational(x @ turn, x)) == pytest.approx(0, abs=1e-20)
    y = torch.from_numpy(rng.normal(size=(9, 4)))

    def centred(a):
        unit = (a / a.norm(dim=1, keepdim=True)).numpy()
        cosines = unit @ unit.T
        return cosines - cosines.mean(1, keepdims=True)

    expected = ((centred(x) - centred(y)) ** 2).mean()
    assert float(transfer.relational(y, x)) == pytest.approx(expected, rel=1e-12)


# the pull to old weights


def test_importance_is_the_mean_of_squared_gradients_of_single_pairs(source, monkeypatch):
    monkeypatch.setattr(transfer, "_CHUNK", 5)  # several chunks, the last one smaller
    net = RegNet(source.features, source.regulator, source.target, generator("cpu", 0), source.config).double()
    net.load_state_dict(source.state_dict())
    row, column, label = (torch.from_numpy(p[40:52]) for p in (ROW, COLUMN, LABELS))
    found = transfer.fisher(net, row, column, label)
    expected = {name: torch.zeros_like(value) for name, value in net.named_parameters()}
    for i in range(len(row)):
        net.zero_grad()
        cross_entropy(net.head(net.encode().mu, row[[i]], column[[i]]), label[[i]]).backward()
        for name, value in net.named_parameters():
            if value.grad is not None:
                expected[name] += value.grad.square() / len(row)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-12 * float(value.abs().max()) + 1e-18)
    assert not found["decoder.0.weight"].any()  # no edge depends on it
    assert float(found["sage.0.first.weight"].max()) > 0


def test_the_pull_and_its_gradient(source):
    importance = {"mean.weight": torch.rand(6, 12, generator=generator("cpu", 1)), "mean.bias": torch.ones(6)}
    module = task(source, importance)
    net = module.model
    with torch.no_grad():
        net.mean.weight += 0.5
        net.mean.bias -= 2
    pull = module.pull()
    assert float(pull.detach()) == pytest.approx(0.25 * float(importance["mean.weight"].sum()) + 4 * 6, rel=1e-5)
    pull.backward()
    torch.testing.assert_close(net.mean.weight.grad, importance["mean.weight"])  # 2 F (theta - theta*)
    torch.testing.assert_close(net.mean.bias.grad, torch.full((6,), -4.0))


def test_the_pull_sets_in_after_the_first_epoch_at_the_wanted_share(source):
    module = task(source, {"mean.bias": torch.ones(6)}, ewc=0.05).train()
    with torch.no_grad():
        module.model.mean.bias += 1
    genes = torch.arange(N)
    first = {name: value.item() for name, value in module.losses(genes, generator("cpu", 0), 0.0).items()}
    assert first["pull"] == 0
    module.after_epoch(0)
    second = {name: value.item() for name, value in module.losses(genes, generator("cpu", 0), 0.0).items()}
    assert second["pull"] == pytest.approx(0.05 * first["loss"], rel=1e-5)
    assert second["loss"] == pytest.approx(1.05 * first["loss"], rel=1e-5)
    strength = float(module.strength)
    module.after_epoch(1)
    assert float(module.strength) == strength
    # What is monitored does not move when it sets in.
    assert "pull" not in module.eval().losses(genes, generator("cpu", 0), 0.0)


# hidden features


def test_hidden_features_send_gradients_to_the_first_layer(source):
    module = task(source).train()
    module.losses(torch.arange(N), generator("cpu", 0), 0.0)["reconstruction"].backward()
    assert float(module.model.sage[0].first.weight.grad.norm()) > 0


def test_hidden_features_are_hidden_and_others_do_not_count(source):
    module = task(source, mask_frac=0.3).eval()
    net = module.model
    x = net.features
    hidden = torch.rand(x.shape, generator=generator("cpu", 4)) < 0.3
    found = module.losses(torch.arange(N), generator("cpu", 4), 0.0)["reconstruction"]
    guess = net.decoder(net.encode(torch.where(hidden, 0.0, x)).mu)
    torch.testing.assert_close(found, (guess - x)[hidden].square().mean())


def test_only_genes_drawn_are_compared(source, monkeypatch):
    monkeypatch.setattr(transfer, "_GENES", 10)
    steps = transfer.GeneSteps(N, 3, 0, torch.device("cpu"))
    drawn = [genes.tolist() for genes in steps.epoch(0)]
    assert all(len(set(genes)) == 10 and genes == sorted(genes) for genes in drawn)
    assert drawn[0] != drawn[1]
    assert drawn == [genes.tolist() for genes in steps.epoch(0)]
    module = task(source, mask_frac=0.3).eval()
    found = module.losses(torch.tensor(drawn[0]), generator("cpu", 4), 0.0)
    net = module.model
    hidden = torch.rand(net.features.shape, generator=generator("cpu", 4)) < 0.3
    mu = net.encode(net.features.masked_fill(hidden, 0)).mu[drawn[0]]
    place = {gene: i for i, gene in enumerate(drawn[0])}
    edges = [
        (place[i], place[j])
        for i, j in zip(net.regulator.tolist(), net.target.tolist(), strict=True)
        if i in place and j in place
    ]
    assert edges
    torch.testing.assert_close(found["contrast"], transfer.info_nce(mu, *torch.tensor(edges).T, 0.07))
    torch.testing.assert_close(found["relational"], transfer.relational(mu, source.encode().mu.detach()[drawn[0]]))


# features of other cells


def test_turned_features_lie_where_they_were():
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(20, 5)).astype(np.float32)
    turn = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    order = rng.permutation(20)
    other = (reference @ turn)[order]
    mine, theirs = np.arange(12), order[:12]  # the first 12 are shared
    found, explained = transfer.align(other, reference, mine, theirs)
    np.testing.assert_allclose(found, reference[order], atol=1e-5)  # those that are not shared as well
    assert explained == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(found @ found.T, other @ other.T, atol=1e-4)
    for width in (3, 8):  # fewer and more axes than the reference has
        features = rng.normal(size=(20, width)).astype(np.float32)
        found, explained = transfer.align(features, reference, mine, theirs)
        assert found.shape == (20, 5)
        assert explained < 0.9
        if width == 3:
            np.testing.assert_allclose(found @ found.T, features @ features.T, atol=1e-4)


# the whole


def moved(source, z, **options):
    settings = {"shared": (GENES, GENES), "pairs": PAIRS, **options}
    config = TransferConfig(max_epochs=4, n_fisher=32, **settings.pop("config", {}))
    return transfer_regnet(source, z, np.arange(4), config=config, progress=False, **settings)


def test_other_cells_get_the_graph_and_the_head_of_the_source(source):
    state = {name: value.clone() for name, value in source.state_dict().items()}
    found = moved(source, profiles(70, seed=5))
    for name, value in source.state_dict().items():
        assert torch.equal(value, state[name]), name  # the source stays as it is
        changed = not torch.equal(found.model.state_dict()[name], value)
        assert changed != name.startswith("head."), name
    assert torch.equal(found.model.regulator, source.regulator)
    assert torch.equal(found.model.target, source.target)
    assert found.fit["aligned"] > 0.5
    assert {"reconstruction", "divergence", "contrast", "relational", "pull", "validation"} <= found.history.keys()
    again = moved(source, profiles(70, seed=5))
    np.testing.assert_array_equal(found.logits, again.logits)


def test_genes_are_matched_and_edges_of_others_left_out(source):
    kept = np.random.default_rng(0).permutation(N)[:15]
    z = profiles(50, seed=6)[kept]
    found = moved(source, z, shared=(np.arange(15), kept))
    place = {gene: i for i, gene in enumerate(kept)}
    edges = zip(source.regulator.tolist(), source.target.tolist(), strict=True)
    expected = {(place[i], place[j]) for i, j in edges if i in place and j in place}
    assert expected
    assert set(zip(found.model.regulator.tolist(), found.model.target.tolist(), strict=True)) == expected
    held = (np.array([i for i, _ in expected][:1]), np.array([j for _, j in expected][:1]))
    fewer = moved(source, z, shared=(np.arange(15), kept), held=(held[1], held[0]))  # asked the other way round
    assert len(fewer.model.regulator) == len(expected) - 1
    more = moved(source, z, shared=(np.arange(15), kept), prior=(np.array([13]), np.array([14])))
    assert len(more.model.regulator) == len(expected | {(13, 14)})


def test_without_labels_of_the_source_there_is_no_pull(source):
    for options in ({"pairs": None}, {"config": {"ewc": 0.0}}):
        assert "pull" not in moved(source, profiles(50), **options).history
