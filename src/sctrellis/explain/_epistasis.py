"""Which elements of a set replace one another and which need one another."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import factorial
from typing import Any

import numpy as np

from sctrellis._core import checks

LogChange = Callable[[np.ndarray], Any]
"""Boolean (n_sets, n_elements), what to perturb, to the change of log expression, (n_sets, n_cells)."""
MAX_EXACT = 10
"""Elements up to which Shapley values come from all subsets."""
MIN_EFFECT = 1e-3
"""Effect, in natural log units, below which a ratio to it says nothing."""
MIN_SHARE = 0.1
"""Share of the whole set's effect that the epistasis of a pair must pass to be called."""
BATCH = 256
"""Sets evaluated in one call."""


@dataclass(frozen=True)
class Estimate:
    """A quantity over the cells, and its percentile interval from resampling them."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Epistasis:
    """How the effect of a set comes from its elements; all effects in natural log units.

    Attributes
    ----------
    whole : ()
        Effect of the whole set.
    single : (n_elements,)
        Effect of each element alone.
    last_in : (n_elements,)
        What each element adds when all others are perturbed already.
    compensation : (n_elements,)
        1 - single / last_in: 1 where the others make up for the element completely, 0 where it acts alone, negative
        where it needs the others; NaN where last_in is below 0.001.
    shapley : (n_elements,)
        Mean of what the element adds, over all orders; they sum up to `whole`.
    additivity : ()
        Effect of the whole set over the sum of the single effects: 1 additive, above 1 redundant, below 1 cooperative.
    redundancy : ()
        1 - largest single effect / effect of the whole set: what no single element reveals.
    pairs : (n_pairs, 2)
        Elements of each pair, the smaller first.
    epsilon : (n_pairs,)
        Effect of both less the two single effects: positive for redundant, negative for cooperative pairs.
    epsilon_within : (n_pairs,)
        The same with all other elements of the set perturbed already.
    call, call_within : (n_pairs,)
        1 redundant, -1 cooperative, 0 neither, from `epsilon` and from `epsilon_within`.
    exact
        Whether Shapley values are exact, not from drawn orders.
    """

    whole: Estimate
    single: Estimate
    last_in: Estimate
    compensation: Estimate
    shapley: Estimate
    additivity: Estimate
    redundancy: Estimate
    pairs: np.ndarray
    epsilon: Estimate
    epsilon_within: Estimate
    call: np.ndarray
    call_within: np.ndarray
    exact: bool


def epistasis(
    log_change: LogChange,
    n_elements: int,
    *,
    sign: int = -1,
    n_boot: int = 1_000,
    level: float = 0.95,
    n_permutations: int = 2_000,
    seed: int | None = 0,
) -> Epistasis:
    r"""Take the effect of a set of elements apart: alone, last, in pairs, and on average over all orders.

    Parameters
    ----------
    log_change
        Function of a Boolean array (n_sets, n_elements), True where an element is perturbed, to the change of predicted
        log expression against no perturbation, (n_sets, n_cells), as an array or a tensor on the CPU. It is called with
        at most 256 sets at a time.
    n_elements
        Number of elements in the set.
    sign
        -1 where the set is meant to lower expression, 1 where it is meant to raise it: effects are `sign` x change.
    n_boot
        Resamples of the cells; 0 leaves limits NaN and calls nothing.
    level
        Coverage of the intervals, in (0, 1).
    n_permutations
        Orders drawn for the Shapley values of more than 10 elements, half of them the other half reversed.
    seed
        Seed of resampling and of the drawn orders, in [0, 2**32); None draws one.

    Returns
    -------
    Epistasis
        Every quantity with its interval.

    Raises
    ------
    ValueError
        If a number is out of range, or `log_change` returns another shape or values that are not finite.

    Notes
    -----
    With :math:`D(S)` the mean effect of perturbing :math:`S` over the cells, a pair has
    :math:`\epsilon_{ij} = D(ij) - D(i) - D(j)`, within the set
    :math:`D(S) - D(S \setminus i) - D(S \setminus j) + D(S \setminus ij)`. On the log scale zero means that effects
    multiply in counts. A pair is called where the interval excludes zero and :math:`|\epsilon| > 0.1\,|D(S)|`, without
    correction for the number of pairs. Two calls are needed because each is blind on one side: from nothing, a pair out
    of three elements that replace one another hides behind the third; within the set, a pair out of three that all are
    needed is switched off by the third.

    Intervals resample cells. They say how far another sample of cells would move the number, not whether the model that
    predicts is right.

    Cost: n(n + 3) sets, and 2^n where n is at most 10, else `n_permutations` x n more; memory O(cells x 256 +
    `n_boot` x (cells + sets)).

    Examples
    --------
    Two elements of which one suffices, each open in three of four cells:

    >>> import numpy as np
    >>> from sctrellis.explain import epistasis
    >>> is_open = np.random.default_rng(0).random((400, 2)) < 0.75
    >>> def log_change(masks):
    ...     left = (is_open & ~masks[:, None, :]).any(axis=2)
    ...     return 2.0 * left - 2.0 * is_open.any(axis=1)
    >>> found = epistasis(log_change, 2)
    >>> found.call.tolist(), round(float(found.additivity.value), 1)
    ([1], 2.2)
    """
    n_elements = checks.integer("n_elements", n_elements)
    checks.choice("sign", sign, (-1, 1))
    n_boot = checks.integer("n_boot", n_boot, minimum=0)
    level = checks.number("level", level, low=0, high=1, open_low=True, open_high=True)
    n_permutations = checks.integer("n_permutations", n_permutations, minimum=2)
    resampling, orders = np.random.SeedSequence(checks.seed(seed)).spawn(2)

    def effects(masks: np.ndarray) -> Iterator[np.ndarray]:
        """Yield effects per cell, (n, n_cells), of up to 256 sets at a time."""
        for at in range(0, len(masks), BATCH):
            part = masks[at : at + BATCH]
            found = np.asarray(log_change(part))
            if found.ndim != 2 or len(found) != len(part) or not found.shape[1]:
                msg = f"Expected `log_change` to return ({len(part)}, n_cells), found {found.shape}."
                raise ValueError(msg)
            if not np.isfinite(found).all():
                msg = "`log_change` returned values that are not finite."
                raise ValueError(msg)
            yield sign * found

    n_cells = next(effects(np.zeros((1, n_elements), dtype=bool))).shape[1]
    weights = _resamples(n_cells, n_boot, np.random.default_rng(resampling))

    def measure(masks: np.ndarray) -> np.ndarray:
        """Return the mean effect of each set, (1 + n_boot, n_sets): first over the cells, then over each resample."""
        return np.concatenate([weights @ part.T for part in effects(masks)] or [np.zeros((len(weights), 0))], axis=1)

    exact = n_elements <= MAX_EXACT
    if exact:
        codes = np.arange(2**n_elements)
        table = measure((codes[:, None] >> np.arange(n_elements) & 1).astype(bool))
        powers = 2 ** np.arange(n_elements)

        def d(masks: np.ndarray) -> np.ndarray:
            return table[:, masks @ powers]

        shapley = table @ _shapley_weights(n_elements).T
    else:
        d = measure
        drawn = _drawn_orders(n_elements, n_permutations, np.random.default_rng(orders))
        shapley = weights @ _added_in_order(effects, drawn, n_cells).T

    alone = np.eye(n_elements, dtype=bool)
    pairs = np.column_stack(np.triu_indices(n_elements, k=1))
    both = alone[pairs[:, 0]] | alone[pairs[:, 1]]
    whole, single, without = d(np.ones((1, n_elements), dtype=bool)), d(alone), d(~alone)
    first, second = pairs.T
    epsilon = d(both) - single[:, first] - single[:, second]
    within = whole - without[:, first] - without[:, second] + d(~both)
    last_in = whole - without
    with np.errstate(divide="ignore", invalid="ignore"):
        compensation = np.where(np.abs(last_in) < MIN_EFFECT, np.nan, 1 - single / last_in)
        nothing, summed = np.abs(whole[:, 0]) < MIN_EFFECT, single.sum(axis=1)
        # No single effect at all is redundancy without bound, not an undefined ratio.
        additivity = np.where(nothing, np.nan, np.where(summed == 0, np.inf, whole[:, 0] / summed))
        redundancy = np.where(nothing, np.nan, 1 - single.max(axis=1) / whole[:, 0])

    def estimate(values: np.ndarray) -> Estimate:
        return _estimate(values, level)

    total = abs(float(whole[0, 0]))
    from_nothing, inside = estimate(epsilon), estimate(within)
    return Epistasis(
        whole=estimate(whole[:, 0]),
        single=estimate(single),
        last_in=estimate(last_in),
        compensation=estimate(compensation),
        shapley=estimate(shapley),
        additivity=estimate(additivity),
        redundancy=estimate(redundancy),
        pairs=pairs,
        epsilon=from_nothing,
        epsilon_within=inside,
        call=_call(from_nothing, total),
        call_within=_call(inside, total),
        exact=exact,
    )


def _resamples(n_cells: int, n_boot: int, rng: np.random.Generator) -> np.ndarray:
    """Return the weight of each cell, (1 + n_boot, n_cells): first all alike, then in each resample."""
    weights = np.empty((1 + n_boot, n_cells))
    weights[0] = 1
    for row in weights[1:]:
        row[:] = np.bincount(rng.integers(n_cells, size=n_cells), minlength=n_cells)
    return weights / n_cells


def _shapley_weights(n: int) -> np.ndarray:
    """Return (n, 2^n): the Shapley values are these weights times the effects of all subsets, by binary code."""
    codes = np.arange(2**n)
    member = (codes >> np.arange(n)[:, None] & 1).astype(bool)
    size = member.sum(axis=0)
    joins = np.array([factorial(k - 1) * factorial(n - k) if k else 0 for k in range(n + 1)]) / factorial(n)
    leaves = np.array([factorial(k) * factorial(n - 1 - k) if k < n else 0 for k in range(n + 1)]) / factorial(n)
    return np.where(member, joins[size], -leaves[size])


def _drawn_orders(n: int, n_permutations: int, rng: np.random.Generator) -> np.ndarray:
    """Return orders of n elements, each also reversed: what an element adds early and late is then balanced."""
    half = rng.permuted(np.tile(np.arange(n), (-(-n_permutations // 2), 1)), axis=1)
    return np.concatenate([half, half[:, ::-1]])[:n_permutations]


def _added_in_order(
    effects: Callable[[np.ndarray], Iterator[np.ndarray]], orders: np.ndarray, n_cells: int
) -> np.ndarray:
    """Return the mean over orders of what each element adds to those before it, (n_elements, n_cells)."""
    n = orders.shape[1]
    added = np.zeros((n, n_cells))
    together = max(1, BATCH // n)
    for start in range(0, len(orders), together):
        place = np.argsort(orders[start : start + together], axis=1)
        masks = place[:, None, :] < np.arange(1, n + 1)[:, None]
        reached = np.concatenate(list(effects(masks.reshape(-1, n)))).reshape(len(place), n, n_cells)
        steps = np.diff(reached, axis=1, prepend=0)
        added += steps[np.arange(len(place))[:, None], place].sum(axis=0)
    return added / len(orders)


def _estimate(values: np.ndarray, level: float) -> Estimate:
    """Split (1 + n_boot, ...) into the estimate and the limits; undefined replicates do not count."""
    value, replicates = values[0], values[1:]
    tail = (1 - level) / 2
    defined = ~np.isnan(replicates).all(axis=0) if len(replicates) else np.zeros(value.shape, dtype=bool)
    # A quantile that is one of the replicates stays right where some are infinite.
    safe = np.where(defined, replicates, 0.0) if len(replicates) else np.zeros((1, *value.shape))
    quantile = np.nanquantile if np.isnan(safe).any() else np.quantile
    low, high = quantile(safe, [tail, 1 - tail], axis=0, method="closest_observation")
    known = defined & ~np.isnan(value)
    return Estimate(value, np.where(known, low, np.nan), np.where(known, high, np.nan))


def _call(epsilon: Estimate, total: float) -> np.ndarray:
    """Return 1 where a pair is redundant, -1 where it is cooperative, 0 where neither can be said."""
    large = np.abs(epsilon.value) > MIN_SHARE * total
    return np.where(large & (epsilon.low > 0), 1, np.where(large & (epsilon.high < 0), -1, 0)).astype(np.int8)
