"""Real cells the whole way: SNARE-seq stem cells to sets of elements, beside a null and CRISPR interference in K562."""

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _common import cached, parser, write
from bench_translators import GENES, SNARE

import sctrellis as tr

SOURCES = (
    "explain/_additive.py",
    "explain/_peaks.py",
    "explain/_starts.py",
    "explain/_subset_search.py",
    "explain/_subset_swap.py",
    "metrics/_hits.py",
    "metrics/_translation.py",
    "models/_cis_translator.py",
    "models/_translator.py",
    "pp/_cis_links.py",
    "pp/_multiome.py",
    "pp/_split_cells.py",
    "tl/_element_plan.py",
    "tl/_element_sets.py",
    "tl/_grids.py",
    "tl/_grids_null.py",
    "tl/_hit_ratio.py",
    "tl/_null_draws.py",
    "tl/_surrogate.py",
    "tl/_translate.py",
    "tl/_translate_report.py",
)
CRISPR = Path("cre_gene") / "EPCrisprBenchmark_combined_data.training_K562.GRCh38.tsv.gz"
# Genes with a count in a tenth of the cells and a peak that overlaps an element tested for them, sets of 3 peaks:
# chosen before any set was looked at.
MIN_DETECTED, N_PEAKS, N_RUNS = 0.1, 3, 1
Q = 0.1
JUDGED = ("all genes (not licensed)", "learnt", f"learnt, q < {Q:g}")
LINKS = ("bin", "n_candidates", "n_linked", "n_selected", "n_confirmed", "expected", "enrichment", "p_value", "nearest")


def read_crispr(folder: Path) -> pd.DataFrame:
    """Return the tested pairs of element and gene, as ``tl.hit_ratio`` reads them."""
    table = pd.read_csv(folder / CRISPR, sep="\t")
    names = {"chromStart": "start", "chromEnd": "end", "measuredGeneSymbol": "gene", "Regulated": "linked"}
    return table.rename(columns=names)[["chrom", *names.values()]]


def run(folder: Path, seed: int) -> dict[str, np.ndarray]:
    """Go from the file to sets of elements, their null and what CRISPR interference says of them."""
    import mudata as md

    stored = md.read_h5mu(folder / SNARE)
    mdata = tr.pp.multiome(stored["rna"].copy(), stored["atac"].copy(), genes=folder / GENES)
    tr.pp.cis_links(mdata)
    tr.pp.split_cells(mdata, seed=seed)
    rna = mdata["rna"]
    detected = rna.var_names[np.asarray((rna.layers["counts"] > 0).mean(axis=0)).ravel() >= MIN_DETECTED]
    crispr = read_crispr(folder)
    asked = tested_genes(mdata, crispr[crispr["gene"].isin(detected)])
    tr.tl.translate(mdata, targets=asked, n_runs=N_RUNS, seed=seed, progress=False)
    quality = tr.get.record(mdata, "translate")["genes"]
    tr.tl.grids(mdata, targets=asked, n_peaks=N_PEAKS, n_boot=0, seed=seed, progress=False)
    tr.tl.grids_null(mdata, seed=seed, progress=False)
    tasks = tr.get.record(mdata, "grids_permuted_pairing")["tasks"].set_index("target")
    out: dict[str, np.ndarray] = {
        "gene": quality.index.to_numpy(str),
        **{name: quality[name].to_numpy(float) for name in ("r_within", "null_q95", "null_p", "learned", "deviance")},
        **{name: tasks[name].reindex(quality.index).to_numpy(float) for name in ("effect", "q_value")},
        "set_null_q95": tasks["null_q95"].reindex(quality.index).to_numpy(float),
        "n_detected": np.array([len(detected)]),
    }
    learnt = tasks.index.isin(quality.index[quality["learned"]])
    for name, mask in zip(JUDGED, (np.ones(len(tasks), bool), learnt, learnt & (tasks["q_value"] < Q)), strict=True):
        out |= {f"{name}|{key}": value for key, value in confirmed(mdata, list(tasks.index[mask]), crispr).items()}
    return out


