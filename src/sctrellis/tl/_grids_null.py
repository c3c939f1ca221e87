import hashlib
import json
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd
from scipy import stats

from sctrellis._core import checks, logs, record, slots
from sctrellis._core import sets as _sets
from sctrellis._core.keys import Keys
from sctrellis.tl import _null_draws as null_draws
from sctrellis.tl._surrogate import read_surrogate

if TYPE_CHECKING:
    from mudata import MuData

NullKind = Literal["permuted_pairing", "pseudo_window", "matched_sets"]
_SHOWN = 100
"""Draws of matched sets that are stored: the table sums up all of them."""


def grids_null(
    mdata: "MuData",
    key: str = "grids",
    kind: NullKind = "permuted_pairing",
    *,
    targets: str | Sequence[str] | None = None,
    groups: str | Sequence[str] | None = None,
    n_null: int | None = None,
    pooled: bool = True,
    batch: str | None = None,
    shift: int = 5_000_000,
    seed: int | None = 0,
    device: str = "auto",
    n_jobs: int | None = None,
    progress: bool | None = None,
    key_added: str | None = None,
    copy: bool = False,
) -> "MuData | None":
    r"""Say how large an effect a search finds where there is nothing to find.

    A search takes the best of very many sets, so it finds a set that seems to matter for every gene. This repeats the
    whole procedure on data in which the link is cut, and compares.

    Parameters
    ----------
    mdata
        Paired RNA and ATAC with the result of ``tl.grids`` or ``tl.attribution`` and the surrogate that it searched.
    key
        Name of that result in ``mdata.uns``.
    kind
        ``"permuted_pairing"``
            The null to judge by: expression is permuted among cells of the same group and fold, the surrogate fitted
            again, and the search run again. Means of groups stay; how cells of a group differ does not.
        ``"pseudo_window"``
            Tests locality: the same search in a window as wide as the gene's own, elsewhere on its chromosome. For
            surrogates that see all peaks.
        ``"matched_sets"``
            Describes: random sets of the gene's candidates, as often open as those that were found. They were not
            searched for, so nearly every search beats them.
    targets
        Genes to judge; None takes all with a set.
    groups
        Groups of cells to judge; None takes all with a set.
    n_null
        Permutations, windows of each gene, or sets; None is 3, 3 and 1,000.
    pooled
        Whether a task is compared with the null values of all tasks. Else with its own only, which needs some 20
        permutations. ``"permuted_pairing"`` and ``"pseudo_window"``.
    batch
        Column of ``.obs`` within which expression is permuted, beside group and fold. ``"permuted_pairing"`` only.
    shift
        Least distance in bases between the start of transcription and the middle of a window. ``"pseudo_window"`` only.
    seed
        Seed in [0, 2**32); None draws one and records it. It decides the permutations, windows and sets; surrogate and
        search keep their own seeds.
    device
        Torch device: ``"auto"`` takes CUDA when present, else the CPU; a device that is missing raises.
    n_jobs
        Permutations or windows at once: None is ``settings.n_jobs``, -1 all cores. Through joblib, so
        ``joblib.parallel_config`` applies; the result does not depend on it.
    progress
        Progress bar; None follows ``settings.progress``.
    key_added
        Key of ``mdata.uns`` for the result; None is ``key``, an underscore and `kind`.
    copy
        Return a copy with the result instead of writing to ``mdata``.

    Returns
    -------
    `None`, or the copy if ``copy=True``. Sets:

    ``mdata.uns[key_added]`` : dict
        Record of the run with two tables.

        ``tasks``, a row for each group and gene: ``effect``, the change of log expression on held-out cells in the
        direction of the search; ``null_mean``, ``null_q95``, ``null_max`` of the values that it is compared with, and
        their number ``n_null``; ``p_value``, :math:`(1 + \#\{\mathrm{null} \geq \mathrm{effect}\}) / (1 + n)`; and
        ``q_value``, p-values after Benjamini and Hochberg over tasks (NaN for ``"matched_sets"``).

        ``null``, a row for each group, gene and ``draw``: its ``effect``. For ``"matched_sets"``, the first 100 draws.

    Raises
    ------
    KeyError
        If the search, its surrogate, a column, target or group is missing.
    ValueError
        If a number is out of range, or `kind` does not suit the surrogate.

    Notes
    -----
    Permutations that are stored are not run again: with the same search, `kind`, `seed` and `batch`, a larger `n_null`
    adds to them, and gives what one run would have. After an interrupt (Ctrl-C), those that are done are kept, and the
    next call goes on from there.

    Pooling takes it that no task's null is wider than another's. Compare ``null_q95`` over tasks, from `pooled=False`,
    before relying on a small p-value of one gene.

    Cost: `n_null` times the fit of the genes concerned and their search.

    References
    ----------
    The search: :cite:p:`liu2024grids`, which reports no null.

    Examples
    --------
    >>> import sctrellis as tr
    >>> mdata = tr.datasets.simulate_multiome(600, 240, 8, n_targets=2, n_groups=2, kinds="TRAP3", seed=1)
    >>> target, group = mdata.uns["targets"].iloc[0][["target", "group"]]
    >>> tr.tl.translate(mdata, groupby="cell_group", targets=target, n_runs=1, n_null=3, max_epochs=60)
    >>> tr.tl.grids(mdata, targets=target, groups=group, n_peaks=3, n_boot=0)
    >>> tr.tl.grids_null(mdata, n_null=2)
    >>> table = tr.get.record(mdata, "grids_permuted_pairing")["tasks"]
    >>> bool(table["effect"].item() > table["null_max"].item())
    True
    """
    values = locals()
    checks.choice("kind", kind, get_args(NullKind))
    n_null = (1_000 if kind == "matched_sets" else 3) if n_null is None else checks.integer("n_null", n_null)
    if not isinstance(pooled, bool):
        msg = f"Expected `pooled` to be True or False, found {pooled!r}."
        raise TypeError(msg)
    shift, seed, workers = checks.integer("shift", shift), checks.seed(seed), checks.n_jobs(n_jobs)
    slot = Keys.for_method(f"{key}_{kind}", key_added).record
    search = _search(mdata, key, targets, groups, device, seed)
    if kind == "pseudo_window" and search.surrogate["surrogate"]["kind"] == "cis":
        msg = (
            "`kind='pseudo_window'` asks what a surrogate makes of peaks far from the gene, and a cis surrogate sees "
            "none. Use 'permuted_pairing', or fit `sctrellis.tl.translate(mdata, 'crossmodal')`."
        )
        raise ValueError(msg)
    mark = _mark(search, kind, batch, shift)
    if kind == "matched_sets":
        null, n_done = null_draws.matched_sets(search, n_null), n_null
        shown, pooled = null[null["draw"] < _SHOWN], False
    else:
        one = (
            partial(null_draws.permuted_pairing, search, batch=batch)
            if kind == "permuted_pairing"
            else partial(null_draws.pseudo_window, search, shift=shift)
        )
        null = _run(one, _stored(mdata, slot, mark, n_null), n_null, workers, progress=progress)
        shown, n_done = null, null["draw"].nunique()
    table = _compare(search.tasks, null, pooled=pooled)
    table["q_value"] = np.nan if kind == "matched_sets" else _adjusted(table["p_value"].to_numpy())
    entry = record.build(
        "grids_null",
        mdata,
        params=record.arguments(grids_null, {**values, "n_null": n_null, "pooled": pooled}),
        seed=seed,
        slots={name: f"uns/{slot}/{name}" for name in ("tasks", "null")},
        fit={"n_done": int(n_done), "mark": mark},
        extra={"tasks": table, "null": shown.reset_index(drop=True)},
    )
    root = mdata.copy() if copy else mdata
    logs.added(slots.write(root, uns={slot: entry}))
    return root if copy else None


