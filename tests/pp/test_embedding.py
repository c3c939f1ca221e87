"""pp.gene_embedding: vectors reach their genes from every form, and from none that cannot be trusted."""

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import sctrellis as tr
from sctrellis._core import record

GENES = ["GATA1", "SPI1", "KLF1", "HBB"]
NAMES = ["KLF1", "GATA1", "MYB", "HBB"]  # another order; one unknown; SPI1 is missing
VALUES = np.arange(12, dtype=np.float64).reshape(4, 3) / 7


@pytest.fixture
def blood() -> ad.AnnData:
    return ad.AnnData(np.ones((3, 4), np.float32), var=pd.DataFrame(index=GENES))


def stored(kind, folder):
    """Return what to pass as vectors, and the options that go with it."""
    frame = pd.DataFrame(VALUES, index=NAMES, columns=["a", "b", "c"])
    path = folder / "vectors.bin"
    if kind == "frame":
        return frame, {}
    if kind == "dict":
        return dict(zip(NAMES, VALUES.tolist(), strict=True)), {}
    if kind == "array":
        return VALUES, {"genes": NAMES}
    if kind == "list":
        return VALUES.tolist(), {"genes": pd.Index(NAMES)}
    if kind == "sparse":
        return sparse.csr_matrix(VALUES), {"genes": NAMES}
    if kind == "anndata":
        return ad.AnnData(VALUES, obs=pd.DataFrame(index=NAMES)), {}
    if kind.startswith("npz"):
        names, vectors = {"npz": ("genes", "vectors"), "npz2": ("names", "embedding"), "npz3": ("genes", "X")}[kind]
        with path.open("wb") as file:
            np.savez(file, **{names: np.array(NAMES), vectors: VALUES})
    elif kind == "npy":
        with path.open("wb") as file:
            np.save(file, VALUES)
        return path, {"genes": NAMES}
    elif kind == "parquet":
        frame.to_parquet(path)
    elif kind == "parquet_column":
        frame.rename_axis("gene").reset_index().to_parquet(path)
    elif kind == "h5ad":
        ad.AnnData(sparse.csr_matrix(VALUES), obs=pd.DataFrame(index=NAMES)).write_h5ad(path)
    elif kind == "csv":
        frame.to_csv(path)
    return str(path), {}


@pytest.mark.parametrize(
    "kind",
    ["frame", "dict", "array", "list", "sparse", "anndata", "npz", "npz2", "npz3", "npy", "parquet", "parquet_column"]
    + ["h5ad", "csv"],
)
def test_every_form_gives_the_same_vectors(blood, tmp_path, kind):
    vectors, options = stored(kind, tmp_path)
    tr.pp.gene_embedding(blood, vectors, **options)
    found = blood.varm["embedding"]
    assert found.dtype == np.float32
    expected = np.stack([VALUES[1], [np.nan] * 3, VALUES[0], VALUES[3]]).astype(np.float32)
    np.testing.assert_array_equal(found, expected)
    assert record.read(blood, "embedding")["coverage"] == {
        "genes": 3,
        "missing": 1,
        "fraction": 0.75,
        "given": 4,
        "unknown": 1,
        "case_matches": 0,
    }


def test_case(blood):
    frame = pd.DataFrame(VALUES, index=["Klf1", "GATA1", "Myb", "Hbb"])
    with pytest.warns(UserWarning, match=r"2 names in `vectors` differ .* only in case"):
        tr.pp.gene_embedding(blood, frame)
    assert np.isnan(blood.varm["embedding"][:, 0]).tolist() == [False, True, True, True]
    tr.pp.gene_embedding(blood, frame, match_case=False)
    np.testing.assert_array_equal(blood.varm["embedding"][3], VALUES[3].astype(np.float32))
    frame.index = ["gata1", "GATA1", "Myb", "Hbb"]
    with pytest.raises(ValueError, match=r"1 genes have more than one vector when case is ignored \('GATA1'\)"):
        tr.pp.gene_embedding(blood, frame, match_case=False)


def test_rows_of_nan_are_missing(blood):
    values = VALUES.copy()
    values[0] = np.nan
    tr.pp.gene_embedding(blood, values, genes=NAMES)
    assert blood.uns["embedding"]["coverage"]["genes"] == 2
    with pytest.raises(ValueError, match=r"2 of 4 genes have no vector .*'SPI1', 'KLF1'.*missing='nan'"):
        tr.pp.gene_embedding(blood, values, genes=NAMES, missing="error", key_added="strict")
    assert "strict" not in blood.varm


def test_copy_view_modality_and_round_trips(blood, tmp_path):
    copied = tr.pp.gene_embedding(blood, VALUES, genes=NAMES, copy=True, key_added="bert")
    assert not blood.varm
    view = blood[:, ["HBB", "SPI1"]]
    tr.pp.gene_embedding(view, VALUES, genes=NAMES)
    np.testing.assert_array_equal(view.varm["embedding"], [VALUES[3].astype(np.float32), [np.nan] * 3])
    mdata = mudata.MuData({"rna": blood.copy()})
    tr.pp.gene_embedding(mdata, VALUES, genes=NAMES, mod="rna")
    assert "embedding" in mdata["rna"].varm
    copied.write_h5ad(tmp_path / "a.h5ad")
    copied.write_zarr(tmp_path / "a.zarr")
    for again in (ad.read_h5ad(tmp_path / "a.h5ad"), ad.read_zarr(tmp_path / "a.zarr")):
        np.testing.assert_array_equal(again.varm["bert"], copied.varm["bert"])
        assert record.read(again, "bert") == record.read(copied, "bert")