def confirmed(mdata: Any, targets: list[str], crispr: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return what the reference says of the sets of some genes: how many it can judge, and how many it confirms."""
    entry = tr.get.record(mdata, "grids")
    parts = {name: entry[name][entry[name]["target"].isin(targets)] for name in ("sets", "tasks")}
    out: dict[str, np.ndarray] = {"n_sets": np.array([len(targets)]), "n_tested": np.array([0])}
    own = crispr[crispr["gene"].isin(targets)]
    if not own["linked"].any():
        return out
    mdata.uns["part"] = {**entry, **{name: part.reset_index(drop=True) for name, part in parts.items()}}
    tr.tl.hit_ratio(mdata, "part", reference=own)
    links = tr.get.record(mdata, "part_hit_ratio")["links"]
    out |= {f"links|{name}": links[name].to_numpy(str if name == "bin" else float) for name in LINKS}
    chosen = parts["sets"].rename(columns={"target": "gene"})[["gene", "peak"]]
    out["n_tested"] = np.array([len(overlapping(mdata, chosen, own))])
    return out


def tested_genes(mdata: Any, crispr: pd.DataFrame) -> list[str]:
    """Return the genes that have a linked peak that overlaps an element tested for them."""
    rna, atac = mdata["rna"], mdata["atac"]
    links = mdata.varp["cis"][: rna.n_vars, rna.n_vars :].tocoo()
    pairs = pd.DataFrame({"gene": rna.var_names[links.row], "peak": atac.var_names[links.col]})
    return overlapping(mdata, pairs, crispr)


def overlapping(mdata: Any, pairs: pd.DataFrame, crispr: pd.DataFrame) -> list[str]:
    """Return the genes of pairs of gene and peak of which a peak overlaps an element tested for the gene."""
    where = mdata["atac"].var[["chrom", "start", "end"]]
    placed = pairs.join(where, on="peak").merge(crispr, on=["gene", "chrom"], suffixes=("", "_e"))
    return sorted(set(placed.loc[(placed["start"] < placed["end_e"]) & (placed["start_e"] < placed["end"]), "gene"]))


def main() -> None:
    """Run all seeds and write the tables."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--seeds", type=int, default=3, help="splits of the cells, each with its own fit and null")
    args = arguments.parse_args()
    folder = Path(os.environ.get("SCTRELLIS_DATA", ""))
    missing = [str(name) for name in (SNARE, GENES, CRISPR) if not (folder / name).is_file()]
    if missing:
        print(f"Not run: needs {', '.join(missing)} under the folder that SCTRELLIS_DATA names.")
        return
    warnings.simplefilter("ignore", UserWarning)  # that nothing was learnt of a gene is what is measured here
    runs = []
    for seed in range(args.seeds):
        key = {"bench": "snareseq", "detected": MIN_DETECTED, "n_peaks": N_PEAKS, "n_runs": N_RUNS, "seed": seed}
        runs.append(cached(key, SOURCES, lambda s=seed: run(folder, s), fresh=args.fresh, reuse=args.reuse))
    data = pd.DataFrame(
        {"seed": seed, "judged": "", "measure": name, "at": str(at), "value": value}
        for seed, found in enumerate(runs)
        for name in ("r_within", "null_p", "learned", "effect", "set_null_q95", "q_value")
        for at, value in zip(found["gene"], found[name], strict=True)
    )
    write(
        args.results,
        "snareseq",
        title="SNARE-seq stem cells: from two tables to sets of elements, beside CRISPR interference",
        reading=f"385 H1 cells; genes with a count in {MIN_DETECTED:.0%} of them and a peak within 500 kb that "
        "overlaps an element tested for them (of other genes, see translators.md); sets of "
        f"{N_PEAKS} peaks; a surrogate of {N_RUNS} run, not 3, for time; test cells; three permutations each for the "
        "surrogate and for the search. Seeds divide the "
        "same cells differently: they are no replicates of the data. learnt: r above the 95 % quantile of permuted "
        "pairs, which one gene in twenty reaches by chance. A set is licensed only if its gene was learnt and the set "
        f"is beyond the search's own null (q < {Q:g}); what is said of all genes tests distance and the method, not "
        "what it learnt. judged: peaks that overlap an element tested for the gene. expected: as many drawn at random "
        "from the judged peaks of the same gene and bin of distance; p: chance of as many confirmed or more; nearest: "
        "confirmed among as many of the nearest judged peaks. In brackets: 95 % of observed over expected, exact "
        "Poisson. The elements were tested in K562, another kind of cell.",
        seeds=f"0-{args.seeds - 1}",
        data=pd.concat([data, links_rows(runs)], ignore_index=True),
        sections=[
            ("What was learnt", learnt_table(runs)),
            ("Sets and what K562 has tested of them", sets_table(runs)),
            ("Confirmed within distance", links_table(runs)),
        ],
    )


