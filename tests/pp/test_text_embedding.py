"""pp.text_embedding: tf-idf and a decomposition as NumPy computes them, for genes that have text."""

import re
from collections import Counter

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import pytest

import sctrellis as tr
from sctrellis._core import record

WORDS = [f"word{i}" for i in range(40)]


def corpus(n_genes=30, seed=0):
    """Return a table of gene and text, one to four rows a gene."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n_genes):
        for _ in range(rng.integers(1, 5)):
            rows.append((f"G{i}", " ".join(rng.choice(WORDS, 6, p=np.arange(1, 41) / 820))))
    return pd.DataFrame(rows, columns=["gene", "text"])


@pytest.fixture
def adata() -> ad.AnnData:
    genes = [f"G{i}" for i in range(30)] + ["silent", "mute"]
    return ad.AnnData(np.ones((3, 32), np.float32), var=pd.DataFrame(index=genes))


def by_hand(table, genes, min_df):
    """Return tf-idf rows of length 1, written from the definition."""
    texts = [" ".join(table.loc[table["gene"] == g, "text"].drop_duplicates()) for g in genes]
    counts = [Counter(re.findall(r"\w\w+", text.lower())) for text in texts]
    df = Counter(word for count in counts for word in count)
    words = sorted(word for word, n in df.items() if n >= min_df)
    idf = np.array([1 + np.log((1 + len(genes)) / (1 + df[word])) for word in words])
    weights = np.array([[count[word] for word in words] for count in counts]) * idf
    return weights / np.linalg.norm(weights, axis=1, keepdims=True)


@pytest.mark.parametrize("min_df", [1, 2, 8])
def test_equals_a_dense_decomposition(adata, min_df):
    table = corpus()
    tr.pp.text_embedding(adata, table, n_components=5, min_df=min_df)
    u, s, v = np.linalg.svd(by_hand(table, adata.var_names[:30], min_df), full_matrices=False)
    scores = u[:, :5] * s[:5]
    scores *= np.sign(np.take_along_axis(v[:5], np.abs(v[:5]).argmax(axis=1)[:, None], axis=1)).ravel()
    scores /= np.linalg.norm(scores, axis=1, keepdims=True)
    found = adata.varm["embedding"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:30], scores, atol=2e-6)
    assert np.isnan(found[30:]).all()
    np.testing.assert_allclose(np.linalg.norm(found[:30], axis=1), 1, atol=1e-6)
    stored = record.read(adata, "embedding")
    assert stored["n_words"] == v.shape[1]
    assert stored["coverage"]["missing"] == 2
    assert "unseen" in stored["caveat"]


def test_seeds_differ_by_rounding_only(adata):
    tr.pp.text_embedding(adata, corpus(), n_components=8, seed=0)
    tr.pp.text_embedding(adata, corpus(), n_components=8, seed=7, key_added="other")
    np.testing.assert_allclose(adata.varm["embedding"], adata.varm["other"], atol=1e-5)
    tr.pp.text_embedding(adata, corpus(), n_components=8, seed=7, key_added="again")
    np.testing.assert_array_equal(adata.varm["again"], adata.varm["other"])


def test_only_genes_of_the_data_take_part(adata):
    table = corpus()
    other = corpus(seed=9).assign(gene=lambda t: "other" + t["gene"])
    tr.pp.text_embedding(adata, table, n_components=5)
    tr.pp.text_embedding(adata, pd.concat([other, table]), n_components=5, key_added="more")
    np.testing.assert_array_equal(adata.varm["embedding"], adata.varm["more"])


def test_order_of_genes_and_repeated_rows_do_not_matter(adata):
    table = corpus()
    tr.pp.text_embedding(adata, table, n_components=5)
    shuffled = adata[:, ::-1].copy()
    tr.pp.text_embedding(shuffled, pd.concat([table, table[::2]]), n_components=5)
    np.testing.assert_allclose(shuffled.varm["embedding"][::-1], adata.varm["embedding"], atol=1e-5)


def test_every_form_of_text_gives_the_same_vectors(adata, tmp_path):
    table = corpus()
    tr.pp.text_embedding(adata, table, n_components=5)
    (tmp_path / "t.tsv").write_text(table.to_csv(sep="\t", index=False))
    table.rename(columns={"gene": "Symbol", "text": "GO term"}).to_csv(tmp_path / "t.csv.gz", index=False)
    forms = [
        table.groupby("gene", sort=False)["text"].agg(list).to_dict(),
        table.groupby("gene", sort=False)["text"].agg(lambda rows: " ".join(rows.drop_duplicates())).to_dict(),
        tmp_path / "t.tsv",
        str(tmp_path / "t.csv.gz"),
        table.assign(gene=table["gene"].str.lower()),
    ]
    for form in forms:
        tr.pp.text_embedding(adata, form, n_components=5, match_case=False, key_added="form")
        np.testing.assert_allclose(adata.varm["form"], adata.varm["embedding"], atol=1e-6)


def test_named_columns(adata):
    table = corpus().rename(columns={"gene": "id", "text": "one"}).assign(two="shared words")
    tr.pp.text_embedding(adata, table, gene="id", text=["one", "two"], n_components=3)
    assert record.read(adata, "embedding")["params"]["text"] == ["one", "two"]
    assert record.read(adata, "embedding")["n_words"] > 2


def test_too_many_components_are_reduced_with_a_warning(adata):
    with pytest.warns(
        UserWarning, match=r"30 genes with \d+ words supports 29 components, fewer than `n_components` = 64"
    ):
        tr.pp.text_embedding(adata, corpus(), min_df=1)
    assert adata.varm["embedding"].shape == (32, 29)


def test_two_kinds_of_text_support_two_components(adata):
    terms = {f"G{i}": "alpha beta gamma" if i < 15 else "delta epsilon" for i in range(30)}
    with pytest.warns(UserWarning, match="supports 2 components"):
        tr.pp.text_embedding(adata, terms, n_components=3)
    found = adata.varm["embedding"][:30]
    cosine = found @ found.T
    np.testing.assert_allclose(cosine[:15, :15], 1, atol=1e-6)
    np.testing.assert_allclose(cosine[:15, 15:], 0, atol=1e-6)


def test_one_word(adata):
    tr.pp.text_embedding(adata, {"G0": "kinase", "G1": "kinase"}, n_components=1)
    assert adata.varm["embedding"][:3, 0].tolist()[:2] == [1, 1]
    assert np.isnan(adata.varm["embedding"][2:]).all()


def test_a_gene_whose_words_are_all_rare_has_no_vector(adata):
    terms = {f"G{i}": "kinase receptor" if i % 2 else "receptor channel" for i in range(10)} | {"G20": "unique"}
    tr.pp.text_embedding(adata, terms, n_components=2)
    assert np.isnan(adata.varm["embedding"][20]).all()
    assert adata.uns["embedding"]["coverage"]["genes"] == 10


def test_copy_view_modality_and_round_trips(adata, tmp_path):
    copied = tr.pp.text_embedding(adata, corpus(), n_components=4, copy=True)
    assert not adata.varm
    view = adata[:, :20]
    tr.pp.text_embedding(view, corpus(), n_components=4)
    assert view.varm["embedding"].shape == (20, 4)
    mdata = mudata.MuData({"rna": adata.copy()})
    tr.pp.text_embedding(mdata, corpus(), n_components=4, mod="rna")
    np.testing.assert_array_equal(mdata["rna"].varm["embedding"], copied.varm["embedding"])
    copied.write_h5ad(tmp_path / "a.h5ad")
    copied.write_zarr(tmp_path / "a.zarr")
    for again in (ad.read_h5ad(tmp_path / "a.h5ad"), ad.read_zarr(tmp_path / "a.zarr")):
        np.testing.assert_array_equal(again.varm["embedding"], copied.varm["embedding"])
        assert record.read(again, "embedding")["caveat"] == copied.uns["embedding"]["caveat"]


@pytest.mark.parametrize(
    ("terms", "options", "error", "message"),
    [
        (
            corpus().rename(columns={"gene": "g"}),
            {},
            ValueError,
            r"no column for gene names.*'g', 'text'.*gene='symbol'",
        ),
        (corpus().rename(columns={"text": "t"}), {}, ValueError, "no column for text"),
        (corpus(), {"text": "words"}, ValueError, "`text`: column 'words' not found in `terms`"),
        (corpus(), {"text": []}, ValueError, "no column for text"),
        (corpus().assign(gene="x"), {}, ValueError, "None of the 1 names in `terms`"),
        (corpus().assign(text=""), {}, ValueError, "the column of text is blank"),
        (corpus().assign(text="a b"), {}, ValueError, "no words of two or more letters"),
        (corpus()[:0], {}, ValueError, "`terms` holds no rows"),
        (corpus(), {"min_df": 31}, ValueError, "`min_df` = 31 of the 30 genes with text. Lower `min_df`"),
        (corpus(), {"min_df": 0}, ValueError, "`min_df` to be at least 1"),
        (corpus(), {"n_components": 0}, ValueError, "`n_components` to be at least 1"),
        (corpus(), {"n_components": 2.5}, TypeError, "`n_components` to be an integer"),
        (corpus(), {"seed": -1}, ValueError, "`seed`"),
        (["G1"], {}, TypeError, "a DataFrame, a dict or a path, found list"),
        ("nowhere.tsv", {}, FileNotFoundError, "`terms`: no file"),
    ],
)
def test_bad_input_says_what_to_do_and_changes_nothing(adata, terms, options, error, message):
    with pytest.raises(error, match=message):
        tr.pp.text_embedding(adata, terms, **options)
    assert not adata.varm
    assert not adata.uns


@pytest.mark.data
def test_genes_of_one_family_are_alike(data_dir):
    adata = ad.read_h5ad(data_dir / "beeline" / "expression" / "mDC.h5ad")
    tr.pp.text_embedding(adata, data_dir / "gene_text" / "gene2go_mouse_ncbi.tsv.gz", match_case=False)
    assert adata.uns["embedding"]["coverage"]["fraction"] > 0.85
    found = pd.DataFrame(adata.varm["embedding"], index=adata.var_names).dropna()
    family = found[found.index.str.match(r"RP[LS]\d+")]
    among = family.to_numpy() @ family.to_numpy().T
    across = family.to_numpy() @ found.drop(family.index).to_numpy().T
    assert len(family) >= 5
    assert np.median(among) > 0.5 > np.median(across) + 0.2
