from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats

from sctrellis import get
from sctrellis._core import checks
from sctrellis.pl import _evaluated, _style

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

_EMBEDDINGS = {"shuffled": "shuffled rows", "random": "random embedding"}
_SCHEMES = {
    "edge": "held-out pairs of known genes",
    "target": "unseen targets",
    "regulator": "unseen regulators",
    "both": "unseen genes",
}
_CLASSES = {
    "SS": "both genes seen",
    "SU": "target unseen",
    "US": "regulator unseen",
    "UU": "both genes unseen",
}


def benchmark(
    adata: "AnnData | MuData",
    *,
    key: str = "benchmark",
    metric: str = "auprc",
    mod: str | None = None,
    ax: "Axes | None" = None,
) -> "Axes | dict[str, Axes]":
    """Draw a benchmark: the mean of each method over the splits with its 95 % interval, one panel per kind of pairs.

    Methods are filled dots and baselines hollow ones; every split is a small grey mark. A dotted line is chance, a
    dashed one the best baseline.

    Parameters
    ----------
    adata
        The AnnData, or a MuData with ``mod``.
    key
        Name of the record of ``tl.benchmark`` in ``adata.uns``.
    metric
        Metric of the table, over all pairs.
    mod
        Modality to use where ``adata`` is a MuData.
    ax
        Axes to draw in, where there is one panel only; None makes a figure.

    Returns
    -------
    matplotlib.axes.Axes, or a dict of them
        The axes; where there are several schemes or classes of pairs, one for each by name, as ``"edge"`` and
        ``"infosem UU"``. Methods stand in the order of their mean over the panels' ranks, the best on top, at the same
        height in every panel; one that failed everywhere has no dot. The interval is Student's over the splits, and
        missing where there is one split only.

    Raises
    ------
    KeyError
        If there is no such record.
    ValueError
        If the record holds no benchmark, no such metric, or no run that worked; or if ``ax`` is given for several
        panels.

    Examples
    --------
    >>> import sctrellis as tr
    >>> adata = tr.datasets.simulate_grn(80, 40, 12, density=0.2)
    >>> adata.varp["network"] = adata.varp["truth"]
    >>> table = tr.tl.benchmark(adata, ["pearson", "degree"], scheme="edge", seeds=2)
    >>> tr.pl.benchmark(adata).get_xlabel()
    'AUPRC'
    """
    table = _table(adata, key, mod)
    metrics = [m for m in dict.fromkeys(table["metric"]) if m]
    checks.choice("metric", metric, metrics)
    rows = table[(table["metric"] == metric) & (table["level"] == "micro")]
    if rows["value"].isna().all():
        msg = f"`adata.uns[{key!r}]`: no run has a value of {metric!r}. The column 'error' of its table says why."
        raise ValueError(msg)
    rows = rows.assign(panel=[_panel(s, c) for s, c in zip(rows["scheme"], rows["pair_class"], strict=True)])
    everything = list(dict.fromkeys(table["label"]))
    panels = list(dict.fromkeys(rows["panel"]))
    means = rows.pivot_table(index="label", columns="panel", values="value", sort=False).reindex(everything)
    order = means.rank(ascending=False).mean(axis=1).sort_values(kind="stable").index.tolist()
    kinds = table.groupby("label")["kind"].first()

    found: dict[str, Axes] = {}
    if len(panels) == 1:
        found[panels[0]] = _style.axes(ax, (6.0, 1.2 + 0.34 * len(order)))
    elif ax is not None:
        msg = f"`ax`: this benchmark has {len(panels)} panels ({', '.join(panels)}), and axes hold one. Leave it out."
        raise ValueError(msg)
    else:
        from matplotlib import pyplot as plt

        n_columns = min(len(panels), 3)
        n_rows = -(-len(panels) // n_columns)
        figure, grid = plt.subplots(
            n_rows,
            n_columns,
            figsize=(1.8 + 3.2 * n_columns, 0.7 + n_rows * (0.9 + 0.32 * len(order))),
            layout="constrained",
            sharey=True,
            squeeze=False,
        )
        found = dict(zip(panels, grid.flat, strict=False))
        for spare in grid.flat[len(panels) :]:
            spare.set_axis_off()
    for name, axes in found.items():
        _draw(axes, rows[rows["panel"] == name], order, kinds, metric)
        axes.set_title(_title(name), fontsize="medium", loc="left")
    handles = _handles(set(kinds))
    if len(found) == 1:
        _style.legend(next(iter(found.values())), handles)
        return next(iter(found.values()))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, handlelength=2.4)
    return found


