"""Draw docs/guide/audit_mdc.png and print what the page says: two audits on dendritic cells.

Run it with the folder of the real data in SCTRELLIS_DATA: ``python docs/figures/audit.py``. Takes a few minutes.
"""

from pathlib import Path

import matplotlib as mpl

import sctrellis as tr

GUIDE = Path(__file__).parents[1] / "guide"


def main() -> None:
    """Audit a ridge regression and matrix completion against the non-specific network, seed 0."""
    mpl.use("Agg")
    adata = tr.datasets.beeline("mDC", "Non-Specific")
    tr.pp.split_edges(adata, val_frac=0.2, seed=0)
    tr.tl.baseline(adata, "ridge")
    tr.tl.edge_classifier(adata, "matcomp", progress=False)
    for key in ("ridge", "matcomp"):
        table = tr.tl.audit(adata, key, progress=False)
        for row in table.itertuples():
            print(f"{key} {row.part} [{row.state}; {row.passed}; {row.seconds:.1f} s] {row.found}", flush=True)  # noqa: T201
    page = tr.pl.audit(adata, "matcomp")["null"].get_figure(root=True)
    page.savefig(GUIDE / "audit_mdc.png", dpi=110)


if __name__ == "__main__":
    main()
