"""tl.grids on a surrogate that knows the truth: what it reports is what is true, and bad input is refused."""

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
from helpers import content, digest
from planted import plant

import sctrellis as tr
from sctrellis.explain import AdditiveObjective


@pytest.fixture(scope="module")
def planted():
    """Four targets in two groups, each with a gate of its own kind, and a surrogate made of these gates."""
    return plant(tr.datasets.simulate_multiome(500, 480, 12, n_targets=4, n_groups=2, seed=3))


@pytest.fixture
def mdata(planted):
    return planted.copy()


def tables(mdata, key="grids"):
    return tr.get.record(mdata, key)


def tasks_of(mdata):
    return [(row.target, row.group, int(row.n_peaks)) for row in mdata.uns["targets"].itertuples()]


@pytest.mark.parametrize("options", [{}, {"max_exhaustive": 0}])
def test_the_best_set_is_found_and_its_change_is_the_true_one(mdata, options):
    for target, group, n_peaks in tasks_of(mdata):
        tr.tl.grids(mdata, targets=target, groups=group, n_peaks=n_peaks, **options)
        record = tables(mdata)
        (task,) = record["tasks"].to_dict("records")
        sets = record["sets"]
        chosen = list(sets["peak"])
        search = (mdata.obs["cell_split"] == "train").to_numpy() & (mdata.obs["cell_group"] == group).to_numpy()
        _, best = tr.datasets.best_true_set(mdata, target, n_peaks, cells=search)
        assert -task["search_log_delta"] == pytest.approx(best, abs=1e-5)
        assert -task["log_delta"] == pytest.approx(tr.datasets.true_drop(mdata, target, chosen), abs=1e-5)
        assert task["log_delta_low"] <= task["log_delta"] <= task["log_delta_high"] < 0
        assert task["swap_optimal"]
        assert task["exhaustive"] == (not options)
        last = 0.0
        for k, row in enumerate(sets.itertuples(), start=1):
            now = -tr.datasets.true_drop(mdata, target, chosen[:k])
            assert (row.rank, row.cumulative) == (k, pytest.approx(now, abs=1e-5))
            assert row.gain == pytest.approx(now - last, abs=1e-5)
            last = now


def test_expression_is_counted_per_100_000(mdata):
    target, group, n_peaks = tasks_of(mdata)[1]
    tr.tl.grids(mdata, targets=target, groups=group, n_peaks=n_peaks)
    (task,) = tables(mdata)["tasks"].to_dict("records")
    chosen = list(tables(mdata)["sets"]["peak"])
    held = ((mdata.obs["cell_split"] == "test") & (mdata.obs["cell_group"] == group)).to_numpy()
    state = mdata["atac"].layers["state"].copy().tolil()
    state[:, mdata["atac"].var_names.get_indexer(chosen)] = 0
    before = np.exp(tr.datasets.true_log_mean(mdata, target)[held])
    after = np.exp(tr.datasets.true_log_mean(mdata, target, state=state.tocsr())[held])
    unit = 1e5 / mdata["rna"].layers["counts"].sum(axis=1).mean()
    assert task["avg_delta"] == pytest.approx(unit * (after - before).mean(), rel=1e-4)
    assert task["rel_delta_pct"] == pytest.approx(100 * ((after - before) / before).mean(), rel=1e-4)


def test_facts_of_each_peak(mdata):
    target, group, _ = tasks_of(mdata)[0]
    tr.tl.grids(mdata, targets=target, groups=group, n_peaks=4, max_exhaustive=0)
    record = tables(mdata)
    search = ((mdata.obs["cell_split"] == "train") & (mdata.obs["cell_group"] == group)).to_numpy()
    var = mdata["atac"].var
    gene = mdata["rna"].var.loc[target]
    for row in record["sets"].itertuples():
        assert row.p_open == pytest.approx(mdata["atac"][search, row.peak].X.mean())
        gap = max(var.loc[row.peak, "start"] - gene["tss"], gene["tss"] - var.loc[row.peak, "end"] + 1, 0)
        assert abs(row.distance) == gap
        assert 0 <= row.score <= 1
    starts, trace = record["starts"], record["trace"]
    assert (starts["last"] <= starts["first"] + 1e-6).all()
    assert starts["last"].min() == pytest.approx(record["tasks"]["search_log_delta"][0], abs=1e-6)
    assert (trace["log_delta"].diff().dropna() < 0).all()
    assert record["tasks"]["steps"][0] == trace["step"].max()


