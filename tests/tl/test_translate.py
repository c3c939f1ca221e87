"""tl.translate: what is learnt of a planted multiome, what is written, what is refused."""

import mudata as md
import numpy as np
import pandas as pd
import pytest
from helpers import content, digest
from scipy import sparse

import sctrellis as tr
from sctrellis._core import slots
from sctrellis.tl import _surrogate, _translate_report

FAST = {"groupby": "cell_group", "n_runs": 1, "n_null": 1, "max_epochs": 2, "n_hidden": 4}


@pytest.fixture(scope="module")
def world():
    """A planted multiome of two groups: four targets among forty genes, so that no target decides a cell's total."""
    return tr.datasets.simulate_multiome(1600, 1000, 40, n_groups=2, n_targets=4, n_chromosomes=2, seed=3)


@pytest.fixture(scope="module")
def some(world):
    """The targets and twelve other genes."""
    planted = world.uns["targets"]["target"].astype(str).tolist()
    return planted + [name for name in world["rna"].var_names if name not in planted][:12]


@pytest.fixture
def mdata(world):
    """A small one, to write to."""
    return tr.datasets.simulate_multiome(120, 240, 8, n_groups=2, n_targets=2, n_chromosomes=2, seed=1)


@pytest.fixture(scope="module")
def fitted(world, some):
    """The planted multiome with the surrogate."""
    return tr.tl.translate(
        world, groupby="cell_group", targets=some, n_runs=2, n_null=4, layer_added="predicted", copy=True
    )


def table(mdata, name="genes", key="translate"):
    return tr.get.record(mdata, key)[name]


def by_group(mdata):
    return table(mdata, "by_group").astype({"gene": str, "group": str}).set_index(["gene", "group"])


# what is learnt


def test_planted_targets_are_learnt_and_others_are_not(fitted):
    genes, targets = table(fitted), fitted.uns["targets"]
    rows = by_group(fitted).loc[list(zip(targets["target"].astype(str), targets["group"].astype(str), strict=True))]
    assert (rows["r"] >= 0.5).all()  # within the group in which the target is active
    assert rows["learned"].all()
    planted = genes.index.isin(targets["target"].astype(str))
    assert genes.loc[planted, "learned"].all()
    assert (genes.loc[planted, "r_within"] >= 0.4).all()
    assert (genes.loc[planted, "deviance"] > 0.2).all()
    np.testing.assert_allclose(genes.loc[planted, "calibration_slope"], 1, atol=0.3)
    others = genes[~planted]
    assert others["learned"].mean() <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / len(others))
    assert (others["deviance"].abs() < 0.05).all()
    assert (table(fitted, "groups")["r_of_means"] > 0.95).all()


def test_the_predicted_fall_at_the_planted_elements_is_the_true_one(fitted):
    translator, paired, _ = _surrogate.read_surrogate(fitted)
    ratios = []
    for target, peaks in fitted.uns["truth"].groupby("target", observed=True)["peak"]:
        group = fitted.uns["targets"].set_index("target").loc[target, "group"]
        mine = paired.groups == paired.group_names.index(group)
        cells = np.intersect1d(paired.split["test"], np.flatnonzero(mine))
        g = fitted["rna"].var_names.get_loc(target)
        closed = paired.accessibility[cells].tolil()
        closed[:, fitted["atac"].var_names.get_indexer(peaks)] = 0
        before, after = (
            translator.predict_all(x, paired.groups[cells], paired.log_size[cells])[:, list(translator.genes).index(g)]
            for x in (paired.accessibility[cells], closed)
        )
        ratios.append((before - after).mean() / tr.datasets.true_drop(fitted, target, list(peaks)))
    assert 0.85 <= np.mean(ratios) <= 1.15
    assert np.min(ratios) >= 0.7
    assert np.max(ratios) <= 1.3


