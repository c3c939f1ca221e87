"""Every method on seen and on unseen genes of BEELINE's cells, beside the baselines that it must beat.

Four parts: every method on a few splits; InfoSEM with and without priors on many splits of the genes, paired, with
intervals that resample regulators and targets; the supervised networks on a published split of seen genes; and how much
of a supervised score on seen genes rests on pairs whose reverse was in training.

Needs the data described in `sctrellis.datasets.beeline`, gene texts in ``gene_text`` and, for mESC, BioBERT vectors in
``embeddings/scGREAT_biobert_mESC``, in the folder of the environment variable SCTRELLIS_DATA. Finished fits are kept in
``.cache``: a stopped run goes on where it was. A fit that reads no known edge serves all networks of a cell type, and
five of them all splits: split s is judged with the fit of seed s mod 5 (DeepSEM: of seed 0).
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import hashlib
import shutil
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _common import CACHE, cached, parser, spread, write
from anndata import AnnData
from scipy import sparse, stats

import sctrellis as tr
from sctrellis._core import slots
from sctrellis.metrics import average_precision
from sctrellis.metrics._ranking import Conventions, Ranking, measure
from sctrellis.tl import _benchmark_runs as runs

CELLS = ("mESC", "mDC", "mHSC-L")
NETWORKS = ("Specific", "Non-Specific", "STRING", "Lofgof")
PARTS = ("published", "paired", "reverses", "table")
METRICS = ("auroc", "auprc", "auprc_ratio", "hit_rate")
FREE = ("random", "prefix", "pearson", "pearson_pc1", "partial", "ridge", "degree", "one_hot")
LEARNT = ("matcomp", "genelink")
SEM = ("deepsem", "infosem", "infosem_c")
EMBEDDED = ("cosine", "embedding_lr", "scgreat", "infosem_b", "infosem_bc")
QUICK = ("random", "prefix", "pearson", "ridge", "degree", "one_hot")
SOURCES = [
    f"models/_{name}.py"
    for name in ("deepsem", "infosem", "ensemble", "prior", "ridge", "sem", "shrink", "strength", "train")
]
READING = (
    "AUPRC on the test pairs, mean ± standard deviation over splits (their number); base is the share of known "
    "edges, the value of random scores. edge: held-out pairs of known genes; SS, SU, US, UU: which of regulator "
    "and target were seen (S) or not (U) in training. In brackets after a method, its embedding; 'shuffled' and "
    "'random' are controls that know nothing of the genes. The last column is the difference to the best "
    "baseline, paired by split, with Student's 95 % interval: splits share genes, so it is somewhat too narrow."
)
GROUP = ["cell", "network", "scheme", "pair_class"]
N_BOOT = 200
N_FITS = 5
TEST_UU = 12
"""Fold 3 (test) times class 4 (both genes unseen)."""
REUSE = "--reuse" in sys.argv
COSTLY = ("scgreat", "infosem_bc")


def biobert(adata: AnnData, folder: Path) -> bool:
    """Store the BioBERT vectors of the symbols as ``.varm["biobert"]``; return whether they are there."""
    file = folder / "embeddings" / "scGREAT_biobert_mESC" / "biovect768.npy"
    if not file.is_file():
        return False
    vectors = np.load(file, allow_pickle=False)[1:]  # row 0 is the header of the table that was embedded
    genes = pd.read_csv(file.with_name("Target.csv"), dtype=str, keep_default_na=False)["Gene"].tolist()
    tr.pp.gene_embedding(adata, vectors, genes=genes, match_case=False, key_added="biobert")
    return True


def fitted(adata: AnnData, model: str, options: Mapping[str, Any], *, seed: int, inputs: list[Any]) -> Any:
    """Return the scores of a fit, from the cache where one with these inputs was made."""
    regulators = adata.var["is_regulator"].to_numpy()
    mark = hashlib.sha256(np.asarray(adata.X).tobytes())
    for part in (regulators, *inputs):
        mark.update(np.ascontiguousarray(part).tobytes())

    def compute() -> dict[str, np.ndarray]:
        getattr(tr.tl, model)(adata, **options, seed=seed, n_jobs=1, progress=False, key_added="fitted")
        found = adata.varp["fitted"]
        return {"data": found.data, "indices": found.indices, "indptr": found.indptr}

    stored = cached({"fit": model, "inputs": mark.hexdigest()[:16], "seed": seed}, SOURCES, compute, reuse=REUSE)
    return sparse.csr_matrix((stored["data"], stored["indices"], stored["indptr"]), shape=(adata.n_vars,) * 2)


def without_labels(
    adata: AnnData,
    *,
    model: str,
    embedding: str | None = None,
    n_fits: int = N_FITS,
    seed: int = 0,
    key_added: str = "fitted",
) -> None:
    """Fit a structural equation model that reads no known edge, with as many seeds at most."""
    seed %= n_fits
    options = {} if embedding is None else {"embedding": embedding}
    inputs = [] if embedding is None else [np.asarray(adata.varm[embedding])]
    adata.varp[key_added] = fitted(adata, model, options, seed=seed, inputs=inputs)


def with_labels(
    adata: AnnData, *, network: str, embedding: str | None = None, seed: int = 0, key_added: str = "fitted"
) -> None:
    """Fit InfoSEM with the known edges of the train fold."""
    options = {"known": network} | ({} if embedding is None else {"embedding": embedding})
    train = (adata.varp[f"{network}_fold"] == 1).multiply(adata.varp[network]).toarray()
    inputs = [train] if embedding is None else [train, np.asarray(adata.varm[embedding])]
    adata.varp[key_added] = fitted(adata, "infosem", options, seed=seed, inputs=inputs)


CALLED: dict[str, tuple[Any, dict[str, Any]]] = {
    "deepsem": (without_labels, {"model": "deepsem", "n_fits": 1}),
    "infosem": (without_labels, {"model": "infosem"}),
    "infosem_b": (without_labels, {"model": "infosem"}),
    "infosem_c": (with_labels, {}),
    "infosem_bc": (with_labels, {}),
}


def methods_of(embeddings: list[str], *, quick: bool) -> dict[str, Any]:
    """Return name -> (method, arguments): methods with an embedding once for each of them."""
    chosen: dict[str, Any] = {
        name: CALLED.get(name, (name, {})) for name in (QUICK if quick else (*FREE, *LEARNT, *SEM))
    }
    for key in embeddings:
        for name in EMBEDDED[:2] if quick else EMBEDDED:
            called, given = CALLED.get(name, (name, {}))
            chosen[f"{name} [{key}]"] = (called, {**given, "embedding": key})
    return chosen


def prepared(cell: str, network: str, folder: Path) -> tuple[AnnData, list[str]]:
    """Return the cells with their known network, and the keys of the embeddings that they have."""
    adata = tr.datasets.beeline(cell, network, "TFs+500", path=folder)
    # The same candidates for every network of a cell type, so that a fit without labels serves them all.
    for other in NETWORKS:
        if other != network and (folder / "beeline" / "networks" / other / cell).is_dir():
            adata.var["is_regulator"] |= tr.datasets.beeline(cell, other, "TFs+500", path=folder).var["is_regulator"]
    terms = folder / "gene_text" / "gene2go_mouse_ncbi.tsv.gz"
    tr.pp.text_embedding(adata, terms, gene="symbol", text="go_term", match_case=False, key_added="go")
    return adata, ["go", "biobert"] if cell == "mESC" and biobert(adata, folder) else ["go"]


def judged(cell: str, network: str, options: Any, folder: Path) -> pd.DataFrame:
    """Return the table of one cell type and network."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata, embeddings = prepared(cell, network, folder)
        methods = methods_of(embeddings, quick=options.quick)
        plain = [name for name in methods if options.controls == "cheap" and name.startswith(COSTLY)]
        tables = [
            tr.tl.benchmark(
                adata,
                {name: methods[name] for name in chosen},
                scheme=["edge", "infosem"],
                seeds=options.seeds,
                metrics=METRICS,
                embedding_ablation=ablation,
                folder=CACHE / "unseen_genes" / f"{cell}-{network}",
                n_jobs=options.jobs,
            )
            for chosen, ablation in (([m for m in methods if m not in plain], not options.quick), (plain, False))
            if chosen
        ]
        table = pd.concat(tables, ignore_index=True)
    for row in table[table["error"] != ""].drop_duplicates("error").itertuples():
        print(f"  {cell} {network}: {row.method}, {row.scheme} {row.pair_class}, seed {row.seed}: {row.error}")
    return table.assign(cell=cell, network=network)


