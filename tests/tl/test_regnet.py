import re

import anndata as ad
import numpy as np
import pytest
import torch
from helpers import content, crowded_toy, digest
from scipy import sparse
from sklearn.metrics import average_precision_score

import sctrellis as tr
from sctrellis._core import record
from sctrellis.models import LabelledPairs, RegNetConfig, fit_regnet, load_regnet
from sctrellis.tl._fitted_regnet import read_regnet

# Toy data have few directions, of which RegNet warns.
pytestmark = pytest.mark.filterwarnings("ignore:The latent means of the genes:UserWarning")
SMALL = {"network": "network", "hidden": 8, "latent": 4, "n_features": 8, "max_epochs": 2}
SLOTS = ("regnet", "regnet_prob", "regnet_std")


def run(adata, **options):
    tr.tl.regnet(adata, **{**SMALL, **options})
    return adata


def split(adata, **options):
    tr.pp.split_edges(adata, "network", **options)
    return adata


def pairs_in(adata, *folds):
    coo = adata.varp["network_fold"].tocoo()
    kept = np.isin(coo.data, folds)
    return coo.row[kept], coo.col[kept]


def stored(adata, key="regnet"):
    """Every number that a run leaves, as one text."""
    return digest([adata.varp[name].data for name in (key, f"{key}_prob", f"{key}_std")]) + digest(
        [adata.varm[f"X_{key}"], adata.var[f"{key}_gate"].to_numpy(), adata.uns[key]["weights"]]
    )


def without_labels(adata, *folds):
    """Flip every label of some folds."""
    row, column = pairs_in(adata, *folds)
    known = adata.varp["network"].tolil()
    known[row, column] = 1 - (np.asarray(adata.varp["network"][row, column]).ravel() > 0)
    adata.varp["network"] = sparse.csr_matrix(known, dtype=np.float32)
    return adata


# what is written


def test_scores_are_what_the_stored_model_says():
    adata = run(split(tr.datasets.toy()))
    found, model = read_regnet(adata, "regnet")
    encoding = model.encode()
    rows = np.flatnonzero(adata.var["is_regulator"])
    logits = model.head.matrix(encoding.mu, torch.from_numpy(rows)).numpy()
    np.testing.assert_array_equal(adata.varm["X_regnet"], encoding.mu.detach().numpy())
    np.testing.assert_allclose(adata.var["regnet_gate"], encoding.gate.mean(1).detach().numpy(), rtol=1e-6)
    kept = np.arange(adata.n_vars) != rows[:, None]
    np.testing.assert_allclose(adata.varp["regnet"][rows].toarray()[kept], logits[kept], rtol=1e-6)
    std, probability = (adata.varp[f"regnet_{name}"][rows].toarray()[kept] for name in ("std", "prob"))
    expected = 1 / (1 + np.exp(-logits[kept] / np.sqrt(1 + np.pi / 8 * std**2)))
    np.testing.assert_allclose(probability, expected, rtol=1e-5)
    assert found["labels_used"] == "network"
    assert found["folds_used"] == ["train", "validation"]
    assert found["fit"]["n_isolated_genes"] == int((model.graph.count == 0).sum())


@pytest.mark.parametrize(
    ("store", "options"),
    [("zarr", {}), ("h5ad", {"aggregator": "eb", "direction": "both", "attn_keys": "regulators"})],
)
def test_the_model_and_its_graph_are_rebuilt_from_a_file(store, options, tmp_path):
    adata = run(split(tr.datasets.toy()), **options)
    getattr(adata, f"write_{store}")(tmp_path / "x")
    back = getattr(ad, f"read_{store}")(tmp_path / "x")
    (_, first), (_, again) = read_regnet(adata, "regnet"), read_regnet(back, "regnet")
    assert torch.equal(again.encode().mu, first.encode().mu)
    assert torch.equal(again.regulator, first.regulator)
    assert again.config == first.config


