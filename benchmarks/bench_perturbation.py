"""Do networks predict knock-outs better than baselines without one? A real screen, and a simulated linear one.

Needs ``perturb/papalexi2021_eccite_THP1_299genes.h5ad`` in the folder of the environment variable SCTRELLIS_DATA for
the real part, and goes on without it where it is absent.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import warnings
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from _common import parser, spread, write

import sctrellis as tr

METRICS = ("mse", "pearson", "top_overlap", "direction")
NETWORKS: dict[str, dict[str, Any]] = {
    "ridge": {},
    "infosem": {},
    "pearson": {"n_steps": 1, "units": "standardised"},
}
N_CELLS = 60
LABELS = {"pearson": "pearson, one step"}
READING = (
    "Changes are means over perturbed minus over control cells, the perturbed gene left out. Networks are inferred "
    "from control cells alone; baselines predict each perturbation from the others. Skill is 1 minus the squared "
    "error over that of the best baseline: 0 is as good, 1 perfect, the ceiling what noise leaves to be had. mse is "
    "in units of 1e-3 squared log-normalised expression; top_overlap of the 20 genes that change most; direction "
    "over genes that change by more than two standard errors."
)


def infer(control: anndata.AnnData, seed: int, regulators: str | None) -> None:
    """Write the networks into ``.varp``."""
    for method in ("ridge", "pearson"):
        tr.tl.baseline(control, method, regulators=regulators, seed=seed)
    tr.tl.infosem(control, regulators=regulators, seed=seed, progress=False)


def predict(control: anndata.AnnData, genes: list[str], **options: Any) -> dict[str, Any]:
    """Return what each network predicts, by label."""
    found = {}
    for key, own in NETWORKS.items():
        found[LABELS.get(key, key)] = tr.tl.predict_perturbation(control, key, genes, **{**own, **options})
    return found


def real(path: Path, n_seeds: int) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Return the table of the screen over seeds, the errors of each perturbation, and facts."""
    import scanpy as sc

    adata = anndata.read_h5ad(path)
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    control = adata[adata.obs["target"] == "non-targeting"].copy()
    genes = [gene for gene in adata.obs["target"].cat.categories if gene in adata.var_names]
    tables = []
    for seed in range(n_seeds):
        infer(control, seed, "all")
        models = predict(control, genes, seed=seed)
        table = tr.tl.evaluate_perturbation(adata, models, groupby="target", control="non-targeting", seed=seed)
        tables.append(table.assign(seed=seed))
        print(f"  screen, seed {seed}", flush=True)
        if seed == 0:
            record = tr.get.record(adata, "evaluate_perturbation")
    return pd.concat(tables, ignore_index=True), record["perturbations"], record


def simulated(seed: int) -> pd.DataFrame:
    """Return the table of a screen whose truth is a linear structural equation model."""
    control = tr.datasets.simulate_grn(800, 60, 20, density=0.12, weights=(0.4, 0.9), seed=seed)
    control.X += np.float32(8)  # room below, so that no perturbed cell falls under 0
    effects = control.varp["truth_effect"].toarray().astype(float)
    regulators = np.flatnonzero(control.var["is_regulator"])
    offset = control.var["offset"].to_numpy() + 8
    level = {control.var_names[i]: float(control.X[:, i].mean() - 2) for i in regulators}
    rng = np.random.default_rng(seed)
    blocks, labels = [control.X], ["control"] * control.n_obs
    for i in regulators:
        cut = effects.copy()
        cut[:, i] = 0
        noise = rng.normal(size=(N_CELLS, control.n_vars))
        noise[:, i] = level[control.var_names[i]] - offset[i]
        blocks.append(noise @ np.linalg.inv(np.eye(control.n_vars) - cut) + offset)
        labels += [control.var_names[i]] * N_CELLS
    screen = anndata.AnnData(
        np.vstack(blocks).astype(np.float32),
        obs=pd.DataFrame({"target": labels}, index=[f"cell_{i}" for i in range(len(labels))]),
        var=control.var.copy(),
    )
    infer(control, seed, None)
    models = predict(control, list(level), level=level, seed=seed)
    models["true network"] = tr.tl.predict_perturbation(control, "truth_effect", list(level), level=level, seed=seed)
    control.varp["mixed"] = tr.metrics.shuffled_network(control.varp["truth_effect"], seed=seed + 1000)
    models["true network, other targets"] = tr.tl.predict_perturbation(
        control, "mixed", list(level), level=level, units="expression", max_radius=0.95, seed=seed
    )
    return tr.tl.evaluate_perturbation(screen, models, groupby="target", control="control", seed=seed)


