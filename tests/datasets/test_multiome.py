"""simulate_multiome: what it plants, what is seen of it, what it refuses."""

import mudata as md
import numpy as np
import pandas as pd
import pytest
from helpers import content
from scipy import stats

import sctrellis as tr
from sctrellis._core import slots

simulate = tr.datasets.simulate_multiome


@pytest.fixture(scope="module")
def large():
    """Enough cells for moments, with every kind in every group."""
    return simulate(8000, 480, 16, n_targets=16, seed=1)


def dense(mdata, layer="state"):
    return mdata["atac"].layers[layer].toarray()


def group_of(mdata):
    return mdata.obs["cell_group"].to_numpy()


def z_scores(observed, p, n):
    return (observed - p) / np.sqrt(p * (1 - p) / n)


def test_elements_and_decoys_have_the_same_accessibility(large):
    openness = {"TRAP3": 0.6, "TRAP2": 0.7, "ANDADD": 0.75, "ANDOR": 0.7}
    var, state, cells = large["atac"].var, dense(large), group_of(large)
    kinds = large.uns["targets"].set_index("target")
    assert kinds["kind"].value_counts().to_dict() == {"TRAP3": 5, "TRAP2": 4, "ANDADD": 4, "ANDOR": 3}
    assert set(kinds["group"].value_counts()) == {4}
    scores = {"element": [], "decoy": []}
    for column in np.flatnonzero(var["target"] != ""):
        target, role = var[["target", "role"]].iloc[column]
        assert var["group"].iloc[column] == kinds.loc[target, "group"]
        inside = cells == kinds.loc[target, "group"]
        expected = openness[kinds.loc[target, "kind"]]
        scores[role].append(z_scores(state[inside, column].mean(), expected, inside.sum()))
        scores[role].append(z_scores(state[~inside, column].mean(), 0.08, (~inside).sum()))
    for values in scores.values():
        assert stats.kstest(values, "norm").pvalue > 1e-3
    assert len(scores["decoy"]) == 2 * 3 * 16


def test_markers_and_background(large):
    var, state, cells = large["atac"].var, dense(large), group_of(large)
    rates = pd.DataFrame(state).groupby(cells).mean().T.to_numpy()
    names = np.unique(cells)
    marker = (var["role"] == "marker").to_numpy()
    own = names.searchsorted(var["group"][marker])
    assert 0.3 * 480 - 200 < marker.sum() < 0.3 * 480  # some of them were chosen as elements
    in_own = rates[marker][np.arange(len(own)), own]
    assert 0.36 < in_own.min() < 0.45
    assert 0.8 < in_own.max() < 0.9
    background = (var["role"] == "background").to_numpy()
    spread = rates[background] - rates[background].mean(axis=1, keepdims=True)
    assert np.abs(spread).max() < 5 * 0.5 / np.sqrt(2000)
    wide = simulate(2, 6000, 200, n_targets=0, markers=0, n_groups=1)
    assert not wide.uns["truth"].shape[0]
    openness = simulate(800, 2400, 80, n_targets=0, markers=0)["atac"].layers["state"].mean(axis=0)
    assert np.mean(openness) == pytest.approx(1.2 / 9.2, abs=0.01)


def test_every_kind_has_its_gates():
    expected = {
        "TRAP3": {("OR", 3, 1.6): 1, ("ADD", 1, 0.35): 3},
        "TRAP2": {("OR", 2, 1.4): 1, ("ADD", 1, 0.5): 4},
        "ANDADD": {("AND", 2, 1.4): 1, ("ADD", 1, 0.4): 3},
        "ANDOR": {("AND", 2, 1.4): 1, ("OR", 2, 1.4): 1},
    }
    sizes = {"TRAP3": 3, "TRAP2": 2, "ANDADD": 2, "ANDOR": 3}
    for kind, gates in expected.items():
        mdata = simulate(20, 240, 8, n_targets=2, kinds=kind)
        for _, truth in mdata.uns["truth"].groupby("target"):
            found = [(g["gate"].iloc[0], len(g), g["beta"].iloc[0]) for _, g in truth.groupby("gate_id")]
            assert {gate: found.count(gate) for gate in found} == gates
            assert truth["peak"].is_unique
        assert (mdata.uns["targets"]["n_peaks"] == sizes[kind]).all()
        assert (mdata.uns["targets"]["kind"] == kind).all()


