"""CPU seconds and peak memory, each case in a process of its own, beside the arithmetic that cannot be avoided."""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _common import cpu_seconds, parser, write

MDC = ("infosem", "infosem: convex stage", "ridge, rho = 30", "deepsem", "gbm", "pearson")
LARGE = {
    "noise": (5_000, 5_000, 500),
    "simulated": (5_000, 5_000, 500),
    "noise, 20,000 genes": (5_000, 20_000, 1_600),
}


def peak_mb() -> float:
    """Return the peak resident memory of this process in MB; NaN where the system does not tell."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return float("nan")
    # Not getrusage: its maximum survives exec, so a small child would report its parent.
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024


def large_cells(kind: str) -> Any:
    """Return sparse log-normalised counts, and which genes regulate."""
    import anndata
    from scipy import sparse

    import sctrellis as tr

    n_obs, n_vars, n_regulators = LARGE[kind]
    if kind == "simulated":
        return tr.datasets.simulate_grn(n_obs, n_vars, n_regulators, density=0.01, counts=True, hubs=0.5, seed=0)
    rng = np.random.default_rng(0)
    counts = sparse.random(
        n_obs, n_vars, density=0.2, format="csr", dtype=np.float32, rng=rng, data_rvs=lambda k: 1 + rng.poisson(1.0, k)
    )
    total = np.asarray(counts.sum(axis=1)).ravel()
    x = (sparse.diags(np.median(total) / total) @ counts).log1p().tocsr().astype(np.float32)
    return anndata.AnnData(
        x,
        var=pd.DataFrame({"is_regulator": np.arange(n_vars) < n_regulators}).set_index(
            pd.Index([f"gene_{i}" for i in range(n_vars)])
        ),
    )


def multiply_rate(dtype: str) -> float:
    """Return how many GFLOP a second of wall time this process multiplies, with its number of threads."""
    import torch

    a = torch.randn(3_000, 3_000, dtype=getattr(torch, dtype), generator=torch.Generator().manual_seed(0))
    best = np.inf
    for _ in range(4):
        start = time.process_time()
        a @ a
        best = min(best, time.process_time() - start)
    return 2 * 3_000**3 / best / 1e9


def floor_seconds(shape: tuple[int, int, int], n_strengths: int, n_steps: int) -> dict[str, float]:
    """Return the CPU seconds of the products and factorisations that the convex stage cannot do without.

    One Gram matrix, one inverse of it, the regulators' rows of the precision and the convex steps in float64; for every
    strength tried an inverse and the held-out predictions of 2,000 cells (and, with fewer cells than genes, the
    leverage of every gene) in float32. An inverse of size m counts m^3 operations.
    """
    n, g, p = shape
    m, dual = min(n, g), g > n
    double = n * g * m + m**3 + (2 * p * g * m + 2 * g * m**2 if dual else 0) + n_steps * 2 * p**2 * g
    held_out = 2 * 1_000
    single = n_strengths * (m**3 + 2 * held_out * m * g + (2 * m**2 * g if dual else 2 * held_out * 1_000 * g))
    rates = {name: multiply_rate(name) for name in ("float64", "float32")}
    return {
        "floor_s": double / rates["float64"] / 1e9 + single / rates["float32"] / 1e9,
        **{f"gflops_{name}": rate for name, rate in rates.items()},
    }


def run_case(case: str) -> dict[str, Any]:
    """Run one case in this process and return what it took."""
    import torch  # noqa: F401 - its import is not part of any case

    import sctrellis as tr

    kind, name = case.split("/")
    shape = (0, 0, 0)
    if kind == "mDC":
        adata = tr.datasets.beeline("mDC", "STRING")
    else:
        adata = large_cells(kind)
        shape = LARGE[kind]
    n_regulators = int(adata.var["is_regulator"].sum())
    fixed: dict[str, Any] = {"device": "cpu", "progress": False}
    loaded = peak_mb()
    wall, cpu = time.perf_counter(), cpu_seconds()
    if name == "infosem":
        tr.tl.infosem(adata, **fixed)
    elif name == "infosem: convex stage":
        tr.tl.infosem(adata, max_epochs=0, **fixed)
    elif name == "infosem, regulators condition":
        tr.tl.infosem(adata, conditioning="regulators", **fixed)
    elif name == "deepsem":
        tr.tl.deepsem(adata, **fixed)
    elif name == "ridge, rho = 30":
        from sctrellis._core.rows import Rows

        tr.models.ridge_network(Rows(adata.X), adata.var["is_regulator"].to_numpy(), rho=30.0, device="cpu")
    else:
        tr.tl.baseline(adata, name, n_jobs=1, progress=False)
    found = {
        "wall_s": time.perf_counter() - wall,
        "cpu_s": cpu_seconds() - cpu,
        "peak_mb": peak_mb(),
        "loaded_mb": loaded,
        "cells": adata.n_obs,
        "genes": adata.n_vars,
        "regulators": n_regulators,
    }
    if kind != "mDC" and name == "infosem: convex stage":
        record = adata.uns["infosem"]
        found["strengths"], found["steps"] = len(record["cv"]["rho"]), int(record["fit"]["convex_steps"])
        found |= floor_seconds(shape, found["strengths"], found["steps"])
    return found


def spawn(case: str, threads: int) -> dict[str, Any]:
    """Run a case in a new process and return what it took; waits for it."""
    print(f"{case} ...", end=" ", flush=True)
    environment = {**os.environ, **{f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "MKL", "OPENBLAS")}}
    environment["OMP_WAIT_POLICY"] = "PASSIVE"  # a thread that waits for another one must not count as computing
    load = os.getloadavg()[0]
    done = subprocess.run(
        [sys.executable, __file__, "--case", case], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        print("failed", flush=True)
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        return {"case": case, "threads": threads, "note": reason[0]}
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"{found['cpu_s']:.1f} CPU s, {found['wall_s']:.1f} s, {found['peak_mb']:,.0f} MB", flush=True)
    return {"case": case, "threads": threads, "load": load, **found}


def import_cost(repeats: int = 5) -> dict[str, Any]:
    """Return the time that `import sctrellis` takes in a new interpreter, and what it loads."""
    code = (
        "import sys, time; before = len(sys.modules); t = time.process_time(); import sctrellis; "
        "t = time.process_time() - t; "
        "heavy = [m for m in ('torch', 'anndata', 'scanpy', 'matplotlib', 'pandas', 'scipy') if m in sys.modules]; "
        "print(t, len(sys.modules) - before, *heavy)"
    )
    rows = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        for _ in range(repeats)
    ]
    return {
        "import sctrellis, CPU s (median of 5)": float(np.median([float(row[0]) for row in rows])),
        "modules loaded": int(rows[0][1]),
        "heavy packages among them": ", ".join(rows[0][2:]) or "none",
    }


def bars(table: pd.DataFrame) -> pd.DataFrame:
    """Return each bar of the plan beside what was measured."""
    by_case = table.set_index("case")
    rows = []

    def add(what: str, bar: str, measured: str, *, holds: bool) -> None:
        rows.append({"what": what, "bar": bar, "measured": measured, "holds": "yes" if holds else "NO"})

    def cpu(case: str) -> float:
        return float(by_case["cpu_s"].get(case, np.nan))

    share = cpu("mDC/infosem") / cpu("mDC/deepsem")
    if not np.isnan(share):
        add("infosem / deepsem on mDC, CPU seconds", "<= 0.1", f"{share:.3f} (1/{1 / share:.0f})", holds=share <= 0.1)
    for kind in ("noise", "simulated"):
        case = f"{kind}/infosem: convex stage"
        if np.isnan(cpu(case)):
            continue
        row = by_case.loc[case]
        wall = f"{row['wall_s']:.0f} s at load {row['load']:.1f}"
        # Two cores do two CPU seconds a second at most: half of them bounds the time from below, and only a wall time
        # shows that the bar holds, even one of a busy machine.
        quiet = row["cpu_s"] / 2
        rows.append(
            {
                "what": f"{case}, 5,000 x 500 x 5,000, time on 2 cores",
                "bar": "<= 60 s",
                "measured": f"{wall}, {row['threads']:.0f} threads; {row['cpu_s']:.0f} CPU s: at least {quiet:.0f} s",
                "holds": "yes" if row["wall_s"] <= 60 else "NO" if quiet > 60 else "not shown: the machine was busy",
            }
        )
        add(f"{case}, peak memory", "<= 4 GB", f"{row['peak_mb'] / 1024:.2f} GB", holds=row["peak_mb"] <= 4 * 1024)
    huge = cpu("noise, 20,000 genes/infosem: convex stage")
    if not np.isnan(huge):
        add("20,000 x 1,600 x 5,000, convex stage", "<= 600 CPU s", f"{huge:.0f} CPU s", holds=huge <= 600)
    return pd.DataFrame(rows)


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--case", help=argparse.SUPPRESS)
    arguments.add_argument("--threads", type=int, default=2, help="threads of the large cases; mDC takes one")
    arguments.add_argument("--huge", action="store_true", help="also 20,000 genes x 1,600 regulators x 5,000 cells")
    arguments.add_argument("--resume", action="store_true", help="keep the cases of the table that is there")
    arguments.add_argument("--only", nargs="+", default=[], help="measure cases that contain this, keep all others")
    args = arguments.parse_args()
    if args.case:
        print(json.dumps(run_case(args.case)))
        return
    cases = {
        **dict.fromkeys((f"{kind}/infosem: convex stage" for kind in ("noise", "simulated")), args.threads),
        **dict.fromkeys((f"mDC/{name}" for name in MDC), 1),
        **dict.fromkeys((f"noise/{name}" for name in ("infosem, regulators condition", "pearson")), args.threads),
    }
    if args.huge:
        cases["noise, 20,000 genes/infosem: convex stage"] = args.threads
    stored = args.results / "speed.csv"
    found: list[dict[str, Any]] = []
    if (args.resume or args.only) and stored.is_file():
        found = pd.read_csv(stored, comment="#").to_dict("records")
    if args.only:
        cases = {case: n for case, n in cases.items() if any(part in case for part in args.only)}
        found = [row for row in found if row["case"] not in cases]
    done = {row["case"] for row in found}
    loaded = import_cost()
    for case, threads in cases.items():
        if case not in done:
            found.append(spawn(case, threads))
            report(found, loaded, args.results)  # after every case: a stopped benchmark keeps what it measured


def report(found: list[dict[str, Any]], loaded: dict[str, Any], results: Path) -> None:
    table = pd.DataFrame(found)
    shown = pd.DataFrame(
        {
            "case": table["case"],
            "cells x genes, regulators": [
                "" if np.isnan(row.cells) else f"{row.cells:,.0f} x {row.genes:,.0f}, {row.regulators:,.0f}"
                for row in table.itertuples()
            ],
            "threads": table["threads"],
            "CPU s": table["cpu_s"].map("{:.1f}".format),
            "wall s": table["wall_s"].map("{:.1f}".format),
            "load before": table["load"].map("{:.1f}".format),
            "peak MB": table["peak_mb"].map("{:,.0f}".format),
            "of them before the fit": table["loaded_mb"].map("{:,.0f}".format),
        }
    )
    sections: list[tuple[str, pd.DataFrame | str]] = [("Bars", bars(table)), ("Cases", shown)]
    if "floor_s" in table:
        part = table[table["floor_s"].notna()]
        sections.append(
            (
                "Distance from the floor",
                pd.DataFrame(
                    {
                        "case": part["case"],
                        "strengths tried": part["strengths"].astype(int),
                        "convex steps": part["steps"].astype(int),
                        "float64 GFLOP/CPU s": part["gflops_float64"].map("{:.0f}".format),
                        "float32 GFLOP/CPU s": part["gflops_float32"].map("{:.0f}".format),
                        "floor, CPU s": part["floor_s"].map("{:.1f}".format),
                        "measured, CPU s": part["cpu_s"].map("{:.1f}".format),
                        "times the floor": (part["cpu_s"] / part["floor_s"]).map("{:.2f}".format),
                    }
                ),
            )
        )
    if "note" in table:
        failed = table[table["note"].notna()]
        sections.append(("Not run", "\n".join(f"- {row.case}: {row.note}" for row in failed.itertuples())))
    sections.append(("Import", pd.DataFrame([loaded])))
    write(
        results,
        "speed",
        title="Speed and memory",
        reading="CPU seconds count all threads and processes of the fit; compare those: wall time depends on what "
        "else the machine does (`load before`; above the number of cores it is not a measurement). Peak memory is that "
        "of the whole process, with Python, torch and the data. The floor is the arithmetic of the products and "
        "factorisations that the stage needs, at the rate at which this machine multiplies matrices; it differs a "
        "little from run to run.",
        seeds="0",
        data=table.drop(columns="system", errors="ignore").assign(system=platform.platform()),
        sections=sections,
    )


if __name__ == "__main__":
    main()
