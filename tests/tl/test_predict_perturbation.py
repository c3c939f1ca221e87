"""Predicted perturbations against the dense solution, closed forms and refusals."""

import anndata
import numpy as np
import pandas as pd
import pytest
from helpers import content
from mudata import MuData
from screens import linear_screen

import sctrellis as tr


@pytest.fixture(scope="module")
def simulated():
    return linear_screen()


def dense_change(effects, held):
    """Return changes where genes are held, by inverting the cut system."""
    cut = effects.copy()
    cut[:, list(held)] = 0
    impulse = np.zeros(len(effects))
    impulse[list(held)] = list(held.values())
    return impulse @ np.linalg.inv(np.eye(len(effects)) - cut)


def test_changes_solve_the_cut_system(simulated):
    control, _, level = simulated
    genes = list(level)
    wanted = [genes[0], genes[1:3], f"{genes[0]}+{genes[4]}"]
    found = tr.tl.predict_perturbation(control, "truth_effect", wanted, level=level)
    assert list(found.obs_names) == [genes[0], "+".join(genes[1:3]), f"{genes[0]}+{genes[4]}"]
    effects, mean = control.varp["truth_effect"].toarray().astype(float), control.X.mean(axis=0, dtype=float)
    for name, row in zip(found.obs_names, found.layers["network"], strict=True):
        at = control.var_names.get_indexer(name.split("+"))
        held = {i: level[control.var_names[i]] - mean[i] for i in at}
        np.testing.assert_allclose(row, dense_change(effects, held), atol=1e-4)
    np.testing.assert_allclose(found.X, np.maximum(mean + found.layers["network"], 0), atol=1e-4)
    np.testing.assert_allclose(found.var["control_mean"], mean, rtol=1e-5)
    assert not found.layers["no_change"].any()
    out = np.diff(control.varp["truth_effect"].indptr)
    assert found.obs["n_edges"].tolist() == [
        out[control.var_names.get_indexer(name.split("+"))].sum() for name in found.obs_names
    ]
    assert found.obs["n_genes"].tolist() == [1, 2, 2]


def test_one_step_is_the_direct_targets(simulated):
    control, _, level = simulated
    gene = next(iter(level))
    found = tr.tl.predict_perturbation(control, "truth_effect", gene, level=level, n_steps=1)
    row = control.varp["truth_effect"][[gene == name for name in control.var_names]].toarray()[0]
    drop = level[gene] - control.X[:, control.var_names == gene].mean(dtype=float)
    expected = drop * row
    expected[control.var_names.get_loc(gene)] = drop
    np.testing.assert_allclose(found.layers["network"][0], expected, atol=1e-4)


def test_standardised_units_give_what_units_of_expression_give(simulated):
    control, _, level = simulated
    std = control.X.std(axis=0, dtype=float)
    other = control.copy()
    effects = control.varp["truth_effect"].toarray()
    other.varp["scaled"] = type(control.varp["truth_effect"])(effects * std[:, None] / std)
    first = tr.tl.predict_perturbation(control, "truth_effect", list(level), level=level)
    second = tr.tl.predict_perturbation(other, "scaled", list(level), level=level, units="standardised")
    np.testing.assert_allclose(first.layers["network"], second.layers["network"], atol=1e-4)


def test_ridge_over_all_genes_propagates_to_the_regression_on_the_perturbed_gene():
    adata = tr.datasets.simulate_grn(150, 20, 6)
    tr.tl.baseline(adata, "ridge", regulators="all")
    gene = adata.var_names[3]
    found = tr.tl.predict_perturbation(adata, "ridge", gene, level=0.0)
    x = adata.X.astype(float)
    mean, std = x.mean(axis=0), x.std(axis=0)
    shrunk = np.corrcoef(x.T) + tr.get.record(adata, "ridge")["fit"]["rho"] * np.eye(20)
    expected = -mean[3] / std[3] * shrunk[3] / shrunk[3, 3] * std
    kept = np.arange(20) != 3
    np.testing.assert_allclose(found.layers["network"][0, kept], expected[kept], atol=2e-3)


