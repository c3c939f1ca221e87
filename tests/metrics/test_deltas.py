"""Changes of expression as published and on the log scale, against values by hand and the published averages."""

import numpy as np

from sctrellis.metrics._deltas import Deltas, deltas, over_tasks

# Published changes (average, percent) of sets of 128 peaks: random, saliency, SmoothGrad, FIMAP, GRIDS; tasks a row.
PUBLISHED = {
    "Astro": (3, [(-1.793, -0.533), (-15.511, -4.853), (-18.505, -6.217), (-82.565, -24.766), (-100.556, -34.633)]),
    "Endo": (2, [(2.554, 0.468), (-46.160, -6.217), (-52.383, -7.893), (-252.338, -41.790), (-259.920, -44.601)]),
    "Micro": (2, [(-9.091, -0.490), (-131.512, -9.122), (-145.561, -10.116), (-451.210, -39.695), (-470.430, -44.114)]),
    "OPC": (3, [(-1.848, -0.165), (-193.739, -10.260), (-186.235, -9.891), (-415.231, -35.687), (-392.326, -36.380)]),
    "Oligo": (2, [(-1.134, -0.211), (-19.809, -6.382), (-21.136, -7.630), (-69.460, -28.175), (-93.518, -38.982)]),
    "SST": (2, [(-1.681, -0.615), (-33.589, -11.675), (-32.275, -11.115), (-86.191, -29.198), (-93.772, -33.708)]),
    "VIP": (2, [(0.071, 0.002), (-4.014, -4.876), (-3.872, -4.782), (-13.054, -16.757), (-19.703, -27.221)]),
}
AVERAGES = [(-1.843, -0.237), (-68.620, -7.618), (-70.292, -8.212), (-202.368, -30.787), (-209.583, -36.893)]


def test_values_by_hand():
    before, after = np.log([[2.0, 4.0]]), np.log([[[1.0, 1.0], [2.0, 2.0]]])
    found = deltas(before, after, n_boot=0)
    log_delta = np.mean([np.log(1 / 2), np.log(1), np.log(1 / 4), np.log(2 / 4)])
    np.testing.assert_allclose(found.estimate[0], [log_delta, np.mean([-1, 0, -3, -2]), np.mean([-50, 0, -75, -50])])
    assert np.isnan(found.interval()).all()
    np.testing.assert_allclose(deltas(before, after, unit=10.0).estimate[0, 1], -15)


def test_published_convention_cuts_off_at_zero():
    before, after = np.array([[1.0, -2.0]]), np.array([[[-1.0, -3.0]]])
    found = deltas(before, after, floor=0.0, n_boot=0).estimate[0]
    np.testing.assert_allclose(found, [-1.5, (1 - np.e) / 2, 100 * (1 / np.e - 1) / 2])


def test_intervals_cover_the_mean_of_new_cells():
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        change = rng.normal(-0.5, 1.0, (1, 80))
        low, high = deltas(np.zeros((1, 80)), change[:, None], n_boot=400, seed=seed).interval()
        covered += low[0, 0] <= -0.5 <= high[0, 0]
    assert 0.88 <= covered / 200 <= 0.99


def test_tasks_share_the_draws_of_the_cells():
    before = np.zeros((2, 50))
    after = np.repeat(np.random.default_rng(0).normal(size=(1, 1, 50)), 2, axis=0)
    replicates = deltas(before, after, seed=1).replicates
    np.testing.assert_array_equal(replicates[:, 0], replicates[:, 1])
    assert not np.array_equal(deltas(before, after, seed=2).replicates, replicates)


def test_the_mean_over_sixteen_tasks_is_the_published_average():
    for method, average in enumerate(AVERAGES):
        # Each group's tasks are a part of their own; all have the printed mean of the group.
        parts = [
            Deltas(np.tile([0.0, *values[method]], (n_tasks, 1)), np.zeros((0, n_tasks, 3)))
            for n_tasks, values in PUBLISHED.values()
        ]
        found = over_tasks(parts)
        np.testing.assert_allclose(found.estimate[0, 1:], average, atol=1.1e-3)


def test_the_mean_over_tasks_has_the_replicates_of_the_mean():
    rng = np.random.default_rng(0)
    parts = [deltas(np.zeros((n, 30)), rng.normal(size=(n, 1, 30)), n_boot=20) for n in (1, 3)]
    found = over_tasks(parts)
    every = np.concatenate([part.replicates for part in parts], axis=1)
    np.testing.assert_allclose(found.replicates[:, 0], every.mean(axis=1))
    np.testing.assert_allclose(found.estimate, np.concatenate([p.estimate for p in parts]).mean(axis=0, keepdims=True))