def test_permuting_cells_within_groups_leaves_nothing_to_learn(world, some):
    shuffled = world.copy()
    rng = np.random.default_rng(0)
    order = np.arange(world.n_obs)
    strata = world.obs["cell_group"].astype(str) + world.obs["cell_split"].astype(str)
    for name in strata.unique():
        cells = np.flatnonzero(strata == name)
        order[cells] = rng.permutation(cells)
    shuffled["rna"].layers["counts"] = world["rna"].layers["counts"][order]
    tr.tl.translate(shuffled, groupby="cell_group", targets=some, n_runs=1, n_null=3, max_epochs=15)
    genes = table(shuffled)
    assert genes["r_within"].abs().max() < 0.3
    assert genes["learned"].mean() <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / len(genes))
    assert (table(shuffled, "groups")["r_of_means"] > 0.95).all()  # means of groups are still there


def test_the_null_is_as_wide_as_it_should_be(fitted):
    """Pearson's r of n unrelated pairs has standard deviation 1 / sqrt(n)."""
    n_test = (fitted.obs["cell_split"] == "test").sum()
    assert table(fitted)["null_q95"].iloc[0] == pytest.approx(1.645 / np.sqrt(n_test), rel=0.35)


def test_the_table_says_what_the_layer_says(fitted):
    counts = fitted["rna"].layers["counts"].toarray().astype(float)
    size = counts.sum(axis=1) / counts.sum(axis=1).mean()
    cells = (fitted.obs["cell_split"] == "test").to_numpy()
    group = fitted.obs["cell_group"].astype(str).to_numpy()[cells]
    log_mean = fitted["rna"].layers["predicted"][cells] - np.log(size[cells, None])
    names = [str(name) for name in fitted["rna"].var_names]
    observed = np.log1p(counts[cells] / size[cells, None])
    genes, groups = table(fitted), by_group(fitted)
    for gene in genes.index[:6]:
        g = names.index(gene)
        frame = pd.DataFrame({"o": observed[:, g], "p": log_mean[:, g], "group": group})
        assert genes.loc[gene, "r"] == pytest.approx(frame["o"].corr(frame["p"]), abs=1e-3)
        for name, part in frame.groupby("group"):
            assert groups.loc[(gene, name), "r"] == pytest.approx(part["o"].corr(part["p"]), abs=1e-3)
        within = frame[["o", "p"]] - frame.groupby("group")[["o", "p"]].transform("mean")
        assert genes.loc[gene, "r_within"] == pytest.approx(within["o"].corr(within["p"]), abs=1e-3)
        y, expected = counts[cells, g] / size[cells], np.exp(frame["p"])
        assert genes.loc[gene, "mean"] == pytest.approx(y.mean())
        assert groups.loc[(gene, "group_1"), "observed"] == pytest.approx(y[group == "group_1"].mean())
        assert groups.loc[(gene, "group_1"), "predicted"] == pytest.approx(
            expected[group == "group_1"].mean(), rel=1e-3
        )


# what is written


def test_only_the_slots_of_the_record_appear(mdata):
    before = content(mdata)
    assert tr.tl.translate(mdata, layer_added="predicted", **FAST) is None
    after = content(mdata)
    assert {slot for slot in after if after[slot] != before.get(slot)} == {"uns", "rna/layers/predicted"}
    record = tr.get.record(mdata, "translate")
    assert record["slots"] == {"surrogate": "uns/translate", "predicted": "rna/layers/predicted"}
    layer = mdata["rna"].layers["predicted"]
    assert (layer.dtype, layer.shape) == (np.float32, mdata["rna"].shape)


def test_same_seed_same_bytes_and_another_seed_another_result(mdata):
    other, third = mdata.copy(), mdata.copy()
    tr.tl.translate(mdata, **FAST)
    tr.tl.translate(other, **FAST)
    tr.tl.translate(third, seed=7, **FAST)
    assert digest(mdata.uns["translate"]) == digest(other.uns["translate"])
    assert digest(mdata.uns["translate"]["weights"]) != digest(third.uns["translate"]["weights"])


