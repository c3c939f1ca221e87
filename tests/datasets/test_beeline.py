"""beeline: reads what the folder holds, and says what it lacks."""

import gzip
import os
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

import sctrellis as tr
from sctrellis._core import record, universe

beeline = tr.datasets.beeline

GENES = ["NA", "GATA1", "SPI1", "KLF1", "MYB", "EXTRA"]


@pytest.fixture
def folder(tmp_path):
    """Six genes, of which EXTRA is in TFs+1000 only and MYB regulates without being listed."""
    x = np.random.default_rng(0).random((12, 6)).astype(np.float32)
    var = pd.DataFrame({"is_tf": [False, True, True, False, False, False]}, index=GENES)
    var["in_TFs+500"], var["in_TFs+1000"] = var.index != "EXTRA", True
    (tmp_path / "beeline" / "expression").mkdir(parents=True)
    adata = anndata.AnnData(x, var=var, obs=pd.DataFrame(index=[f"c{i}" for i in range(12)]))
    adata.write_h5ad(tmp_path / "beeline" / "expression" / "aCell.h5ad")
    adata.write_h5ad(tmp_path / "beeline" / "expression" / "bCell.h5ad")
    edges = "Gene1,Gene2,Score\nGATA1,NA,9\nGATA1,SPI1,9\nGATA1,SPI1,3\nSPI1,SPI1,1\nMYB, KLF1,2\n"
    put(tmp_path, "STRING", "aCell", "TFs+500", edges)
    put(tmp_path, "STRING", "aCell", "TFs+1000", "\ufeff" + edges + "GATA1,EXTRA,1\nGATA1,LOST,1\n", zipped=False)
    return tmp_path


def put(folder, network, cell, size, text, *, zipped=True):
    target = folder / "beeline" / "networks" / network / cell / size
    target.mkdir(parents=True)
    if zipped:
        (target / "BL--network.csv.gz").write_bytes(gzip.compress(text.encode()))
    else:
        (target / "BL--network.csv").write_text(text, encoding="utf-8")


def test_edges_genes_and_regulators(folder):
    adata = beeline("aCell", "STRING", path=folder)
    assert list(adata.var_names) == GENES[:5]
    network = adata.varp["network"]
    named = {(adata.var_names[i], adata.var_names[j]) for i, j in zip(*network.nonzero(), strict=True)}
    assert named == {("GATA1", "NA"), ("GATA1", "SPI1"), ("MYB", "KLF1")}
    assert (network.data == 1).all()
    assert network.dtype == np.float32
    assert list(adata.var["is_regulator"]) == [False, True, True, False, True]
    assert not adata.is_view


def test_missing_genes_are_counted_and_warned_of(folder):
    with pytest.warns(UserWarning, match=r"1 of 7 genes of the STRING network.*1 of its 5 edges are left out"):
        adata = beeline("aCell", "STRING", "TFs+1000", path=folder)
    reference = record.read(adata, "beeline")["reference"]
    assert reference == {
        "n_edges": 4,
        "n_edges_read": 5,
        "n_edges_dropped": 1,
        "n_genes": 7,
        "n_genes_missing": 1,
    }
    assert adata.n_vars == 6


def test_expression_alone(folder):
    adata = beeline("bCell", path=folder)
    assert "network" not in adata.varp
    assert adata.var["is_regulator"].sum() == 2


def test_folder_comes_from_the_settings(folder, monkeypatch):
    monkeypatch.setattr(tr.settings, "dataset_dir", folder)
    assert beeline("aCell", "STRING").n_obs == 12


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_round_trip_without_paths(folder, tmp_path, form):
    for network in (None, "STRING"):
        adata = beeline("aCell", network, path=folder)
        assert str(folder) not in str(adata.uns)
        path = tmp_path / f"{network}.{form}"
        getattr(adata, f"write_{form}")(path)
        again = getattr(anndata, f"read_{form}")(path)
        assert record.read(again, "beeline")["reference"] == record.read(adata, "beeline")["reference"]
        if network:
            assert (again.varp["network"] != adata.varp["network"]).nnz == 0


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        (("acell",), ValueError, "`cell` to be one of 'aCell', 'bCell'; found 'acell'"),
        (("aCell", "string"), ValueError, "`network` to be one of 'STRING'; found 'string'"),
        (("bCell", "STRING"), ValueError, "no STRING TFs\\+500 for bCell.*there are none"),
        (("aCell", "STRING", "500"), ValueError, r"`size` to be one of 'TFs\+500', 'TFs\+1000'; found '500'"),
        (("../aCell",), ValueError, "`cell` to be one of"),
    ],
)
def test_bad_names_list_those_that_exist(folder, arguments, error, match):
    with pytest.raises(error, match=match):
        beeline(*arguments, path=folder)


