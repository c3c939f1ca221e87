import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
from helpers import containers, content, digest

import sctrellis as tr
from sctrellis import metrics

FAST = {"fractions": [0.5, 1], "r2": [0.2, 0.4], "n_targets": 20, "n_repeats": 1, "n_sims": 2, "n_draws": 1}
TABLES = ("size", "curve", "detectable", "doubled", "components", "removal", "certificate")


def cells(n=80, seed=0):
    adata = tr.datasets.simulate_grn(n, 40, 8, counts=True, depth=400, seed=seed)
    rng = np.random.default_rng(seed)
    adata.obs["batch"] = pd.Categorical(rng.choice(["a", "b", "c"], n))
    return adata


def test_the_tables_are_those_of_the_arrays():
    adata = cells()
    tr.tl.information(adata, covariates=["depth", "batch"], groupby="batch", counts="counts", seed=3, **FAST)
    mask = adata.var["is_regulator"].to_numpy()
    x, counts = adata.to_df().to_numpy(), adata.to_df("counts").to_numpy()
    batch = pd.get_dummies(adata.obs["batch"], drop_first=True).to_numpy(dtype=float)
    expected = metrics.information(
        x[:, mask],
        x[:, ~mask],
        covariates={"depth": adata.obs["depth"].to_numpy(), "batch": batch},
        groups=adata.obs["batch"].astype(str).to_numpy(),
        counts=np.concatenate([counts[:, mask], counts[:, ~mask]], axis=1),
        total=counts.sum(axis=1),
        seed=3,
        **FAST,
    )
    record = tr.get.record(adata, "information")
    for name in TABLES:
        stored = record[name].reset_index(drop=True)
        pd.testing.assert_frame_equal(stored, getattr(expected, name), check_dtype=False)
    assert record["verdict"] == {"code": expected.code, "words": expected.words[0]}
    assert record["words"] == expected.words[1:]
    for name in ("detection", "reliability"):
        column = adata.var[f"information_{name}"].to_numpy()
        np.testing.assert_allclose(column[mask], getattr(expected, name), rtol=1e-6)
        assert np.isnan(column[~mask]).all()
    assert (adata.var["information_group"] == 0).all()
    assert record["params"]["covariates"] == ["depth", "batch"]


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_round_trip(form, tmp_path):
    adata = cells()
    before = content(adata)
    assert tr.tl.information(adata, key_added="mine", **FAST) is None
    after = content(adata)
    added = {"uns/mine", "var/mine_detection", "var/mine_reliability", "var/mine_group"}
    assert set(after) - set(before) == added
    assert {k: after[k] for k in before} == before
    getattr(adata, f"write_{form}")(tmp_path / "a")
    back = getattr(ad, f"read_{form}")(tmp_path / "a")
    one, two = tr.get.record(adata, "mine"), tr.get.record(back, "mine")
    assert one["words"] == two["words"]
    assert one["verdict"] == two["verdict"]
    for name in TABLES:
        pd.testing.assert_frame_equal(one[name], two[name], check_dtype=False, check_index_type=False)
    pd.testing.assert_frame_equal(adata.var, back.var, check_dtype=False)


def test_same_seed_same_record_in_every_container():
    adata = cells()
    dense = adata.to_df().to_numpy()
    made = containers()
    records = set()
    for name in ("c_order", "csr_matrix", "csc_array", "dask_rows"):
        other = adata.copy()
        other.X = made[name](dense)
        tr.tl.information(other, **FAST)
        records.add(digest(other.uns["information"]))
    assert len(records) == 1
    again = tr.tl.information(adata, seed=1, copy=True, **FAST)
    assert "information" not in adata.uns
    assert digest(again.uns["information"]) not in records


def test_a_modality_a_layer_and_some_genes():
    adata = cells()
    regulators = list(adata.var_names[adata.var["is_regulator"]])
    targets = [name for name in adata.var_names if name not in regulators][:15]
    part = adata[:, [*regulators, *targets]].copy()
    tr.tl.information(part, **FAST)
    adata.layers["expression"], adata.X = adata.X.copy(), adata.layers["counts"].copy()
    del adata.var["is_regulator"]
    mdata = md.MuData({"rna": adata})
    # Regulators among the targets are left out.
    options = {"layer": "expression", "regulators": regulators, "targets": [*targets, regulators[0]], **FAST}
    copy = tr.tl.information(mdata, mod="rna", copy=True, **options)
    found = tr.get.record(copy["rna"], "information")
    expected = tr.get.record(part, "information")
    np.testing.assert_allclose(found["size"]["n_eff"], expected["size"]["n_eff"], rtol=1e-5)
    np.testing.assert_allclose(found["certificate"]["power"], expected["certificate"]["power"], atol=0.1)
    assert "information" not in mdata["rna"].uns


