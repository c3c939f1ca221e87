import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as sk

from sctrellis import metrics

INTERP = ("step", "trapezoid", "davis_goadrich")


def tied(rng, n=200, levels=15):
    """Scores with many ties, and labels with both values."""
    labels = rng.random(n) < 0.2
    labels[:2] = True, False
    return (rng.integers(0, levels, n) + 3 * labels) / levels, labels


def shuffled_positions(scores, rng):
    """Pairs from the highest to the lowest score, equal ones in random order."""
    order = rng.permutation(len(scores))
    return order[np.argsort(-scores[order], kind="stable")]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("weighted", [False, True])
def test_areas_equal_sklearn(seed, weighted):
    rng = np.random.default_rng(seed)
    scores, labels = tied(rng)
    weights = rng.random(len(scores)) if weighted else None
    options = {"sample_weight": weights}
    assert metrics.auroc(scores, labels, weights=weights) == pytest.approx(
        sk.roc_auc_score(labels, scores, **options), abs=1e-12
    )
    assert metrics.average_precision(scores, labels, weights=weights) == pytest.approx(
        sk.average_precision_score(labels, scores, **options), abs=1e-12
    )
    precision, recall, _ = sk.precision_recall_curve(labels, scores, **options)
    assert metrics.average_precision(scores, labels, interp="trapezoid", weights=weights) == pytest.approx(
        sk.auc(recall, precision), abs=1e-12
    )


# BEELINE's and DeepSEM's definitions, written naively from their description: Python lists, no shared code.


def naive_beeline_early_precision(scores, labels):
    weights = sorted((float(s) for s in scores), reverse=True)
    k = sum(map(bool, labels))
    at_k = weights[min(k, len(weights)) - 1]
    nonzero = [w for w in weights if w != 0]
    if not nonzero:
        return 0.0
    cut = max(min(nonzero), at_k)
    selected = [bool(label) for score, label in zip(scores, labels, strict=True) if score >= cut]
    return sum(selected) / len(selected)


def naive_deepsem_epr(scores, labels):
    weights = sorted((float(s) for s in scores), reverse=True)
    k = sum(map(bool, labels))
    cut = weights[k] if k < len(weights) else 0.0
    hits = sum(bool(label) for score, label in zip(scores, labels, strict=True) if score > cut)
    return hits / (k**2 / len(weights))


def naive_points(scores, labels):
    """(TP, FP) after each distinct score, from the top."""
    found = [(0, 0)]
    for cut in sorted({float(s) for s in scores}, reverse=True):
        above = [bool(label) for score, label in zip(scores, labels, strict=True) if score >= cut]
        found.append((sum(above), len(above) - sum(above)))
    return found


def naive_trapezoid(scores, labels):
    total = sum(map(bool, labels))
    curve = [(0.0, 1.0)] + [(tp / total, tp / (tp + fp)) for tp, fp in naive_points(scores, labels)[1:]]
    return sum((r1 - r0) * (p0 + p1) / 2 for (r0, p0), (r1, p1) in zip(curve[:-1], curve[1:], strict=True))


def naive_davis_goadrich(scores, labels):
    total, area = sum(map(bool, labels)), 0.0
    points = naive_points(scores, labels)
    for (tp0, fp0), (tp1, fp1) in zip(points[:-1], points[1:], strict=True):
        for i in range(tp1 - tp0):
            slope = (fp1 - fp0) / (tp1 - tp0)
            precisions = []
            for x in (i, i + 1):
                tp, fp = tp0 + x, fp0 + slope * x
                precisions.append(tp / (tp + fp) if tp + fp else 1 / (1 + slope))
            area += sum(precisions) / 2 / total
    return area


