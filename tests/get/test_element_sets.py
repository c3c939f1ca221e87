import mudata as md
import numpy as np
import pandas as pd
import pytest
from element_sets import with_sets

import sctrellis as tr
from sctrellis._core import record, slots


@pytest.fixture(scope="module")
def simulated():
    return with_sets()


@pytest.fixture
def mdata(simulated):
    return simulated.copy()


def test_table(mdata):
    table = tr.get.element_sets(mdata)
    sets = mdata.uns["grids"]["sets"]
    assert table.columns.tolist() == [*sets.columns, "chrom", "start", "end"]
    pd.testing.assert_frame_equal(
        table[sets.columns], sets.reset_index(drop=True), check_index_type=False, check_column_type=False
    )
    for row in table.itertuples():
        assert f"{row.chrom}-{row.start}-{row.end}" == row.peak


def test_bed(mdata):
    bed, table = tr.get.element_sets(mdata, format="bed"), tr.get.element_sets(mdata)
    assert bed.columns.tolist() == ["chrom", "start", "end", "name", "score", "strand"]
    assert bed["name"].iloc[0] == f"{table['target'].iloc[0]}|{table['group'].iloc[0]}|1"
    assert bed["score"].max() == 1000
    assert bed["score"].dtype.kind == "i"
    np.testing.assert_allclose(bed["score"] / 1000, table["gain"].abs() / table["gain"].abs().max(), atol=5.1e-4)
    assert set(bed["strand"]) == {"."}


def test_bedpe_joins_peaks_to_starts_of_transcription(mdata):
    pairs, table = tr.get.element_sets(mdata, format="bedpe"), tr.get.element_sets(mdata)
    assert pairs.columns.tolist() == [
        "chrom1", "start1", "end1", "chrom2", "start2", "end2", "name", "score", "strand1", "strand2",
    ]  # fmt: skip
    var = mdata["rna"].var.loc[table["target"]]
    np.testing.assert_array_equal(pairs["start2"], var["tss"])
    np.testing.assert_array_equal(pairs["end2"], var["tss"] + 1)
    np.testing.assert_array_equal(pairs["strand2"], var["strand"])
    np.testing.assert_array_equal(pairs["score"], table["gain"])
    assert (pairs["chrom1"] == pairs["chrom2"]).all()


def test_a_gene_without_coordinates_is_unknown_in_bedpe(mdata):
    target = mdata.uns["truth"]["target"].iloc[0]
    mdata["rna"].var.loc[target, ["chrom", "start", "end", "tss"]] = ["", -1, -1, -1]
    row = tr.get.element_sets(mdata, targets=target, format="bedpe").iloc[0]
    assert row[["chrom2", "start2", "end2", "strand2"]].tolist() == [".", -1, -1, "."]


def test_a_task_without_a_set_is_no_set(mdata):
    tasks = mdata.uns["grids"]["tasks"]
    mdata.uns["grids"]["tasks"] = pd.concat([tasks, tasks.iloc[[0]].assign(target="gene_none")], ignore_index=True)
    assert len(tr.get.element_sets(mdata)) == len(mdata.uns["grids"]["sets"])
    with pytest.raises(KeyError, match="'gene_none' not found"):
        tr.get.element_sets(mdata, targets="gene_none")


def test_targets_and_groups(mdata):
    table = tr.get.element_sets(mdata)
    target, group = table["target"].iloc[0], table["group"].iloc[-1]
    assert set(tr.get.element_sets(mdata, targets=target)["target"]) == {target}
    assert set(tr.get.element_sets(mdata, groups=[group])["group"]) == {group}


def test_redundancy_joins_where_it_is_stored(mdata):
    table = tr.get.element_sets(mdata)
    elements = (
        table[["group", "target", "peak"]]
        .iloc[1:]
        .assign(single=0.1, last_in=0.2, compensation=0.5, shapley=0.15, p_open=0.6)
    )
    entry = record.build("redundancy", mdata, params={}, seed=0, slots={}, extra={"elements": elements})
    slots.write(mdata, uns={"grids_redundancy": entry})
    joined = tr.get.element_sets(mdata)
    assert len(joined) == len(table)
    assert joined.columns.tolist()[-4:] == ["single", "last_in", "compensation", "shapley"]
    assert joined["shapley"].isna().tolist() == [True] + [False] * (len(table) - 1)


@pytest.mark.parametrize("format", ["table", "bed", "bedpe"])
def test_a_file_changes_nothing(mdata, format, tmp_path):
    mdata.write(tmp_path / "x.h5mu")
    back = md.read_h5mu(tmp_path / "x.h5mu")
    pd.testing.assert_frame_equal(
        tr.get.element_sets(back, format=format), tr.get.element_sets(mdata, format=format), check_column_type=False
    )


def test_messages(mdata):
    with pytest.raises(ValueError, match="`format` to be one of 'table', 'bed', 'bedpe'; found 'gff'"):
        tr.get.element_sets(mdata, format="gff")
    with pytest.raises(KeyError, match="`targets`: 'XIST' not found in `mdata.uns\\['grids'\\]`. Available: 'gene_"):
        tr.get.element_sets(mdata, targets=["XIST"])
    with pytest.raises(KeyError, match="`groups`: 'T cells' not found"):
        tr.get.element_sets(mdata, groups="T cells")
    with pytest.raises(ValueError, match="holds no element sets: it is the record of 'simulate_multiome'"):
        tr.get.element_sets(mdata, "simulate_multiome")
    with pytest.raises(KeyError, match="'search' not found"):
        tr.get.element_sets(mdata, "search")
    with pytest.raises(TypeError, match="Expected `mdata` to be a MuData"):
        tr.get.element_sets(mdata["rna"])
    renamed = mdata.copy()
    renamed["atac"].var_names = "x" + renamed["atac"].var_names
    with pytest.raises(ValueError, match=r"names in `mdata.uns\['grids'\]` are no longer variables"):
        tr.get.element_sets(renamed)
