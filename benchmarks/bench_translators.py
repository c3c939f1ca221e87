"""What surrogates of expression from accessibility learn: planted multiomes at full size, and SNARE-seq."""

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _common import cached, parser, spread, write

import sctrellis as tr

SOURCES = (
    "datasets/_multiome.py",
    "metrics/_translation.py",
    "models/_cis_translator.py",
    "models/_crossmodal.py",
    "models/_crossmodal_fit.py",
    "models/_translator.py",
    "tl/_surrogate.py",
    "tl/_translate.py",
    "tl/_translate_report.py",
)
# Cells, peaks, genes, targets and chromosomes at which element sets are judged.
SIZE = {"n_obs": 4000, "n_vars": 2400, "n_genes": 80}
WORLDS: dict[str, dict[str, Any]] = {
    "clean": {},
    "decoys copy, 0.6": {"decoy_correlation": 0.6},
    "dropout 0.3": {"dropout": 0.3},
    "1,200 cells": {"n_obs": 1200},
}
SNARE = Path("multiome") / "chen2019_snareseq_hESC.h5mu"
GENES = Path("annotations") / "CollapsedGeneBounds.hg38.intGENCODEv43.bed.gz"


def simulated(world: str, seed: int) -> Any:
    options = {"n_obs": 4000, **WORLDS[world]}
    return tr.datasets.simulate_multiome(
        options.pop("n_obs"), 2400, 80, n_targets=16, n_chromosomes=8, seed=seed, **options
    )


def judge(mdata: Any) -> dict[str, np.ndarray]:
    """Return what the tables of a fit say of the planted targets and of the other genes."""
    from sctrellis.tl._surrogate import read_surrogate

    translator, paired, record = read_surrogate(mdata)
    genes = record["genes"]
    targets = mdata.uns["targets"].astype({"target": str, "group": str})
    by_group = record["by_group"].astype({"gene": str, "group": str}).set_index(["gene", "group"])
    active = by_group.loc[list(zip(targets["target"], targets["group"], strict=True))]
    planted = genes.index.isin(targets["target"])
    ratio = []
    for target, group in zip(targets["target"], targets["group"], strict=True):
        n_peaks = int(targets.set_index("target").loc[target, "n_peaks"])
        peaks, true = tr.datasets.best_true_set(mdata, target, n_peaks)
        cells = paired.split["test"][paired.groups[paired.split["test"]] == paired.group_names.index(group)]
        column = translator.genes.tolist().index(mdata["rna"].var_names.get_loc(target))
        closed = paired.accessibility[cells].tolil()
        closed[:, mdata["atac"].var_names.get_indexer(list(peaks))] = 0
        before, after = (
            translator.predict_all(x, paired.groups[cells], paired.log_size[cells])[:, column]
            for x in (paired.accessibility[cells], closed)
        )
        ratio.append(float((before - after).mean()) / true)
    return {
        "r_active": active["r"].to_numpy(),
        "r_within": genes.loc[planted, "r_within"].to_numpy(),
        "r_others": genes.loc[~planted, "r_within"].to_numpy(),
        "learned": genes.loc[planted, "learned"].to_numpy(dtype=bool),
        "learned_others": genes.loc[~planted, "learned"].to_numpy(dtype=bool),
        "deviance": genes.loc[planted, "deviance"].to_numpy(),
        "slope": genes.loc[planted, "calibration_slope"].to_numpy(),
        "r_of_means": record["groups"]["r_of_means"].to_numpy(),
        "ratio": np.array(ratio),
        "atac_auroc": np.array(record["fit"].get("atac_auroc", np.nan)),
        "atac_frequency": np.array(record["fit"].get("atac_auroc_frequency", np.nan)),
    }


def fit_simulated(world: str, kind: str, seed: int) -> dict[str, np.ndarray]:
    mdata = simulated(world, seed)
    how = {"pairing": "unpaired"} if kind == "crossmodal, unpaired" else {}
    tr.tl.translate(mdata, kind.split(",")[0], groupby="cell_group", seed=seed, progress=False, **how)  # type: ignore[arg-type]
    return judge(mdata)