@pytest.mark.parametrize("block", range(4))
def test_conventions_equal_their_descriptions_on_small_networks(block):
    # 200 networks in all: 4-8 regulators x 8-20 genes, rounded scores (ties) and many exact zeros.
    rng = np.random.default_rng(block)
    for _ in range(50):
        shape = (rng.integers(4, 9), rng.integers(8, 21))
        labels = rng.random(shape).ravel() < rng.choice([0.05, 0.2, 0.5])
        labels[:2] = True, False
        scores = np.abs(rng.normal(size=labels.size) + labels).round(rng.integers(0, 4))
        scores[rng.random(labels.size) < rng.choice([0.0, 0.5, 0.95])] = 0
        base = labels.mean()
        early = naive_beeline_early_precision(scores, labels)
        assert metrics.early_precision(scores, labels, ties="beeline") == pytest.approx(early, abs=1e-10)
        assert metrics.early_precision_ratio(scores, labels, ties="beeline") == pytest.approx(early / base, abs=1e-10)
        expected = naive_deepsem_epr(scores, labels)
        assert metrics.early_precision_ratio(scores, labels, ties="deepsem") == pytest.approx(expected, abs=1e-10)
        for interp, area in (("trapezoid", naive_trapezoid), ("davis_goadrich", naive_davis_goadrich)):
            value = metrics.average_precision(scores, labels, interp=interp)
            assert value == pytest.approx(area(scores, labels), abs=1e-10)
            assert metrics.auprc_ratio(scores, labels, interp=interp) == pytest.approx(value / base, abs=1e-10)


def test_unscored_pairs_do_not_fill_beelines_top_k():
    # 3 known edges, 2 scored pairs: rank min(3, 2), so both are selected and none of the unscored.
    scores, labels = np.array([0.9, 0.5, -np.inf, -np.inf]), np.array([True, False, True, True])
    assert metrics.early_precision(scores, labels, ties="beeline") == 0.5
    # Exactly 3 pairs: the third is one of the unscored, of which both are known.
    assert metrics.early_precision(scores, labels) == pytest.approx(2 / 3)


def test_k_beyond_the_pairs_counts_edges_elsewhere():
    # DeepSEM counts k before it masks pairs: 3 edges, 2 of them among these 4 pairs. 3 pairs lie strictly above rank 4.
    scores, labels = [4.0, 3.0, 2.0, 1.0], [True, False, True, False]
    assert metrics.early_precision(scores, labels, ties="deepsem", k=3) == pytest.approx(2 / 3)
    assert metrics.early_precision_ratio(scores, labels, ties="deepsem", k=3) == pytest.approx(2 / (9 / 4))


def test_expected_ties_equal_the_mean_over_random_orders():
    rng = np.random.default_rng(0)
    labels = rng.random(60) < 0.3
    scores = rng.integers(0, 4, 60).astype(float)
    k, top = labels.sum(), int(np.ceil(0.1 * len(labels)))
    early, hits = [], []
    for _ in range(2000):
        found = labels[shuffled_positions(scores, rng)]
        early.append(found[:k].mean())
        hits.append(found[:top].mean())
    for value, draws in (
        (metrics.early_precision(scores, labels), early),
        (metrics.hit_rate(scores, labels, fraction=0.1), hits),
    ):
        assert value == pytest.approx(np.mean(draws), abs=4 * np.std(draws) / np.sqrt(len(draws)) + 1e-12)
        assert np.std(draws) > 0.005  # ties at the cut do matter


@pytest.mark.parametrize("interp", ["step", "davis_goadrich"])
def test_constant_scores_get_the_base_rate(interp):
    labels = np.arange(40) % 5 == 0
    scores = np.full(40, 0.3)
    assert metrics.auroc(scores, labels) == 0.5
    assert metrics.average_precision(scores, labels, interp=interp) == pytest.approx(0.2)
    assert metrics.auprc_ratio(scores, labels, interp=interp) == pytest.approx(1)
    assert metrics.early_precision_ratio(scores, labels) == pytest.approx(1)
    assert metrics.hit_rate(scores, labels, fraction=0.25) == pytest.approx(0.2)


@st.composite
def ranked(draw):
    n = draw(st.integers(2, 60))
    scores = draw(hnp.arrays(np.int64, n, elements=st.integers(-8, 8))).astype(float)
    labels = draw(hnp.arrays(bool, n))
    labels[draw(st.integers(0, n - 1))] ^= labels.all() or not labels.any()
    return scores, labels


