"""Fits on a GPU beside the same fits on the processor of that machine, each in a process of its own."""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _common import parser, write
from bench_speed import LARGE, large_cells

EPOCHS = (1, 1, 5)
SIZES = (1_000, 5_000, 20_000)
SIZE_REGNET = {"n_obs": 1_000, "regulators": 500, "edges_per_regulator": 100}


def labelled_cells(n_genes: int) -> Any:
    """Return sparse random cells with a random known network, divided into folds: only sizes matter here."""
    import anndata
    from scipy import sparse

    rng = np.random.default_rng(0)
    n_obs, n_regulators, n_edges = SIZE_REGNET.values()
    x = sparse.random(
        n_obs, n_genes, density=0.2, format="csr", dtype=np.float32, rng=rng, data_rvs=lambda k: rng.gamma(2.0, 1.0, k)
    )
    adata = anndata.AnnData(x, var=pd.DataFrame(index=[f"gene_{i}" for i in range(n_genes)]))
    adata.var["is_regulator"] = np.arange(n_genes) < n_regulators
    row = np.repeat(np.arange(n_regulators), n_edges)
    column = np.concatenate([rng.choice(n_genes, n_edges, replace=False) for _ in range(n_regulators)])
    kept = row != column
    known = (np.ones(kept.sum(), np.float32), (row[kept], column[kept]))
    adata.varp["network"] = sparse.csr_matrix(known, shape=(n_genes, n_genes))
    return adata


def regnet_epoch(n_genes: int, device: str) -> dict[str, Any]:
    """Time an epoch of RegNet, and all that is not an epoch (features, and the log odds of every pair)."""
    import sctrellis as tr

    adata = labelled_cells(n_genes)
    tr.pp.split_edges(adata, seed=0)
    wall = []
    for n in EPOCHS:
        start = time.perf_counter()
        tr.tl.regnet(adata, max_epochs=n, patience=None, device=device, progress=False)
        wall.append(time.perf_counter() - start)
    epoch = (wall[2] - wall[1]) / (EPOCHS[2] - EPOCHS[1])  # the first fit loads what the others find
    return {"wall_s": epoch, "note": f"an epoch; everything else {wall[1] - epoch:.1f} s"}


def infosem(kind: str, device: str) -> dict[str, Any]:
    """Time the convex stage of InfoSEM."""
    import sctrellis as tr

    adata = large_cells(kind)
    start = time.perf_counter()
    tr.tl.infosem(adata, max_epochs=0, device=device, progress=False)
    return {"wall_s": time.perf_counter() - start, "note": " x ".join(f"{n:,}" for n in LARGE[kind])}


def sem(name: str, device: str) -> dict[str, Any]:
    """Time a whole fit on simulated cells of BEELINE's size."""
    import sctrellis as tr

    adata = tr.datasets.simulate_grn(400, 600, 200, density=0.02, seed=0)
    start = time.perf_counter()
    getattr(tr.tl, name)(adata, device=device, progress=False)
    return {"wall_s": time.perf_counter() - start, "note": "400 x 600 x 200"}


def shrinkage(depth: str, device: str) -> dict[str, Any]:
    """Time sensitivities of 1,000 genes, without intervals and controls."""
    import sctrellis as tr

    adata = labelled_cells(1_000)
    tr.pp.split_edges(adata, seed=0)
    tr.tl.regnet(adata, max_epochs=2, device=device, progress=False)
    wall = []
    for _ in range(2):  # the first call loads what the second one finds
        start = time.perf_counter()
        tr.tl.shrinkage(adata, depth=depth, n_init=1, n_rewired=1, n_boot=2, device=device, progress=False)
        wall.append(time.perf_counter() - start)
    return {"wall_s": wall[1], "note": "1,000 genes, one control of each kind"}


def search(n_tasks: int, n_candidates: int, n_cells: int, n_open: int, size: int, sweeps: int, device: str) -> Any:
    """Time the published search on random functions of the kind of `tl.translate`: sums of 16 peaks' vectors."""
    import torch
    from scipy import sparse

    from sctrellis.explain import AdditiveObjective, subset_search

    rng, width = np.random.default_rng(0), 16
    columns = np.concatenate([np.sort(rng.choice(n_candidates, n_open, replace=False)) for _ in range(n_cells)])
    x = sparse.csr_matrix(
        (np.ones(len(columns), np.float32), columns, np.arange(n_cells + 1) * n_open), shape=(n_cells, n_candidates)
    )
    stream = torch.Generator().manual_seed(0)
    effects = (torch.randn(n_tasks, n_candidates, width, generator=stream) / n_open**0.5).to(device)
    last = (torch.randn(n_tasks, 1, 1, width, generator=stream) / width**0.5).to(device)

    def head(pre: Any) -> Any:
        return (torch.relu(pre[..., 0, :]) * last).sum(dim=-1)

    peaks = np.broadcast_to(np.arange(n_candidates), (n_tasks, n_candidates))
    empty = torch.zeros(n_tasks, n_cells, 1, width, device=device)
    start = time.perf_counter()
    goal = AdditiveObjective.build(x, peaks, effects=effects, pre=empty, head=head)
    goal = replace(goal, pre=goal.inputs.sum_over_peaks(effects.flatten(0, 1)).view_as(empty))
    found = subset_search(goal, size, method="grids", max_sweeps=sweeps, max_exhaustive=0, max_certified=0)
    float(found.loss.sum())
    steps = len(found.trace)
    return {"wall_s": time.perf_counter() - start, "note": f"{steps:,} steps, {n_cells} cells"}


