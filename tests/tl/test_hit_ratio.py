from functools import partial

import mudata as md
import numpy as np
import pandas as pd
import pytest
from element_sets import add_sets, with_sets
from helpers import content, digest
from planted import plant

import sctrellis as tr

WINDOWS = [100_000, 500_000]


@pytest.fixture(scope="module")
def simulated():
    return with_sets(400)


@pytest.fixture
def mdata(simulated):
    return simulated.copy()


def reference(mdata, *, tested=False):
    """Return the planted elements as a table of links, and with ``tested`` the decoys as elements without effect."""
    var = mdata["atac"].var
    kept = var[var["role"].isin(["element", "decoy"] if tested else ["element"])]
    table = kept[["chrom", "start", "end"]].assign(gene=kept["target"].astype(str))
    return table.assign(linked=(kept["role"] == "element").to_numpy()) if tested else table


def rows(table, anchor):
    return table[table["anchor"] == anchor].set_index("window")


def test_planted_elements_hit_the_reference_and_random_peaks_do_not(mdata):
    table = tr.tl.hit_ratio(mdata, reference=reference(mdata), windows=WINDOWS, background="all")
    found = rows(table, "reference")
    assert found.loc[0, "hit_ratio"] == 1
    assert found.loc[0, "share_in_window"] == 1
    assert found.loc[0, "p_expected"] < 1e-6
    assert found.loc[0, "p_matched"] < 1e-6
    random = mdata.copy()
    rng = np.random.default_rng(0)
    sets = random.uns["grids"]["sets"]
    sets["peak"] = np.concatenate(
        [
            rng.choice(random["atac"].var_names, n, replace=False)
            for n in sets.groupby(["group", "target"], sort=False).size()
        ]
    )
    table = tr.tl.hit_ratio(random, reference=reference(mdata), windows=WINDOWS, background="all")
    assert rows(table, "reference").loc[0, "p_expected"] > 0.05


def test_a_search_finds_planted_elements_and_random_peaks_do_as_chance_says(mdata):
    plant(mdata)
    found = {}
    for key, search in (("grids", tr.tl.grids), ("random", partial(tr.tl.attribution, method="random"))):
        parts = []
        for group, own in mdata.uns["targets"].groupby("group"):
            options = {"targets": list(own["target"]), "groups": [group], "n_peaks": 2, "n_boot": 0}
            search(mdata, key_added="part", **options)
            parts.append(mdata.uns.pop("part"))
        joined = {name: pd.concat([part[name] for part in parts], ignore_index=True) for name in ("sets", "tasks")}
        mdata.uns[key] = parts[0] | joined
        found[key] = rows(tr.tl.hit_ratio(mdata, key, reference=reference(mdata)), "reference").loc[0]
    assert found["grids"]["hit_ratio"] == 1
    assert found["grids"]["share_in_window"] == 1
    assert found["grids"]["share_p_expected"] < 1e-4
    assert found["random"]["share_p_expected"] > 0.01
    assert found["grids"]["expected"] == pytest.approx(found["random"]["expected"], abs=0.05)


def test_no_ratio_without_its_chance(mdata):
    table = tr.tl.hit_ratio(mdata, windows=WINDOWS, background="all")
    assert table["anchor"].tolist() == ["gene body"] * 3 + ["TSS"] * 3
    assert table["window"].tolist() == [0, 100_000, 500_000] * 2
    assert table[["expected", "matched", "p_expected", "p_matched"]].notna().all(axis=None)
    assert ((table["enrichment_expected"] * table["expected"] - table["hit_ratio"]).dropna().abs() < 1e-9).all()


def test_the_share_in_the_window_by_hand(mdata):
    table = rows(tr.tl.hit_ratio(mdata, windows=WINDOWS, background="all"), "TSS")
    cis = np.abs(tr._core.slots.read_cis(mdata).toarray())
    linked = mdata["rna"].var_names, mdata["atac"].var_names
    sets = mdata.uns["grids"]["sets"]
    at = [(linked[0].get_loc(t), linked[1].get_loc(p)) for t, p in zip(sets["target"], sets["peak"], strict=True)]
    distance = np.array([cis[i, j] for i, j in at])  # every planted element is linked to its gene
    assert table.loc[100_000, "n_in_window"] == (distance <= 100_000).sum()
    assert table.loc[500_000, "share_in_window"] == 1


