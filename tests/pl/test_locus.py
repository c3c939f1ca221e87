import numpy as np
import pytest
from element_sets import with_sets
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgba

import sctrellis as tr
from sctrellis._core import slots


@pytest.fixture(scope="module")
def simulated():
    return with_sets()


@pytest.fixture
def mdata(simulated):
    return simulated.copy()


def parts(mdata):
    """Return target, its rows, and its gene."""
    target = mdata.uns["targets"]["target"].iloc[0]
    sets = tr.get.element_sets(mdata, targets=target)
    return target, sets, mdata["rna"].var.loc[target]


def arcs(ax):
    return [line for line in ax.lines if len(line.get_xdata()) == 80]


def test_arcs_join_peaks_to_the_start_of_transcription(mdata):
    target, sets, gene = parts(mdata)
    ax = tr.pl.locus(mdata, target)
    assert ax.get_xlabel() == f"position on {gene['chrom']} (Mb)"
    assert ax.get_title(loc="left") == f"{target} in {sets['group'].iloc[0]}: {len(sets)} peaks"
    found = arcs(ax)
    assert len(found) == len(sets)
    for line, row in zip(found, sets.itertuples(), strict=True):
        x, y = line.get_xdata(), line.get_ydata()
        np.testing.assert_allclose(sorted([x[0], x[-1]]), sorted([(row.start + row.end) / 2e6, gene["tss"] / 1e6]))
        np.testing.assert_allclose([y[0], y[-1]], 0, atol=1e-9)


def test_width_and_dash_say_gain_and_sign(mdata):
    target, _, _ = parts(mdata)
    table = mdata.uns["grids"]["sets"]
    own = table["target"] == target
    table.loc[own, "gain"] = np.linspace(-1, 0.5, own.sum())
    found = arcs(tr.pl.locus(mdata, target))
    gain = table.loc[own, "gain"].to_numpy()
    widths = np.array([line.get_linewidth() for line in found])
    np.testing.assert_allclose(widths, 0.8 + 4.2 * np.abs(gain))
    assert [line.get_linestyle() == "-" for line in found] == [g <= 0 for g in gain]
    legend = [text.get_text() for text in plt.gcf().axes[0].get_legend().get_texts()]
    assert legend == ["expression falls", "expression rises", "1 log units", "0.3 log units"]


def test_the_track_holds_candidates_and_selected(mdata):
    target, sets, _ = parts(mdata)
    ax = tr.pl.locus(mdata, target)
    links = slots.read_cis(mdata)
    row = mdata["rna"].var_names.get_loc(target)
    n_candidates = links.indptr[row + 1] - links.indptr[row]
    bars = [p for p in ax.patches if abs(p.get_y() + 0.42) < 1e-9]
    blue = [p for p in bars if p.get_facecolor() == to_rgba("#0072B2")]
    assert (len(bars), len(blue)) == (n_candidates, len(sets))
    assert sorted(text.get_text() for text in ax.texts if text.get_text()) == [str(i + 1) for i in range(len(sets))]


def test_the_arrow_points_where_the_gene_runs(mdata):
    target, _, gene = parts(mdata)
    for strand, way in (("+", 1), ("-", -1)):
        mdata["rna"].var.loc[target, "strand"] = strand
        ax = tr.pl.locus(mdata, target)
        (arrow,) = (text for text in ax.texts if not text.get_text())
        assert (
            np.sign(arrow.xy[0] * -1 + arrow.get_position()[0]) == way
            or np.sign(arrow.xy[0] - gene["tss"] / 1e6) == way
        )


def test_peaks_elsewhere_are_counted(mdata):
    target, _, gene = parts(mdata)
    table = mdata.uns["grids"]["sets"]
    first = table.index[table["target"] == target][0]
    other = mdata["atac"].var_names[(mdata["atac"].var["chrom"] != gene["chrom"]).to_numpy()][0]
    table.loc[first, "peak"] = other
    ax = tr.pl.locus(mdata, target)
    assert ax.get_title(loc="left").endswith(f"{(table['target'] == target).sum()} peaks, 1 on other chromosomes")
    assert len(arcs(ax)) == (table["target"] == target).sum() - 1


def test_without_links_only_the_set_is_drawn(mdata):
    target, sets, _ = parts(mdata)
    ax = tr.pl.locus(mdata, target, cis="none")
    assert len([p for p in ax.patches if abs(p.get_y() + 0.42) < 1e-9]) == len(sets)


def test_axes(mdata):
    _, ax = plt.subplots()
    assert tr.pl.locus(mdata, parts(mdata)[0], ax=ax, alpha=0.5) is ax
    assert {line.get_alpha() for line in arcs(ax)} == {0.5}


def test_messages(mdata):
    with pytest.raises(ValueError, match="has 8 sets for `target=None`, `group=None`: 'gene_.* in group_.*. Name one"):
        tr.pl.locus(mdata)
    with pytest.raises(KeyError, match="`targets`: 'XIST' not found"):
        tr.pl.locus(mdata, "XIST")
    target = parts(mdata)[0]
    mdata["rna"].var.loc[target, ["chrom", "tss"]] = ["", -1]
    with pytest.raises(ValueError, match="has no coordinates"):
        tr.pl.locus(mdata, target)
    assert not plt.get_fignums()
