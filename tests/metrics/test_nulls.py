"""Degree-preserving and other nulls, against exact enumeration, closed forms and their own promises."""

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.linear_model import LogisticRegression

from sctrellis import metrics
from sctrellis.metrics import _ranking
from sctrellis.metrics._null_test import NULLS


def pairs(n_rows, n_columns, *, self_pairs=False):
    """Return rows and columns of all pairs; the first columns are the rows themselves."""
    rows, columns = np.divmod(np.arange(n_rows * n_columns), n_columns)
    kept = np.ones(len(rows), bool) if self_pairs else rows != columns
    return rows[kept], columns[kept]


def popular(n_rows, n_columns, seed, *, base=-1.0, sd=1.5):
    """Return pairs and labels that depend on who the genes are and on nothing else, with both genes' effects."""
    rng = np.random.default_rng(seed)
    rows, columns = pairs(n_rows, n_columns)
    a, b = sd * rng.normal(size=n_rows), sd * rng.normal(size=n_columns)
    return rows, columns, rng.random(len(rows)) < 1 / (1 + np.exp(-base - a[rows] - b[columns])), a, b


def degrees(ends, labels, size):
    return np.bincount(ends[labels], minlength=size)


@st.composite
def tables(draw):
    """A table with any cells left out, and any labels."""
    n_rows, n_columns = draw(st.integers(2, 9)), draw(st.integers(2, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    rows, columns = np.divmod(np.arange(n_rows * n_columns), n_columns)
    kept = (rows != columns) & (rng.random(len(rows)) < draw(st.sampled_from([1.0, 0.7])))
    rows, columns = rows[kept], columns[kept]
    labels = rng.random(len(rows)) < draw(st.sampled_from([0.1, 0.4, 0.8]))
    return rows, columns, labels


@settings(max_examples=250, deadline=None)
@given(tables(), st.integers(0, 100))
def test_every_degree_stays_and_only_pairs_become_edges(table, seed):
    rows, columns, labels = table
    if len(set(rows)) < 2 or len(set(columns)) < 2 or not labels.any() or labels.all():
        return
    null = metrics.degree_null(rows, columns, labels, n_perm=4, n_rounds=3, seed=seed)
    assert null.positive.shape == (4, labels.sum())
    for positive in null.positive:
        drawn = np.zeros(len(labels), bool)
        drawn[positive] = True
        assert drawn.sum() == labels.sum()  # no edge twice
        for ends in (rows, columns):
            np.testing.assert_array_equal(degrees(ends, drawn, 12), degrees(ends, labels, 12))
    # Self pairs and pairs left out are no pairs, so no position stands for them.
    assert (rows[null.positive] != columns[null.positive]).all()


def every_table(rows, columns, labels):
    """Return all labellings with the degrees of ``labels``, row by row."""
    n_rows, size = rows.max() + 1, columns.max() + 1
    options = []
    for row in range(n_rows):
        own = np.flatnonzero(rows == row)
        options.append(list(combinations(own, int(labels[own].sum()))))
    wanted = degrees(columns, labels, size)
    found = set()
    for chosen in product(*options):
        at = np.array(sorted(sum(chosen, ())), dtype=int)
        if (np.bincount(columns[at], minlength=size) == wanted).all():
            found.add(tuple(at))
    return found


@pytest.mark.parametrize("seed", [1, 4])
def test_all_networks_of_the_degrees_are_equally_likely(seed):
    rows, columns = pairs(4, 6)
    labels = np.zeros(len(rows), bool)
    labels[np.random.default_rng(seed).choice(len(rows), 9, replace=False)] = True
    expected = every_table(rows, columns, labels)
    assert len(expected) > 20
    n_perm = 60 * len(expected)
    null = metrics.degree_null(rows, columns, labels, n_perm=n_perm, seed=seed)
    drawn, counts = np.unique(np.sort(null.positive, axis=1), axis=0, return_counts=True)
    assert {tuple(d) for d in drawn.tolist()} == expected
    assert stats.chisquare(counts).pvalue > 0.001


def test_chains_run_until_they_forget():
    rows, columns, labels, *_ = popular(12, 60, 0)
    short = metrics.degree_null(rows, columns, labels, n_perm=2, n_rounds=1)
    assert not short.mixed
    assert short.overlap > short.overlap_expected + 0.05
    long = metrics.degree_null(rows, columns, labels, n_perm=200)
    assert long.mixed
    assert long.n_rounds >= 40
    # Networks drawn from the hub share with the known one what independent networks share.
    shared = labels[long.positive].mean()
    assert shared == pytest.approx(long.overlap_expected, abs=0.01)


def test_a_network_that_degrees_fix_is_its_own_null():
    rows, columns = pairs(3, 5)
    labels = columns >= 3 - (rows == 2)  # nested: the only table of its degrees
    assert len(every_table(rows, columns, labels)) == 1
    found = metrics.null_test(np.arange(len(rows)), labels, rows=rows, columns=columns, n_perm=19)
    assert found.mixing["overlap"] == found.mixing["overlap_expected"] == 1
    assert found.mixing["mixed"]
    assert found.table["p"].tolist() == [1, 1, 1]
    assert found.table["z"].isna().all()
    assert "the score says no more" in found.words


def test_a_cycle_of_three_genes_stays_as_it_is():
    """The one limit of trades: both directions have the same degrees, and no trade leads from one to the other."""
    rows, columns = pairs(3, 3)
    labels = (rows + 1) % 3 == columns
    assert len(every_table(rows, columns, labels)) == 2
    null = metrics.degree_null(rows, columns, labels, n_perm=20)
    assert {tuple(sorted(p)) for p in null.positive.tolist()} == {tuple(np.flatnonzero(labels))}
    scores = np.arange(len(rows))
    assert metrics.null_test(scores, labels, rows=rows, columns=columns, n_perm=19).table["p"].tolist() == [1, 1, 1]


def test_draws_do_not_depend_on_workers_and_do_on_the_seed():
    rows, columns, labels, *_ = popular(30, 300, 0)
    one, two, other = (
        metrics.degree_null(rows, columns, labels, n_perm=120, n_rounds=2, seed=seed, n_jobs=n_jobs).positive
        for seed, n_jobs in ((0, 1), (0, 2), (1, 1))
    )
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()


# maximum entropy


@settings(max_examples=100, deadline=None)
@given(tables())
def test_expected_degrees_are_the_known_ones(table):
    rows, columns, labels = table
    if not len(rows):
        return
    p = metrics.maximum_entropy(rows, columns, labels)
    assert (p >= 0).all()
    assert (p <= 1).all()
    for ends in (rows, columns):
        expected = np.bincount(ends, weights=p, minlength=12)
        np.testing.assert_allclose(expected, degrees(ends, labels, 12), atol=1e-3)


def test_maximum_entropy_is_the_regression_on_identity():
    rows, columns, labels, *_ = popular(6, 14, 1, sd=0.5)
    x = np.zeros((len(rows), 20))
    x[np.arange(len(rows)), rows] = x[np.arange(len(rows)), 6 + columns] = 1
    fitted = LogisticRegression(C=1e9, tol=1e-10, max_iter=10_000).fit(x, labels).predict_proba(x)[:, 1]
    found = metrics.maximum_entropy(rows, columns, labels)
    np.testing.assert_allclose(found, fitted, atol=1e-4)


def test_maximum_entropy_agrees_with_drawn_networks():
    rows, columns, labels, *_ = popular(15, 80, 2)
    null = metrics.degree_null(rows, columns, labels, n_perm=1500)
    often = np.bincount(null.positive.ravel(), minlength=len(rows)) / 1500
    assert np.abs(often - metrics.maximum_entropy(rows, columns, labels)).mean() < 0.015


# tests


def test_a_curve_of_positions_is_the_curve_of_labels():
    rng = np.random.default_rng(0)
    conventions = _ranking.Conventions(fraction=0.05)
    for n_values in (1, 3, 40, 10**6):
        scores = rng.integers(0, n_values, 300).astype(float)
        order = _ranking.Order(scores)
        for _ in range(5):
            labels = rng.random(300) < rng.uniform(0.01, 0.9)
            labels[rng.integers(300)] = True
            one = _ranking.Ranking(scores, labels).curve()
            two = order.curve(np.flatnonzero(labels))
            for metric in _ranking.METRICS:
                expected = _ranking.measure(metric, one, conventions)
                assert _ranking.measure(metric, two, conventions) == pytest.approx(expected), metric


@pytest.mark.parametrize("kind", NULLS)
def test_p_values_of_random_scores_are_uniform(kind):
    found = []
    for seed in range(200):
        # Labels are drawn from the null, scores know popularity and nothing else of the pairs.
        rows, columns, labels, a, b = popular(6, 12, seed if kind == "degree" else 0, sd=1.0 * (kind == "degree"))
        rng = np.random.default_rng(5000 + seed)
        scores = a[rows] + b[columns] if kind == "degree" else rng.random(len(rows))
        if kind == "degree":  # a random network of these degrees
            drawn = metrics.degree_null(rows, columns, labels, n_perm=1, n_rounds=40, seed=seed).positive[0]
            labels = np.isin(np.arange(len(rows)), drawn)
            scores = scores + rng.normal(size=len(rows))
        where = {"rows": rows, "columns": columns, "metrics": "auroc", "n_perm": 39, "seed": seed}
        found.append(metrics.null_test(scores, labels, kind=kind, **where).table["p"].item())
    # p-values are multiples of 1/40: spread each over its step to compare with a continuous law.
    spread = np.array(found) - np.random.default_rng(0).random(200) / 40
    assert stats.kstest(spread, "uniform").pvalue > 0.01


@pytest.mark.parametrize("kind", ["degree", "regulator"])
def test_a_constant_per_regulator_says_nothing(kind):
    rows, columns, labels, a, _ = popular(10, 50, 3)
    found = metrics.null_test(a[rows], labels, rows=rows, columns=columns, kind=kind, n_perm=99)
    assert found.table["p"].tolist() == [1, 1, 1]
    assert found.table["ratio_to_null"].to_numpy() == pytest.approx(1)
    assert found.table["ratio_to_chance"].min() > 1
    contrast = metrics.null_test(a[rows], labels, rows=rows, columns=columns, kind="labels", n_perm=99)
    assert contrast.table["p"].iloc[0] == 0.01
    assert "takes knowing the hubs for knowing the edges" in contrast.words


def test_numbers_are_those_of_an_independent_reckoning():
    rows, columns, labels, a, b = popular(8, 40, 5)
    scores = np.random.default_rng(1).normal(size=len(rows)) + labels
    where = {"rows": rows, "columns": columns}
    found = metrics.null_test(scores, labels, n_perm=50, seed=3, metrics=["auprc", "auroc"], **where)
    null = metrics.degree_null(rows, columns, labels, n_perm=50, seed=3)
    measures = {"auprc": metrics.average_precision, "auroc": metrics.auroc}
    for metric, measure in measures.items():
        drawn = np.array([measure(scores, np.isin(np.arange(len(rows)), p)) for p in null.positive])
        np.testing.assert_allclose(found.replicates[metric], drawn)
        line = found.table.set_index("metric").loc[metric]
        observed = measure(scores, labels)
        assert line["observed"] == pytest.approx(observed)
        assert line["z"] == pytest.approx((observed - drawn.mean()) / drawn.std(ddof=1))
        assert line["p"] == pytest.approx((1 + (drawn >= observed).sum()) / 51)
        assert line["ratio_to_null"] == pytest.approx(observed / drawn.mean())
        chance = {"auprc": labels.mean(), "auroc": 0.5}[metric]
        assert (line["chance"], line["ratio_to_chance"]) == pytest.approx((chance, observed / chance))
        identity = measure(metrics.maximum_entropy(rows, columns, labels), labels)
        assert line["identity"] == pytest.approx(identity)
    assert found.table["identity"].iloc[1] > metrics.auroc(a[rows], labels)


def test_knowledge_of_pairs_is_found_below_chance_too():
    """A score that ranks popular genes last, and edges above what is as popular."""
    rows, columns, labels, a, b = popular(20, 80, 7)
    rng = np.random.default_rng(0)
    scores = -(a[rows] + b[columns]) + 0.7 * labels + rng.normal(size=len(rows))
    line = metrics.null_test(scores, labels, rows=rows, columns=columns, n_perm=99).table.iloc[0]
    assert line["ratio_to_chance"] < 1 < line["ratio_to_null"]
    assert line["p"] == 0.01


def test_the_independent_null_varies_more():
    rows, columns, labels, *_ = popular(12, 60, 0)
    scores = np.random.default_rng(0).random(len(rows))
    where = {"rows": rows, "columns": columns, "n_perm": 300}
    degree, maxent = (metrics.null_test(scores, labels, kind=k, **where).table.iloc[0] for k in ("degree", "maxent"))
    assert degree["null_mean"] == pytest.approx(maxent["null_mean"], rel=0.02)
    assert maxent["null_sd"] > degree["null_sd"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros(20, bool)}, "None of the 20 `labels` are positive"),
        ({"labels": np.ones(20, bool)}, "All of the 20 `labels` are positive"),
        ({"rows": np.zeros(20, int), "columns": np.arange(20)}, "at least 2 regulators in the pairs, found 1"),
        ({"rows": np.arange(20), "columns": np.zeros(20, int)}, "at least 2 targets in the pairs, found 1"),
        ({"rows": np.repeat([0, 1], 10), "columns": np.tile(np.arange(5), 4)}, "10 of the 20 pairs .* are copies"),
        ({"rows": np.zeros(3, int)}, r"`rows` and `columns` to have shape \(20,\)"),
        ({"n_perm": 0}, "`n_perm` to be at least 1, found 0"),
        ({"seed": -1}, "`seed` to be at least 0"),
    ],
)
def test_bad_input(change, message):
    rows, columns = np.divmod(np.arange(20), 5)
    options = {"rows": rows, "columns": columns, "labels": columns < 2, **change}
    labels = options.pop("labels")
    with pytest.raises(ValueError, match=message):
        metrics.null_test(np.arange(20.0), labels, **options)
    with pytest.raises(ValueError, match=message):
        metrics.degree_null(options.pop("rows"), options.pop("columns"), labels, **options)


def test_unknown_names():
    rows, columns = np.divmod(np.arange(20), 5)
    where = {"rows": rows, "columns": columns}
    with pytest.raises(
        ValueError, match="`kind` to be one of 'degree', 'regulator', 'labels', 'maxent'; found 'cells'"
    ):
        metrics.null_test(np.arange(20.0), columns < 2, kind="cells", **where)
    with pytest.raises(ValueError, match="`metrics` to be one of .*; found 'auprc_ratio'"):
        metrics.null_test(np.arange(20.0), columns < 2, metrics=["auprc_ratio"], **where)
    with pytest.raises(ValueError, match="`n_rounds` to be at least 1, found 0"):
        metrics.degree_null(rows, columns, columns < 2, n_rounds=0)
