"""pp.cis_links: distances of genes to peaks, where they are written, what is refused."""

import numpy as np
import pytest
from helpers import content

import sctrellis as tr
from sctrellis._core import slots


@pytest.fixture
def mdata():
    mdata = tr.datasets.simulate_multiome(20, 480, 16, n_targets=2)
    del mdata.varp["cis"]
    return mdata


def by_hand(mdata, window):
    """Return the distance of every gene and peak, NaN beyond the window, from the coordinates in the tables."""
    genes, peaks = mdata["rna"].var, mdata["atac"].var
    found = np.full((len(genes), len(peaks)), np.nan)
    for g, gene in enumerate(genes.itertuples()):
        for p, peak in enumerate(peaks.itertuples()):
            if gene.chrom and gene.chrom == peak.chrom:
                genomic = max(peak.start - gene.tss, 0) or min(peak.end - 1 - gene.tss, 0)
                found[g, p] = -genomic if gene.strand == "-" else genomic
    found[np.abs(found) > window] = np.nan
    return found


@pytest.mark.parametrize("window", [0, 20_000, 500_000, 3_000_000])
def test_every_link_and_no_other(mdata, window):
    # One peak over a start of transcription, one longer than the window, one gene at the end of its chromosome.
    genes, peaks = mdata["rna"].var, mdata["atac"].var
    peaks.iloc[3, peaks.columns.get_loc("start")] = genes["tss"].iloc[0] - 5
    peaks.iloc[3, peaks.columns.get_loc("end")] = genes["tss"].iloc[0] + 300
    peaks.iloc[40, peaks.columns.get_loc("end")] += 2_000_000
    genes.iloc[1, genes.columns.get_loc("tss")] = 0
    tr.pp.cis_links(mdata, window)
    expected = by_hand(mdata, window)
    links = slots.read_cis(mdata)
    found = np.full(links.shape, np.nan)
    found[np.repeat(np.arange(links.shape[0]), np.diff(links.indptr)), links.indices] = links.data
    np.testing.assert_array_equal(found, expected)
    stored = mdata.varp["cis"]
    assert stored.nnz == np.isfinite(expected).sum() > 0
    assert stored[0, 16 + 3] == 1
    assert mdata.var_names[19] == mdata["atac"].var_names[3]
    assert mdata.uns["cis"]["counts"]["links"] == stored.nnz


def test_equals_what_the_simulator_writes():
    mdata = tr.datasets.simulate_multiome(20)
    planted = mdata.varp["cis"].copy()
    tr.pp.cis_links(mdata)
    assert (mdata.varp["cis"] != planted).nnz == 0
    assert mdata.varp["cis"].nnz == planted.nnz


def test_counts(mdata):
    mdata["rna"].var.iloc[:3, mdata["rna"].var.columns.get_loc("chrom")] = ""
    tr.pp.cis_links(mdata, 100_000)
    counts = mdata.uns["cis"]["counts"]
    per_gene = np.isfinite(by_hand(mdata, 100_000)).sum(axis=1)
    assert counts["genes"] == 16
    assert counts["genes_with_coordinates"] == 13
    assert counts["genes_with_links"] == (per_gene > 0).sum()
    assert counts["median_links"] == np.median(per_gene[per_gene > 0])
    assert counts["most_links"] == per_gene.max()


def test_order_of_variables_does_not_matter(mdata):
    tr.pp.cis_links(mdata)
    rng = np.random.default_rng(0)
    shuffled = mdata[:, rng.permutation(mdata.var_names)].copy()
    stored = shuffled.varp["cis"].copy()
    tr.pp.cis_links(shuffled)
    assert (shuffled.varp["cis"] != stored).nnz == 0


def test_copy_views_and_keys(mdata):
    before = content(mdata)
    other = tr.pp.cis_links(mdata, 50_000, key_added="near", copy=True)
    assert content(mdata) == before
    assert "near" not in mdata.varp
    assert other.uns["near"]["slots"]["links"] == "varp/near"
    assert other.uns["near"]["params"]["window"] == 50_000
    view = mdata[:10]
    tr.pp.cis_links(view, 50_000)
    assert (view.varp["cis"] != other.varp["near"]).nnz == 0
    assert content(mdata) == before
    again = tr.pp.cis_links(mdata, 50_000, key_added="near", copy=True)
    assert content(again) == content(other)


def test_bad_input(mdata):
    before = content(mdata)
    for window, error, text in (
        (-1, ValueError, "`window` to be at least 0"),
        (1e5, TypeError, "`window` to be an integer"),
        (2**24, ValueError, "`window` to be at most 16,777,214"),
    ):
        with pytest.raises(error, match=text):
            tr.pp.cis_links(mdata, window)
    with pytest.raises(TypeError, match="Expected `mdata` to be a MuData"):
        tr.pp.cis_links(mdata["rna"])
    with pytest.raises(KeyError, match="'gex' not found in `mdata.mod`"):
        tr.pp.cis_links(mdata, rna="gex")
    bare = mdata.copy()
    del bare["rna"].var["tss"]
    with pytest.raises(KeyError, match=r"'tss' not found in `mdata\['rna'\].var`.*sctrellis.pp.multiome"):
        tr.pp.cis_links(bare)
    bare = mdata.copy()
    bare["rna"].var["chrom"] = "7"
    with pytest.raises(
        ValueError, match="None of the 16 genes with coordinates has a peak within 500,000 bases.*'7'.*'chr1'"
    ):
        tr.pp.cis_links(bare)
    bare = mdata.copy()
    bare["atac"].var["end"] = bare["atac"].var["start"]
    with pytest.raises(ValueError, match="480 peaks .* end where they start"):
        tr.pp.cis_links(bare)
    assert content(mdata) == before
