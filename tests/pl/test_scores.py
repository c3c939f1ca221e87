import anndata
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgba

import sctrellis as tr
from sctrellis._core import record, slots

ROWS = [
    # key, kind, value, low, high
    ("zeta", "method", 1.4, 1.1, 1.8),
    ("alpha", "method", 1.4, 1.2, 1.6),
    ("pearson", "baseline", 1.6, 1.3, 1.9),
    ("random", "baseline", 1.0, np.nan, np.nan),
    ("empty", "method", np.nan, np.nan, np.nan),
]


@pytest.fixture
def adata():
    parts = []
    for metric, level, scale in [
        ("auroc", "micro", 0.5),
        ("auprc", "micro", 0.2),
        ("auprc_ratio", "micro", 1),
        ("auprc", "regulator", 0.3),
        ("early_precision", "micro", 0.2),
        ("new", "micro", 2),
    ]:
        frame = pd.DataFrame(ROWS, columns=["key", "kind", "value", "low", "high"])
        frame[["value", "low", "high"]] *= scale
        parts.append(frame.assign(metric=metric, level=level))
    table = pd.concat(parts, ignore_index=True).assign(base=0.2, fold="test")
    adata = anndata.AnnData(np.ones((12, 4), np.float32))
    entry = record.build("evaluate", adata, params={}, seed=0, slots={}, extra={"table": table})
    slots.write(adata, uns={"evaluate": entry})
    return adata


def names(ax):
    return [label.get_text() for label in ax.get_yticklabels()]


def test_dots_and_intervals_are_the_table_from_best_to_worst(adata):
    ax = tr.pl.scores(adata)
    assert names(ax) == ["pearson", "alpha", "zeta", "random", "empty"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the best on top
    intervals, dots = ax.collections
    expected = {row[0]: row for row in ROWS}
    offsets, segments = np.ma.filled(dots.get_offsets(), np.nan), intervals.get_segments()
    for i, name in enumerate(names(ax)):
        value = expected[name][2]
        np.testing.assert_array_equal(offsets[i], [value, i] if np.isfinite(value) else [np.nan, np.nan])
        low, high = expected[name][3:]
        assert segments[i].tolist() == ([] if np.isnan(low) else [[low, i], [high, i]])


def test_baselines_are_hollow(adata):
    ax = tr.pl.scores(adata)
    fills = dict(zip(names(ax), ax.collections[1].get_facecolors(), strict=True))
    kinds = {row[0]: row[1] for row in ROWS}
    for name, fill in fills.items():
        assert (tuple(fill) == to_rgba("white")) == (kinds[name] == "baseline")
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["method", "baseline", "chance (1)"]


@pytest.mark.parametrize(
    ("metric", "level", "chance", "label"),
    [
        ("auroc", "micro", 0.5, "AUROC (all pairs; 95 % interval)"),
        ("auprc", "micro", 0.2, "AUPRC (all pairs; 95 % interval)"),
        ("auprc_ratio", "micro", 1, "AUPRC / chance (all pairs; 95 % interval)"),
        ("early_precision", "micro", 0.2, "early precision (all pairs; 95 % interval)"),
        # The mean share of positives of the regulators is not in the table, nor what chance means for another metric.
        ("auprc", "regulator", None, "AUPRC (mean over regulators; 95 % interval)"),
        ("new", "micro", None, "new (all pairs; 95 % interval)"),
    ],
)
def test_label_and_chance(adata, metric, level, chance, label):
    ax = tr.pl.scores(adata, metric=metric, level=level)
    assert ax.get_xlabel() == label
    assert [line.get_xdata()[0] for line in ax.lines] == ([] if chance is None else [chance])


def test_first_metric_where_there_is_no_ratio(adata):
    table = adata.uns["evaluate"]["table"]
    adata.uns["evaluate"]["table"] = table[table["metric"].isin(["auprc", "auroc"])]
    assert tr.pl.scores(adata).get_xlabel().startswith("AUROC")


def test_keys_keep_the_baselines(adata):
    assert names(tr.pl.scores(adata, "zeta")) == ["pearson", "zeta", "random"]
    assert names(tr.pl.scores(adata, ["zeta", "random"])) == ["zeta", "random"]


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_round_trip(adata, form, tmp_path):
    getattr(adata, f"write_{form}")(tmp_path / f"a.{form}")
    ax = tr.pl.scores(getattr(anndata, f"read_{form}")(tmp_path / f"a.{form}"))
    assert names(ax) == ["pearson", "alpha", "zeta", "random", "empty"]


def test_axes_and_options(adata):
    _, ax = plt.subplots()
    assert tr.pl.scores(adata, ax=ax, s=99) is ax
    assert set(ax.collections[1].get_sizes()) == {99}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"metric": "f1"}, ValueError, r"`metric` to be one of 'auroc', 'auprc'.*found 'f1'"),
        ({"level": "macro"}, ValueError, r"`level` to be one of 'micro', 'regulator', 'target'; found 'macro'"),
        ({"level": "target"}, ValueError, r"has 'auprc_ratio' at the levels \['micro'\] only, found `level='target'`"),
        ({"keys": ["deepsem"]}, KeyError, r"`keys`: 'deepsem' not found"),
        ({"key": "judge"}, KeyError, r"`key`: 'judge' not found in `adata.uns`. Available: 'evaluate'"),
    ],
)
def test_messages(adata, options, error, message):
    with pytest.raises(error, match=message):
        tr.pl.scores(adata, **options)
    assert not plt.get_fignums()
