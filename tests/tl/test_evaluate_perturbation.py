"""Predicted against observed perturbations: a linear truth, a real screen, refusals."""

import anndata
import numpy as np
import pandas as pd
import pytest
from helpers import content
from screens import linear_screen

import sctrellis as tr
from sctrellis.metrics import shuffled_network

OPTIONS = {"groupby": "target", "control": "control", "k": 5}


@pytest.fixture(scope="module")
def simulated():
    control, screen, level = linear_screen()
    predicted = tr.tl.predict_perturbation(control, "truth_effect", list(level), level=level)
    return control, screen, level, predicted


@pytest.fixture
def screen(simulated):
    return simulated[1].copy()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_true_network_has_skill_and_a_shuffled_one_has_none(seed):
    control, screen, level = linear_screen(seed=seed)
    control.varp["mixed"] = shuffled_network(control.varp["truth_effect"], seed=99)
    models = {
        name: tr.tl.predict_perturbation(control, name, list(level), level=level, units="expression", max_radius=0.95)
        for name in ("truth_effect", "mixed")
    }
    table = tr.tl.evaluate_perturbation(screen, models, **OPTIONS)
    skill = table[table["metric"] == "skill"].set_index("method")
    assert skill.loc["truth_effect", "low"] > 0.5
    assert skill.loc["mixed", "value"] <= 0
    assert (skill.loc[skill["kind"] == "baseline", "value"] <= 0).all()
    record = tr.get.record(screen, "evaluate_perturbation")
    assert record["verdict"]["truth_effect"]["code"] == "better"
    assert record["verdict"]["mixed"]["code"] in ("worse", "not_told")
    # The truth leaves nothing but noise: it reaches the ceiling.
    assert skill.loc["truth_effect", "value"] == pytest.approx(record["fit"]["ceiling"], abs=0.05)
    assert skill["can_rank"].all()
    direction = table[table["metric"] == "direction"].set_index("method")["value"]
    assert direction["truth_effect"] > 0.9
    assert direction["no_change"] == pytest.approx(0.5)


def test_numbers_by_hand(simulated, screen):
    predicted, level = simulated[3], simulated[2]
    table = tr.tl.evaluate_perturbation(screen, predicted, **OPTIONS)
    labels = screen.obs["target"].to_numpy()
    x = screen.X.astype(float)
    start, errors, mean_errors, floors = x[labels == "control"].mean(axis=0), [], [], []
    changes = {gene: x[labels == gene].mean(axis=0) - start for gene in level}
    for gene in level:
        kept = screen.var_names != gene
        others = np.array([np.where(screen.var_names == g, np.nan, changes[g]) for g in level if g != gene])
        errors.append(np.mean((predicted[gene].layers["network"][0] - changes[gene])[kept] ** 2))
        mean_errors.append(np.mean((np.nanmean(others, axis=0) - changes[gene])[kept] ** 2))
        variances = [x[labels == name].var(axis=0) / (labels == name).sum() for name in (gene, "control")]
        floors.append(np.sum(variances, axis=0)[kept].mean())
    found = table.set_index(["method", "metric"])["value"]
    assert found["truth_effect", "mse"] == pytest.approx(np.mean(errors), rel=1e-3)
    assert found["train_mean", "mse"] == pytest.approx(np.mean(mean_errors), rel=1e-3)
    record = tr.get.record(screen, "evaluate_perturbation")
    best = record["fit"]["best_baseline"]
    assert found["truth_effect", "skill"] == pytest.approx(1 - np.mean(errors) / found[best, "mse"], rel=1e-3)
    assert record["fit"]["ceiling"] == pytest.approx(1 - np.mean(floors) / found[best, "mse"], rel=1e-3)
    each = record["perturbations"].query("method == 'truth_effect'").set_index("perturbation")
    np.testing.assert_allclose(each.loc[list(level), "mse"], errors, rtol=1e-3)
    np.testing.assert_allclose(each.loc[list(level), "noise"], floors, rtol=1e-3)
    assert set(each["n_cells"]) == {60}


def test_combinations_add_up():
    singles, pairs = [[i] for i in range(8)], [[0, 1], [2, 3], [4, 5], [6, 7], [1, 2]]
    control, screen, level = linear_screen([*singles, *pairs], n_cells=400)
    genes = list(level)
    wanted = [[genes[j] for j in reversed(pair)] for pair in pairs]
    predicted = tr.tl.predict_perturbation(control, "truth_effect", wanted, level=level)
    table = tr.tl.evaluate_perturbation(screen, predicted, **OPTIONS).set_index(["method", "metric"])
    # In a linear model the changes of single genes add up, but for what one tells the other.
    assert table.loc[("additive", "pearson"), "value"] > 0.9
    assert table.loc[("additive", "mse"), "value"] < 0.3 * table.loc[("train_mean", "mse"), "value"]
    assert (table["n_perturbations"] <= 5).all()
    left = tr.get.record(screen, "evaluate_perturbation")["left_out"]
    assert left["perturbation"].tolist() == sorted(genes[:8])
    assert set(left["reason"]) == {"not predicted"}


