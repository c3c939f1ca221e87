"""Does RegNet shrink genes towards their regulators, and do the claims of its note hold? Real cells, with controls.

Fits RegNet on BEELINE's mESC (loss and gain of function) and mDC (non-specific) networks, with messages from regulators
and from targets, measures self weights in the first layer and through all layers, and writes the table; with
``--figures`` also the figures of the guide, of the first seed.
"""

import warnings
from pathlib import Path

import anndata as ad
import pandas as pd
from _common import CACHE, cpu_seconds, digest, parser, spread, write

import sctrellis as tr

DATA = (("mESC", "Lofgof"), ("mDC", "Non-Specific"))
DIRECTIONS = ("regulators", "targets")
DEPTHS = ("layer", "stack_local")
SOURCES = ("models/_regnet.py", "models/_regnet_fit.py", "models/_regnet_data.py", "tl/_regnet.py")


def fitted(cell, network, direction, seed, *, fresh):
    """Return the data with a fitted RegNet, from the cache where it is there."""
    file = CACHE / f"shrinkage-{cell}-{network}-{direction}-{seed}-{digest(SOURCES)}.h5ad"
    if file.is_file() and not fresh:
        return ad.read_h5ad(file)
    adata = tr.datasets.beeline(cell, network, "TFs+500")
    tr.pp.split_edges(adata, "network", scheme="edge", universe="listed", seed=seed)
    start = cpu_seconds()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the participation ratio is in the table
        tr.tl.regnet(adata, network="network", direction=direction, seed=seed)
    print(f"  {file.stem}: {cpu_seconds() - start:.0f} CPU s", flush=True)
    CACHE.mkdir(exist_ok=True)
    adata.write_h5ad(file)
    return adata


def measure(adata, depth):
    """Return the record of the shrinkage at a depth, and its CPU seconds."""
    start = cpu_seconds()
    tr.tl.shrinkage(adata, depth=depth, key_added=depth)
    return tr.get.record(adata, f"{depth}_shrinkage"), cpu_seconds() - start


def lines_of(place, record, seconds, used):
    model, *controls = record["distribution"].to_dict("records")
    line = {
        **place,
        "median_weight": model["median"],
        "q05": model["q05"],
        "q95": model["q95"],
        "median_alignment": model["median_alignment"],
        "aligned_share": model["aligned_share"],
        "participation_ratio": used,
        "rewired_overlap": record["fit"]["rewired_overlap"],
        "cpu_s_with_25_controls": seconds,
    }
    line |= {f"{c['source']}: aligned_share": c["aligned_share"] for c in controls}
    return line


def interval(row, name="value"):
    value, prefix = row[name], "" if name == "value" else f"{name}_"
    return f"{value:+.2f} [{row[f'{prefix}low']:+.2f}, {row[f'{prefix}high']:+.2f}]"


def main():
    made = parser(__doc__)
    made.add_argument("--seeds", type=int, default=3, help="splits and fits of each network")
    made.add_argument("--figures", type=Path, default=None, help="folder of the figures; none are drawn without")
    args = made.parse_args()
    overview, claims, correlations = [], [], []
    for cell, network in DATA:
        for direction in DIRECTIONS:
            for seed in range(args.seeds):
                adata = fitted(cell, network, direction, seed, fresh=args.fresh)
                for depth in DEPTHS:
                    place = {"cells": cell, "network": network, "direction": direction, "depth": depth, "seed": seed}
                    record, seconds = measure(adata, depth)
                    used = tr.get.record(adata, "regnet")["fit"]["participation_ratio"]
                    overview.append(lines_of(place, record, seconds, used))
                    claims += [{**place, **row} for row in record["claims"].to_dict("records")]
                    correlations += [{**place, **row} for row in record["correlations"].to_dict("records")]
                if seed == 0 and args.figures is not None and direction == "regulators":
                    figures(adata, args.figures, cell)
    report(args, pd.DataFrame(overview), pd.DataFrame(claims), pd.DataFrame(correlations))


def figures(adata, folder, cell):
    from matplotlib import pyplot as plt

    tr.tl.latent_map(adata)
    drawn = {
        "shrinkage": tr.pl.shrinkage(adata, "layer")["in_degree"],
        "alignment": tr.pl.alignment(adata, "layer"),
        "gate": tr.pl.gate(adata),
        "latent": tr.pl.latent(adata)["latent"],
        "edge_uncertainty": tr.pl.edge_uncertainty(adata),
    }
    for name, ax in drawn.items():
        ax.figure.savefig(folder / f"{name}_{cell.lower()}.png", dpi=110, bbox_inches="tight")
    plt.close("all")


def report(args, overview, claims, correlations):
    place = ["cells", "network", "direction", "depth"]
    shares = [name for name in overview if name.endswith(": aligned_share")]
    measured = ["median_weight", "q05", "q95", "median_alignment", "aligned_share", *shares]
    measured += ["participation_ratio", "rewired_overlap", "cpu_s_with_25_controls"]
    summary = overview.groupby(place, sort=False)[measured].agg(spread).reset_index()
    verdicts = (
        claims.groupby([*place, "claim"], sort=False)["verdict"]
        .agg(lambda v: ", ".join(f"{name} {n}/{len(v)}" for name, n in v.value_counts().items()))
        .reset_index()
    )
    first = claims[claims["seed"] == 0].copy()
    for name in ("value", "over_initialised", "over_rewired"):
        first[f"{name} "] = [interval(row, name) for _, row in first.iterrows()]
    shown = [
        *place,
        "claim",
        "statistic",
        "n_genes",
        "value ",
        "over_initialised ",
        "over_rewired ",
        "verdict",
        "reason",
    ]
    related = (
        correlations.groupby([*place, "quantity"], sort=False)[["value", "initialised", "rewired"]]
        .agg(spread)
        .reset_index()
    )
    tables = {"overview": overview, "claims": claims, "correlations": correlations}
    write(
        args.results,
        "shrinkage",
        title="RegNet: self weights, alignment, and the claims of its note",
        reading="a claim is 'reproduced' or 'reversed' only where the statistic and its difference to both kinds of "
        "control exclude 0 and the difference is at least 0.1. Alignment is the cosine between own and neighbours' "
        "responses; where fewer than half of the genes have 0.5 or more, the weight is no shrinkage. Deviations are "
        "over splits.",
        seeds=f"0 to {args.seeds - 1}, each for the split, the fit and the controls (5 random initialisations, 20 "
        "random graphs)",
        data=pd.concat([table.assign(table=name) for name, table in tables.items()]),
        sections=[
            ("Self weights and alignment", summary),
            ("Verdicts over seeds", verdicts),
            ("Claims, seed 0, with 95 % intervals over genes", first[shown]),
            ("Spearman's correlation with the self weight, model and controls", related),
        ],
    )


if __name__ == "__main__":
    main()