def test_counts_have_the_moments_of_the_planted_model(large):
    counts = large["rna"].layers["counts"].toarray().astype(float)
    size = large.obs["size_factor"].to_numpy()
    means, variances = [], []
    for j, gene in enumerate(large["rna"].var_names):
        mu = size * np.exp(tr.datasets.true_log_mean(large, gene))
        variance = mu + 0.125 * mu**2
        standardised = (counts[:, j] - mu) / np.sqrt(variance)
        means.append(standardised.mean() * np.sqrt(len(mu)))
        # The fourth moment of the counts decides how far their variance may be off.
        variances.append((np.mean(standardised**2) - 1) / (np.std(standardised**2) / np.sqrt(len(mu))))
    assert stats.kstest(means, "norm").pvalue > 1e-3
    assert stats.kstest(variances, "norm").pvalue > 1e-3
    assert np.log(size / 2).std() == pytest.approx(0.3, rel=0.05)
    assert np.median(size) == pytest.approx(2, rel=0.03)


def test_no_dispersion_means_poisson():
    mdata = simulate(4000, 240, 8, n_targets=0, dispersion=0, size_std=0, seed=3)
    counts = mdata["rna"].layers["counts"].toarray()
    for j, gene in enumerate(mdata["rna"].var_names):
        mu = 2 * np.exp(tr.datasets.true_log_mean(mdata, gene))
        assert np.mean((counts[:, j] - mu) ** 2 / mu) == pytest.approx(1, abs=5 * np.sqrt(3 / 4000))


def test_gates_by_hand(large):
    state, names = dense(large), large["atac"].var_names
    for target, truth in large.uns["truth"].groupby("target"):
        by_hand = np.zeros(large.n_obs)
        for _, gate in truth.groupby("gate_id"):
            x = state[:, names.get_indexer(gate["peak"])] > 0
            logic = {"OR": x.any(axis=1), "AND": x.all(axis=1), "ADD": x[:, 0]}[gate["gate"].iloc[0]]
            by_hand += gate["beta"].iloc[0] * logic
        np.testing.assert_allclose(tr.datasets.true_log_mean(large, target), by_hand)


def test_soft_states_are_expectations(large):
    target = large.uns["targets"]["target"].iloc[3]
    rng = np.random.default_rng(0)
    p = rng.random(large["atac"].shape[1])
    soft = tr.datasets.true_log_mean(large, target, state=np.tile(p, (large.n_obs, 1)))
    drawn = tr.datasets.true_log_mean(large, target, state=(rng.random(large["atac"].shape) < p).astype(float))
    assert np.ptp(soft) < 1e-12
    assert drawn.mean() == pytest.approx(soft[0], abs=5 * drawn.std() / np.sqrt(len(drawn)))


def test_drops_follow_the_theory_of_gates(large):
    """A gate of m members, each open with probability p, loses beta (1 - (1 - p)^m) (OR) or beta p^m (AND)."""
    openness = {"TRAP3": 0.6, "TRAP2": 0.7, "ANDADD": 0.75, "ANDOR": 0.7}
    kinds = large.uns["targets"].set_index("target")["kind"]
    for target, truth in large.uns["truth"].groupby("target"):
        cells = group_of(large) == truth["group"].iloc[0]
        p = openness[kinds[target]]
        for _, gate in truth.groupby("gate_id"):
            m, beta, logic = len(gate), gate["beta"].iloc[0], gate["gate"].iloc[0]
            whole = {"OR": beta * (1 - (1 - p) ** m), "AND": beta * p**m, "ADD": beta * p}[logic]
            single = {"OR": beta * p * (1 - p) ** (m - 1), "AND": beta * p**m, "ADD": beta * p}[logic]
            error = 5 * beta * 0.5 / np.sqrt(cells.sum())
            drop = tr.datasets.true_drop(large, target, gate["peak"], cells=cells)
            assert drop == pytest.approx(whole, abs=error)
            for peak in gate["peak"]:
                assert tr.datasets.true_drop(large, target, [peak], cells=cells) == pytest.approx(single, abs=error)


