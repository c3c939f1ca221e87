import numpy as np
import pytest

from sctrellis import metrics


def network(rng, n_rows=30, n_columns=40, spread=1.2):
    """Scores and labels that share effects of regulator and target, as real ones do."""
    labels_row, labels_column = rng.normal(size=(n_rows, 1)), rng.normal(size=(1, n_columns))
    score_row, score_column = rng.normal(size=(n_rows, 1)), rng.normal(size=(1, n_columns))
    rate = 1 / (1 + np.exp(1.5 - spread * (labels_row + labels_column)))
    labels = rng.random((n_rows, n_columns)) < rate
    scores = spread * (score_row + score_column) + labels + rng.normal(size=labels.shape)
    rows, columns = np.divmod(np.arange(labels.size), n_columns)
    return scores.ravel(), labels.ravel(), rows, columns


def test_intervals_cover_the_truth_where_resampling_pairs_does_not():
    truth = metrics.auroc(*network(np.random.default_rng(1), 1500, 1500)[:2])
    n_networks, covered, covered_by_pairs = 60, 0, 0
    for seed in range(n_networks):
        rng = np.random.default_rng(seed)
        scores, labels, rows, columns = network(rng)
        limits = (
            metrics.bootstrap(scores, labels, rows=rows, columns=columns, metrics="auroc", n_boot=200)
            .interval()
            .iloc[0]
        )
        covered += limits["low"] <= truth <= limits["high"]
        draws = [rng.integers(0, len(labels), len(labels)) for _ in range(100)]
        by_pairs = np.percentile([metrics.auroc(scores[d], labels[d]) for d in draws], [2.5, 97.5])
        covered_by_pairs += by_pairs[0] <= truth <= by_pairs[1]
    assert covered >= 0.9 * n_networks
    assert covered_by_pairs <= 0.7 * n_networks


@pytest.mark.parametrize("ties", ["expected", "beeline", "deepsem"])
def test_a_replicate_equals_repeating_regulators_and_targets(ties):
    rng = np.random.default_rng(0)
    scores, labels, rows, columns = network(rng, 12, 15)
    scores = np.abs(scores).round(1)
    names = ("auroc", "auprc", "auprc_ratio", "early_precision", "early_precision_ratio", "hit_rate", "hit_rate_ratio")
    result = metrics.bootstrap(
        scores,
        labels,
        rows=rows,
        columns=columns,
        metrics=names,
        n_boot=5,
        seed=3,
        ties=ties,
        fraction=0.1,
        interp="davis_goadrich",
    )
    draw = np.random.default_rng(3)
    for replicate in result.replicates[:, 0]:
        u, v = draw.multinomial(12, np.full(12, 1 / 12)), draw.multinomial(15, np.full(15, 1 / 15))
        index = np.repeat(np.arange(len(scores)), u[rows] * v[columns])
        own, found = scores[index], labels[index]
        base = found.mean()
        area = metrics.average_precision(own, found, interp="davis_goadrich")
        early, hits = metrics.early_precision(own, found, ties=ties), metrics.hit_rate(own, found, fraction=0.1)
        expected = [metrics.auroc(own, found), area, area / base, early, early / base, hits, hits / base]
        np.testing.assert_allclose(replicate, expected, atol=1e-12)


def test_differences_are_paired():
    rng = np.random.default_rng(0)
    scores, labels, rows, columns = network(rng)
    better = scores + 0.3 * labels
    result = metrics.bootstrap({"a": scores, "b": better, "c": scores}, labels, rows=rows, columns=columns, n_boot=200)
    limits = result.interval().query("metric == 'auroc'").set_index("key")
    assert limits.loc["a", "high"] > limits.loc["b", "low"]  # the intervals overlap
    gain = result.difference("b", "a").set_index("metric")
    assert gain.loc["auroc", "low"] > 0  # and yet the difference is certain
    assert gain.loc["auroc", "value"] == pytest.approx(metrics.auroc(better, labels) - metrics.auroc(scores, labels))
    assert (result.difference("a", "c")[["value", "low", "high"]] == 0).all(axis=None)
    with pytest.raises(KeyError, match="'d' is none of the score vectors: 'a', 'b', 'c'"):
        result.difference("a", "d")


def test_the_seed_decides_and_the_global_state_is_left_alone():
    scores, labels, rows, columns = network(np.random.default_rng(0))
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    runs = [
        metrics.bootstrap(scores, labels, rows=rows, columns=columns, n_boot=20, seed=s).replicates for s in (0, 0, 1)
    ]
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    assert np.array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


