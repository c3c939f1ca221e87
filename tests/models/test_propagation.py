"""Propagation says how large effects are, and stops where they do not die out."""

import numpy as np
import pytest

from sctrellis.models._propagation import propagate

WEIGHTS, REGULATORS = np.array([[0.0, 2.0, 1.0], [0.5, 0.0, 0.0]]), np.array([0, 1])
CLAMPED = np.array([[1.0, np.nan, np.nan]])
OPTIONS = {"n_steps": None, "max_radius": None, "n_iterations": 100, "device": "cpu"}


def test_effects_that_do_not_die_out_are_not_propagated():
    changes, radius, factor = propagate(WEIGHTS, REGULATORS, CLAMPED, **OPTIONS)
    np.testing.assert_array_equal(changes, CLAMPED)
    assert (radius, factor) == (pytest.approx(1), 1)
    changes, _, factor = propagate(WEIGHTS, REGULATORS, CLAMPED, **{**OPTIONS, "n_steps": 1})
    assert (changes.tolist(), factor) == ([[1, 2, 1]], 1)


def test_effects_are_scaled_down_to_a_radius():
    changes, radius, factor = propagate(WEIGHTS, REGULATORS, CLAMPED, **{**OPTIONS, "max_radius": 0.5})
    assert (radius, factor) == (pytest.approx(1), pytest.approx(0.5))
    np.testing.assert_allclose(changes, [[1, 1, 0.5]])
    assert propagate(WEIGHTS / 4, REGULATORS, CLAMPED, **{**OPTIONS, "max_radius": 0.5})[2] == 1
