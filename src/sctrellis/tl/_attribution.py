from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from sctrellis._core import checks
from sctrellis._core.keys import Keys
from sctrellis.tl import _element_sets
from sctrellis.tl._element_plan import Direction
from sctrellis.tl._element_sets import Found

if TYPE_CHECKING:
    from mudata import MuData

    from sctrellis.explain import AdditiveObjective

AttributionMethod = Literal[
    "random",
    "saliency",
    "grad_x_input",
    "smoothgrad",
    "fimap",
    "fimap_budget",
    "sage",
    "single_knockout",
    "greedy",
]
ATTRIBUTION_METHODS: tuple[AttributionMethod, ...] = get_args(AttributionMethod)


def attribution(
    mdata: "MuData",
    method: AttributionMethod,
    *,
    targets: str | Sequence[str] | None = None,
    groupby: str | None = None,
    groups: str | Sequence[str] | None = None,
    n_peaks: int = 10,
    direction: Direction = "down",
    value: float | None = None,
    candidates: "str | Sequence[str] | np.ndarray" = "cis",
    n_draws: int = 20,
    n_noisy: int = 50,
    noise: float = 0.15,
    n_permutations: int = 256,
    depth: int | None = None,
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
    r"""Choose sets of peaks by a score of each peak: what :func:`sctrellis.tl.grids` has to beat.

    Same tasks, same surrogate, same report on test cells; the set is the `n_peaks` peaks with the largest scores.

    Parameters
    ----------
    mdata
        Paired data with a surrogate of :func:`sctrellis.tl.translate`.
    method
        ``"random"``
            Peaks that may be chosen, all equally likely: the mean of `n_draws` sets.
        ``"saliency"``
            Mean over cells of the absolute slope of the output in the peak.
        ``"smoothgrad"``
            The same, over inputs with noise.
        ``"grad_x_input"``
            First-order change when the peak is perturbed: the first proposals of the search.
        ``"fimap"``
            A random mask for all cells, learnt by gradient with a price of 0.05 for each peak.
        ``"fimap_budget"``
            The same with a price for peaks above `n_peaks` only.
        ``"sage"``
            Mean change by the peak when peaks are perturbed in random order.
        ``"single_knockout"``
            Exact change by the peak alone.
        ``"greedy"``
            The exactly best peak beside those before it, one after the other.
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
    n_draws
        Sets of ``"random"``.
    n_noisy, noise
        Noisy inputs of ``"smoothgrad"``, and the standard deviation of the noise; inputs run from 0 to 1.
    n_permutations
        Orders of ``"sage"``.
    depth
        Peaks that ``"sage"`` perturbs of each order; None is `n_peaks`, the published choice. With all candidates,
        scores are Shapley values and add up to the change by all of them.
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
        Seed in [0, 2**32); None draws one and records it. It decides random sets, noise, masks and orders, which cells
        are looked at where there are more than `n_cells`, and the bootstrap.
    device
        Torch device: ``"auto"`` takes CUDA when present, else the CPU; a device that is missing raises.
    n_jobs
        Batches of tasks at once: None is ``settings.n_jobs``, -1 all cores. Through joblib, so
        ``joblib.parallel_config`` applies; the result does not depend on it.
    progress
        Progress bar over tasks; None follows ``settings.progress``.
    key_added
        Name of the slots; None is ``"attribution_"`` and the method.
    copy
        Return a copy with the result instead of writing to ``mdata``.

    Returns
    -------
    `None`, or the copy if ``copy=True``. Sets:

    ``mdata.uns[key_added]`` : dict
        Record of the run, with the tables ``sets`` and ``tasks`` of :func:`sctrellis.tl.grids`. ``rank`` is by score,
        and ``score`` that of the peak; of ``"random"``, ``sets`` has the first draw, ``score`` is the share of draws
        with the peak, and the changes in ``tasks`` are means over the draws.

    Raises
    ------
    KeyError
        If there is no surrogate, no links, or no such column.
    ValueError
        If the method, a gene, group or peak is unknown, a group has too few cells, no task has `n_peaks` candidates,
        the surrogate is of other genes or peaks, or a value is out of range.
    TypeError
        If an argument has the wrong type.

    Notes
    -----
    With :math:`G_c` the gradient of the output of cell c in the pre-activations and :math:`V_j` the vector of peak j,
    the slope in the input is :math:`G_c \cdot V_j`, so that a few products give all of them and nothing of the size of
    cells x peaks is held. Noise in the inputs of the candidates makes normal noise in the sums, with covariance
    :math:`\sigma^2 \sum_j V_j V_j^\top`, and is drawn there.

    FIMAP as published learns a network that gives each cell a mask; here one mask serves all cells, as a set of
    elements must, and the weights of its loss, which could not be found, are ours. ``"fimap_budget"`` is a stronger
    method than the published one. SAGE is estimated from permutations, with removal in place of imputation.

    Equal arguments give equal results on the CPU of one machine, close ones on a GPU.

    References
    ----------
    Saliency: :cite:p:`simonyan2014saliency`. SmoothGrad: :cite:p:`smilkov2017smoothgrad`. FIMAP:
    :cite:p:`chapman2021fimap`. SAGE: :cite:p:`covert2020sage`. None of their code is used.

    Examples
    --------
    >>> import sctrellis as tr
    >>> mdata = tr.datasets.simulate_multiome(600, 240, 8, n_targets=2, n_groups=2, kinds="ANDADD", seed=1)
    >>> target = mdata.uns["targets"].iloc[0]
    >>> tr.tl.translate(mdata, groupby="cell_group", targets=target["target"], n_runs=1)
    >>> tr.tl.attribution(mdata, "saliency", targets=target["target"], groups=target["group"], n_peaks=2)
    >>> list(tr.get.record(mdata, "attribution_saliency")["sets"]["rank"])
    [1, 2]
    """
    values = locals()
    checks.choice("method", method, ATTRIBUTION_METHODS)
    options: dict[str, Any] = {
        "method": method,
        "n_draws": checks.integer("n_draws", n_draws),
        "n_noisy": checks.integer("n_noisy", n_noisy),
        "noise": checks.number("noise", noise, low=0),
        "n_permutations": checks.integer("n_permutations", n_permutations),
        "depth": None if depth is None else checks.integer("depth", depth),
    }
    keys = Keys.for_method(f"attribution_{method}", key_added)
    return _element_sets.write_sets(
        mdata, attribution, values, partial(attribute, **options), keys=keys, tables=("sets", "tasks")
    )


def attribute(objective: "AdditiveObjective", n_peaks: int, seeds: list[int], **options: Any) -> Found:
    """Choose the sets of a batch of tasks by scores of the peaks."""
    from sctrellis import explain

    found = explain.attribute(objective, n_peaks, seed=seeds, **options)
    return Found(index=found.index, score=found.score, loss=found.loss, before=found.before)
