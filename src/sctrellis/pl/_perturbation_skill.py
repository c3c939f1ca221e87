from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sctrellis import get
from sctrellis.pl import _style

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

_NAMES = {
    "no_change": "no change",
    "train_mean": "mean of other perturbations",
    "additive": "sum of single perturbations",
    "linear": "linear in gene features",
    "knn": "nearest perturbations",
    "shuffled": "shuffled network",
}
_VERDICTS = {
    "better": "better than",
    "not_told": "not told from",
    "worse": "worse than",
    "undecided": "too few perturbations to compare with",
}
_LOWEST = -1.0


def perturbation_skill(
    adata: "AnnData | MuData",
    *,
    key: str = "evaluate_perturbation",
    mod: str | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw how much better, or worse, than the best baseline perturbations are predicted.

    Parameters
    ----------
    adata
        The AnnData, or a MuData with ``mod``.
    key
        Name of the record of ``tl.evaluate_perturbation`` in ``adata.uns``.
    mod
        Modality to use where ``adata`` is a MuData.
    ax
        Axes to draw in; None makes a figure.

    Returns
    -------
    matplotlib.axes.Axes
        One line per method, the best on top: its skill as a dot, filled for a model and open for a baseline, with its
        interval over perturbations. The upright line at 0 is the best baseline, the dotted one the skill that the noise
        of the observed means leaves to be had. What lies below -1 is marked at the edge. The title is the verdict on
        the first model.

    Raises
    ------
    KeyError
        If there is no such record.
    ValueError
        If the record holds no judged perturbations.

    See Also
    --------
    sctrellis.pl.perturbation : how expression changes when elements are closed, by method.

    Examples
    --------
    >>> import numpy as np, pandas as pd, sctrellis as tr
    >>> adata = tr.datasets.simulate_grn(240, 30, 6)
    >>> adata.obs["target"] = np.repeat(["control", *adata.var_names[:5]], 40)
    >>> guess = pd.DataFrame(0.1, index=adata.var_names[:5], columns=adata.var_names)
    >>> table = tr.tl.evaluate_perturbation(adata, guess, groupby="target", control="control", k=5)
    >>> tr.pl.perturbation_skill(adata).get_xlabel()
    'skill over the best baseline (95 % interval over 5 perturbations)'
    """
    record = get.record(adata, key, mod=mod)
    table = record.get("table")
    if record.get("method") != "evaluate_perturbation" or not isinstance(table, pd.DataFrame):
        msg = (
            f"`adata.uns[{key!r}]` holds no judged perturbations: it is the record of {record.get('method')!r}. Run "
            "`sctrellis.tl.evaluate_perturbation` and pass its `key_added` as `key`."
        )
        raise ValueError(msg)
    table = table.astype(dict.fromkeys(("method", "kind", "metric"), str))
    rows = table[table["metric"] == "skill"].sort_values("value", kind="stable").reset_index(drop=True)
    ax = _style.axes(ax, (7.2, 1.7 + 0.36 * len(rows)))
    left = max(_LOWEST, min(float(np.nanmin(rows[["value", "low"]])), 0.0) - 0.05)
    for at in range(len(rows)):
        _line(ax, rows.iloc[at], at, left)
    ceiling = float(record["fit"]["ceiling"])
    ax.axvline(0, color="black", linewidth=1.2, zorder=1)
    ax.axvline(ceiling, color="0.4", linewidth=1.2, linestyle=":", zorder=1)
    ax.text(ceiling, len(rows) - 0.45, "ceiling of noise ", ha="right", va="bottom", fontsize="small", color=_style.INK)
    ax.set_yticks(range(len(rows)), [_label(*row) for row in rows[["method", "kind"]].itertuples(index=False)])
    for text, kind in zip(ax.get_yticklabels(), rows["kind"], strict=True):
        text.set_fontweight("bold" if kind == "model" else "normal")
    ax.set_ylim(-0.6, len(rows) - 0.05)
    ax.set_xlim(left, max(1.02, float(rows["high"].max()) + 0.02))
    level = float(record["params"]["level"])
    what = f"{level:.0%} interval over".replace("%", " %") if rows["low"].notna().any() else "no interval:"
    ax.set_xlabel(f"skill over the best baseline ({what} {int(rows['n_perturbations'].max())} perturbations)")
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color="0.92", linewidth=0.8)
    ax.set_axisbelow(True)
    _style.tidy(ax)
    ax.spines["left"].set_visible(False)
    model, verdict = next(iter(record["verdict"].items()))
    ax.set_title(
        f"{model}: {_VERDICTS[verdict['code']]} the best baseline", loc="left", weight="bold", fontsize="medium", pad=10
    )
    return ax


def _label(name: str, kind: str) -> str:
    if kind == "model":
        return name  # as the user has named it
    first, _, rest = name.partition(" ")
    return f"{_NAMES.get(first, first)} of {rest}" if rest else _NAMES.get(name, name)


def _line(ax: "Axes", row: Any, at: float, left: float) -> None:
    model = row["kind"] == "model"
    colour = _style.COLOURS[0] if model else "0.35"
    ax.hlines(at, max(row["low"], left), max(row["high"], left), color=colour, linewidth=1.6, zorder=2)
    outside = row["value"] < left
    ax.scatter(
        max(row["value"], left),
        at,
        marker="<" if outside else "o" if model else "s",
        s=38,
        facecolors=colour if model else "white",
        edgecolors=colour,
        linewidths=1.4,
        zorder=3,
        clip_on=False,
    )
    if row["low"] < left or outside:
        ax.text(
            left,
            at + 0.18,
            (f" {row['value']:.2f}" if outside else f" to {row['low']:.2f}").replace("-", "\N{MINUS SIGN}"),
            ha="left",
            va="bottom",
            fontsize="x-small",
            color=_style.INK,
        )
