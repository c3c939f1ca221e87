import numpy as np
import pytest

import sctrellis as tr


@pytest.fixture(scope="module")
def calibrated():
    """A network calibrated on simulated edges."""
    adata = tr.datasets.simulate_grn(60, 80, 20, density=0.2)
    adata.varp["network"] = adata.varp["truth"]
    tr.pp.split_edges(adata, val_frac=0.25)
    tr.tl.edge_classifier(adata, "one_hot")
    tr.tl.calibrate(adata, "one_hot", n_boot=50)
    tr.tl.baseline(adata, "pearson")
    tr.tl.calibrate(adata, "pearson", n_boot=50)
    return adata


@pytest.mark.parametrize("part", ["test", "fit"])
def test_what_is_stored_is_drawn(calibrated, part):
    ax = tr.pl.calibration(calibrated, "one_hot", part=part)
    record = tr.get.record(calibrated, "one_hot_calibration")
    curve = record["curves"].query("part == @part and stage == 'after'")
    line = next(line for line in ax.get_lines() if str(line.get_label()).startswith("after"))
    low = min(line.get_ydata())
    np.testing.assert_allclose(line.get_ydata(), curve["share"].clip(lower=low))
    table = record["table"].query("part == @part and stage == 'after'").set_index("metric")
    assert f"ECE {table.loc['ece_mass', 'value']:.3g}" in line.get_label()
    prevalence = next(line for line in ax.get_lines() if str(line.get_label()).startswith("share of edges"))
    assert prevalence.get_ydata()[0] == pytest.approx(table["base"].iloc[0])
    assert f"{part} pairs: {table['n_pairs'].iloc[0]:,} with" in ax.get_title(loc="left")


def test_strengths_have_no_before(calibrated):
    labels = [str(line.get_label()) for line in tr.pl.calibration(calibrated, "pearson").get_lines()]
    assert not any(label.startswith("before") for label in labels)


def test_the_numbers_at_the_axes_do_not_overlap(calibrated):
    ax = tr.pl.calibration(calibrated, "one_hot")
    ax.figure.canvas.draw()
    for axis in (ax.xaxis, ax.yaxis):
        labels = [label for which in ("major", "minor") for label in axis.get_ticklabels(which=which)]
        inside = [label for label in labels if label.get_text() and _within(ax, axis, label)]
        assert len(inside) >= 2
        boxes = [label.get_window_extent() for label in inside]
        assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])


def _within(ax, axis, label):
    low, high = axis.get_view_interval()
    return low <= label.get_position()[0 if axis is ax.xaxis else 1] <= high


def test_bad_input(calibrated):
    with pytest.raises(KeyError, match="'ridge_calibration' not found"):
        tr.pl.calibration(calibrated, "ridge")
    with pytest.raises(ValueError, match="`part` to be one of 'test', 'fit'"):
        tr.pl.calibration(calibrated, "one_hot", part="train")
    other = calibrated.copy()
    table = other.uns["one_hot_calibration"]["table"]
    other.uns["one_hot_calibration"]["table"] = table[table["part"] == "fit"]
    with pytest.raises(ValueError, match="has no report on these pairs"):
        tr.pl.calibration(other, "one_hot")
    other.uns["one_hot_calibration"]["method"] = "evaluate"
    with pytest.raises(ValueError, match="is the record of 'evaluate'"):
        tr.pl.calibration(other, "one_hot")
