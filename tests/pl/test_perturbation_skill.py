"""The figure of skill shows what is stored."""

import anndata
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

import sctrellis as tr
from sctrellis._core import record, slots


def judged(*, limits=True, code="better", lowest=-0.4):
    rows = [("my net", "model", 0.3), ("train_mean", "baseline", 0.0), ("shuffled my net", "baseline", lowest)]
    reach = 0.1 if limits else np.nan
    table = pd.DataFrame(
        [
            {"method": m, "kind": kind, "metric": "skill", "value": v, "low": v - reach, "high": v + reach}
            for m, kind, v in rows
        ]
    ).assign(n_perturbations=9, can_rank=True, note="")
    extra = {"table": table, "verdict": {"my net": {"code": code, "words": "Better: so."}}}
    adata = anndata.AnnData(np.ones((12, 4), np.float32))
    entry = record.build(
        "evaluate_perturbation",
        adata,
        params={"level": 0.95},
        seed=0,
        slots={},
        fit={"ceiling": 0.8, "best_baseline": "train_mean"},
        extra=extra,
    )
    slots.write(adata, uns={"evaluate_perturbation": entry})
    return adata


def dots(ax):
    return [c.get_offsets()[0].tolist() for c in ax.collections if type(c).__name__ == "PathCollection"]


def bars(ax):
    return [c.get_segments()[0][:, 0].tolist() for c in ax.collections if type(c).__name__ == "LineCollection"]


def test_dots_and_intervals_are_the_table():
    ax = tr.pl.perturbation_skill(judged())
    np.testing.assert_allclose(dots(ax), [[-0.4, 0], [0, 1], [0.3, 2]])
    np.testing.assert_allclose(bars(ax), [[-0.5, -0.3], [-0.1, 0.1], [0.2, 0.4]])
    assert [line.get_xdata()[0] for line in ax.lines] == [0, 0.8]
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == ["shuffled network of my net", "mean of other perturbations", "my net"]
    assert ax.get_title(loc="left") == "my net: better than the best baseline"
    assert ax.get_xlabel() == "skill over the best baseline (95 % interval over 9 perturbations)"


def test_what_is_far_below_is_marked_at_the_edge():
    ax = tr.pl.perturbation_skill(judged(lowest=-7.25))
    assert ax.get_xlim()[0] == -1
    assert dots(ax)[0] == [-1, 0]
    assert " \N{MINUS SIGN}7.25" in [text.get_text() for text in ax.texts]


def test_without_intervals_and_in_given_axes():
    _, given = plt.subplots()
    ax = tr.pl.perturbation_skill(judged(limits=False, code="undecided"), ax=given)
    assert ax is given
    assert "(no interval: 9 perturbations)" in ax.get_xlabel()
    assert ax.get_title(loc="left").startswith("my net: too few perturbations to compare with the best baseline")


def test_other_records_are_refused():
    adata = anndata.AnnData(np.ones((12, 4), np.float32))
    with pytest.raises(KeyError, match="evaluate_perturbation"):
        tr.pl.perturbation_skill(adata)
    slots.write(adata, uns={"a": record.build("pearson", adata, params={}, seed=0, slots={})})
    with pytest.raises(ValueError, match="holds no judged perturbations: it is the record of 'pearson'"):
        tr.pl.perturbation_skill(adata, key="a")