def test_levels(simulated):
    control, _, level = simulated
    genes = list(level)[:2]
    at = control.var_names.get_indexer(genes)
    mean = control.X.mean(axis=0, dtype=float)[at]
    wanted = {
        "knockout": np.zeros(2),
        "overexpress": np.quantile(control.X[:, at], 0.99, axis=0),
        3.5: np.full(2, 3.5),
    }
    for asked, expected in wanted.items():
        found = tr.tl.predict_perturbation(control, "truth_effect", genes, level=asked)
        held = found.layers["network"][[0, 1], at]
        np.testing.assert_allclose(held, expected - mean, atol=1e-4)
        np.testing.assert_allclose(found.uns["predict_perturbation"]["levels"]["level"], expected, rtol=1e-5)


def test_the_shuffled_network_has_the_degrees_but_not_the_targets(simulated):
    control, _, level = simulated
    found = tr.tl.predict_perturbation(control, "truth_effect", list(level), level=level, n_steps=1)
    moved = [(np.abs(found.layers[name]) > 1e-6).sum(axis=1) for name in ("network", "shuffled")]
    np.testing.assert_array_equal(*moved)
    assert np.corrcoef(found.layers["network"].ravel(), found.layers["shuffled"].ravel())[0, 1] < 0.9
    again = tr.tl.predict_perturbation(control, "truth_effect", list(level), level=level, n_steps=1)
    other = tr.tl.predict_perturbation(control, "truth_effect", list(level), level=level, n_steps=1, seed=1)
    np.testing.assert_array_equal(found.layers["shuffled"], again.layers["shuffled"])
    assert (found.layers["shuffled"] != other.layers["shuffled"]).any()


def test_baselines_learn_from_other_perturbations(simulated):
    control, screen, level = simulated
    screen = screen.copy()
    screen.varp["truth_effect"], screen.uns["simulate_grn"] = control.varp["truth_effect"], control.uns["simulate_grn"]
    genes = list(level)
    found = tr.tl.predict_perturbation(
        screen, "truth_effect", [*genes[:2], genes[:2]], level=level, groupby="target", control="control"
    )
    assert set(found.layers) == {"network", "no_change", "train_mean", "additive", "linear", "knn", "shuffled"}
    mean = {name: screen.X[screen.obs["target"] == name].mean(axis=0, dtype=float) for name in ["control", *genes]}
    np.testing.assert_allclose(found.var["control_mean"], mean["control"], rtol=1e-5)
    change = {gene: mean[gene] - mean["control"] for gene in genes}
    # A gene's own change is not learnt from: where it is perturbed, the mean of the others stands in.
    for gene in genes:
        at = screen.var_names.get_loc(gene)
        change[gene][at] = np.nan
    expected = np.nanmean([change[gene] for gene in genes[1:]], axis=0)
    np.testing.assert_allclose(found.layers["train_mean"][0], expected, atol=1e-4)
    both = found.layers["additive"][2]
    free = ~screen.var_names.isin(genes[:2])
    np.testing.assert_allclose(both[free], (change[genes[0]] + change[genes[1]])[free], atol=1e-4)


def test_what_is_read_is_not_changed_and_what_is_returned_can_be_stored(simulated, tmp_path):
    control, _, level = simulated
    before = content(control)
    found = tr.tl.predict_perturbation(control, "truth_effect", list(level)[:3], level=level)
    assert content(control) == before
    found.write_h5ad(tmp_path / "a.h5ad")
    found.write_zarr(tmp_path / "a.zarr")
    record = tr.get.record(found, "predict_perturbation")
    for back in (anndata.read_h5ad(tmp_path / "a.h5ad"), anndata.read_zarr(tmp_path / "a.zarr")):
        np.testing.assert_array_equal(back.layers["network"], found.layers["network"])
        stored = tr.get.record(back, "predict_perturbation")
        assert stored["params"] == record["params"]
        assert stored["fit"] == record["fit"]
        assert stored["levels"]["gene"].tolist() == list(level)[:3]