def test_other_sizes_are_listed(folder):
    put(folder, "Other", "aCell", "TFs+500", "Gene1,Gene2\nGATA1,SPI1\n")
    with pytest.raises(ValueError, match=r"For aCell there are Other TFs\+500, STRING TFs\+1000, STRING TFs\+500"):
        beeline("aCell", "Other", "TFs+1000", path=folder)


def test_absent_folder_says_what_to_put_where(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expression/<cell>\.h5ad.*BL--network\.csv.*SCTRELLIS_DATA"):
        beeline("mDC", path=tmp_path / "nowhere")


def test_files_of_another_layout(folder):
    put(folder, "Bad", "aCell", "TFs+500", "source;target\nGATA1;SPI1\n")
    with pytest.raises(ValueError, match=r"columns Gene1 and Gene2, found source;target"):
        beeline("aCell", "Bad", path=folder)
    put(folder, "Mouse", "aCell", "TFs+500", "Gene1,Gene2\nGata1,Spi1\n")
    with pytest.raises(ValueError, match=r"no edge between genes of the expression.*'Gata1', 'Spi1'"):
        beeline("aCell", "Mouse", path=folder)
    anndata.AnnData(np.ones((3, 2), dtype=np.float32)).write_h5ad(folder / "beeline" / "expression" / "cCell.h5ad")
    with pytest.raises(ValueError, match="Boolean column 'is_tf' in `.var`, found no column"):
        beeline("cCell", path=folder)


# Table of published sets: edges, regulators with edges, density over regulators x genes with edges.
PUBLISHED = {
    ("Specific", "mDC", "TFs+500"): (756, 20, 0.085),
    ("Specific", "mDC", "TFs+1000"): (1193, 21, 0.082),
    ("Specific", "mESC", "TFs+500"): (29613, 88, 0.345),
    ("Non-Specific", "mDC", "TFs+500"): (3067, 250, 0.019),
    ("Non-Specific", "mDC", "TFs+1000"): (3918, 254, 0.016),
    ("Non-Specific", "mESC", "TFs+500"): (6893, 516, 0.015),
    ("STRING", "mDC", "TFs+500"): (4815, 264, 0.038),
    ("STRING", "mDC", "TFs+1000"): (5898, 273, 0.032),
    ("STRING", "mESC", "TFs+500"): (7762, 495, 0.024),
    ("Lofgof", "mESC", "TFs+500"): (4169, 34, 0.158),
}
# Transcription factors listed with the set.
LISTED = {("Specific", "mDC"): 323, ("Specific", "mESC"): 627, ("STRING", "mDC"): 321, ("STRING", "mESC"): 620}


@pytest.fixture
def real():
    root = os.environ.get("SCTRELLIS_DATA", "")
    if not root or not (Path(root) / "beeline" / "networks").is_dir():
        pytest.skip("needs beeline under SCTRELLIS_DATA")
    return Path(root)


@pytest.mark.data
def test_every_set_present_has_its_density(real):
    files = sorted((real / "beeline" / "networks").glob("*/*/*/BL--network.csv*"))
    assert files
    seen = 0
    for file in files:
        network, cell, size = file.parts[-4:-1]
        if not (real / "beeline" / "expression" / f"{cell}.h5ad").is_file():
            continue
        table = pd.read_csv(file)
        genes = set(anndata.read_h5ad(real / "beeline" / "expression" / f"{cell}.h5ad").var_names)
        complete = set(table["Gene1"]) | set(table["Gene2"]) <= genes
        if not complete:
            with pytest.warns(UserWarning, match="figures differ from those published"):
                adata = beeline(cell, network, size, path=real)
            continue
        adata = beeline(cell, network, size, path=real)
        truth = adata.varp["network"]
        density = truth.nnz / universe.pairs(truth, None).nnz
        sources = table["Gene1"].nunique()
        every = len(set(table["Gene1"]) | set(table["Gene2"]))
        assert truth.nnz == len(table)
        assert density == pytest.approx(len(table) / (sources * (every - 1)), abs=1e-9)
        if (network, cell, size) in PUBLISHED:
            n_edges, n_sources, published = PUBLISHED[network, cell, size]
            assert truth.nnz == n_edges
            assert (truth.getnnz(axis=1) > 0).sum() == n_sources
            assert density == pytest.approx(published, abs=1e-3)
            seen += 1
        if (network, cell) in LISTED and size == "TFs+500":
            assert adata.var["is_regulator"].sum() == LISTED[network, cell]
    assert seen


@pytest.mark.data
def test_real_expression_passes_every_check(real):
    from sctrellis._core import slots

    adata = beeline("mDC", "STRING", path=real)
    assert slots.read_matrix(adata).shape == (383, 821)