@pytest.mark.parametrize("kind", ["cis", "crossmodal"])
def test_copy_and_key_added(mdata, kind):
    before = content(mdata)
    returned = tr.tl.translate(mdata, kind, copy=True, key_added="mine", **FAST)
    assert content(mdata) == before
    assert "mine" in returned.uns
    found = tr.get.record(returned, "mine")["slots"]
    assert found["surrogate"] == "uns/mine"
    if kind == "crossmodal":
        assert found["latent_atac"] == "atac/obsm/X_mine"
        assert returned["rna"].obsm["X_mine"].shape == returned["atac"].obsm["X_mine"].shape == (120, 20)


@pytest.mark.parametrize("kind", ["cis", "crossmodal"])
@pytest.mark.parametrize("store", ["h5mu", "zarr"])
def test_a_surrogate_survives_a_file(mdata, kind, store, tmp_path):
    tr.tl.translate(mdata, kind, layer_added="predicted", **FAST)
    if store == "h5mu":
        mdata.write_h5mu(tmp_path / "x.h5mu")
        back = md.read_h5mu(tmp_path / "x.h5mu")
    else:
        mdata.write_zarr(tmp_path / "x.zarr")
        back = md.read_zarr(tmp_path / "x.zarr")
    for name in ("genes", "by_group", "groups"):
        pd.testing.assert_frame_equal(table(back, name), table(mdata, name), check_index_type=False, check_dtype=False)
    for data in (mdata, back):
        translator, paired, _ = _surrogate.read_surrogate(data)
        again = translator.predict_all(paired.accessibility, paired.groups, paired.log_size)
        stored = data["rna"].layers["predicted"][:, translator.genes]
        np.testing.assert_array_equal(again, stored)


def test_targets_are_selected_and_the_others_stay_empty(mdata):
    names = list(mdata["rna"].var_names[[5, 2]])
    tr.tl.translate(mdata, targets=names, layer_added="predicted", **FAST)
    assert list(table(mdata).index) == [names[1], names[0]]
    found = ~np.isnan(mdata["rna"].layers["predicted"])
    assert found[:, [2, 5]].all()
    assert found.sum() == 2 * mdata.n_obs


def test_no_groups_is_one_group(mdata):
    tr.tl.translate(mdata, **{**FAST, "groupby": None})
    assert list(table(mdata, "groups").index) == ["all"]


def test_without_a_null_nothing_is_called_learned(mdata):
    tr.tl.translate(mdata, **{**FAST, "n_null": 0})
    assert table(mdata)[["null_q95", "null_p"]].isna().all(axis=None)
    assert not table(mdata)["learned"].any()


def test_without_counts_log_normalised_values_are_fitted(mdata, world, some):
    plain = world.copy()
    del plain["rna"].layers["counts"]
    with pytest.warns(UserWarning, match="has no layer 'counts'.*Gaussian"):
        tr.tl.translate(plain, groupby="cell_group", targets=some, n_runs=1, n_null=4, max_epochs=40)
    record = tr.get.record(plain, "translate")
    assert record["surrogate"]["likelihood"] == "gaussian"
    assert record["params"]["counts"] is None
    assert record["inputs"]["slot"] == "X"
    planted = record["genes"].loc[plain.uns["targets"]["target"].astype(str)]
    assert planted["learned"].all()
    tr.tl.translate(mdata, counts=None, **FAST)  # asked for, so nothing to warn of


