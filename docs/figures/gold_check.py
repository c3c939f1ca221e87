"""Print the table of docs/guide/gold_check.md: claimed false discovery rates beside known edges, dendritic cells.

Run it with the folder of the real data in SCTRELLIS_DATA: ``python docs/figures/gold_check.py``. Takes a minute.
"""

import sctrellis as tr

REFERENCES = ("Specific", "Non-Specific", "STRING", "Lofgof")


def main() -> None:
    """Test all pairs by least squares and by a draw of knockoffs, and compare with every reference; seeds 0 to 2."""
    tr.settings.progress = False
    for reference in REFERENCES:
        try:
            adata = tr.datasets.beeline("mDC", reference)
        except (FileNotFoundError, ValueError) as error:
            print(f"{reference}: {error}")  # noqa: T201
            continue
        tr.tl.partial_test(adata)
        for seed in range(3):
            tr.tl.knockoffs(adata, n_draws=1, q=0.2, seed=seed, key_added=f"draw_{seed}")
        for key in ("partial_test", "draw_0", "draw_1", "draw_2"):
            table = tr.tl.gold_check(adata, key, q=(0.1, 0.2), seed=0)
            print(reference, key, tr.get.record(adata, f"{key}_gold_check")["words"])  # noqa: T201
            print(table.round(4).to_string(), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
