import re

import anndata as ad
import numpy as np
import pytest
import torch
from helpers import content, digest
from scipy import sparse

import sctrellis as tr
from sctrellis._core import record
from sctrellis.tl._fitted_regnet import read_regnet

# Toy data have few directions, of which RegNet warns.
pytestmark = pytest.mark.filterwarnings("ignore:The latent means of the genes:UserWarning")
SMALL = {"n_fisher": 16, "max_epochs": 2}
SLOTS = (
    *("varp/regnet_finetune", "varp/regnet_finetune_prob", "varp/regnet_finetune_std"),
    *("varm/X_regnet_finetune", "var/regnet_finetune_gate", "uns/regnet_finetune"),
)


@pytest.fixture(scope="module")
def source():
    """Cells on which a RegNet was fitted."""
    adata = tr.datasets.toy()
    tr.pp.split_edges(adata, "network")
    tr.tl.regnet(adata, network="network", hidden=8, latent=4, n_features=8, max_epochs=2)
    return adata


def other_cells(seed=1):
    """Other cells and other edges, of the same genes less three, in another order."""
    adata = tr.datasets.toy(seed=seed)
    order = np.random.default_rng(0).permutation(adata.n_vars)[:-3]
    adata = adata[:, order].copy()
    tr.pp.split_edges(adata, "network", seed=seed)
    return adata


def run(adata, source, **options):
    tr.tl.regnet_finetune(adata, source, **{**SMALL, **options})
    return adata


def result(adata, key="regnet_finetune"):
    slots = record.read(adata, key)["slots"].values()
    return digest([getattr(adata, room)[name] for room, name in (slot.split("/") for slot in slots)])


def test_labels_of_these_cells_change_no_bit(source):
    plain = run(other_cells(), source)
    for value in (None, 1 - plain.varp["network"].toarray()):
        changed = other_cells()
        if value is None:
            del changed.varp["network"], changed.varp["network_fold"]
        else:
            changed.varp["network"] = sparse.csr_matrix(value, dtype=np.float32)
        run(changed, source)
        assert result(changed) == result(plain)
        assert digest(changed.uns["regnet_finetune"]) == digest(plain.uns["regnet_finetune"])
    # Only the folds are read of what it will be judged on.
    judged, changed = other_cells(), other_cells()
    changed.varp["network"] = sparse.csr_matrix(1 - changed.varp["network"].toarray(), dtype=np.float32)
    assert result(run(changed, source, held_out="network")) == result(run(judged, source, held_out="network"))
    assert result(judged) != result(plain)


def test_only_its_slots_appear_and_the_source_stays(source):
    adata, before_source = other_cells(), content(source)
    before = content(adata)
    run(adata, source)
    after = content(adata)
    assert set(after) - set(before) == set(SLOTS)
    assert {name: after[name] for name in before} == before
    assert content(source) == before_source
    copied = other_cells()
    found = tr.tl.regnet_finetune(copied, source, **SMALL, copy=True)
    assert content(copied) == before
    assert content(found) == after
    found = record.read(adata, "regnet_finetune")
    assert found["source"]["network"] == "network"
    assert found["source"]["folds_used"] == ["train", "validation"]
    assert found["source"]["hashes"]["graph"] == source.uns["regnet"]["hashes"]["graph"]
    assert found["params"]["source_key"] == "regnet"


def test_genes_and_edges_are_matched_by_name(source):
    adata = run(other_cells(), source)
    (_, old), (_, new) = read_regnet(source, "regnet"), read_regnet(adata, "regnet_finetune")

    def named(model, names):
        return set(zip(names[model.regulator.numpy()], names[model.target.numpy()], strict=True))

    there = set(adata.var_names)
    expected = {edge for edge in named(old, source.var_names) if set(edge) <= there}
    assert named(new, adata.var_names) == expected
    assert record.read(adata, "regnet_finetune")["fit"]["n_shared_genes"] == 27
    judged = run(other_cells(), source, held_out="network")
    folds = judged.varp["network_fold"].tocoo()
    asked = {
        frozenset((judged.var_names[i], judged.var_names[j]))
        for i, j, fold in zip(folds.row, folds.col, folds.data, strict=True)
        if fold > 1
    }
    _, model = read_regnet(judged, "regnet_finetune")
    assert named(model, judged.var_names) == {edge for edge in expected if frozenset(edge) not in asked}


