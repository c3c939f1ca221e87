import re
from functools import cache

import anndata as ad
import mudata as md
import numpy as np
import pytest
from helpers import content
from scipy import sparse

import sctrellis as tr
from sctrellis._core import record
from sctrellis.explain import regnet_sensitivity
from sctrellis.metrics import counting_noise, eb_weight
from sctrellis.models import load_regnet

# A model this small and short may be flat; what it says does not matter here.
pytestmark = pytest.mark.filterwarnings("ignore:The latent means of the genes use")

QUICK = {"n_init": 2, "n_rewired": 3, "n_boot": 20}
COLUMNS = ("self_weight", "alignment", "shrinkage", "region_radius", "eb_weight", "in_degree", "mean_expression")


@cache
def _fitted(direction):
    adata = tr.datasets.toy()
    adata.layers["counts"] = np.rint(np.expm1(adata.X) * 3)
    tr.pp.split_edges(adata, "network")
    tr.tl.regnet(adata, network="network", max_epochs=1, hidden=16, latent=16, direction=direction)
    return adata


def fitted(direction="regulators"):
    return _fitted(direction).copy()


@cache
def _measured():
    adata = fitted()
    tr.tl.shrinkage(adata, **QUICK)
    return adata


def measured():
    return _measured().copy()


def of_genes(adata, name, key="regnet"):
    return adata.var[f"{key}_{name}"].to_numpy()


def table(adata, name, key="regnet"):
    return tr.get.record(adata, f"{key}_shrinkage")[name]


def test_what_is_written_is_what_the_record_names():
    before, after = content(fitted()), content(measured())
    assert {slot: text for slot, text in before.items() if after[slot] != text} == {}
    entry = tr.get.record(measured(), "regnet_shrinkage")
    assert set(after) - set(before) == {*entry["slots"].values(), "uns/regnet_shrinkage"}
    assert set(entry["slots"]) == {
        *COLUMNS, "initialised_weight", "initialised_alignment", "rewired_weight", "rewired_alignment"
    }  # fmt: skip
    assert all(measured().var[f"regnet_{name}"].dtype == np.float32 for name in COLUMNS)


@pytest.mark.parametrize("direction", ["regulators", "targets", "both"])
@pytest.mark.parametrize("depth", ["layer", "stack_local", "stack_joint"])
def test_values_are_those_of_the_model_in_the_record(depth, direction):
    adata = fitted(direction)
    tr.tl.shrinkage(adata, depth=depth, n_init=0, n_rewired=0, n_boot=0)
    entry = tr.get.record(adata, "regnet")
    model = load_regnet(entry["weights"], entry["config"]).double()
    found = regnet_sensitivity(model, depth=depth)
    for name in ("self_weight", "alignment", "region_radius"):
        np.testing.assert_allclose(of_genes(adata, name), getattr(found, name), rtol=1e-6)
    assert ("regnet_attention_share" in adata.var) == (depth == "stack_local")
    # In-degree, and nothing for genes without: never a made-up number.
    degree = of_genes(adata, "in_degree")
    np.testing.assert_array_equal(degree, model.graph.count)
    assert (degree == 0).any()
    for name in ("self_weight", "alignment", "shrinkage", "eb_weight", "region_radius"):
        assert np.isnan(of_genes(adata, name)[degree == 0]).all()
    assert np.isfinite(of_genes(adata, "self_weight")[degree > 0]).any()


def test_only_aligned_genes_are_said_to_be_shrunk():
    adata = fitted()
    tr.tl.shrinkage(adata, min_alignment=0.05, **QUICK)
    weight, angle, shrunk = (of_genes(adata, name) for name in ("self_weight", "alignment", "shrinkage"))
    aligned = angle >= 0.05
    assert aligned.any()
    assert (np.isfinite(angle) & ~aligned).any()
    np.testing.assert_allclose(shrunk[aligned], 1 - weight[aligned])
    assert np.isnan(shrunk[~aligned]).all()
    reading = table(adata, "reading")
    assert reading["aligned_share"] == pytest.approx(aligned.sum() / np.isfinite(angle).sum())
    assert reading["licensed"] == (reading["aligned_share"] >= 0.5)
    strict = table(measured(), "reading")
    assert strict["words"].startswith("self share of sensitivity: ")
    assert not strict["licensed"]


def test_an_empirical_bayes_aggregator_is_licensed():
    adata = fitted()
    tr.tl.regnet(adata, network="network", max_epochs=1, hidden=16, latent=16, aggregator="eb", key_added="eb")
    for depth in ("layer", "stack_local"):
        tr.tl.shrinkage(adata, "eb", depth=depth, key_added=depth, **QUICK)
        defined = np.isfinite(of_genes(adata, "self_weight", depth))
        np.testing.assert_allclose(of_genes(adata, "alignment", depth)[defined], 1, atol=1e-6)
        assert table(adata, "reading", depth)["licensed"]
        assert table(adata, "reading", depth)["words"].startswith("shrinkage-like: ")
    entry = tr.get.record(adata, "eb")
    model = load_regnet(entry["weights"], entry["config"]).double()
    weight = model.sage[0].own_weight(model.graph.count, model.noise_variance).detach().numpy()
    np.testing.assert_allclose(of_genes(adata, "self_weight", "layer")[defined], weight[defined], rtol=1e-6)


