import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import sctrellis as tr

N, P = 60, 12


def planted():
    """Known edges, and a table of labels with faults of known number: genes by index, shifted by 100."""
    rng = np.random.default_rng(0)
    known = np.zeros((N, N), np.float32)
    known[:P] = rng.random((P, N)) < 0.2
    np.fill_diagonal(known, 0)
    adata = ad.AnnData(np.ones((12, N), np.float32), var=pd.DataFrame(index=[f"g{i}" for i in range(N)]))
    adata.obs_names = [f"c{i}" for i in range(12)]
    adata.var["is_regulator"] = np.arange(N) < P
    adata.varp["network"] = sparse.csr_matrix(known)
    row, column = known.nonzero()
    label = np.ones(len(row), int)
    label[::3] = 0
    none = np.argwhere((known[:P] == 0) & (np.arange(N) >= P))[:200]
    parts = {
        "positive": np.column_stack([row, column, label]),
        "transposed": np.column_stack([none[:, ::-1], np.zeros(200, int)]),
        "own": np.column_stack([np.arange(5), np.arange(5), np.zeros(5, int)]),
        "unknown": np.array([[0, 900, 1], [901, 3, 0], [902, 903, 0]]),
        "repeat": np.tile([row[1], column[1], 1], (4, 1)),
        "clash": np.array([[row[2], column[2], 0]]),
    }
    table = pd.DataFrame(np.concatenate(list(parts.values())), columns=["TF", "Target", "Label"])
    table[["TF", "Target"]] += 100
    names = pd.DataFrame({"Gene": adata.var_names, "index": np.arange(N) + 100})
    return adata, table, names, (row, column, label)


def test_planted_faults_are_counted_exactly(tmp_path):
    adata, table, names, (row, column, label) = planted()
    table.to_csv(tmp_path / "labels.csv", index=False)
    names.to_csv(tmp_path / "names.csv", index=False)
    found = tr.pp.audit_labels(adata, table, names=names)
    pd.testing.assert_frame_equal(
        found, tr.pp.audit_labels(adata, tmp_path / "labels.csv", names=tmp_path / "names.csv")
    )
    n = found.set_index("check")["n"]
    # A third of the edges, and the one that is labelled both ways.
    flipped = (label == 0).sum() + 1
    assert n["unmapped"] == 3
    assert n["self_pair"] == 5
    assert n["transposed_negative"] == 200
    assert n["transposed_positive"] == 0
    assert n["duplicate"] == 4
    assert n["conflict"] == 1
    assert n["known_edge_labelled_0"] == flipped
    assert found.set_index("check").loc["known_edge_labelled_0", "value"] == pytest.approx(flipped / len(row))
    # What a loader would see: rows from regulators, of which only edges have other targets... or not.
    y = np.concatenate([label, np.ones(4, int), [0]]) == 1
    bit = np.concatenate([column, [column[1]] * 4, [column[2]]]) >= P
    area = found.set_index("check").loc["auroc_of_other_target", "value"]
    assert area == pytest.approx(tr.metrics.auroc(bit.astype(float), y))
    assert n["edge_given_other_target"] == (y & bit).sum()
    assert n["edge_given_regulator_target"] == (y & ~bit).sum()


def test_a_clean_table_by_name_is_clean():
    adata, _, _, (row, column, _) = planted()
    table = pd.DataFrame({"source": adata.var_names[row], "target": adata.var_names[column], "label": 1})
    found = tr.pp.audit_labels(adata, table).set_index("check")
    assert (found["n"].iloc[:7] == 0).all()
    assert np.isnan(found.loc["auroc_of_other_target", "value"])


def test_round_trip(tmp_path):
    adata, table, names, _ = planted()
    found = tr.pp.audit_labels(adata, table, names=names, key_added="mine")
    adata.write_h5ad(tmp_path / "a.h5ad")
    adata.write_zarr(tmp_path / "a.zarr")
    for back in (ad.read_h5ad(tmp_path / "a.h5ad"), ad.read_zarr(tmp_path / "a.zarr")):
        stored = tr.get.record(back, "mine")["table"].reset_index(drop=True)
        pd.testing.assert_frame_equal(stored, found, check_dtype=False, check_categorical=False)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"network": "nowhere"}, KeyError, "'nowhere' not found"),
        ({"label": "truth"}, ValueError, "column 'truth' not found"),
        ({"edges": pd.DataFrame({"TF": [100], "Target": [101]})}, ValueError, "no column for `label`"),
        ({"edges": pd.DataFrame({"TF": [100], "Target": [101], "Label": [3]})}, ValueError, "to be 1 .edge. or 0"),
        ({"edges": pd.DataFrame({"TF": [1], "Target": [2], "Label": [1]})}, ValueError, "None of the 2 names"),
        ({"names": pd.DataFrame({"a": [1]})}, ValueError, "`names` to have the columns 'index' and 'name'"),
        ({"edges": [1, 2]}, TypeError, "Expected `edges` to be a DataFrame"),
    ],
)
def test_bad_input(change, error, message):
    adata, table, names, _ = planted()
    given = {"edges": table, "names": names, **change}
    with pytest.raises(error, match=message):
        tr.pp.audit_labels(adata, given.pop("edges"), **given)
    assert "audit_labels" not in adata.uns
