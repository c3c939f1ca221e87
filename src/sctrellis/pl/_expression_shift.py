from typing import TYPE_CHECKING, Any

from sctrellis.pl import _redundancy_record, _style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from mudata import MuData


def expression_shift(
    mdata: "MuData",
    target: str | None = None,
    group: str | None = None,
    *,
    key: str = "grids",
    ax: "Axes | None" = None,
    **kwargs: Any,
) -> "Axes":
    """Draw the predicted expression of a gene over the held-out cells before and after its set is perturbed.

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
        Axes to draw in; None makes a figure.
    **kwargs
        Passed to :meth:`matplotlib.axes.Axes.plot` for both curves.

    Returns
    -------
    matplotlib.axes.Axes
        Cumulative shares of the cells, before (solid) and after (dashed), and the mean change with its 95 % interval in
        the title. The distribution shows what a mean hides: whether all cells move, or some lose all.

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
    >>> task = {"group": ["a"], "target": ["gene_0"], "whole": [1.0], "whole_low": [0.9], "whole_high": [1.1]}
    >>> curve = pd.DataFrame({"group": "a", "target": "gene_0", "quantile": [0, 1], "before": [2, 3], "after": [1, 2]})
    >>> tables = {"tasks": pd.DataFrame(task), "expression": curve, "sign": -1}
    >>> mdata.uns["grids_redundancy"] = {"schema": 1, "method": "redundancy", **tables}
    >>> tr.pl.expression_shift(mdata).get_ylabel()
    'share of cells'
    """
    found = _redundancy_record.read(mdata, key).one(target, group)
    curve, task = found.expression.sort_values("quantile"), found.tasks.iloc[0]
    ax = _style.axes(ax, (4.6, 3.4))
    ax.fill_betweenx(curve["quantile"], curve["after"], curve["before"], color="0.9", linewidth=0)
    for name, colour, dash in (("before", "black", "-"), ("after", _style.COLOURS[0], (0, (5, 1.5)))):
        options = {"color": colour, "linestyle": dash, "linewidth": 1.8, "label": name, **kwargs}
        ax.plot(curve[name], curve["quantile"], **options)
    ax.set_ylim(0, 1)
    ax.set_xlabel("predicted log expression")
    ax.set_ylabel("share of cells")
    mean, low, high = (found.sign * task[f"whole{end}"] for end in ("", "_low", "_high"))
    low, high = sorted((low, high))
    ax.set_title(
        f"{task['target']} in {task['group']}\nmean change {mean:+.2f} ({low:+.2f} to {high:+.2f})".replace("-", "−"),
        loc="left",
        fontsize="medium",
    )
    _style.tidy(ax)
    ax.legend(frameon=False, loc="lower right")
    return ax
