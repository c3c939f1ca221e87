"""Propagation says how large effects are, and stops where they do not die out."""

import numpy as np
import pytest

from sctrellis.models import propagate

WEIGHTS, REGULATORS = np.array([[0.0, 2.0, 1.0], [0.5, 0.0, 0.0]]), np.array([0, 1])
CLAMPED = np.array([[1.0, np.nan, np.nan]])


def test_effects_that_do_not_die_out_are_not_propagated():
    found = propagate(WEIGHTS, REGULATORS, CLAMPED, device="cpu")
    assert found.changes is None
    assert found.radius == pytest.approx(1)
    first = propagate(WEIGHTS, REGULATORS, CLAMPED, n_steps=1, device="cpu")
    assert first.changes.tolist() == [[1, 2, 1]]
    assert first.factor == 1


def test_effects_are_scaled_down_to_a_radius():
    found = propagate(WEIGHTS, REGULATORS, CLAMPED, max_radius=0.5, device="cpu")
    assert found.factor == pytest.approx(0.5)
    np.testing.assert_allclose(found.changes, [[1, 1, 0.5]])
    small = propagate(WEIGHTS / 4, REGULATORS, CLAMPED, max_radius=0.5, device="cpu")
    assert small.factor == 1