def test_modality(simulated):
    control, _, level = simulated
    gene = next(iter(level))
    mdata = MuData({"rna": control.copy()})
    found = tr.tl.predict_perturbation(mdata, "truth_effect", gene, level=level, mod="rna")
    expected = tr.tl.predict_perturbation(control, "truth_effect", gene, level=level)
    np.testing.assert_array_equal(found.layers["network"], expected.layers["network"])


def unstable(control):
    adata = control.copy()
    adata.varp["loud"] = control.varp["truth_effect"] * 100
    return adata


def test_effects_that_do_not_die_out(simulated):
    adata, level = unstable(simulated[0]), simulated[2]
    options = {"level": level, "units": "expression"}
    with pytest.raises(ValueError, match=r"spectral radius is \d+.*less than 1. Pass `max_radius=0.9`.*`n_steps=1`"):
        tr.tl.predict_perturbation(adata, "loud", list(level), **options)
    found = tr.tl.predict_perturbation(adata, "loud", list(level), max_radius=0.9, **options)
    fit = found.uns["predict_perturbation"]["fit"]
    assert fit["spectral_radius"] * fit["factor"] == pytest.approx(0.9)
    effects = adata.varp["loud"].toarray().astype(float) * fit["factor"]
    assert np.abs(np.linalg.eigvals(effects)).max() == pytest.approx(0.9, rel=0.02)
    gene = next(iter(level))
    at = adata.var_names.get_loc(gene)
    drop = level[gene] - adata.X[:, at].mean(dtype=float)
    np.testing.assert_allclose(found.layers["network"][0], dense_change(effects, {at: drop}), atol=1e-3)
    assert np.isfinite(tr.tl.predict_perturbation(adata, "loud", gene, n_steps=1, **options).X).all()


@pytest.mark.parametrize("method", ["gbm", "degree", "random"])
def test_scores_without_a_sign(adata, method):
    options = {"network": "known"} if method == "degree" else {}
    tr.tl.baseline(adata, method, **options)
    with pytest.raises(
        ValueError, match=f"holds scores of '{method}' that have no sign of an effect.*`sctrellis.tl.inf"
    ):
        tr.tl.predict_perturbation(adata, method, "TF0", units="standardised")


def test_probabilities(adata):
    tr.tl.edge_classifier(adata, "one_hot", network="known")
    with pytest.raises(ValueError, match="'one_hot' holds probabilities of edges: they cannot say whether"):
        tr.tl.predict_perturbation(adata, "one_hot", "TF0")


def test_correlations_are_not_coefficients_unless_the_user_says_so(adata):
    tr.tl.baseline(adata, "pearson")
    with pytest.raises(ValueError, match="is 'network' of 'pearson', which is not coefficients.*say in which `units`"):
        tr.tl.predict_perturbation(adata, "pearson", "TF0")
    found = tr.tl.predict_perturbation(adata, "pearson", "TF0", units="standardised", n_steps=1)
    x, std = adata.X.astype(float), adata.X.std(axis=0, dtype=float)
    expected = np.corrcoef(x.T)[0, 4:] * -x[:, 0].mean() / std[0] * std[4:]
    np.testing.assert_allclose(found.layers["network"][0, 4:], expected, rtol=1e-3, atol=1e-4)


def test_networks_without_a_record(adata):
    with pytest.raises(ValueError, match="'known' has no record that says that its scores are coefficients"):
        tr.tl.predict_perturbation(adata, "known", "TF0")
    with pytest.warns(UserWarning, match="No score of 'known' is negative"):
        tr.tl.predict_perturbation(adata, "known", "TF0", units="expression")


