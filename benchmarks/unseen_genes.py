"""Every method on seen and on unseen genes of BEELINE's cells, beside the baselines that it must beat.

Needs the data described in `sctrellis.datasets.beeline`, gene texts in ``gene_text`` and, for mESC, BioBERT vectors in
``embeddings/scGREAT_biobert_mESC``, in the folder of the environment variable SCTRELLIS_DATA. Finished fits are kept in
``.cache/unseen_genes``: a stopped run goes on where it was.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _common import CACHE, parser, write
from anndata import AnnData
from scipy import stats

import sctrellis as tr

CELLS = ("mESC", "mDC", "mHSC-L")
NETWORKS = ("Specific", "Non-Specific", "STRING", "Lofgof")
METRICS = ("auroc", "auprc", "auprc_ratio", "hit_rate")
FREE = ("random", "prefix", "pearson", "pearson_pc1", "partial", "ridge", "degree", "one_hot")
LEARNT = ("matcomp", "genelink")
SEM = ("deepsem", "infosem", "infosem_c")
EMBEDDED = ("cosine", "embedding_lr", "scgreat", "infosem_b", "infosem_bc")
QUICK = ("random", "prefix", "pearson", "ridge", "degree", "one_hot")
READING = (
    "AUPRC on the test pairs, mean ± standard deviation over splits (their number); base is the share of known "
    "edges, the value of random scores. edge: held-out pairs of known genes; SS, SU, US, UU: which of regulator "
    "and target were seen (S) or not (U) in training. In brackets after a method, its embedding; 'shuffled' and "
    "'random' are controls that know nothing of the genes. The last column is the difference to the best "
    "baseline, paired by split, with Student's 95 % interval: splits share genes, so it is somewhat too narrow."
)
GROUP = ["cell", "network", "scheme", "pair_class"]


def biobert(adata: AnnData, folder: Path) -> bool:
    """Store the BioBERT vectors of the symbols as ``.varm["biobert"]``; return whether they are there."""
    file = folder / "embeddings" / "scGREAT_biobert_mESC" / "biovect768.npy"
    if not file.is_file():
        return False
    vectors = np.load(file, allow_pickle=False)[1:]  # row 0 is the header of the table that was embedded
    genes = pd.read_csv(file.with_name("Target.csv"), dtype=str, keep_default_na=False)["Gene"].tolist()
    tr.pp.gene_embedding(adata, vectors, genes=genes, match_case=False, key_added="biobert")
    return True


def methods_of(embeddings: list[str], *, quick: bool) -> dict[str, Any]:
    """Return name -> (method, arguments): methods with an embedding once for each of them."""
    chosen: dict[str, Any] = {name: (name, {}) for name in (QUICK if quick else (*FREE, *LEARNT, *SEM))}
    for key in embeddings:
        names = EMBEDDED[:2] if quick else EMBEDDED
        chosen |= {f"{name} [{key}]": (name, {"embedding": key}) for name in names}
    return chosen


def judged(cell: str, network: str, options: Any, folder: Path) -> pd.DataFrame:
    """Return the table of one cell type and network."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata = tr.datasets.beeline(cell, network, "TFs+500", path=folder)
        terms = folder / "gene_text" / "gene2go_mouse_ncbi.tsv.gz"
        tr.pp.text_embedding(adata, terms, gene="symbol", text="go_term", match_case=False, key_added="go")
        embeddings = ["go", "biobert"] if cell == "mESC" and biobert(adata, folder) else ["go"]
        table = tr.tl.benchmark(
            adata,
            methods_of(embeddings, quick=options.quick),
            scheme=["edge", "infosem"],
            seeds=options.seeds,
            metrics=METRICS,
            embedding_ablation=not options.quick,
            folder=CACHE / "unseen_genes" / f"{cell}-{network}",
            n_jobs=options.jobs,
        )
    for row in table[table["error"] != ""].drop_duplicates("error").itertuples():
        print(f"  {cell} {network}: {row.method}, {row.scheme} {row.pair_class}, seed {row.seed}: {row.error}")
    return table.assign(cell=cell, network=network)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return mean and spread over the seeds, and the paired difference to the best baseline of the same pairs."""
    table = table[(table["level"] == "micro") & table["metric"].isin(METRICS)].copy()
    table["name"] = [
        m if e in ("none", "real") else f"{m}, {e}" for m, e in zip(table["method"], table["embedding"], strict=True)
    ]
    lines = []
    for (*place, metric), rows in table.groupby([*GROUP, "metric"], sort=False):
        values = rows.pivot_table(index="seed", columns="name", values="value", sort=False)
        kinds = rows.groupby("name")["kind"].first()
        rivals = [name for name in values if kinds[name] == "baseline"]
        best = values[rivals].mean().idxmax()
        for name in values:
            found, own = values[name].dropna(), rows[rows["name"] == name]
            gain = (values[name] - values[best]).dropna()
            half = stats.t.ppf(0.975, len(gain) - 1) * stats.sem(gain) if len(gain) > 1 else np.nan
            lines.append(
                dict(zip(GROUP, place, strict=True))
                | {"metric": metric, "method": name, "kind": kinds[name], "mean": found.mean()}
                | {"sd": found.std(ddof=1), "n_seeds": len(found), "base": own["base"].mean()}
                | {"n_pairs": own["n_pairs"].mean(), "best_baseline": best, "over_best": gain.mean()}
                | {"over_best_low": gain.mean() - half, "over_best_high": gain.mean() + half}
                | {"seconds": own["seconds"].mean(), "peak_memory_mb": own["peak_memory_mb"].mean()}
            )
    return pd.DataFrame(lines)


def sections(found: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Return one table to read for each cell type and network: AUPRC on seen and on unseen genes, side by side."""
    shown = []
    rows = found[found["metric"] == "auprc"]
    for (cell, network), part in rows.groupby(["cell", "network"], sort=False):
        columns = {}
        for (scheme, pair_class), own in part.groupby(["scheme", "pair_class"], sort=False):
            panel = scheme if pair_class == "all" else pair_class
            text = [
                f"{r.mean:.3f} ± {r.sd:.3f} ({r.n_seeds})" if r.n_seeds > 1 else f"{r.mean:.3f} ({r.n_seeds})"
                for r in own.itertuples(index=False)
            ]
            columns[f"{panel} (base {own['base'].mean():.3f})"] = pd.Series(text, index=own["method"])
            if pair_class == "UU":
                columns[f"UU over best baseline ({own['best_baseline'].iloc[0]})"] = pd.Series(
                    [
                        ""
                        if r.method == r.best_baseline
                        else f"{r.over_best:+.3f} [{r.over_best_low:+.3f}, {r.over_best_high:+.3f}]"
                        for r in own.itertuples(index=False)
                    ],
                    index=own["method"],
                )
        frame = pd.DataFrame(columns).fillna("")
        shown.append((f"{cell}, {network} (AUPRC)", frame.rename_axis("method").reset_index()))
    return shown