def test_drop_is_the_change_of_the_log_mean(large):
    target, group = large.uns["targets"].loc["5", ["target", "group"]]
    closed = large.uns["truth"].query("target == @target")["peak"].tolist()[1:4]
    state = large["atac"].layers["state"].tolil()
    state[:, large["atac"].var_names.get_indexer(closed)] = 0
    change = tr.datasets.true_log_mean(large, target) - tr.datasets.true_log_mean(large, target, state=state.tocsr())
    cells = ((large.obs["cell_group"] == group) & (large.obs["cell_split"] == "test")).to_numpy()
    assert tr.datasets.true_drop(large, target, closed) == pytest.approx(change[cells].mean())
    decoys = large["atac"].var_names[(large["atac"].var["role"] == "decoy").to_numpy()]
    assert tr.datasets.true_drop(large, target, list(decoys)) == 0


def test_no_set_is_better_than_the_best(large):
    rng = np.random.default_rng(0)
    sets = {}
    for target, kind, n_peaks in large.uns["targets"][["target", "kind", "n_peaks"]].itertuples(index=False):
        best, drop = tr.datasets.best_true_set(large, target, n_peaks)
        assert len(best) == n_peaks
        assert drop == pytest.approx(tr.datasets.true_drop(large, target, best))
        window = slots.read_cis(large)[large["rna"].var_names.get_loc(target)].indices
        for _ in range(20):
            other = large["atac"].var_names[rng.choice(window, n_peaks, replace=False)]
            assert tr.datasets.true_drop(large, target, other) <= drop + 1e-12
        truth = large.uns["truth"].query("target == @target").set_index("peak").loc[best]
        sets[kind] = sorted(truth["gate"])
    # Redundant elements are worth it only together, elements that are all needed only one at a time.
    assert sets == {"TRAP3": ["OR"] * 3, "TRAP2": ["OR"] * 2, "ANDADD": ["ADD", "AND"], "ANDOR": ["AND", "OR", "OR"]}
    everything, drop = tr.datasets.best_true_set(large, target, 30)
    assert set(everything) == set(large.uns["truth"].query("target == @target")["peak"])


def test_genes_without_elements(large):
    mdata = simulate(60, n_targets=2)
    gene = next(g for g in mdata["rna"].var_names if g not in set(mdata.uns["targets"]["target"]))
    assert tr.datasets.true_drop(mdata, gene, mdata["atac"].var_names) == 0
    assert tr.datasets.best_true_set(mdata, gene, 3) == ([], 0.0)
    base = np.exp(mdata["rna"].var["log_base"])
    assert base.min() < 0.7 < 1.5 < base.max()
    raised = mdata["rna"].varm["group_effect"]
    assert ((raised > 0).sum(axis=1) <= 1).all()
    assert 5 < (raised > 0).sum() < 35
    targets = mdata["rna"].var_names.get_indexer(mdata.uns["targets"]["target"])
    assert not raised[targets].any()
    assert not mdata["rna"].var["log_base"].iloc[targets].any()


def test_decoys_copy_with_the_given_probability():
    for correlation in (0.0, 0.6, 1.0):
        mdata = simulate(8000, 240, 8, n_targets=4, n_decoys=5, kinds="ANDOR", decoy_correlation=correlation)
        var, state, cells = mdata["atac"].var, dense(mdata), group_of(mdata)
        for target, group in mdata.uns["targets"][["target", "group"]].itertuples(index=False):
            own = ((var["target"] == target) & (var["role"] == "element")).to_numpy()
            decoys = ((var["target"] == target) & (var["role"] == "decoy")).to_numpy()
            inside = cells == group
            r = np.corrcoef(state[inside][:, own].T, state[inside][:, decoys].T)[: own.sum(), own.sum() :]
            # The openness is equal, so the correlation is the probability of a copy.
            assert np.abs(np.sort(r, axis=0)[-1] - correlation).max() < 5 / np.sqrt(inside.sum())
            assert np.abs(np.sort(r, axis=0)[:-1]).max() < 5 / np.sqrt(inside.sum())
            assert np.abs(state[inside][:, decoys].mean(axis=0) - 0.7).max() < 5 * 0.5 / np.sqrt(inside.sum())