def unseen_scores(adata: AnnData, embeddings: list[str], seed: int) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Return the test pairs of two unseen genes of one split, and the scores that each method gives them."""
    tr.pp.split_edges(adata, "network", scheme="infosem", universe="beeline_tf", seed=seed)
    part = adata.varp["network_fold"].multiply(adata.varp["network_class"]).tocoo()
    row, column = part.row[part.data == TEST_UU], part.col[part.data == TEST_UU]
    label = np.asarray(adata.varp["network"][row, column]).ravel() > 0
    found: dict[str, np.ndarray] = {"base": np.zeros(len(row))}

    def add(name: str, key: str) -> None:
        values = slots.values_at(slots.read_scores(adata, key), row, column)  # as tl.evaluate reads them
        found[name] = np.where(np.isnan(values), -np.inf, values)

    for name in ("pearson", "pearson_pc1", "partial", "ridge"):
        tr.tl.baseline(adata, name, seed=seed, key_added="scores")
        add(name, "scores")
    tr.tl.edge_classifier(adata, "one_hot", seed=seed, key_added="scores")
    add("one_hot", "scores")
    runs.prefix(adata, key_added="scores")
    add("prefix", "scores")
    without_labels(adata, model="infosem", seed=seed, key_added="scores")
    add("infosem", "scores")
    for embedding in embeddings:
        real = adata.varm[embedding]
        runs.cosine(adata, embedding=embedding, key_added="scores")
        add(f"cosine [{embedding}]", "scores")
        tr.tl.edge_classifier(adata, "embedding", embedding=embedding, seed=seed, key_added="scores")
        add(f"embedding_lr [{embedding}]", "scores")
        without_labels(adata, model="infosem", embedding=embedding, seed=seed, key_added="scores")
        add(f"infosem_b [{embedding}]", "scores")
        if embedding == embeddings[0]:  # the fit that has to be made for every split
            with_labels(adata, network="network", embedding=embedding, seed=seed, key_added="scores")
            add(f"infosem_bc [{embedding}]", "scores")
        adata.varm[embedding] = runs.control(real, runs.SHUFFLED, seed % N_FITS)
        without_labels(adata, model="infosem", embedding=embedding, seed=seed, key_added="scores")
        add(f"infosem_b [{embedding}], shuffled", "scores")
        adata.varm[embedding] = real
    return pd.DataFrame({"row": row, "column": column, "label": label}), found


def paired(cell: str, network: str, options: Any, folder: Path) -> pd.DataFrame:
    """Return AUPRC on unseen genes per split (replicate -1) and per replicate, the same genes drawn in every split."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata, embeddings = prepared(cell, network, folder)
        rng = np.random.default_rng(0)
        n = adata.n_vars
        draws = rng.multinomial(n, np.full(n, 1 / n), size=(N_BOOT, 2))
        rows: list[pd.DataFrame] = []
        for seed in range(options.paired_splits):
            pairs, scores = unseen_scores(adata, embeddings, seed)
            if not pairs["label"].any():
                print(f"  {cell} {network}: split {seed} has no known edge between unseen genes")
                continue
            values = {name: replicated(vector, pairs, draws) for name, vector in scores.items()}
            rows.append(pd.DataFrame(values).rename_axis("replicate").reset_index().assign(seed=seed))
    table = pd.concat(rows, ignore_index=True)
    table["replicate"] -= 1
    return table.assign(cell=cell, network=network)


