from collections.abc import Sequence
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

# Columns that say where a row belongs, not what was measured.
_PLACES = ("run", "phase")


def history(
    adata: "AnnData | MuData",
    key: str,
    *,
    parts: str | Sequence[str] | None = None,
    mod: str | None = None,
    ax: "Axes | None" = None,
    **kwargs: Any,
) -> "Axes":
    """Draw the loss and its parts over the epochs of a fit.

    Reads the ``history`` of the record in ``adata.uns[key]``: one row per epoch and one column per part. Two columns
    are not parts: ``run`` numbers the members of an ensemble, each drawn as a thin line; ``phase`` numbers the phases
    of a schedule, whose borders are drawn as dotted lines. The epoch with the smallest
    monitored loss is marked where the record knows it (``fit["best_epoch"]``), a number for one run or one per run.

    Parameters
    ----------
    adata
        The AnnData, or a MuData with ``mod``.
    key
        Name of the record in ``adata.uns``.
    parts
        Columns of the history to draw; None draws all.
    mod
        Modality to use where ``adata`` is a MuData.
    ax
        Axes to draw in; None makes a figure.
    **kwargs
        Passed to :meth:`matplotlib.axes.Axes.plot`.

    Returns
    -------
    matplotlib.axes.Axes
        One line per part, and per run. The y axis is logarithmic where all values are positive and span two decades or
        more; change it back with ``ax.set_yscale("linear")``.

    Raises
    ------
    KeyError
        If there is no such record, or no such part.
    ValueError
        If the record has no history.

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd, sctrellis as tr
    >>> adata = anndata.AnnData(np.ones((3, 2), np.float32))
    >>> epochs = pd.Index(["0", "1", "2"], name="epoch")
    >>> losses = pd.DataFrame({"loss": [3.0, 2.0, 1.5], "kl": [0.3, 0.2, 0.2]}, index=epochs)
    >>> adata.uns["net"] = {"schema": 1, "method": "deepsem", "fit": {"best_epoch": 2}, "history": losses}
    >>> ax = tr.pl.history(adata, "net")
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['loss', 'kl', 'best epoch: 2']
    """
    record = get.record(adata, key, mod=mod)
    frame = record.get("history")
    if not isinstance(frame, pd.DataFrame) or frame.empty:
        msg = f"`adata.uns[{key!r}]` has no history: {record.get('method')!r} was not fitted over epochs."
        raise ValueError(msg)
    available = [column for column in frame.columns if column not in _PLACES]
    chosen = available if parts is None else [parts] if isinstance(parts, str) else list(parts)
    for part in chosen:
        checks.has_slot("parts", part, available, f"adata.uns[{key!r}]['history']")

    run = frame["run"].to_numpy() if "run" in frame else np.zeros(len(frame))
    runs = [np.flatnonzero(run == r) for r in np.unique(run)]
    # The index counts on from run to run: each starts again at 0.
    epoch = frame.groupby(run).cumcount().to_numpy() if len(runs) > 1 else frame.index.to_numpy()

    ax = _style.axes(ax, (5.2, 3.2))
    width = 1.6 if len(runs) == 1 else 0.8
    for i, part in enumerate(chosen):
        values = frame[part].to_numpy(dtype=float)
        look = {
            "color": _style.COLOURS[i % len(_style.COLOURS)],
            "linestyle": _style.DASHES[(i + i // len(_style.COLOURS)) % len(_style.DASHES)],
            "linewidth": width,
            **kwargs,
        }
        for j, rows in enumerate(runs):
            ax.plot(epoch[rows], values[rows], label=part if j == 0 else f"_{part}_{j}", **look)

    if "phase" in frame:
        first = runs[0]
        for at in np.flatnonzero(np.diff(frame["phase"].to_numpy()[first])):
            ax.axvline((epoch[first[at]] + epoch[first[at + 1]]) / 2, color="0.6", linewidth=0.8, linestyle=":")
    _mark_best(ax, record, epoch, frame[chosen[0]].to_numpy(dtype=float), runs)

    drawn = frame[chosen].to_numpy(dtype=float)
    drawn = drawn[np.isfinite(drawn)]
    if drawn.size and drawn.min() > 0 and drawn.max() >= 100 * drawn.min():
        ax.set_yscale("log")
    ax.set_xlabel("epoch")
    ax.set_ylabel("loss" if len(chosen) > 1 else chosen[0])
    ax.set_title(key if len(runs) == 1 else f"{key}, {len(runs)} runs", loc="left")
    _style.tidy(ax)
    _style.legend(ax)
    return ax


def _mark_best(
    ax: "Axes", record: dict[str, Any], epoch: np.ndarray, values: np.ndarray, runs: list[np.ndarray]
) -> None:
    """Mark the epoch with the smallest monitored loss: a line for one run, a dot on each line for several."""
    best = (record.get("fit") or {}).get("best_epoch")
    if best is None:
        return
    best = np.atleast_1d(np.asarray(best, dtype=float))
    if len(runs) == 1 and len(best) == 1:
        ax.axvline(best[0], color=_style.INK, linewidth=1.0, linestyle=(0, (2, 2)), label=f"best epoch: {best[0]:.0f}")
    elif len(runs) == len(best):
        at = [rows[epoch[rows] == b][0] for rows, b in zip(runs, best, strict=True) if (epoch[rows] == b).any()]
        ax.plot(epoch[at], values[at], "o", color=_style.INK, markersize=4, label="best epoch of each run")
