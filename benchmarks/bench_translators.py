"""What surrogates of expression from accessibility learn: planted multiomes at full size, and SNARE-seq."""

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _common import cached, parser, spread, write
from scipy import stats

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
N_PERMUTED = 500
FRESH = {"n_peaks": 1_200, "n_genes": 40, "n_targets": 8, "n_chromosomes": 4}
N_FRESH = 24_000
# Cells, peaks, genes, targets and chromosomes at which element sets are judged.
SIZE = {"n_obs": 4000, "n_vars": 2400, "n_genes": 80}
WORLDS: dict[str, dict[str, Any]] = {
    "clean": {},
    "decoys copy, 0.6": {"decoy_correlation": 0.6},
    "dropout 0.3": {"dropout": 0.3},
    "1,200 cells": {"n_obs": 1200},
    # Nothing that is said of a cell's RNA beyond its group can be true here.
    "no elements": {"n_targets": 0},
}
# Data sets of each kind, in the order of the fits; cis has as many as are asked for.
FITS: dict[str, dict[str, int | None]] = {
    "crossmodal": {"clean": 3, "no elements": 2, "dropout 0.3": 1},
    "cis": dict.fromkeys(["clean", "decoys copy, 0.6", "dropout 0.3", "1,200 cells"]),
    "crossmodal, unpaired": {"clean": 1},
}
SNARE = Path("multiome") / "chen2019_snareseq_hESC.h5mu"
GENES = Path("annotations") / "CollapsedGeneBounds.hg38.intGENCODEv43.bed.gz"


def simulated(world: str, seed: int) -> Any:
    options = {"n_obs": 4000, "n_targets": 16, **WORLDS[world]}
    return tr.datasets.simulate_multiome(n_peaks=2400, n_genes=80, n_chromosomes=8, seed=seed, **options)


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
        **of_nothing(mdata, translator, paired, ~planted, genes["r_within"].to_numpy()),
    }


def of_nothing(mdata: Any, translator: Any, paired: Any, others: np.ndarray, reported: np.ndarray) -> dict[str, Any]:
    """Ask whether genes without elements are learnt more often than chance has it, and whether totals are why.

    The total of a cell holds its targets: where they rise, all others fall in normalised expression, and a surrogate
    that sees the elements of all genes may know of it. Divided by the simulated size of the cell they do not fall.
    """
    from sctrellis.metrics._translation import correlation
    from sctrellis.tl._translate_report import permuted_partners

    test = paired.split["test"]
    groups = paired.groups[test]
    predicted = translator.predict_all(paired.accessibility[test], groups, np.zeros(len(test), np.float32))
    counts = mdata["rna"].layers["counts"].toarray().astype(float)
    sizes = {"total": counts.sum(axis=1), "size": mdata.obs["size_factor"].to_numpy()}
    # As the surrogate reads it: counts over the mean total, or values scaled to the median total.
    scale = sizes["total"].mean() if paired.sized else np.median(sizes["total"])
    scales = {"total": scale, "size": scale * sizes["size"].mean() / sizes["total"].mean()}
    partners = permuted_partners(paired, N_PERMUTED, 0)[:, test]
    found: dict[str, Any] = {}
    for name, size in sizes.items():
        values = np.log1p(counts * (scales[name] / size)[:, None])
        r = correlation(values[test], predicted, groups)
        if name == "total" and not np.allclose(r, reported, atol=1e-4, equal_nan=True):
            msg = "The correlations are not those of the report."
            raise AssertionError(msg)
        null = np.array([correlation(values[rows], predicted, groups) for rows in partners])
        bar = np.quantile(null, 0.95)
        found[f"above_{name}"] = r[others] > bar
        found[f"r_{name}"] = r[others]
        found[f"null_share_{name}"] = (null[:, others] > bar).mean(axis=1)
    return found


def fit_simulated(world: str, kind: str, seed: int) -> dict[str, np.ndarray]:
    mdata = simulated(world, seed)
    how = {"pairing": "unpaired"} if kind == "crossmodal, unpaired" else {}
    tr.tl.translate(mdata, kind.split(",")[0], groupby="cell_group", seed=seed, progress=False, **how)  # type: ignore[arg-type]
    return judge(mdata)


