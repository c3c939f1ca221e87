from itertools import combinations, permutations, product
from math import factorial

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from sctrellis.explain import epistasis

P = 0.75
LOGIC = {"OR": np.any, "AND": np.all, "ADD": np.sum}


def gates(is_open, *parts):
    """Return the log-expression change of gates ``(logic, members, beta)`` over cells x elements."""

    def expression(left):
        return sum(beta * LOGIC[logic](left[..., list(members)], axis=-1) for logic, members, beta in parts)

    def log_change(masks):
        return expression(is_open & ~masks[:, None, :]) - expression(is_open)

    return log_change


def balanced(n_elements):
    """Return cells in which every element is open in 3 of 4, all combinations in exact proportion."""
    return np.array(list(product([True, True, True, False], repeat=n_elements)))


def drawn(n_elements, n_cells=20_000, p=P, seed=0):
    return np.random.default_rng(seed).random((n_cells, n_elements)) < p


CLOSED = {
    # logic, m: single, whole, additivity
    ("ADD", 3): (1.6 * P, 3 * 1.6 * P, 1.0),
    ("OR", 2): (1.6 * P * (1 - P), 1.6 * (1 - (1 - P) ** 2), 2.5),
    ("OR", 3): (1.6 * P * (1 - P) ** 2, 1.6 * (1 - (1 - P) ** 3), 7.0),
    ("AND", 2): (1.6 * P**2, 1.6 * P**2, 0.5),
    ("AND", 3): (1.6 * P**3, 1.6 * P**3, 1 / 3),
}


@pytest.mark.parametrize(("logic", "m"), CLOSED)
def test_closed_forms(logic, m):
    single, whole, additivity = CLOSED[logic, m]
    found = epistasis(gates(balanced(m), (logic, range(m), 1.6)), m, n_boot=0)
    np.testing.assert_allclose(found.single.value, single, rtol=1e-12)
    np.testing.assert_allclose(found.whole.value, whole, rtol=1e-12)
    np.testing.assert_allclose(found.additivity.value, additivity, rtol=1e-12)
    np.testing.assert_allclose(found.redundancy.value, 1 - single / whole, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.shapley.value, whole / m, rtol=1e-12)


@pytest.mark.parametrize(("logic", "m"), CLOSED)
def test_closed_forms_at_20k_drawn_cells(logic, m):
    single, whole, additivity = CLOSED[logic, m]
    found = epistasis(gates(drawn(m), (logic, range(m), 1.6)), m, n_boot=200, level=0.999)
    assert found.additivity.value == pytest.approx(additivity, rel=0.02)
    assert found.whole.value == pytest.approx(whole, rel=0.02)
    assert found.additivity.low <= additivity + 1e-9
    assert found.additivity.high >= additivity - 1e-9
    assert np.all((found.single.low <= single) & (single <= found.single.high))


@pytest.mark.parametrize(("p", "additivity"), [(0.2, 1.125), (0.5, 1.5), (0.9, 5.5)])
def test_low_detection_hides_redundancy(p, additivity):
    found = epistasis(gates(drawn(2, 200_000, p), ("OR", (0, 1), 1.6)), 2, n_boot=0)
    assert found.additivity.value == pytest.approx(additivity, rel=0.02)


def test_compensation_and_epistasis_of_a_redundant_pair():
    found = epistasis(gates(balanced(2), ("OR", (0, 1), 1.6)), 2, n_boot=0)
    lost = 1.6 * (1 - (1 - P) ** 2)
    alone = 1.6 * P * (1 - P)
    np.testing.assert_allclose(found.last_in.value, lost - alone)
    np.testing.assert_allclose(found.compensation.value, 1 - alone / (lost - alone))
    np.testing.assert_allclose(found.epsilon.value, 1.6 * P**2)
    np.testing.assert_allclose(found.epsilon_within.value, 1.6 * P**2)  # nothing else is in the set
    assert found.pairs.tolist() == [[0, 1]]


def test_compensation_tells_additive_buffered_and_needed():
    parts = ("ADD", (0,), 0.5), ("OR", (1, 2), 1.0), ("AND", (3, 4), 1.0)
    found = epistasis(gates(balanced(5), *parts), 5, n_boot=0)
    r = found.compensation.value
    assert r[0] == pytest.approx(0, abs=1e-12)
    assert np.all(r[1:3] > 0.6)
    # Without its partner a needed element does nothing more: there is nothing to divide by.
    assert np.isnan(r[3:]).all()
    # Two gates that share a member: it acts last in and first, so the ratio exists, and is negative.
    shared = epistasis(gates(balanced(3), ("AND", (0, 1), 1.0), ("ADD", (0, 1, 2), 0.2)), 3, n_boot=0)
    assert np.all(shared.compensation.value[:2] < -1)


def test_sign_of_epistasis_and_calls():
    parts = ("OR", (0, 1), 1.4), ("AND", (2, 3), 1.4), ("ADD", (4, 5, 6), 0.5)
    found = epistasis(gates(drawn(7, 2_000), *parts), 7)
    calls = dict(zip(map(tuple, found.pairs.tolist()), found.call.tolist(), strict=True))
    assert calls.pop((0, 1)) == 1
    assert calls.pop((2, 3)) == -1
    assert not any(calls.values())
    other = [p not in ([0, 1], [2, 3]) for p in found.pairs.tolist()]
    np.testing.assert_allclose(found.epsilon.value[other], 0, atol=1e-9)


