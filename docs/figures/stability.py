"""Print the tables of docs/guide/stability.md: how far two halves of the dendritic cells agree.

Run it with the folder of the real data in SCTRELLIS_DATA: ``python docs/figures/stability.py``. Takes a few minutes.
"""

import sctrellis as tr

N_PAIRS = 25


def main() -> None:
    """Halve the cells 25 times, for three methods; seed 0."""
    tr.settings.progress = False
    adata = tr.datasets.beeline("mDC", "Non-Specific")
    for method in ("pearson", "partial", "ridge"):
        tr.tl.stability(adata, method, n=N_PAIRS, seed=0)
        entry = tr.get.record(adata, "stability")
        agreement = entry["agreement"]
        print(entry["words"])  # noqa: T201
        print(agreement[["jaccard", "chance", "correlation"]].agg(["mean", "std", "min", "max"]).round(4))  # noqa: T201
        print(entry["selected"].round(1).to_string(), entry["fit"], flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
