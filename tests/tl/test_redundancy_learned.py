"""Redundancy of planted elements, called from a surrogate that has learnt them from the cells."""

import numpy as np
import pandas as pd
import pytest
from element_sets import add_sets
from sklearn.metrics import roc_auc_score

import sctrellis as tr
from sctrellis.datasets import true_drop


def called(seed, **options):
    """Return the pairs of all planted elements of each target: kind of gate they share, epistasis, and the true one."""
    mdata = tr.datasets.simulate_multiome(seed=seed, **options)
    targets = list(mdata.uns["targets"]["target"])
    tr.tl.translate(mdata, groupby="cell_group", targets=targets, n_runs=1, n_null=0, seed=seed)
    add_sets(mdata)
    tr.tl.redundancy(mdata, n_boot=200)
    gate = {(t, p): (g, i) for t, p, g, i in mdata.uns["truth"][["target", "peak", "gate", "gate_id"]].to_numpy()}
    pairs = tr.get.record(mdata, "grids_redundancy")["pairs"]
    kinds, true = [], []
    for pair in pairs.itertuples():
        one, other = gate[pair.target, pair.peak_a], gate[pair.target, pair.peak_b]
        kinds.append(one[0] if one == other else "ADD")
        single = [true_drop(mdata, pair.target, [peak]) for peak in (pair.peak_a, pair.peak_b)]
        true.append(true_drop(mdata, pair.target, [pair.peak_a, pair.peak_b]) - sum(single))
    return pairs.assign(kind=kinds, true=true)


def auc(pairs, kind, sign):
    among = pairs[pairs["kind"].isin([kind, "ADD"])]
    return roc_auc_score(among["kind"] == kind, sign * among["epsilon"])


def check(pairs, *, auc_or, auc_and, correlation):
    assert auc(pairs, "OR", 1) >= auc_or
    assert auc(pairs, "AND", -1) >= auc_and
    assert np.corrcoef(pairs["epsilon"], pairs["true"])[0, 1] >= correlation


def test_calls_of_clean_cells():
    pairs = called(0, n_obs=1200)
    check(pairs, auc_or=0.97, auc_and=0.97, correlation=0.9)
    assert (pairs.query("kind == 'OR'")["epsilon"] > 0).mean() >= 0.95
    assert (pairs.query("kind == 'AND'")["epsilon"] < 0).mean() >= 0.95
    assert pairs.query("kind == 'ADD'")["epsilon"].abs().mean() < 0.03
    assert set(pairs.query("kind == 'AND'")["call"]) == {"cooperative"}
    assert set(pairs.query("kind == 'OR'")["call_within"]) == {"redundant"}
    assert (pairs.query("kind == 'ADD'")["call_within"] == "none").mean() >= 0.95


@pytest.mark.slow
def test_calls_where_a_third_of_what_is_open_is_not_seen():
    size = {"n_obs": 4000, "n_peaks": 2400, "n_genes": 80, "n_targets": 16, "n_chromosomes": 8}
    pairs = pd.concat([called(seed, dropout=0.3, **size) for seed in range(2)])
    check(pairs, auc_or=0.93, auc_and=0.9, correlation=0.55)
    assert (pairs.query("kind == 'OR'")["epsilon"] > 0).mean() >= 0.95
