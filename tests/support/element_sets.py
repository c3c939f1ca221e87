"""A simulated multiome with the element sets that a perfect search would store, and nothing fitted."""

import numpy as np
import pandas as pd

from sctrellis import datasets
from sctrellis._core import record, slots


def with_sets(n_obs=160, *, key="grids", method="grids", n_peaks=None, wrong=0, seed=0, **options):
    """Return simulated data with the planted elements of every target as its set, in the order of their true effect.

    ``n_peaks`` keeps the first few of them; ``wrong`` adds as many peaks of other genes at the end.
    """
    mdata = datasets.simulate_multiome(n_obs, seed=seed, **options)
    add_sets(mdata, key=key, method=method, n_peaks=n_peaks, wrong=wrong)
    return mdata


def add_sets(mdata, *, key="grids", method="grids", n_peaks=None, wrong=0, candidates="cis"):
    """Write element sets from the truth."""
    rng = np.random.default_rng(0)
    sets, tasks = [], []
    for (group, target), rows in mdata.uns["truth"].groupby(["group", "target"], sort=False):
        order = sorted(rows["peak"], key=lambda peak: -datasets.true_drop(mdata, target, [peak]))[:n_peaks]
        order += rng.choice(mdata["atac"].var_names.difference(order), size=wrong, replace=False).tolist()
        before = 0.0
        for rank in range(1, len(order) + 1):
            after = -datasets.true_drop(mdata, target, order[:rank])
            line = {"group": group, "target": target, "rank": rank, "peak": order[rank - 1]}
            sets.append({**line, "gain": after - before, "cumulative": after})
            before = after
        line = {"group": group, "target": target, "method": method, "n_peaks": len(order), "n_cells": 10}
        for name, scale in (("log_delta", 1.0), ("avg_delta", 40.0), ("rel_delta_pct", 50.0)):
            line |= {name: scale * before, f"{name}_low": scale * before - 0.1, f"{name}_high": scale * before + 0.1}
        tasks.append(line)
    entry = record.build(
        method,
        mdata,
        params={"candidates": candidates, "n_peaks": n_peaks},
        seed=0,
        slots={"sets": f"uns/{key}/sets"},
        extra={"sets": pd.DataFrame(sets), "tasks": pd.DataFrame(tasks)},
    )
    slots.write(mdata, uns={key: entry})


def true_change(mdata, target, group, peaks):
    """Return the function of a set's parts that says how the true log mean changes in the test cells of a group."""
    cells = ((mdata.obs["cell_split"] == "test") & (mdata.obs["cell_group"] == group)).to_numpy()
    at = mdata["atac"].var_names.get_indexer(peaks)
    state = mdata["atac"].layers["state"].toarray()
    before = datasets.true_log_mean(mdata, target)[cells]

    def change(masks):
        found = []
        for mask in masks:
            closed = state.copy()
            closed[:, at[mask]] = 0
            found.append(datasets.true_log_mean(mdata, target, state=closed)[cells] - before)
        return np.array(found)

    change.before = before
    return change


def add_redundancy(mdata, *, key="grids", n_boot=200):
    """Write what `tl.redundancy` would, from the truth instead of a surrogate."""
    from sctrellis.explain import epistasis
    from sctrellis.tl._redundancy import _Tables

    tables = _Tables()
    for (group, target), rows in mdata.uns[key]["sets"].groupby(["group", "target"], sort=False):
        change = true_change(mdata, target, group, list(rows["peak"]))
        tables.add(rows, epistasis(change, len(rows), n_boot=n_boot), np.full(len(rows), 0.6), len(change.before))
        tables.add_expression(rows, change)
    entry = record.build("redundancy", mdata, params={}, seed=0, slots={}, extra={"sign": -1, **tables.frames()})
    slots.write(mdata, uns={f"{key}_redundancy": entry})