def fit_fresh(seed: int) -> dict[str, np.ndarray]:
    """Fit the crossmodal surrogate and correlate what it predicts with very many new cells of the same world."""
    from sctrellis.metrics._translation import correlation
    from sctrellis.tl._surrogate import read_surrogate

    mdata = tr.datasets.simulate_multiome(2_000, **FRESH, seed=seed)
    tr.tl.translate(mdata, "crossmodal", groupby="cell_group", seed=seed, progress=False)
    translator, _, _ = read_surrogate(mdata)
    new = tr.datasets.simulate_multiome(N_FRESH, **FRESH, seed=seed)
    if not new.uns["truth"].reset_index(drop=True).equals(mdata.uns["truth"].reset_index(drop=True)):
        msg = "The new cells are of another world."
        raise AssertionError(msg)
    groups = new.obs["cell_group"].cat.codes.to_numpy().astype(np.int64)
    predicted = translator.predict_all(new["atac"].X, groups, np.zeros(N_FRESH, np.float32))
    genes = new["rna"].var_names
    others = ~genes.isin(new.uns["targets"]["target"])
    counts = new["rna"].layers["counts"].toarray().astype(float)
    total, size = counts.sum(axis=1), new.obs["size_factor"].to_numpy()
    expected = np.sum([np.exp(tr.datasets.true_log_mean(new, gene)) for gene in genes], axis=0)
    scale = np.median(total)
    by = {"total": scale / total, "size": scale / np.median(total / size) / size}
    values = {name: np.log1p(counts * factor[:, None])[:, others] for name, factor in by.items()}
    found = {f"r_{name}": correlation(part, predicted[:, others], groups) for name, part in values.items()}
    fall = np.broadcast_to(-np.log(expected)[:, None], values["total"].shape)
    return found | {"r_truth": correlation(values["total"], fall, groups)}


def fresh_table(runs: list[dict[str, np.ndarray]]) -> pd.DataFrame:
    rows = []
    for seed, run in enumerate(runs):
        for name, size in (("total", "total"), ("simulated", "size")):
            r = run[f"r_{size}"]
            z = r * np.sqrt(N_FRESH)
            rows.append(
                {
                    "seed": seed,
                    "size of a cell": name,
                    "genes": len(r),
                    "mean r": f"{r.mean():.4f}",
                    "r > 0 at one-sided 5 %": int((z > stats.norm.ppf(0.95)).sum()),
                    "p, all r are 0": f"{stats.chi2.sf((z**2).sum(), len(z)):.2g}",
                    "mean r with the true share of a gene": f"{run['r_truth'].mean():.2f}" if size == "total" else "",
                }
            )
    return pd.DataFrame(rows)


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
    arguments.add_argument("--seeds-crossmodal", type=int, default=3, help="simulated data sets of the others at most")
    arguments.add_argument("--kinds", nargs="+", default=["cis", "crossmodal", "crossmodal, unpaired"])
    args = arguments.parse_args()
    found: dict[tuple[str, str], list[dict[str, np.ndarray]]] = {}
    for kind, worlds in FITS.items():
        for world, most in worlds.items() if kind in args.kinds else ():
            for seed in range(args.seeds if most is None else min(most, args.seeds_crossmodal)):
                key = {"bench": "translators", "world": world, "kind": kind, "seed": seed, **SIZE}
                values = cached(
                    key,
                    SOURCES,
                    lambda world=world, kind=kind, seed=seed: fit_simulated(world, kind, seed),
                    fresh=args.fresh,
                    reuse=args.reuse,
                )
                found.setdefault((world, kind), []).append(values)
    order = list(WORLDS)
    found = dict(sorted(found.items(), key=lambda item: (order.index(item[0][0]), item[0][1])))
    fresh: list[dict[str, np.ndarray]] = []
    sections: list[tuple[str, pd.DataFrame | str]] = [
        ("Bars", bars(found)),
        ("Planted multiomes: 16 targets and 64 other genes", simulated_table(found)),
        (f"Genes without elements, beside {N_PERMUTED} permutations of the test cells", nothing_table(found)),
    ]
    if "crossmodal" in args.kinds:
        fresh = [
            cached(
                {
                    "bench": "translators",
                    "world": "new cells",
                    "kind": "crossmodal",
                    "seed": seed,
                    **FRESH,
                    "new": N_FRESH,
                },
                SOURCES,
                lambda seed=seed: fit_fresh(seed),
                fresh=args.fresh,
                reuse=args.reuse,
            )
            for seed in range(args.seeds_crossmodal)
        ]
        heading = f"Crossmodal, 2,000 cells: genes without elements in {N_FRESH:,} new cells of the same world"
        sections.append((heading, fresh_table(fresh)))
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
        for (world, kind), runs in (found | {("new cells", "crossmodal"): fresh}).items()
        for seed, run in enumerate(runs)
        for name, array in run.items()
        if not name.startswith("null_share")  # one for each permutation: the table has what they say
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
        "Kinds other than cis are fitted to fewer data sets, as one fit takes minutes. Where the world is `no "
        "elements`, none of the 80 genes has one. Third table: how many genes without elements have an r within groups "
        "above the 95 % quantile of permuted test cells, with the total of a cell as its size, as surrogates read it, "
        "and with the size that was simulated; p of as many or more of independent genes at 5 %; and how much their "
        "share varies over permutations, of all genes together, beside what independent genes would have. Last of the "
        "simulated: the same question with enough cells to answer it; the true share of a gene is what it would "
        "have of the total of a cell if counts had no noise.",
        seeds=f"0-{args.seeds - 1}",
        data=pd.DataFrame(rows),
        sections=sections,
    )


