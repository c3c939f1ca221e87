"""pl.translation draws the tables of tl.translate and stored coordinates."""

import numpy as np
import pytest
from matplotlib import pyplot as plt

import sctrellis as tr
from sctrellis._core import slots


@pytest.fixture(scope="module")
def fitted():
    """A small multiome with a surrogate."""
    mdata = tr.datasets.simulate_multiome(120, 240, 8, n_groups=2, n_targets=2, n_chromosomes=2, seed=1)
    tr.tl.translate(mdata, groupby="cell_group", n_runs=1, n_null=2, max_epochs=8, n_hidden=4)
    return mdata


def offsets(ax):
    return [np.asarray(c.get_offsets()) for c in ax.collections if type(c).__name__ == "PathCollection"]


def test_dots_are_the_tables(fitted):
    panels = tr.pl.translation(fitted)
    assert list(panels) == ["means", "genes"]
    record = tr.get.record(fitted, "translate")
    table = record["by_group"].astype({"group": str})
    for dots, name, r in zip(
        offsets(panels["means"]), ("group_0", "group_1"), record["groups"]["r_of_means"], strict=True
    ):
        rows = table[table["group"] == name]
        np.testing.assert_allclose(dots, rows[["observed", "predicted"]])
        labels = [text.get_text() for text in panels["means"].get_legend().get_texts()]
        assert f"{name} (r = {r:.3f})" in labels
    genes = record["genes"]
    learned, rest = offsets(panels["genes"])
    assert len(learned) == genes["learned"].sum()
    drawn = np.concatenate([learned, rest])
    np.testing.assert_allclose(drawn[np.argsort(drawn[:, 0]), 1], np.sort(genes["r_within"])[::-1])
    bars = [line.get_ydata()[0] for line in panels["genes"].lines]
    assert bars == [genes["null_q95"].iloc[0], 0]
    assert "count per cell of mean size" in panels["means"].get_xlabel()


def test_stored_coordinates_are_drawn_where_they_are(fitted):
    mdata = fitted.copy()
    points = np.random.default_rng(0).normal(size=(mdata.n_obs, 2))
    for name in ("rna", "atac"):
        slots.write(mdata.mod[name], obsm={"X_umap": points})
    panels = tr.pl.translation(mdata)
    drawn = offsets(panels["embedding"])
    assert len(drawn) == 4
    np.testing.assert_allclose(drawn[0], points[(mdata.obs["cell_group"] == "group_0").to_numpy()])
    assert panels["embedding"].get_xlabel() == "UMAP 1"


def test_axes_of_the_user(fitted):
    _, ax = plt.subplots()
    panels = tr.pl.translation(fitted, ax={"genes": ax}, s=3)
    assert panels == {"genes": ax}
    assert ax.collections[1].get_sizes().tolist() == [3]
    with pytest.raises(KeyError, match="nothing to draw in a panel 'embedding'. Available: 'means', 'genes'"):
        tr.pl.translation(fitted, ax={"embedding": ax})


def test_a_record_of_something_else_is_refused(fitted):
    with pytest.raises(ValueError, match="record of 'simulate_multiome'"):
        tr.pl.translation(fitted, key="simulate_multiome")
    with pytest.raises(KeyError, match="'none'"):
        tr.pl.translation(fitted, key="none")
