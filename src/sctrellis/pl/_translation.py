from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sctrellis import get
from sctrellis._core import checks, slots
from sctrellis.pl import _style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from mudata import MuData

PANELS = ("means", "genes", "embedding")


def translation(
    mdata: "MuData",
    *,
    key: str = "translate",
    basis: str = "X_umap",
    ax: "Mapping[str, Axes] | None" = None,
    **kwargs: Any,
) -> "dict[str, Axes]":
    """Draw what a surrogate predicts beside what was observed in the test cells, and which genes it learnt.

    Parameters
    ----------
    mdata
        The paired data.
    key
        Name of the record of ``tl.translate`` in ``mdata.uns``.
    basis
        Key of two coordinates of the cells in ``.obsm`` of the modalities, such as a UMAP of the codes of
        ``kind="crossmodal"``. They are drawn where they are stored.
    ax
        Axes by the name of their panel: ``"means"``, ``"genes"``, ``"embedding"``; only these are drawn. None makes a
        figure of all that there is to draw.
    **kwargs
        Passed to :meth:`matplotlib.axes.Axes.scatter`.

    Returns
    -------
    dict of matplotlib.axes.Axes
        ``"means"``: predicted over observed mean expression, a dot for each gene and group, and the line on which both
        are equal. ``"genes"``: Pearson's r within groups of each gene, in falling order, with the 95 % quantile of the
        null as a broken line; genes about which something was learnt are filled. ``"embedding"``: the stored
        coordinates of the cells by group, filled for RNA and open for translated ATAC.

    Raises
    ------
    KeyError
        If there is no such record, or a panel is asked for that there is nothing to draw in.
    ValueError
        If the record is of something else.

    Examples
    --------
    >>> import sctrellis as tr
    >>> mdata = tr.datasets.simulate_multiome(120, 240, 8, n_targets=2)
    >>> tr.tl.translate(mdata, groupby="cell_group", n_runs=1, n_null=3, max_epochs=3)
    >>> sorted(tr.pl.translation(mdata))
    ['genes', 'means']
    """
    checks.has_slot("key", key, mdata.uns.keys(), "mdata.uns", "Run `sctrellis.tl.translate` first.")
    record = get.record(mdata, key)
    if record.get("method") != "translate":
        msg = (
            f"`mdata.uns[{key!r}]` is the record of {record.get('method')!r}. Run `sctrellis.tl.translate` and pass "
            "its `key_added` as `key`."
        )
        raise ValueError(msg)
    clouds = _clouds(mdata, record, basis)
    available = PANELS if clouds else PANELS[:2]
    if ax is None:
        from matplotlib import pyplot as plt

        _, made = plt.subplots(1, len(available), figsize=(4.6 * len(available), 3.9), layout="constrained")
        panels = dict(zip(available, np.atleast_1d(made), strict=True))
    else:
        panels = dict(ax)
        for name in panels:
            if name not in available:
                listed = ", ".join(map(repr, available))
                msg = f"`ax`: there is nothing to draw in a panel {name!r}. Available: {listed}."
                raise KeyError(msg)
    names = list(record["groups"].index.astype(str))
    if "means" in panels:
        _means(panels["means"], record, names, kwargs)
    if "genes" in panels:
        _genes(panels["genes"], record["genes"], kwargs)
    if "embedding" in panels:
        _embedding(panels["embedding"], clouds, names, basis, kwargs)
    return panels