def main() -> None:
    made = parser(__doc__.splitlines()[0])
    made.add_argument("--cells", nargs="+", default=list(CELLS), choices=CELLS, help="cell types")
    made.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS, help="known networks")
    made.add_argument("--seeds", type=int, default=5, help="number of splits")
    made.add_argument("--jobs", type=int, default=1, help="fits at once")
    made.add_argument("--quick", action="store_true", help="the fast baselines only")
    options = made.parse_args()
    folder = Path(tr.settings.dataset_dir)
    if options.fresh:
        shutil.rmtree(CACHE / "unseen_genes", ignore_errors=True)
    tables = []
    for cell in options.cells:
        there = folder / "beeline" / "networks"
        for network in options.networks:
            if not (there / network / cell).is_dir():
                print(f"{cell}: no {network}")
                continue
            print(f"{cell}, {network}", flush=True)
            tables.append(judged(cell, network, options, folder))
            found = summary(pd.concat(tables, ignore_index=True))
            # After every network, so that what is done can be read.
            write(
                options.results,
                "unseen_genes" + ("_quick" if options.quick else ""),
                title="Seen and unseen genes: TFs+500 of BEELINE",
                reading=READING,
                seeds=f"0 to {options.seeds - 1}, each for the split and the fit",
                data=found,
                sections=sections(found),
            )


if __name__ == "__main__":
    main()
