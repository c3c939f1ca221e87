from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sctrellis._core import record
from sctrellis._core import sets as _sets
from sctrellis.pl import _style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from mudata import MuData


def distance_decay(mdata: "MuData", *, key: str = "grids_hit_ratio", ax: "Axes | None" = None, **kwargs: Any) -> "Axes":
    """Draw how many selected peaks lie how far from their gene, beside what chance puts there.

    Parameters
    ----------
    mdata
        Paired RNA and ATAC with the result of ``tl.hit_ratio``.
    key
        Name of that result in ``mdata.uns``.
    ax
        Axes to draw in; None makes a figure.
    **kwargs
        Passed to :meth:`matplotlib.axes.Axes.scatter` for the selected peaks.

    Returns
    -------
    matplotlib.axes.Axes
        Bins of distance from the start of transcription. Grey bars are the range that holds 95 % of random selections
        of peaks as often open, the line across them what is expected, dots what was selected; above them observed over
        expected.

    Raises
    ------
    KeyError
        If there is no such result.
    ValueError
        If the entry holds no table of distances.

    Examples
    --------
    >>> import pandas as pd, sctrellis as tr
    >>> mdata = tr.datasets.simulate_multiome(60)
    >>> sets = mdata.uns["truth"][["group", "target", "peak"]].assign(rank=1, gain=-0.2)
    >>> mdata.uns["grids"] = {"schema": 1, "method": "grids", "sets": sets, "tasks": mdata.uns["targets"]}
    >>> table = tr.tl.hit_ratio(mdata, background="all")
    >>> tr.pl.distance_decay(mdata).get_ylabel()
    'selected peaks'
    """
    entry = record.read(mdata, key)
    table = entry.get("decay")
    if not isinstance(table, pd.DataFrame):
        msg = (
            f"`mdata.uns[{key!r}]` holds no table of distances: it is the record of {entry.get('method')!r}. Run "
            "`sctrellis.tl.hit_ratio` and pass its `key_added` as `key`."
        )
        raise ValueError(msg)
    table = _sets.plain(table)
    ax = _style.axes(ax, (2.6 + 0.75 * len(table), 3.4))
    place = np.arange(len(table))
    height = np.maximum(table["expected_high"] - table["expected_low"], 0)
    ax.bar(
        place, height, 0.6, bottom=table["expected_low"], color="0.85", edgecolor="0.6", label="chance (95 % range)",
        zorder=1,
    )  # fmt: skip
    ax.hlines(
        table["expected"], place - 0.3, place + 0.3, color="black", linewidth=1.2, label="chance (mean)", zorder=2
    )
    options = {"s": 52, "color": _style.COLOURS[0], "zorder": 3, **kwargs}
    ax.scatter(place, table["observed"], label="selected", **options)
    top = float(max(table["observed"].max(), table["expected_high"].max(), 1))
    reach = table[["observed", "expected_high"]].max(axis=1).to_numpy(dtype=float)
    for x, y, times in zip(place.tolist(), reach, table["enrichment"].to_numpy(dtype=float), strict=True):
        said = f"× {times:.2g}" if np.isfinite(times) else "–"
        ax.text(x, y + 0.04 * top, said, ha="center", va="bottom", color=_style.INK)
    ax.set_xticks(place, [_two_lines(label) for label in table["bin"]], fontsize="small")
    ax.set_ylim(-0.03 * top, 1.16 * top)
    ax.set_xlabel("distance from the start of transcription")
    ax.set_ylabel("selected peaks")
    ax.tick_params(axis="x", length=0)
    _style.tidy(ax)
    _style.legend(ax, handlelength=1.5)
    return ax


def _two_lines(label: str) -> str:
    """Return the name of a bin on two lines, the unit or the chromosome on the second."""
    if label.count(" ") > 1:
        return label.replace("-", "-\n")
    return label.replace("chromosome", "chrom.").replace(" ", "\n")
