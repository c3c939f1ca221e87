"""pbmc: real cells without a download, and a list of regulators that was looked at."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest

import sctrellis as tr


def test_values_are_those_before_scaling():
    import scanpy as sc

    from sctrellis._core import slots

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        original = sc.datasets.pbmc68k_reduced()
    adata = tr.datasets.pbmc()
    assert original.X.min() < 0 <= adata.X.min()
    np.testing.assert_array_equal(adata.X.toarray(), original.raw.X.toarray())
    assert list(adata.var_names) == list(original.raw.var_names)
    assert adata.obs.equals(original.obs)
    np.testing.assert_array_equal(adata.obsm["X_umap"], original.obsm["X_umap"])
    # Undoing the scaling: per gene, scaled and log-normalised values must rise together.
    gene = list(adata.var_names).index("SPI1")
    assert np.corrcoef(original[:, "SPI1"].X.ravel(), adata.X[:, gene].toarray().ravel())[0, 1] > 0.8
    assert slots.read_matrix(adata).shape == (700, 765)  # neither warns nor raises


def test_regulators_are_genes_of_the_data():
    adata, names = tr.datasets.pbmc(), tr.datasets.pbmc_regulators()
    assert names == sorted(set(names))
    assert set(names) <= set(adata.var_names)
    assert set(adata.var_names[adata.var["is_regulator"]]) == set(names)


def test_regulators_hold_the_known_and_not_the_notorious():
    names = set(tr.datasets.pbmc_regulators())
    assert {"SPI1", "SPIB", "GATA3", "IRF8", "FOS", "JUNB", "EGR1", "SOX4", "LYL1", "ID2", "POU2AF1"} <= names
    assert not {"CD3D", "ACTB", "NKG7", "MIF", "POLR2G", "GTF2E2", "HNRNPK", "SOD1", "NFKBIA", "IL1B"} & names


def test_the_list_is_the_callers_own():
    tr.datasets.pbmc_regulators().clear()
    assert tr.datasets.pbmc_regulators()


def test_warning_filters_are_left_alone():
    before = list(warnings.filters)
    tr.datasets.pbmc()
    assert list(warnings.filters) == before


@pytest.mark.data
def test_factors_are_in_published_lists():
    folder = Path(os.environ.get("SCTRELLIS_DATA", "")) / "tf_lists"
    if "SCTRELLIS_DATA" not in os.environ or not folder.is_dir():
        pytest.skip("needs tf_lists under SCTRELLIS_DATA")
    curated = set((folder / "hs_hgnc_curated_tfs.txt").read_text().split())
    wide = set((folder / "hs_hgnc_tfs.txt").read_text().split())
    wide |= {line.split(",")[0] for line in (folder / "beeline_human-tfs.csv").read_text().splitlines()}
    wide |= {line.split("\t")[1] for line in (folder / "AnimalTFDB_Homo_sapiens_TF.txt").read_text().splitlines()}
    names = set(tr.datasets.pbmc_regulators())
    assert set(tr.datasets.pbmc().var_names) & curated <= names, "every curated factor is kept"
    assert names <= curated | wide, "none without a source"
