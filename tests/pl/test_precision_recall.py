import anndata
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from sklearn import metrics

import sctrellis as tr
from sctrellis._core import record, slots

KINDS = {"weak": "method", "strong": "method", "pearson": "baseline", "random": "baseline"}


def curves_and_table():
    rng = np.random.default_rng(0)
    labels = rng.random(3000) < 0.1
    curves, rows = [], []
    for key, signal in zip(KINDS, (0.8, 2.0, 0.5, 0.0), strict=True):
        scores = rng.normal(size=len(labels)) + signal * labels
        precision, recall, _ = metrics.precision_recall_curve(labels, scores, drop_intermediate=True)
        curves.append(pd.DataFrame({"key": key, "kind": KINDS[key], "recall": recall, "precision": precision})[::-1])
        area = metrics.average_precision_score(labels, scores)
        for level in ("micro", "regulator"):
            rows.append({"key": key, "kind": KINDS[key], "metric": "auprc", "level": level, "value": area})
    table = pd.DataFrame(rows)
    table.loc[table["level"] == "regulator", "value"] = 0.99
    return pd.concat(curves, ignore_index=True), table.assign(base=labels.mean())


@pytest.fixture
def adata():
    adata = anndata.AnnData(np.ones((12, 4), np.float32))
    curves, table = curves_and_table()
    entry = record.build("evaluate", adata, params={}, seed=0, slots={}, extra={"curves": curves, "table": table})
    slots.write(adata, uns={"evaluate": entry})
    return adata


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def lines(ax):
    return {line.get_label().split(" (")[0]: line for line in ax.lines}


def test_lines_are_the_stored_curves(adata):
    ax = tr.pl.precision_recall(adata)
    curves, _ = curves_and_table()
    assert set(lines(ax)) == {*KINDS, "chance"}
    for key, own in curves.groupby("key"):
        own = own[own["recall"] > 0]
        line = lines(ax)[key]
        np.testing.assert_array_equal(line.get_xdata()[1:], own["recall"])
        np.testing.assert_array_equal(line.get_ydata()[1:], own["precision"])
        assert (line.get_xdata()[0], line.get_ydata()[0]) == (0, own["precision"].iloc[0])


def test_area_under_the_drawn_steps_is_the_auprc(adata):
    ax = tr.pl.precision_recall(adata)
    _, table = curves_and_table()
    for row in table[table["level"] == "micro"].itertuples():
        line = lines(ax)[row.key]
        assert line.get_drawstyle() == "steps-pre"
        area = (np.diff(line.get_xdata()) * line.get_ydata()[1:]).sum()
        assert area == pytest.approx(row.value, abs=1e-12)


def test_legend_runs_from_best_to_worst_and_ends_with_chance(adata):
    ax = tr.pl.precision_recall(adata)
    _, table = curves_and_table()
    micro = table[table["level"] == "micro"].sort_values("value", ascending=False)
    expected = [f"{row.key} ({row.value:.3f})" for row in micro.itertuples()]
    base = table["base"].iloc[0]
    assert legend(ax) == [*expected, f"chance ({base:.3f})"]
    assert set(lines(ax)["chance"].get_ydata()) == {base}
    assert ax.get_legend().get_title().get_text() == "network (AUPRC)"


def test_limits_and_labels(adata):
    ax = tr.pl.precision_recall(adata)
    assert ax.get_xlim() == (0, 1)
    curves, _ = curves_and_table()
    top = curves.loc[curves["recall"].between(0.01, 1), "precision"].max()
    assert ax.get_ylim() == pytest.approx((0, min(1.02, 1.1 * top)))
    assert ax.get_xlabel().startswith("recall")
    assert ax.get_ylabel().startswith("precision")


def test_methods_and_baselines_differ_without_colour(adata):
    drawn = lines(tr.pl.precision_recall(adata))
    for key, kind in KINDS.items():
        assert (drawn[key].get_marker() != "None") == (kind == "baseline")
        assert (drawn[key].get_linewidth() > 1.5) == (kind == "method")
    looks = {(str(drawn[key]._dash_pattern), drawn[key].get_marker()) for key in KINDS}
    assert len(looks) == len(KINDS)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("weak", {"weak", "pearson", "random"}),
        (["weak", "strong"], {"weak", "strong", "pearson", "random"}),
        (["weak", "pearson"], {"weak", "pearson"}),
        (["random"], {"random"}),
    ],
)
def test_baselines_stay_unless_some_are_named(adata, keys, expected):
    assert set(lines(tr.pl.precision_recall(adata, keys))) - {"chance"} == expected


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_round_trip(adata, form, tmp_path):
    getattr(adata, f"write_{form}")(tmp_path / f"a.{form}")
    again = getattr(anndata, f"read_{form}")(tmp_path / f"a.{form}")
    assert legend(tr.pl.precision_recall(again)) == legend(tr.pl.precision_recall(adata))


def test_reads_what_evaluate_writes(adata):
    rng = np.random.default_rng(0)
    real = anndata.AnnData(rng.gamma(2.0, size=(60, 30)).astype(np.float32))
    known = (rng.random((30, 30)) < 0.2).astype(np.float32)
    scores = slots.network_csr(rng.random((30, 30)), np.arange(30), np.arange(30), 30)
    slots.write(real, varp={"network": known, "mine": scores})
    table = tr.tl.evaluate(real, "mine", baselines=["random"], n_boot=20)
    ax = tr.pl.precision_recall(real)
    micro = table[(table["metric"] == "auprc") & (table["level"] == "micro")].set_index("key")["value"]
    assert set(lines(ax)) == {"mine", "random", "chance"}
    for key in ("mine", "random"):
        line = lines(ax)[key]
        assert (np.diff(line.get_xdata()) >= 0).all()
        assert (np.diff(line.get_xdata()) * line.get_ydata()[1:]).sum() == pytest.approx(micro[key], abs=0.01)


def test_axes_are_used(adata):
    _, ax = plt.subplots()
    assert tr.pl.precision_recall(adata, ax=ax) is ax


def test_messages(adata):
    with pytest.raises(
        KeyError, match=r"`keys`: 'deepsem' not found in `adata.uns\['evaluate'\]`. Available: .*'weak'"
    ):
        tr.pl.precision_recall(adata, ["weak", "deepsem"])
    with pytest.raises(KeyError, match="'other' not found in `adata.uns`. Available: 'evaluate'"):
        tr.pl.precision_recall(adata, key="other")
    slots.write(adata, uns={"net": record.build("infosem", adata, params={}, seed=0, slots={})})
    with pytest.raises(
        ValueError, match=r"has no 'curves': it is the record of 'infosem'. Run `sctrellis.tl.evaluate`"
    ):
        tr.pl.precision_recall(adata, key="net")
    assert not plt.get_fignums()