def test_graph_and_folds_have_hashes():
    one, same = (run(split(tr.datasets.toy())).uns["regnet"]["hashes"] for _ in range(2))
    other = run(split(tr.datasets.toy(), seed=1)).uns["regnet"]["hashes"]
    assert one == same
    assert one["folds"] != other["folds"]
    assert one["graph"] != other["graph"]


def test_models_of_other_genes_or_methods_are_refused():
    adata = run(split(tr.datasets.toy()))
    with pytest.raises(ValueError, match=r"fitted on 30 genes, and the 20 of `adata` are others or in another order"):
        read_regnet(adata[:, :20].copy(), "regnet")
    with pytest.raises(ValueError, match=r"fitted on 30 genes, and the 30 of `adata` are others or in another order"):
        read_regnet(adata[:, ::-1].copy(), "regnet")
    tr.tl.edge_classifier(adata, "degree")
    with pytest.raises(
        ValueError, match=r"is a record of 'degree', and one of 'regnet' or 'regnet_finetune' is needed"
    ):
        read_regnet(adata, "degree")
    with pytest.raises(KeyError, match=r"'nothing' not found in `adata.uns`.*Run `sctrellis.tl.regnet` first"):
        read_regnet(adata, "nothing")


# leaks


@pytest.mark.parametrize("scheme", ["edge", "target", "regulator", "both"])
def test_no_message_between_genes_of_held_out_pairs_in_twenty_splits(scheme):
    for seed in range(5):  # of each of four schemes
        adata = tr.datasets.simulate_grn(40, 40, 12, density=0.2, seed=seed)
        adata.varp["network"] = adata.varp["truth"]
        split(adata, scheme=scheme, seed=seed, val_frac=0.3)
        run(adata, max_epochs=1, patience=None, direction="both")
        weights = adata.uns["regnet"]["weights"]
        graph = set(zip(weights["regulator"].tolist(), weights["target"].tolist(), strict=True))
        held = set(zip(*(part.tolist() for part in pairs_in(adata, 2, 3)), strict=True))
        known = sparse.csr_matrix(adata.varp["network"] > 0)
        assert graph
        assert not graph & held
        assert not {(j, i) for i, j in graph} & held
        train = set(zip(*(part.tolist() for part in pairs_in(adata, 1)), strict=True))
        assert graph <= train  # nothing but training pairs ...
        assert all(known[i, j] for i, j in graph)  # ... that are edges


def simulated(scheme="edge"):
    adata = tr.datasets.simulate_grn(60, 40, 12, density=0.2)
    adata.varp["network"] = adata.varp["truth"]
    return split(adata, scheme=scheme, val_frac=0.3)


@pytest.mark.parametrize("scheme", ["edge", "target", "regulator", "both"])
def test_labels_of_the_test_fold_change_no_bit(scheme):
    plain, changed = simulated(scheme), without_labels(simulated(scheme), 3)
    assert (plain.varp["network"] != changed.varp["network"]).nnz
    assert stored(run(changed, max_epochs=1)) == stored(run(plain, max_epochs=1))


def test_labels_of_the_validation_fold_only_say_when_to_stop():
    plain = run(simulated(), max_epochs=4)
    assert stored(run(without_labels(simulated(), 1), max_epochs=4)) != stored(plain)
    judged = run(without_labels(simulated(), 2), max_epochs=4)
    assert (judged.uns["regnet"]["history"]["loss"] == plain.uns["regnet"]["history"]["loss"]).all()
    assert (judged.uns["regnet"]["history"]["validation"] != plain.uns["regnet"]["history"]["validation"]).any()
    blind, changed = (run(adata, patience=None) for adata in (simulated(), without_labels(simulated(), 2, 3)))
    assert stored(changed) == stored(blind)  # not even that
    assert blind.uns["regnet"]["folds_used"].tolist() == ["train"]


def test_both_folds_can_be_learnt_from():
    adata = run(split(tr.datasets.toy()), fold="train_validation")
    found = record.read(adata, "regnet")
    assert found["folds_used"] == ["train", "validation"]
    assert found["fit"]["n_train_pairs"] == len(pairs_in(adata, 1, 2)[0])
    assert "validation" not in found["history"]
    changed = run(without_labels(split(tr.datasets.toy()), 3), fold="train_validation")
    assert stored(changed) == stored(adata)


