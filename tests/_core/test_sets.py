import pandas as pd
import pytest
from element_sets import with_sets

from sctrellis._core import sets, slots


@pytest.fixture(scope="module")
def mdata():
    return with_sets(100)


def test_only_and_one(mdata):
    found = sets.read(mdata, "grids")
    task = found.tasks.iloc[0]
    chosen = found.only(task["target"], [task["group"]])
    assert set(chosen.sets["target"]) == {task["target"]}
    assert chosen.sets.index.tolist() == list(range(len(chosen.sets)))
    one = found.one(task["target"], None)
    pd.testing.assert_frame_equal(one.sets, chosen.sets)
    with pytest.raises(ValueError, match=r"has 8 sets for `target=None`, `group=None`: .*, …. Name one."):
        found.one(None, None)
    other = found.tasks.loc[found.tasks["group"] != task["group"], "group"].iloc[0]
    with pytest.raises(KeyError, match=f"`groups`: '{other}' not found"):
        found.one(task["target"], other)


def test_text_is_str_whatever_a_file_made_of_it(mdata):
    table = pd.DataFrame({"a": pd.Categorical(["x", "y"]), "b": [1, 2], "c": [True, False]}, index=["4", "7"])
    found = sets.plain(table)
    assert found["a"].tolist() == ["x", "y"]
    assert found["a"].dtype == object
    assert found["b"].dtype.kind == "i"
    assert found["c"].dtype == bool
    assert found.index.tolist() == [0, 1]


def test_empty_sets(mdata):
    empty = mdata.copy()
    empty.uns["grids"]["sets"] = empty.uns["grids"]["sets"].iloc[:0]
    with pytest.raises(ValueError, match="holds no selected peak"):
        sets.read(empty, "grids")


def test_positions_and_coordinates(mdata):
    atac = mdata["atac"]
    names = atac.var_names[[5, 2, 5]]
    assert slots.positions(atac, names, "here").tolist() == [5, 2, 5]
    with pytest.raises(ValueError, match=r"2 names in `here` are no longer variables .*'a', 'b'"):
        slots.positions(atac, ["a", names[0], "b"], "here")
    rna = mdata["rna"].copy()
    rna.var["tss"] = rna.var["tss"].astype(float)
    rna.var.iloc[0, rna.var.columns.get_loc("tss")] = float("nan")
    table = slots.coordinates(rna, "mdata['rna']", ("chrom", "tss"))
    assert table["tss"].iloc[0] == -1
    assert table["tss"].dtype == "int64"
    with pytest.raises(KeyError, match=r"'strand_' not found in `mdata\['rna'\].var`"):
        slots.coordinates(rna, "mdata['rna']", ("chrom", "strand_"))


def test_openness(mdata):
    expected = mdata["atac"].X.toarray().mean(axis=0)
    assert slots.openness(mdata["atac"]).tolist() == pytest.approx(expected.tolist())
