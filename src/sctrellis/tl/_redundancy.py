from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from sctrellis._core import checks, draws, logs, record, slots
from sctrellis._core import sets as _sets
from sctrellis._core.keys import Keys
from sctrellis.tl._held_out import held_out
from sctrellis.tl._surrogate import read_surrogate

if TYPE_CHECKING:
    from mudata import MuData

    from sctrellis.explain import Epistasis, SetChange

_CALLS = {1: "redundant", -1: "cooperative", 0: "none"}
_QUANTILES = np.linspace(0, 1, 101)
_OF_TASK = ("whole", "additivity", "redundancy")
_OF_ELEMENT = ("single", "last_in", "compensation", "shapley")
_OF_PAIR = ("epsilon", "epsilon_within")


def redundancy(
    mdata: "MuData",
    key: str = "grids",
    *,
    targets: str | Sequence[str] | None = None,
    groups: str | Sequence[str] | None = None,
    n_boot: int = 1_000,
    n_permutations: int = 2_000,
    seed: int | None = 0,
    device: str = "auto",
    progress: bool | None = None,
    key_added: str | None = None,
    copy: bool = False,
) -> "MuData | None":
    r"""Say which elements of a set replace one another, which add up, and which need one another.

    Reads the sets of a search and the surrogate that it searched, and perturbs every element alone, last, in pairs and
    on average over all orders, in the cells that were held out of fit and search.

    Parameters
    ----------
    mdata
        Paired RNA and ATAC with the result of ``tl.grids`` or ``tl.attribution`` and the surrogate that it searched.
    key
        Name of that result in ``mdata.uns``.
    targets
        Genes whose sets are taken apart; None takes all.
    groups
        Groups of cells whose sets are taken apart; None takes all.
    n_boot
        Resamples of the cells for the intervals; 0 leaves limits NaN and calls nothing.
    n_permutations
        Orders drawn for the Shapley values of sets of more than 10 elements; smaller sets are exact.
    seed
        Seed of resampling and of the drawn orders, in [0, 2**32); None draws one and records it. What a set draws does
        not depend on the sets beside it.
    device
        Torch device: ``"auto"`` takes CUDA when present, else the CPU; a device that is missing raises.
    progress
        Progress bar over the sets; None follows ``settings.progress``.
    key_added
        Base of the names of the slots; None is ``key``.
    copy
        Return a copy with the result instead of writing to ``mdata``.

    Returns
    -------
    `None`, or the copy if ``copy=True``. Sets:

    ``mdata[atac].varp[key_added + "_epistasis"]`` : csr_matrix, float32, shape (n_peaks, n_peaks)
        Epistasis of every pair of elements of a set, symmetric: positive for redundant, negative for cooperative pairs.
        Of a pair in several sets, the value furthest from 0. Absent = in no set together.
    ``mdata.uns[key_added + "_redundancy"]`` : dict
        Record of the run, with ``sign`` (-1 where sets lower expression) and tables. Effects are in natural log units,
        positive in the direction of the search; quantities have their 95 % interval in two columns more, ``_low`` and
        ``_high``.

        ``tasks``
            ``whole``, the effect of the whole set; ``additivity``, that over the sum of the single effects (above 1
            redundant, 1 additive, below 1 cooperative); ``redundancy``, 1 - largest single effect / ``whole``; numbers
            of elements, cells, redundant and cooperative pairs; ``exact`` for Shapley values from all subsets.
        ``elements``
            ``single``, ``last_in`` (with all others perturbed), ``compensation`` (1 - single / last_in: 1 completely
            buffered, 0 additive, negative in series; NaN where last_in is below 0.001), ``shapley``, and ``p_open``,
            the share of the cells in which the peak is open.
        ``pairs``
            ``epsilon``, the effect of both less the single effects, and ``epsilon_within``, the same with the others of
            the set perturbed; ``call`` and ``call_within``: ``"redundant"``, ``"cooperative"`` or ``"none"``.
        ``expression``
            Quantiles of the predicted log expression over the cells, ``before`` and ``after`` the whole set.

    Raises
    ------
    KeyError
        If the search, its surrogate, a target or a group is missing.
    ValueError
        If the surrogate is of other genes or peaks, a group has fewer than 2 held-out cells, or a number is out of
        range.

    Notes
    -----
    Definitions and cost are those of ``sctrellis.explain.epistasis``. On the log scale no epistasis means that
    effects multiply in counts, which is how enhancers mostly combine :cite:p:`zhou2024enhancers`; exceptions are known
    :cite:p:`osterwalder2018enhancer,lin2022nested`, so that a finding of much redundancy asks for the null of
    :func:`sctrellis.tl.grids_null` beside it.

    A pair is called where the interval excludes 0 and epistasis passes a tenth of the whole effect, without correction
    for the number of pairs. Intervals hold for other cells of the same kind. They do not cover the surrogate: what it
    did not learn it cannot call, and dropout teaches it additivity. Read ``p_open`` beside every verdict: two peaks
    that replace one another have an additivity index of 5.5 when each is seen open in 90 % of the cells, and of 1.1 at
    20 %.

    References
    ----------
    Sets of elements that matter together: :cite:p:`liu2024grids`; the measures of redundancy are ours.

    Examples
    --------
    >>> import sctrellis as tr
    >>> mdata = tr.datasets.simulate_multiome(600, 240, 8, n_targets=2, n_groups=2, kinds="TRAP3", seed=1)
    >>> target, group = mdata.uns["targets"].iloc[0][["target", "group"]]
    >>> tr.tl.translate(mdata, groupby="cell_group", targets=target, n_runs=1, n_null=3, max_epochs=60)
    >>> tr.tl.grids(mdata, targets=target, groups=group, n_peaks=3, n_boot=0)
    >>> tr.tl.redundancy(mdata)
    >>> tr.get.record(mdata, "grids_redundancy")["pairs"]["call_within"].tolist()
    ['redundant', 'redundant', 'redundant']
    """
    values = locals()
    from sctrellis.explain import SetChange, epistasis
    from sctrellis.models import resolve_device

    n_boot = checks.integer("n_boot", n_boot, minimum=0)
    n_permutations = checks.integer("n_permutations", n_permutations, minimum=2)
    seed = checks.seed(seed)
    base = Keys.for_method(key, key_added).record
    found = _sets.read(mdata, key).only(targets, groups)
    params = found.record["params"]
    translator, paired, entry = read_surrogate(mdata, params["key"])
    translator = translator.to(resolve_device(device))
    rna, atac = entry["params"]["rna"], entry["params"]["atac"]
    genes, peaks = slots.multiome(mdata, rna, atac)
    sign = 1 if params["direction"] == "up" else -1

    tables = _Tables()
    tasks = list(found.sets.groupby(["group", "target"], sort=False))
    with logs.progress_bar(len(tasks), "redundancy", progress=progress, unit="set") as bar:
        for (group, target), rows in tasks:
            at = slots.positions(peaks, rows["peak"], f"mdata.uns[{key!r}]")
            gene = int(slots.positions(genes, [str(target)], f"mdata.uns[{key!r}]")[0])
            cells = held_out(mdata, paired, found.record, entry, str(group))
            change = SetChange(
                translator,
                gene,
                paired.accessibility[cells],
                groups=paired.groups[cells],
                peaks=at,
                value=float(params["value"]),
            )
            own = np.random.SeedSequence(seed, spawn_key=tuple(map(int, draws.hashes([str(target), str(group)]))))
            result = epistasis(
                change,
                len(rows),
                sign=sign,
                n_boot=n_boot,
                n_permutations=n_permutations,
                seed=int(own.generate_state(1)[0]),
            )
            is_open = np.asarray((paired.accessibility[cells][:, at] != 0).mean(axis=0)).ravel()
            tables.add(rows, result, is_open, len(cells))
            tables.add_expression(rows, change)
            bar.update()

    names = {"network": f"{base}_epistasis", "record": f"{base}_redundancy"}
    stored = record.build(
        "redundancy",
        mdata,
        params=record.arguments(redundancy, values),
        seed=seed,
        slots={"epistasis": f"mod/{atac}/varp/{names['network']}"},
        extra={"sign": sign, **tables.frames()},
    )
    root = mdata.copy() if copy else mdata
    network = tables.network(peaks.var_names)
    added = slots.write(root.mod[atac], varp={names["network"]: network})
    logs.added([*added, *slots.write(root, uns={names["record"]: stored})])
    return root if copy else None


