"""What removing elements truly does in a simulated multiome."""

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from sctrellis._core import checks
from sctrellis._core.keys import CELL_SPLIT
from sctrellis.datasets._multiome import gated

if TYPE_CHECKING:
    from mudata import MuData


def true_log_mean(mdata: "MuData", target: str, *, state: Any = None) -> np.ndarray:
    """Return the true log mean of a gene's counts, without the cells' size factors, for a state of the peaks.

    Parameters
    ----------
    mdata
        A MuData from :func:`simulate_multiome`.
    target
        Name of a gene, with or without planted elements.
    state
        How open each peak is in each cell, in [0, 1]: an array or sparse matrix of shape (n_obs, n_peaks). None is the
        simulated state. Values between 0 and 1 are probabilities of independent peaks.

    Returns
    -------
    float64, shape (n_obs,).

    Raises
    ------
    KeyError, ValueError
        If `mdata` is not simulated, there is no such gene, or `state` has another shape.

    Examples
    --------
    >>> import sctrellis as tr
    >>> mdata = tr.datasets.simulate_multiome(100)
    >>> target = mdata.uns["truth"]["target"].iloc[0]
    >>> closed = tr.datasets.true_log_mean(mdata, target, state=0 * mdata["atac"].X)
    >>> float(abs(closed).max())
    0.0
    """
    elements = _elements(mdata, target)
    rna = mdata["rna"]
    gene = rna.var_names.get_loc(target)
    codes = mdata.obs["cell_group"].cat.codes.to_numpy()
    base = float(rna.var["log_base"].iloc[gene]) + rna.varm["group_effect"][gene].astype(float)[codes]
    return base + gated(elements, _columns(mdata, elements["peak"], state))


def true_drop(mdata: "MuData", target: str, peaks: Sequence[str], *, cells: np.ndarray | None = None) -> float:
    """Return by how much the true log mean of a gene falls when peaks are closed, averaged over cells.

    Parameters
    ----------
    mdata
        A MuData from :func:`simulate_multiome`.
    target
        Name of a gene, with or without planted elements.
    peaks
        Names of the peaks to close.
    cells
        Cells to average over, a Boolean mask of shape (n_obs,). None takes the test cells of the group in which the
        target is active, or all test cells where it has no planted elements.

    Returns
    -------
    The fall in log mean; 0 for peaks without effect.

    Raises
    ------
    KeyError, ValueError
        If `mdata` is not simulated, there is no such gene or peak, or `cells` chooses none.

    Examples
    --------
    >>> import sctrellis as tr
    >>> mdata = tr.datasets.simulate_multiome(100)
    >>> truth = mdata.uns["truth"]
    >>> planted = truth[truth["target"] == truth["target"].iloc[0]]
    >>> one = tr.datasets.true_drop(mdata, planted["target"].iloc[0], planted["peak"].iloc[:1])
    >>> three = tr.datasets.true_drop(mdata, planted["target"].iloc[0], planted["peak"].iloc[:3])
    >>> bool(three > 3 * one)  # any one of the three suffices
    True
    """
    elements, x = _elements_in(mdata, target, cells)
    missing = [peak for peak in peaks if peak not in mdata["atac"].var_names]
    if missing:
        msg = f'{len(missing)} of the `peaks` are not in `mdata["atac"].var_names` ({checks.some(missing)}).'
        raise ValueError(msg)
    return _drop(elements, x, elements["peak"].isin(list(peaks)).to_numpy())


def best_true_set(
    mdata: "MuData", target: str, n_peaks: int, *, cells: np.ndarray | None = None
) -> tuple[list[str], float]:
    """Return the planted elements whose closing lowers the true log mean of a gene most, found by trying all sets.

    Parameters
    ----------
    mdata
        A MuData from :func:`simulate_multiome`.
    target
        Name of a gene, with or without planted elements.
    n_peaks
        Size of the set; all planted elements where there are no more.
    cells
        Cells to average over, a Boolean mask of shape (n_obs,). None takes the test cells of the group in which the
        target is active, or all test cells where it has no planted elements.

    Returns
    -------
    The names of the set, and by how much the log mean falls: no set of `n_peaks` peaks lowers it more.

    Raises
    ------
    KeyError, ValueError
        If `mdata` is not simulated, there is no such gene, or `cells` chooses none.

    Examples
    --------
    >>> import sctrellis as tr
    >>> mdata = tr.datasets.simulate_multiome(100)
    >>> target, n_peaks = mdata.uns["targets"].loc["0", ["target", "n_peaks"]]
    >>> best, drop = tr.datasets.best_true_set(mdata, target, n_peaks)
    >>> len(best), drop == tr.datasets.true_drop(mdata, target, best)
    (3, True)
    """
    n_peaks = checks.integer("n_peaks", n_peaks)
    elements, x = _elements_in(mdata, target, cells)
    size = min(n_peaks, len(elements))
    sets = list(combinations(range(len(elements)), size))
    removed = np.zeros((len(sets), len(elements)), dtype=bool)
    for mask, members in zip(removed, sets, strict=True):
        mask[list(members)] = True
    drops = [_drop(elements, x, mask) for mask in removed]
    best = int(np.argmax(drops))
    return elements["peak"].to_numpy()[removed[best]].tolist(), drops[best]


def _elements(mdata: "MuData", target: str) -> pd.DataFrame:
    checks.has_slot("mdata", "truth", mdata.uns.keys(), "mdata.uns", "Simulate it with `datasets.simulate_multiome`.")
    checks.gene_positions("target", target, mdata["rna"].var_names)
    truth = mdata.uns["truth"]
    return truth[truth["target"] == target].reset_index(drop=True)


def _columns(mdata: "MuData", peaks: pd.Series, state: Any) -> np.ndarray:
    """Return the state of some peaks, dense, shape (n_obs, n)."""
    atac = mdata["atac"]
    state = atac.layers["state"] if state is None else state
    if state.shape != atac.shape:
        msg = f"Expected `state` to have shape {atac.shape} (cells, peaks), found {state.shape}."
        raise ValueError(msg)
    columns = state[:, atac.var_names.get_indexer(peaks)]
    return columns.toarray() if sparse.issparse(columns) else np.asarray(columns)


def _elements_in(mdata: "MuData", target: str, cells: np.ndarray | None) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the elements of a target and their state in the cells to average over."""
    elements = _elements(mdata, target)
    if cells is None:
        cells = (mdata.obs[CELL_SPLIT] == "test").to_numpy()
        if len(elements):
            cells &= (mdata.obs["cell_group"] == elements["group"].iloc[0]).to_numpy()
    elif np.shape(cells) != (mdata.n_obs,) or np.asarray(cells).dtype != bool:
        msg = f"Expected `cells` to be a Boolean mask of shape ({mdata.n_obs},), found shape {np.shape(cells)}."
        raise ValueError(msg)
    if not np.any(cells):
        msg = "`cells` chooses no cell: there is nothing to average over."
        raise ValueError(msg)
    return elements, _columns(mdata, elements["peak"], None)[np.asarray(cells)]


def _drop(elements: pd.DataFrame, x: np.ndarray, removed: np.ndarray) -> float:
    return float(np.mean(gated(elements, x) - gated(elements, np.where(removed, 0, x))))