@pytest.mark.parametrize(("shape", "reason"), [((9, 40), "only 9 regulators"), ((40, 9), "only 9 targets")])
def test_few_regulators_or_targets_give_no_interval(shape, reason):
    scores, labels, rows, columns = network(np.random.default_rng(0), *shape)
    result = metrics.bootstrap(scores, labels, rows=rows, columns=columns, n_boot=50)
    assert result.reason.startswith(reason)
    assert result.interval()[["low", "high"]].isna().all(axis=None)
    assert result.difference("scores", "scores")["low"].isna().all()
    assert result.interval()["value"][0] == pytest.approx(metrics.auroc(scores, labels))


def test_table_gathers_the_single_functions():
    rng = np.random.default_rng(0)
    scores, labels, rows, columns = network(rng)
    scores = np.where(rng.random(len(scores)) < 0.1, -np.inf, scores)
    names = ["auroc", "auprc", "auprc_ratio", "early_precision_ratio", "hit_rate", "hit_rate_ratio"]
    table = metrics.ranking_table({"a": scores}, labels, rows=rows, columns=columns, metrics=names, n_boot=50)
    values = table.set_index(["metric", "level"])
    micro = values.xs("micro", level="level")
    assert micro.loc["auprc", "value"] == metrics.average_precision(scores, labels)
    assert micro.loc["auprc_ratio", "value"] == metrics.auprc_ratio(scores, labels)
    assert micro.loc["early_precision_ratio", "value"] == metrics.early_precision_ratio(scores, labels)
    assert micro.loc["hit_rate", "value"] == metrics.hit_rate(scores, labels)
    assert micro.loc["hit_rate", "ceiling"] == metrics.hit_rate_ceiling(labels)
    assert micro.loc["auprc_ratio", "ceiling"] == pytest.approx(1 / labels.mean())
    assert (micro["low"] <= micro["value"]).all()
    assert (micro["value"] <= micro["high"]).all()
    by_target = metrics.macro(scores, labels, columns)
    assert values.loc[("auroc", "target"), "value"] == by_target.loc["auroc", "mean"]
    assert values.loc[("auroc", "target"), "coverage"] == by_target.loc["auroc", "coverage"]
    assert {level for metric, level in values.index if metric == "hit_rate"} == {"micro"}
    assert (table["scored"] == np.isfinite(scores).mean()).all()
    assert (table["base"] == labels.mean()).all()


def test_transposing_swaps_regulators_and_targets():
    scores, labels, rows, columns = network(np.random.default_rng(0))
    options = {"metrics": ["auroc", "auprc"], "n_boot": 0}
    one = metrics.ranking_table(scores, labels, rows=rows, columns=columns, **options).set_index(["metric", "level"])
    other = metrics.ranking_table(scores, labels, rows=columns, columns=rows, **options)
    other["level"] = other["level"].replace({"regulator": "target", "target": "regulator"})
    columns = ["value", "low", "high", "coverage"]
    other = other.set_index(["metric", "level"]).loc[one.index]
    np.testing.assert_array_equal(one[columns], other[columns])
    assert one.loc[("auroc", "regulator"), "value"] != one.loc[("auroc", "target"), "value"]
    assert set(one.xs("micro", level="level")["note"]) == {"no replicates (n_boot=0)"}


def test_limits_of_averages_are_students():
    from scipy import stats

    scores, labels, rows, columns = network(np.random.default_rng(0))
    table = metrics.ranking_table(scores, labels, rows=rows, columns=columns, metrics="auroc", n_boot=0)
    line = table.set_index("level").loc["regulator"]
    values = metrics.per_group(scores, labels, rows)["auroc"].dropna()
    expected = stats.t.interval(0.95, len(values) - 1, loc=values.mean(), scale=stats.sem(values))
    np.testing.assert_allclose([line["low"], line["high"]], expected)
    few = metrics.ranking_table(
        scores[:320], labels[:320], rows=rows[:320], columns=columns[:320], metrics="auroc", n_boot=0
    )
    line = few.set_index("level").loc["regulator"]
    assert np.isnan(line["low"])
    assert line["note"].endswith("with enough pairs: an interval needs 10")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metrics": ["auroc", "f1"]}, "`metrics`.*'auprc'.*'f1'"),
        ({"metrics": []}, "`metrics` to name at least one"),
        ({"n_boot": -1}, "`n_boot` to be at least 0"),
        ({"level": 1.0}, r"`level` to lie in \(0, 1\)"),
        ({"rows": [0, 1]}, r"`rows` and `columns` to have shape \(1200,\)"),
        ({"scores": {"a": [1.0], "b": [1.0, 2.0]}}, r"equal length, found \{'a': 1, 'b': 2\}"),
        ({"labels": np.zeros(1200, bool)}, "None of the 1,200 `labels` is positive"),
    ],
)
def test_bad_input(change, message):
    scores, labels, rows, columns = network(np.random.default_rng(0))
    given = {"scores": scores, "labels": labels, "rows": rows, "columns": columns, **change}
    with pytest.raises(ValueError, match=message):
        metrics.bootstrap(given.pop("scores"), given.pop("labels"), **given)