CASES: dict[str, tuple[Callable[[str], dict[str, Any]], float]] = {
    "infosem, convex stage, 5,000 genes": (lambda device: infosem("noise", device), np.nan),
    "infosem, convex stage, 20,000 genes": (lambda device: infosem("noise, 20,000 genes", device), 60),
    "infosem": (lambda device: sem("infosem", device), np.nan),
    "deepsem": (lambda device: sem("deepsem", device), np.nan),
    **{f"regnet, {n:,} genes": (lambda device, n=n: regnet_epoch(n, device), np.nan) for n in SIZES},
    "shrinkage, layer": (lambda device: shrinkage("layer", device), np.nan),
    "shrinkage, stack": (lambda device: shrinkage("stack_joint", device), np.nan),
    "grids, 100 genes, 150 candidates, sets of 10": (lambda d: search(100, 150, 512, 40, 10, 50, d), 60),
    "grids, 16 genes, 127,219 candidates, sets of 128": (lambda d: search(16, 127_219, 64, 5_000, 128, 39, d), 300),
}
GPU_ONLY = ("infosem, convex stage, 20,000 genes",)


def run_case(case: str, device: str) -> dict[str, Any]:
    """Run one case in this process, and return what it took."""
    import torch

    import sctrellis  # noqa: F401 - not part of any case

    gpu = device != "cpu"
    if gpu:  # the context, and what the first product loads
        torch.ones(64, 64, device=device) @ torch.ones(64, 64, device=device)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    found = CASES[case][0](device)
    lines = Path("/proc/self/status").read_text().splitlines()
    found["peak_mb"] = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    found["gpu_mb"] = torch.cuda.max_memory_allocated() / 2**20 if gpu else np.nan
    found["name"] = torch.cuda.get_device_name() if gpu else "processor"
    return found


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--case", nargs=2, help=argparse.SUPPRESS)
    arguments.add_argument("--devices", nargs="+", default=["cuda", "cpu"], help="devices that are compared")
    arguments.add_argument("--only", nargs="+", default=[""], help="cases that contain one of these")
    arguments.add_argument("--resume", action="store_true", help="keep the rows of the table that is there")
    arguments.add_argument("--limit", type=int, default=120, help="seconds after which a case is stopped")
    args = arguments.parse_args()
    if args.case:
        print(json.dumps(run_case(*args.case)))
        return
    rows: list[dict[str, Any]] = []
    stored = args.results / "gpu.csv"
    if args.resume and stored.is_file():
        rows = pd.read_csv(stored, comment="#").to_dict("records")
    for case, (_, bar) in CASES.items():
        if not any(part in case for part in args.only):
            continue
        for device in args.devices:
            if device == "cpu" and case in GPU_ONLY:
                continue
            row: dict[str, Any] = {"case": case, "device": device, "bar_s": bar}
            rows = [old for old in rows if (old["case"], old["device"]) != (case, device)]
            try:
                done = subprocess.run(
                    [sys.executable, __file__, "--case", case, device],
                    capture_output=True,
                    text=True,
                    check=False,
                    timeout=args.limit,
                )
                last = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
                row |= json.loads(done.stdout.splitlines()[-1]) if not done.returncode else {"note": last[0]}
            except subprocess.TimeoutExpired:
                row["note"] = f"stopped after {args.limit} s"
            print(row, flush=True)
            rows.append(row)
            report(pd.DataFrame(rows), args.results)


def report(table: pd.DataFrame, results: Path) -> None:
    table = table.sort_values("case", key=lambda cases: cases.map(list(CASES).index), kind="stable")
    table = table.reindex(columns=["case", "device", "name", "wall_s", "bar_s", "peak_mb", "gpu_mb", "note"])
    shown = pd.DataFrame({"case": table["case"], "device": table["name"].fillna(table["device"])})
    shown["seconds"] = table["wall_s"]
    other = table[table["device"] == "cpu"].set_index("case")["wall_s"]
    if other.notna().any():
        shown["times as fast as the processor"] = table["case"].map(other) / table["wall_s"]
    shown["bar"] = [
        "" if np.isnan(r.bar_s) or r.device == "cpu" else f"<= {r.bar_s:g} s: {'yes' if r.wall_s <= r.bar_s else 'no'}"
        for r in table.itertuples()
    ]
    shown["process MB"], shown["GPU MB"] = (table[name].map("{:,.0f}".format) for name in ("peak_mb", "gpu_mb"))
    shown["note"] = table["note"]
    write(
        results,
        "gpu",
        title="Fits on a GPU and on the processor beside it",
        reading="Seconds on the clock of one run after the GPU was started; the processor uses "
        f"{os.environ.get('OMP_NUM_THREADS', 'all')} threads. Cells are random or simulated: only sizes matter. "
        f"RegNet: {SIZE_REGNET['n_obs']:,} cells, {SIZE_REGNET['regulators']} regulators with "
        f"{SIZE_REGNET['edges_per_regulator']} known edges each.",
        seeds="0",
        data=table,
        sections=[("Cases", shown.fillna(""))],
    )


if __name__ == "__main__":
    main()
