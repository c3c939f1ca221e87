import numpy as np
import pytest
from element_sets import add_sets, with_sets
from matplotlib import pyplot as plt

import sctrellis as tr


@pytest.fixture(scope="module")
def mdata():
    mdata = with_sets(n_peaks=3)
    add_sets(mdata, key="grids_2", n_peaks=2)
    add_sets(mdata, key="random", method="random", n_peaks=1)
    return mdata


def means(ax):
    """Return the series by label: positions and means."""
    dots = [c for c in ax.collections if type(c).__name__ == "PathCollection" and not c.get_label().startswith("_")]
    return {c.get_label(): np.asarray(c.get_offsets()) for c in dots}


def test_means_and_intervals(mdata):
    ax = tr.pl.perturbation(mdata, ["grids", "grids_2", "random"])
    found = means(ax)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "2", "3"]
    for key, method, place in (("grids", "grids", 1), ("grids_2", "grids", 0), ("random", "random", 0)):
        tasks = mdata.uns[key]["tasks"]
        assert found[method][place, 1] == pytest.approx(tasks["log_delta"].mean())
    # Alone at their size, methods stand over its label.
    np.testing.assert_allclose(found["grids"][:, 0], [1, 2])
    np.testing.assert_allclose(found["random"][:, 0], [0])
    bars = [c for c in ax.collections if type(c).__name__ == "LineCollection"]
    low, high = bars[0].get_segments()[1][:, 1]
    tasks = mdata.uns["grids"]["tasks"]
    assert high - low == pytest.approx(2 * 0.1 / np.sqrt(len(tasks)))
    assert (low + high) / 2 == pytest.approx(tasks["log_delta"].mean())


def test_every_task_is_a_dot(mdata):
    ax = tr.pl.perturbation(mdata, "grids")
    small = [c for c in ax.collections if type(c).__name__ == "PathCollection" and c.get_label().startswith("_")]
    np.testing.assert_allclose(small[0].get_offsets()[:, 1], mdata.uns["grids"]["tasks"]["log_delta"])


@pytest.mark.parametrize(
    ("value", "label"),
    [("avg_delta", "change of predicted expression"), ("rel_delta_pct", "change of predicted expression (%)")],
)
def test_value(mdata, value, label):
    ax = tr.pl.perturbation(mdata, value=value)
    assert ax.get_ylabel() == label
    assert means(ax)["grids"][0, 1] == pytest.approx(mdata.uns["grids"]["tasks"][value].mean())


def test_methods_of_one_size_stand_side_by_side(mdata):
    both = mdata.copy()
    add_sets(both, key="other", method="saliency", n_peaks=3, wrong=0)
    found = means(tr.pl.perturbation(both, ["grids", "other"]))
    assert {round(abs(x), 3) for x in (found["grids"][0, 0], found["saliency"][0, 0])} == {0.175}


def test_axes(mdata):
    _, ax = plt.subplots()
    assert tr.pl.perturbation(mdata, ax=ax, s=70) is ax


def test_messages(mdata):
    twice = mdata.copy()
    add_sets(twice, key="again", n_peaks=3)
    with pytest.raises(ValueError, match=r"'grids', 'again' hold the same method and size \('grids', 3\)"):
        tr.pl.perturbation(twice, ["grids", "again"])
    with pytest.raises(ValueError, match="`value` to be one of"):
        tr.pl.perturbation(mdata, value="delta")
    with pytest.raises(ValueError, match="`keys` to name at least one"):
        tr.pl.perturbation(mdata, [])
    with pytest.raises(KeyError, match="'search' not found"):
        tr.pl.perturbation(mdata, "search")
    assert not plt.get_fignums()
