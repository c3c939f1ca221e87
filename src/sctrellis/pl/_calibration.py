from typing import TYPE_CHECKING, Literal

import pandas as pd

from sctrellis import get
from sctrellis._core import checks
from sctrellis.pl import _style

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

# Stage, colour, marker, whether it is filled, and dashes.
_STAGES = (
    ("before", "0.45", "s", False, (0, (4, 2))),
    ("after", _style.COLOURS[0], "o", True, "-"),
)
_FLOOR = 3e-4
"""Least value drawn on the logarithmic axes; a bin without an edge has a mark there."""


def calibration(
    adata: "AnnData | MuData",
    key: str,
    *,
    part: Literal["test", "fit"] = "test",
    mod: str | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the share of known edges against the probability that is claimed, before and after calibration.

    Both axes are logarithmic, since edges are rare. Points on the diagonal keep their promise; the dotted line is the
    share of edges of all pairs, which is what a constant claims.

    Parameters
    ----------
    adata
        The AnnData, or a MuData with ``mod``.
    key
        The network: the `key_added` of :func:`sctrellis.tl.calibrate`, or its `key`.
    part
        Pairs to draw: ``"test"``, or those of the ``"fit"``.
    mod
        Modality to use where ``adata`` is a MuData.
    ax
        Axes to draw in; None makes a figure.

    Returns
    -------
    matplotlib.axes.Axes
        One line per stage with 95 % intervals, a point per bin of about equally many pairs; bins without an edge are at
        the lower border. The legend has calibration error (equal mass), Brier skill and log-loss skill, the title the
        number of pairs in all and in a bin.

    Raises
    ------
    KeyError
        If there is no such record.
    ValueError
        If the record is none of a calibration, or lacks the part.

    Examples
    --------
    >>> import sctrellis as tr
    >>> adata = tr.datasets.simulate_grn(60, 80, 20, density=0.2)
    >>> adata.varp["network"] = adata.varp["truth"]
    >>> tr.pp.split_edges(adata, val_frac=0.25)
    >>> tr.tl.edge_classifier(adata, "one_hot")
    >>> tr.tl.calibrate(adata, "one_hot", n_boot=50)
    >>> tr.pl.calibration(adata, "one_hot").get_xlabel()
    'claimed probability of a known edge'
    """
    checks.choice("part", part, ("test", "fit"))
    name = f"{key}_calibration"
    record = get.record(adata, name, mod=mod)
    table, curves = record.get("table"), record.get("curves")
    if (
        record.get("method") != "calibrate"
        or not isinstance(table, pd.DataFrame)
        or not isinstance(curves, pd.DataFrame)
    ):
        msg = f"`adata.uns[{name!r}]` is the record of {record.get('method')!r}. Run `sctrellis.tl.calibrate` first."
        raise ValueError(msg)
    table, curves = (t.astype({"part": str, "stage": str}) for t in (table, curves))
    table, curves = table[table["part"] == part], curves[curves["part"] == part]
    if table.empty:
        msg = f"`part={part!r}`: `adata.uns[{name!r}]` has no report on these pairs. Use `part='fit'`."
        raise ValueError(msg)

    ax = _style.axes(ax, (6.4, 4.0))
    base = float(table["base"].iloc[0])
    shown = curves[["probability", "share", "high"]].max().max()
    low = max(_FLOOR, min(0.5 * base, 0.7 * float(curves["probability"].min())))
    ax.plot([low, 1], [low, 1], color="0.75", linewidth=1.0, zorder=1)
    ax.axhline(base, color="black", linewidth=1.0, linestyle=":", zorder=1, label=f"share of edges {base:.3g}")
    for stage, colour, marker, filled, dash in _STAGES:
        curve = curves[curves["stage"] == stage]
        if curve.empty:
            continue
        numbers = table[table["stage"] == stage].astype({"metric": str}).set_index("metric")["value"]
        label = (
            f"{stage}: ECE {numbers['ece_mass']:.3g},\nBrier skill {numbers['brier_skill']:.2g}, "
            f"log-loss skill {numbers['nll_skill']:.2g}"
        )
        x, y = curve["probability"].clip(lower=low), curve["share"].clip(lower=low)
        ax.vlines(x, curve["low"].clip(lower=low), curve["high"].clip(lower=low), color=colour, linewidth=1.2, zorder=2)
        ax.plot(
            x,
            y,
            color=colour,
            marker=marker,
            markerfacecolor=colour if filled else "white",
            markersize=5,
            linestyle=dash,
            linewidth=1.4,
            label=label,
            zorder=3,
        )
    ax.set_xscale("log")
    ax.set_yscale("log")
    top = min(1.05, 1.6 * float(shown))
    ax.set_xlim(low * 0.9, top)
    ax.set_ylim(low * 0.9, top)
    _number(ax, top / low)
    ax.set_xlabel("claimed probability of a known edge")
    ax.set_ylabel("share of known edges (95 % interval)")
    n_pairs, n_edges = int(table["n_pairs"].iloc[0]), int(table["n_positive"].iloc[0])
    last = curves[curves["stage"] == "after"]["n_pairs"]
    each = f"{int(last.min()):,}" + ("" if last.min() == last.max() else f" to {int(last.max()):,}")
    ax.set_title(
        f"{key}, {part} pairs: {n_pairs:,} with {n_edges:,} known edges, {each} a bin",
        loc="left",
        fontsize="medium",
    )
    _style.tidy(ax)
    _style.legend(ax)
    return ax


def _number(ax: "Axes", ratio: float) -> None:
    """Number both axes in plain figures: decades alone where there are two or more, else also 2 and 5 between them."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    subs = (1.0,) if ratio >= 100 else (1.0, 2.0, 5.0)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(LogLocator(subs=subs))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