def over_seeds(tables: pd.DataFrame) -> pd.DataFrame:
    """Return one row per method, with mean and standard deviation over seeds, by skill."""
    lines = []
    for method, part in tables.groupby("method", sort=False):
        line = {"method": method, "kind": part["kind"].iloc[0]}
        skill = part[part["metric"] == "skill"]
        line["skill"] = spread(skill["value"], 3)
        line["95 % interval, seed 0"] = "{:.2f} to {:.2f}".format(*skill[["low", "high"]].iloc[0])
        for metric in METRICS:
            value = part.loc[part["metric"] == metric, "value"] * (1e3 if metric == "mse" else 1)
            line[metric] = "" if value.isna().all() else spread(value, 2)
        line["_order"] = skill["value"].mean()
        lines.append(line)
    return pd.DataFrame(lines).sort_values("_order", ascending=False).drop(columns="_order")


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--seeds", type=int, default=3)
    args = arguments.parse_args()
    sections: list[tuple[str, Any]] = []
    data = []

    path = Path(os.environ.get("SCTRELLIS_DATA", "")) / "perturb" / "papalexi2021_eccite_THP1_299genes.h5ad"
    if "SCTRELLIS_DATA" in os.environ and path.is_file():
        table, each, record = real(path, args.seeds)
        fit = record["fit"]
        facts = (
            f"Papalexi et al. 2021, THP-1 cells, {fit['n_genes']} genes. {fit['n_perturbations']} knocked-out genes "
            f"are among them and judged, {fit['n_train']} teach the baselines; {fit['n_control']:,} control cells. "
            f"Best baseline {fit['best_baseline']}, ceiling {fit['ceiling']:.2f}."
        )
        words = [f"- {name}: {verdict['words']}" for name, verdict in record["verdict"].items()]
        sections += [
            ("A real screen", "\n".join([facts, "", *words])),
            ("A real screen: mean ± standard deviation over seeds", over_seeds(table)),
            ("A real screen: squared error (1e-3) of each perturbation, seed 0", by_perturbation(each)),
        ]
        data.append(table.assign(data="papalexi2021"))
    else:
        print("SCTRELLIS_DATA has no perturb/papalexi2021_eccite_THP1_299genes.h5ad: no real screen", flush=True)

    found = []
    for seed in range(args.seeds):
        found.append(simulated(seed).assign(seed=seed))
        print(f"  simulated, seed {seed}", flush=True)
    table = pd.concat(found, ignore_index=True)
    data.append(table.assign(data="linear"))
    sections.append(("A linear simulation: mean ± standard deviation over networks", over_seeds(table)))
    write(
        args.results,
        "perturbation",
        title="Predicted knock-outs beside baselines",
        reading=READING,
        seeds=f"0 to {args.seeds - 1}: folds of ridge, InfoSEM, shuffled networks and bootstrap; simulated cells",
        data=pd.concat(data, ignore_index=True),
        sections=sections,
    )


def by_perturbation(each: pd.DataFrame) -> pd.DataFrame:
    """Return squared errors, perturbations x methods, beside the noise."""
    wide = each.pivot(index="perturbation", columns="method", values="mse") * 1e3
    facts = each.groupby("perturbation")[["noise", "n_cells"]].first()
    wide = wide[[name for name in dict.fromkeys(each["method"]) if not name.startswith("shuffled")]]
    wide["noise"], wide["cells"] = facts["noise"] * 1e3, facts["n_cells"]
    return wide.sort_values("no_change", ascending=False).reset_index()


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message="No score of")
    main()
