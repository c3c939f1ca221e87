import anndata
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

import sctrellis as tr
from sctrellis._core import record, slots

METRICS = ("auroc", "auprc", "hit_rate")


def audited(classes=("all", "SS", "UU"), *, code="B1", limits=True):
    rng = np.random.default_rng(0)
    lines = []
    for name in classes:
        for level, metrics in (("micro", METRICS), ("regulator", ("auroc",))):
            for metric in metrics:
                line = {"pair_class": name, "metric": metric, "level": level, "chance": 0.2, "note": ""}
                for key in ("model", "one_hot", "degree"):
                    value = rng.uniform(0.3, 0.8)
                    reach = 0.1 if limits else np.nan
                    line |= {key: value, f"{key}_low": value - reach, f"{key}_high": value + reach}
                line["bias_fraction"] = np.nan if metric == "hit_rate" else 0.91
                lines.append({**line, "n_pairs": 1234, "n_positive": 56})
    adata = anndata.AnnData(np.ones((12, 4), np.float32))
    verdict = {"code": code, "words": "No more than gene identity. On seen genes AUROC is 0.5."}
    entry = record.build(
        "bias_audit", adata, params={}, seed=0, slots={}, extra={"table": pd.DataFrame(lines), "verdict": verdict}
    )
    slots.write(adata, uns={"bias_audit": entry})
    return adata


def test_dots_are_the_table_class_by_class():
    adata = audited()
    ax = tr.pl.bias_audit(adata)
    table = adata.uns["bias_audit"]["table"]
    # All pairs together are left out where there are classes, and so are means within regulators.
    shown = table[(table["level"] == "micro") & (table["pair_class"] != "all")]
    dots = [c for c in ax.collections if type(c).__name__ == "PathCollection"]
    found = [dot.get_offsets()[0, 0] for dot in dots]
    np.testing.assert_allclose(found, shown[["model", "one_hot", "degree"]].to_numpy().ravel())
    bars = [c.get_segments()[0][:, 0] for c in ax.collections if type(c).__name__ == "LineCollection"]
    columns = [f"{key}_{end}" for key in ("model", "one_hot", "degree") for end in ("low", "high")]
    np.testing.assert_allclose(np.ravel(bars), shown[columns].to_numpy().ravel())
    assert [line.get_xdata()[0] for line in ax.lines] == [0.2] * 6
    assert [label.get_text() for label in ax.get_yticklabels()] == ["AUROC", "AUPRC", "precision in the top 1 %"] * 2
    texts = [text.get_text() for text in ax.texts]
    assert "both genes seen  (1,234 pairs, 56 known edges)" in texts
    assert texts.count("91 %") == 4
    assert texts.count("–") == 2
    assert ax.get_ylim()[0] > ax.get_ylim()[1]


def test_one_class_stands_alone():
    ax = tr.pl.bias_audit(audited(("SS",)))
    assert len(ax.get_yticks()) == 3


@pytest.mark.parametrize(
    ("code", "title"),
    [("B1", "B1: No more than gene identity\n"), ("undecided", "Undecided: No more than gene identity\n")],
)
def test_the_title_is_the_verdict(code, title):
    assert tr.pl.bias_audit(audited(code=code)).get_title(loc="left") == title


def test_without_intervals():
    ax = tr.pl.bias_audit(audited(limits=False))
    assert ax.get_xlabel() == "value (no interval: too few genes)"
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["model", "one-hot regression", "degree", "chance"]


def test_axes():
    _, ax = plt.subplots()
    assert tr.pl.bias_audit(audited(), ax=ax) is ax


def test_messages():
    adata = audited()
    with pytest.raises(KeyError, match="`key`: 'judge' not found in `adata.uns`. Available: 'bias_audit'"):
        tr.pl.bias_audit(adata, key="judge")
    adata.uns["other"] = {"schema": 1, "method": "evaluate"}
    with pytest.raises(ValueError, match="holds no audit: it is the record of 'evaluate'"):
        tr.pl.bias_audit(adata, key="other")
    assert not plt.get_fignums()
