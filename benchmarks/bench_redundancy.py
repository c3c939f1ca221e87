"""Redundancy that a learned surrogate calls, and what a search finds where there is nothing to find."""

import time
from typing import Any

import numpy as np
import pandas as pd
from _common import parser, spread, write

SIZE = {"n_peaks": 2400, "n_genes": 80, "n_chromosomes": 8}
N_TARGETS = 16


def pairs_of(seed: int, n_obs: int, dropout: float) -> pd.DataFrame:
    """Return all pairs of planted elements of each target: the gate they share, epistasis as found and as it is."""
    import sctrellis as tr
    from sctrellis._core import record, slots

    mdata = tr.datasets.simulate_multiome(n_obs, n_targets=N_TARGETS, dropout=dropout, seed=seed, **SIZE)
    truth = mdata.uns["truth"]
    tr.tl.translate(mdata, groupby="cell_group", targets=list(mdata.uns["targets"]["target"]), n_null=0, seed=seed)
    sets = truth[["group", "target", "peak"]].reset_index(drop=True)
    sets["rank"] = sets.groupby(["group", "target"]).cumcount() + 1
    params = {"key": "translate", "groupby": None, "direction": "down", "value": 0.0, "candidates": "cis"}
    extra = {"sets": sets.assign(gain=0.0), "tasks": sets[["group", "target"]].drop_duplicates(ignore_index=True)}
    slots.write(mdata, uns={"grids": record.build("grids", mdata, params=params, seed=0, slots={}, extra=extra)})
    tr.tl.redundancy(mdata, n_boot=500)
    gate = {(t, p): (g, i) for t, p, g, i in truth[["target", "peak", "gate", "gate_id"]].to_numpy()}
    pairs = tr.get.record(mdata, "grids_redundancy")["pairs"]
    kind, true = [], []
    for pair in pairs.itertuples():
        one, other = gate[pair.target, pair.peak_a], gate[pair.target, pair.peak_b]
        kind.append(one[0] if one == other else "ADD")
        both = [pair.peak_a, pair.peak_b]
        alone = sum(tr.datasets.true_drop(mdata, pair.target, [peak]) for peak in both)
        true.append(tr.datasets.true_drop(mdata, pair.target, both) - alone)
    return pairs.assign(kind=kind, true=true, seed=seed, dropout=dropout)


def call_rows(pairs: pd.DataFrame) -> list[dict[str, Any]]:
    """Return what each world and seed makes of the pairs."""
    from sklearn.metrics import roc_auc_score

    rows = []
    for (dropout, seed), part in pairs.groupby(["dropout", "seed"]):
        row = {"dropout": dropout, "seed": seed}
        for gate, sign, name in (("OR", 1, "redundant"), ("AND", -1, "cooperative")):
            among, own = part[part["kind"].isin([gate, "ADD"])], part[part["kind"] == gate]
            row[f"AUC {gate}"] = roc_auc_score(among["kind"] == gate, sign * among["epsilon"])
            row[f"sign {gate}"] = (sign * own["epsilon"] > 0).mean()
            row[f"called {gate}"] = (own["call"] == name).mean()
            row[f"called within {gate}"] = (own["call_within"] == name).mean()
            row[f"n {gate}"] = len(own)
        additive = part[part["kind"] == "ADD"]
        row["correlation"] = np.corrcoef(part["epsilon"], part["true"])[0, 1]
        row["mean |epsilon| ADD"] = additive["epsilon"].abs().mean()
        row["called ADD"] = (additive["call"] != "none").mean()
        row["called within ADD"] = (additive["call_within"] != "none").mean()
        row["n ADD"] = len(additive)
        rows.append(row)
    return rows