def _table(adata: Any, key: str, mod: str | None) -> pd.DataFrame:
    record = get.record(adata, key, mod=mod)
    table = record.get("table")
    if record.get("method") != "benchmark" or not isinstance(table, pd.DataFrame):
        msg = (
            f"`adata.uns[{key!r}]` holds no benchmark: it is the record of {record.get('method')!r}. Run "
            "`sctrellis.tl.benchmark` and pass its `key_added` as `key`."
        )
        raise ValueError(msg)
    names = ("method", "kind", "embedding", "scheme", "pair_class", "metric", "level", "error")
    table = table.astype(dict.fromkeys(names, str))
    label = [
        method if embedding not in _EMBEDDINGS else f"{method}, {_EMBEDDINGS[embedding]}"
        for method, embedding in zip(table["method"], table["embedding"], strict=True)
    ]
    return table.assign(label=label)


def _panel(scheme: str, pair_class: str) -> str:
    return scheme if pair_class == "all" else f"{scheme} {pair_class}"


def _title(panel: str) -> str:
    scheme, _, pair_class = panel.partition(" ")
    words = _CLASSES.get(pair_class, pair_class) if pair_class else _SCHEMES.get(scheme, "")
    return f"{panel}: {words}" if words else panel


def _draw(ax: "Axes", rows: pd.DataFrame, order: list[str], kinds: pd.Series, metric: str) -> None:
    best = np.nan
    for at, label in enumerate(order):
        values = rows.loc[rows["label"] == label, "value"].dropna().to_numpy()
        if not len(values):
            continue
        baseline = kinds[label] == "baseline"
        colour = "0.35" if baseline else _style.COLOURS[0]
        mean = values.mean()
        if baseline and not best >= mean:
            best = mean
        ax.scatter(values, np.full(len(values), at), marker="|", s=60, color="0.7", linewidths=1.0, zorder=2)
        if len(values) > 1:
            half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
            ax.hlines(at, mean - half, mean + half, color=colour, linewidth=1.8, zorder=3)
        ax.scatter(
            mean, at, s=46, facecolors="white" if baseline else colour, edgecolors=colour, linewidths=1.5, zorder=4
        )
    if not np.isnan(best):
        ax.axvline(best, color="0.35", linewidth=1.0, linestyle=(0, (5, 2)), zorder=1)
    chance = _evaluated.chance(metric, "micro", float(rows["base"].mean()))
    if chance is not None:
        ax.axvline(chance, color="black", linewidth=1.0, linestyle=":", zorder=1)
    ax.set_yticks(np.arange(len(order)), order)
    ax.set_ylim(len(order) - 0.4, -0.6)
    ax.set_xlabel(_evaluated.NAMES.get(metric, metric))
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", color="0.92", linewidth=0.8)
    ax.set_axisbelow(True)
    _style.tidy(ax)
    ax.spines["left"].set_visible(False)


def _handles(kinds: set[str]) -> list[Any]:
    from matplotlib.lines import Line2D

    handles = []
    for name, fill, colour in (("method", _style.COLOURS[0], _style.COLOURS[0]), ("baseline", "white", "0.35")):
        if name in kinds:
            handles.append(
                Line2D([], [], color=colour, marker="o", markerfacecolor=fill, linewidth=1.8, label=f"{name}, 95 %")
            )
    handles.append(Line2D([], [], color="0.7", marker="|", markersize=8, linewidth=0, label="one split"))
    if "baseline" in kinds:
        handles.append(Line2D([], [], color="0.35", linewidth=1.0, linestyle=(0, (5, 2)), label="best baseline"))
    handles.append(Line2D([], [], color="black", linewidth=1.0, linestyle=":", label="chance"))
    return handles