def test_a_gene_without_peaks_is_left_out_and_said(mdata, caplog):
    name = str(mdata["rna"].var_names[3])
    distances = slots.read_cis(mdata).tolil()
    kept = sparse.csr_matrix(slots.read_cis(mdata))
    rows = np.repeat(np.arange(kept.shape[0]), np.diff(kept.indptr)) != 3
    kept = sparse.csr_matrix(
        (kept.data[rows], (np.repeat(np.arange(kept.shape[0]), np.diff(kept.indptr))[rows], kept.indices[rows])),
        shape=distances.shape,
    )
    slots.write(mdata, varp={"cis": slots.cis_network(mdata, kept)})
    with caplog.at_level("INFO", "sctrellis"):
        tr.tl.translate(mdata, **FAST)
    assert f"1 of 8 genes have no linked peak and are not fitted ('{name}')" in caplog.text
    assert name not in table(mdata).index
    with pytest.warns(UserWarning, match="1 of 2 genes have no linked peak"):
        tr.tl.translate(mdata, targets=[name, str(mdata["rna"].var_names[0])], **FAST)
    with pytest.raises(ValueError, match="None of the 1 genes has a linked peak"):
        tr.tl.translate(mdata, targets=name, **FAST)


def test_counts_of_fragments_are_read_as_open(mdata):
    other = mdata.copy()
    other["atac"].X = other["atac"].layers["counts"]
    tr.tl.translate(mdata, **FAST)
    tr.tl.translate(other, **FAST)
    assert digest(other.uns["translate"]["weights"]) == digest(mdata.uns["translate"]["weights"])
    assert other["atac"].X.max() > 1  # and left as they are


# the crossmodal kind


def test_crossmodal_learns_means_of_groups(world):
    found = tr.tl.translate(world, "crossmodal", groupby="cell_group", max_epochs=8, copy=True)
    record = tr.get.record(found, "translate")
    assert (record["groups"]["r_of_means"] > 0.7).all()
    assert set(record["history"]["phase"]) == {0, 1, 2}
    for stage in range(3):
        losses = record["history"].loc[record["history"]["phase"] == stage, "validation"]
        assert losses.iloc[-1] < losses.iloc[0]
    # Codes of the two modalities of a cell are closer than those of different cells of its group.
    rna, atac = found["rna"].obsm["X_translate"], found["atac"].obsm["X_translate"]
    own = np.abs(rna - atac).mean()
    assert own < np.abs(rna - np.roll(atac, 1, axis=0)).mean()
    assert 0.5 < record["fit"]["atac_auroc"] < 1


def test_unpaired_has_no_loss_on_pairs_of_cells(mdata):
    tr.tl.translate(mdata, "crossmodal", pairing="unpaired", **FAST)
    record = tr.get.record(mdata, "translate")
    assert "paired" not in record["history"].columns
    assert record["params"]["pairing"] == "unpaired"


# permutations


def test_partners_are_of_the_same_group_and_part(mdata):
    paired = _surrogate.read_paired(mdata, groupby="cell_group", counts="counts", layer=None, split="cell_split")
    partners = _translate_report.permuted_partners(paired, 4, 0)
    strata = (mdata.obs["cell_group"].astype(str) + mdata.obs["cell_split"].astype(str)).to_numpy()
    for row in partners:
        assert sorted(row) == list(range(mdata.n_obs))
        np.testing.assert_array_equal(strata[row], strata)
    assert (partners[0] != np.arange(mdata.n_obs)).mean() > 0.8
    assert len({tuple(row) for row in partners}) == 4


# what is refused


def few(mdata):
    group = np.where(np.arange(mdata.n_obs) < 5, "rare", "usual")
    slots.write(mdata, obs={"other": pd.Categorical(group)})


def unsplit(mdata):
    del mdata.obs["cell_split"]


def unlinked(mdata):
    del mdata.varp["cis"]


def no_counts(mdata):
    mdata["rna"].layers["counts"] = mdata["rna"].X


def ungrouped(mdata):
    values = mdata.obs["cell_group"].astype(object)
    values.iloc[:3] = np.nan
    mdata.obs["cell_group"] = values


def negative(mdata):
    mdata["atac"].X = -mdata["atac"].X


def one_part(mdata):
    mdata.obs["cell_split"] = "train"


def empty_cell(mdata):
    counts = mdata["rna"].layers["counts"].tolil()
    counts[4] = 0
    mdata["rna"].layers["counts"] = counts.tocsr()


