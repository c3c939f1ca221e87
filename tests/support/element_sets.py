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


def add_surrogate(mdata, *, key="translate", atac="atac"):
    """Write the surrogate that is the truth: gates are exact as sums of ReLU units."""
    rna, peaks = mdata["rna"], mdata[atac]
    genes, indptr, links, effect, bias, output, intercept = [], [0], [], [], [], [], []
    groups = list(mdata.obs["cell_group"].cat.categories)
    width = 8
    for gene, rows in sorted(
        (rna.var_names.get_loc(target), rows) for target, rows in mdata.uns["truth"].groupby("target")
    ):
        at = peaks.var_names.get_indexer(rows["peak"])
        rows = rows.iloc[np.argsort(at)]
        table, offset, out, constant = np.zeros((len(rows), width)), np.zeros(width), np.zeros(width), 0.0
        for unit, (_, members) in enumerate(rows.reset_index(drop=True).groupby("gate_id")):
            logic, beta = members[["gate", "beta"]].iloc[0]
            table[members.index, unit] = -1 if logic == "OR" else 1
            offset[unit] = {"OR": 1, "AND": 1 - len(members), "ADD": 0}[logic]
            out[unit] = -beta if logic == "OR" else beta
            constant += beta if logic == "OR" else 0
        genes.append(gene)
        links += sorted(at)
        indptr.append(len(links))
        effect.append(table)
        bias.append(offset)
        output.append(out)
        intercept.append([constant] * len(groups))
    weights = {
        "genes": np.array(genes),
        "indptr": np.array(indptr),
        "peaks": np.array(links),
        "effect": np.vstack(effect).astype(np.float32),
        "bias": np.array(bias, np.float32),
        "output": np.array(output, np.float32),
        "intercept": np.array(intercept, np.float32),
    }
    facts = {"kind": "cis", "n_peaks": peaks.n_vars, "n_genes": rna.n_vars, "likelihood": "nb"}
    facts |= {"rna_sha256": record.genes_hash(rna.var_names), "atac_sha256": record.genes_hash(peaks.var_names)}
    params = {"rna": "rna", "atac": atac, "groupby": "cell_group", "counts": "counts", "layer": None}
    entry = record.build(
        "translate",
        mdata,
        params=params | {"split": "cell_split"},
        seed=0,
        slots={},
        weights=weights,
        extra={"surrogate": facts, "groups": pd.DataFrame({"n": [1.0] * len(groups)}, index=groups)},
    )
    slots.write(mdata, uns={key: entry})
