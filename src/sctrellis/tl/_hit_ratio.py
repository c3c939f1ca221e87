from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from scipy import sparse

from sctrellis._core import checks, logs, record, slots
from sctrellis._core import sets as _sets
from sctrellis._core.keys import Keys
from sctrellis.metrics import _hits
from sctrellis.metrics._intervals import Intervals, near

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

WINDOWS = (100_000, 500_000, 1_000_000, 10_000_000)
_REFERENCE = ("chrom", "start", "end", "gene")


def hit_ratio(
    mdata: "MuData",
    key: str = "grids",
    *,
    reference: pd.DataFrame | None = None,
    windows: Sequence[int] = WINDOWS,
    background: Literal["cis", "all"] | None = None,
    n_strata: int = 5,
    cis: str = "cis",
    rna: str = "rna",
    atac: str = "atac",
    key_added: str | None = None,
) -> pd.DataFrame:
    r"""Say how close selected elements lie to their genes, or to known elements of them, always beside chance.

    A task is a gene in a group of cells. Its hit ratio is 1 where a selected peak overlaps what it should find, its
    soft hit ratio where one lies within a window. Both depend on how many peaks are selected, how many there are and
    how wide the window is, so each stands beside what as many random peaks reach.

    Parameters
    ----------
    mdata
        Paired RNA and ATAC with coordinates, and the result of ``tl.grids`` or ``tl.attribution``.
    key
        Name of that result in ``mdata.uns``.
    reference
        Known elements of genes, such as a table of CRISPR interference: columns ``chrom``, ``start``, ``end`` (0-based,
        half-open, of the same genome) and ``gene`` (as in ``mdata[rna].var_names``), and, where elements without effect
        were tested too, ``linked`` (Boolean). None compares with the genes only.
    windows
        Distances in bases of the soft hit ratio.
    background
        What chance draws from: ``"cis"``, the peaks linked to the gene; ``"all"``, all peaks; None takes what the run
        searched, which may also be a list of peaks.
    n_strata
        Classes of equal size, by the share of cells in which a peak is open, that matched chance keeps to.
    cis
        Key of the links of genes to peaks in ``mdata.varp``; read where chance draws from them.
    rna
        Modality with the genes and their coordinates.
    atac
        Modality with the peaks and their coordinates.
    key_added
        Key of ``mdata.uns`` for the tables and their record; None is ``key + "_hit_ratio"``.

    Returns
    -------
    DataFrame
        One row per anchor and window, also stored in ``mdata.uns[key_added]["table"]``. Columns:

        ``anchor``, ``window``
            What peaks should be near: ``"gene body"``, ``"TSS"`` (start of transcription) or ``"reference"``; and how
            near in bases, 0 for an overlap.
        ``n_tasks``, ``n_selected``, ``n_hit``, ``hit_ratio``
            Tasks, selected peaks, tasks with a hit, and their share.
        ``expected``, ``enrichment_expected``, ``p_expected``
            Hit ratio of as many random peaks per task, observed over expected, and the chance of as many hits or more.
        ``matched``, ``enrichment_matched``, ``p_matched``
            The same with random peaks as often open as the selected ones.
        ``n_in_window``, ``share_in_window``, and the same columns with ``share_`` before their names
            The same for selected peaks instead of tasks.

    ``mdata.uns[key_added]`` : dict
        Record of the run with ``table``; ``decay``, selected peaks by distance from the start of transcription beside
        matched chance and its 95 % range; and with a reference ``links``: how many selected peaks it confirms within
        bins of distance, beside peaks drawn at random from the same gene and bin (``expected``) and the nearest peaks
        (``nearest``).

    Raises
    ------
    KeyError
        If there is no such result, a modality, column or key is missing.
    ValueError
        If no gene with a set has coordinates, no gene of the reference has a set, chromosomes are named otherwise, or a
        number is out of range.

    Warns
    -----
    UserWarning
        If genes without coordinates are left out, or the reference judges no peak.

    Notes
    -----
    With :math:`N` peaks in the background of a task, :math:`K` of them within the window and :math:`L` selected, the
    chance of a hit is :math:`1 - \binom{N-K}{L} / \binom{N}{L}`. Tasks hit by chance are a Poisson-binomial count,
    peaks in the window a sum of hypergeometric ones; both distributions are computed exactly. Matched chance is a
    product of such terms over strata. Tasks count as independent, which two groups of one gene are not quite.

    The published comparison counts a set of 128 peaks as a soft hit if one lies within 10 Mb. Of 127,219 peaks random
    ones reach 58 %: such a window says nothing, and the table shows it.

    Random peaks near a gene are often linked to it: peaks that a search prefers for being near look confirmed.
    ``links`` therefore compares within distance; only what exceeds ``expected`` *and* ``nearest`` is evidence for the
    search.

    References
    ----------
    The published measures: :cite:p:`liu2024grids`. Distance as a baseline for links: :cite:p:`gschwind2023encode`.

    Examples
    --------
    >>> import pandas as pd, sctrellis as tr
    >>> mdata = tr.datasets.simulate_multiome(60)
    >>> truth = mdata.uns["truth"]
    >>> sets = truth[["group", "target", "peak"]].assign(rank=1, gain=-0.2)
    >>> mdata.uns["grids"] = {"schema": 1, "method": "grids", "sets": sets, "tasks": mdata.uns["targets"]}
    >>> table = tr.tl.hit_ratio(mdata, background="all", windows=[500_000])
    >>> table.loc[table["window"] == 500_000, ["anchor", "hit_ratio"]]
          anchor  hit_ratio
    1  gene body        1.0
    3        TSS        1.0
    """
    values = locals()
    windows = sorted({checks.integer("windows", w) for w in windows})
    n_strata = checks.integer("n_strata", n_strata)
    if background is not None:
        checks.choice("background", background, ("cis", "all"))
    slot = Keys.for_method(f"{key}_hit_ratio", key_added)
    genes, peaks = slots.multiome(mdata, rna, atac)
    found = _sets.read(mdata, key)
    tasks = _tasks(genes, peaks, found, (rna, atac))
    searched = found.record.get("params", {}).get("candidates", "all")
    choice = searched if background is None else background
    links = slots.read_cis(mdata, cis, rna=rna, atac=atac) if isinstance(choice, str) and choice == "cis" else None
    body = _selection(peaks, found, tasks, _allowed(choice, links, tasks, peaks.var_names), n_strata)
    tss = replace(body, anchor=Intervals(body.chrom, tasks.table["tss"].to_numpy(), tasks.table["tss"].to_numpy() + 1))
    anchors, extra = {"gene body": body, "TSS": tss}, {}
    if reference is not None:
        elements = _elements(reference, tasks, genes.var_names)
        anchors["reference"] = _against(tss, elements)
        extra["links"] = _confirmed(tss, elements, max(windows), tested="linked" in reference)
    table = pd.concat(
        [_hits.hit_table(part, windows).assign(anchor=name) for name, part in anchors.items()], ignore_index=True
    )
    table = table[["anchor", *table.columns.drop("anchor")]]
    extra |= {"table": table, "decay": _hits.decay_table(tss)}
    params = record.arguments(hit_ratio, values) | {"background": choice, "windows": windows}
    params["reference"] = None if reference is None else {"n_rows": len(reference)}
    entry = record.build(
        "hit_ratio",
        mdata,
        params=params,
        seed=0,
        slots={name: f"uns/{slot.record}/{name}" for name in extra},
        extra=extra,
    )
    logs.added(slots.write(mdata, uns={slot.record: entry}))
    return table