def test_dropout_thins_the_state_and_nothing_else():
    clean, lossy = simulate(400, dropout=0.0), simulate(400, dropout=0.3)
    np.testing.assert_array_equal(dense(clean), clean["atac"].X.toarray())
    np.testing.assert_array_equal(dense(clean), dense(lossy))
    np.testing.assert_array_equal(clean["rna"].layers["counts"].toarray(), lossy["rna"].layers["counts"].toarray())
    seen, state = lossy["atac"].X, lossy["atac"].layers["state"]
    assert (seen > state).nnz == 0
    assert abs(seen.nnz / state.nnz - 0.7) < 5 * 0.5 / np.sqrt(state.nnz)
    assert seen.has_canonical_format
    fragments = lossy["atac"].layers["counts"]
    assert ((fragments > 0) != (seen > 0)).nnz == 0
    assert fragments.data.mean() == pytest.approx(1.3, abs=0.02)


def test_windows_of_genes_do_not_meet(large):
    links = slots.read_cis(large)
    per_peak = np.bincount(links.indices, minlength=large["atac"].n_vars)
    assert per_peak.max() == 1
    per_gene = np.diff(links.indptr)
    assert per_gene.min() >= 18
    assert per_gene.max() <= 22
    for target, truth in large.uns["truth"].groupby("target"):
        row = large["rna"].var_names.get_loc(target)
        window = links.indices[links.indptr[row] : links.indptr[row + 1]]
        assert set(large["atac"].var_names.get_indexer(truth["peak"])) <= set(window)


def test_coordinates(large):
    genes, peaks = large["rna"].var, large["atac"].var
    forward = genes["strand"] == "+"
    assert 2 < forward.sum() < 14
    np.testing.assert_array_equal(genes["tss"], np.where(forward, genes["start"], genes["end"] - 1))
    assert (genes["start"] >= 0).all()
    assert (peaks["start"] >= 0).all()
    assert (peaks["end"] - peaks["start"]).between(300, 1500).all()
    for _, on_one in peaks.groupby("chrom"):
        assert (on_one["start"].to_numpy()[1:] >= on_one["end"].to_numpy()[:-1]).all()
    assert genes["chrom"].unique().tolist() == ["chr1", "chr2", "chr3", "chr4"]
    names = peaks["chrom"] + "-" + peaks["start"].astype(str) + "-" + peaks["end"].astype(str)
    assert names.tolist() == peaks.index.tolist()


def test_cells_are_split_within_groups(large):
    table = pd.crosstab(large.obs["cell_group"], large.obs["cell_split"])
    assert (table.to_numpy() == [[1400, 200, 400]] * 4).all()
    assert large.obs["cell_split"].cat.categories.tolist() == ["train", "validation", "test"]


def test_types_of_the_slots(large):
    for matrix in (large["atac"].X, large["rna"].X, large["atac"].layers["counts"], large["rna"].layers["counts"]):
        assert matrix.dtype == np.float32
        assert matrix.format == "csr"
        assert matrix.indices.dtype == np.int32
    assert set(np.unique(large["atac"].X.data)) == {1}
    total = np.expm1(large["rna"].X.toarray().astype(float)).sum(axis=1)
    np.testing.assert_allclose(total, np.median(large["rna"].layers["counts"].toarray().sum(axis=1)), rtol=1e-5)


def test_seeds():
    first, again, other = (simulate(40, 240, 8, n_targets=4, seed=seed) for seed in (0, 0, 1))
    assert content(first) == content(again)
    assert content(first["atac"]) != content(other["atac"])
    assert not first.uns["truth"].equals(other.uns["truth"])
    drawn = simulate(40, 240, 8, n_targets=4, seed=None)
    same = simulate(40, 240, 8, n_targets=4, seed=drawn.uns["simulate_multiome"]["seed"])
    assert content(drawn) == content(same)