FRAME = pd.DataFrame(VALUES, index=NAMES)


@pytest.mark.parametrize(
    ("vectors", "options", "error", "message"),
    [
        (VALUES, {}, ValueError, "no gene names.*`genes=`"),
        (
            VALUES,
            {"genes": NAMES[:3]},
            ValueError,
            r"found 3 names and 4 rows. Is the first row a header.*vectors\[1:\]",
        ),
        (VALUES, {"genes": [*NAMES, "X"]}, ValueError, "found 5 names and 4 rows"),
        (VALUES, {"genes": "GATA1"}, TypeError, "`genes` to be a list"),
        (FRAME, {"genes": NAMES}, ValueError, "leave `genes` out"),
        (VALUES[:, 0], {"genes": NAMES}, ValueError, r"shape \(genes, dimensions\).*found \(4,\)"),
        (VALUES[:, :0], {"genes": NAMES}, ValueError, "both at least 1"),
        (FRAME.set_axis(["GATA1", "GATA1", "a", "b"]), {}, ValueError, r"1 genes occur more than once.*'GATA1'"),
        (FRAME.set_axis(["GATA1", "", "a", "b"]), {}, ValueError, r"blank gene name \(first: row 2\)"),
        (FRAME.set_axis(list("abcd")), {}, ValueError, "None of the 4 names in `vectors`"),
        (FRAME.set_axis([n.lower() for n in NAMES]), {}, ValueError, "match_case=False"),
        (FRAME.replace(VALUES[1, 1], np.nan), {}, ValueError, r"NaN beside numbers \('GATA1'\)"),
        (FRAME.replace(VALUES[1, 1], np.inf), {}, ValueError, "infinite values"),
        (FRAME.replace(VALUES[1, 1], 1e300), {}, ValueError, "infinite values"),
        (FRAME.assign(text="a"), {}, TypeError, "hold numbers; column 'text' does not"),
        (FRAME * np.nan, {}, ValueError, "no gene has a vector"),
        ({"GATA1": [1, 2], "HBB": [1]}, {}, ValueError, r"one length, found the shapes \(1,\), \(2,\)"),
        ({}, {}, ValueError, "found the shapes none"),
        (np.array([["a", "b"]] * 4), {"genes": NAMES}, TypeError, "hold numbers"),
        (3, {}, TypeError, "found int"),
        ("nowhere.npz", {}, FileNotFoundError, "`vectors`: no file at 'nowhere.npz'"),
        (FRAME, {"missing": "zero"}, ValueError, "`missing` to be one of 'nan', 'error'"),
        (FRAME, {"missing": "error"}, ValueError, r"1 of 4 genes have no vector in `vectors` \('SPI1'\)"),
    ],
)
def test_bad_input_says_what_to_do_and_changes_nothing(blood, vectors, options, error, message):
    with pytest.raises(error, match=message), np.errstate(over="ignore"):
        tr.pp.gene_embedding(blood, vectors, **options)
    assert not blood.varm
    assert not blood.uns


def test_bad_files(blood, tmp_path):
    path = tmp_path / "v.npz"
    np.savez(path, genes=np.array(NAMES, dtype=object), vectors=VALUES)
    with pytest.raises(ValueError, match=r"'v.npz' cannot be read. Arrays of Python objects need pickle.*dtype=str"):
        tr.pp.gene_embedding(blood, path)
    np.savez(path, a=VALUES)
    with pytest.raises(ValueError, match="'v.npz' to hold the arrays 'genes' and 'vectors', found 'a'"):
        tr.pp.gene_embedding(blood, path)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match="'v.npz' cannot be read"):
        tr.pp.gene_embedding(blood, path)
    path.write_bytes(b"\x89HDF and nonsense")
    with pytest.raises(ValueError, match="'v.npz' cannot be read as h5ad"):
        tr.pp.gene_embedding(blood, path)


@pytest.mark.data
def test_vectors_of_a_language_model(data_dir):
    folder = data_dir / "embeddings" / "scGREAT_biobert_mESC"
    adata = ad.read_h5ad(data_dir / "beeline" / "expression" / "mESC.h5ad")
    names = pd.read_csv(folder / "Target.csv")["Gene"]
    with pytest.raises(ValueError, match="1,120 names and 1,121 rows. Is the first row a header"):
        tr.pp.gene_embedding(adata, folder / "biovect768.npy", genes=names)
    vectors = np.load(folder / "biovect768.npy")[1:]
    tr.pp.gene_embedding(adata, vectors, genes=names, missing="error")
    order = names.tolist().index(adata.var_names[17])
    np.testing.assert_array_equal(adata.varm["embedding"][17], vectors[order])
