from collections.abc import Callable, Mapping
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sctrellis import get
from sctrellis._core import checks
from sctrellis.pl import _style

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

_ROWS = (("size", "power", "learning"), ("components", "removal"), ("certificate", "regulators"))
_VERDICT_Q = 0.2
_WIDTH = 160
_MOST_SIZES = 9
_LEVELS = {
    "linear": "linear effects",
    "logic": "acting together",
    "counts": "counted targets",
    "measurement": "half the depth",
    "confounder": "hidden cause",
}


def information(
    adata: "AnnData | MuData",
    *,
    key: str = "information",
    mod: str | None = None,
    axes: "Mapping[str, Axes] | None" = None,
) -> "dict[str, Axes]":
    """Draw what the cells can carry on one page: the verdict, and what it rests on.

    Parameters
    ----------
    adata
        The AnnData, or a MuData with ``mod``.
    key
        Name of the record of ``tl.information`` in ``adata.uns``.
    mod
        Modality to use where ``adata`` is a MuData.
    axes
        Axes to draw in, by the name of the panel; others are left out. None makes a page of all.

    Returns
    -------
    dict of matplotlib.axes.Axes, by panel; ``axes["verdict"].get_figure(root=True)`` is the page:

    ``"verdict"``
        The verdict and what was found, in words.
    ``"size"``
        Effective numbers of cells (filled) beside those of shuffled genes (open).
    ``"power"``
        Share of planted edges that are found, by the number of cells and the share of a target's variance that its
        regulators explain.
    ``"learning"``
        Variance of real targets explained in held-out cells, and agreement of two halves of the cells, by the share of
        the cells and, where there are counts, of the molecules.
    ``"components"``
        Share of each principal component that each covariate explains.
    ``"removal"``
        Discoveries that are left when components or covariates are conditioned on.
    ``"certificate"``
        False discovery rate and power in each planted world.
    ``"regulators"``
        How many regulators are seen in which share of the cells, and how reliably.

    Raises
    ------
    KeyError
        If there is no such record or panel.
    ValueError
        If the record is not one of :func:`sctrellis.tl.information`.

    Examples
    --------
    >>> import sctrellis as tr
    >>> adata = tr.datasets.simulate_grn(100, 40, 8)
    >>> tr.tl.information(adata, fractions=[0.5, 1], r2=[0.2, 0.4], n_targets=20, n_repeats=1, n_sims=2)
    >>> tr.pl.information(adata)["power"].get_xlabel()
    'cells'
    """
    record = get.record(adata, key, mod=mod)
    if record.get("method") != "information":
        msg = (
            f"`adata.uns[{key!r}]` does not say what cells can carry: it is the record of {record.get('method')!r}. "
            "Run `sctrellis.tl.information` and pass its `key_added` as `key`."
        )
        raise ValueError(msg)
    cells = adata if mod is None else adata.mod[mod]
    regulators = cells.var[[f"{key}_detection", f"{key}_reliability"]].dropna(how="all")
    regulators.columns = ["detection", "reliability"]
    lines = [line for text in record["words"] for line in wrap(f"–  {text}", _WIDTH, subsequent_indent="    ")]
    head = wrap(f"{record['verdict']['code']}: {record['verdict']['words']}", _WIDTH - 20)
    if axes is None:
        axes = _page(len(lines) + len(head), record)
    draw: dict[str, Callable[[Axes], None]] = {
        "verdict": lambda ax: _verdict(ax, head, lines),
        "size": lambda ax: _size(ax, record["size"]),
        "power": lambda ax: _power(ax, record["curve"]),
        "learning": lambda ax: _learning(ax, record["curve"]),
        "components": lambda ax: _components(ax, record["components"]),
        "removal": lambda ax: _removal(ax, record["removal"], float(record["params"]["q"])),
        "certificate": lambda ax: _certificate(ax, record["certificate"]),
        "regulators": lambda ax: _regulators(ax, regulators),
    }
    for name, ax in axes.items():
        checks.has_slot("axes", name, draw, "the panels of this page")
        draw[name](ax)
    return dict(axes)


def _page(n_lines: int, record: Mapping[str, Any]) -> "dict[str, Axes]":
    from matplotlib import pyplot as plt

    words = 0.2 * n_lines + 0.15
    heights = [
        words,
        2.7 + 0.12 * max(0, min(len(record["size"]), _MOST_SIZES) - 4),
        1.7 + 0.22 * record["components"]["covariate"].astype(str).nunique(),
        2.6,
    ]
    figure = plt.figure(figsize=(11.5, sum(heights)), layout="constrained")
    # Rows of their own: the names in one need not push the panels of another.
    first, *others = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    made = {"verdict": first.subplots()}
    for part, names in zip(others, _ROWS, strict=True):
        made.update(zip(names, part.subplots(1, len(names)), strict=True))
    return made


