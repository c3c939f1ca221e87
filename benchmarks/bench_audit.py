"""Audits on BEELINE's cells: better than baselines, more than degrees, calibrated, and can the cells carry it?

Needs the data described in `sctrellis.datasets.beeline` in the folder of the environment variable SCTRELLIS_DATA.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import warnings
from pathlib import Path
from typing import Any

import pandas as pd
from _common import parser, write
from unseen_genes import CELLS, NETWORKS, prepared

import sctrellis as tr

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "pearson": ("baseline", {"method": "pearson"}),
    "ridge": ("baseline", {"method": "ridge"}),
    "infosem": ("infosem", {}),
    "one_hot": ("edge_classifier", {"method": "one_hot"}),
    "matcomp": ("edge_classifier", {"method": "matcomp"}),
}
PARTS = ("baseline", "null", "calibration", "information")


def audits(cell: str, networks: list[str], folder: Path, n_jobs: int) -> list[dict[str, Any]]:
    """Return a line for each network and method of one cell type; what reads no labels is fitted once."""
    rows: list[dict[str, Any]] = []
    fitted: dict[str, Any] = {}
    for network in networks:
        adata, _ = prepared(cell, network, folder)
        for name, value in fitted.items():
            getattr(adata, "uns" if name.startswith("uns/") else "varp")[name.split("/")[1]] = value
        tr.pp.split_edges(adata, scheme="edge", val_frac=0.2, seed=0)
        for method, (function, options) in METHODS.items():
            if f"varp/{method}" not in fitted:
                getattr(tr.tl, function)(adata, **options, seed=0, progress=False, key_added=method)
                if function != "edge_classifier":
                    fitted |= {f"uns/{method}": adata.uns[method], f"varp/{method}": adata.varp[method]}
            table = tr.tl.audit(adata, method, seed=0, n_jobs=n_jobs, progress=False)
            fitted["uns/information"] = adata.uns["information"]
            line = {"cells": cell, "network": network, "method": method}
            for row in table.itertuples():
                line |= {row.part: row.passed or row.state, f"{row.part}: found": row.found}
            rows.append(line)
            print(cell, network, method, *(line[part] for part in PARTS), flush=True)
    return rows


def main() -> None:
    made = parser(__doc__.splitlines()[0])
    made.add_argument("--cells", nargs="+", default=list(CELLS), choices=CELLS, help="cell types")
    made.add_argument("--jobs", type=int, default=1, help="workers of the part that looks at the cells")
    options = made.parse_args()
    folder = Path(tr.settings.dataset_dir)
    rows: list[dict[str, Any]] = []
    for cell in options.cells:
        there = [n for n in NETWORKS if (folder / "beeline" / "networks" / n / cell).is_dir()]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rows += audits(cell, there, folder, options.jobs)
        table = pd.DataFrame(rows)
        sections: list[tuple[str, Any]] = [("Answers", table[["cells", "network", "method", *PARTS]])]
        for (name, network), part in table.groupby(["cells", "network"], sort=False):
            text = [f"- {r['method']}: " + " ".join(r[f"{p}: found"] for p in PARTS[:3]) for _, r in part.iterrows()]
            sections.append((f"{name}, {network}", "\n".join(text)))
        cells = table.drop_duplicates("cells").set_index("cells")["information: found"]
        sections.append(("Cells", "\n".join(f"- {name}: {found}" for name, found in cells.items())))
        write(
            options.results,
            "audit",
            title="Audits on BEELINE's cells, TFs+500",
            reading="`tl.audit` on the test pairs of one split of the known edges (`scheme='edge'`, pairs of known "
            "genes), default settings. baseline: the interval of AUPRC less that of the best built-in baseline lies "
            "above 0. null: at most 1 % of networks of the same degrees are found as well. calibration: log-loss of "
            "test pairs better than that of a constant. information: the cells carry single edges (I2 or I3). one_hot "
            "and matcomp have learnt from the train fold; the others know no edge.",
            seeds="0, for the split, the fits and the audits",
            data=table,
            sections=sections,
        )


if __name__ == "__main__":
    main()
