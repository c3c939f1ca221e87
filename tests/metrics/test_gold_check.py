"""What a partial reference says of a claimed rate: planted completeness and error rates come back."""

import numpy as np
import pytest

from sctrellis import metrics


def planted(seed, *, completeness, fdr, n_rows=40, n_columns=100, density=0.1):
    """Return a selection with a false discovery rate and a reference that holds a random share of the true edges."""
    rng = np.random.default_rng(seed)
    rows, columns = np.divmod(np.arange(n_rows * n_columns), n_columns)
    true = rng.random(len(rows)) < density
    known = true & (rng.random(len(rows)) < completeness)
    found = np.flatnonzero(true & (rng.random(len(rows)) < 0.8))
    false = rng.choice(np.flatnonzero(~true), round(len(found) * fdr / (1 - fdr)), replace=False)
    qvalues = np.ones(len(rows))
    qvalues[np.concatenate([found, false])] = 0.05
    return qvalues, known, rows, columns


def check(qvalues, known, rows, columns, **options):
    return metrics.gold_check(
        qvalues, known, rows=rows, columns=columns, **{"q": 0.1, "n_perm": 49, "n_boot": 100, **options}
    )


@pytest.mark.parametrize("completeness", [0.3, 0.7])
@pytest.mark.parametrize("fdr", [0.1, 0.5])
def test_the_completeness_that_is_needed_is_the_planted_one_times_the_true_over_the_claimed_precision(
    completeness, fdr
):
    found = [check(*planted(s, completeness=completeness, fdr=fdr), n_boot=0, n_perm=0).table for s in range(20)]
    needed = [table["completeness"].item() for table in found]
    expected = completeness * (1 - fdr) / 0.9
    assert np.mean(needed) == pytest.approx(expected, abs=3 * np.std(needed, ddof=1) / 20**0.5 + 1e-3)


def test_intervals_hold_the_planted_value_most_of_the_time():
    hits = []
    for seed in range(40):
        line = check(*planted(seed, completeness=0.5, fdr=0.2), n_perm=0, n_boot=100).table.iloc[0]
        hits.append(line["completeness_low"] <= 0.5 * 0.8 / 0.9 <= line["completeness_high"])
    assert np.mean(hits) >= 0.9  # two-way intervals of independent pairs are wide


def test_precision_and_enrichment_are_counts():
    qvalues = np.array([0.01, 0.04, 0.04, 0.3, 1, 1, 1, 1])
    known = np.array([1, 0, 1, 1, 0, 0, 0, 1])
    rows, columns = np.divmod(np.arange(8), 4)
    table = check(qvalues, known, rows, columns, q=[0.02, 0.05, 0.5]).table
    assert table["n_selected"].tolist() == [1, 3, 4]
    assert table["n_known"].tolist() == [1, 2, 3]
    np.testing.assert_allclose(table["precision"], [1, 2 / 3, 3 / 4])
    np.testing.assert_allclose(table["enrichment"], np.array([1, 2 / 3, 3 / 4]) / 0.5)
    np.testing.assert_allclose(table["completeness"], [1, 2 / 3 / 0.95, 1])
    assert table["low"].isna().all()
    assert all("regulators" in note for note in table["note"])


def test_a_selection_by_degree_alone_is_no_better_than_the_null():
    p = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        rows, columns = np.divmod(np.arange(600), 60)
        chance = 0.02 + 0.5 * (rows < 3) * (columns < 20)
        known = rng.random(600) < chance
        qvalues = np.where((rows < 3) & (rng.random(600) < 0.3), 0.01, 1.0)
        table = check(qvalues, known, rows, columns).table
        assert table["enrichment"].item() > 1.2  # looks fine beside the density
        p.append(table["p"].item())
    assert np.mean(np.array(p) <= 0.1) <= 0.1 + 3 * (0.09 / 12) ** 0.5


def test_nothing_selected_is_told():
    qvalues, known, rows, columns = planted(0, completeness=0.5, fdr=0.1)
    found = check(np.ones_like(qvalues), known, rows, columns)
    assert found.table["note"].item() == "nothing is selected"
    assert np.isnan(found.table["completeness"].item())
    assert found.words.startswith("Nothing is selected at q = 0.1")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"q": 0.0}, "`q`"),
        ({"q": [0.1, 5]}, "`q`"),
        ({"n_perm": -1}, "`n_perm`"),
        ({"qvalues": np.full(4000, np.nan)}, "`qvalues`"),
        ({"qvalues": np.full(4000, 1.5)}, "`qvalues`"),
        ({"known": np.zeros(4000)}, "edge|positive|label"),
    ],
)
def test_bad_input_is_refused(changes, words):
    given = dict(zip(("qvalues", "known", "rows", "columns"), planted(0, completeness=0.5, fdr=0.1), strict=True))
    given |= {k: v for k, v in changes.items() if k in given}
    options = {k: v for k, v in changes.items() if k not in given}
    with pytest.raises(ValueError, match=words):
        check(*given.values(), **options)
