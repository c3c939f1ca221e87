import anndata
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgba
from scipy import stats

import sctrellis as tr
from sctrellis._core import record, slots

METHODS = {"good": ("method", 0.6), "pearson": ("baseline", 0.4), "random": ("baseline", 0.2)}
PANELS = [("edge", "all"), ("infosem", "SS"), ("infosem", "UU")]


def benchmarked(panels=PANELS, *, n_seeds=3):
    rng = np.random.default_rng(0)
    lines = [
        {
            "method": name,
            "kind": kind,
            "embedding": "none",
            "scheme": scheme,
            "pair_class": pair_class,
            "seed": seed,
            "metric": metric,
            "level": level,
            "value": value + rng.uniform(-0.05, 0.05),
            "base": 0.2,
            "error": "",
        }
        for scheme, pair_class in panels
        for name, (kind, value) in METHODS.items()
        for seed in range(n_seeds)
        for metric in ("auroc", "auprc")
        for level in ("micro", "regulator")
    ]
    failed = {**lines[0], "method": "broken", "metric": "", "level": "", "value": np.nan, "error": "ValueError: no"}
    adata = anndata.AnnData(np.ones((12, 4), np.float32))
    table = pd.DataFrame([*lines, failed])
    entry = record.build("benchmark", adata, params={}, seed=0, slots={}, extra={"table": table})
    slots.write(adata, uns={"benchmark": entry})
    return adata


def dots(ax, names):
    """Position and fill of the dots of means, by method."""
    found = {}
    for collection in ax.collections:
        offsets = np.asarray(collection.get_offsets())
        if len(offsets) == 1 and len(collection.get_facecolors()) and collection.get_sizes()[0] == 46:
            found[names[round(offsets[0, 1])]] = (offsets[0, 0], tuple(collection.get_facecolors()[0]))
    return found


def test_means_intervals_and_lines():
    adata = benchmarked()
    panels = tr.pl.benchmark(adata)
    assert list(panels) == ["edge", "infosem SS", "infosem UU"]
    table = adata.uns["benchmark"]["table"]
    names = [label.get_text() for label in panels["edge"].get_yticklabels()]
    assert names == ["good", "pearson", "random", "broken"]
    for (scheme, pair_class), ax in zip(PANELS, panels.values(), strict=True):
        rows = table[(table["metric"] == "auprc") & (table["level"] == "micro")]
        rows = rows[(rows["scheme"] == scheme) & (rows["pair_class"] == pair_class)]
        means = rows.groupby("method")["value"].mean()
        found = dots(ax, names)
        assert {name: pytest.approx(x) for name, (x, _) in found.items()} == means.to_dict()
        assert found["pearson"][1] == to_rgba("white") != found["good"][1]
        values = rows.loc[rows["method"] == "good", "value"]
        low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
        bars = [c.get_segments()[0] for c in ax.collections if type(c).__name__ == "LineCollection"]
        np.testing.assert_allclose(bars[0][:, 0], [low, high])
        lines = sorted(line.get_xdata()[0] for line in ax.lines)
        assert lines == pytest.approx([0.2, means["pearson"]])
        assert ax.get_xlabel() == "AUPRC"
    assert panels["infosem UU"].get_title(loc="left") == "infosem UU: both genes unseen"


def test_one_panel_is_axes():
    adata = benchmarked([("edge", "all")])
    _, ax = plt.subplots()
    assert tr.pl.benchmark(adata, metric="auroc", ax=ax) is ax
    assert 0.5 in [line.get_xdata()[0] for line in ax.lines]
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["method, 95 %", "baseline, 95 %", "one split", "best baseline", "chance"]


def test_one_split_has_no_interval():
    ax = tr.pl.benchmark(benchmarked([("edge", "all")], n_seeds=1))
    assert not [c for c in ax.collections if type(c).__name__ == "LineCollection"]
    assert set(dots(ax, list(METHODS))) == set(METHODS)


def test_embeddings_are_told_apart():
    adata = benchmarked([("edge", "all")])
    table = adata.uns["benchmark"]["table"]
    other = table[table["method"] == "good"].assign(embedding="shuffled")
    adata.uns["benchmark"]["table"] = pd.concat([table, other], ignore_index=True)
    names = [label.get_text() for label in tr.pl.benchmark(adata).get_yticklabels()]
    assert "good, shuffled rows" in names


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_round_trip(form, tmp_path):
    getattr(benchmarked(), f"write_{form}")(tmp_path / "a")
    panels = tr.pl.benchmark(getattr(anndata, f"read_{form}")(tmp_path / "a"))
    assert len(panels) == 3


def test_messages():
    adata = benchmarked()
    with pytest.raises(ValueError, match="`metric` to be one of 'auroc', 'auprc'; found 'f1'"):
        tr.pl.benchmark(adata, metric="f1")
    with pytest.raises(KeyError, match="`key`: 'judge' not found"):
        tr.pl.benchmark(adata, key="judge")
    adata.uns["other"] = {"schema": 1, "method": "evaluate"}
    with pytest.raises(ValueError, match="holds no benchmark: it is the record of 'evaluate'"):
        tr.pl.benchmark(adata, key="other")
    adata.uns["benchmark"]["table"]["value"] = np.nan
    with pytest.raises(ValueError, match="no run has a value of 'auprc'. The column 'error'"):
        tr.pl.benchmark(adata)
    assert not plt.get_fignums()


def test_axes_for_many_panels_are_refused():
    _, ax = plt.subplots()
    with pytest.raises(ValueError, match=r"`ax`: this benchmark has 3 panels \(edge, infosem SS, infosem UU\)"):
        tr.pl.benchmark(benchmarked(), ax=ax)