class _Tables:
    """Rows of the tables, set by set."""

    def __init__(self) -> None:
        self.tasks: list[dict[str, Any]] = []
        self.parts: dict[str, list[pd.DataFrame]] = {"elements": [], "pairs": [], "expression": []}

    def add(self, rows: pd.DataFrame, found: "Epistasis", is_open: np.ndarray, n_cells: int) -> None:
        """Add what was found of a set, given as its rows of the search."""
        task = {name: str(rows[name].iloc[0]) for name in ("group", "target")}
        line: dict[str, Any] = {**task, "n_elements": len(rows), "n_cells": n_cells}
        for name in _OF_TASK:
            line |= {key: float(value) for key, value in _columns(found, name).items()}
        line |= {f"n_{name}": int((found.call == call).sum()) for call, name in _CALLS.items() if call}
        self.tasks.append({**line, "exact": found.exact})
        peak = rows["peak"].to_numpy()
        elements = {"rank": rows["rank"].to_numpy(), "peak": peak}
        for name in _OF_ELEMENT:
            elements |= _columns(found, name)
        self.parts["elements"].append(pd.DataFrame({**elements, "p_open": is_open}).assign(**task))
        first, second = found.pairs.T
        pairs = {"peak_a": peak[first], "peak_b": peak[second]}
        for name in _OF_PAIR:
            pairs |= _columns(found, name)
        for name in ("call", "call_within"):
            pairs[name] = np.array([_CALLS[int(call)] for call in getattr(found, name)], dtype=object)
        self.parts["pairs"].append(pd.DataFrame(pairs).assign(**task))

    def add_expression(self, rows: pd.DataFrame, change: "SetChange") -> None:
        """Add the distribution of the predicted expression before and after."""
        before = change.before
        after = before + change(np.ones((1, len(rows)), dtype=bool))[0]
        curve = {"quantile": _QUANTILES, "before": np.quantile(before, _QUANTILES)}
        curve["after"] = np.quantile(after, _QUANTILES)
        task = {name: str(rows[name].iloc[0]) for name in ("group", "target")}
        self.parts["expression"].append(pd.DataFrame(curve).assign(**task))

    def frames(self) -> dict[str, pd.DataFrame]:
        """Return the tables, those without rows left out."""
        frames = {"tasks": pd.DataFrame(self.tasks)}
        for name, parts in self.parts.items():
            table = pd.concat(parts, ignore_index=True)
            if len(table):
                first = ["group", "target"]
                frames[name] = table[[*first, *table.columns.drop(first)]]
        return frames

    def network(self, var_names: pd.Index) -> sparse.csr_matrix:
        """Return the epistasis of every pair of peaks, symmetric; the largest where a pair is in several sets."""
        pairs = pd.concat(self.parts["pairs"], ignore_index=True)
        at = np.sort(np.stack([var_names.get_indexer(pd.Index(pairs[name])) for name in ("peak_a", "peak_b")]), axis=0)
        table = pd.DataFrame({"row": at[0], "column": at[1], "value": pairs["epsilon"]})
        table = table.sort_values("value", key=np.abs, kind="stable").drop_duplicates(["row", "column"], keep="last")
        row, column, value = (table[name].to_numpy() for name in table)
        index = np.concatenate([row, column]), np.concatenate([column, row])
        return sparse.csr_matrix((np.concatenate([value, value]), index), shape=(len(var_names),) * 2)


def _columns(found: "Epistasis", name: str) -> dict[str, np.ndarray]:
    """Return a quantity and its limits as columns."""
    estimate = getattr(found, name)
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