@dataclass(frozen=True)
class _Tasks:
    """Targets with coordinates in their groups: a row each, with position and coordinates of the gene, and peaks."""

    table: pd.DataFrame
    chromosomes: pd.Index
    peaks: Intervals


def _tasks(genes: "AnnData", peaks: "AnnData", found: _sets.ElementSets, names: tuple[str, str]) -> _Tasks:
    rna, atac = names
    where = slots.coordinates(peaks, f"mdata[{atac!r}]")
    of_gene = slots.coordinates(genes, f"mdata[{rna!r}]", ("chrom", "start", "end", "tss"))
    table = found.sets[["group", "target"]].drop_duplicates(ignore_index=True)
    table["gene"] = slots.positions(genes, table["target"], f"mdata.uns[{found.key!r}]")
    table = pd.concat([table, of_gene.iloc[table["gene"]].reset_index(drop=True)], axis=1)
    known = (table["chrom"] != "") & (table["tss"] >= 0)
    lacking = table.loc[~known, "target"].unique()
    if not known.any():
        msg = (
            f"None of the {len(lacking)} genes with a set has coordinates ({checks.some(lacking)}). "
            "`sctrellis.pp.multiome(rna, atac, genes=...)` writes them."
        )
        raise ValueError(msg)
    if len(lacking):
        checks.warn(f"{len(lacking)} genes without coordinates are left out ({checks.some(lacking)}).")
    chromosomes = pd.Index(pd.unique(pd.concat([where["chrom"], of_gene["chrom"]]))).drop("", errors="ignore")
    intervals = Intervals(
        chromosomes.get_indexer(pd.Index(where["chrom"])), where["start"].to_numpy(), where["end"].to_numpy()
    )
    return _Tasks(table[known].reset_index(drop=True), chromosomes, intervals)


