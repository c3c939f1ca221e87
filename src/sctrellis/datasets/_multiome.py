"""Paired ATAC and RNA whose cis-regulatory elements, and the logic by which they act, are known."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from sctrellis._core import checks, draws, genome, record, slots
from sctrellis._core.keys import CELL_SPLIT

if TYPE_CHECKING:
    from mudata import MuData

WINDOW = 500_000
# Three windows a gene: the start of transcription moves by half a window, and the windows of genes never meet.
_STRIDE = 3 * WINDOW
_OPEN_ELSEWHERE = 0.08
_BLOCK = 2**22


class Gate(NamedTuple):
    """Elements that act together: `size` of them, with effect `beta` on the log mean of expression."""

    logic: str
    size: int
    beta: float


class Kind(NamedTuple):
    """Logic of a target gene, how open its elements are in its group, and the size of set that tells methods apart."""

    gates: tuple[Gate, ...]
    openness: float
    n_peaks: int


KINDS = {
    "TRAP3": Kind((Gate("OR", 3, 1.6), *[Gate("ADD", 1, 0.35)] * 3), 0.6, 3),
    "TRAP2": Kind((Gate("OR", 2, 1.4), *[Gate("ADD", 1, 0.5)] * 4), 0.7, 2),
    "ANDADD": Kind((Gate("AND", 2, 1.4), *[Gate("ADD", 1, 0.4)] * 3), 0.75, 2),
    "ANDOR": Kind((Gate("AND", 2, 1.4), Gate("OR", 2, 1.4)), 0.7, 3),
}
# Of 16 targets 5, 4, 4 and 3 are of each kind.
_CYCLE = ("TRAP3", "TRAP2", "ANDADD", "ANDOR") * 3 + ("TRAP3", "TRAP2", "ANDADD", "TRAP3")
# One child seed a part, in this order. New parts go to the end.
_PARTS = (
    "cells",
    "peaks",
    "genes",
    "openness",
    "plan",
    "state",
    "elements",
    "correlation",
    "dropout",
    "fragments",
    "base",
    "size",
    "counts",
)


def simulate_multiome(
    n_obs: int = 400,
    n_peaks: int = 1200,
    n_genes: int = 40,
    *,
    n_targets: int = 8,
    n_groups: int = 4,
    n_chromosomes: int = 4,
    kinds: str | Sequence[str] | None = None,
    n_decoys: int = 3,
    decoy_correlation: float = 0.0,
    markers: float = 0.3,
    dropout: float = 0.0,
    size_std: float = 0.3,
    dispersion: float = 0.125,
    seed: int | None = 0,
) -> "MuData":
    r"""Simulate cells with paired ATAC and RNA, in which some genes follow known sets of cis-regulatory elements.

    Redundant elements (any one of them suffices), elements that are all needed and additive ones are planted in the
    windows of target genes, beside decoys that are open in the same cells and do nothing.

    Parameters
    ----------
    n_obs
        Number of cells, as equally divided among the groups as can be, in random order.
    n_peaks
        Number of peaks, evenly spread: two thirds lie within 500 kb of a gene. At least 12 a gene are needed for the
        planted elements to find room, at most 500.
    n_genes
        Number of genes. They lie 1.5 Mb apart on average, and no peak is within 500 kb of two of them.
    n_targets
        Number of genes with planted elements; the others have none, as a null needs. At most `n_genes`.
    n_groups
        Number of groups of cells. Every target is active in one, in turn.
    n_chromosomes
        Number of chromosomes, named ``chr1``, …; at most `n_genes`.
    kinds
        Kinds of the targets in turn, of ``"TRAP3"``, ``"TRAP2"``, ``"ANDADD"`` and ``"ANDOR"`` (see Notes). None takes
        5, 4, 4 and 3 of them in 16 targets.
    n_decoys
        Number of decoys of each target.
    decoy_correlation
        Probability, in each cell, that a decoy copies the state of a planted element of the same target, in [0, 1].
    markers
        Fraction of the peaks, in [0, 1], that are open mostly in one group: they follow the targets of that group
        without acting on them.
    dropout
        Probability that an open peak is not seen, in [0, 1). RNA follows the state before this loss.
    size_std
        Standard deviation of the log of the cells' size factors, whose median is 2.
    dispersion
        Squared coefficient of variation of the counts of RNA beyond Poisson noise; 0 gives Poisson counts.
    seed
        Seed of all draws; None draws one and records it. The same seed gives identical results.

    Returns
    -------
    A MuData of the modalities ``"rna"`` and ``"atac"``, with

    `mdata["atac"].X` : csr_matrix, float32, shape (n_obs, n_peaks)
        1 where a peak is seen open. `layers["counts"]` has counts of fragments, `layers["state"]` 1 where it is open.
    `mdata["atac"].var` : DataFrame
        `chrom`, `start`, `end` (0-based, half-open); `role`, one of ``"element"``, ``"decoy"``, ``"marker"``,
        ``"background"``; `target`, the gene of an element or decoy; `group`, where a marker, element or decoy is open.
    `mdata["rna"].X` : csr_matrix, float32, shape (n_obs, n_genes)
        ``log1p`` of the counts scaled to the median total; `layers["counts"]` has the counts.
    `mdata["rna"].var` : DataFrame
        `chrom`, `start`, `end`, `strand`, `tss`; `log_base`, the log mean without elements.
    `mdata["rna"].varm["group_effect"]` : float32, shape (n_genes, n_groups)
        What the group of a cell adds to the log mean; 0 for targets.
    `mdata.obs` : DataFrame
        `cell_group`; `cell_split`, as :func:`sctrellis.pp.split_cells` writes it; `size_factor`.
    `mdata.varp["cis"]` : csr_matrix, float32
        Links of genes to the peaks within 500 kb, as :func:`sctrellis.pp.cis_links` writes them.
    `mdata.uns["truth"]` : DataFrame
        A row for each planted element: `target`, `group`, `peak`, `gate` (``"OR"``, ``"AND"`` or ``"ADD"``), `gate_id`
        (members of a gate share it) and `beta`.
    `mdata.uns["targets"]` : DataFrame
        A row for each target: `target`, `group`, `kind`, and `n_peaks`, the size of set at which methods differ most.
    `mdata.uns["simulate_multiome"]` : dict
        The record: arguments and seed.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or outside its range, or a window has too few peaks for what is planted.

    Notes
    -----
    With :math:`z_{cj}` the state of peak j in cell c, the counts of gene g are negative binomial with mean

    .. math:: \mu_{cg} = s_c \exp\Bigl(b_g + e_{g,\mathrm{group}(c)} + \sum_{k} \beta_k\, f_k(z_c)\Bigr),

    where a gate is :math:`f = 1 - \prod_j (1 - z_j)` (OR), :math:`\prod_j z_j` (AND) or :math:`z_j` (ADD) over its
    members. The kinds are

    ======  ==================================  ========  ===
    kind    gates and :math:`\beta`             openness  L
    ======  ==================================  ========  ===
    TRAP3   OR of 3, 1.6; three times ADD 0.35  0.60      3
    TRAP2   OR of 2, 1.4; four times ADD 0.5    0.70      2
    ANDADD  AND of 2, 1.4; three times ADD 0.4  0.75      2
    ANDOR   AND of 2, 1.4; OR of 2, 1.4         0.70      3
    ======  ==================================  ========  ===

    Elements and decoys have that openness in the group of their target and 0.08 in others. Other peaks are open with a
    probability from Beta(1.2, 8), markers from 0.4 to 0.85 in their group. A target has :math:`b = e = 0`; of the other
    genes, with :math:`b` normal of standard deviation 0.5, half are raised by 0.5 to 1.5 in one group.

    ``simulate_multiome(4000, 2400, 80, n_targets=16, n_chromosomes=8)`` is the size at which the search for element
    sets is judged. Nothing of shape cells x peaks is held dense: time is linear in ``n_obs * n_peaks``, memory in what
    is open.

    See Also
    --------
    true_log_mean, true_drop, best_true_set

    Examples
    --------
    >>> import sctrellis as tr
    >>> mdata = tr.datasets.simulate_multiome(100)
    >>> mdata["rna"].shape, mdata["atac"].shape
    ((100, 40), (100, 1200))
    >>> truth = mdata.uns["truth"]
    >>> truth.loc[truth["target"] == truth["target"].iloc[0], ["gate", "gate_id", "beta"]].value_counts("gate")
    gate
    ADD    3
    OR     3
    Name: count, dtype: int64
    """
    params = record.arguments(simulate_multiome, locals())
    from anndata import AnnData
    from mudata import MuData, set_options

    params["kinds"] = list(_CYCLE) if kinds is None else [kinds] if isinstance(kinds, str) else list(kinds)
    _check(params)
    seed = checks.seed(seed)
    children = np.random.SeedSequence(seed).spawn(len(_PARTS))
    streams = {part: np.random.default_rng(child) for part, child in zip(_PARTS, children, strict=True)}

    groups = streams["cells"].permutation(np.arange(n_obs) % n_groups)
    cells = pd.Index([f"cell_{i}" for i in range(n_obs)])
    chromosomes = [f"chr{i + 1}" for i in range(n_chromosomes)]
    # Genes of a chromosome follow one another; its last position is where the next chromosome's first would be.
    gene_chrom = np.arange(n_genes) * n_chromosomes // n_genes
    origin = np.searchsorted(gene_chrom, np.arange(n_chromosomes)) * _STRIDE
    genes = _genes(gene_chrom, origin, streams["genes"])
    peaks = _peaks(n_peaks, n_genes, gene_chrom, origin, streams["peaks"])
    distances = genome.cis(
        peaks["chrom"], peaks["start"], peaks["end"], gene_chrom, genes["tss"], genes["strand"] == "+", WINDOW
    )
    openness, marker_of = _openness(params, streams["openness"])
    plan = _plan(params, distances, streams["plan"])
    state = _state(openness, plan, groups, params, streams)

    log_base, group_effect = _base(params, plan["gene"].unique(), streams["base"])
    peak_names = [
        f"{chromosomes[c]}-{a}-{b}" for c, a, b in zip(peaks["chrom"], peaks["start"], peaks["end"], strict=True)
    ]
    gene_names = np.array([f"gene_{i}" for i in range(n_genes)], dtype=object)
    group_names = np.array([f"group_{i}" for i in range(n_groups)], dtype=object)
    truth, targets = _truth(plan, gene_names, group_names, np.array(peak_names, dtype=object), params)

    log_mean = log_base + group_effect.T[groups]
    columns = sparse.csc_matrix(state)
    for gene, rows in plan[plan["gate"] != ""].groupby("gene"):
        log_mean[:, gene] += gated(rows, columns[:, rows["peak"].to_numpy()].toarray())
    size = 2 * np.exp(size_std * streams["size"].standard_normal(n_obs))
    counts = _counts(size[:, None] * np.exp(log_mean), dispersion, streams["counts"])

    seen = state.copy()
    seen.data = (streams["dropout"].random(state.nnz) >= dropout).astype(np.float32)
    seen.eliminate_zeros()
    fragments = seen.copy()
    fragments.data = (1 + streams["fragments"].poisson(0.3, size=seen.nnz)).astype(np.float32)
    planted = plan.set_index("peak")
    role = np.where(marker_of >= 0, "marker", "background").astype(object)
    role[planted.index] = np.where(planted["gate"] == "", "decoy", "element")
    target = np.full(n_peaks, "", dtype=object)
    target[planted.index] = gene_names[planted["gene"]]
    open_in = np.append(group_names, "")[marker_of]
    open_in[planted.index] = group_names[planted["group"]]

    obs = pd.DataFrame(index=cells)
    atac = AnnData(
        seen,
        obs=obs.copy(),
        var=pd.DataFrame(
            {
                "chrom": np.array(chromosomes, dtype=object)[peaks["chrom"]],
                "start": peaks["start"],
                "end": peaks["end"],
                "role": pd.Categorical(role, ["element", "decoy", "marker", "background"]),
                "target": target,
                "group": open_in,
            },
            index=peak_names,
        ),
        layers={"counts": fragments, "state": state},
    )
    rna = AnnData(
        _log_normalised(counts),
        obs=obs.copy(),
        var=pd.DataFrame(
            {
                "chrom": np.array(chromosomes, dtype=object)[gene_chrom],
                **{name: genes[name] for name in ("start", "end", "strand", "tss")},
                "log_base": log_base,
            },
            index=gene_names,
        ),
        layers={"counts": counts},
        varm={"group_effect": group_effect.astype(np.float32)},
    )
    with set_options(pull_on_update=False):
        mdata = MuData({"rna": rna, "atac": atac})
    slots.write(
        mdata,
        obs={
            "cell_group": pd.Categorical(group_names[groups], group_names),
            CELL_SPLIT: draws.folds(cells, groups, 0.1, 0.2, seed),
            "size_factor": size,
        },
        varp={"cis": slots.cis_network(mdata, distances)},
        uns={
            "truth": truth,
            "targets": targets,
            "simulate_multiome": record.build(
                "simulate_multiome", mdata, params=params, seed=seed, slots={"cis": "varp/cis", "truth": "uns/truth"}
            ),
        },
    )
    return mdata


def _check(params: Mapping[str, Any]) -> None:
    n_genes = checks.integer("n_genes", params["n_genes"], minimum=2)
    n_groups = checks.integer("n_groups", params["n_groups"])
    checks.integer("n_obs", params["n_obs"], minimum=n_groups)
    checks.integer("n_decoys", params["n_decoys"], minimum=0)
    for name, minimum in (("n_chromosomes", 1), ("n_targets", 0)):
        if checks.integer(name, params[name], minimum=minimum) > n_genes:
            msg = f"Expected `{name}` to be at most `n_genes` = {n_genes}, found {params[name]}."
            raise ValueError(msg)
    if checks.integer("n_peaks", params["n_peaks"]) > 500 * n_genes:
        msg = f"Expected `n_peaks` to be at most 500 times `n_genes` = {n_genes}, found {params['n_peaks']}."
        raise ValueError(msg)
    if not params["kinds"]:
        msg = f"Expected `kinds` to name at least one kind, one of {', '.join(map(repr, KINDS))}; found none."
        raise ValueError(msg)
    for kind in params["kinds"]:
        checks.choice("kinds", kind, tuple(KINDS))
    for name in ("decoy_correlation", "markers"):
        checks.number(name, params[name], low=0, high=1)
    checks.number("dropout", params["dropout"], low=0, high=1, open_high=True)
    for name in ("size_std", "dispersion"):
        checks.number(name, params[name], low=0, high=np.finfo(float).max)
    checks.dense_size(
        (params["n_obs"], n_genes), "The simulated RNA", "Lower `n_obs` or `n_genes`.", itemsize=np.float64().itemsize
    )


def _genes(chrom: np.ndarray, origin: np.ndarray, stream: np.random.Generator) -> dict[str, np.ndarray]:
    """Return where genes start, on which strand they run, and how far."""
    n = len(chrom)
    centre = np.arange(n) * _STRIDE - origin[chrom] + _STRIDE // 2
    tss = centre + stream.integers(-WINDOW // 2, WINDOW // 2, size=n)
    forward = stream.random(n) < 0.5
    length = np.minimum(1000 + 20_000 * np.exp(stream.standard_normal(n)), WINDOW // 2).astype(np.int64)
    start = np.where(forward, tss, tss - length + 1)
    return {"start": start, "end": start + length, "strand": np.where(forward, "+", "-").astype(object), "tss": tss}


def _peaks(
    n_peaks: int, n_genes: int, gene_chrom: np.ndarray, origin: np.ndarray, stream: np.random.Generator
) -> dict[str, np.ndarray]:
    """Return peaks of 300 to 1,500 bases, one somewhere in each of equal stretches."""
    stretch = n_genes * _STRIDE / n_peaks
    width = stream.integers(300, 1501, size=n_peaks)
    start = (np.arange(n_peaks) * stretch + stream.random(n_peaks) * (stretch - width)).astype(np.int64)
    chrom = gene_chrom[start // _STRIDE]
    start -= origin[chrom]
    return {"chrom": chrom, "start": start, "end": start + width}


def _openness(params: Mapping[str, Any], stream: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the probability that a peak is open, shape (n_groups, n_peaks), and the group that it marks or -1."""
    n_peaks, n_groups = params["n_peaks"], params["n_groups"]
    openness = np.tile(stream.beta(1.2, 8, size=n_peaks), (n_groups, 1))
    marker_of = np.full(n_peaks, -1)
    chosen = stream.permutation(n_peaks)[: round(params["markers"] * n_peaks)]
    marker_of[chosen] = stream.integers(n_groups, size=len(chosen))
    openness[marker_of[chosen], chosen] = stream.uniform(0.4, 0.85, size=len(chosen))
    return openness, marker_of