def test_seeds(source):
    one, same, other = (run(other_cells(), source, seed=s) for s in (0, 0, 1))
    assert content(one) == content(same)
    assert result(one) != result(other)


@pytest.mark.parametrize("store", ["h5ad", "zarr"])
def test_the_model_is_rebuilt_from_a_file(source, store, tmp_path):
    adata = run(other_cells(), source)
    getattr(adata, f"write_{store}")(tmp_path / "x")
    back = getattr(ad, f"read_{store}")(tmp_path / "x")
    (_, first), (_, again) = read_regnet(adata, "regnet_finetune"), read_regnet(back, "regnet_finetune")
    assert torch.equal(again.encode().mu, first.encode().mu)
    np.testing.assert_allclose(first.encode().mu.detach(), adata.varm["X_regnet_finetune"], rtol=1e-6)


# bad input


def test_a_source_must_be_a_regnet_of_its_own_genes(source):
    adata = other_cells()
    before = content(adata)
    with pytest.raises(TypeError, match=r"Expected `source` to be an AnnData .*, found dict"):
        run(adata, source.uns["regnet"])
    with pytest.raises(KeyError, match=r"`source_key`: 'nothing' not found in `source.uns`"):
        run(adata, source, source_key="nothing")
    with pytest.raises(ValueError, match=r"fitted on 30 genes, and the 12 of `source` are others or in another order"):
        run(adata, source[:, :12].copy())
    mixed = source.copy()
    tr.tl.edge_classifier(mixed, "degree")
    with pytest.raises(
        ValueError, match=r"`source.uns\['degree'\]` is a record of 'degree', and one of 'regnet' is needed"
    ):
        run(adata, mixed, source_key="degree")
    renamed = other_cells()
    renamed.var_names = [f"other{i}" for i in range(renamed.n_vars)]
    with pytest.raises(ValueError, match=r"share 0 genes by name; at least 10 are needed.*same identifiers"):
        run(renamed, source)
    assert content(adata) == before


def test_folds_of_the_source_must_be_those_of_its_fit(source):
    split_again = source.copy()
    tr.pp.split_edges(split_again, "network", seed=5)
    with pytest.raises(ValueError, match=r"the folds of 'network' have changed since its RegNet was fitted"):
        run(other_cells(), split_again)
    del split_again.varp["network"]
    with pytest.raises(KeyError, match=r"`source`: 'network' not found"):
        run(other_cells(), split_again)
    found = run(other_cells(), split_again, ewc=0.0)  # nothing to weigh the weights by
    assert "pull" not in record.read(found, "regnet_finetune")["history"]


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("mask_frac", 0, ValueError, "Expected `mask_frac` to lie in (0, 1), found 0."),
        ("ewc", 1, ValueError, "Expected `ewc` to lie in [0, 1), found 1."),
        ("contrast", -1, ValueError, "Expected `contrast` to lie in [0, inf], found -1."),
        ("temperature", 0, ValueError, "Expected `temperature` to lie in (0, inf], found 0."),
        ("n_fisher", 0, ValueError, "Expected `n_fisher` to be at least 1, found 0."),
        ("patience", "no", TypeError, "Expected `patience` to be an integer, found 'no'."),
        ("held_out", "nothing", KeyError, "run `sctrellis.pp.split_edges(adata, 'nothing')` first"),
        ("prior", "nothing", KeyError, "`prior`: 'nothing' not found"),
    ],
)
def test_settings_are_checked(source, name, value, error, message):
    adata = other_cells()
    before = content(adata)
    with pytest.raises(error, match=re.escape(message)):
        run(adata, source, **{name: value})
    assert content(adata) == before
