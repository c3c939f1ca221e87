"""Which tasks were asked for, checked, with the data and the surrogate that they need."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from scipy import sparse

from sctrellis._core import checks, draws, slots
from sctrellis.tl import _surrogate

if TYPE_CHECKING:
    from mudata import MuData

    from sctrellis.models import Translator

Direction = Literal["down", "up"]
MIN_CELLS = 10
"""Cells that a group must have for the search, and for the report."""
_AT_ONCE = 2**22
"""Numbers of pre-activation, over the starts of a search, that one batch of tasks may hold on a CPU: what stays near
its cache. Batches 16 times as wide took seven times as long there; other devices need them to be busy."""
_WIDER = 16
_STARTS = 16
_ASKED = (
    "targets",
    "groupby",
    "groups",
    "n_peaks",
    "direction",
    "value",
    "candidates",
    "min_open",
    "n_cells",
    "n_boot",
    "key",
    "links",
    "device",
)
"""Arguments that the tools have in common and that say which tasks there are."""


@dataclass(frozen=True)
class Plan:
    """Tasks that were asked for, and the data and surrogate that they need.

    Parameters
    ----------
    translator, accessibility, groups
        The surrogate; the inputs (n_cells, n_peaks); the group of each cell as the surrogate numbers them.
    gene_names, peak_names
        Names in the two modalities.
    batches
        Group and genes of each batch of tasks.
    cells
        For each group, the cells to search in and those to report on.
    usable, share_open
        For each group, which peaks may be chosen, and in which share of the cells each is open.
    learned
        For each group, whether the surrogate learnt anything of each gene.
    links, limited
        Signed distances of genes x peaks or None, and whether candidates are limited to linked peaks.
    skipped
        Group, gene and number of candidates of the tasks that have too few.
    n_peaks, sign, value
        Size of the sets, direction, and what a perturbed peak is set to.
    floor, unit
        How log expression becomes expression; see :func:`sctrellis.metrics._deltas.deltas`.
    n_boot, seed
        Draws of the cells, and the seed of everything.
    """

    translator: "Translator"
    accessibility: sparse.csr_matrix
    groups: np.ndarray
    gene_names: pd.Index
    peak_names: pd.Index
    batches: list[tuple[str, np.ndarray]]
    cells: dict[str, tuple[np.ndarray, np.ndarray]]
    usable: dict[str, np.ndarray]
    share_open: dict[str, np.ndarray]
    learned: dict[str, np.ndarray]
    links: sparse.csr_matrix | None
    limited: bool
    skipped: list[tuple[str, int, int]]
    n_peaks: int
    sign: float
    value: float
    floor: float | None
    unit: float
    n_boot: int
    seed: int

    @property
    def device(self) -> str:
        """Where the surrogate is."""
        return str(self.translator.genes.device)


def plan(mdata: "MuData", asked: Mapping[str, Any], *, seed: int) -> Plan:
    """Check what a tool was asked for, read what it needs, and divide it into batches.

    Parameters
    ----------
    mdata
        Paired data with a surrogate.
    asked
        All arguments of the tool, of which those about tasks are read.
    seed
        The checked seed.
    """
    return _plan(mdata, seed=seed, **{name: asked[name] for name in _ASKED})


def _plan(
    mdata: "MuData",
    *,
    targets: str | Sequence[str] | None,
    groupby: str | None,
    groups: str | Sequence[str] | None,
    n_peaks: int,
    direction: Direction,
    value: float | None,
    candidates: Any,
    min_open: float,
    n_cells: int,
    n_boot: int,
    key: str,
    links: str,
    device: str,
    seed: int,
) -> Plan:
    checks.choice("direction", direction, ("down", "up"))
    checks.integer("n_peaks", n_peaks)
    value = float(direction == "up") if value is None else checks.number("value", value, low=0, high=1)
    checks.number("min_open", min_open, low=0, high=1)
    checks.integer("n_cells", n_cells, minimum=MIN_CELLS)
    checks.integer("n_boot", n_boot, minimum=0)
    from sctrellis.models import resolve_device

    at = resolve_device(device)
    translator, paired, entry = _surrogate.read_surrogate(mdata, key)
    translator = translator.to(at)
    rna, atac = (mdata.mod[entry["params"][name]] for name in ("rna", "atac"))
    masked, limited = _mask(candidates, atac.var_names)
    near = None
    if limited or links in mdata.varp:
        near = slots.read_cis(mdata, links, rna=entry["params"]["rna"], atac=entry["params"]["atac"])
    labels = _labels(mdata, groupby, paired, entry)
    cells = _cells(labels, groups, paired.split, n_cells, seed)
    x = paired.accessibility
    share = {group: np.asarray((x[search] > 0).mean(axis=0)).ravel() for group, (search, _) in cells.items()}
    usable = {group: masked & (open_ >= min_open) & (open_ > 0) for group, open_ in share.items()}
    learned = {group: _learned(entry, rna.var_names, group) for group in cells}
    fitted = translator.genes.cpu().numpy()
    asked = _targets(targets, rna.var_names, fitted, learned)
    batches, skipped = [], []
    at_once = _AT_ONCE * (1 if at.type == "cpu" else _WIDER)
    for group, (search, _) in cells.items():
        genes = asked if targets is not None else asked[learned[group][asked]]
        counts = _counts(translator, genes, usable[group], near if limited else None)
        enough = counts >= n_peaks
        skipped += [(group, int(g), int(c)) for g, c in zip(genes[~enough], counts[~enough], strict=True)]
        # Like with like: a batch is as wide as its widest task.
        order = genes[enough][np.argsort(counts[enough], kind="stable")]
        widest = int(counts.max(initial=1))
        size = max(len(search) * translator.n_blocks * _STARTS, widest) * translator.width
        step = max(1, at_once // size)
        batches += [(group, order[i : i + step]) for i in range(0, len(order), step)]
    _any_left(batches, skipped, n_peaks, rna.var_names, limited=limited)
    total = np.asarray(paired.expression.sum(axis=1)).mean()
    return Plan(
        translator=translator,
        accessibility=x,
        groups=paired.groups,
        gene_names=rna.var_names,
        peak_names=atac.var_names,
        batches=batches,
        cells=cells,
        usable=usable,
        share_open=share,
        learned=learned,
        links=near,
        limited=limited,
        skipped=skipped,
        n_peaks=n_peaks,
        sign=1.0 if direction == "down" else -1.0,
        value=value,
        floor=None if paired.sized else 0.0,
        unit=1e5 / float(total) if paired.sized else 1.0,
        n_boot=n_boot,
        seed=seed,
    )


def _mask(candidates: Any, peak_names: pd.Index) -> tuple[np.ndarray, bool]:
    """Return which peaks may be chosen at all, and whether only linked ones may."""
    everyone = np.ones(len(peak_names), dtype=bool)
    if isinstance(candidates, str):
        checks.choice("candidates", candidates, ("cis", "all"))
        return everyone, candidates == "cis"
    given = np.asarray(candidates)
    if given.dtype == bool:
        if given.shape != everyone.shape:
            msg = f"Expected `candidates` to have one value for each of {len(everyone)} peaks, found {given.shape}."
            raise ValueError(msg)
        if not given.any():
            msg = "`candidates` is False for all peaks: none may be chosen."
            raise ValueError(msg)
        return given, False
    known = peak_names.isin([str(name) for name in given.ravel()])
    if not known.any():
        msg = (
            f"None of the {given.size:,} names in `candidates` is a peak ({checks.some(given.ravel())}); first peaks: "
            f"{checks.some(peak_names)}. Pass 'cis', 'all', names of peaks or a Boolean mask over them."
        )
        raise ValueError(msg)
    return known, False


def _labels(mdata: "MuData", groupby: str | None, paired: Any, entry: Mapping[str, Any]) -> np.ndarray:
    if groupby is None or groupby == entry["params"]["groupby"]:
        return np.asarray(paired.group_names, dtype=object)[paired.groups]
    return slots.read_obs(mdata, groupby).astype(str).to_numpy(dtype=object)


def _cells(
    labels: np.ndarray, groups: str | Sequence[str] | None, split: Mapping[str, np.ndarray], n_cells: int, seed: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the cells to search in and to report on, of each group."""
    present = list(dict.fromkeys(sorted(labels)))
    named = present if groups is None else [groups] if isinstance(groups, str) else [str(group) for group in groups]
    unknown = [group for group in named if group not in present]
    if unknown or not named:
        msg = f"`groups`: no cell is in {checks.some(unknown) or 'no group'}. Groups: {', '.join(map(repr, present))}."
        raise ValueError(msg)
    found, small = {}, []
    for group in dict.fromkeys(named):
        own = labels == group
        search, held = (cells[own[cells]] for cells in (split["train"], split["test"]))
        if min(len(search), len(held)) < MIN_CELLS:
            small.append(f"{group}: {len(search)} training and {len(held)} test cells")
            continue
        if len(search) > n_cells:
            stream = np.random.default_rng([seed, int(draws.hashes([group])[0])])
            search = np.sort(stream.choice(search, n_cells, replace=False))
        found[group] = (search, held)
    if small:
        msg = f"{len(small)} groups have fewer than {MIN_CELLS} training or test cells ({checks.some(small)})"
        if groups is not None or not found:
            msg += ". Name other `groups`, merge groups, or split again with `sctrellis.pp.split_cells`."
            raise ValueError(msg)
        checks.warn(f"{msg} and are left out.")
    return found