def means(runs: list[dict[str, np.ndarray]], name: str) -> np.ndarray:
    return np.array([np.nanmean(run[name]) if run[name].size else np.nan for run in runs])


def nothing_table(found: dict[tuple[str, str], list[dict[str, np.ndarray]]]) -> pd.DataFrame:
    rows = []
    for (world, kind), runs in found.items():
        row: dict[str, Any] = {"world": world, "kind": kind, "seeds": len(runs)}
        for name, size in (("total", "total"), ("simulated", "size")):
            above = np.concatenate([run[f"above_{size}"] for run in runs]).astype(bool)
            p = stats.binomtest(int(above.sum()), len(above), 0.05, alternative="greater").pvalue
            by_seed = ", ".join(str(int(run[f"above_{size}"].sum())) for run in runs)
            row[f"above, by {name} size"] = (
                f"{above.sum()} of {len(above)} ({by_seed}), {above.mean():.1%}, p = {p:.2g}"
            )
        row["mean r, by total"] = spread(means(runs, "r_total"), 3)
        row["mean r, by simulated size"] = spread(means(runs, "r_size"), 3)
        deviation = np.mean([run["null_share_total"].std() for run in runs])
        independent = np.sqrt(0.05 * 0.95 / runs[0]["above_total"].size)
        row["sd of the share over permutations (independent genes)"] = f"{deviation:.3f} ({independent:.3f})"
        rows.append(row)
    return pd.DataFrame(rows)


def shown(runs: list[dict[str, np.ndarray]], name: str, digits: int = 2) -> str:
    values = means(runs, name)
    return "" if np.isnan(values).all() else spread(values, digits)


def simulated_table(found: dict[tuple[str, str], list[dict[str, np.ndarray]]]) -> pd.DataFrame:
    rows = []
    for (world, kind), runs in found.items():
        row: dict[str, Any] = {"world": world, "kind": kind, "seeds": len(runs)}
        row["r, active group"] = shown(runs, "r_active")
        row["r within groups"] = shown(runs, "r_within")
        row["targets learnt"] = shown(runs, "learned")
        row["others learnt"] = shown(runs, "learned_others", 3)
        row["r, others"] = shown(runs, "r_others", 3)
        row["deviance explained"] = shown(runs, "deviance")
        row["calibration slope"] = shown(runs, "slope")
        row["predicted / true fall"] = shown(runs, "ratio")
        row["r of means"] = shown(runs, "r_of_means", 3)
        row["ATAC from RNA, AUROC (frequency alone)"] = (
            "" if kind == "cis" else f"{shown(runs, 'atac_auroc')} ({shown(runs, 'atac_frequency')})"
        )
        row["CPU s"] = shown(runs, "cpu_s", 0)
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
    return stats.false_discovery_control(p)


def bars(found: dict[tuple[str, str], list[dict[str, np.ndarray]]]) -> pd.DataFrame:
    rows: list[dict[str, str]] = []

    def add(what: str, bar: str, values: np.ndarray, *, holds: bool) -> None:
        rows.append({"what": what, "bar": bar, "measured": spread(values, 3), "holds": "yes" if holds else "NO"})

    if ("clean", "cis") in found:
        runs = found[("clean", "cis")]
        active = means(runs, "r_active")
        lowest = np.array([run["r_active"].min() for run in runs])
        ratio = means(runs, "ratio")
        r_of_means = np.array([run["r_of_means"].min() for run in runs])
        add("cis, clean: mean r of targets in their group", ">= 0.5", active, holds=active.mean() >= 0.5)
        add("cis, clean: lowest r of a target", ">= 0.5", lowest, holds=lowest.min() >= 0.5)
        add("cis, clean: predicted / true fall", "in [0.85, 1.15]", ratio, holds=0.85 <= ratio.mean() <= 1.15)
        add("cis, clean: lowest r of means of a group", ">= 0.95", r_of_means, holds=r_of_means.min() >= 0.95)
    for (world, kind), runs in found.items():
        limit = 0.05 + 2 * np.sqrt(0.05 * 0.95 / sum(run["learned_others"].size for run in runs))
        judged = {"called learnt": "learned_others"}
        if kind != "cis" and world != "no elements":
            # A surrogate of all peaks can rightly read of totals what elements of other genes do: see the last tables.
            judged["above the null, by simulated size"] = "above_size"
        for what, name in judged.items():
            others = means(runs, name)
            where = f"{kind}, {world}: genes without elements {what}"
            add(where, f"<= {limit:.3f} (5 % + 2 SE)", others, holds=others.mean() <= limit)
    return pd.DataFrame(rows)


if __name__ == "__main__":
    main()