def fit_snare(folder: Path, seed: int) -> dict[str, np.ndarray]:
    """Fit the cis surrogate to the genes with a count in a fifth of the cells and a peak near them."""
    import mudata as md

    stored = md.read_h5mu(folder / SNARE)
    rna = stored["rna"]
    expressed = np.asarray((rna.layers["counts"] > 0).mean(axis=0)).ravel() >= 0.2
    mdata = tr.pp.multiome(rna[:, expressed].copy(), stored["atac"].copy(), genes=folder / GENES)
    tr.pp.cis_links(mdata)
    tr.pp.split_cells(mdata, seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        tr.tl.translate(mdata, seed=seed, progress=False)
    genes = tr.get.record(mdata, "translate")["genes"]
    return {
        name: genes[name].to_numpy(dtype=float) for name in ("r_within", "null_q95", "null_p", "learned", "deviance")
    }


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--seeds", type=int, default=3, help="simulated data sets of each kind")
    arguments.add_argument("--seeds-crossmodal", type=int, help="simulated data sets of the other kinds, if fewer")
    arguments.add_argument("--kinds", nargs="+", default=["cis", "crossmodal", "crossmodal, unpaired"])
    args = arguments.parse_args()
    found: dict[tuple[str, str], list[dict[str, np.ndarray]]] = {}
    for world in WORLDS:
        for kind in args.kinds:
            if kind != "cis" and world != "clean":
                continue
            fewer = kind != "cis" and args.seeds_crossmodal is not None
            for seed in range(args.seeds_crossmodal if fewer else args.seeds):
                key = {"bench": "translators", "world": world, "kind": kind, "seed": seed, **SIZE}
                values = cached(
                    key,
                    SOURCES,
                    lambda world=world, kind=kind, seed=seed: fit_simulated(world, kind, seed),
                    fresh=args.fresh,
                    reuse=args.reuse,
                )
                found.setdefault((world, kind), []).append(values)
    sections: list[tuple[str, pd.DataFrame | str]] = [
        ("Bars", bars(found)),
        ("Planted multiomes: 16 targets and 64 other genes", simulated_table(found)),
    ]
    folder = Path(os.environ.get("SCTRELLIS_DATA", ""))
    snare: list[dict[str, np.ndarray]] = []
    if hasattr(tr.pp, "multiome") and (folder / SNARE).is_file():
        for seed in range(args.seeds):
            key = {"bench": "translators", "world": "SNARE-seq hESC", "kind": "cis", "seed": seed}
            snare.append(
                cached(
                    key, SOURCES, lambda seed=seed: fit_snare(folder, seed), fresh=args.fresh, reuse=args.reuse
                )  # fmt: skip
            )
        sections.append(("SNARE-seq: 385 stem cells, genes with a count in a fifth of them", snare_table(snare)))
    else:
        sections.append(("SNARE-seq", f"Not run: needs `{SNARE}` under `SCTRELLIS_DATA`, and `pp.multiome`."))
    rows = [
        {"world": world, "kind": kind, "seed": seed, "measure": name, "index": i, "value": float(value)}
        for (world, kind), runs in found.items()
        for seed, run in enumerate(runs)
        for name, array in run.items()
        for i, value in enumerate(np.ravel(array))
    ]
    rows += [
        {"world": "SNARE-seq", "kind": "cis", "seed": seed, "measure": name, "index": i, "value": float(value)}
        for seed, run in enumerate(snare)
        for name in ("r_within", "learned")
        for i, value in enumerate(run[name])
    ]
    write(
        args.results,
        "translators",
        title="Surrogates of expression from accessibility",
        reading="Mean and standard deviation over data sets of the mean over genes, on test cells. `r` is Pearson's, "
        "of log expression, within groups. `predicted / true fall` is the change of the log mean when the best true "
        "set is closed, over the true change. Genes without planted elements should be called learnt at 5 %. "
        "Kinds other than cis are fitted to clean data only, as one fit takes minutes.",
        seeds=f"0-{args.seeds - 1}",
        data=pd.DataFrame(rows),
        sections=sections,
    )


def means(runs: list[dict[str, np.ndarray]], name: str) -> np.ndarray:
    return np.array([np.nanmean(run[name]) for run in runs])


def simulated_table(found: dict[tuple[str, str], list[dict[str, np.ndarray]]]) -> pd.DataFrame:
    rows = []
    for (world, kind), runs in found.items():
        row: dict[str, Any] = {"world": world, "kind": kind, "seeds": len(runs)}
        row["r, active group"] = spread(means(runs, "r_active"))
        row["r within groups"] = spread(means(runs, "r_within"))
        row["targets learnt"] = spread(means(runs, "learned"))
        row["others learnt"] = spread(means(runs, "learned_others"), 3)
        row["r, others"] = spread(means(runs, "r_others"), 3)
        row["deviance explained"] = spread(means(runs, "deviance"))
        row["calibration slope"] = spread(means(runs, "slope"))
        row["predicted / true fall"] = spread(means(runs, "ratio"))
        row["r of means"] = spread(means(runs, "r_of_means"), 3)
        row["ATAC from RNA, AUROC (frequency alone)"] = (
            "" if kind == "cis" else f"{spread(means(runs, 'atac_auroc'))} ({spread(means(runs, 'atac_frequency'))})"
        )
        row["CPU s"] = spread(means(runs, "cpu_s"), 0)
        rows.append(row)
    return pd.DataFrame(rows)


def snare_table(runs: list[dict[str, np.ndarray]]) -> pd.DataFrame:
    rows = []
    for seed, run in enumerate(runs):
        learned = run["learned"].astype(bool)
        rows.append(
            {
                "seed": seed,
                "genes": len(learned),
                "learnt": f"{learned.sum()} ({learned.mean():.1%})",
                "by chance": f"{0.05 * len(learned):.0f} (5.0%)",
                "95 % of the null": f"{run['null_q95'][0]:.3f}",
                "mean r": f"{np.nanmean(run['r_within']):.3f}",
                "mean deviance explained": f"{np.nanmean(run['deviance']):.3f}",
                "q < 0.1": int((_adjusted(run["null_p"]) < 0.1).sum()),
                "CPU s": f"{float(run['cpu_s']):.0f}",
            }
        )
    return pd.DataFrame(rows)


def _adjusted(p: np.ndarray) -> np.ndarray:
    from scipy.stats import false_discovery_control

    return false_discovery_control(p)


def bars(found: dict[tuple[str, str], list[dict[str, np.ndarray]]]) -> pd.DataFrame:
    rows: list[dict[str, str]] = []

    def add(what: str, bar: str, values: np.ndarray, *, holds: bool) -> None:
        rows.append({"what": what, "bar": bar, "measured": spread(values, 3), "holds": "yes" if holds else "NO"})

    runs = found[("clean", "cis")]
    active = means(runs, "r_active")
    lowest = np.array([run["r_active"].min() for run in runs])
    ratio = means(runs, "ratio")
    add("cis, clean: mean r of targets in their group", ">= 0.5", active, holds=active.mean() >= 0.5)
    add("cis, clean: lowest r of a target", ">= 0.5", lowest, holds=lowest.min() >= 0.5)
    add("cis, clean: predicted / true fall", "in [0.85, 1.15]", ratio, holds=0.85 <= ratio.mean() <= 1.15)
    for world in WORLDS:
        if (world, "cis") not in found:
            continue
        others = means(found[(world, "cis")], "learned_others")
        n = 64 * len(others)
        limit = 0.05 + 2 * np.sqrt(0.05 * 0.95 / n)
        add(
            f"cis, {world}: other genes called learnt",
            f"<= {limit:.3f} (5 % + 2 SE)",
            others,
            holds=others.mean() <= limit,
        )
    r_of_means = np.array([run["r_of_means"].min() for run in runs])
    add("cis, clean: lowest r of means of a group", ">= 0.95", r_of_means, holds=r_of_means.min() >= 0.95)
    return pd.DataFrame(rows)


if __name__ == "__main__":
    main()
