from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sctrellis import get
from sctrellis._core import checks
from sctrellis.pl import _evaluated, _style

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

_KEPT = {
    "degree": "same degrees of regulators and targets",
    "maxent": "same average degrees of regulators and targets",
    "regulator": "same degrees of regulators",
    "labels": "same number of edges (for contrast only)",
    "cells": "correlations in shuffled cells (smoke test only)",
}


def null(
    adata: "AnnData | MuData",
    key: str,
    metric: str | None = None,
    *,
    bins: int = 25,
    mod: str | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw what random known edges get from a network, beside what the real ones get.

    Parameters
    ----------
    adata
        The AnnData, or a MuData with ``mod``.
    key
        Name of the record of ``tl.null`` in ``adata.uns``, such as ``"infosem_null"``.
    metric
        Metric to draw; None takes the first one of the record.
    bins
        Bars of the histogram.
    mod
        Modality to use where ``adata`` is a MuData.
    ax
        Axes to draw in; None makes a figure.

    Returns
    -------
    matplotlib.axes.Axes
        A histogram of the random networks, a thick line at the value of the known one and a dashed line at chance. The
        title says how far the known one lies above both.

    Raises
    ------
    KeyError
        If there is no such record or metric.
    ValueError
        If the record is not one of :func:`sctrellis.tl.null`.

    Examples
    --------
    >>> import sctrellis as tr
    >>> adata = tr.datasets.simulate_grn(200, 60, 12, density=0.2)
    >>> tr.tl.baseline(adata, "pearson")
    >>> table = tr.tl.null(adata, "pearson", network="truth", n_perm=99)
    >>> tr.pl.null(adata, "pearson_null", "auroc").get_xlabel()
    'AUROC'
    """
    bins = checks.integer("bins", bins)
    record = get.record(adata, key, mod=mod)
    table = record.get("table")
    if record.get("method") != "null" or not isinstance(table, pd.DataFrame):
        msg = (
            f"`adata.uns[{key!r}]` holds no null: it is the record of {record.get('method')!r}. Run "
            "`sctrellis.tl.null` and name what it wrote, such as 'infosem_null'."
        )
        raise ValueError(msg)
    table = table.astype({"metric": str}).set_index("metric")
    metric = str(table.index[0]) if metric is None else metric
    checks.has_slot("metric", metric, table.index, f"adata.uns[{key!r}]", "Name it when you run `sctrellis.tl.null`.")
    wanted = ["observed", "chance", "z", "p", "ratio_to_null", "ratio_to_chance"]
    line = table.loc[metric, wanted].astype(float).to_dict()
    drawn = record["replicates"][metric].to_numpy()
    kind = str(record["params"]["kind"])

    ax = _style.axes(ax, (6.4, 3.6))
    n_before = len(ax.patches)
    ax.hist(drawn, bins=bins, color="0.72", edgecolor="white", linewidth=0.4)
    handles = [
        ax.patches[n_before],
        ax.axvline(line["observed"], color=_style.COLOURS[0], linewidth=2.6, zorder=3),
        ax.axvline(line["chance"], color=_style.COLOURS[1], linewidth=1.6, linestyle=_style.DASHES[1], zorder=2),
    ]
    low, high = (f([drawn.min(), drawn.max(), line["observed"], line["chance"]]) for f in (np.min, np.max))
    margin = 0.05 * (high - low) or 0.01
    ax.set_xlim(low - margin, high + margin)
    ax.set_xlabel(_evaluated.NAMES.get(metric, metric))
    drawn_are = "shuffles of the cells" if kind == "cells" else "random networks"
    ax.set_ylabel(f"{drawn_are} (of {len(drawn):,})")
    _style.tidy(ax)
    name = "chance" if metric == "auroc" else "density"
    ax.set_title(
        f"{line['ratio_to_null']:.2f} × the null, {line['ratio_to_chance']:.2f} × {name}\n"
        + (f"z = {line['z']:.1f}, " if np.isfinite(line["z"]) else "the null does not vary, ")
        + f"p = {line['p']:.2g}",
        loc="left",
        fontsize="medium",
    )
    names = (f"random: {_KEPT.get(kind, kind)}", "known network", name)
    for handle, label in zip(handles, names, strict=True):
        handle.set_label(label)
    _style.legend(ax, handles, loc="upper center", bbox_to_anchor=(0.5, -0.24), ncols=1, handlelength=2.0)
    return ax