@pytest.mark.parametrize("direction", ["regulators", "both"])
def test_the_weight_of_the_data_by_hand(direction):
    adata = fitted(direction)
    tr.tl.shrinkage(adata, n_init=0, n_rewired=0, n_boot=0)
    x = np.asarray(adata.X, dtype=np.float64)
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    weights = tr.get.record(adata, "regnet")["weights"]
    expected = np.full(adata.n_vars, np.nan)
    noise = counting_noise(np.expm1(x).mean(axis=0)) / x.var(axis=0)
    for gene in range(adata.n_vars):
        sets = [weights["regulator"][weights["target"] == gene]]
        sets += [weights["target"][weights["regulator"] == gene]] if direction == "both" else []
        means = [z[:, s].mean(axis=1) for s in sets if len(s)]
        if means:
            deviation = ((z[:, gene] - np.mean(means, axis=0)) ** 2).mean()
            expected[gene] = eb_weight([deviation], [noise[gene]], n_samples=len(z))[0]
    np.testing.assert_allclose(of_genes(adata, "eb_weight"), expected, rtol=1e-4, atol=1e-5)


def test_counts_measure_the_noise():
    adata, other = fitted(), measured()
    tr.tl.shrinkage(adata, counts="counts", **QUICK)
    assert not np.allclose(of_genes(adata, "eb_weight"), of_genes(other, "eb_weight"), equal_nan=True)
    np.testing.assert_array_equal(of_genes(adata, "self_weight"), of_genes(other, "self_weight"))
    assert table(adata, "noise") == "thinning of layers/counts"
    sparse_counts = fitted()
    sparse_counts.layers["counts"] = sparse.csr_matrix(sparse_counts.layers["counts"])
    tr.tl.shrinkage(sparse_counts, counts="counts", **QUICK)
    np.testing.assert_array_equal(of_genes(sparse_counts, "eb_weight"), of_genes(adata, "eb_weight"))


def test_controls_differ_from_the_model_and_from_one_another():
    adata = measured()
    weight = of_genes(adata, "self_weight")
    defined = np.isfinite(weight)
    for short, n in (("initialised", 2), ("rewired", 3)):
        controls = adata.varm[f"regnet_{short}_weight"]
        assert controls.shape == (adata.n_vars, n)
        np.testing.assert_array_equal(np.isfinite(controls).all(axis=1), defined)
        columns = np.column_stack([controls[defined], weight[defined]])
        assert np.abs(np.diff(columns, axis=1)).max(axis=0).min() > 1e-3
    assert 0 <= tr.get.record(adata, "regnet_shrinkage")["fit"]["rewired_overlap"] < 1
    claims, correlations = table(adata, "claims"), table(adata, "correlations")
    assert claims["quantity"].tolist() == ["in_degree", "spread", "mean_expression", "is_regulator"]
    assert correlations["quantity"].tolist() == ["in_degree", "mean_expression", "eb_weight", "is_regulator"]
    from scipy.stats import spearmanr

    degree = of_genes(adata, "in_degree")
    line = correlations.set_index("quantity").loc["in_degree"]
    assert line["value"] == pytest.approx(spearmanr(weight[defined], degree[defined]).statistic, abs=1e-6)
    each = [spearmanr(c[defined], degree[defined]).statistic for c in adata.varm["regnet_rewired_weight"].T]
    assert line["rewired"] == pytest.approx(np.mean(each), abs=1e-6)
    assert line["over_rewired"] == pytest.approx(line["value"] - np.mean(each), abs=1e-6)


def test_without_controls_or_bootstrap_nothing_is_claimed():
    for options in ({"n_init": 0, "n_rewired": 0}, {"n_boot": 0}):
        adata = fitted()
        tr.tl.shrinkage(adata, **{**QUICK, **options})
        assert set(table(adata, "claims")["verdict"]) == {"undecided"}


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_a_file_is_enough(form, tmp_path):
    adata, path = fitted(), tmp_path / f"x.{form}"
    getattr(adata, f"write_{form}")(path)
    read = getattr(ad, f"read_{form}")(path)
    for one in (adata, read):
        tr.tl.shrinkage(one, **QUICK)
    for name in COLUMNS:
        np.testing.assert_array_equal(of_genes(read, name), of_genes(adata, name))
    read.write_h5ad(tmp_path / "y.h5ad")
    again = ad.read_h5ad(tmp_path / "y.h5ad")
    one, other = (tr.get.record(a, "regnet_shrinkage") for a in (again, adata))
    assert one["reading"] == other["reading"]
    for name in ("claims", "correlations", "curves", "distribution"):
        assert one[name].to_csv() == other[name].to_csv()