def _search(mdata: "MuData", key: str, targets: Any, groups: Any, device: str, seed: int) -> null_draws.Search:
    """Return the search at a key with the record of its surrogate, checked."""
    from sctrellis.models import resolve_device

    found = _sets.read(mdata, key).only(targets, groups)
    known = {"grids", "attribution"}
    if found.record.get("method") not in known:
        msg = f"`mdata.uns[{key!r}]` is the record of {found.record.get('method')!r}, which cannot be run again."
        raise ValueError(msg)
    _, _, surrogate = read_surrogate(mdata, found.record["params"]["key"])
    return null_draws.Search(mdata, found, surrogate, str(resolve_device(device)), seed)


def _mark(search: null_draws.Search, kind: str, batch: str | None, shift: int) -> str:
    """Return a hash of all that decides what the draws are."""
    parts = [kind, batch, shift, search.seed, search.found.record["params"], search.surrogate["params"]]
    tasks = search.tasks
    text = json.dumps([*parts, tasks.to_dict("list")], sort_keys=True, default=lambda value: np.asarray(value).tolist())
    return hashlib.sha256(text.encode()).hexdigest()


def _stored(mdata: "MuData", slot: str, mark: str, n_null: int) -> list[pd.DataFrame]:
    """Return the draws that an earlier call has stored of the same null, in order from the first."""
    if slot not in mdata.uns:
        return []
    try:
        entry = record.read(mdata, slot)
    except ValueError:
        return []
    if entry.get("fit", {}).get("mark") != mark:
        return []
    null = _sets.plain(entry["null"])
    return [part for _, part in null[null["draw"] < n_null].groupby("draw")]


