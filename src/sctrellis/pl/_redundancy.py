from typing import TYPE_CHECKING, Any

import numpy as np

from sctrellis.pl import _redundancy_record, _style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from mudata import MuData

_FAINT = 0.2
"""Share of the whole effect that the colours reach at least."""
_MAX_TEXT = 12
"""Peaks up to which every cell of the heat map holds its number."""


def redundancy(
    mdata: "MuData",
    target: str | None = None,
    group: str | None = None,
    *,
    key: str = "grids",
    ax: "Axes | None" = None,
    **kwargs: Any,
) -> "dict[str, Axes]":
    """Draw which peaks of a set replace one another, and what each does alone and last.

    Parameters
    ----------
    mdata
        Paired RNA and ATAC with the result of ``tl.redundancy``.
    target
        The gene; may be left out where the result has one set only.
    group
        Group of cells; may be left out where the gene has one set only.
    key
        Name of the search in ``mdata.uns``; its redundancy is at ``key + "_redundancy"``.
    ax
        Axes to draw the pairs in, with room to the right for the elements; None makes a figure.
    **kwargs
        Passed to :meth:`matplotlib.axes.Axes.imshow` for the heat map.

    Returns
    -------
    dict of matplotlib.axes.Axes
        ``"pairs"``: epistasis of every pair in natural log units, above the diagonal with all other peaks in place,
        below it with the others of the set perturbed. Positive pairs are redundant, negative ones cooperative; called
        pairs have a frame, solid or dashed. ``"elements"``: the effect of each peak perturbed alone and last, with 95 %
        intervals, and its Shapley value.

    Raises
    ------
    KeyError
        If there is no such result, target or group.
    ValueError
        If several sets fit, or the entry is not of ``tl.redundancy``.

    Examples
    --------
    >>> import pandas as pd, sctrellis as tr
    >>> mdata = tr.datasets.simulate_multiome(60)
    >>> task = {"group": "a", "target": "gene_0"}
    >>> number = dict.fromkeys(("single", "single_low", "single_high", "last_in", "last_in_low", "last_in_high"), 0.5)
    >>> elements = pd.DataFrame({**task, "rank": [1, 2], "peak": ["p", "q"], **number, "shapley": 0.5})
    >>> pair = {**task, "peak_a": "p", "peak_b": "q", "epsilon": 0.3, "epsilon_within": 0.3}
    >>> pairs = pd.DataFrame([{**pair, "call": "redundant", "call_within": "redundant"}])
    >>> whole = pd.DataFrame([{**task, "whole": 1.2, "additivity": 1.3, "additivity_low": 1.1, "additivity_high": 1.5}])
    >>> tables = {"tasks": whole, "elements": elements, "pairs": pairs, "sign": -1}
    >>> mdata.uns["grids_redundancy"] = {"schema": 1, "method": "redundancy", **tables}
    >>> sorted(tr.pl.redundancy(mdata))
    ['elements', 'pairs']
    """
    from matplotlib.patches import Rectangle

    found = _redundancy_record.read(mdata, key).one(target, group)
    task, elements = found.tasks.iloc[0], found.elements.sort_values("rank", ignore_index=True)
    n = len(elements)
    place = {peak: i for i, peak in enumerate(elements["peak"])}
    matrix = np.full((n, n), np.nan)
    frames = []
    for pair in found.pairs.itertuples():
        i, j = sorted((place[pair.peak_a], place[pair.peak_b]))
        matrix[i, j], matrix[j, i] = pair.epsilon, pair.epsilon_within
        frames += [(j, i, pair.call), (i, j, pair.call_within)]

    side = max(2.4, 0.42 * n + 0.8)
    ax = _style.axes(ax, (2.1 * side + 2.6, side + 1.2))
    bar, beside = ax.inset_axes((1.03, 0, 0.05, 1)), ax.inset_axes((1.38, 0, 0.75, 1))
    # What is small beside the whole stays pale.
    limit = max(float(np.nanmax(np.abs(matrix), initial=0)), _FAINT * abs(float(task["whole"]))) or 1.0
    options = {"cmap": "PuOr_r", "vmin": -limit, "vmax": limit, "aspect": "equal", **kwargs}
    image = ax.imshow(np.ma.masked_invalid(matrix), **options)
    ax.figure.colorbar(image, cax=bar)
    bar.set_title("epistasis", fontsize="small", loc="left")
    bar.tick_params(labelsize="small")
    for x, y, call in frames:
        if n <= _MAX_TEXT:
            dark = abs(matrix[y, x]) > 0.6 * limit
            text = f"{matrix[y, x]:+.2f}".replace("-", "−") if abs(matrix[y, x]) >= 0.005 else "0"
            ax.text(x, y, text, ha="center", va="center", fontsize=7, color="white" if dark else "black")
        if call in ("redundant", "cooperative"):
            dash = "-" if call == "redundant" else (0, (2, 1))
            ax.add_patch(
                Rectangle(
                    (x - 0.46, y - 0.46), 0.92, 0.92, fill=False, edgecolor="black", linewidth=1.5, linestyle=dash
                )
            )
    labels = elements["rank"].astype(int).astype(str)
    ax.set_xticks(range(n), labels)
    ax.set_yticks(range(n), [f"{peak}  {rank}" for peak, rank in zip(elements["peak"], labels, strict=True)])
    ax.tick_params(length=0, labelsize="small")
    ax.set_xlabel("rank  (above: from nothing; below: within the set)", fontsize="small")
    ax.set_title(f"{task['target']} in {task['group']}", loc="left", fontsize="medium", weight="bold")

    rows = np.arange(n)
    styles: tuple[tuple[float, str, str, dict[str, Any]], ...] = (
        (-0.19, "single", "alone", {"color": "0.75", "edgecolor": "black"}),
        (0.19, "last_in", "last", {"color": _style.COLOURS[0], "edgecolor": "black", "hatch": "////"}),
    )
    for shift, name, label, style in styles:
        beside.barh(rows + shift, elements[name], 0.36, label=label, linewidth=0.8, **style)
        beside.hlines(rows + shift, elements[f"{name}_low"], elements[f"{name}_high"], color="black", linewidth=1.2)
    beside.scatter(
        elements["shapley"], rows, marker="D", s=26, color="white", edgecolors="black", zorder=3, label="Shapley"
    )
    beside.axvline(0, color="black", linewidth=0.8)
    beside.set_ylim(ax.get_ylim())
    beside.set_yticks(rows, labels)
    beside.tick_params(axis="y", length=0, labelsize="small")
    beside.tick_params(axis="x", labelsize="small")
    beside.set_xlabel("effect (log units)", fontsize="small")
    index = f"{task['additivity']:.2g} ({task['additivity_low']:.2g} to {task['additivity_high']:.2g})"
    beside.set_title(f"whole {task['whole']:.2f}, whole / sum {index}", loc="left", fontsize="small")
    _style.tidy(beside)
    beside.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return {"pairs": ax, "elements": beside}