def test_up_opens_peaks_unless_told_to_close_them(mdata):
    target, group, _ = tasks_of(mdata)[2]
    tr.tl.grids(mdata, targets=target, groups=group, n_peaks=2, direction="up")
    assert tables(mdata)["params"]["value"] == 1.0
    (task,) = tables(mdata)["tasks"].to_dict("records")
    assert task["log_delta"] > 0
    with pytest.warns(UserWarning, match=r"No set of 2 peaks brings 1 of 1 targets down.*`direction` or `value`"):
        tr.tl.grids(mdata, targets=target, groups=group, n_peaks=2, direction="down", value=1.0)


def test_a_task_does_not_depend_on_the_tasks_beside_it(mdata):
    target, group, _ = tasks_of(mdata)[0]
    options = {"n_peaks": 3, "max_exhaustive": 0, "n_boot": 50}
    alone, together = mdata.copy(), mdata.copy()
    tr.tl.grids(alone, targets=target, groups=group, **options)
    names = sorted({task[0] for task in tasks_of(mdata)})
    with pytest.warns(UserWarning, match="brings"):  # genes without elements, made to fall
        tr.tl.grids(together, targets=[*names, *(g for g in mdata["rna"].var_names if g not in names)][:8], **options)
    for name in ("sets", "tasks", "trace"):
        own, all_ = tables(alone)[name], tables(together)[name]
        mine = all_[(all_["target"] == target) & (all_["group"] == group)].reset_index(drop=True)
        own.index = own.index.astype(int)
        pd.testing.assert_frame_equal(own, mine, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("method", "n_jobs"), [("grids", 1), ("grids+", 2)])
def test_same_seed_same_record_and_workers_change_nothing(mdata, method, n_jobs, monkeypatch):
    from sctrellis.tl import _element_plan

    options = {"groups": "group_0", "n_peaks": 3, "method": method, "max_exhaustive": 0, "n_boot": 50}
    options["targets"] = [target for target, group, _ in tasks_of(mdata) if group == "group_0"]
    monkeypatch.setattr(_element_plan, "_AT_ONCE", 1)  # one task a batch
    found = [tr.tl.grids(mdata, **options, n_jobs=jobs, copy=True) for jobs in (1, n_jobs)]
    assert "grids" not in mdata.uns
    assert digest(found[0].uns["grids"]) == digest(found[1].uns["grids"])
    other = tr.tl.grids(mdata, **options, seed=9, copy=True)
    assert digest(other.uns["grids"]["starts"]) != digest(found[0].uns["grids"]["starts"])


def test_nothing_but_the_record_changes_and_it_survives_files(mdata, tmp_path):
    before = content(mdata)
    tr.tl.grids(mdata, targets=tasks_of(mdata)[0][0], n_peaks=2, key_added="sets", max_exhaustive=0)
    after = content(mdata)
    assert {slot for slot in after if after[slot] != before.get(slot)} == {"uns"}
    for path, write, read in (("a.h5mu", "write", md.read), ("a.zarr", "write_zarr", md.read_zarr)):
        getattr(mdata, write)(tmp_path / path)
        again = tables(read(tmp_path / path), "sets")
        for name in ("sets", "tasks", "trace", "starts"):
            stored = tables(mdata, "sets")[name]
            pd.testing.assert_frame_equal(again[name].astype(stored.dtypes), stored, check_index_type=False)