def _run(
    one: Callable[..., pd.DataFrame], done: list[pd.DataFrame], n_null: int, n_jobs: int, *, progress: bool | None
) -> pd.DataFrame:
    """Return the draws 0 to ``n_null`` - 1 that are not done yet, with those that are."""
    from joblib import Parallel, delayed

    missing = range(len(done), n_null)
    runs = Parallel(n_jobs=n_jobs, return_as="generator")(delayed(one)(draw=draw) for draw in missing)
    with warnings.catch_warnings(), logs.progress_bar(len(missing), "null", progress=progress, unit="draw") as bar:
        # Filters belong to a process, not to a thread: where draws run in threads, this one holds for all of them.
        warnings.simplefilter("ignore", UserWarning)
        try:
            for draw, found in zip(missing, runs, strict=True):
                done.append(found.assign(draw=draw))
                bar.update()
        except KeyboardInterrupt:
            if not done:
                raise
            logs.logger.warning("interrupted after %d of %d draws; the next call goes on from there", len(done), n_null)
    return pd.concat(done, ignore_index=True)[[*null_draws.TASK, "draw", "effect"]]


def _compare(tasks: pd.DataFrame, null: pd.DataFrame, *, pooled: bool) -> pd.DataFrame:
    """Return every task beside the null values that it is compared with."""
    values = null.dropna(subset=["effect"])
    everything = values["effect"].to_numpy()
    own = {task: part["effect"].to_numpy() for task, part in values.groupby(null_draws.TASK)}
    rows = []
    for task in tasks.itertuples(index=False):
        beside = everything if pooled else own.get((task.group, task.target), np.zeros(0))
        n, at_least = len(beside), int((beside >= task.effect).sum())
        rows.append(
            {
                "group": task.group,
                "target": task.target,
                "effect": task.effect,
                "null_mean": beside.mean() if n else np.nan,
                "null_q95": np.quantile(beside, 0.95) if n else np.nan,
                "null_max": beside.max() if n else np.nan,
                "n_null": n,
                "p_value": (1 + at_least) / (1 + n) if n else np.nan,
            }
        )
    return pd.DataFrame(rows)


def _adjusted(p: np.ndarray) -> np.ndarray:
    """Return q-values by Benjamini and Hochberg; NaN stays NaN and does not count."""
    q = np.full(len(p), np.nan)
    known = ~np.isnan(p)
    if known.any():
        q[known] = stats.false_discovery_control(p[known], method="bh")
    return q
