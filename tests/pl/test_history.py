import anndata
import numpy as np
import pytest
from matplotlib import pyplot as plt

import sctrellis as tr
from sctrellis._core import record, slots

E = 50


def make(history, fit=None):
    adata = anndata.AnnData(np.ones((12, 4), np.float32))
    entry = record.build("infosem", adata, params={}, seed=0, slots={}, fit=fit, history=history)
    slots.write(adata, uns={"net": entry})
    return adata


def losses(seed=0):
    rng = np.random.default_rng(seed)
    return {"loss": 5 + rng.random(E), "kl": 1 + rng.random(E)}


def shown(ax):
    return {line.get_label(): line for line in ax.lines}


def test_lines_are_the_stored_history():
    history = losses()
    ax = tr.pl.history(make(history, {"best_epoch": 37}), "net")
    lines = shown(ax)
    for part, values in history.items():
        np.testing.assert_array_equal(lines[part].get_ydata(), values)
        np.testing.assert_array_equal(lines[part].get_xdata(), np.arange(E))
    assert set(lines["best epoch: 37"].get_xdata()) == {37}
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title(loc="left")) == ("epoch", "loss", "net")
    assert lines["loss"].get_linestyle() != lines["kl"].get_linestyle()


def test_parts_are_chosen_in_order():
    adata = make(losses())
    ax = tr.pl.history(adata, "net", parts="kl")
    assert list(shown(ax)) == ["kl"]
    assert ax.get_ylabel() == "kl"
    assert list(shown(tr.pl.history(adata, "net", parts=["kl", "loss"]))) == ["kl", "loss"]


def test_one_thin_line_a_run():
    runs = [losses(seed) for seed in range(3)]
    history = {part: np.concatenate([r[part] for r in runs]) for part in ("loss", "kl")}
    history["run"] = np.repeat([0.0, 1.0, 2.0], E)
    ax = tr.pl.history(make(history, {"best_epoch": [11, 20, 49]}), "net", parts="loss")
    *curves, best = ax.lines
    assert len(curves) == 3
    for line, run in zip(curves, runs, strict=True):
        np.testing.assert_array_equal(line.get_xdata(), np.arange(E))
        np.testing.assert_array_equal(line.get_ydata(), run["loss"])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["loss", "best epoch of each run"]
    assert best.get_xdata().tolist() == [11, 20, 49]
    assert best.get_ydata().tolist() == [run["loss"][b] for run, b in zip(runs, [11, 20, 49], strict=True)]
    assert curves[0].get_linewidth() < tr.pl.history(make(losses()), "net").lines[0].get_linewidth()


def test_borders_of_phases():
    ax = tr.pl.history(make({**losses(), "phase": np.repeat([0.0, 1.0, 2.0], [20, 10, 20])}), "net")
    borders = [line.get_xdata()[0] for line in ax.lines if line.get_label().startswith("_child")]
    assert borders == [19.5, 29.5]
    assert "phase" not in shown(ax)


@pytest.mark.parametrize(("factor", "scale"), [(1, "linear"), (100, "log"), (-100, "linear")])
def test_scale_follows_the_spread(factor, scale):
    ax = tr.pl.history(make({"loss": np.linspace(5, 6, E) * factor, "kl": np.linspace(1, 2, E)}), "net")
    assert ax.get_yscale() == scale


def test_draws_in_given_axes_and_passes_options_on():
    _, (left, right) = plt.subplots(1, 2)
    ax = tr.pl.history(make(losses()), "net", ax=right, alpha=0.5, linewidth=4)
    assert ax is right
    assert not left.lines
    assert {line.get_alpha() for line in ax.lines} == {0.5}
    assert {line.get_linewidth() for line in ax.lines} == {4}


def test_global_style_stays():
    before = dict(plt.rcParams)
    tr.pl.history(make(losses()), "net")
    assert dict(plt.rcParams) == before


def test_messages():
    adata = make(losses())
    with pytest.raises(KeyError, match=r"`parts`: 'l1' not found .* Available: 'loss', 'kl'"):
        tr.pl.history(adata, "net", parts=["loss", "l1"])
    with pytest.raises(KeyError, match=r"`key`: 'nett' not found in `adata.uns`. Available: 'net'"):
        tr.pl.history(adata, "nett")
    with pytest.raises(ValueError, match=r"`adata.uns\['net'\]` has no history: 'infosem' was not fitted over epochs"):
        tr.pl.history(make(None), "net")
    assert not plt.get_fignums()