def test_cells_without_a_label_and_small_groups_do_not_count(simulated, screen):
    level, predicted = simulated[2], simulated[3]
    genes = list(level)
    first = tr.tl.evaluate_perturbation(screen, predicted, **OPTIONS)
    noise = screen[:30].copy()
    noise.X = noise.X + np.float32(50)
    noise.obs["target"] = [None] * 25 + ["gene_x"] * 5
    both = anndata.concat([screen, noise], index_unique="-")
    with pytest.warns(UserWarning, match="values up to"):
        second = tr.tl.evaluate_perturbation(both, predicted, **OPTIONS)
    pd.testing.assert_frame_equal(first, second, rtol=1e-6)
    assert tr.get.record(both, "evaluate_perturbation")["left_out"].to_numpy().tolist() == [
        ["gene_x", "5 cells, fewer than 20"]
    ]
    screen.obs["target"] = screen.obs["target"].astype("category")
    pd.testing.assert_frame_equal(first, tr.tl.evaluate_perturbation(screen, predicted, **OPTIONS))
    assert len(genes) == 12


def test_tables_of_other_tools_by_name(simulated, screen):
    level, predicted = simulated[2], simulated[3]
    table = predicted.to_df("network")
    models = {"tool": table.iloc[::-1, ::-1], "half": table / 2}
    found = tr.tl.evaluate_perturbation(screen, models, **OPTIONS).set_index(["method", "metric"])["value"]
    expected = tr.tl.evaluate_perturbation(screen, predicted, **OPTIONS).set_index(["method", "metric"])["value"]
    assert found["tool", "mse"] == pytest.approx(expected["truth_effect", "mse"])
    assert found["tool", "mse"] < found["half", "mse"]
    assert "shuffled" not in found.index.get_level_values("method")
    with pytest.warns(UserWarning, match="`predicted` has 30 of the 40 genes of `adata`"):
        tr.tl.evaluate_perturbation(screen, table.iloc[:, :30], **OPTIONS)
    assert tr.get.record(screen, "evaluate_perturbation")["fit"]["n_genes"] == 30
    assert len(level) == 12


def test_a_network_that_saw_the_perturbed_cells(simulated, screen):
    screen.var["is_regulator"] = simulated[0].var["is_regulator"]
    tr.tl.baseline(screen, "ridge")
    predicted = tr.tl.predict_perturbation(screen, "ridge", list(simulated[2]), groupby="target", control="control")
    with pytest.warns(UserWarning, match="'ridge' was inferred from 1,120 cells.*Infer it from control cells alone"):
        tr.tl.evaluate_perturbation(screen, predicted, **OPTIONS)


def test_few_perturbations_are_undecided(simulated, screen):
    few = screen[screen.obs["target"].isin(["control", *list(simulated[2])[:4]])].copy()
    table = tr.tl.evaluate_perturbation(few, simulated[3], **OPTIONS)
    assert table["low"].isna().all()
    assert set(table["note"]) == {"only 4 perturbations: an interval needs 5", "constant predictions"}
    verdict = tr.get.record(few, "evaluate_perturbation")["verdict"]["truth_effect"]
    assert verdict["code"] == "undecided"
    assert verdict["words"].startswith("Undecided, skill 0.")


def test_records_are_equal_and_survive(simulated, screen, tmp_path):
    predicted = simulated[3]
    before = content(screen)
    first = tr.tl.evaluate_perturbation(screen, predicted, **OPTIONS)
    after = content(screen)
    assert {name: text for name, text in after.items() if name in before} == before
    again = simulated[1].copy()
    tr.tl.evaluate_perturbation(again, predicted, **OPTIONS)
    assert content(again) == after
    tr.tl.evaluate_perturbation(again, predicted, key_added="other", seed=1, **OPTIONS)
    assert "other" in again.uns
    screen.write_h5ad(tmp_path / "a.h5ad")
    screen.write_zarr(tmp_path / "a.zarr")
    for back in (anndata.read_h5ad(tmp_path / "a.h5ad"), anndata.read_zarr(tmp_path / "a.zarr")):
        record = tr.get.record(back, "evaluate_perturbation")
        stored = record["table"].reset_index(drop=True).astype(first.dtypes.to_dict())
        pd.testing.assert_frame_equal(stored, first, check_index_type=False)
        assert record["verdict"]["truth_effect"]["code"] == "better"


def test_features_may_be_an_embedding(simulated, screen):
    screen.varm["good"] = simulated[0].varp["truth_effect"].toarray()
    predicted = simulated[3]
    tables = [
        tr.tl.evaluate_perturbation(screen, predicted, embedding=name, **OPTIONS).set_index(["method", "metric"])
        for name in (None, "good")
    ]
    assert tables[0].loc[("linear", "mse"), "value"] != tables[1].loc[("linear", "mse"), "value"]
    assert tables[0].loc[("train_mean", "mse"), "value"] == tables[1].loc[("train_mean", "mse"), "value"]