def _title(ax: "Axes", text: str) -> None:
    ax.set_title(text, loc="left", fontsize="medium", weight="bold", color=_style.INK)
    _style.tidy(ax)


def _verdict(ax: "Axes", head: list[str], lines: list[str]) -> None:
    ax.set_axis_off()
    text = ax.text(0, 1, "\n".join(head), transform=ax.transAxes, va="top", weight="bold", color=_style.INK)
    found = ax.annotate("\n".join(lines), (0, 0), (0, -6), xycoords=text, textcoords="offset points", va="top")
    found.set_color(_style.INK)
    # The page gives words their height; the layout must not make room for them a second time.
    for part in (text, found):
        part.set_in_layout(False)


def _size(ax: "Axes", table: pd.DataFrame) -> None:
    table = table.head(_MOST_SIZES)
    place = -np.arange(len(table))
    ax.hlines(place, table["n_eff"], table["permuted"], color="0.75", linewidth=1.6, zorder=1)
    ax.scatter(table["n_eff"], place, s=34, color=_style.COLOURS[0], zorder=2, label="these cells")
    ax.scatter(
        table["permuted"],
        place,
        s=34,
        facecolors="white",
        edgecolors=_style.COLOURS[0],
        zorder=2,
        label="genes shuffled",
    )
    for at, value in zip(place, table["n_eff"], strict=True):
        ax.annotate(
            f"{value:.3g}", (value, at), (-7, 0), textcoords="offset points", ha="right", va="center", fontsize="small"
        )
    ax.set_xscale("log")
    ax.set_xlim(table["n_eff"].min() / 4, table["permuted"].max() * 1.5)
    ax.set_ylim(place[-1] - 0.6, 0.6)
    ax.set_yticks(place, [f"{what} ({n:,})" for what, n in zip(table["what"], table["n_cells"], strict=True)])
    ax.set_xlabel("independent cells")
    _style.legend(ax, loc="upper center", bbox_to_anchor=(0.3, -0.22), ncols=2, handlelength=1.0, columnspacing=1.0)
    _title(ax, "How many cells are there?")


def _power(ax: "Axes", curve: pd.DataFrame) -> None:
    rows = curve.astype({"axis": str, "measure": str})
    rows = rows[(rows["axis"] == "cells") & (rows["measure"] == "power")]
    effects = sorted(rows["effect"].unique(), reverse=True)
    for i, effect in enumerate(effects):
        mean = rows[rows["effect"] == effect].groupby("n_cells")["value"].mean()
        ax.plot(
            mean.index,
            mean,
            color=_style.COLOURS[i % len(_style.COLOURS)],
            marker=_style.MARKERS[i % len(_style.MARKERS)],
            linestyle=_style.DASHES[i % len(_style.DASHES)],
            markersize=5,
            label=f"{effect:g}",
        )
    ax.axhline(0.8, color="0.6", linewidth=0.8, zorder=0)
    _cells_axis(ax, sorted(rows["n_cells"].unique()))
    ax.set_ylim(-0.03, 1.03)
    ax.set_xlabel("cells")
    ax.set_ylabel("power")
    _style.legend(ax, title="R²", handlelength=2.6)
    _title(ax, "Which effects would be found?")


def _cells_axis(ax: "Axes", ticks: list[Any]) -> None:
    from matplotlib.ticker import NullLocator

    ax.set_xscale("log")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks])


def _learning(ax: "Axes", curve: pd.DataFrame) -> None:
    from matplotlib.ticker import NullLocator

    rows = curve.astype({"axis": str, "measure": str})
    names = {"r2": "explained", "jaccard": "halves agree"}
    for (measure, words), colour, marker in zip(names.items(), _style.COLOURS, _style.MARKERS, strict=False):
        for axis, style, filled in (("cells", "-", True), ("depth", _style.DASHES[1], False)):
            part = rows[(rows["axis"] == axis) & (rows["measure"] == measure)]
            if len(part):
                mean = part.groupby("fraction")["value"].mean()
                ax.plot(
                    mean.index,
                    mean,
                    color=colour,
                    marker=marker,
                    markersize=5,
                    linestyle=style,
                    markerfacecolor=colour if filled else "white",
                    label=f"{words}, {axis}",
                )
    ticks = sorted(rows["fraction"].unique())
    ax.set_xscale("log")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(ticks, [f"{100 * tick:g}" for tick in ticks])
    ax.set_ylim(min(0.0, ax.get_ylim()[0]), None)
    ax.set_xlabel("cells or molecules used (%)")
    ax.set_ylabel("share")
    _style.legend(
        ax,
        loc="upper center",
        bbox_to_anchor=(0.45, -0.22),
        ncols=2,
        fontsize="small",
        columnspacing=0.8,
        handlelength=2.0,
    )
    _title(ax, "Would more help?")