@settings(max_examples=60, deadline=None, derandomize=True)
@given(ranked(), st.integers(0, 2**32 - 1))
def test_properties(pairs, seed):
    scores, labels = pairs
    order = np.random.default_rng(seed).permutation(len(scores))
    weights = np.random.default_rng(seed).integers(0, 4, len(scores))
    weights[np.argmax(labels)] = 1
    repeated = np.repeat(scores, weights), np.repeat(labels, weights)
    ceiling = metrics.hit_rate_ceiling(labels, fraction=0.1)

    assert metrics.auroc(scores, labels) + metrics.auroc(-scores, labels) == pytest.approx(1)
    assert metrics.hit_rate(labels * 1.0, labels, fraction=0.1) == pytest.approx(ceiling)
    for interp in INTERP:
        value = metrics.average_precision(scores, labels, interp=interp)
        assert 0 < value <= 1 + 1e-12
        assert metrics.average_precision(labels * 1.0, labels, interp=interp) == pytest.approx(1)
        if interp != "trapezoid":  # its straight lines can pass below the worst order of tied pairs
            worst = -np.argsort(np.argsort(labels, kind="stable"))
            assert metrics.average_precision(worst, labels, interp=interp) <= value + 1e-12
        assert metrics.average_precision(scores, labels, weights=weights, interp=interp) == pytest.approx(
            metrics.average_precision(*repeated, interp=interp)
        )
    for function, options in (
        (metrics.auroc, {}),
        (metrics.average_precision, {}),
        (metrics.early_precision, {}),
        (metrics.hit_rate, {"fraction": 0.1}),
    ):
        value = function(scores, labels, **options)
        assert function(scores[order], labels[order], **options) == pytest.approx(value)
        assert function(np.exp(scores / 4) - 9, labels, **options) == pytest.approx(value)
        if function is not metrics.auroc or not repeated[1].all():
            assert function(scores, labels, weights=weights, **options) == pytest.approx(function(*repeated, **options))
    for ties in ("beeline", "deepsem"):
        value = metrics.early_precision(np.abs(scores), labels, ties=ties)
        assert 0 <= value <= 1
        assert metrics.early_precision(np.abs(scores), labels, ties=ties, weights=weights) == pytest.approx(
            metrics.early_precision(np.abs(repeated[0]), repeated[1], ties=ties)
        )


def test_the_top_fraction_is_rounded_up_but_not_by_rounding_error():
    labels = np.arange(100) < 7
    assert metrics.hit_rate(-np.arange(100.0), labels, fraction=0.07) == 1.0  # 0.07 * 100 > 7 in floating point
    assert metrics.hit_rate(-np.arange(100.0), labels, fraction=0.071) == pytest.approx(7 / 8)
    assert metrics.hit_rate_ceiling(labels, fraction=0.5) == pytest.approx(0.14)


def test_curve_for_drawing_holds_the_same_area_and_puts_unscored_pairs_last():
    rng = np.random.default_rng(0)
    scores, labels = tied(rng)
    scores[:50] = -np.inf
    precision, recall, thresholds = metrics.precision_recall_curve(scores, labels)
    assert -np.sum(np.diff(recall) * precision[:-1]) == pytest.approx(metrics.average_precision(scores, labels))
    assert thresholds[0] == -np.inf
    assert precision[0] == pytest.approx(labels.mean())


def test_thinned_curve_keeps_the_area():
    from sctrellis.metrics._precision_recall_curve import curve_table

    rng = np.random.default_rng(0)
    labels = rng.random(20_000) < 0.1
    scores = {"a": rng.normal(size=20_000) + labels, "few": (labels & (rng.random(20_000) < 0.5)) * 1.0}
    table = curve_table(scores, labels, n_points=200)
    for key, part in table.groupby("key"):
        assert len(part) <= 210
        assert part["recall"].is_monotonic_increasing
        area = np.sum(np.diff(part["recall"], prepend=0) * part["precision"])
        assert area == pytest.approx(metrics.average_precision(scores[key], labels), abs=0.005)
    assert len(table.query("key == 'few'")) == 2


