"""tl.attribution and tl.grids_benchmark: the same tasks and report as tl.grids, one row a method."""

import numpy as np
import pandas as pd
import pytest
from helpers import content
from planted import plant

import sctrellis as tr
from sctrellis.tl._attribution import ATTRIBUTION_METHODS

KEYS = ("group", "target", "rank", "peak", "gain", "cumulative", "distance", "p_open", "score", "learned")


@pytest.fixture(scope="module")
def planted():
    return plant(tr.datasets.simulate_multiome(400, 480, 12, n_targets=2, n_groups=2, kinds="TRAP3", seed=3))


@pytest.fixture
def mdata(planted):
    return planted.copy()


def task(mdata, i=0):
    row = mdata.uns["targets"].iloc[i]
    return {"targets": row["target"], "groups": row["group"], "n_peaks": int(row["n_peaks"])}


@pytest.mark.parametrize("method", ATTRIBUTION_METHODS)
def test_sets_and_tasks_are_those_of_the_search(mdata, method):
    before = content(mdata)
    tr.tl.attribution(mdata, method, **task(mdata), n_boot=50, n_permutations=20)
    assert {slot for slot, text in content(mdata).items() if text != before.get(slot)} == {"uns"}
    record = tr.get.record(mdata, f"attribution_{method}")
    tr.tl.grids(mdata, **task(mdata), n_boot=50)
    best = tr.get.record(mdata, "grids")
    assert tuple(record["sets"].columns) == KEYS
    shared = [name for name in record["tasks"].columns if name in best["tasks"].columns]
    assert shared == list(record["tasks"].columns)
    assert record["tasks"]["method"].tolist() == [method]
    assert record["tasks"]["search_log_delta"][0] >= best["tasks"]["search_log_delta"][0] - 1e-6
    if method != "random":
        assert record["sets"]["cumulative"].iloc[-1] == pytest.approx(record["tasks"]["log_delta"][0], abs=1e-6)
    if method not in ("random", "greedy"):
        assert (record["sets"]["score"].diff().dropna() <= 0).all()


def test_redundant_elements_hide_from_single_scores_and_not_from_the_search(mdata):
    options = task(mdata)
    drops = {}
    for method in ("single_knockout", "saliency", "greedy"):
        tr.tl.attribution(mdata, method, **options)
        drops[method] = -tr.get.record(mdata, f"attribution_{method}")["tasks"]["log_delta"][0]
    tr.tl.grids(mdata, **options, max_exhaustive=0)
    found = -tr.get.record(mdata, "grids")["tasks"]["log_delta"][0]
    assert all(drop < 0.9 * found for drop in drops.values())


def test_random_is_a_mean_over_draws(mdata):
    options = task(mdata)
    tr.tl.attribution(mdata, "random", **options, n_draws=1)
    (one,) = tr.get.record(mdata, "attribution_random")["tasks"]["log_delta"]
    sets = tr.get.record(mdata, "attribution_random")["sets"]
    assert one == pytest.approx(-tr.datasets.true_drop(mdata, options["targets"], list(sets["peak"])), abs=1e-5)
    tr.tl.attribution(mdata, "random", **options, n_draws=400, key_added="many")
    (mean,) = tr.get.record(mdata, "many")["tasks"]["log_delta"]
    gene = mdata["rna"].var_names.get_loc(options["targets"])
    near = mdata["atac"].var_names[tr._core.slots.read_cis(mdata)[gene].indices]
    rng = np.random.default_rng(0)
    drawn = [
        -tr.datasets.true_drop(mdata, options["targets"], list(rng.choice(near, 3, replace=False))) for _ in range(400)
    ]
    assert mean == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / 400**0.5 * 2**0.5)


def test_benchmark_has_one_row_a_method_on_the_same_cells(mdata):
    options = task(mdata) | {"n_boot": 100}
    table = tr.tl.grids_benchmark(mdata, ["random", "saliency", "greedy", "grids", "grids+"], **options)
    rows = table.set_index("method")
    assert list(rows.index) == ["random", "saliency", "greedy", "grids", "grids+"]
    record = tr.get.record(mdata, "grids_benchmark")
    pd.testing.assert_frame_equal(record["table"].reset_index(drop=True), table)
    tr.tl.attribution(mdata, "saliency", **options)
    (alone,) = tr.get.record(mdata, "attribution_saliency")["tasks"].to_dict("records")
    for measure in ("log_delta", "log_delta_low", "log_delta_high", "avg_delta", "rel_delta_pct_low"):
        assert rows.loc["saliency", measure] == pytest.approx(alone[measure])
    assert rows["best_share"].max() == 1
    assert rows.loc["grids+", "n_best"] == rows.loc["grids+", "n_tasks"] == 1
    assert (rows["seconds"] > 0).all()


def test_benchmark_averages_over_tasks(mdata):
    names = list(mdata.uns["targets"]["target"])
    table = tr.tl.grids_benchmark(mdata, "greedy", targets=names, n_peaks=2, n_boot=200)
    record = tr.get.record(mdata, "grids_benchmark")
    tasks = record["tasks"]
    assert len(tasks) == table["n_tasks"][0] == 4
    for measure in ("log_delta", "avg_delta", "rel_delta_pct"):
        assert table[measure][0] == pytest.approx(tasks[measure].mean())
        width = tasks[f"{measure}_high"] - tasks[f"{measure}_low"]
        assert table[f"{measure}_high"][0] - table[f"{measure}_low"][0] < width.mean()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: tr.tl.attribution(m, "lime"), "Expected `method` to be one of 'random', 'saliency'"),
        (lambda m: tr.tl.attribution(m, "random", n_draws=0), "`n_draws` to be at least 1"),
        (lambda m: tr.tl.attribution(m, "smoothgrad", noise=-1), "`noise` to lie in"),
        (lambda m: tr.tl.attribution(m, "sage", depth=0), "`depth` to be at least 1"),
        (lambda m: tr.tl.grids_benchmark(m, ["grids", "lime"]), "Expected `methods` to be one of"),
        (lambda m: tr.tl.grids_benchmark(m, []), "at least one name, each once"),
        (lambda m: tr.tl.grids_benchmark(m, ["grids", "grids"]), r"each once; found \['grids', 'grids'\]"),
    ],
)
def test_bad_input(mdata, call, words):
    with pytest.raises(ValueError, match=words):
        call(mdata)
