"""Read what ``tl.evaluate`` stored, for the plots of it."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from sctrellis import get
from sctrellis._core import checks

NAMES = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "auprc_ratio": "AUPRC / chance",
    "early_precision": "early precision",
    "early_precision_ratio": "early precision / chance",
    "hit_rate": "precision in the top 1 %",
    "hit_rate_ratio": "precision in the top 1 % / chance",
}


def part(adata: Any, key: str, name: str, mod: str | None) -> pd.DataFrame:
    """Return one table of the record at ``key``."""
    record = get.record(adata, key, mod=mod)
    table = record.get(name)
    if not isinstance(table, pd.DataFrame):
        msg = (
            f"`adata.uns[{key!r}]` has no {name!r}: it is the record of {record.get('method')!r}. "
            "Run `sctrellis.tl.evaluate` and pass its `key_added` as `key`."
        )
        raise ValueError(msg)
    return table.astype({column: str for column in ("key", "kind", "metric", "level") if column in table})


def choose(table: pd.DataFrame, keys: str | Sequence[str] | None, key: str) -> pd.DataFrame:
    """Return the rows of the chosen keys; the baselines stay unless some of them are chosen by name."""
    if keys is None:
        return table
    keys = [keys] if isinstance(keys, str) else [str(k) for k in keys]
    known = list(dict.fromkeys(table["key"]))
    for wanted in keys:
        checks.has_slot("keys", wanted, known, f"adata.uns[{key!r}]", "Name it when you run `sctrellis.tl.evaluate`.")
    baseline = table["kind"] == "baseline"
    if not (baseline & table["key"].isin(keys)).any():
        return table[baseline | table["key"].isin(keys)]
    return table[table["key"].isin(keys)]


def chance(metric: str, level: str, base: float) -> float | None:
    """Return what random scores reach, or None where this is not known from the table."""
    if metric.endswith("_ratio"):
        return 1.0
    if metric == "auroc":
        return 0.5
    # Averages over regulators or targets have another share of positives than all pairs together.
    return base if metric in NAMES and level == "micro" else None
