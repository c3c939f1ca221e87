import numpy as np
import pytest
from element_sets import with_sets
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle
from planted import plant

import sctrellis as tr


@pytest.fixture(scope="module")
def mdata():
    mdata = with_sets(400, kinds="ANDOR", n_targets=2)
    plant(mdata)
    tr.tl.redundancy(mdata, n_boot=200)
    return mdata


def tables(mdata, target):
    entry = tr.get.record(mdata, "grids_redundancy")
    return {name: entry[name][entry[name]["target"] == target] for name in ("tasks", "elements", "pairs", "expression")}


def test_heat_map_and_bars_are_the_tables(mdata):
    target = mdata.uns["targets"]["target"].iloc[0]
    axes, found = tr.pl.redundancy(mdata, target), tables(mdata, target)
    elements = found["elements"].sort_values("rank")
    image = axes["pairs"].images[0].get_array()
    place = {peak: i for i, peak in enumerate(elements["peak"])}
    for pair in found["pairs"].itertuples():
        i, j = sorted((place[pair.peak_a], place[pair.peak_b]))
        assert image[i, j] == pytest.approx(pair.epsilon)
        assert image[j, i] == pytest.approx(pair.epsilon_within)
    assert np.ma.getmaskarray(image).diagonal().all()
    bars = axes["elements"].patches
    np.testing.assert_allclose([bar.get_width() for bar in bars[:4]], elements["single"])
    np.testing.assert_allclose([bar.get_width() for bar in bars[4:]], elements["last_in"])
    (dots,) = (c for c in axes["elements"].collections if type(c).__name__ == "PathCollection")
    np.testing.assert_allclose(dots.get_offsets()[:, 0], elements["shapley"])
    assert axes["pairs"].get_ylim() == axes["elements"].get_ylim()


def test_called_pairs_are_framed(mdata):
    target = mdata.uns["targets"]["target"].iloc[0]
    axes, pairs = tr.pl.redundancy(mdata, target), tables(mdata, target)["pairs"]
    frames = [p for p in axes["pairs"].patches if isinstance(p, Rectangle)]
    calls = [*pairs["call"], *pairs["call_within"]]
    assert set(calls) == {"redundant", "cooperative", "none"}
    assert len([p for p in frames if p.get_linestyle() == "-"]) == calls.count("redundant")
    assert len([p for p in frames if p.get_linestyle() != "-"]) == calls.count("cooperative")


def test_what_is_small_beside_the_whole_stays_pale(mdata):
    small = mdata.copy()
    target = small.uns["targets"]["target"].iloc[0]
    entry = small.uns["grids_redundancy"]
    entry["pairs"][["epsilon", "epsilon_within"]] *= 1e-3
    whole = tables(small, target)["tasks"]["whole"].iloc[0]
    assert tr.pl.redundancy(small, target)["pairs"].images[0].get_clim() == pytest.approx((-0.2 * whole, 0.2 * whole))


def test_numbers_are_written_where_there_is_room(mdata, monkeypatch):
    from sctrellis.pl import _redundancy

    target = mdata.uns["targets"]["target"].iloc[0]
    assert len(tr.pl.redundancy(mdata, target)["pairs"].texts) == 12
    monkeypatch.setattr(_redundancy, "_MAX_TEXT", 3)
    assert not tr.pl.redundancy(mdata, target)["pairs"].texts


def test_expression_shift_is_the_curve(mdata):
    target = mdata.uns["targets"]["target"].iloc[0]
    ax, found = tr.pl.expression_shift(mdata, target), tables(mdata, target)
    before, after = ax.lines
    np.testing.assert_allclose(before.get_xdata(), found["expression"]["before"])
    np.testing.assert_allclose(after.get_xdata(), found["expression"]["after"])
    np.testing.assert_allclose(after.get_ydata(), found["expression"]["quantile"])
    whole = found["tasks"]["whole"].iloc[0]
    assert f"mean change −{whole:.2f} (−" in ax.get_title(loc="left")
    assert np.all(before.get_xdata() >= after.get_xdata())


def test_axes(mdata):
    target = mdata.uns["targets"]["target"].iloc[0]
    _, ax = plt.subplots()
    assert tr.pl.redundancy(mdata, target, ax=ax)["pairs"] is ax
    _, ax = plt.subplots()
    assert tr.pl.expression_shift(mdata, target, ax=ax) is ax


@pytest.mark.parametrize("function", ["redundancy", "expression_shift"])
def test_messages(mdata, function):
    draw = getattr(tr.pl, function)
    with pytest.raises(ValueError, match="has 2 sets for `target=None`"):
        draw(mdata)
    with pytest.raises(KeyError, match="'search_redundancy' not found"):
        draw(mdata, key="search")
    other = mdata.copy()
    other.uns["grids_redundancy"] = {"schema": 1, "method": "grids"}
    with pytest.raises(ValueError, match="is the record of 'grids', not of `sctrellis.tl.redundancy`"):
        draw(other)
    assert not plt.get_fignums()