def _learned(entry: Mapping[str, Any], gene_names: pd.Index, group: str) -> np.ndarray:
    """Return for each gene whether the surrogate learnt anything within the group, or at all where it has others."""
    table = entry["by_group"]
    own = table[table["group"].astype(str) == group]
    if len(own):
        flags = pd.Series(own["learned"].to_numpy(dtype=bool), index=own["gene"].astype(str))
    else:
        flags = pd.Series(entry["genes"]["learned"].to_numpy(dtype=bool), index=entry["genes"].index.astype(str))
    return flags.reindex(gene_names, fill_value=False).to_numpy(dtype=bool)


def _targets(
    targets: str | Sequence[str] | None, gene_names: pd.Index, fitted: np.ndarray, learned: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Return the positions of the genes to explain, increasing."""
    if targets is None:
        any_group = np.logical_or.reduce(list(learned.values()))
        found = fitted[any_group[fitted]]
        if not len(found):
            msg = (
                f"The surrogate learnt nothing of any of its {len(fitted)} genes within these groups, so no target is "
                "worth a search. Name `targets` to search all the same."
            )
            raise ValueError(msg)
        return found
    asked = checks.gene_positions("targets", targets, gene_names)
    missing = gene_names[np.setdiff1d(asked, fitted)]
    if len(missing):
        msg = (
            f"{len(missing)} of {len(asked)} `targets` have no fit in the surrogate ({checks.some(missing)}): they "
            "have no peak in their window, or were left out. Run `sctrellis.tl.translate` with them, or a wider window."
        )
        raise ValueError(msg)
    return asked


def _counts(
    translator: "Translator", genes: np.ndarray, usable: np.ndarray, links: sparse.csr_matrix | None
) -> np.ndarray:
    from sctrellis.explain._peaks import candidates

    parts = [candidates(translator, genes[i : i + 64], usable, links).counts for i in range(0, len(genes), 64)]
    return np.concatenate([*parts, np.zeros(0, dtype=np.int64)])


def _any_left(
    batches: list[tuple[str, np.ndarray]],
    skipped: list[tuple[str, int, int]],
    n_peaks: int,
    gene_names: pd.Index,
    *,
    limited: bool,
) -> None:
    if batches:
        return
    group, gene, most = max(skipped, key=lambda task: task[2])
    wider = "widen the window of `sctrellis.pp.cis_links`, pass `candidates='all'`" if limited else "allow more peaks"
    msg = (
        f"No task has `n_peaks={n_peaks}` candidates: the most are {most}, for {gene_names[gene]!r} in {group!r}. "
        f"Lower `n_peaks`, {wider}, or lower `min_open`."
    )
    raise ValueError(msg)