def test_three_that_replace_one_another_show_within_the_set():
    found = epistasis(gates(drawn(3, 4_000, 0.9), ("OR", (0, 1, 2), 1.0)), 3, n_boot=200)
    assert not found.call.any()  # the third hides every pair from nothing
    assert (found.call_within == 1).all()


def test_three_that_all_are_needed_show_from_nothing():
    found = epistasis(gates(drawn(3, 4_000, 0.9), ("AND", (0, 1, 2), 1.0)), 3, n_boot=200)
    assert (found.call == -1).all()
    assert not found.call_within.any()


def test_an_interval_that_holds_zero_is_no_call():
    # 40 cells, a pair whose interaction has a mean of about a third of its spread over the cells.
    noise = np.random.default_rng(3).normal(0.15, 1.5, size=40)

    def log_change(masks):
        return -(masks.sum(axis=1)[:, None] * 0.3 + masks.all(axis=1)[:, None] * noise)

    found = epistasis(log_change, 2)
    assert abs(found.epsilon.value[0]) > 0.1 * found.whole.value
    assert found.epsilon.low[0] < 0 < found.epsilon.high[0]
    assert found.call.tolist() == [0]


def test_a_small_share_of_the_whole_is_no_call():
    parts = ("OR", (0, 1), 0.1), ("ADD", (2,), 3.0)
    found = epistasis(gates(drawn(3, 2_000), *parts), 3)
    assert found.epsilon.low[0] > 0
    assert not found.call.any()


def random_set_function(n, n_cells, seed):
    """Return a log change that is a random number for every subset and cell, 0 for the empty one."""
    values = np.random.default_rng(seed).normal(size=(2**n, n_cells))
    values[0] = 0
    return lambda masks: values[masks @ (2 ** np.arange(n))]


def test_shapley_is_the_mean_over_all_orders():
    n, log_change = 5, random_set_function(5, 7, seed=1)
    expected = np.zeros(n)
    for order in permutations(range(n)):
        mask, before = np.zeros(n, dtype=bool), 0.0
        for j in order:
            mask[j] = True
            reached = -log_change(mask[None]).mean()
            expected[j] += reached - before
            before = reached
    found = epistasis(log_change, n, n_boot=0)
    assert found.exact
    np.testing.assert_allclose(found.shapley.value, expected / factorial(n), atol=1e-12)
    np.testing.assert_allclose(found.shapley.value.sum(), found.whole.value, atol=1e-12)


def test_everything_against_its_definition():
    n, log_change = 4, random_set_function(4, 9, seed=2)

    def d(*members):
        mask = np.zeros((1, n), dtype=bool)
        mask[0, list(members)] = True
        return log_change(mask).mean()

    everything = range(n)
    found = epistasis(log_change, n, sign=1, n_boot=0)
    pairs = list(combinations(everything, 2))
    rest = {i: [k for k in everything if k != i] for i in everything}
    np.testing.assert_array_equal(found.pairs, pairs)
    np.testing.assert_allclose(found.epsilon.value, [d(i, j) - d(i) - d(j) for i, j in pairs])
    within = [
        d(*everything) - d(*rest[i]) - d(*rest[j]) + d(*[k for k in everything if k not in (i, j)]) for i, j in pairs
    ]
    np.testing.assert_allclose(found.epsilon_within.value, within)
    last_in = np.array([d(*everything) - d(*rest[i]) for i in everything])
    single = np.array([d(i) for i in everything])
    np.testing.assert_allclose(found.last_in.value, last_in)
    np.testing.assert_allclose(found.compensation.value, 1 - single / last_in)
    np.testing.assert_allclose(found.additivity.value, d(*everything) / single.sum())
    np.testing.assert_allclose(found.redundancy.value, 1 - single.max() / d(*everything))


def test_drawn_orders_come_close_to_all_subsets():
    is_open = drawn(12, 300, seed=4)
    parts = ("OR", (0, 1, 2), 1.6), ("AND", (3, 4), 1.2), ("ADD", (5, 6, 7, 8, 9, 10, 11), 0.3)
    log_change = gates(is_open, *parts)
    found = epistasis(log_change, 12, n_boot=50)
    assert not found.exact
    np.testing.assert_allclose(found.shapley.value.sum(), found.whole.value, rtol=1e-12)
    # By linearity, Shapley values of each gate alone, exact, are those of the sum.
    for logic, members, beta in parts:
        own = epistasis(gates(is_open[:, list(members)], (logic, range(len(members)), beta)), len(members), n_boot=0)
        np.testing.assert_allclose(found.shapley.value[list(members)], own.shapley.value, atol=0.02)
    assert np.all(found.shapley.low < found.shapley.high)


