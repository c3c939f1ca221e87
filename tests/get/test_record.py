import anndata
import numpy as np
import pandas as pd
import pytest

import sctrellis as tr
from sctrellis._core import record, slots


@pytest.fixture
def adata():
    adata = anndata.AnnData(np.ones((12, 4), np.float32))
    entry = record.build(
        "infosem",
        adata,
        params={"regulators": ["GATA1", "SPI1"], "layer": None, "alpha": 0.5},
        seed=3,
        slots={"network": "varp/infosem"},
        fit={"epochs": 3, "best_epoch": 2, "stopped": "max_epochs"},
        history={"loss": [3.0, 2.0, 1.0], "kl": [0.1, 0.2, 0.3]},
    )
    slots.write(adata, uns={"infosem": entry})
    return adata


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_the_same_before_and_after_writing(adata, form, tmp_path):
    before = tr.get.record(adata, "infosem")
    getattr(adata, f"write_{form}")(tmp_path / f"a.{form}")
    after = tr.get.record(getattr(anndata, f"read_{form}")(tmp_path / f"a.{form}"), "infosem")
    pd.testing.assert_frame_equal(before.pop("history"), after.pop("history"))
    assert before == after
    assert after["params"] == {"regulators": ["GATA1", "SPI1"], "layer": None, "alpha": 0.5}
    assert type(after["seed"]) is int


def test_epochs_are_numbers(adata):
    assert tr.get.record(adata, "infosem")["history"].index.tolist() == [0, 1, 2]


def test_missing_and_foreign_entries(adata):
    with pytest.raises(KeyError, match=r"`key`: 'deepsem' not found in `adata.uns`. Available: 'infosem'"):
        tr.get.record(adata, "deepsem")
    adata.uns["leiden"] = {"params": {}}
    with pytest.raises(ValueError, match=r"`adata.uns\['leiden'\]` is not a record"):
        tr.get.record(adata, "leiden")


def test_a_record_of_a_mudata_itself_needs_no_modality():
    mdata = tr.datasets.simulate_multiome(20, 240, 8, n_targets=0)
    assert tr.get.record(mdata, "simulate_multiome")["params"]["n_peaks"] == 240
    mdata["rna"].uns["simulate_multiome"] = {"schema": 1, "method": "other"}
    assert tr.get.record(mdata, "simulate_multiome", mod="rna")["method"] == "other"
    with pytest.raises(ValueError, match="choose a modality with `mod=`"):
        tr.get.record(mdata, "infosem")
