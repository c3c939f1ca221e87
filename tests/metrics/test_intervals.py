import numpy as np
import pytest

from sctrellis.metrics._intervals import Intervals, distance, near


def drawn(n, seed, longest):
    rng = np.random.default_rng(seed)
    start = rng.integers(0, 2_000, size=n)
    length = np.where(rng.random(n) < 0.1, rng.integers(1, longest, size=n), rng.integers(1, 20, size=n))
    return Intervals(rng.integers(-1, 3, size=n), start, start + length)


def one(chrom, start, end):
    return Intervals(np.array([chrom]), np.array([start]), np.array([end]))


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ((0, 20, 30), 1),  # neighbours without a gap
        ((0, 19, 30), 0),
        ((0, 0, 10), 1),
        ((0, 0, 11), 0),
        ((0, 12, 13), 0),
        ((0, 25, 30), 6),
        ((0, 0, 5), 6),
        ((1, 12, 13), np.inf),
        ((-1, 12, 13), np.inf),
    ],
)
def test_distance(other, expected):
    assert distance(one(0, 10, 20), one(*other)) == expected
    assert distance(one(*other), one(0, 10, 20)) == expected


def test_two_unknown_chromosomes_are_apart():
    assert distance(one(-1, 10, 20), one(-1, 10, 20)) == np.inf


@pytest.mark.parametrize("window", [0, 1, 50, 5_000])
@pytest.mark.parametrize("longest", [21, 1_500])
def test_near_against_all_pairs(window, longest):
    intervals, queries = drawn(150, 1, longest), drawn(40, 2, longest)
    pairs = [(q, i) for q in range(len(queries)) for i in range(len(intervals))]
    query, member = np.array(pairs).T
    apart = distance(intervals.take(member), queries.take(query))
    kept = apart <= window
    found = near(intervals, queries, window)
    np.testing.assert_array_equal(found[0], query[kept])
    np.testing.assert_array_equal(found[1], member[kept])
    np.testing.assert_array_equal(found[2], apart[kept])


def test_near_nothing():
    nothing = Intervals(np.zeros(0, int), np.zeros(0, int), np.zeros(0, int))
    for intervals, queries in ((nothing, one(0, 1, 2)), (one(0, 1, 2), nothing), (one(-1, 1, 2), one(-1, 1, 2))):
        assert [len(part) for part in near(intervals, queries, 10)] == [0, 0, 0]