def _selection(
    peaks: "AnnData", found: _sets.ElementSets, tasks: _Tasks, allowed: sparse.csr_matrix | None, n_strata: int
) -> _hits.Selection:
    """Return the selected peaks of every task, to be near the body of its gene."""
    table = tasks.table
    sets = found.sets.merge(table[["group", "target"]].assign(task=np.arange(len(table))), on=["group", "target"])
    sets = sets.drop_duplicates(["task", "peak"])
    task, element = sets["task"].to_numpy(), slots.positions(peaks, sets["peak"], f"mdata.uns[{found.key!r}]")
    if allowed is not None:
        chosen = sparse.csr_matrix((np.ones(len(task), bool), (task, element)), shape=allowed.shape)
        allowed = sparse.csr_matrix(allowed + chosen)
    chrom = tasks.chromosomes.get_indexer(pd.Index(table["chrom"]))
    return _hits.Selection(
        elements=tasks.peaks,
        task=task,
        element=element,
        allowed=allowed,
        stratum=_strata(slots.openness(peaks), n_strata),
        anchor=Intervals(chrom, table["start"].to_numpy(), table["end"].to_numpy()),
        anchor_task=np.arange(len(table)),
        chrom=chrom,
    )


def _allowed(
    choice: Any, links: sparse.csr_matrix | None, tasks: _Tasks, peak_names: pd.Index
) -> sparse.csr_matrix | None:
    """Return the peaks that chance may draw for each task; None where those are all."""
    if links is not None:
        own = links[tasks.table["gene"].to_numpy()]
        # A distance of 0 is a stored zero: what is stored says what is linked, not its value.
        return sparse.csr_matrix((np.ones(own.nnz, bool), own.indices, own.indptr), shape=own.shape)
    if isinstance(choice, str):
        return None
    given = np.asarray(choice)
    mask = given if given.dtype == bool else peak_names.isin(given.astype(str))
    return sparse.csr_matrix(np.broadcast_to(mask, (len(tasks.table), len(mask))))


def _strata(openness: np.ndarray, n_strata: int) -> np.ndarray:
    """Return classes of equal size by openness."""
    rank = np.argsort(np.argsort(openness, kind="stable"), kind="stable")
    return rank * min(n_strata, len(rank)) // len(rank)