def test_genes_that_were_not_learnt_are_flagged(mdata):
    target, group, n_peaks = tasks_of(mdata)[0]
    plant(mdata, learned=False)
    with pytest.warns(UserWarning, match=r"not known to have learnt.*1 of 1 tasks .*say nothing of regulation"):
        tr.tl.grids(mdata, targets=target, groups=group, n_peaks=n_peaks)
    assert not tables(mdata)["tasks"]["learned"].any()
    assert not tables(mdata)["sets"]["learned"].any()
    with pytest.raises(ValueError, match=r"learnt nothing of any of its 12 genes.*Name `targets`"):
        tr.tl.grids(mdata, n_peaks=n_peaks)


def test_closed_peaks_are_never_chosen(mdata):
    target, group, _ = tasks_of(mdata)[0]
    member = mdata.uns["truth"].query("target == @target")["peak"].iloc[0]
    at = mdata["atac"].var_names.get_loc(member)
    x = mdata["atac"].X.tolil()
    x[(mdata.obs["cell_group"] == group).to_numpy(), at] = 0
    mdata.mod["atac"].X = x.tocsr()
    for options in ({}, {"direction": "up"}):
        tr.tl.grids(mdata, targets=target, groups=group, n_peaks=5, **options)
        assert member not in set(tables(mdata)["sets"]["peak"])
    tr.tl.grids(mdata, targets=target, groups=group, n_peaks=3, min_open=0.5)
    assert (tables(mdata)["sets"]["p_open"] >= 0.5).all()


def test_candidates_by_mask_and_by_name(mdata):
    target, group, _ = tasks_of(mdata)[0]
    members = list(mdata.uns["truth"].query("target == @target")["peak"])
    options = {"targets": target, "groups": group, "n_peaks": 2}
    tr.tl.grids(mdata, **options, candidates=members[1:4])
    named = tables(mdata)["sets"]
    assert set(named["peak"]) <= set(members[1:4])
    tr.tl.grids(mdata, **options, candidates=mdata["atac"].var_names.isin(members[1:4]))
    pd.testing.assert_frame_equal(tables(mdata)["sets"], named)
    tr.tl.grids(mdata, **options, candidates="all")
    everything = tables(mdata)["sets"]
    tr.tl.grids(mdata, **options)
    pd.testing.assert_frame_equal(tables(mdata)["sets"], everything)


def test_tasks_with_too_few_candidates_are_left_out_aloud(mdata):
    first, second = (task for task in tasks_of(mdata)[:2])
    members = list(mdata.uns["truth"].query("target == @first[0]")["peak"])
    with pytest.warns(UserWarning, match=r"2 tasks have fewer than `n_peaks=3` candidates and are left out.*: 0"):
        tr.tl.grids(mdata, targets=[first[0], second[0]], n_peaks=3, candidates=members, direction="up")
    table = tables(mdata)["tasks"].set_index("target")
    assert set(table.loc[second[0], "status"]) == {"too few candidates"}
    assert table.loc[second[0], "log_delta"].isna().all()
    assert set(tables(mdata)["sets"]["target"]) == {first[0]}