def test_chance_draws_from_what_was_searched(mdata):
    narrow = rows(tr.tl.hit_ratio(mdata, windows=WINDOWS), "TSS")
    assert tr.get.record(mdata, "grids_hit_ratio")["params"]["background"] == "cis"
    wide = rows(tr.tl.hit_ratio(mdata, windows=WINDOWS, background="all"), "TSS")
    # Every candidate lies within 500 kb: there chance does as well as any search.
    assert narrow.loc[500_000, "expected"] == 1
    assert narrow.loc[500_000, "p_expected"] == pytest.approx(1)
    assert wide.loc[500_000, "expected"] < 0.5
    add_sets(mdata, candidates="all")
    tr.tl.hit_ratio(mdata, windows=WINDOWS)
    assert tr.get.record(mdata, "grids_hit_ratio")["params"]["background"] == "all"


@pytest.mark.parametrize("form", ["names", "mask"])
def test_chance_draws_from_listed_peaks(mdata, form):
    atac = mdata["atac"]
    listed = (atac.var["role"] != "background").to_numpy()
    mdata.uns["grids"]["params"]["candidates"] = listed if form == "mask" else atac.var_names[listed].to_numpy()
    some = rows(tr.tl.hit_ratio(mdata, windows=WINDOWS), "TSS")
    every = rows(tr.tl.hit_ratio(mdata, windows=WINDOWS, background="all"), "TSS")
    cis = tr._core.slots.read_cis(mdata)
    drawn = {row: len(part) for row, part in mdata.uns["grids"]["sets"].groupby("target")}
    rate = {t: listed[cis[mdata["rna"].var_names.get_loc(t)].indices].sum() / listed.sum() for t in drawn}
    assert some.loc[500_000, "share_expected"] == pytest.approx(
        sum(drawn[t] * rate[t] for t in drawn) / sum(drawn.values())
    )
    assert some.loc[500_000, "share_expected"] != every.loc[500_000, "share_expected"]


def test_links_beside_distance(mdata):
    tr.tl.hit_ratio(mdata, reference=reference(mdata, tested=True))
    links = tr.get.record(mdata, "grids_hit_ratio")["links"].set_index("bin")
    var, truth = mdata["atac"].var, mdata.uns["truth"]
    assert links.loc["all", "n_candidates"] == var["role"].isin(["element", "decoy"]).sum()
    assert links.loc["all", "n_linked"] == links.loc["all", "n_confirmed"] == len(truth)
    assert links.loc["all", "n_confirmed"] > links.loc["all", "nearest"]
    assert links.loc["all", "p_value"] < 0.01
    assert links["n_candidates"].drop("all").sum() == links.loc["all", "n_candidates"]
    tr.tl.hit_ratio(mdata, reference=reference(mdata))
    every = tr.get.record(mdata, "grids_hit_ratio")["links"].set_index("bin")
    assert every.loc["all", "n_candidates"] > links.loc["all", "n_candidates"]  # what it does not link is no link
    assert every.loc["all", "n_confirmed"] == len(truth)


def test_decay_adds_up(mdata):
    tr.tl.hit_ratio(mdata, background="all")
    decay = tr.get.record(mdata, "grids_hit_ratio")["decay"]
    assert decay["observed"].sum() == len(mdata.uns["grids"]["sets"])
    assert decay["expected"].sum() == pytest.approx(decay["observed"].sum())
    assert decay["bin"].tolist() == [
        "0-10 kb", "10-100 kb", "100-500 kb", "500 kb-1 Mb", "1-10 Mb", "same chromosome", "other chromosome",
    ]  # fmt: skip
    assert decay["observed"].iloc[3:].sum() == 0


def test_only_the_record_is_written_and_runs_are_equal(mdata):
    before = content(mdata)
    table = tr.tl.hit_ratio(mdata, reference=reference(mdata))
    after = content(mdata)
    assert {slot for slot in after if after[slot] != before.get(slot)} == {"uns"}
    first = digest(mdata.uns["grids_hit_ratio"])
    tr.tl.hit_ratio(mdata, reference=reference(mdata))
    assert digest(mdata.uns["grids_hit_ratio"]) == first
    tr.tl.hit_ratio(mdata, reference=reference(mdata), key_added="mine")
    pd.testing.assert_frame_equal(tr.get.record(mdata, "mine")["table"].reset_index(drop=True), table)


