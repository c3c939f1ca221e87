"""pl.search_trace draws what the record of a search holds."""

import numpy as np
import pytest
from planted import plant

import sctrellis as tr


@pytest.fixture(scope="module")
def searched():
    mdata = plant(tr.datasets.simulate_multiome(300, 240, 6, n_targets=2, n_groups=2, kinds="TRAP3", seed=3))
    targets = list(mdata.uns["targets"]["target"])
    options = {"n_peaks": 3, "n_boot": 0}
    tr.tl.grids(mdata, targets=targets, **options, max_exhaustive=0)
    tr.tl.grids(mdata, targets=targets, **options, method="grids", key_added="published")
    tr.tl.grids(mdata, targets=targets, **options, key_added="every")
    tr.tl.attribution(mdata, "saliency", targets=targets, **options)
    return mdata


def task(searched, i=-1):
    return searched.uns["targets"].iloc[i][["target", "group"]]


def test_every_start_is_a_line_and_the_best_are_dark(searched):
    target, group = task(searched)
    ax = tr.pl.search_trace(searched, target, group)
    record = tr.get.record(searched, "grids")
    starts = record["starts"].query("target == @target and group == @group")
    lines = [line for line in ax.get_lines() if len(line.get_xdata()) == 2 and list(line.get_xdata()) == [0, 1]]
    drawn = np.array([line.get_ydata() for line in lines if line.get_marker() == "o"], dtype=float)
    np.testing.assert_allclose(drawn, starts[["first", "last"]])
    dark = np.array([line.get_linewidth() > 1 for line in lines if line.get_marker() == "o"])
    np.testing.assert_array_equal(dark, starts["last"] <= starts["last"].min() + 1e-6)
    assert 0 < dark.sum() < len(dark)
    assert ax.get_title(loc="left") == f"{target} in {group}: grids+, 14 starts"
    named = " ".join(text.get_text() for text in ax.texts)
    assert "backward" in named
    assert "random" in named


def test_one_start_is_a_staircase(searched):
    target, group = task(searched)
    ax = tr.pl.search_trace(searched, target, group, key="published")
    record = tr.get.record(searched, "published")
    trace = record["trace"].query("target == @target and group == @group")
    values = ax.get_lines()[0].get_ydata()
    np.testing.assert_allclose(values[1:-1], trace["log_delta"])
    assert values[-1] == pytest.approx(
        record["tasks"].query("target == @target and group == @group")["search_log_delta"]
    )
    assert ax.get_xlabel() == "step"


def test_the_axes_that_are_given_are_used_and_the_first_task_is_drawn(searched):
    from matplotlib import pyplot as plt

    _, given = plt.subplots()
    assert tr.pl.search_trace(searched, ax=given) is given
    first = tr.get.record(searched, "grids")["tasks"].iloc[0]
    assert given.get_title(loc="left").startswith(f"{first['target']} in {first['group']}:")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"target": "gene_99"}, r"`target`: 'gene_99' was not searched. Searched: 'gene_"),
        ({"group": "none"}, r"`group`: 'none' was not searched"),
        ({"key": "every"}, r"All sets of 'gene_\d' in 'group_\d' were compared.*`max_exhaustive=0`"),
        ({"key": "attribution_saliency"}, r"holds no search: it is the record of 'attribution'"),
    ],
)
def test_bad_input(searched, options, words):
    with pytest.raises(ValueError, match=words):
        tr.pl.search_trace(searched, **options)
