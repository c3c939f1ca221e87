"""The demonstration behind ``sctrellis demo``: real blood cells, then simulated cells whose network is known."""

import shlex
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anndata import AnnData

_DPI = 150
_METRICS: Any = ("auprc", "auprc_ratio", "early_precision_ratio", "auroc")
_BASELINES: Any = ("random", "degree", "pearson", "partial", "ridge")
_PARTS: dict[Any, str] = {"all": "all held-out pairs", "SS": "both genes seen", "UU": "both genes new"}


@dataclass(frozen=True, kw_only=True)
class _Size:
    """How much of everything; the defaults are the demonstration."""

    n_targets: int | None = None
    n_runs: int = 3
    max_epochs: int = 20
    deepsem_epochs: int = 90
    cells: tuple[int, int, int] = (400, 200, 30)
    n_boot: int = 500


_QUICK = _Size(n_targets=80, n_runs=2, max_epochs=3, deepsem_epochs=3, cells=(200, 80, 15), n_boot=50)


@dataclass(frozen=True)
class _Run:
    """Where files go, how much is done, and whom to tell."""

    out: Path
    size: _Size
    seed: int
    command: str
    say: Callable[[str], None]

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Say how long something took."""
        start = perf_counter()
        yield
        self.say(f"  {text:<58}{perf_counter() - start:6.1f} s")

    def save(self, figure: Any, name: str) -> None:
        """Write a figure and forget it."""
        from matplotlib import pyplot as plt

        figure.savefig(self.out / name, dpi=_DPI, bbox_inches="tight", pad_inches=0.15)
        plt.close(figure)


def demo(out: Path, *, seed: int = 0, quick: bool = False, say: Callable[[str], None]) -> None:
    """Infer networks from real and from simulated cells, judge the latter, and leave files behind.

    Parameters
    ----------
    out
        Folder for the files; made where it is missing.
    seed
        Seed of the simulation, the split and every fit.
    quick
        Fewer genes, cells and epochs: shows that everything works, and its numbers mean nothing.
    say
        Receives the text for the user.
    """
    start = perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    command = shlex.join(["sctrellis", "demo", "--seed", str(seed), *(["--quick"] if quick else [])])
    run = _Run(out, _QUICK if quick else _Size(), seed, command, say)
    if quick:
        say("--quick: few genes, cells and epochs. This shows that everything works; the numbers mean nothing.\n")
    with warnings.catch_warnings():
        # The text says it once for all of them, and the figures each time.
        warnings.filterwarnings("ignore", message=".* is UNAUDITED")
        files = {**_blood(run), **_simulated(run)}
    say(f"\nFiles in {out} ({perf_counter() - start:.0f} s in all):")
    for name, text in files.items():
        say(f"  {name:<22}{text}")


def _blood(run: _Run) -> dict[str, str]:
    """Infer a network from the cells that come with scanpy; return the files written and what they hold."""
    import sctrellis as tr

    run.say("1. Blood cells, shipped with scanpy (pbmc68k_reduced)")
    with run.step("read log-normalised values"):
        adata = tr.datasets.pbmc()
        if run.size.n_targets is not None:
            seen = adata.X.getnnz(axis=0).argsort()[::-1][: run.size.n_targets]
            adata = adata[:, adata.var["is_regulator"] | adata.var_names.isin(adata.var_names[seen])].copy()
        tr.pp.regulators(adata, tr.datasets.pbmc_regulators())
    with run.step(f"infosem without priors, {run.size.n_runs} runs"):
        tr.tl.infosem(adata, n_runs=run.size.n_runs, max_epochs=run.size.max_epochs, seed=run.seed)
    with run.step("baselines"):
        for method in ("pearson", "ridge", "random"):
            tr.tl.baseline(adata, method, seed=run.seed)
    n_regulators = int(adata.var["is_regulator"].sum())
    run.say(
        f"\nThe strongest of {adata.varp['infosem'].nnz:,} pairs, with the spread of the weight over the runs, and the "
        "rank of the\nsame pair by each baseline. No reference network comes with these cells, so nothing is judged: "
        "figures\nsay UNAUDITED until `sctrellis.tl.audit` has been asked what the cells can carry.\n"
    )
    run.say(_strongest(adata, 15))
    run.say(f"\n{adata.n_obs} cells, {adata.n_vars} genes, {n_regulators} regulators; seed {run.seed}; `{run.command}`")

    from matplotlib import pyplot as plt

    adata.write_h5ad(run.out / "pbmc.h5ad")
    figure, ax = plt.subplots(figsize=(8.5, 6.0), layout="constrained")
    tr.pl.network(adata, "infosem", n_edges=30, ax=ax)
    ax.set_title("Blood cells: the 30 strongest edges of infosem", loc="left")
    run.save(figure, "pbmc_network.png")
    # Without the total, which rises while the weight of the KL term does.
    run.save(tr.pl.history(adata, "infosem", parts=["reconstruction", "kl", "penalty"]).figure, "pbmc_history.png")
    return {
        "pbmc.h5ad": "the blood cells: networks in .varp, records of the runs in .uns",
        "pbmc_network.png": "the strongest edges",
        "pbmc_history.png": "the parts of the loss of the variational stage",
    }


def _strongest(adata: "AnnData", n: int) -> str:
    """Return the strongest edges as text, with their rank among the edges of each baseline."""
    import sctrellis as tr
    from sctrellis import _report

    ranks = {}
    for method in ("ridge", "pearson", "random"):
        edges = tr.get.edges(adata, method)
        ranks[method] = {pair: i + 1 for i, pair in enumerate(zip(edges["source"], edges["target"], strict=True))}
    lines = [["regulator", "target", "weight", "spread", *(f"rank by {method}" for method in ranks)]]
    for edge in tr.get.edges(adata, "infosem", n_top=n).itertuples():
        pair = (str(edge.source), str(edge.target))
        lines.append([*pair, f"{edge.weight:+.4f}", f"{edge.std:.4f}", *(f"{rank[pair]:,}" for rank in ranks.values())])
    return _report.columns(lines)


def _simulated(run: _Run) -> dict[str, str]:
    """Infer networks from simulated cells and judge them; return the files written and what they hold."""
    import pandas as pd

    import sctrellis as tr
    from sctrellis import _report

    run.say("\n2. Simulated cells, whose network is known")
    epochs, seed = run.size.max_epochs, run.seed
    with run.step("simulate; hold out edges of seen and of new genes"):
        adata = tr.datasets.simulate_grn(*run.size.cells, embedding="informative", seed=seed)
        tr.pp.split_edges(adata, "truth", scheme="infosem", val_frac=0, seed=seed)
    with run.step("infosem: expression only"):
        tr.tl.infosem(adata, max_epochs=epochs, seed=seed)
    with run.step("infosem_B: and gene embeddings"):
        tr.tl.infosem(adata, embedding="embedding", max_epochs=epochs, seed=seed, key_added="infosem_B")
    with run.step("infosem_BC: and the known edges of the training part"):
        tr.tl.infosem(adata, embedding="embedding", known="truth", max_epochs=epochs, seed=seed, key_added="infosem_BC")
    with run.step(f"deepsem: expression only, {run.size.deepsem_epochs} epochs"):
        tr.tl.deepsem(adata, max_epochs=run.size.deepsem_epochs, seed=seed)
    keys, tables = ["infosem", "infosem_B", "infosem_BC", "deepsem"], {}
    with run.step(f"evaluate, beside {len(_BASELINES)} baselines"):
        for part in _PARTS:
            tables[part] = tr.tl.evaluate(
                adata,
                keys,
                network="truth",
                pair_class=None if part == "all" else part,
                baselines=_BASELINES,
                metrics=_METRICS,
                n_boot=run.size.n_boot,
                seed=seed,
                key_added="evaluate" if part == "all" else f"evaluate_{part}",
            )
    n_regulators = int(adata.var["is_regulator"].sum())
    run.say("\nHow well held-out edges are ranked:\n")
    run.say(_report.scores(tables["all"]))
    run.say("\nAUPRC ratio (1 is chance) by what training has seen of the two genes:\n")
    run.say(_by_part(tables))
    run.say(
        "\ninfosem starts from the ridge regression; deepsem runs as published, where training ends long before its "
        "network\nhas converged. Both read expression only; _B also reads embeddings, _BC known edges too."
    )
    run.say(
        f"\n{adata.n_obs} cells, {adata.n_vars} genes, {n_regulators} regulators, {adata.varp['truth'].nnz} "
        f"true edges; seed {seed}; `{run.command}`"
    )

    table = pd.concat(tables.values(), ignore_index=True)
    table = table.assign(n_cells=adata.n_obs, n_genes=adata.n_vars, seed=seed, command=run.command)
    table.to_csv(run.out / "evaluation.csv", index=False)
    adata.write_h5ad(run.out / "simulated.h5ad")
    run.save(tr.pl.precision_recall(adata).figure, "precision_recall.png")
    run.save(tr.pl.scores(adata).figure, "scores.png")
    return {
        "simulated.h5ad": "the simulated cells: truth and networks in .varp, evaluations in .uns",
        "evaluation.csv": "the tables above, with every interval",
        "precision_recall.png": "precision against recall",
        "scores.png": "AUPRC ratio and its interval",
    }


def _by_part(tables: dict[str, Any]) -> str:
    """Return the AUPRC ratio of each network on each part of the held-out pairs as text."""
    from sctrellis import _report

    shown = {part: t[(t["metric"] == "auprc_ratio") & (t["level"] == "micro")] for part, t in tables.items()}
    lines = [["", "", *(_PARTS[part] for part in shown)]]
    for row in shown["all"].sort_values(["value", "key"], ascending=[False, True]).itertuples():
        cells = [_report.cell(*t.set_index("key").loc[row.key, ["value", "low", "high"]]) for t in shown.values()]
        lines.append([row.key, "baseline" if row.kind == "baseline" else "", *cells])
    return _report.columns(lines)