def test_a_view_a_copy_another_key_and_a_modality():
    adata = fitted()
    before = content(adata)
    returned = tr.tl.shrinkage(adata, key_added="sw", copy=True, **QUICK)
    assert content(adata) == before
    assert "sw_self_weight" in returned.var
    assert "regnet_self_weight" not in returned.var
    np.testing.assert_array_equal(of_genes(returned, "self_weight", "sw"), of_genes(measured(), "self_weight"))
    mdata = md.MuData({"rna": fitted()})
    assert tr.tl.shrinkage(mdata, mod="rna", **QUICK) is None
    np.testing.assert_array_equal(of_genes(mdata["rna"], "self_weight"), of_genes(measured(), "self_weight"))


def test_seeds_decide_controls_and_nothing_else():
    again, other, drawn = fitted(), fitted(), fitted()
    tr.tl.shrinkage(again, **QUICK)
    assert content(again) == content(measured())
    tr.tl.shrinkage(other, seed=1, **QUICK)
    np.testing.assert_array_equal(of_genes(other, "self_weight"), of_genes(again, "self_weight"))
    for short in ("initialised", "rewired"):
        assert not np.array_equal(
            other.varm[f"regnet_{short}_weight"], again.varm[f"regnet_{short}_weight"], equal_nan=True
        )
    tr.tl.shrinkage(drawn, seed=None, **QUICK)
    tr.tl.shrinkage(again, seed=record.read(drawn, "regnet_shrinkage")["seed"], **QUICK)
    assert content(again) == content(drawn)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"key": "nothing"}, KeyError, "`key`: 'nothing' not found in `adata.uns`."),
        ({"key": "network_fold"}, ValueError, "one of 'regnet' or 'regnet_finetune' is needed"),
        ({"depth": "deep"}, ValueError, "Expected `depth` to be one of 'layer', 'stack_local', 'stack_joint'"),
        ({"method": "guess"}, ValueError, "Expected `method` to be one of 'jvp', 'finite_difference', 'secant'"),
        ({"depth": "stack_local", "method": "secant"}, ValueError, "takes `method='jvp'` only, found 'secant'."),
        ({"step": 0}, ValueError, "Expected `step` to lie in (0, inf], found 0."),
        ({"min_alignment": 2}, ValueError, "Expected `min_alignment` to lie in [-1, 1], found 2."),
        ({"n_init": -1}, ValueError, "Expected `n_init` to be at least 0, found -1."),
        ({"n_rewired": 1.5}, TypeError, "Expected `n_rewired` to be an integer, found 1.5."),
        ({"counts": "raw"}, KeyError, "`counts`: 'raw' not found in `adata.layers`."),
        ({"counts": "fractions"}, ValueError, "Expected `counts` to hold counts of molecules"),
        ({"device": "tpu"}, ValueError, "Expected `device` to be"),
        ({"key_added": "a/b"}, ValueError, "Expected `key_added` to be a non-empty name"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(options, error, message):
    adata = fitted()
    adata.layers["fractions"] = adata.layers["counts"] + 0.5
    before = content(adata)
    with pytest.raises(error, match=re.escape(message)):
        tr.tl.shrinkage(adata, **{**QUICK, **options})
    assert content(adata) == before


def test_weights_of_other_genes_are_refused():
    adata = fitted()
    for other in (adata[:, :20].copy(), adata[:, ::-1].copy()):
        with pytest.raises(ValueError, match=r"Its weights belong to those genes"):
            tr.tl.shrinkage(other, **QUICK)


def test_a_model_without_messages_is_refused():
    adata = fitted()
    weights = adata.uns["regnet"]["weights"]
    adata.uns["regnet"]["weights"] = weights | {name: weights[name][:0] for name in ("regulator", "target")}
    with pytest.raises(ValueError, match=r"has no edge in its message graph, so no gene has neighbours\."):
        tr.tl.shrinkage(adata, **QUICK)


def test_the_mean_expression_is_that_of_the_layer_of_the_fit():
    adata = fitted()
    adata.layers["half"] = adata.X / 2
    tr.tl.regnet(adata, network="network", max_epochs=1, hidden=16, latent=16, layer="half")
    tr.tl.shrinkage(adata, **QUICK)
    np.testing.assert_allclose(
        of_genes(adata, "mean_expression"), of_genes(measured(), "mean_expression") / 2, rtol=1e-5
    )
    assert tr.get.record(adata, "regnet_shrinkage")["inputs"]["slot"] == "layers/half"


@pytest.mark.parametrize("method", ["finite_difference", "secant"])
def test_other_methods_are_at_hand(method):
    adata, exact = fitted(), of_genes(measured(), "self_weight")
    tr.tl.shrinkage(adata, method=method, n_init=0, n_rewired=0, n_boot=0)
    gap = np.nanmax(np.abs(of_genes(adata, "self_weight") - exact))
    assert gap < 1e-5 if method == "finite_difference" else gap > 1e-3