@pytest.mark.parametrize("min_count", [1, 5])
def test_groups_equal_sklearn_one_by_one(min_count):
    rng = np.random.default_rng(0)
    scores, labels = tied(rng, n=600)
    groups = rng.integers(0, 20, 600).astype(str)
    groups[:3], labels[:3] = "no positive pair", False
    table = metrics.per_group(scores, labels, groups, min_count=min_count)
    n_kept = 0
    for name in np.unique(groups):
        own = groups == name
        n_positive = labels[own].sum()
        assert tuple(table.loc[name, ["n_pairs", "n_positive"]]) == (own.sum(), n_positive)
        if min(n_positive, own.sum() - n_positive) < min_count:
            assert table.loc[name, ["auroc", "auprc", "auprc_ratio"]].isna().all()
            continue
        n_kept += 1
        precision = sk.average_precision_score(labels[own], scores[own])
        expected = [sk.roc_auc_score(labels[own], scores[own]), precision, precision / labels[own].mean()]
        np.testing.assert_allclose(table.loc[name, ["auroc", "auprc", "auprc_ratio"]], expected, atol=1e-12)
    means = metrics.macro(scores, labels, groups, min_count=min_count)
    assert 0 < n_kept < len(table)
    assert means.loc["auroc", "n_groups"] == n_kept
    assert means.loc["auroc", "coverage"] == pytest.approx(n_kept / len(table))
    assert means.loc["auroc", "mean"] == pytest.approx(table["auroc"].mean())
    assert means.loc["auprc", "se"] == pytest.approx(table["auprc"].std() / np.sqrt(n_kept))


def test_averages_within_regulators_ignore_popularity():
    # Scores that know only how many targets each regulator has: good over all pairs, worthless within a regulator.
    rng = np.random.default_rng(0)
    rate = np.linspace(0.05, 0.6, 30)
    labels = rng.random((30, 100)) < rate[:, None]
    scores = np.broadcast_to(rate[:, None], labels.shape)
    rows = np.repeat(np.arange(30), 100)
    assert metrics.auroc(scores.ravel(), labels.ravel()) > 0.7
    assert metrics.macro(scores.ravel(), labels.ravel(), rows).loc["auroc", "mean"] == 0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.auroc([1.0, np.nan], [1, 0]), "1 NaN or infinite"),
        (lambda: metrics.auroc([1.0, np.inf], [1, 0]), "given as -inf: ranked last"),
        (lambda: metrics.auroc([[1.0, 2.0]], [1, 0]), r"shape \(n,\).*found \(1, 2\)"),
        (lambda: metrics.auroc([], []), r"n >= 1"),
        (lambda: metrics.auroc([1.0, 2.0], [1, 0, 1]), r"`labels` to have shape \(2,\)"),
        (lambda: metrics.auroc([1.0, 2.0], [1, -1]), r"found -1, 1.*labels > 0"),
        (lambda: metrics.auroc([1.0, 2.0], ["a", "b"]), "found a, b"),
        (lambda: metrics.auroc([1.0, 2.0], [1, 1]), "None of the `labels` is negative"),
        (lambda: metrics.average_precision([1.0, 2.0], [0, 0]), "None of the 2 `labels` is positive"),
        (lambda: metrics.average_precision([1.0, 2.0], [0, 1], interp="linear"), "`interp`.*'trapezoid'.*'linear'"),
        (
            lambda: metrics.average_precision([1.0, 2.0], [0, 1], interp="davis_goadrich", weights=[0.5, 1]),
            "integer `weights`",
        ),
        (lambda: metrics.average_precision([1.0, 2.0], [0, 1], weights=[-1, 1]), "`weights` to be 2 finite numbers"),
        (lambda: metrics.average_precision([1.0, 2.0], [0, 1], weights=[0, 0]), "not all 0"),
        (lambda: metrics.early_precision([1.0, 2.0], [0, 1], ties="random"), "`ties`.*'expected'.*'random'"),
        (lambda: metrics.early_precision([1.0, -2.0], [0, 1], ties="beeline"), r"np.abs\(scores\)"),
        (lambda: metrics.early_precision([1.0, 2.0], [0, 1], k=0), "`k` to be at least 1"),
        (lambda: metrics.hit_rate([1.0, 2.0], [0, 1], fraction=1.5), r"`fraction` to lie in \(0, 1\]"),
        (lambda: metrics.per_group([1.0, 2.0], [0, 1], ["a"]), r"`groups` to have shape \(2,\)"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
