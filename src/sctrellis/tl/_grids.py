from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sctrellis._core import checks
from sctrellis._core.keys import Keys
from sctrellis.tl import _element_sets
from sctrellis.tl._element_plan import Direction
from sctrellis.tl._element_sets import Found

if TYPE_CHECKING:
    from mudata import MuData

    from sctrellis.explain import AdditiveObjective


def grids(
    mdata: "MuData",
    *,
    targets: str | Sequence[str] | None = None,
    groupby: str | None = None,
    groups: str | Sequence[str] | None = None,
    n_peaks: int = 10,
    direction: Direction = "down",
    value: float | None = None,
    candidates: "str | Sequence[str] | np.ndarray" = "cis",
    method: Literal["grids+", "grids"] = "grids+",
    n_candidates: int = 32,
    n_restarts: int = 8,
    max_sweeps: int = 50,
    max_exhaustive: int = 5_000,
    min_open: float = 0.005,
    n_cells: int = 1_024,
    n_boot: int = 1_000,
    key: str = "translate",
    links: str = "cis",
    seed: int | None = 0,
    device: str = "auto",
    n_jobs: int | None = None,
    progress: bool | None = None,
    key_added: str | None = None,
    copy: bool = False,
) -> "MuData | None":
    r"""Find, for each gene and group of cells, the set of peaks whose perturbation changes expression most.

    A task is one gene in one group. Its set is searched in the training cells of the group and reported on the test
    cells, by the surrogate of :func:`sctrellis.tl.translate`, which must know the gene: where it learnt nothing within
    the group, a set is what a model of noise answers, and is flagged.

    Parameters
    ----------
    mdata
        Paired data with a surrogate of :func:`sctrellis.tl.translate`.
    targets
        Names of the genes to explain; None takes, in each group, those of which the surrogate learnt something there.
    groupby
        Column of ``.obs`` with the groups of cells; None is that of the surrogate.
    groups
        Groups to search in, each on its own; None takes all with at least 10 training and 10 test cells.
    n_peaks
        Size of a set, L.
    direction
        ``"down"`` for sets that lower expression, ``"up"`` for sets that raise it.
    value
        What a perturbed peak is set to, in [0, 1]: 0 closes it, 1 opens it. None closes peaks to go down and opens them
        to go up, as published; closing peaks to go up finds silencers.
    candidates
        ``"cis"`` for the peaks that `links` links to the gene, ``"all"`` for every peak that the surrogate lets act on
        it, names of peaks, or a Boolean mask over the peaks.
    method
        ``"grids+"`` compares all sets where there are few, and else polishes the sets of several ways of looking.
        ``"grids"`` is the published search from one random start. See Notes.
    n_candidates
        Peaks that first order proposes in a step.
    n_restarts
        Random starts of ``"grids+"``.
    max_sweeps
        Times that a search visits every member of a set, at most.
    max_exhaustive
        Number of sets of a task up to which ``"grids+"`` compares all of them.
    min_open
        Share of the cells of a group in which a peak must be open to be chosen, in [0, 1]; a closed one never is.
    n_cells
        Training cells of a group that are searched in, at most; more are drawn from.
    n_boot
        Draws of the test cells for the intervals; 0 gives none.
    key
        Name of the record of :func:`sctrellis.tl.translate` in ``mdata.uns``.
    links
        Key of ``mdata.varp`` with the linked peaks.
    seed
        Seed in [0, 2**32); None draws one and records it. It decides random starts, masks and candidates, which cells
        are searched in where there are more than `n_cells`, and the bootstrap.
    device
        Torch device: ``"auto"`` takes CUDA when present, else the CPU; a device that is missing raises.
    n_jobs
        Batches of tasks at once: None is ``settings.n_jobs``, -1 all cores. Through joblib, so
        ``joblib.parallel_config`` applies; the result does not depend on it.
    progress
        Progress bar over tasks; None follows ``settings.progress``.
    key_added
        Name of the slots; None is ``"grids"``.
    copy
        Return a copy with the result instead of writing to ``mdata``.

    Returns
    -------
    `None`, or the copy if ``copy=True``. Sets:

    ``mdata.uns[key_added]`` : dict
        Record of the run, with tables.

        ``sets``, a row for each peak of each set: ``group``, ``target``; ``rank`` by worth: the first k are what
        elimination keeps of the set; ``peak``; ``gain``, the change of mean log expression on test cells when the peak
        is perturbed after those of lower rank; ``cumulative``, the change by all up to it; ``distance`` from the TSS in
        bp, negative upstream, NaN where not linked; ``p_open``, the share of training cells in which it is open;
        ``score``, the share of starts whose set holds it, NaN where all sets were compared; ``learned`` and
        ``swap_optimal`` of its task.

        ``tasks``, a row for each group and gene: ``method``; ``status``, ``"ok"`` or ``"too few candidates"``;
        ``learned``; ``n_candidates``, ``n_search_cells``, ``n_cells`` (test cells); ``search_log_delta``, the change on
        the cells that were searched in; ``log_delta``, ``avg_delta`` and ``rel_delta_pct`` on test cells (see Notes),
        each with ``_low`` and ``_high``, a 95 % bootstrap interval over cells for this set and surrogate; ``start``
        that the set came from; ``swap_optimal``, whether it was shown that no exchange of one member is better;
        ``exhaustive``, whether all sets were compared; ``steps`` until the set was found.

        ``trace``, the best change of log expression so far at the first ``step`` and wherever it became better; and
        ``starts``, for each start its ``first`` and ``last`` change. Both are on the cells that were searched in, and
        have no rows where all sets were compared.

    Raises
    ------
    KeyError
        If there is no surrogate, no links, or no such column.
    ValueError
        If a gene, group or peak is unknown, a group has too few cells, no task has `n_peaks` candidates, the surrogate
        is of other genes or peaks, or a value is out of range.
    TypeError
        If an argument has the wrong type.

    Notes
    -----
    With :math:`x \backslash S` the accessibility with the peaks of :math:`S` set to `value`, the search minimises

    .. math:: \min_{|S| = L} \; \frac{s}{|C|} \sum_{c \in C} F_g(x_c \backslash S), \qquad s = 1 \text{ down}, -1
              \text{ up}

    over the predicted log expression :math:`F_g` of cells of mean size. The surrogate adds one vector :math:`V_j` per
    peak first, so a set moves its pre-activations by :math:`\sum_{j \in S} (p_j - x_{cj}) V_j`: every evaluation is
    exact and costs the change alone. From one backward pass with gradient :math:`G`, the first-order change of all
    peaks is :math:`d_j = |C|^{-1} \sum_c (p_j - x_{cj}) G_c \cdot V_j`, and exchanging member i for j changes the loss
    by :math:`d_j - d_i`.

    ``"grids"``: one random set; slot after slot, of the `n_candidates` peaks with the smallest :math:`d_j - d_i` the
    exactly best on 64 cells, drawn anew each step, is taken. A peak that is in the set is never proposed, where the
    published code can shrink sets, and the best set by all cells is reported, not the last.

    ``"grids+"``: where elements are redundant the effect of each alone vanishes, so that first order and greedy search
    do not see them. It starts from backward elimination (exact worths of the 64 members that first order holds for the
    least), from first-order changes with part of the peaks already perturbed at random, from a mask learnt under a
    budget, from greedy search and from random sets; polishes each by swaps that must lower the loss; and last tries all
    exchanges of one member of the best, where those are up to 50,000. With more than 512 candidates, a first pass over
    all chooses 512, and a last one lets the others in. Losses never rise.

    ``log_delta`` is the mean over cells of :math:`F(x \backslash S) - F(x)`. With :math:`u = \exp F`, ``avg_delta`` is
    the mean of :math:`u' - u` and ``rel_delta_pct`` that of :math:`100 (u' - u) / u`, as published. A surrogate of
    counts predicts the log of an expected count: `avg_delta` is in counts per 100,000. One of log-normalised values
    predicts log1p: there :math:`u` is one more than the normalised count and :math:`F` is cut off at 0, as published.

    An interrupt (Ctrl-C) ends the search and keeps the best sets so far: ``fit["interrupted"]`` says so.

    Equal arguments give equal results on the CPU of one machine, close ones on a GPU. What is found for a task does not
    depend on which other tasks there are, up to rounding.

    References
    ----------
    GRIDS: :cite:p:`liu2024grids`. Written from the description; https://github.com/jhliu17/nnpert has no licence and
    none of its code is used.

    Examples
    --------
    >>> import sctrellis as tr
    >>> mdata = tr.datasets.simulate_multiome(600, 240, 8, n_targets=2, n_groups=2, kinds="ANDADD", seed=1)
    >>> target = mdata.uns["targets"].iloc[0]
    >>> tr.tl.translate(mdata, groupby="cell_group", targets=target["target"], n_runs=1)
    >>> tr.tl.grids(mdata, targets=target["target"], groups=target["group"], n_peaks=2, n_boot=100)
    >>> sets = tr.get.record(mdata, "grids")["sets"]
    >>> set(sets["peak"]) <= set(mdata.uns["truth"]["peak"])
    True
    """
    values = locals()
    checks.choice("method", method, ("grids+", "grids"))
    options: dict[str, Any] = {
        "method": method,
        "n_candidates": checks.integer("n_candidates", n_candidates),
        "n_restarts": checks.integer("n_restarts", n_restarts, minimum=0),
        "max_sweeps": checks.integer("max_sweeps", max_sweeps),
        "max_exhaustive": checks.integer("max_exhaustive", max_exhaustive, minimum=0),
    }
    keys = Keys.for_method("grids", key_added)
    return _element_sets.write_sets(
        mdata, grids, values, partial(search, **options), keys=keys, tables=("sets", "tasks", "trace", "starts")
    )


def search(objective: "AdditiveObjective", n_peaks: int, seeds: list[int], **options: Any) -> Found:
    """Search the sets of a batch of tasks."""
    from sctrellis.explain import subset_search
    from sctrellis.explain._starts import rank_members

    found = subset_search(objective, n_peaks, seed=seeds, **options)
    return Found(
        index=rank_members(objective, found.index)[:, None],
        score=found.frequency,
        loss=found.loss[:, None],
        before=found.before,
        facts={
            "start": found.start,
            "swap_optimal": found.swap_optimal.tolist(),
            "exhaustive": found.exhaustive.tolist(),
        },
        trace=found.trace,
        starts=found.starts,
        interrupted=found.interrupted,
    )