def test_a_gene_that_regulates_nothing(simulated):
    control, _, level = simulated
    gene = control.var_names[~control.var["is_regulator"]][0]
    with pytest.warns(UserWarning, match=f"No edge of 'truth_effect' leaves 1 of 1 perturbations \\('{gene}'\\)"):
        found = tr.tl.predict_perturbation(control, "truth_effect", gene)
    assert np.count_nonzero(found.layers["network"]) == 1


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"key": "nowhere"}, KeyError, "`key`: 'nowhere' not found in `adata.varp`"),
        (
            {"perturbed": "Gene_0"},
            ValueError,
            "1 of 1 `perturbed` are not in `adata.var_names`.*Did you mean 'gene_0'?",
        ),
        ({"perturbed": ["gene_0+nope"]}, ValueError, r"1 of 2 `perturbed` are not in `adata.var_names` \('nope'\)"),
        ({"perturbed": []}, ValueError, "Expected `perturbed` to name at least one gene"),
        ({"perturbed": [[]]}, ValueError, "Expected `perturbed` to name at least one gene"),
        ({"perturbed": "gene_0+gene_0"}, ValueError, "names a gene twice"),
        ({"perturbed": ["gene_0+gene_1", ["gene_1", "gene_0"]]}, ValueError, "or a perturbation twice"),
        ({"level": "off"}, ValueError, "Expected `level` to be one of 'knockout', 'overexpress'; found 'off'"),
        ({"level": -1.0}, ValueError, "Expected `level` to lie in"),
        ({"level": True}, TypeError, "Expected `level` to be a number, found True"),
        ({"level": {"gene_1": 0.0}}, ValueError, r"`level` has no entry for 1 of 1 perturbed genes \('gene_0'\)"),
        ({"n_steps": 0}, ValueError, "Expected `n_steps` to be at least 1, found 0"),
        ({"max_radius": 1.0}, ValueError, r"Expected `max_radius` to lie in \(0, 1\), found 1.0"),
        ({"units": "counts"}, ValueError, "Expected `units` to be one of"),
        ({"groupby": "target"}, ValueError, "`groupby` is given without `control`"),
        ({"control": "control"}, ValueError, "`control` is given without `groupby`"),
        ({"groupby": "target", "control": "no"}, KeyError, "`groupby`: 'target' not found in `adata.obs`"),
        ({"layer": "nope"}, KeyError, "`layer`: 'nope' not found"),
        ({"device": "cuda:99"}, (ValueError, RuntimeError), "cuda"),
    ],
)
def test_bad_input(simulated, change, error, message):
    with pytest.raises(error, match=message):
        tr.tl.predict_perturbation(simulated[0], **{"key": "truth_effect", "perturbed": "gene_0", **change})


@pytest.mark.parametrize(("value", "message"), [(np.nan, "has 1 NaN or infinite scores"), (0.0, "has no edge between")])
def test_bad_networks(adata, value, message):
    network = np.zeros((12, 12), np.float32)
    network[0, 5] = value
    adata.varp["mine"] = network
    with pytest.raises(ValueError, match=message):
        tr.tl.predict_perturbation(adata, "mine", "TF0", units="expression")


def test_a_screen_without_enough_control_cells(simulated):
    control, screen, level = simulated
    screen = screen.copy()
    screen.varp["truth_effect"] = control.varp["truth_effect"]
    screen.obs["target"] = pd.Categorical(np.where(np.arange(screen.n_obs) < 3, "none", screen.obs["target"]))
    options = {"units": "expression", "groupby": "target"}
    with pytest.raises(ValueError, match="`control`: only 3 cells are 'none': their mean needs at least 10"):
        tr.tl.predict_perturbation(screen, "truth_effect", list(level), control="none", **options)
    with pytest.raises(ValueError, match=r"`control`: no cell has 'NT' in `adata.obs\['target'\]`. Found: 'control'"):
        tr.tl.predict_perturbation(screen, "truth_effect", list(level), control="NT", **options)