def replicated(scores: np.ndarray, pairs: pd.DataFrame, draws: np.ndarray) -> np.ndarray:
    """Return AUPRC as it is, then with regulators and targets drawn anew; NaN where no known edge was drawn."""
    ranking = Ranking(np.asarray(scores, dtype=float), pairs["label"].to_numpy(), merge=True)
    row, column = (pairs[name].to_numpy()[ranking.order] for name in ("row", "column"))
    conventions = Conventions(interp="step", ties="expected", fraction=0.01)
    curves = [ranking.curve(), *(ranking.curve(u[row] * v[column]) for u, v in draws)]
    return np.array([measure("auprc", curve, conventions) for curve in curves])


def differences(table: pd.DataFrame) -> pd.DataFrame:
    """Return paired differences between methods, averaged over splits, with intervals over genes and over splits."""
    lines = []
    for (cell, network), part in table.groupby(["cell", "network"], sort=False):
        part = part.dropna(axis=1, how="all")
        own = part[part["replicate"] < 0].set_index("seed")
        means = part[part["replicate"] >= 0].groupby("replicate").mean(numeric_only=True)
        names = [c for c in own.columns if c not in ("replicate", "cell", "network")]
        plain = [m for m in names if not m.startswith("infosem") and m != "base"]
        for name in (m for m in names if m.startswith(("infosem_b ", "infosem_bc "))):
            embedding = name[name.index("[") : name.index("]") + 1]
            best = own[plain].mean().idxmax()
            rivals = [("infosem", "uninformed"), (f"cosine {embedding}", "cosine"), ("one_hot", "one-hot")]
            rivals += [("base", "base"), (best, f"best baseline ({best})")]
            if name.startswith("infosem_bc"):
                rivals.append((f"infosem_b {embedding}", "infosem_b"))
            for rival, shown in rivals:
                gain, drawn = own[name] - own[rival], (means[name] - means[rival]).dropna()
                low, high = np.percentile(drawn, [2.5, 97.5])
                lines.append(
                    {"cell": cell, "network": network, "method": name, "against": shown, "n_splits": len(gain)}
                    | {"mean": own[name].mean(), "rival": own[rival].mean(), "difference": gain.mean()}
                    | {"sd_over_splits": gain.std(ddof=1), "wins": int((gain > 0).sum()), "low": low, "high": high}
                )
    return pd.DataFrame(lines)