def _plan(params: Mapping[str, Any], distances: sparse.csr_matrix, stream: np.random.Generator) -> pd.DataFrame:
    """Return a row for each planted element and decoy, with the column of the element that a decoy may copy."""
    chosen = stream.permutation(params["n_genes"])[: params["n_targets"]]
    n_groups = params["n_groups"]
    turns = [stream.permutation(n_groups) for _ in range(-(-len(chosen) // n_groups))]
    active = np.concatenate([*turns, np.zeros(0, dtype=np.int64)])[: len(chosen)].astype(np.int64)
    rows: list[tuple[Any, ...]] = []
    for i, gene in enumerate(chosen):
        name = params["kinds"][i % len(params["kinds"])]
        kind = KINDS[name]
        window = distances.indices[distances.indptr[gene] : distances.indptr[gene + 1]]
        n_elements = sum(gate.size for gate in kind.gates)
        if len(window) < n_elements + params["n_decoys"]:
            msg = (
                f"Expected at least {n_elements + params['n_decoys']} peaks within {WINDOW:,} bp of each target, found "
                f"{len(window)} for one. Raise `n_peaks` (30 for each of the {params['n_genes']} genes is usual)."
            )
            raise ValueError(msg)
        places = stream.choice(window, size=n_elements + params["n_decoys"], replace=False)
        elements, decoys = places[:n_elements], places[n_elements:]
        members = [(gate, gate_id) for gate_id, gate in enumerate(kind.gates) for _ in range(gate.size)]
        for peak, (gate, gate_id) in zip(elements, members, strict=True):
            rows.append((gene, active[i], name, peak, gate.logic, gate_id, gate.beta, -1))
        copied = elements[np.arange(len(decoys)) % n_elements]
        rows += [
            (gene, active[i], name, peak, "", -1, 0.0, element) for peak, element in zip(decoys, copied, strict=True)
        ]
    columns = ["gene", "group", "kind", "peak", "gate", "gate_id", "beta", "copies"]
    return pd.DataFrame(rows, columns=columns).astype(
        dict.fromkeys(["gene", "group", "peak", "gate_id", "copies"], int)
    )


def _state(
    openness: np.ndarray,
    plan: pd.DataFrame,
    groups: np.ndarray,
    params: Mapping[str, Any],
    streams: Mapping[str, np.random.Generator],
) -> sparse.csr_matrix:
    """Return which peaks are open in which cells, CSR float32 of 0 and 1."""
    n_groups, n_peaks = openness.shape
    planted = plan["peak"].to_numpy()
    is_planted = np.zeros(n_peaks, dtype=bool)
    is_planted[planted] = True
    # Peaks are drawn one after another, so that the size of a block changes nothing.
    rows, columns = [], []
    step = max(_BLOCK // len(groups), 1)
    for low in range(0, n_peaks, step):
        block = openness[:, low : low + step].astype(np.float32)
        drawn = streams["state"].random((block.shape[1], len(groups)), dtype=np.float32) < block[groups].T
        drawn[is_planted[low : low + step]] = False
        column, row = np.nonzero(drawn)
        rows.append(row.astype(np.int32))
        columns.append((column + low).astype(np.int32))

    kind_openness = plan["kind"].map(lambda name: KINDS[name].openness).to_numpy(dtype=float)
    own = plan["group"].to_numpy()[:, None] == groups
    shape = (len(planted), len(groups))
    opened = streams["elements"].random(shape) < np.where(own, kind_openness[:, None], _OPEN_ELSEWHERE)
    copies = plan["copies"].to_numpy()
    decoys = np.flatnonzero(copies >= 0)
    source = pd.Index(planted).get_indexer(copies[decoys])
    copied = streams["correlation"].random((len(decoys), len(groups))) < params["decoy_correlation"]
    opened[decoys] = np.where(copied, opened[source], opened[decoys])
    column, row = np.nonzero(opened)
    rows.append(row.astype(np.int32))
    columns.append(planted[column].astype(np.int32))
    index = (np.concatenate(rows), np.concatenate(columns))
    return sparse.csr_matrix((np.ones(len(index[0]), np.float32), index), shape=(len(groups), n_peaks))


def _base(params: Mapping[str, Any], targets: np.ndarray, stream: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the log mean of every gene without elements, and what each group adds, shape (n_genes, n_groups)."""
    n_genes, n_groups = params["n_genes"], params["n_groups"]
    log_base = 0.5 * stream.standard_normal(n_genes)
    raised = np.flatnonzero(stream.random(n_genes) < 0.5)
    group_effect = np.zeros((n_genes, n_groups))
    group_effect[raised, stream.integers(n_groups, size=len(raised))] = stream.uniform(0.5, 1.5, size=len(raised))
    log_base[targets] = 0
    group_effect[targets] = 0
    return log_base, group_effect


def _truth(
    plan: pd.DataFrame, genes: np.ndarray, groups: np.ndarray, peaks: np.ndarray, params: Mapping[str, Any]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the planted elements and the targets by name."""
    elements = plan[plan["gate"] != ""]
    truth = pd.DataFrame(
        {
            "target": genes[elements["gene"]],
            "group": groups[elements["group"]],
            "peak": peaks[elements["peak"]],
            **{name: elements[name].to_numpy() for name in ("gate", "gate_id", "beta")},
        },
        index=[str(i) for i in range(len(elements))],
    )
    first = plan.drop_duplicates("gene")
    targets = pd.DataFrame(
        {
            "target": genes[first["gene"]],
            "group": groups[first["group"]],
            "kind": first["kind"].to_numpy(),
            "n_peaks": [KINDS[name].n_peaks for name in first["kind"]],
        },
        index=[str(i) for i in range(len(first))],
    )
    return truth, targets


def gated(rows: pd.DataFrame, state: np.ndarray) -> np.ndarray:
    """Return what the gates of a target add to its log mean; columns of ``state`` belong to the rows."""
    total = np.zeros(len(state))
    for _, members in rows.reset_index(drop=True).groupby("gate_id"):
        x = state[:, members.index].astype(float)
        logic, beta = members[["gate", "beta"]].iloc[0]
        total += beta * (1 - (1 - x).prod(axis=1) if logic == "OR" else x.prod(axis=1))
    return total


def _counts(mean: np.ndarray, dispersion: float, stream: np.random.Generator) -> sparse.csr_matrix:
    """Return negative binomial counts: Poisson with gamma-distributed rates."""
    rate = mean
    if dispersion:
        rate = mean * stream.gamma(1 / dispersion, dispersion, size=mean.shape)
    return sparse.csr_matrix(stream.poisson(rate).astype(np.float32))


def _log_normalised(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    total = np.asarray(counts.sum(axis=1)).ravel()
    scale = np.median(total) / np.maximum(total, 1)
    return sparse.csr_matrix(sparse.diags(scale) @ counts, dtype=np.float32).log1p()