def _components(ax: "Axes", table: pd.DataFrame) -> None:
    rows = table[table["component"] > 0]
    _title(ax, "What do covariates explain?")
    if rows.empty:
        ax.set_axis_off()
        ax.text(0, 0.5, "no covariate varies", transform=ax.transAxes, color=_style.INK)
        return
    rows = rows.astype({"covariate": str})
    names = list(dict.fromkeys(rows["covariate"]))
    share = rows.drop_duplicates("component").set_index("component")["share"]
    values = rows.pivot_table(index="covariate", columns="component", values="adjusted_r2", dropna=False).loc[names]
    shown = np.clip(values.to_numpy(dtype=float), 0, 1)
    ax.imshow(shown, cmap="Greys", vmin=0, vmax=1, aspect="auto")
    for (i, j), value in np.ndenumerate(shown):
        ax.text(
            j,
            i,
            "–" if np.isnan(value) else f"{100 * value:.0f}",
            ha="center",
            va="center",
            fontsize="small",
            color="white" if value > 0.5 else "black",
        )
    ax.set_yticks(range(len(names)), names)
    ax.set_xticks(range(len(share)), [f"{k}\n{100 * s:.0f} %" for k, s in share.items()])
    ax.set_xlabel("principal component, with its share of the variance")
    ax.set_title("What do covariates explain? (%)", loc="left", fontsize="medium", weight="bold", color=_style.INK)
    ax.tick_params(length=0)
    ax.spines[["left", "bottom"]].set_visible(False)


def _removal(ax: "Axes", table: pd.DataFrame, q: float) -> None:
    place = -np.arange(len(table), dtype=float)
    for name, words, shift, colour, hatch in (
        ("knockoffs", "knockoffs, a draw", 0.19, _style.COLOURS[0], None),
        ("partial_test", "least squares", -0.19, "white", "////"),
    ):
        values = table[name].to_numpy(dtype=float)
        bars = np.nan_to_num(values)
        ax.barh(place + shift, bars, 0.34, color=colour, edgecolor=_style.COLOURS[0], hatch=hatch, label=words)
        for at, value in zip(place + shift, values, strict=True):
            text = "no answer" if np.isnan(value) else f"{value:,.0f}"
            ax.annotate(
                text, (np.nan_to_num(value), at), (3, 0), textcoords="offset points", va="center", fontsize="small"
            )
    ax.set_yticks(place, table["removed"].astype(str))
    ax.margins(x=0.12)
    ax.set_xlim(0, None)
    ax.set_xlabel(f"pairs at q ≤ {q:g}")
    _style.legend(ax, handlelength=1.4)
    _title(ax, "What is left without …?")


def _certificate(ax: "Axes", table: pd.DataFrame) -> None:
    rows = table[np.isclose(table["q"], _VERDICT_Q)].astype({"level": str}).reset_index(drop=True)
    place, promised = -np.arange(len(rows)), f"promised rate, {_VERDICT_Q:g}"
    ax.axvline(_VERDICT_Q, color="black", linewidth=1.0, linestyle=_style.DASHES[1], label=promised)
    ax.errorbar(
        rows["fdr"],
        place,
        xerr=1.96 * rows["fdr_se"],
        fmt="o",
        color=_style.COLOURS[1],
        markersize=6,
        label="false discoveries",
    )
    colour = _style.COLOURS[0]
    ax.scatter(rows["power"], place, marker="s", s=34, facecolors="white", edgecolors=colour, label="power", zorder=3)
    failed = np.where(rows["passes"], "", " (fails)")
    ax.set_yticks(place, [f"{_LEVELS[level]}{mark}" for level, mark in zip(rows["level"], failed, strict=True)])
    ax.set_xlim(-0.02, 1.03)
    ax.set_ylim(place[-1] - 0.6, 0.6)
    ax.set_xlabel("share")
    _style.legend(ax, loc="upper center", bbox_to_anchor=(0.4, -0.28), ncols=3, handlelength=1.4, columnspacing=1.0)
    _title(ax, "Does error control hold?")


def _regulators(ax: "Axes", table: pd.DataFrame) -> None:
    bins = np.linspace(0, 1, 21).tolist()
    seen = "share of cells that show it"
    ax.hist(table["detection"], bins, color="0.75", edgecolor="white", linewidth=0.4, label=seen)
    if table["reliability"].notna().any():
        ax.hist(
            table["reliability"].dropna(),
            bins,
            histtype="step",
            color=_style.COLOURS[0],
            linewidth=1.8,
            label="share of its variance that is not noise",
        )
    ax.set_xlim(0, 1)
    ax.set_xlabel("share")
    ax.set_ylabel(f"regulators (of {len(table):,})")
    _style.legend(ax, loc="upper center", bbox_to_anchor=(0.5, -0.28), ncols=2, handlelength=1.6, columnspacing=1.0)
    _title(ax, "Are the regulators seen?")
