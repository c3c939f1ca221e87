from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sctrellis import get
from sctrellis.pl import _evaluated, _style

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

# Name in the table, label, marker, colour, whether the marker is filled, and place around the line of the metric.
_SERIES = (
    ("model", "model", "o", _style.COLOURS[0], True, -0.21),
    ("one_hot", "one-hot regression", "s", _style.COLOURS[1], False, 0.0),
    ("degree", "degree", "^", "0.35", False, 0.21),
)
_CLASSES = {
    "all": "all pairs",
    "SS": "both genes seen",
    "SU": "target unseen",
    "US": "regulator unseen",
    "UU": "both genes unseen",
}


def bias_audit(
    adata: "AnnData | MuData", *, key: str = "bias_audit", mod: str | None = None, ax: "Axes | None" = None
) -> "Axes":
    """Draw an audited network beside what knows only who the two genes are, and say the verdict.

    For each class of pairs and each metric: the network, one-hot regression and degree as dots with 95 % intervals, and
    chance as a short upright line. Where one-hot regression reaches the network, the score is gene identity.

    Parameters
    ----------
    adata
        The AnnData, or a MuData with ``mod``.
    key
        Name of the record of ``tl.bias_audit`` in ``adata.uns``.
    mod
        Modality to use where ``adata`` is a MuData.
    ax
        Axes to draw in; None makes a figure.

    Returns
    -------
    matplotlib.axes.Axes
        One group of lines per class of pairs, its number of pairs and known edges beside it, and at the right edge the
        share of the score above chance that identity reproduces. The title is the verdict.

    Raises
    ------
    KeyError
        If there is no such record.
    ValueError
        If the record holds no audit.

    Examples
    --------
    >>> import sctrellis as tr
    >>> adata = tr.datasets.simulate_grn(60, 80, 20, density=0.2)
    >>> adata.varp["network"] = adata.varp["truth"]
    >>> tr.pp.split_edges(adata)
    >>> tr.tl.baseline(adata, "pearson")
    >>> table = tr.tl.bias_audit(adata, "pearson", n_boot=50)
    >>> tr.pl.bias_audit(adata).get_xlabel()
    'value (95 % interval)'
    """
    from matplotlib.lines import Line2D

    record = get.record(adata, key, mod=mod)
    table = record.get("table")
    if record.get("method") != "bias_audit" or not isinstance(table, pd.DataFrame):
        msg = (
            f"`adata.uns[{key!r}]` holds no audit: it is the record of {record.get('method')!r}. Run "
            "`sctrellis.tl.bias_audit` and pass its `key_added` as `key`."
        )
        raise ValueError(msg)
    table = table.astype(dict.fromkeys(("pair_class", "metric", "level", "note"), str))
    rows = table[table["level"] == "micro"]
    # All pairs together are a mixture; where there are classes, they say it all.
    if rows["pair_class"].nunique() > 1:
        rows = rows[rows["pair_class"] != "all"]
    classes, metrics = list(dict.fromkeys(rows["pair_class"])), list(dict.fromkeys(rows["metric"]))

    gap = 0.9
    height = 1.6 + 0.42 * len(rows) + 0.35 * len(classes)
    ax = _style.axes(ax, (7.2, height))
    place, labels, at = [], [], 0.0
    for name in classes:
        at += gap
        part = rows[rows["pair_class"] == name].set_index("metric")
        first = part.iloc[0]
        ax.text(
            0.0,
            at - 0.62,
            f"{_CLASSES.get(name, name)}  ({int(first['n_pairs']):,} pairs, {int(first['n_positive']):,} known edges)",
            transform=ax.get_yaxis_transform(),
            ha="left",
            va="center",
            weight="bold",
            color=_style.INK,
        )
        for metric in metrics:
            line = part.loc[metric]
            place.append(at)
            labels.append(_evaluated.NAMES.get(metric, metric))
            _line(ax, line, at)
            at += 1.0
    ax.set_yticks(place, labels)
    ax.set_ylim(at - 0.35, gap - 1.05)
    low = float(np.nanmin([0.0, *(rows[f"{name}_low"].min() for name, *_ in _SERIES)]))
    ax.set_xlim(min(low, 0.0), 1.02)
    ax.set_xlabel("value (95 % interval)" if rows["model_low"].notna().any() else "value (no interval: too few genes)")
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color="0.92", linewidth=0.8)
    ax.set_axisbelow(True)
    _style.tidy(ax)
    ax.spines["left"].set_visible(False)
    ax.text(
        1.02,
        1.0,
        "identity's\nshare",
        transform=ax.transAxes,
        ha="left",
        va="bottom",
        fontsize="small",
        color=_style.INK,
    )
    handles: list[Any] = [
        Line2D(
            [],
            [],
            color=colour,
            marker=marker,
            markerfacecolor=colour if filled else "white",
            linewidth=1.6,
            label=label,
        )
        for _, label, marker, colour, filled, _ in _SERIES
    ]
    handles.append(Line2D([], [], color="black", marker="|", markersize=13, linewidth=0, label="chance"))
    _style.legend(
        ax,
        handles,
        loc="upper center",
        bbox_to_anchor=(0.45, -0.7 / (height - 1.2)),
        ncols=4,
        handlelength=2.0,
    )
    verdict = record["verdict"]
    head, _, rest = str(verdict["words"]).partition(". ")
    ax.set_title(
        f"{verdict['code']}: {head}\n" if verdict["code"] != "undecided" else f"Undecided: {head}\n",
        loc="left",
        weight="bold",
        fontsize="medium",
    )
    return ax


def _line(ax: "Axes", line: pd.Series, at: float) -> None:
    ax.plot([line["chance"]] * 2, [at - 0.36, at + 0.36], color="black", linewidth=1.4, zorder=1)
    for name, _, marker, colour, filled, shift in _SERIES:
        ax.hlines(at + shift, line[f"{name}_low"], line[f"{name}_high"], color=colour, linewidth=1.6, zorder=2)
        ax.scatter(
            line[name],
            at + shift,
            marker=marker,
            s=34,
            facecolors=colour if filled else "white",
            edgecolors=colour,
            linewidths=1.4,
            zorder=3,
        )
    share = line["bias_fraction"]
    ax.text(
        1.02,
        at,
        "–" if np.isnan(share) else f"{share:.0%}".replace("%", " %"),
        transform=ax.get_yaxis_transform(),
        ha="left",
        va="center",
        color=_style.INK,
    )
