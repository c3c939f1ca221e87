"""What real cells can carry, and whether the power that is predicted for cells is the power that others have."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _common import CACHE, cached, digest, parser, write
from anndata import AnnData, read_h5ad

import sctrellis as tr
from sctrellis import metrics
from sctrellis.metrics import power_curve

SOURCES = [
    *(
        f"metrics/_{name}.py"
        for name in (
            "certificate",
            "collinear_groups",
            "component_audit",
            "component_removal",
            "components",
            "detectable",
            "effective_size",
            "information",
            "information_verdict",
            "information_words",
            "knockoff_filter",
            "knockoff_generator",
            "knockoff_spread",
            "knockoffs",
            "lasso",
            "learning_curve",
            "partial_test",
            "planted",
            "power_curve",
            "power_law",
            "measurement_reliability",
            "thinning",
        )
    ),
    "tl/_information.py",
]
# Shares that the curve is not fitted to.
UNSEEN = (0.07, 0.15, 0.3)
N_TARGETS = 200


def dendritic() -> tuple[AnnData, dict[str, Any]]:
    adata = tr.datasets.beeline("mDC", "Non-Specific")
    adata.obs["time"] = adata.obs_names.str.split("_").str[1]
    return adata, {"covariates": ["time"], "groupby": "time"}


def stem() -> tuple[AnnData, dict[str, Any]]:
    return tr.datasets.beeline("mHSC-L", "Non-Specific"), {}


def blood() -> tuple[AnnData, dict[str, Any]]:
    adata = tr.datasets.pbmc()
    return adata, {"covariates": ["n_counts", "percent_mito", "phase"], "groupby": "bulk_labels"}


def simulated() -> tuple[AnnData, dict[str, Any]]:
    adata = tr.datasets.simulate_grn(400, 150, 30, counts=True, depth=600, n_confounders=1, seed=1)
    return adata, {"covariates": ["depth"], "counts": "counts"}


CELLS: dict[str, Callable[[], tuple[AnnData, dict[str, Any]]]] = {
    "simulated": simulated,
    "blood": blood,
    "mDC": dendritic,
    "mHSC-L": stem,
}


def informed(name: str, *, fresh: bool, reuse: bool) -> AnnData:
    """Return the cells with their record, from the cache if this code has made it."""
    file = CACHE / f"information-{name}-{digest(SOURCES)}.h5ad"
    if reuse and not fresh and not file.is_file():
        others = CACHE.glob(f"information-{name}-{'?' * 12}.h5ad")
        file = max(others, key=lambda other: other.stat().st_mtime, default=file)
    if fresh or not file.is_file():
        adata, options = CELLS[name]()
        tr.tl.information(adata, **options)
        CACHE.mkdir(exist_ok=True)
        adata.write_h5ad(file)
        print(f"  {name}: done", flush=True)
    return read_h5ad(file)


def achieved(name: str, seed: int) -> dict[str, np.ndarray]:
    """Return predicted and achieved power of halves of the cells, at shares that were not used for the prediction."""
    adata = CELLS[name]()[0]
    x = np.asarray(adata.to_df(), dtype=np.float64)
    order = np.random.default_rng(seed).permutation(len(x))
    halves = order[: len(order) // 2], order[len(order) // 2 :]
    mask = adata.var["is_regulator"].to_numpy()
    varies = np.all([np.ptp(x[half], axis=0) > 0 for half in halves], axis=0)
    one, two = ((x[half][:, mask & varies], x[half][:, ~mask & varies]) for half in halves)
    seen = metrics.learning_curve(*one, n_targets=N_TARGETS, seed=seed)
    new = metrics.learning_curve(*two, r2=UNSEEN, fractions=[0.6, 1], n_targets=N_TARGETS, seed=seed + 1000)
    means = [
        part[part["measure"] == "power"].groupby(["n_cells", "effect"], as_index=False)["value"].mean()
        for part in (seen, new)
    ]
    curve = power_curve(*(means[0][c] for c in ("n_cells", "effect", "value")), n_tested=2 * N_TARGETS)
    truth = means[1].to_numpy(dtype=np.float64)
    return {"numbers": np.column_stack([truth, curve.power(truth[:, 0], truth[:, 1])])}


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--only", nargs="+", choices=list(CELLS), help="cells to look at; others are left out")
    made.add_argument("--figures", type=Path, help="folder for a page of each; None draws none")
    options = made.parse_args()
    warnings.filterwarnings("ignore", message=".*(constant|copies of each other|are not in|left out).*")
    names = options.only or list(CELLS)
    if not os.environ.get("SCTRELLIS_DATA"):
        names = [name for name in names if name in ("simulated", "blood")]
        print("SCTRELLIS_DATA is not set: mDC and mHSC-L are left out", flush=True)
    lines, words, rates = [], [], []
    for name in names:
        adata = informed(name, fresh=options.fresh, reuse=options.reuse)
        record = tr.get.record(adata, "information")
        size = record["size"].iloc[0]
        least = record["detectable"].astype({"quantity": str})
        least = least[(least["quantity"] == "r2") & (least["power"] == 0.8)].iloc[0]
        doubled = record["doubled"].astype({"axis": str, "measure": str})
        r2 = doubled[(doubled["axis"] == "cells") & (doubled["measure"] == "r2")].iloc[0]
        removal = record["removal"].astype({"removed": str})
        lines.append(
            {
                "cells": name,
                "n": int(size["n_cells"]),
                "regulators": int(record["diagnostics"]["n_regulators"]),
                "n_eff": f"{size['n_eff']:.1f} of {size['permuted']:.0f}",
                "least R2 (power 0.8)": f"{least['value']:.2f} ({least['low']:.2f} to {least['high']:.2f})",
                "held-out R2": f"{r2['now']:.3f}",
                "twice the cells": f"{r2['doubled']:.3f}",
                "discoveries": ", ".join(
                    f"{line['knockoffs']:.0f} ({line['removed']})" for _, line in removal.iterrows()
                ),
                "verdict": record["verdict"]["code"],
            }
        )
        words.append(
            f"**{name}** {record['verdict']['code']}: " + " ".join([record["verdict"]["words"], *record["words"]])
        )
        rates.append(record["certificate"].astype({"level": str}).assign(cells=name).drop(columns="decoy_rate"))
        if options.figures:
            figure = tr.pl.information(adata)["verdict"].get_figure(root=True)
            options.figures.mkdir(parents=True, exist_ok=True)
            figure.savefig(options.figures / f"information_{name.lower().replace('-', '')}.png", dpi=110)
    powers = []
    for name in names:
        key = {"what": "information", "cells": name, "seed": 0}
        found = cached(key, SOURCES, partial(achieved, name, 0), fresh=options.fresh, reuse=options.reuse)["numbers"]
        powers.append(pd.DataFrame(found, columns=["n", "R2", "achieved", "predicted"]).assign(cells=name))
    power = pd.concat(powers)
    power["difference"] = power["predicted"] - power["achieved"]
    power = power[["cells", "n", "R2", "predicted", "achieved", "difference"]]
    within = int((power["difference"].abs() <= 0.1).sum())
    data = pd.concat([power.assign(table="power"), pd.concat(rates).assign(table="certificate")])
    write(
        options.results,
        "information",
        title="What cells can carry",
        reading=(
            "`tl.information` with its defaults. n_eff is the effective number of cells beside that of shuffled genes; "
            "least R2 is the share of a target's variance that regulators must explain to be found at q = 0.1; "
            "discoveries are pairs that one draw of knockoffs selects at q = 0.1 (mean of ten draws) given what is in "
            "brackets. Predicted power comes from one half of the cells, achieved power from the other half, other "
            "numbers of cells and other shares."
        ),
        seeds="0",
        data=data,
        sections=[
            ("Cells", pd.DataFrame(lines)),
            ("In words", "\n\n".join(words)),
            ("The certificate", pd.concat(rates)[["cells", "level", "q", "fdr", "fdr_se", "power", "passes"]]),
            (f"Predicted and achieved power: {within} of {len(power)} within 0.1", power),
        ],
    )


if __name__ == "__main__":
    main()
