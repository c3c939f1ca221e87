import anndata
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

import sctrellis as tr
from sctrellis._core import record, slots


def null_of(*, sd=0.01, kind="degree"):
    adata = anndata.AnnData(np.ones((12, 4), np.float32))
    drawn = 0.2 + sd * np.random.default_rng(0).normal(size=100)
    table = pd.DataFrame(
        {
            "metric": ["auprc", "auroc"],
            "observed": [0.3, 0.6],
            "chance": [0.1, 0.5],
            "z": [10.0 if sd else np.nan] * 2,
            "p": [0.0099] * 2,
            "ratio_to_null": [1.5, 1.1],
            "ratio_to_chance": [3.0, 1.2],
        }
    )
    replicates = pd.DataFrame({"auprc": drawn, "auroc": drawn + 0.35})
    extra = {"table": table, "replicates": replicates, "words": "", "mixing": {}}
    entry = record.build("null", adata, params={"kind": kind}, seed=0, slots={}, extra=extra)
    slots.write(adata, uns={"net_null": entry})
    return adata


def test_bars_are_the_replicates_and_lines_the_known_network_and_chance():
    ax = tr.pl.null(null_of(), "net_null", bins=20)
    bars = [patch for patch in ax.patches if patch.get_height() > 0]
    assert sum(bar.get_height() for bar in bars) == 100
    assert [line.get_xdata()[0] for line in ax.lines] == [0.3, 0.1]
    assert ax.get_xlim()[0] < 0.1
    assert ax.get_xlim()[1] > 0.3
    assert ax.get_xlabel() == "AUPRC"
    assert ax.get_ylabel() == "random networks (of 100)"
    assert ax.get_title(loc="left") == "1.50 × the null, 3.00 × density\nz = 10.0, p = 0.0099"
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["random: same degrees of regulators and targets", "known network", "density"]


def test_another_metric():
    ax = tr.pl.null(null_of(), "net_null", "auroc")
    assert [line.get_xdata()[0] for line in ax.lines] == [0.6, 0.5]
    assert "1.20 × chance" in ax.get_title(loc="left")


def test_a_null_that_does_not_vary():
    ax = tr.pl.null(null_of(sd=0), "net_null")
    assert "the null does not vary, p = 0.0099" in ax.get_title(loc="left")


def test_a_contrast_says_that_it_is_one():
    ax = tr.pl.null(null_of(kind="labels"), "net_null")
    assert "for contrast only" in ax.get_legend().get_texts()[0].get_text()


def test_axes():
    _, ax = plt.subplots()
    assert tr.pl.null(null_of(), "net_null", ax=ax) is ax


def test_messages():
    adata = null_of()
    with pytest.raises(KeyError, match="`key`: 'net' not found in `adata.uns`. Available: 'net_null'"):
        tr.pl.null(adata, "net")
    with pytest.raises(KeyError, match="`metric`: 'hit_rate' not found"):
        tr.pl.null(adata, "net_null", "hit_rate")
    with pytest.raises(ValueError, match="`bins` to be at least 1, found 0"):
        tr.pl.null(adata, "net_null", bins=0)
    adata.uns["other"] = {"schema": 1, "method": "evaluate"}
    with pytest.raises(ValueError, match="holds no null: it is the record of 'evaluate'"):
        tr.pl.null(adata, "other")
    assert not plt.get_fignums()