def test_orders_are_drawn_in_pairs():
    # With an element and its mirror image in every order, an effect of first place alone is split exactly.
    n = 11

    def log_change(masks):
        return -masks[:, [0]].astype(float) * (1 + masks[:, 1:].sum(axis=1, keepdims=True))

    found = epistasis(log_change, n, n_boot=0, n_permutations=2)
    assert found.shapley.value[0] == pytest.approx(1 + 0.5 * (n - 1))


def test_symmetry_of_shapley():
    is_open = balanced(4)
    found = epistasis(gates(is_open, ("OR", (0, 1), 1.0), ("AND", (2, 3), 1.0)), 4, n_boot=0)
    s = found.shapley.value
    assert s[0] == pytest.approx(s[1])
    assert s[2] == pytest.approx(s[3])
    swapped = epistasis(gates(is_open, ("OR", (2, 3), 1.0), ("AND", (0, 1), 1.0)), 4, n_boot=0)
    np.testing.assert_allclose(swapped.shapley.value, s[[2, 3, 0, 1]])


def test_planted_pairs_rank_first():
    rng = np.random.default_rng(5)
    scores, kinds = [], []
    for _ in range(30):
        kind = rng.choice(["OR", "AND", "ADD"])
        is_open = rng.random((200, 2)) < rng.uniform(0.5, 0.8)
        noise = rng.normal(scale=0.05, size=200)
        exact = gates(is_open, (kind, (0, 1), rng.uniform(0.5, 1.5)))
        found = epistasis(lambda masks, exact=exact, noise=noise: exact(masks) + noise * masks.all(1)[:, None], 2)
        scores.append(found.epsilon.value[0])
        kinds.append(kind)
    scores, kinds = np.array(scores), np.array(kinds)
    for kind, sign in (("OR", 1), ("AND", -1)):
        among = np.isin(kinds, [kind, "ADD"])
        assert roc_auc_score(kinds[among] == kind, sign * scores[among]) >= 0.97
        assert (np.sign(scores[kinds == kind]) == sign).all()
    assert np.abs(scores[kinds == "ADD"]).mean() < 0.03


def test_raising_expression_turns_the_sign():
    log_change = gates(balanced(3), ("OR", (0, 1, 2), 1.0))
    down = epistasis(log_change, 3)
    up = epistasis(lambda masks: -log_change(masks), 3, sign=1)
    np.testing.assert_array_equal(up.epsilon.value, down.epsilon.value)
    np.testing.assert_array_equal(up.shapley.low, down.shapley.low)


def test_intervals_have_the_right_width():
    # The mean of n independent values: the interval is the normal one.
    values = np.random.default_rng(6).normal(1, 2, size=2_000)
    found = epistasis(lambda masks: masks[:, [0]] * -values, 1, n_boot=2_000)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert found.whole.high - found.whole.low == pytest.approx(2 * half, rel=0.08)
    assert found.whole.value == pytest.approx(values.mean())
    assert found.epsilon.value.shape == (0,)
    assert found.redundancy.value == pytest.approx(0)


def test_seeds():
    log_change = gates(drawn(3, 100), ("OR", (0, 1, 2), 1.0))
    one, again, other = (epistasis(log_change, 3, seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(one.epsilon.low, again.epsilon.low)
    assert not np.array_equal(one.epsilon.low, other.epsilon.low)
    np.testing.assert_array_equal(one.epsilon.value, other.epsilon.value)


def test_perfectly_redundant_and_empty_sets():
    both = epistasis(gates(np.ones((50, 2), dtype=bool), ("OR", (0, 1), 1.0)), 2)
    assert both.additivity.value == both.additivity.low == both.additivity.high == np.inf
    assert both.redundancy.value == 1
    assert both.call.tolist() == [1]
    nothing = epistasis(lambda masks: np.zeros((len(masks), 50)), 2)
    assert np.isnan(nothing.additivity.value)
    assert np.isnan(nothing.redundancy.value)
    assert np.isnan(nothing.compensation.value).all()
    assert nothing.call.tolist() == [0]


def test_no_more_than_256_sets_at_once():
    sizes = []

    def log_change(masks):
        sizes.append(len(masks))
        return -masks.sum(axis=1, keepdims=True) * np.ones(5)

    epistasis(log_change, 40, n_boot=0, n_permutations=4)
    assert max(sizes) <= 256


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"n_elements": 0}, "`n_elements` to be at least 1, found 0"),
        ({"sign": 2}, "`sign` to be one of -1, 1; found 2"),
        ({"level": 1.0}, r"`level` to lie in \(0, 1\), found 1.0"),
        ({"n_permutations": 1}, "`n_permutations` to be at least 2, found 1"),
        ({"log_change": lambda masks: np.zeros(len(masks))}, r"`log_change` to return \(1, n_cells\), found \(1,\)"),
        ({"log_change": lambda masks: np.full((len(masks), 3), np.nan)}, "not finite"),
    ],
)
def test_bad_input(changes, text):
    arguments = {"log_change": lambda masks: np.zeros((len(masks), 3)), "n_elements": 2, **changes}
    with pytest.raises(ValueError, match=text):
        epistasis(arguments.pop("log_change"), arguments.pop("n_elements"), **arguments)