def _elements(reference: pd.DataFrame, tasks: _Tasks, var_names: pd.Index) -> pd.DataFrame:
    """Return the elements of the tasks' genes: task, chromosome code, interval and whether it is a link; checked."""
    if not isinstance(reference, pd.DataFrame):
        msg = f"Expected `reference` to be a DataFrame of elements and their genes, found {type(reference).__name__}."
        raise TypeError(msg)
    missing = [column for column in _REFERENCE if column not in reference]
    if missing:
        msg = (
            f"`reference` has no column {checks.some(missing)}. Needed are 'chrom', 'start', 'end' and 'gene'; found "
            f"{checks.some(reference.columns, 8)}. Rename them with `reference.rename(columns=...)`."
        )
        raise KeyError(msg)
    table = reference[list(_REFERENCE)].reset_index(drop=True)
    table["linked"] = reference["linked"].to_numpy() if "linked" in reference else True
    if not pd.api.types.is_bool_dtype(table["linked"]):
        msg = f"Expected `reference['linked']` to be Boolean, found dtype {table['linked'].dtype}."
        raise TypeError(msg)
    whole = all(pd.api.types.is_integer_dtype(table[column]) for column in ("start", "end"))
    if not whole or (table["end"] <= table["start"]).any():
        msg = (
            "Expected `reference['start']` and `reference['end']` to be integers with start < end (0-based, half-open)."
        )
        raise ValueError(msg)
    table = table.astype({"chrom": str, "gene": str})
    if not table["gene"].isin(var_names).any():
        raise checks.no_match("reference['gene']", list(table["gene"].unique()), var_names.tolist())
    table["code"] = tasks.chromosomes.get_indexer(pd.Index(table["chrom"]))
    if (table["code"] < 0).all():
        msg = (
            f"No chromosome of `reference` ({checks.some(table['chrom'].unique())}) is one of `mdata` "
            f"({checks.some(tasks.chromosomes)}). Name them alike."
        )
        raise ValueError(msg)
    targets = tasks.table[["target"]].assign(task=np.arange(len(tasks.table)))
    own = table.merge(targets, left_on="gene", right_on="target")
    if not own["linked"].any():
        known = table.loc[table["linked"], "gene"].unique()
        msg = (
            f"`reference` links no element to any of the {targets['target'].nunique()} genes with a set. It has links "
            f"of {len(known)} genes, such as {checks.some(known)}: search for sets of these."
        )
        raise ValueError(msg)
    return own


def _intervals(elements: pd.DataFrame) -> Intervals:
    return Intervals(elements["code"].to_numpy(), elements["start"].to_numpy(), elements["end"].to_numpy())


def _against(selection: _hits.Selection, elements: pd.DataFrame) -> _hits.Selection:
    """Return the tasks with a linked element, to be near these."""
    linked = elements[elements["linked"]]
    kept, anchor_task = np.unique(linked["task"], return_inverse=True)
    row = np.full(selection.n_tasks, -1)
    row[kept] = np.arange(len(kept))
    task = row[selection.task]
    return replace(
        selection,
        task=task[task >= 0],
        element=selection.element[task >= 0],
        allowed=None if selection.allowed is None else selection.allowed[kept],
        anchor=_intervals(linked),
        anchor_task=anchor_task,
        chrom=selection.chrom[kept],
    )


def _confirmed(tss: _hits.Selection, elements: pd.DataFrame, window: int, *, tested: bool) -> pd.DataFrame:
    """Return how many selected peaks the reference confirms, of those that it judges.

    If ``tested``, it judges the peaks that overlap one of its elements, else every peak: what it does not link is none.
    """
    n_peaks = len(tss.elements)
    task, element, distance = near(tss.elements, tss.anchor, window)
    pair = task * n_peaks + element
    selected = np.isin(pair, tss.task * n_peaks + tss.element)
    of, peak, _ = near(tss.elements, _intervals(elements), 0)
    touched = elements["task"].to_numpy()[of] * n_peaks + peak
    linked = np.isin(pair, touched[elements["linked"].to_numpy()[of]])
    kept = np.isin(pair, touched) if tested else np.ones(len(pair), dtype=bool)
    if tss.allowed is not None:
        kept &= np.asarray(tss.allowed[task, element]).ravel().astype(bool)
    if not (kept & selected).any():
        checks.warn(
            "`reference` judges no selected peak: none of its elements overlaps one. Are both of the same genome?"
        )
    return _hits.confirmed_table(task=task[kept], distance=distance[kept], linked=linked[kept], selected=selected[kept])