def test_an_interrupt_keeps_the_best_sets_so_far(mdata, monkeypatch, caplog):
    from sctrellis.tl import _element_plan

    names = [t for t, *_ in tasks_of(mdata)]
    calls = {"n": 0}
    first_order = AdditiveObjective.first_order

    def stopped(self, pre):
        calls["n"] += 1
        if calls["n"] == 20:
            raise KeyboardInterrupt
        return first_order(self, pre)

    monkeypatch.setattr(_element_plan, "_AT_ONCE", 1)
    monkeypatch.setattr(AdditiveObjective, "first_order", stopped)
    options = {"targets": names, "n_peaks": 3, "max_exhaustive": 0, "groups": "group_0"}
    tr.tl.grids(mdata, **options)
    record = tables(mdata)
    assert record["fit"]["interrupted"] is True
    assert len(record["tasks"]) == 1
    assert record["tasks"]["search_log_delta"][0] < 0
    assert "interrupted after 1 of 4 tasks; keeping the best sets so far" in caplog.text


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"targets": "GATA1"}, ValueError, r"1 of 1 `targets` are not in.*'GATA1'"),
        ({"groups": "B cells"}, ValueError, r"`groups`: no cell is in 'B cells'. Groups: 'group_0', 'group_1'"),
        ({"groupby": "leiden"}, KeyError, "leiden"),
        ({"n_peaks": 0}, ValueError, "Expected `n_peaks` to be at least 1, found 0"),
        ({"n_peaks": 400}, ValueError, r"No task has `n_peaks=400` candidates: the most are \d+.*Lower `n_peaks`"),
        ({"direction": "left"}, ValueError, "Expected `direction` to be one of 'down', 'up'; found 'left'"),
        ({"value": 2}, ValueError, r"Expected `value` to lie in \[0, 1\], found 2"),
        ({"value": "open"}, TypeError, "Expected `value` to be a number"),
        ({"method": "anneal"}, ValueError, "Expected `method` to be one of 'grids\\+', 'grids'"),
        ({"candidates": "near"}, ValueError, "Expected `candidates` to be one of 'cis', 'all'; found 'near'"),
        ({"candidates": ["chr9:1-2"]}, ValueError, r"None of the 1 names in `candidates` is a peak \('chr9:1-2'\)"),
        ({"candidates": np.zeros(480, bool)}, ValueError, "`candidates` is False for all peaks"),
        ({"candidates": np.ones(3, bool)}, ValueError, r"one value for each of 480 peaks, found \(3,\)"),
        ({"links": "trans"}, KeyError, r"'trans' not found.*pp.cis_links"),
        ({"key": "other"}, KeyError, r"'other' not found.*Run `sctrellis.tl.translate"),
        ({"min_open": 1.5}, ValueError, r"`min_open` to lie in \[0, 1\]"),
        ({"n_cells": 5}, ValueError, "Expected `n_cells` to be at least 10, found 5"),
        ({"n_jobs": 0}, ValueError, "`n_jobs`"),
        ({"key_added": "a/b"}, ValueError, "`key_added`"),
        ({"seed": -1}, ValueError, "`seed`"),
    ],
)
def test_bad_input(mdata, options, error, words):
    before = content(mdata)
    given = {"targets": tasks_of(mdata)[0][0], "n_peaks": 2, **options}
    with pytest.raises(error, match=words):
        tr.tl.grids(mdata, **given)
    assert content(mdata) == before


def test_groups_with_too_few_cells(mdata):
    rare = mdata.obs["cell_group"].astype(str).to_numpy()
    rare[np.flatnonzero(mdata.obs["cell_split"] == "test")[:4]] = "rare"
    mdata.obs["kind"] = rare
    target = tasks_of(mdata)[0][0]
    with pytest.warns(UserWarning, match=r"1 groups have fewer than 10 .* and are left out") as caught:
        tr.tl.grids(mdata, targets=target, groupby="kind", n_peaks=2)
    assert "rare: 0 training and 4 test cells" in str(caught[0].message)
    assert set(tables(mdata)["tasks"]["group"]) == {"group_0", "group_1"}
    with pytest.raises(ValueError, match=r"rare: 0 training and 4 test cells.*merge groups"):
        tr.tl.grids(mdata, targets=target, groupby="kind", groups="rare", n_peaks=2)


def test_a_surrogate_of_other_peaks_is_refused(mdata):
    fewer = md.MuData({"rna": mdata["rna"].copy(), "atac": mdata["atac"][:, 1:].copy()})
    fewer.obs["cell_group"], fewer.obs["cell_split"] = mdata.obs["cell_group"], mdata.obs["cell_split"]
    fewer.uns["translate"] = mdata.uns["translate"]
    with pytest.raises(ValueError, match="fitted to other peaks"):
        tr.tl.grids(fewer, n_peaks=2)


def test_not_a_mudata():
    with pytest.raises((TypeError, KeyError)):
        tr.tl.grids(ad.AnnData(np.ones((3, 2), np.float32)))