def test_more_cells_than_wanted_are_drawn():
    adata = cells(100)
    tr.tl.information(adata, max_cells=60, groupby="batch", covariates="batch", counts="counts", **FAST)
    record = tr.get.record(adata, "information")
    assert record["size"]["n_cells"][0] == 60
    assert record["diagnostics"]["n_cells"] == 60
    assert record["inputs"]["n_obs"] == 100


def test_fewer_cells_than_regulators():
    adata = tr.datasets.simulate_grn(30, 60, 40)
    tr.tl.information(adata, **FAST)
    words = tr.get.record(adata, "information")["words"]
    assert any(w.startswith("There are 30 cells for 40 regulators: their correlations are shrunk") for w in words)


def test_copies_and_constant_regulators():
    adata = cells()
    x = adata.to_df().to_numpy()
    first, second, third = np.flatnonzero(adata.var["is_regulator"])[:3]
    x[:, second], x[:, third] = x[:, first], 0.0
    adata.X = x
    with pytest.warns(UserWarning, match="copies of each other"), pytest.warns(UserWarning, match="constant"):
        tr.tl.information(adata, **FAST)
    record = tr.get.record(adata, "information")
    assert record["groups"]["regulator"].tolist() == list(adata.var_names[[first, second]])
    assert adata.var["information_group"].to_numpy()[[first, second, third]].tolist() == [1, 1, 0]
    assert record["diagnostics"]["n_regulators"] == 7
    assert np.isnan(adata.var["information_detection"].iloc[third])
    assert any("2 regulators form 1 group" in words for words in record["words"])


def broken(adata):
    adata.obs["one"] = "a"
    adata.obs["flat"] = 1.0
    adata.obs["holes"] = [np.nan, *range(adata.n_obs - 1)]
    adata.obs["barcode"] = adata.obs_names
    adata.layers["half"] = np.full(adata.shape, 0.5)
    return adata


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"covariates": "absent"}, KeyError, "`covariates`: 'absent' not found"),
        ({"covariates": ["batch", "one"]}, ValueError, "'one' has one value in all cells"),
        ({"covariates": "flat"}, ValueError, "'flat' has one value in all cells"),
        ({"covariates": "holes"}, ValueError, "1 missing values"),
        ({"covariates": "barcode"}, ValueError, "too many to take off"),
        ({"groupby": "absent"}, KeyError, "`groupby`"),
        ({"counts": "absent"}, KeyError, "`counts='X'` takes `adata.X`"),
        ({"counts": "half"}, ValueError, "'half' holds values that are no counts"),
        ({"counts": "X"}, ValueError, "'X' holds values that are no counts"),
        ({"regulators": "all"}, ValueError, "Every gene is a regulator"),
        ({"regulators": []}, ValueError, "`regulators` is empty"),
        ({"regulators": "absent"}, KeyError, "`regulators`: 'absent' not found"),
        ({"targets": ["nobody"]}, ValueError, "`targets`"),
        ({"layer": "absent"}, KeyError, "`layer`"),
        ({"q": 0.0}, ValueError, "`q`"),
        ({"r2": [0.0]}, ValueError, "`r2`"),
        ({"fractions": [2.0]}, ValueError, "`fractions`"),
        ({"n_sims": 1}, ValueError, "`n_sims` to be at least 2"),
        ({"max_cells": 5}, ValueError, "`max_cells` to be at least 10"),
        ({"key_added": "a/b"}, ValueError, "`key_added`"),
        ({"seed": -1}, ValueError, "`seed` to be at least 0"),
        ({"n_jobs": 0}, ValueError, "`n_jobs`"),
    ],
)
def test_bad_input(options, error, message):
    adata = broken(cells())
    before = content(adata)
    with pytest.raises(error, match=message):
        tr.tl.information(adata, **{**FAST, **options})
    assert content(adata) == before


def test_no_regulators_are_marked():
    adata = cells()
    adata.var["is_regulator"] = False
    with pytest.raises(ValueError, match="no gene may regulate"):
        tr.tl.information(adata, **FAST)
    del adata.var["is_regulator"]
    with pytest.raises(KeyError, match="pp.regulators"):
        tr.tl.information(adata, **FAST)
