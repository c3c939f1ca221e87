"""pp.regulators: names in any form, found however they can be, and errors that say what to do."""

import gzip
import logging

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import pytest

import sctrellis as tr

GENES = ["GATA1", "SPI1", "KLF1", "HBB", "HBA1", "CD3E"]


@pytest.fixture
def blood() -> ad.AnnData:
    return ad.AnnData(np.ones((3, len(GENES)), np.float32), var=pd.DataFrame(index=GENES))


def marked(adata, key="is_regulator"):
    return adata.var_names[adata.var[key]].tolist()


@pytest.mark.parametrize(
    "names",
    [
        ["KLF1", "GATA1", "MYB"],
        ("KLF1", "GATA1", "MYB"),
        {"KLF1", "GATA1", "MYB"},
        pd.Series(["KLF1", "GATA1", None, "MYB"]),
        pd.Categorical(["KLF1", "GATA1"]),
        pd.Index(["KLF1", "GATA1"]),
        np.array(["KLF1", " GATA1 ", ""]),
        (name for name in ["KLF1", "GATA1"]),
        pd.DataFrame({"Family": ["a", "b"], "Symbol": ["KLF1", "GATA1"]}),
    ],
    ids=lambda v: type(v).__name__,
)
def test_every_form_of_names_marks_the_same_genes(blood, names):
    assert tr.pp.regulators(blood, names) is None
    assert marked(blood) == ["GATA1", "KLF1"]
    assert blood.var["is_regulator"].dtype == bool


