"""Tables as text, for a terminal."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

_NAMES = {
    "auprc": "AUPRC",
    "auprc_ratio": "AUPRC ratio",
    "early_precision": "early precision",
    "early_precision_ratio": "EPR",
    "auroc": "AUROC",
    "hit_rate": "top 1 %",
    "hit_rate_ratio": "top 1 % ratio",
}


def scores(table: "pd.DataFrame") -> str:
    """Lay out a table of :func:`sctrellis.tl.evaluate`: one row per network, best first, one column per metric.

    Parameters
    ----------
    table
        The table; its numbers over all pairs (level ``"micro"``) are shown.

    Returns
    -------
    str
        Values with their 95 % interval in brackets where there is one, baselines marked, and below what was judged on.
    """
    micro = table[table["level"] == "micro"]
    metrics = list(dict.fromkeys(micro["metric"]))
    leading = next((m for m in ("auprc", "auprc_ratio") if m in metrics), metrics[0])
    order = micro[micro["metric"] == leading].sort_values(["value", "key"], ascending=[False, True])
    cells = {(row.key, row.metric): cell(row.value, row.low, row.high) for row in micro.itertuples()}
    lines = [["", "", *(_NAMES.get(metric, metric) for metric in metrics)]]
    for row in order.itertuples():
        kind = "baseline" if row.kind == "baseline" else ""
        lines.append([str(row.key), kind, *(cells[row.key, metric] for metric in metrics)])
    return f"{columns(lines)}\n\n{_judged(micro)}"


def columns(lines: list[list[str]]) -> str:
    """Return rows of text with their columns aligned to the left."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def cell(value: Any, low: Any, high: Any) -> str:
    """Return a number as text, with its interval where there is one."""
    # NaN is unequal to itself: no interval.
    return f"{value:.3f}" if low != low else f"{value:.3f} [{low:.2f}, {high:.2f}]"


def _judged(micro: "pd.DataFrame") -> str:
    first = micro.iloc[0]
    where = "all pairs" if first["fold"] == "all" else f"fold {first['fold']!r}"
    if first["pair_class"] != "all":
        where += f", class {first['pair_class']}"
    text = (
        f"Judged on {first['n_pairs']:,} pairs ({where}), of which {first['n_positive']:,} are known edges "
        f"({100 * first['base']:.1f} %)."
    )
    return text if micro["low"].isna().all() else f"{text} In brackets: 95 % intervals."
