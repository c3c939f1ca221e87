import numpy as np
import pytest
from element_sets import with_sets
from matplotlib import pyplot as plt

import sctrellis as tr


@pytest.fixture(scope="module")
def mdata():
    mdata = with_sets()
    tr.tl.hit_ratio(mdata, background="all")
    return mdata


def test_it_is_the_table(mdata):
    ax = tr.pl.distance_decay(mdata)
    table = tr.get.record(mdata, "grids_hit_ratio")["decay"]
    (dots,) = (c for c in ax.collections if type(c).__name__ == "PathCollection")
    np.testing.assert_array_equal(dots.get_offsets(), np.column_stack([np.arange(7), table["observed"]]))
    np.testing.assert_allclose([bar.get_y() for bar in ax.patches], table["expected_low"])
    np.testing.assert_allclose([bar.get_y() + bar.get_height() for bar in ax.patches], table["expected_high"])
    (lines,) = (c for c in ax.collections if type(c).__name__ == "LineCollection")
    np.testing.assert_allclose([s[0, 1] for s in lines.get_segments()], table["expected"])
    said = [text.get_text() for text in ax.texts]
    assert said == [f"× {value:.2g}" for value in table["enrichment"]]
    labels = [label.get_text() for label in ax.get_xticklabels()]
    assert labels[:4] == ["0-10\nkb", "10-100\nkb", "100-500\nkb", "500 kb-\n1 Mb"]
    assert labels[-1] == "other\nchrom."


def test_axes(mdata):
    _, ax = plt.subplots()
    assert tr.pl.distance_decay(mdata, ax=ax, s=9) is ax


def test_messages(mdata):
    with pytest.raises(ValueError, match="holds no table of distances: it is the record of 'grids'"):
        tr.pl.distance_decay(mdata, key="grids")
    with pytest.raises(KeyError, match="'other' not found"):
        tr.pl.distance_decay(mdata, key="other")
    assert not plt.get_fignums()