def table_of(value, rows=("gene_0",), columns=("gene_0", "gene_1")):
    return pd.DataFrame(value, index=list(rows), columns=list(columns))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"groupby": "nope"}, KeyError, "`groupby`: 'nope' not found in `adata.obs`"),
        ({"control": "NT"}, ValueError, "`control`: no cell has 'NT'"),
        ({"min_cells": 1000}, ValueError, "0 perturbations of 'target' have at least 1000 cells.*Lower `min_cells`"),
        ({"min_cells": 1}, ValueError, "Expected `min_cells` to be at least 2"),
        ({"k": 40}, ValueError, "Expected `k` to be at most the number of genes that are judged, 39"),
        ({"min_change": -1}, ValueError, "Expected `min_change` to lie in"),
        ({"level": 95}, ValueError, r"Expected `level` to lie in \(0, 1\)"),
        ({"n_boot": -1}, ValueError, "Expected `n_boot` to be at least 0"),
        ({"layer": "nope"}, KeyError, "`layer`: 'nope' not found"),
        ({"embedding": "nope"}, KeyError, "`embedding`: 'nope' not found"),
        ({"predicted": np.ones(3)}, TypeError, "Expected `predicted` to be an AnnData.*found ndarray"),
        ({"predicted": {}}, ValueError, "`predicted` is empty"),
        ({"predicted": {"knn": table_of(0.0)}}, ValueError, "'knn' is the name of a baseline"),
        ({"predicted": {"a/b": table_of(0.0)}}, ValueError, "Expected `predicted` to be a non-empty name without '/'"),
        (
            {"predicted": table_of(0.0, rows=["STAT1"])},
            ValueError,
            "none of the 12 observed perturbations.*same names?",
        ),
        (
            {"predicted": table_of(0.0, ["gene_10"], ["STAT1", "IRF1"])},
            ValueError,
            "None of the 2 names in `predicted`",
        ),
        ({"predicted": anndata.AnnData(np.ones((2, 2)))}, KeyError, "'network' not found in `predicted.layers`"),
    ],
)
@pytest.mark.filterwarnings("ignore:`predicted` has 2 of")
def test_bad_input(simulated, screen, change, error, message):
    options = {"predicted": simulated[3], **OPTIONS, **change}
    before = content(screen)
    with pytest.raises(error, match=message):
        tr.tl.evaluate_perturbation(screen, options.pop("predicted"), **options)
    assert content(screen) == before


def test_bad_tables(simulated, screen):
    table = simulated[3].to_df("network")
    table.iloc[0, 0] = np.nan
    with pytest.raises(ValueError, match="'predicted' has 1 NaN or infinite changes"):
        tr.tl.evaluate_perturbation(screen, table, **OPTIONS)
    twice = pd.concat([simulated[3].to_df("network")] * 2)
    with pytest.raises(ValueError, match="'predicted' has a perturbation or a gene twice"):
        tr.tl.evaluate_perturbation(screen, twice, **OPTIONS)


@pytest.mark.data
def test_a_real_screen(data_dir):
    path = data_dir / "perturb" / "papalexi2021_eccite_THP1_299genes.h5ad"
    if not path.is_file():
        pytest.skip(f"needs {path.name} under SCTRELLIS_DATA")
    import scanpy as sc

    adata = anndata.read_h5ad(path)
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    control = adata[adata.obs["target"] == "non-targeting"].copy()
    tr.tl.baseline(control, "ridge", regulators="all")
    genes = [gene for gene in adata.obs["target"].unique() if gene in adata.var_names]
    assert len(genes) == 9
    predicted = tr.tl.predict_perturbation(control, "ridge", genes)
    table = tr.tl.evaluate_perturbation(adata, predicted, groupby="target", control="non-targeting")
    record = tr.get.record(adata, "evaluate_perturbation")
    assert (record["fit"]["n_perturbations"], record["fit"]["n_train"]) == (9, 25)
    assert len(record["left_out"]) == 16
    # Knock-outs of one pathway dominate this screen: most of the squared change is real, and the mean has much of it.
    assert 0.8 < record["fit"]["ceiling"] < 1
    value = table.set_index(["method", "metric"])["value"]
    assert value["train_mean", "mse"] < value["no_change", "mse"]
    loudest = record["perturbations"].query("method == 'no_change'").nlargest(3, "mse")["perturbation"]
    assert set(loudest) == {"STAT1", "JAK2", "IFNGR2"}
    # What co-varies in control cells knows directions that a shuffle does not; it is no better than the best baseline.
    assert value["ridge", "direction"] > value["shuffled", "direction"] + 0.05
    assert record["verdict"]["ridge"]["code"] != "better"