def test_what_was_fitted_is_not_judged_on_what_it_saw():
    adata = run(split(tr.datasets.toy(), test_frac=0.3))
    with pytest.raises(ValueError, match="'regnet' was fitted with labels of 'network'"):
        tr.tl.evaluate(adata, "regnet", network="network", fold="all")
    assert len(tr.tl.evaluate(adata, "regnet", network="network", fold="test", n_boot=0, baselines=()))


@pytest.mark.parametrize("scheme", ["edge", "regulator"])
def test_log_odds_are_ranked_by_their_value(scheme):
    adata = run(split(tr.datasets.toy(), scheme=scheme, test_frac=0.4), max_epochs=1)
    found = tr.tl.evaluate(adata, "regnet", network="network", fold="test", n_boot=0, baselines=(), metrics=["auprc"])
    row, column = pairs_in(adata, 3)
    label = np.asarray(adata.varp["network"][row, column]).ravel() > 0
    expected = average_precision_score(label, np.asarray(adata.varp["regnet"][row, column]).ravel())
    assert found.query("level == 'micro'")["value"].item() == pytest.approx(expected, abs=1e-6)


def leaky_problem(seed):
    """Regulators act on one of four groups of genes; only their targets tell which: their own profile is noise."""
    rng = np.random.default_rng(seed)
    n_regulators, n_genes = 24, 84
    group = np.arange(n_genes) % 4
    z = rng.normal(size=(4, 60))[group] + 0.5 * rng.normal(size=(n_genes, 60))
    z[:n_regulators] = rng.normal(size=(n_regulators, 60))
    z = ((z - z.mean(1, keepdims=True)) / z.std(1, keepdims=True)).astype(np.float32)
    row, column = np.repeat(np.arange(n_regulators), 60), np.tile(np.arange(n_regulators, n_genes), n_regulators)
    label = (group[row] == group[column]) & (rng.random(len(row)) < 0.8)
    return z, LabelledPairs(row, column, label), np.isin(row, np.arange(6))


def test_a_graph_that_leaks_scores_higher_on_unseen_regulators():
    gains = []
    for seed in range(1):
        z, pairs, test = leaky_problem(seed)
        train, judged = (LabelledPairs(pairs.row[c], pairs.column[c], pairs.label[c]) for c in (~test, test))
        config = RegNetConfig(direction="both", hidden=32, latent=16, n_features=32, max_epochs=15, lr=3e-3)
        honest = fit_regnet(z, train, np.arange(24), config=config, held=(judged.row, judged.column), progress=False)
        edges = judged.row[judged.label], judged.column[judged.label]
        leaky = fit_regnet(z, train, np.arange(24), config=config, prior=edges, progress=False)
        scores = [average_precision_score(judged.label, f.logits[judged.row, judged.column]) for f in (honest, leaky)]
        assert scores[0] < 2 * judged.label.mean()  # nothing else tells
        gains.append(scores[1] - scores[0])
    assert min(gains) > 0.3


# bad input


def test_a_network_and_its_folds_are_needed():
    adata = tr.datasets.toy()
    before = content(adata)
    with pytest.raises(KeyError, match="run `sctrellis.pp.split_edges"):
        run(adata)
    with pytest.raises(KeyError, match=r"`network`: 'nothing' not found in `adata.varp`"):
        run(adata, network="nothing")
    assert content(adata) == before


def test_training_edges_are_needed():
    adata = split(tr.datasets.toy())
    row, column = pairs_in(adata, 1)
    known = adata.varp["network"].tolil()
    known[row, column] = 0
    adata.varp["network"] = sparse.csr_matrix(known)
    before = content(adata)
    with pytest.raises(ValueError, match=r"'network' has no known edge among its \d+ training pairs"):
        run(adata)
    assert content(adata) == before


