"""pp.split_cells: shares within groups, whatever holds the cells."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from helpers import content

import sctrellis as tr


@pytest.fixture
def mdata():
    return tr.datasets.simulate_multiome(103, 240, 8, n_targets=2)


def parts(data, by):
    return pd.crosstab(by, data.obs["cell_split"])[["train", "validation", "test"]]


def test_shares_within_groups(mdata):
    tr.pp.split_cells(mdata, "cell_group")
    table = parts(mdata, mdata.obs["cell_group"])
    sizes = table.sum(axis=1).to_numpy()
    np.testing.assert_array_equal(table["test"], np.floor(0.2 * sizes + 0.5))
    np.testing.assert_array_equal(table["validation"], np.floor(0.1 * sizes + 0.5))
    stored = mdata.uns["cell_split"]["counts"]
    np.testing.assert_array_equal(stored.to_numpy(), table.to_numpy())
    assert stored.index.tolist() == table.index.tolist()
    assert mdata.obs["cell_split"].cat.categories.tolist() == ["train", "validation", "test"]


def test_small_groups(mdata):
    mdata["rna"].obs["kind"] = ["three"] * 3 + ["two"] * 2 + ["many"] * 98
    with pytest.warns(UserWarning, match=r"1 groups of fewer than 3 cells cannot be divided \('two'\)"):
        tr.pp.split_cells(mdata, "kind")
    table = parts(mdata, mdata["rna"].obs["kind"])
    assert table.loc["three"].tolist() == [1, 1, 1]
    assert table.loc["two"].tolist() == [2, 0, 0]


def test_no_groups_and_an_anndata(mdata):
    tr.pp.split_cells(mdata)
    assert mdata.obs["cell_split"].value_counts().to_dict() == {"train": 72, "validation": 10, "test": 21}
    adata = mdata["rna"].copy()
    tr.pp.split_cells(adata)
    assert adata.obs["cell_split"].equals(mdata.obs["cell_split"])
    assert adata.uns["cell_split"]["counts"].loc["all"].tolist() == [72, 10, 21]


def test_seed_and_order(mdata):
    tr.pp.split_cells(mdata, "cell_group")
    first = mdata.obs["cell_split"].copy()
    reversed_ = mdata[::-1].copy()
    tr.pp.split_cells(reversed_, "cell_group")
    assert reversed_.obs["cell_split"].loc[first.index].equals(first)
    other = tr.pp.split_cells(mdata, "cell_group", seed=1, copy=True)
    assert mdata.obs["cell_split"].equals(first)
    assert (other.obs["cell_split"] != first).sum() > 10
    drawn = tr.pp.split_cells(mdata, "cell_group", seed=None, copy=True)
    again = tr.pp.split_cells(mdata, "cell_group", seed=drawn.uns["cell_split"]["seed"], copy=True)
    assert content(drawn) == content(again)


def test_keys_and_views(mdata):
    before = content(mdata)
    view = mdata[:50]
    tr.pp.split_cells(view, key_added="half", val_frac=0, test_frac=0.5)
    assert content(mdata) == before
    assert view.obs["half"].value_counts().to_dict() == {"train": 25, "test": 25, "validation": 0}
    assert view.uns["half"]["slots"]["split"] == "obs/half"
    assert view.uns["half"]["counts"].columns.tolist() == ["train", "validation", "test"]


@pytest.mark.filterwarnings("ignore:.*names are not unique:UserWarning")
def test_bad_input(mdata):
    before = content(mdata)
    with pytest.raises(KeyError, match="`groupby`: 'leiden' not found in `mdata.obs`"):
        tr.pp.split_cells(mdata, "leiden")
    with pytest.raises(ValueError, match="`test_frac` . `val_frac` to be below 1"):
        tr.pp.split_cells(mdata, test_frac=0.6, val_frac=0.4)
    with pytest.raises(ValueError, match=r"`test_frac` to lie in \(0, 1\)"):
        tr.pp.split_cells(mdata, test_frac=0)
    with pytest.raises(ValueError, match="`seed` to be at least 0"):
        tr.pp.split_cells(mdata, seed=-1)
    with pytest.raises(TypeError, match="found DataFrame"):
        tr.pp.split_cells(mdata["rna"].to_df())
    assert content(mdata) == before
    mdata["atac"].obs["kind"] = pd.Categorical(["a"] * 100 + [None] * 3)
    with pytest.raises(ValueError, match=r"3 of 103 cells have no group in `obs\['kind'\]`"):
        tr.pp.split_cells(mdata, "kind")
    mdata["atac"].obs["own"] = mdata.obs_names
    with pytest.raises(ValueError, match="a group of at least 3 cells to divide, found groups of at most 1"):
        tr.pp.split_cells(mdata, "own")
    twice = ad.AnnData(np.ones((4, 2), np.float32), obs=pd.DataFrame(index=["a", "a", "b", "c"]))
    with pytest.raises(ValueError, match="1 repeated cells"):
        tr.pp.split_cells(twice)