def test_the_size_of_a_block_changes_nothing(monkeypatch):
    from sctrellis.datasets import _multiome

    whole = content(simulate(50, 240, 8)["atac"])
    monkeypatch.setattr(_multiome, "_BLOCK", 700)
    assert content(simulate(50, 240, 8)["atac"]) == whole


def test_more_cells_leave_the_plan_as_it_was():
    one, other = simulate(40), simulate(80)
    assert one.uns["truth"].equals(other.uns["truth"])
    assert one["atac"].var.equals(other["atac"].var)
    assert one["rna"].var.equals(other["rna"].var)


@pytest.mark.parametrize("suffix", ["h5mu", "zarr"])
def test_round_trip(tmp_path, suffix):
    mdata = simulate(40, 240, 8, n_targets=4, dropout=0.2)
    path = tmp_path / f"cells.{suffix}"
    mdata.write(path) if suffix == "h5mu" else mdata.write_zarr(path)
    with md.set_options(pull_on_update=False):
        back = md.read_h5mu(path) if suffix == "h5mu" else md.read_zarr(path)
    pd.testing.assert_frame_equal(back.uns["truth"], mdata.uns["truth"])
    np.testing.assert_array_equal(slots.read_cis(back).toarray(), slots.read_cis(mdata).toarray())
    assert tr.get.record(back, "simulate_multiome") == tr.get.record(mdata, "simulate_multiome")
    for target in mdata.uns["targets"]["target"]:
        assert tr.datasets.best_true_set(back, target, 2) == tr.datasets.best_true_set(mdata, target, 2)
    np.testing.assert_array_equal(back["atac"].layers["state"].toarray(), dense(mdata))


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"n_obs": 3}, ValueError, "`n_obs` to be at least 4"),
        ({"n_targets": 41}, ValueError, "`n_targets` to be at most `n_genes` = 40, found 41"),
        ({"n_chromosomes": 50}, ValueError, "`n_chromosomes` to be at most"),
        ({"n_peaks": 100}, ValueError, "at least 9 peaks within 500,000 bp of each target, found 2"),
        ({"n_peaks": 40_000}, ValueError, "at most 500 times `n_genes`"),
        ({"kinds": "OR3"}, ValueError, "`kinds` to be one of 'TRAP3'"),
        ({"kinds": []}, ValueError, "at least one kind"),
        ({"dropout": 1.0}, ValueError, "`dropout` to lie in [0, 1)"),
        ({"decoy_correlation": 1.5}, ValueError, "`decoy_correlation` to lie in [0, 1]"),
        ({"dispersion": -1}, ValueError, "`dispersion`"),
        ({"n_obs": 10**8}, ValueError, "The simulated RNA needs"),
    ],
)
def test_bad_arguments(options, error, text):
    with pytest.raises(error) as caught:
        simulate(**options)
    assert text in str(caught.value)


def test_bad_arguments_of_the_truth(large):
    with md.set_options(pull_on_update=False):
        plain = md.MuData({"rna": large["rna"], "atac": large["atac"]})
    with pytest.raises(KeyError, match="datasets.simulate_multiome"):
        tr.datasets.true_log_mean(plain, "gene_0")
    with pytest.raises(ValueError, match="`target` are not in"):
        tr.datasets.true_drop(large, "SOX2", [])
    with pytest.raises(ValueError, match="1 of the `peaks` are not in"):
        tr.datasets.true_drop(large, "gene_0", ["chr9-1-2"])
    with pytest.raises(ValueError, match="`state` to have shape"):
        tr.datasets.true_log_mean(large, "gene_0", state=np.zeros((2, 3)))
    with pytest.raises(ValueError, match="Boolean mask"):
        tr.datasets.true_drop(large, "gene_0", [], cells=np.arange(5))
    with pytest.raises(ValueError, match="chooses no cell"):
        tr.datasets.true_drop(large, "gene_0", [], cells=np.zeros(large.n_obs, dtype=bool))
    with pytest.raises(ValueError, match="`n_peaks` to be at least 1"):
        tr.datasets.best_true_set(large, "gene_0", 0)