def test_a_prior_with_held_out_pairs_is_refused_whatever_their_labels():
    adata = split(tr.datasets.toy())
    row, column = pairs_in(adata, 2, 3)
    (i, *_), (j, *_) = row, column
    for edge in ((i, j), (j, i)):
        adata.varp["prior"] = sparse.csr_matrix(([1.0], ([edge[0]], [edge[1]])), shape=(30, 30))
        for data in (adata, without_labels(adata.copy(), 3)):
            before = content(data)
            message = (
                r"`prior`: 1 of the 1 edges in `adata.varp\['prior'\]` join the two genes of a pair that is held out"
            )
            with pytest.raises(ValueError, match=message):
                run(data, prior="prior")
            assert content(data) == before
        run(adata, prior="prior", prior_overlap="drop", key_added="dropped")
        plain = run(adata.copy())
        np.testing.assert_array_equal(adata.varp["dropped"].data, plain.varp["regnet"].data)


def test_a_prior_adds_messages():
    adata = split(tr.datasets.toy())
    held = set(zip(*(part.tolist() for part in pairs_in(adata, 1, 2, 3)), strict=True))
    free = [(i, j) for i in range(30) for j in range(30) if i != j and not {(i, j), (j, i)} & held][:5]
    adata.varp["prior"] = sparse.csr_matrix((np.ones(5), tuple(zip(*free, strict=True))), shape=(30, 30))
    plain = run(adata.copy())
    run(adata, prior="prior")
    found, fewer = (
        set(zip(a.uns["regnet"]["weights"]["regulator"], a.uns["regnet"]["weights"]["target"], strict=True))
        for a in (adata, plain)
    )
    assert found - fewer == set(free)
    adata.varp["prior"] = sparse.csr_matrix((30, 30))
    with pytest.raises(ValueError, match=r"`adata.varp\['prior'\]` has no edge"):
        run(adata, prior="prior")
    with pytest.raises(KeyError, match="`prior`: 'nothing' not found"):
        run(adata, prior="nothing")


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("fold", "test", ValueError, "Expected `fold` to be one of 'train', 'train_validation'; found 'test'."),
        ("direction", "up", ValueError, "Expected `direction` to be one of 'regulators', 'targets', 'both'"),
        ("aggregator", "mean", ValueError, "Expected `aggregator` to be one of 'mlp', 'eb'"),
        ("attn_keys", "tf", ValueError, "Expected `attn_keys` to be one of 'all', 'regulators'"),
        ("neg_mode", "all", ValueError, "Expected `neg_mode` to be one of 'uniform', 'per_regulator'"),
        ("reversed_pairs", True, ValueError, "Expected `reversed_pairs` to be one of 'learn', 'hide'"),
        ("prior_overlap", "keep", ValueError, "Expected `prior_overlap` to be one of 'refuse', 'drop'"),
        ("hidden", 0, ValueError, "Expected `hidden` to be at least 1, found 0."),
        ("n_neg", 2.5, TypeError, "Expected `n_neg` to be an integer, found 2.5."),
        ("dropout", 1, ValueError, "Expected `dropout` to lie in [0, 1), found 1."),
        ("asked_frac", 0, ValueError, "Expected `asked_frac` to lie in (0, 1], found 0."),
        ("beta", -1, ValueError, "Expected `beta` to lie in [0, inf], found -1."),
        ("lr", 0, ValueError, "Expected `lr` to lie in (0, inf], found 0."),
        ("patience", 0, ValueError, "Expected `patience` to be at least 1, found 0."),
    ],
)
def test_settings_are_checked(name, value, error, message):
    adata = split(tr.datasets.toy())
    before = content(adata)
    with pytest.raises(error, match=re.escape(message)):
        run(adata, **{name: value})
    assert content(adata) == before


def test_regulators_must_vary():
    adata = split(tr.datasets.toy())
    adata.X[:, adata.var_names.get_loc(adata.var_names[0])] = 1
    with (
        pytest.warns(UserWarning, match="genes are constant"),
        pytest.raises(ValueError, match="None of the 1 regulators varies over the cells"),
    ):
        run(adata, regulators=[adata.var_names[0]])


# facts


