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
        params={
            "candidates": candidates,
            "n_peaks": n_peaks,
            "key": "translate",
            "direction": "down",
            "value": 0.0,
        },
        seed=0,
        slots={"sets": f"uns/{key}/sets"},
        extra={"sets": pd.DataFrame(sets), "tasks": pd.DataFrame(tasks)},
    )
    slots.write(mdata, uns={key: entry})