def null_row(seed: int, n_obs: int, dropout: float, n_null: int, *, planted: bool) -> dict[str, Any]:
    """Return how the tasks of one world stand beside the permuted-pairing null: one task a gene."""
    import sctrellis as tr
    from sctrellis._core import slots

    n_targets = N_TARGETS if planted else 0
    mdata = tr.datasets.simulate_multiome(n_obs, n_targets=n_targets, dropout=dropout, seed=seed, **SIZE)
    if planted:
        tasks = dict(mdata.uns["targets"][["target", "group"]].itertuples(index=False))
    else:
        chosen = np.random.default_rng(seed).choice(mdata["rna"].var_names, N_TARGETS, replace=False)
        tasks = {gene: f"group_{i % 4}" for i, gene in enumerate(chosen)}
    tr.tl.translate(mdata, groupby="cell_group", targets=list(tasks), n_null=0, seed=seed)
    parts = []
    for group in sorted(set(tasks.values())):
        own = [gene for gene in tasks if tasks[gene] == group]
        tr.tl.grids(mdata, targets=own, groups=[group], n_peaks=3, n_boot=0, seed=seed, key_added="part")
        parts.append(mdata.uns.pop("part"))
    joined = {name: pd.concat([part[name] for part in parts], ignore_index=True) for name in ("sets", "tasks")}
    entry = parts[0] | joined
    slots.write(mdata, uns={"grids": entry | {"params": {**entry["params"], "targets": None, "groups": None}}})
    tr.tl.grids_null(mdata, n_null=n_null, seed=seed)
    found = tr.get.record(mdata, "grids_permuted_pairing")["tasks"]
    return {
        "world": f"{'planted' if planted else 'no elements'}, dropout {dropout:g}",
        "seed": seed,
        "n": len(found),
        "mean effect": found["effect"].mean(),
        "least effect": found["effect"].min(),
        "null mean": found["null_mean"].mean(),
        "null q95": found["null_q95"].max(),
        "null largest": found["null_max"].max(),
        "above q95": (found["effect"] > found["null_q95"]).mean(),
        "q < 0.1": (found["q_value"] < 0.1).mean(),
    }


def summed(table: pd.DataFrame, by: str) -> pd.DataFrame:
    """Return mean and spread over seeds of every column."""
    rows = []
    for name, part in table.groupby(by, sort=False):
        values = part.drop(columns=[by, "seed"])
        counts = [c for c in values if c == "n" or c.startswith("n ")]
        rows.append({by: name, **{c: spread(values[c], 3) for c in values if c not in counts}})
        rows[-1] |= {c: int(values[c].sum()) for c in counts}
    return pd.DataFrame(rows)


def turned(calls: pd.DataFrame) -> pd.DataFrame:
    """Return the summary of the pairs with a column per world."""
    return summed(calls, "world").set_index("world").T.rename_axis("quantity").reset_index()


def main() -> None:
    """Run all worlds and write the tables."""
    import warnings

    arguments = parser(__doc__ or "")
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--n-obs", type=int, default=4000, help="cells of the worlds in which pairs are called")
    arguments.add_argument("--n-obs-null", type=int, default=2000, help="cells of the worlds that are compared")
    arguments.add_argument("--n-null", type=int, default=3)
    options = arguments.parse_args()
    # That nothing was learnt of genes without elements is what is measured here.
    warnings.simplefilter("ignore", UserWarning)
    start = time.process_time()
    pairs = [pairs_of(seed, options.n_obs, dropout) for dropout in (0.0, 0.3) for seed in range(options.seeds)]
    calls = pd.DataFrame(call_rows(pd.concat(pairs)))
    print(calls.T.to_string(), flush=True)
    worlds = ((False, 0.0), (True, 0.0), (True, 0.3))
    rows = []
    for planted, dropout in worlds:
        for seed in range(options.seeds):
            rows.append(null_row(seed, options.n_obs_null, dropout, options.n_null, planted=planted))
            print(rows[-1], flush=True)
    null = pd.DataFrame(rows)
    minutes = (time.process_time() - start) / 60
    calls["world"] = calls.pop("dropout").map("planted, dropout {:g}".format)
    long = pd.concat([calls, null]).melt(["world", "seed"], var_name="quantity").dropna()
    write(
        options.results,
        "redundancy",
        title="Redundancy of planted elements, and the permuted-pairing null",
        reading="pairs of elements of one OR or AND gate against pairs that only add up, from a learned surrogate "
        "on test cells; 'called' is the share that is called as planted. Below, sets of 3 of one task a gene beside "
        f"the pooled null of {options.n_null} permutations; mean ± standard deviation over seeds, {minutes:.0f} CPU "
        "minutes",
        seeds=f"0 to {options.seeds - 1}",
        data=long,
        sections=[
            (f"Pairs, {options.n_obs:,} cells", turned(calls)),
            (f"Null, {options.n_obs_null:,} cells", summed(null, "world")),
        ],
    )


if __name__ == "__main__":
    main()