@pytest.mark.parametrize(
    ("spoil", "options", "error", "message"),
    [
        (
            few,
            {"groupby": "other"},
            ValueError,
            r"Group 'rare' of `groupby='other'` has \d training cells; at least 10",
        ),
        (None, {"groupby": "celltype"}, KeyError, "`groupby`: 'celltype' not found in `mdata.obs`"),
        (ungrouped, {}, ValueError, "`groupby='cell_group'` is missing for 3 of 120 cells"),
        (unsplit, {}, KeyError, r"'cell_split' not found in `mdata.obs`.*pp.split_cells"),
        (one_part, {}, ValueError, "gives fewer than 2 cells to 'validation', 'test'"),
        (unlinked, {}, KeyError, "'cis' not found in `mdata.varp`.*pp.cis_links"),
        (no_counts, {}, ValueError, r"layers\['counts'\]` has values that are no counts"),
        (empty_cell, {}, ValueError, "1 of 120 cells have no count"),
        (negative, {}, ValueError, r"`mdata\['atac'\].X` has negative, NaN or infinite values"),
        (None, {"counts": "raw"}, KeyError, r"`counts`: 'raw' not found in `mdata\['rna'\].layers`"),
        (None, {"kind": "trans"}, ValueError, "`kind` to be one of 'cis', 'crossmodal'; found 'trans'"),
        (None, {"targets": "XYZ"}, ValueError, "1 of 1 `targets` are not in"),
        (None, {"rna": "gex"}, KeyError, "'gex' not found in `mdata.mod`"),
        (None, {"pairing": "both"}, ValueError, "`pairing` to be one of"),
        (None, {"theta": 0}, ValueError, r"`theta` to lie in \(0"),
        (None, {"n_null": -1}, ValueError, "`n_null` to be at least 0"),
        (None, {"lr": -1.0}, ValueError, "`lr` to lie in"),
        (None, {"batch_size": 1}, ValueError, "`batch_size` to be at least 2"),
        (None, {"layer_added": "a/b"}, ValueError, "`layer_added`"),
    ],
)
def test_bad_input(mdata, spoil, options, error, message):
    if spoil is not None:
        spoil(mdata)
    before = content(mdata)
    with pytest.raises(error, match=message):
        tr.tl.translate(mdata, **{**FAST, **options})
    assert content(mdata) == before


def test_an_anndata_is_refused(mdata):
    with pytest.raises(TypeError, match="`mdata` to be a MuData"):
        tr.tl.translate(mdata["rna"])


def test_a_surrogate_of_other_peaks_is_refused(mdata):
    tr.tl.translate(mdata, **FAST)
    atac = mdata["atac"][:, ::-1].copy()
    with md.set_options(pull_on_update=False):
        other = md.MuData({"rna": mdata["rna"].copy(), "atac": atac})
    other.obs = mdata.obs.copy()
    other.uns["translate"] = mdata.uns["translate"]
    with pytest.raises(ValueError, match=r"fitted to other peaks.*240 then, 240 now, or another order"):
        _surrogate.read_surrogate(other)
    with pytest.raises(KeyError, match="Run `sctrellis.tl.translate"):
        _surrogate.read_surrogate(mdata, "grids")


def test_groups_keep_the_codes_of_the_fit(mdata):
    tr.tl.translate(mdata, **FAST)
    part = mdata[mdata.obs["cell_group"] == "group_1"].copy()
    _, paired, _ = _surrogate.read_surrogate(part)
    assert paired.group_names == ["group_0", "group_1"]
    assert (paired.groups == 1).all()
    renamed = mdata.copy()
    renamed.obs["cell_group"] = renamed.obs["cell_group"].cat.rename_categories({"group_0": "new"})
    with pytest.raises(ValueError, match=r"groups without a fit \('new'\)"):
        _surrogate.read_surrogate(renamed)