def paired_sections(found: pd.DataFrame) -> list[tuple[str, pd.DataFrame | str]]:
    """Return the table of paired differences with what may be claimed, and the pooled difference of BC to B."""
    shown = []
    for (cell, network, method), part in found.groupby(["cell", "network", "method"], sort=False):
        line = {"cells": cell, "network": network, "method": method, "AUPRC": f"{part['mean'].iloc[0]:.3f}"}
        for r in part.itertuples():
            name = "best baseline" if r.against.startswith("best") else r.against
            line[f"over {name}"] = f"{r.difference:+.3f} [{r.low:+.3f}, {r.high:+.3f}] {r.wins}/{r.n_splits}"
        best = part[part["against"].str.startswith("best")]
        if len(best):
            rival = best["against"].iloc[0].removeprefix("best baseline ")
            line["claim"] = "improves on" if best["low"].iloc[0] > 0 else "not better than"
            line["claim"] += f" the best baseline {rival}"
        shown.append(line)
    pooled = found[found["against"] == "infosem_b"]
    weights = pooled["n_splits"]
    mean = np.average(pooled["difference"], weights=weights)
    text = (
        f"InfoSEM with both priors less InfoSEM with the embedding alone, pooled over {int(weights.sum())} splits of "
        f"{len(pooled)} networks and embeddings: {mean:+.4f}."
    )
    return [("Unseen regulators with unseen targets, paired", pd.DataFrame(shown).fillna("")), ("Pooled", text)]