@pytest.mark.parametrize("form", ["h5mu", "zarr"])
def test_it_survives_a_file(mdata, form, tmp_path):
    tr.tl.hit_ratio(mdata, reference=reference(mdata))
    if form == "h5mu":
        mdata.write(tmp_path / "x.h5mu")
        back = md.read_h5mu(tmp_path / "x.h5mu")
    else:
        mdata.write_zarr(tmp_path / "x.zarr")
        back = md.read_zarr(tmp_path / "x.zarr")
    found, expected = (tr.get.record(m, "grids_hit_ratio") for m in (back, mdata))
    for part in ("table", "decay", "links"):
        pd.testing.assert_frame_equal(found[part], expected[part], check_index_type=False)
    tr.tl.hit_ratio(back, reference=reference(mdata))
    pd.testing.assert_frame_equal(tr.get.record(back, "grids_hit_ratio")["table"], expected["table"])


def test_genes_without_coordinates_are_left_out(mdata):
    var = mdata["rna"].var
    targets = mdata.uns["targets"]["target"]
    var.loc[targets.iloc[0], ["chrom", "start", "end", "tss"]] = ["", -1, -1, -1]
    with pytest.warns(UserWarning, match="1 genes without coordinates are left out"):
        table = tr.tl.hit_ratio(mdata, background="all")
    assert set(table["n_tasks"]) == {len(targets) - 1}
    var.loc[targets, ["chrom", "start", "end", "tss"]] = ["", -1, -1, -1]
    with pytest.raises(ValueError, match="None of the 8 genes with a set has coordinates"):
        tr.tl.hit_ratio(mdata)


def test_a_reference_of_another_place_warns(mdata):
    moved = reference(mdata, tested=True)
    moved[["start", "end"]] += 50_000_000
    with pytest.warns(UserWarning, match="judges no selected peak.*same genome"):
        tr.tl.hit_ratio(mdata, reference=moved)
    assert tr.get.record(mdata, "grids_hit_ratio")["links"]["n_selected"].tolist() == [0]


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda t: t.drop(columns="gene"), KeyError, "`reference` has no column 'gene'"),
        (lambda t: t.to_dict(), TypeError, "`reference` to be a DataFrame.*found dict"),
        (lambda t: t.assign(linked="yes"), TypeError, r"`reference\['linked'\]` to be Boolean"),
        (lambda t: t.assign(end=t["start"]), ValueError, "start < end"),
        (lambda t: t.assign(start=t["start"] + 0.5), ValueError, "to be integers"),
        (lambda t: t.assign(gene="ENSG00000"), ValueError, r"None of the 1 names in `reference\['gene'\]`"),
        (lambda t: t.assign(chrom=t["chrom"].str[3:]), ValueError, "No chromosome of `reference`.*Name them alike"),
        (lambda t: t.assign(linked=False), ValueError, "links no element to any of the 8 genes with a set"),
    ],
)
def test_bad_references(mdata, change, error, text):
    before = content(mdata)
    with pytest.raises(error, match=text):
        tr.tl.hit_ratio(mdata, reference=change(reference(mdata)))
    assert content(mdata) == before


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"background": "near"}, ValueError, "`background` to be one of 'cis', 'all'; found 'near'"),
        ({"windows": [0]}, ValueError, "`windows` to be at least 1, found 0"),
        ({"windows": [1.5]}, TypeError, "`windows` to be an integer"),
        ({"n_strata": 0}, ValueError, "`n_strata` to be at least 1"),
        ({"key": "search"}, KeyError, "'search' not found"),
        ({"rna": "gex"}, KeyError, "`rna`: 'gex' not found in `mdata.mod`"),
        ({"cis": "links"}, KeyError, "'links' not found in `mdata.varp`"),
        ({"key_added": "a/b"}, ValueError, "`key_added`"),
    ],
)
def test_bad_input(mdata, options, error, text):
    with pytest.raises(error, match=text):
        tr.tl.hit_ratio(mdata, **options)


@pytest.mark.data
def test_crispr_interference_in_k562(mdata, data_dir):
    path = data_dir / "cre_gene" / "EPCrisprBenchmark_combined_data.training_K562.GRCh38.tsv.gz"
    table = pd.read_csv(path, sep="\t")
    assert len(table) == 10_356
    table = table.rename(columns={"chromStart": "start", "chromEnd": "end", "measuredGeneSymbol": "gene"})
    table = table.assign(linked=table["Regulated"].astype(bool))
    with pytest.raises(ValueError, match=r"None of the .* names in `reference\['gene'\]`"):
        tr.tl.hit_ratio(mdata, reference=table)
