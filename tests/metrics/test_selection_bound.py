import numpy as np
import pytest

from sctrellis.metrics import selection_bound


def test_formulas():
    assert selection_bound(0.9, 50, 1000, n_halves=100) == pytest.approx(0.05 * 50 / 0.8)
    assert selection_bound(0.7, 50, 1000, n_halves=100, unimodal=True) == pytest.approx(2.5 / (2 * (0.4 - 0.01)))
    assert selection_bound(0.9, 50, 1000, n_halves=100, unimodal=True) == pytest.approx(2.5 * 4 * (0.1 + 0.01) / 1.02)


def test_the_two_forms_with_unimodality_meet_closely():
    below, above = (selection_bound(t, 50, 1000, n_halves=10_000, unimodal=True) for t in (0.75, 0.75 + 1e-9))
    assert below == pytest.approx(above, rel=2e-3)


@pytest.mark.parametrize("threshold", [0.6, 0.8, 1.0])
def test_blind_selections_stay_below_both_bounds(threshold):
    """Halves that select at random: every edge has the probability theta, so that all of them count."""
    n_pairs, n_top, n_halves = 200, 40, 20
    rng = np.random.default_rng(0)
    kept = []
    for _ in range(400):
        chosen = np.argsort(rng.random((n_halves, n_pairs)), axis=1) < n_top
        kept.append((chosen.mean(axis=0) >= threshold - 1e-9).sum())
    mean, se = np.mean(kept), np.std(kept) / 20
    assert mean <= selection_bound(threshold, n_top, n_pairs, n_halves=n_halves) + 3 * se
    assert mean <= selection_bound(threshold, n_top, n_pairs, n_halves=n_halves, unimodal=True) + 3 * se


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0.5, 5, 100, 10), "`threshold`"),
        ((1.1, 5, 100, 10), "`threshold`"),
        ((0.9, 101, 100, 10), "`n_top`"),
        ((0.9, 5, 100, 1), "`n_halves`"),
    ],
)
def test_bad_input_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        selection_bound(*arguments[:3], n_halves=arguments[3])


def test_unimodality_has_its_limits():
    with pytest.raises(ValueError, match="unimodal"):
        selection_bound(0.9, 60, 100, n_halves=100, unimodal=True)