def test_flat_latent_vectors_are_warned_of():
    adata = split(tr.datasets.toy())
    message = r"The latent means of the genes use 1\.\d\d of 2 dimensions \(participation ratio, below 4\)"
    with pytest.warns(UserWarning, match=message):
        run(adata, latent=2)
    found = record.read(adata, "regnet")["fit"]["participation_ratio"]
    variance = np.linalg.eigvalsh(np.cov(adata.varm["X_regnet"].astype(float).T))
    assert found == pytest.approx(variance.sum() ** 2 / (variance**2).sum(), rel=1e-5)


def test_regulators_with_few_edges_are_counted():
    adata = split(tr.datasets.toy())
    row, column = pairs_in(adata, 1)
    edges = np.bincount(row[np.asarray(adata.varp["network"][row, column]).ravel() > 0], minlength=30)
    found = record.read(run(adata), "regnet")["fit"]
    assert found["n_regulators_with_few_edges"] == ((edges > 0) & (edges < 3)).sum()
    assert found["n_train_edges"] == edges.sum()


def test_it_is_a_method_of_the_benchmark():
    adata = tr.datasets.simulate_grn(60, 40, 12, density=0.2)
    adata.varp["network"] = adata.varp["truth"]
    settings = {name: value for name, value in SMALL.items() if name != "network"}
    table = tr.tl.benchmark(adata, {"regnet": ("regnet", settings)}, scheme="edge", seeds=1, metrics=["auroc"])
    assert set(table["method"]) == {"regnet"}
    assert not table["error"].any()
    assert table["value"].notna().any()


def test_crowded_data_keep_their_other_slots():
    adata = crowded_toy()
    before = content(adata)
    run(adata)
    after = content(adata)
    assert {name: after[name] for name in before} == before


# real data


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheme", "auroc", "auprc"), [("edge", 0.9, 0.15), ("target", 0.88, 0.1), ("regulator", 0.8, 0.07)]
)
def test_edges_of_dendritic_cells(scheme, auroc, auprc, data_dir):
    adata = tr.datasets.beeline("mDC", "Non-Specific", path=data_dir)
    split(adata, scheme=scheme, universe="listed", test_frac=0.2)
    tr.tl.regnet(adata, network="network")
    table = tr.tl.evaluate(
        adata, "regnet", network="network", universe="listed", fold="test", metrics=["auroc", "auprc"], n_boot=0
    ).query("level == 'micro'")
    found = table.set_index(["key", "metric"])["value"]
    assert found["regnet", "auroc"] >= auroc
    assert found["regnet", "auprc"] >= auprc
    fit = record.read(adata, "regnet")["fit"]
    assert fit["participation_ratio"] >= 4
    std = adata.varp["regnet_std"].data.astype(float)
    assert (std**2).std() / (std**2).mean() >= 0.05  # the latent noise has not collapsed


@pytest.mark.data
@pytest.mark.slow
def test_a_graph_that_leaks_scores_higher_on_dendritic_cells(data_dir, monkeypatch):
    from sctrellis.models import _regnet_fit

    adata = tr.datasets.beeline("mDC", "Non-Specific", path=data_dir)
    split(adata, scheme="regulator", universe="listed", test_frac=0.2)
    row, column = pairs_in(adata, 3)
    label = np.asarray(adata.varp["network"][row, column]).ravel() > 0
    options = {"network": "network", "direction": "both", "reversed_pairs": "hide"}
    tr.tl.regnet(adata, **options)
    honest = average_precision_score(label, np.asarray(adata.varp["regnet"][row, column]).ravel())
    kept = _regnet_fit.message_edges
    monkeypatch.setattr(_regnet_fit, "message_edges", lambda row, column, held, n: kept(row, column, None, n))
    tr.tl.regnet(adata, **options, prior="network", prior_overlap="drop")
    leaky = average_precision_score(label, np.asarray(adata.varp["regnet"][row, column]).ravel())
    assert leaky > 2 * honest
    assert load_regnet(adata.uns["regnet"]["weights"], adata.uns["regnet"]["config"]).graph.count.max() > 0