@pytest.mark.parametrize(
    "text",
    [
        "KLF1\nGATA1\n",
        "\ufeffTF\nKLF1\r\nGATA1\r\n",
        "TF,Sources\nKLF1,a|b\nGATA1,c\n",
        "Species\tSymbol\tEntrez ID\nHs\tKLF1\t10661\nHs\tGATA1\t2623\n",
        ",TF,index\n0,KLF1,3\n1,GATA1,9\n",
        "KLF1;x\nGATA1;y\n",
        '"KLF1"\n"GATA1"\n',
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_every_kind_of_file(blood, tmp_path, text, zipped):
    path = tmp_path / "tfs.txt"  # a gzip file need not be called .gz
    path.write_bytes(gzip.compress(text.encode(), mtime=0) if zipped else text.encode())
    tr.pp.regulators(blood, path)
    assert marked(blood) == ["GATA1", "KLF1"]


def test_of_several_columns_the_one_that_finds_genes_is_read(blood, tmp_path):
    path = tmp_path / "tfs.tsv"
    path.write_text("Symbol\tEnsembl\nGATA1\tENSG00000102145\nMYB\tENSG00000118513\n")
    blood.var_names = ["ENSG00000102145", *GENES[1:4], "ENSG7", "ENSG8"]
    tr.pp.regulators(blood, path)
    assert marked(blood) == ["ENSG00000102145"]


def test_case_and_aliases_and_the_counts(blood, caplog):
    names = ["gata1", "PU.1", "eklf", "GATA1", "MYB", "GATA1"]
    aliases = {"PU.1": "SPI1", "EKLF": "KLF1", "old": "gone"}
    with caplog.at_level(logging.INFO, logger="sctrellis"):
        tr.pp.regulators(blood, names, match_case=False, aliases=aliases)
    assert marked(blood) == ["GATA1", "SPI1", "KLF1"]
    # gata1 and GATA1 are one gene, and GATA1 is there twice
    assert "4 names found (1 by alias, 2 ignoring case), 1 missing, 2 repeated" in caplog.text


def test_names_that_differ_in_case_only_are_left_out_with_a_warning(blood):
    with pytest.warns(
        UserWarning, match=r"2 names in `names` differ .* only in case \('Klf1', 'Spi1'\).*match_case=False"
    ):
        tr.pp.regulators(blood, ["GATA1", "Klf1", "Spi1"])
    assert marked(blood) == ["GATA1"]


def test_a_name_that_fits_two_genes_ignoring_case_fits_none(blood):
    blood.var_names = ["Gata1", "GATA1", *GENES[2:]]
    tr.pp.regulators(blood, ["gata1", "klf1"], match_case=False)
    assert marked(blood) == ["KLF1"]


@pytest.mark.parametrize(
    "aliases",
    [
        pd.Series({"PU.1": "SPI1"}),
        pd.DataFrame({"name": ["SPI1"], "alias": ["PU.1"]}),
        # an alias of two genes is no alias; the other one stays
        pd.DataFrame({"alias": ["PU.1", "X", "X"], "symbol": ["SPI1", "KLF1", "HBB"]}),
    ],
)
def test_forms_of_aliases(blood, aliases):
    tr.pp.regulators(blood, ["PU.1", "X"], aliases=aliases)
    assert marked(blood) == ["SPI1"]


def test_numeric_ids(blood):
    blood.var_names = ["2623", "6688", "10661", "3043", "3039", "916"]
    tr.pp.regulators(blood, pd.Series([2623, np.nan, 6688.0]))
    assert marked(blood) == ["2623", "6688"]


def test_a_genome_wide_list_on_few_genes_is_silent_but_few_hits_are_not():
    genes = [f"G{i}" for i in range(500)]
    adata = ad.AnnData(np.ones((2, 500), np.float32), var=pd.DataFrame(index=genes))
    tr.pp.regulators(adata, [*genes[:40], *(f"T{i}" for i in range(1600))])
    assert adata.var["is_regulator"].sum() == 40
    with pytest.warns(UserWarning, match="Only 2 of 1,002 names"):
        tr.pp.regulators(adata, [*genes[:2], *(f"T{i}" for i in range(1000))])


def test_dates_of_a_spreadsheet(blood):
    with pytest.warns(UserWarning, match=r"2 names in `names` look like dates \('2-Mar', 'Sep-1'\)"):
        tr.pp.regulators(blood, ["GATA1", "2-Mar", "Sep-1"])


def test_copy_view_key_and_modality(blood):
    copied = tr.pp.regulators(blood, ["GATA1"], copy=True, key_added="tf")
    assert marked(copied, "tf") == ["GATA1"]
    assert "tf" not in blood.var
    view = blood[:, ["HBB", "GATA1"]]
    tr.pp.regulators(view, ["GATA1", "KLF1"])
    assert marked(view) == ["GATA1"]
    assert "is_regulator" not in blood.var
    mdata = mudata.MuData({"rna": blood})
    tr.pp.regulators(mdata, ["GATA1"], mod="rna")
    assert marked(mdata["rna"]) == ["GATA1"]
    with pytest.raises(ValueError, match="choose a modality with `mod=`"):
        tr.pp.regulators(mdata, ["GATA1"])


@pytest.mark.parametrize(
    ("names", "options", "error", "message"),
    [
        ("GATA1", {}, FileNotFoundError, r"no file at 'GATA1'.*pass a list: `names=\['GATA1'\]`"),
        ([], {}, ValueError, "`names` holds no gene name"),
        (["", None], {}, ValueError, "`names` holds no gene name"),
        (["ENSG00000102145"], {}, ValueError, r"None of the 1 names.*Ensembl ids.*GATA1.*same identifiers"),
        (["gata1"], {}, ValueError, "1 of them match when case is ignored: pass `match_case=False`"),
        ([True, False], {}, TypeError, r"found Booleans.*adata.var\['is_regulator'\] = mask"),
        (3, {}, TypeError, "gene names or the path of a file, found int"),
        ({"GATA1": 1}, {}, TypeError, "found dict"),
        ([["GATA1"]], {}, TypeError, "found list"),
        (["GATA1"], {"key_added": "a/b"}, ValueError, "`key_added`.*without '/'"),
        (["PU.1"], {"aliases": ["SPI1"]}, TypeError, "`aliases` to be a mapping.*found list"),
        (["PU.1"], {"aliases": {"SPI1": "PU.1"}}, ValueError, "other way round"),
        (["PU.1"], {"aliases": {"PU.1": ["SPI1", "KLF1"]}}, ValueError, "one name for each alias"),
        (["PU.1"], {"aliases": pd.DataFrame({"a": ["b"]})}, ValueError, r"columns 'alias' and 'name'.*found 'a'"),
        (["PU.1"], {"aliases": {"PU.1": "ENSG1"}}, ValueError, "None of the 1 names in `aliases`"),
    ],
)
def test_bad_input_says_what_to_do_and_changes_nothing(blood, names, options, error, message):
    before = blood.copy()
    with pytest.raises(error, match=message):
        tr.pp.regulators(blood, names, **options)
    pd.testing.assert_frame_equal(blood.var, before.var)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "'tfs.txt' is empty"),
        (b"TF\n", "holds a header and no rows"),
        ("GATA1\nKLF1\n".encode("utf-16"), "UTF-16"),
        ("GATA1\nK\xe9\n".encode("latin-1"), "not UTF-8"),
        (gzip.compress(b"GATA1\nKLF1\n" * 50, mtime=0)[:-9], "cut short or damaged"),
        (b"PK\x03\x04rest", "a zip archive, as Excel writes"),
    ],
)
def test_bad_files_are_named(blood, tmp_path, content, message):
    path = tmp_path / "tfs.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"`names`.*{message}"):
        tr.pp.regulators(blood, path)
    assert blood.var.shape[1] == 0


def test_duplicated_genes_are_refused(blood):
    blood.var_names = ["GATA1", "GATA1", *GENES[2:]]
    with pytest.raises(ValueError, match="duplicated names"):
        tr.pp.regulators(blood, ["GATA1"])


@pytest.mark.data
def test_the_usual_lists(data_dir):
    adata = ad.read_h5ad(data_dir / "beeline" / "expression" / "mDC.h5ad")
    expected = adata.var["is_tf"]
    for path in sorted((data_dir / "tf_lists").iterdir()):
        tr.pp.regulators(adata, path, match_case=False)
        assert 80 <= adata.var["is_regulator"].sum() <= 400, path.name
        if path.name == "beeline_mouse-tfs.csv":
            assert (adata.var["is_regulator"] & expected).sum() > 0.9 * expected.sum()