def _clouds(mdata: "MuData", record: Mapping[str, Any], basis: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the stored coordinates of each modality, and the group of each cell."""
    params = record["params"]
    if params["groupby"] is None:
        groups = np.full(mdata.n_obs, "all", dtype=object)
    else:
        groups = slots.read_obs(mdata, params["groupby"]).astype(str).to_numpy()
    found = {}
    for name in ("rna", "atac"):
        stored = mdata.mod[params[name]].obsm
        if basis in stored:
            found[name] = (np.asarray(stored[basis])[:, :2], groups)
    return found


def _means(ax: "Axes", record: Mapping[str, Any], names: list[str], kwargs: Mapping[str, Any]) -> None:
    table = record["by_group"].astype({"group": str})
    counted = record["surrogate"]["likelihood"] == "nb"
    for i, name in enumerate(names):
        rows = table[table["group"] == name]
        r = record["groups"]["r_of_means"].iloc[i]
        ax.scatter(
            rows["observed"], rows["predicted"], label=f"{name} (r = {r:.3f})", **{**_dots(i), **kwargs}
        )  # fmt: skip
    if counted:
        positive = table[["observed", "predicted"]].to_numpy()
        positive = positive[positive > 0]
        # Linear near 0, where groups without a count lie.
        scale = {"linthresh": float(np.quantile(positive, 0.05)) if len(positive) else 1.0}
        ax.set_xscale("symlog", **scale)
        ax.set_yscale("symlog", **scale)
    low, high = (float(f(table[["observed", "predicted"]].to_numpy())) for f in (np.nanmin, np.nanmax))
    ax.plot([low, high], [low, high], color=_style.INK, linewidth=1, zorder=1)
    what = "mean count per cell of mean size" if counted else "mean log-normalised expression"
    ax.set_xlabel(f"observed {what}")
    ax.set_ylabel(f"predicted {what}")
    ax.set_title("Means of groups, test cells", loc="left", fontsize="medium")
    ax.legend(frameon=False, fontsize="small", handletextpad=0.2, borderpad=0)
    _style.tidy(ax)


def _genes(ax: "Axes", table: pd.DataFrame, kwargs: Mapping[str, Any]) -> None:
    table = table.sort_values("r_within", ascending=False, kind="stable")
    rank = np.arange(1, len(table) + 1)
    learned = table["learned"].to_numpy(dtype=bool)
    colour = _style.COLOURS[0]
    for chosen, face, label in ((learned, colour, "learnt"), (~learned, "white", "not learnt")):
        style = {"s": 20, "facecolors": face, "edgecolors": colour, "linewidths": 0.9, "zorder": 3}
        ax.scatter(rank[chosen], table["r_within"][chosen], label=f"{label} ({chosen.sum():,})", **{**style, **kwargs})
    bar = table["null_q95"].iloc[0]
    if np.isfinite(bar):
        ax.axhline(bar, color=_style.INK, linewidth=1, linestyle=(0, (5, 2)), label="95 % of the null")
    ax.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    ax.set_xlabel("gene, by rank")
    ax.set_ylabel("r within groups, test cells")
    ax.set_title("What was learnt beyond the means", loc="left", fontsize="medium")
    ax.legend(frameon=False, fontsize="small", handletextpad=0.4, borderpad=0)
    _style.tidy(ax)


def _embedding(
    ax: "Axes",
    clouds: Mapping[str, tuple[np.ndarray, np.ndarray]],
    names: list[str],
    basis: str,
    kwargs: Mapping[str, Any],
) -> None:
    said = {"rna": "RNA", "atac": "translated ATAC"}
    for modality, (points, groups) in clouds.items():
        for i, name in enumerate(names):
            mine = groups == name
            style = _dots(i) if modality == "rna" else {**_dots(i), "facecolors": "none"}
            ax.scatter(*points[mine].T, label=f"{name}, {said[modality]}", **{**style, "s": 8, **kwargs})
    axis = basis.removeprefix("X_").upper()
    ax.set_xlabel(f"{axis} 1")
    ax.set_ylabel(f"{axis} 2")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_title("Codes of the cells", loc="left", fontsize="medium")
    _style.legend(ax, fontsize="small", handletextpad=0.2)
    _style.tidy(ax)


def _dots(i: int) -> dict[str, Any]:
    """Return colour and marker of the i-th group, which differ in grey too."""
    colour = _style.COLOURS[i % len(_style.COLOURS)]
    marker = _style.MARKERS[i % len(_style.MARKERS)]
    return {"s": 18, "marker": marker, "facecolors": colour, "edgecolors": colour, "linewidths": 0.7, "zorder": 3}
