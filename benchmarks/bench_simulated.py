"""Accuracy on simulated cells whose network is known, stage by stage and prior by prior."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from _common import cached, parser, spread, write
from scipy import stats

import sctrellis as tr

MODELS = ("batches", "complete", "ensemble", "entrywise", "infosem", "prior", "ridge", "seed", "sem", "shrink")
SOURCES = [
    "datasets/_simulate.py",
    "tl/_baseline_scores.py",
    "pp/_split.py",
    "tl/_known.py",
    *(f"models/_{name}.py" for name in (*MODELS, "strength", "train")),
]
WORLDS: dict[str, dict[str, Any]] = {
    "Sim-S n=800": {"n_obs": 800},
    "Sim-S n=200": {"n_obs": 200},
    "Sim-C n=800": {"n_obs": 800, "counts": True},
    "Sim-C n=200": {"n_obs": 200, "counts": True},
    "Sim-S n=800, saturating effects": {"n_obs": 800, "nonlinear": True},
    "Sim-S n=800, 3 unseen factors": {"n_obs": 800, "n_confounders": 3},
}
PRIOR_CELLS = (100, 200, 400, 800)
STAGES = ("ridge", "convex", "deep")
UNSEEN_METHODS = ("none", "B", "C", "BC", "C, all others non-edges", "BC, all others non-edges")


def auprc(adata: Any, scores: Any, among: np.ndarray | None = None) -> float:
    """Return the AUPRC of absolute scores, over regulators x genes or the pairs of a mask."""
    pairs = np.repeat(adata.var["is_regulator"].to_numpy()[:, None], adata.n_vars, axis=1)
    np.fill_diagonal(pairs, val=False)
    if among is not None:
        pairs &= among
    truth = adata.varp["truth"].toarray()[pairs] > 0
    return float(tr.metrics.average_precision(np.abs(scores.toarray()[pairs]), truth))


def base(adata: Any) -> float:
    n_regulators = int(adata.var["is_regulator"].sum())
    return adata.varp["truth"].nnz / (n_regulators * (adata.n_vars - 1))


def infosem(adata: Any, **options: Any) -> Any:
    return tr.tl.infosem(adata, keep_stages=True, device="cpu", progress=False, copy=True, **options)


def stages(fitted: Any, prefix: str, among: np.ndarray | None = None) -> dict[str, float]:
    return {f"{prefix} {stage}": auprc(fitted, fitted.varp[f"infosem_{stage}"], among) for stage in STAGES}


def uninformed(options: dict[str, Any], seed: int) -> dict[str, float]:
    """Return the AUPRC of correlation and of every stage, with all genes or regulators conditioning."""
    adata = tr.datasets.simulate_grn(**options, seed=seed)
    tr.tl.baseline(adata, "pearson")
    found = {"base": base(adata), "pearson": auprc(adata, adata.varp["pearson"])}
    for conditioning in ("all", "regulators"):
        found |= stages(infosem(adata, conditioning=conditioning, seed=seed), conditioning)
    return found


def informed(n_obs: int, seed: int) -> dict[str, float]:
    """Return the AUPRC without embedding, with an informative, a random and a half-missing one."""
    adata = tr.datasets.simulate_grn(n_obs, embedding="informative", seed=seed)
    control = tr.datasets.simulate_grn(n_obs, embedding="random", seed=seed)
    adata.varm["random"] = control.varm["embedding"]
    half = adata.varm["embedding"].copy()
    half[np.random.default_rng(seed).permutation(adata.n_vars)[: adata.n_vars // 2]] = np.nan
    adata.varm["half"] = half
    tr.tl.baseline(adata, "pearson")
    found = {"base": base(adata), "pearson": auprc(adata, adata.varp["pearson"])}
    for name in (None, "embedding", "random", "half"):
        fitted = infosem(adata, embedding=name, seed=seed)
        found |= stages(fitted, name or "none")
        if name == "embedding":
            found["prior mean alone"] = auprc(adata, fitted.varp["infosem_prior_mean"])
    return found


def labelled(n_obs: int, seed: int) -> dict[str, float]:
    """Return the AUPRC on pairs of two unseen genes, and of two seen genes, with and without labels."""
    adata = tr.datasets.simulate_grn(n_obs, embedding="informative", seed=seed)
    tr.pp.split_edges(adata, "truth", scheme="infosem", universe="listed", seed=seed)
    test = adata.varp["truth_fold"].toarray() == 3
    classes = adata.varp["truth_class"].toarray()
    found = {}
    for name in UNSEEN_METHODS:
        options: dict[str, Any] = {"seed": seed}
        if "B" in name.split(",")[0]:
            options["embedding"] = "embedding"
        if "C" in name.split(",")[0]:
            options |= {"known": "truth", "negatives": "train" if "others" in name else "labelled"}
        fitted = infosem(adata, **options)
        for where, code in (("unseen", 4), ("seen", 1)):
            found |= stages(fitted, f"{where} {name}", test & (classes == code))
    return found


def agreement(seed: int, n_runs: int) -> dict[str, float]:
    """Return how much runs of one data set with different seeds agree, and whether equal seeds give equal results."""
    adata = tr.datasets.simulate_grn(800, seed=seed)
    again = [infosem(adata, seed=s).varp["infosem"] for s in (*range(n_runs), 0)]
    runs = [np.abs(run.data) for run in again]
    ranks = [float(stats.spearmanr(a, b).statistic) for a, b in combinations(runs[:-1], 2)]
    return {"lowest": min(ranks), "same": float(np.array_equal(runs[0], runs[-1]))}


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--seeds", type=int, default=8)
    arguments.add_argument("--label-seeds", type=int, default=10, help="splits per number of cells")
    args = arguments.parse_args()

    def gather(kind: str, name: str, n_seeds: int, compute: Any) -> dict[str, np.ndarray]:
        """Return the values of each seed, by what was measured."""
        print(name, flush=True)
        found = []
        for seed in range(n_seeds):
            key = {"simulated": kind, "world": name, "seed": seed}
            stored = cached(key, SOURCES, lambda s=seed: as_arrays(compute(s)), fresh=args.fresh, reuse=args.reuse)
            found.append({name: float(value) for name, value in stored.items()})
        return {column: np.array([row[column] for row in found]) for column in found[0]}

    plain = {
        name: gather("plain", name, args.seeds, lambda s, o=options: uninformed(o, s))
        for name, options in WORLDS.items()
    }
    prior = {n: gather("prior", f"Sim-P n={n}", args.seeds, lambda s, n=n: informed(n, s)) for n in PRIOR_CELLS}
    labels = {
        n: gather("labels", f"Sim-P n={n}, labels", args.label_seeds, lambda s, n=n: labelled(n, s))
        for n in PRIOR_CELLS
    }
    agree = gather("agreement", "Sim-S n=800, runs", 2, lambda s: agreement(s, 4))

    data = pd.DataFrame(
        [
            {"world": world, "measured": column, "seed": seed, "value": value}
            for world, found in [
                *plain.items(),
                *((f"Sim-P n={n}", found) for n, found in prior.items()),
                *((f"Sim-P n={n}, labels", found) for n, found in labels.items()),
                ("Sim-S n=800, runs", agree),
            ]
            for column, values in found.items()
            if column != "cpu_s"
            for seed, value in enumerate(values)
        ]
    )
    write(
        args.results,
        "simulated",
        title="Accuracy on simulated cells with a known network",
        reading="AUPRC over regulators x genes, mean ± standard deviation over data sets (each seed is another network "
        "and other cells); `base` is what random scores get. A gain is the difference on the same data set; the number "
        "of data sets on which it is positive stands beside it.",
        seeds=f"0-{args.seeds - 1}; with labels 0-{args.label_seeds - 1}, each with its own split",
        data=data,
        sections=[
            ("Bars", bars(plain, prior, labels, agree)),
            ("Without priors", plain_table(plain)),
            ("With embeddings (B): 200 genes, 30 regulators, edges that follow the embeddings", prior_table(prior)),
            ("Gain of embeddings over none", gain_table(prior)),
            ("With known edges (C, BC): test pairs of two unseen genes", label_table(labels, "unseen")),
            ("With known edges (C, BC): test pairs of two seen genes", label_table(labels, "seen")),
        ],
    )


def as_arrays(values: dict[str, float]) -> dict[str, np.ndarray]:
    return {name: np.array(value) for name, value in values.items()}


def gain(values: np.ndarray) -> str:
    return f"{spread(values, 3)} ({int((values > 0).sum())} of {len(values)})"


def plain_table(plain: dict[str, dict[str, np.ndarray]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "world": world,
                "base": spread(found["base"], 3),
                "pearson": spread(found["pearson"], 3),
                "ridge start": spread(found["all ridge"], 3),
                "convex": spread(found["all convex"], 3),
                "deep": spread(found["all deep"], 3),
                "deep, regulators condition": spread(found["regulators deep"], 3),
                "deep − ridge": gain(found["all deep"] - found["all ridge"]),
                "deep − pearson": gain(found["all deep"] - found["pearson"]),
            }
            for world, found in plain.items()
        ]
    )


def prior_table(prior: dict[int, dict[str, np.ndarray]]) -> pd.DataFrame:
    columns = ["base", "pearson", "none ridge", "none convex", "none deep", "embedding convex", "embedding deep"]
    columns += ["random convex", "random deep", "half convex", "half deep", "prior mean alone"]
    return pd.DataFrame(
        [{"cells": n, **{column: spread(found[column], 3) for column in columns}} for n, found in prior.items()]
    )


def gain_table(prior: dict[int, dict[str, np.ndarray]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "cells": n,
                **{
                    f"{kind}, {stage}": gain(found[f"{name} {stage}"] - found[f"none {stage}"])
                    for name, kind in (("embedding", "informative"), ("random", "random"), ("half", "half missing"))
                    for stage in ("convex", "deep")
                },
            }
            for n, found in prior.items()
        ]
    )


def label_table(labels: dict[int, dict[str, np.ndarray]], where: str) -> pd.DataFrame:
    rows = []
    for n, found in labels.items():
        for stage in ("convex", "deep"):
            row: dict[str, Any] = {"cells": n, "stage": stage}
            row |= {method: spread(found[f"{where} {method} {stage}"], 3) for method in UNSEEN_METHODS}
            row["BC − B"] = gain(found[f"{where} BC {stage}"] - found[f"{where} B {stage}"])
            row["C − none"] = gain(found[f"{where} C {stage}"] - found[f"{where} none {stage}"])
            rows.append(row)
    return pd.DataFrame(rows)


def bars(plain: Any, prior: Any, labels: Any, agree: Any) -> pd.DataFrame:
    rows: list[dict[str, str]] = []

    def add(check: str, what: str, bar: str, measured: str, *, holds: bool) -> None:
        rows.append({"check": check, "what": what, "bar": bar, "measured": measured, "holds": "yes" if holds else "NO"})

    six = {world: {name: values[:6] for name, values in found.items()} for world, found in plain.items()}
    for check, world, low in (("4", "Sim-S n=800", 0.85), ("5", "Sim-S n=200", 0.78), ("6", "Sim-C n=800", 0.42)):
        found = six[world]
        add(
            check,
            f"{world}, deep, 6 seeds",
            f">= {low}",
            spread(found["all deep"], 3),
            holds=found["all deep"].mean() >= low,
        )
    found = six["Sim-S n=800"]
    lead = found["all deep"] - found["pearson"]
    add("4", "Sim-S n=800, deep − pearson", ">= 0.10", gain(lead), holds=lead.mean() >= 0.10)
    for check, world, times in (("6", "Sim-C n=800", 6), ("7", "Sim-C n=200", 3)):
        ratio = six[world]["all deep"] / six[world]["base"]
        add(check, f"{world}, deep / base", f">= {times}", spread(ratio, 2), holds=ratio.mean() >= times)
    for stage in ("convex", "deep"):
        for n in PRIOR_CELLS:
            found = prior[n]
            rise = found[f"embedding {stage}"] - found[f"none {stage}"]
            if n == 200:
                holds = rise.mean() >= 0.05 and (rise > 0).sum() >= 7 / 8 * len(rise)
                add(
                    "8",
                    f"Sim-P n=200, informative − none, {stage}",
                    ">= 0.05, 7 of 8 positive",
                    gain(rise),
                    holds=holds,
                )
            else:
                add("9", f"Sim-P n={n}, informative − none, {stage}", ">= 0.03", gain(rise), holds=rise.mean() >= 0.03)
        drop = np.stack([prior[n][f"random {stage}"] - prior[n][f"none {stage}"] for n in PRIOR_CELLS])
        add(
            "10",
            f"Sim-P, random − none, {stage}, {drop.size} data sets",
            "mean >= -0.02, none < -0.05",
            f"mean {drop.mean():+.3f} (lowest mean of a size {drop.mean(axis=1).min():+.3f}), lowest {drop.min():+.3f}",
            holds=drop.mean(axis=1).min() >= -0.02 and drop.min() >= -0.05,
        )
        part = prior[200][f"half {stage}"] - prior[200][f"none {stage}"]
        whole = prior[200][f"embedding {stage}"] - prior[200][f"none {stage}"]
        share = part.mean() / whole.mean()
        add("12", f"Sim-P n=200, half missing, {stage}", ">= 40 % of check 8", f"{share:.0%}", holds=share >= 0.4)
    alone = prior[200]["prior mean alone"]
    add("11", "Sim-P n=200, prior mean alone", ">= 0.35", spread(alone, 3), holds=alone.mean() >= 0.35)
    for stage in ("convex", "deep"):
        change = np.stack([labels[n][f"unseen BC {stage}"] - labels[n][f"unseen B {stage}"] for n in PRIOR_CELLS])
        worst = change.mean(axis=1).min()
        add(
            "13",
            f"Sim-P, unseen-unseen, BC − B, {stage}, {change.size} runs",
            "each size >= -0.01, pooled >= 0",
            f"lowest size {worst:+.4f}, pooled {change.mean():+.4f}",
            holds=worst >= -0.01 and change.mean() >= 0,
        )
    add(
        "28",
        "Sim-S n=800, rank correlation of seeds",
        ">= 0.95",
        f"{agree['lowest'].min():.3f}",
        holds=agree["lowest"].min() >= 0.95,
    )
    add("28", "same seed, same bytes", "yes", "yes" if agree["same"].all() else "no", holds=bool(agree["same"].all()))
    return pd.DataFrame(rows)


if __name__ == "__main__":
    main()