def leakage(cells: list[str], networks: list[str], folder: Path) -> pd.DataFrame:
    """Return how far names alone go on all pairs: AUPRC over the density of cosine and of a common prefix."""
    lines = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for cell in cells:
            for network in networks:
                if not (folder / "beeline" / "networks" / network / cell).is_dir():
                    continue
                adata, embeddings = prepared(cell, network, folder)
                known = adata.varp["network"].tocoo()
                kept = known.row != known.col
                rows, columns = np.unique(known.row[kept]), np.union1d(known.row[kept], known.col[kept])
                row, column = np.repeat(rows, len(columns)), np.tile(columns, len(rows))
                row, column = row[row != column], column[row != column]
                label = np.asarray(adata.varp["network"][row, column]).ravel() > 0
                line = {"cells": cell, "network": network, "density": label.mean()}
                for embedding in embeddings:
                    runs.cosine(adata, embedding=embedding, key_added="scores")
                    value = average_precision(np.asarray(adata.varp["scores"][row, column]).ravel(), label)
                    line[f"cosine [{embedding}] / density"] = value / label.mean()
                runs.prefix(adata, key_added="scores")
                value = average_precision(np.asarray(adata.varp["scores"][row, column]).ravel(), label)
                line["prefix / density"] = value / label.mean()
                lines.append(line)
    return pd.DataFrame(lines)


def published(folder: Path, seeds: int) -> pd.DataFrame:
    """Return AUPRC of supervised methods on scGREAT's split of mESC (Specific), and of one-hot on the same pairs."""
    place = folder / "embeddings" / "scGREAT_biobert_mESC"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata, _ = prepared("mESC", "Specific", folder)
    genes = pd.read_csv(place / "Target.csv", dtype=str, keep_default_na=False)["Gene"].str.upper()
    position = adata.var_names.str.upper().get_indexer(genes)
    parts = [pd.read_csv(place / f"{name}_set.csv.gz") for name in ("Train", "Validation", "Test")]
    row, column = (position[np.concatenate([p[name] for p in parts])] for name in ("TF", "Target"))
    label = np.concatenate([np.where(p["Label"] == 1, 1, -1) for p in parts])
    fold = np.repeat([1, 2, 3], [len(p) for p in parts])
    shape = (adata.n_vars,) * 2
    adata.varp["published"] = sparse.csr_matrix((label.astype(np.float32), (row, column)), shape=shape)
    adata.varp["published_fold"] = sparse.csr_matrix((fold.astype(np.int8), (row, column)), shape=shape)
    long = {"max_epochs": 60, "patience": 10}
    methods: dict[str, dict[str, Any]] = {"one_hot": {}, "degree": {}, "matcomp": {}}
    methods |= {"embedding": {"embedding": "biobert"}, "genelink": long, "scgreat": {"embedding": "biobert", **long}}
    test = fold == 3
    lines = []
    for method, given in methods.items():
        for seed in range(seeds if method in ("matcomp", "genelink", "scgreat") else 1):

            def compute(method: str = method, given: dict[str, Any] = given, seed: int = seed) -> dict[str, np.ndarray]:
                tr.tl.edge_classifier(
                    adata, method, network="published", seed=seed, progress=False, key_added="scores", **given
                )
                facts = adata.uns["scores"]["fit"]
                scores = np.asarray(adata.varp["scores"][row[test], column[test]]).ravel()
                return {"scores": scores, "best_epoch": np.array(facts.get("best_epoch", -1))}

            key = {"published": method, "seed": seed, "epochs": given.get("max_epochs", 0)}
            stored = cached(key, ["models/_genelink.py", "models/_scgreat.py", "models/_edge_classifiers.py"], compute)
            value = average_precision(stored["scores"], label[test] > 0)
            lines.append(
                {"method": method, "seed": seed, "auprc": value, "base": (label[test] > 0).mean()}
                | {"best_epoch": int(stored["best_epoch"]), "cpu_s": float(stored["cpu_s"])}
            )
    return pd.DataFrame(lines)