def learnt_table(runs: list[dict[str, np.ndarray]]) -> pd.DataFrame:
    """Return what the surrogate learnt beyond permuted pairs, by seed."""
    from scipy.stats import false_discovery_control

    rows = []
    for seed, found in enumerate(runs):
        learned = found["learned"].astype(bool)
        rows.append(
            {
                "seed": seed,
                "genes": len(learned),
                "learnt": f"{learned.sum()} ({learned.mean():.1%})",
                "by chance": f"{0.05 * len(learned):.0f} (5.0%)",
                f"learnt, q < {Q:g}": int((false_discovery_control(found["null_p"]) < Q).sum()),
                "mean r": f"{np.nanmean(found['r_within']):.3f}",
                "95 % of the null": f"{found['null_q95'][0]:.3f}",
                "mean deviance explained": f"{np.nanmean(found['deviance']):.3f}",
                "CPU s, all of it": f"{float(found['cpu_s']):.0f}",
            }
        )
    return pd.DataFrame(rows)


def sets_table(runs: list[dict[str, np.ndarray]]) -> pd.DataFrame:
    """Return how many sets were found, how many are beyond the null and how many K562 has anything to say of."""
    rows = []
    for seed, found in enumerate(runs):
        done = ~np.isnan(found["effect"])
        for name in JUDGED:
            kept = done & (found["learned"].astype(bool) if name != JUDGED[0] else True)
            kept &= found["q_value"] < Q if name == JUDGED[2] else True
            links = found.get(f"{name}|links|n_selected")
            rows.append(
                {
                    "seed": seed,
                    "genes": name,
                    "sets": int(found[f"{name}|n_sets"][0]),
                    "beyond the null's 95 %": int((kept & (found["effect"] > found["set_null_q95"])).sum()),
                    f"q < {Q:g}": int((kept & (found["q_value"] < Q)).sum()),
                    "median fall": f"{np.median(found['effect'][kept]):.3f}" if kept.any() else "",
                    "sets with a tested element": int(found[f"{name}|n_tested"][0]),
                    "peaks judged": 0 if links is None else int(links[-1]),
                }
            )
    return pd.DataFrame(rows)


def links_table(runs: list[dict[str, np.ndarray]]) -> pd.DataFrame:
    """Return confirmed peaks within bins of distance, with chance and an interval."""
    rows = []
    for seed, found in enumerate(runs):
        for name in JUDGED:
            if f"{name}|links|bin" not in found:
                rows.append({"seed": seed, "genes": name, "distance": "none of the genes has a linked element"})
                continue
            part = {column: found[f"{name}|links|{column}"] for column in LINKS}
            for i, at in enumerate(part["bin"]):
                count, mean = int(part["n_confirmed"][i]), part["expected"][i]
                low, high = poisson_interval(count)
                rows.append(
                    {
                        "seed": seed,
                        "genes": name,
                        "distance": at,
                        "candidates judged": int(part["n_candidates"][i]),
                        "linked": int(part["n_linked"][i]),
                        "selected": int(part["n_selected"][i]),
                        "confirmed": count,
                        "expected": f"{mean:.2f}",
                        "enrichment": f"{count / mean:.2f} ({low / mean:.2f} to {high / mean:.2f})" if mean else "",
                        "p": f"{part['p_value'][i]:.2f}",
                        "nearest": int(part["nearest"][i]),
                    }
                )
    return pd.DataFrame(rows).fillna("")


def links_rows(runs: list[dict[str, np.ndarray]]) -> pd.DataFrame:
    """Return the same as numbers, long."""
    return pd.DataFrame(
        {"seed": seed, "judged": name, "measure": column, "at": at, "value": value}
        for seed, found in enumerate(runs)
        for name in JUDGED
        if f"{name}|links|bin" in found
        for column in LINKS[1:]
        for at, value in zip(found[f"{name}|links|bin"], found[f"{name}|links|{column}"], strict=True)
    )


def poisson_interval(count: int) -> tuple[float, float]:
    """Return the exact 95 % interval of the mean of a Poisson count."""
    from scipy.stats import chi2

    return (chi2.ppf(0.025, 2 * count) / 2 if count else 0.0), chi2.ppf(0.975, 2 * count + 2) / 2


if __name__ == "__main__":
    main()