def reverses(cell: str, network: str, options: Any, folder: Path) -> pd.DataFrame:
    """Return AUPRC on test pairs of seen genes whose reverse was in training, and on those whose reverse was not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata, embeddings = prepared(cell, network, folder)
    embedding = embeddings[0]
    real = adata.varm[embedding]
    methods: dict[str, dict[str, Any]] = {"one_hot": {}, "matcomp": {}, "embedding": {"embedding": embedding}}
    methods |= {"scgreat": {"embedding": embedding}, "scgreat, shuffled": {"embedding": embedding}}
    lines = []
    for seed in range(options.seeds):
        tr.pp.split_edges(adata, scheme="edge", universe="beeline_tf", seed=seed)
        fold = adata.varp["network_fold"]
        row, column = (fold == 3).nonzero()
        label = np.asarray(adata.varp["network"][row, column]).ravel() > 0
        twin = np.asarray((fold == 1)[column, row]).ravel()
        parts = {"all": np.ones_like(twin), "reverse in training": twin, "reverse not in training": ~twin}
        for method, given in methods.items():
            adata.varm[embedding] = runs.control(real, runs.SHUFFLED, seed) if method.endswith("shuffled") else real

            def compute(method: str = method, given: dict[str, Any] = given, seed: int = seed) -> dict[str, np.ndarray]:
                name = method.split(",")[0]
                tr.tl.edge_classifier(adata, name, seed=seed, progress=False, key_added="scores", **given)
                return {"scores": np.asarray(adata.varp["scores"][row, column]).ravel()}  # noqa: B023

            key = {"reverses": method, "place": f"{cell}-{network}", "seed": seed}
            stored = cached(key, ["models/_scgreat.py", "models/_edge_classifiers.py"], compute, reuse=REUSE)
            lines += [
                {"cell": cell, "network": network, "method": method, "seed": seed, "pairs": name}
                | {"auprc": average_precision(stored["scores"][part], label[part]), "base": label[part].mean()}
                | {"n_pairs": int(part.sum()), "n_edges": int(label[part].sum())}
                for name, part in parts.items()
                if 0 < label[part].sum() < part.sum()
            ]
    return pd.DataFrame(lines)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return mean and spread over the seeds, and the paired difference to the best baseline of the same pairs."""
    # The ratio is AUPRC over the base, which is in the table.
    wanted = [metric for metric in METRICS if metric != "auprc_ratio"]
    table = table[(table["level"] == "micro") & table["metric"].isin(wanted)].copy()
    # A fit that several networks share cost what it cost where it was made.
    place = [table[name] for name in ("cell", "method", "embedding", "seed")]
    free = table["method"].str.startswith(("deepsem", "infosem")) & ~table["method"].str.contains("c")
    table["seconds"] = table["seconds"].where(~free, table.groupby(place)["seconds"].transform("max"))
    table["name"] = [
        m if e in ("none", "real") else f"{m}, {e}" for m, e in zip(table["method"], table["embedding"], strict=True)
    ]
    lines = []
    for (*place, metric), rows in table.groupby([*GROUP, "metric"], sort=False):
        values = rows.pivot_table(index="seed", columns="name", values="value", sort=False)
        kinds = rows.groupby("name")["kind"].first()
        # A control of an embedding is no method that anyone would use.
        rivals = [
            name for name in values if kinds[name] == "baseline" and not name.endswith((", shuffled", ", random"))
        ]
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
    made.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS, help="tables to make")
    made.add_argument("--seeds", type=int, default=5, help="splits on which every method is run")
    made.add_argument("--paired-splits", type=int, default=20, help="splits on which InfoSEM is compared")
    made.add_argument("--jobs", type=int, default=1, help="fits at once")
    made.add_argument(
        "--controls",
        default="all",
        choices=("all", "cheap"),
        help="embedding controls: of all methods, or not of scGREAT and InfoSEM-BC",
    )
    made.add_argument("--quick", action="store_true", help="the fast baselines only")
    options = made.parse_args()
    folder = Path(tr.settings.dataset_dir)
    if options.fresh:
        shutil.rmtree(CACHE / "unseen_genes", ignore_errors=True)
    there = folder / "beeline" / "networks"
    chosen = [(c, n) for c in options.cells for n in options.networks if (there / n / c).is_dir()]
    if "published" in options.parts:
        found = published(folder, 3)
        rows = [
            {"method": method, "AUPRC": spread(part["auprc"], 3), "seeds": len(part), "base": part["base"].iloc[0]}
            | {"best epoch": "" if part["best_epoch"].iloc[0] < 0 else ", ".join(map(str, part["best_epoch"]))}
            | {"CPU s": part["cpu_s"].mean()}
            for method, part in found.groupby("method", sort=False)
        ]
        write(
            options.results,
            "unseen_genes_published",
            title="scGREAT's published split of mESC, TFs+500, cell-type ChIP: seen genes",
            reading="AUPRC on the 22,737 test pairs, mean ± standard deviation over seeds. All regulators and targets "
            "of the test are in training: one_hot and degree know only who the genes are. The networks stop at their "
            "smallest loss on the validation pairs.",
            seeds="0 to 2 for what is drawn at random",
            data=found,
            sections=[("mESC, Specific", pd.DataFrame(rows))],
        )
    if "paired" in options.parts:
        names = leakage(options.cells, options.networks, folder)
        tables = []
        for cell, network in chosen:
            print(f"{cell}, {network}: paired", flush=True)
            tables.append(paired(cell, network, options, folder))
            found = differences(pd.concat(tables, ignore_index=True))
            write(
                options.results,
                "unseen_genes_paired",
                title="InfoSEM on unseen genes: what priors add, paired over splits",
                reading="AUPRC on test pairs of which neither gene was seen in training, mean over splits, and paired "
                "differences [95 % interval] with the number of splits won. Intervals draw regulators and targets "
                f"anew ({N_BOOT} times, the same genes in every split), so they hold for other genes of these cells. "
                "'improves' is said only where the interval over the best baseline of the table excludes 0; that "
                "baseline is chosen after the fact, which favours it.",
                seeds=f"0 to {options.paired_splits - 1}, each for the split, the fit and the shuffle",
                data=found,
                sections=[*paired_sections(found), ("What names know, all pairs", names)],
            )
    if "reverses" in options.parts:
        found = pd.concat([reverses(cell, network, options, folder) for cell, network in chosen], ignore_index=True)
        grouped = found.groupby(["cell", "network", "method", "pairs"], sort=False)["auprc"]
        shown = grouped.agg(lambda values: spread(values, 3)).unstack(sort=False)
        base = found.groupby(["cell", "network", "pairs"], sort=False)[["base", "n_pairs", "n_edges"]].mean()
        write(
            options.results,
            "unseen_genes_reverses",
            title="Seen genes: pairs whose reverse was in training, and pairs whose reverse was not",
            reading="AUPRC on test pairs of scheme 'edge', mean ± standard deviation over splits. A pair (k, i) of two "
            "regulators tells of (i, k) where a network lists both directions, as those of associations do. The base "
            "differs between the columns.",
            seeds=f"0 to {options.seeds - 1}, each for the split, the fit and the shuffle",
            data=found,
            sections=[("AUPRC", shown.reset_index().fillna("")), ("Pairs", base.reset_index())],
        )
    if "table" in options.parts:
        tables = []
        for cell, network in chosen:
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
