"""tl.stability: frequencies are counts of refits, halves share no cell, and stable is not the same as true."""

import anndata
import numpy as np
import pandas as pd
import pytest
from helpers import content
from scipy import sparse

import sctrellis as tr
from sctrellis.tl import _stability


@pytest.fixture(scope="module")
def simulated():
    return tr.datasets.simulate_grn(200, 40, 10, density=0.1, seed=0)


@pytest.fixture
def adata(simulated):
    return simulated.copy()


def noise(seed, n_obs=120, n_vars=30):
    rng = np.random.default_rng(seed)
    adata = anndata.AnnData(rng.gamma(2.0, size=(n_obs, n_vars)).astype(np.float32))
    adata.var["is_regulator"] = np.arange(n_vars) < 10
    return adata


def stubborn(adata, *, key_added):
    """Score pairs by position, whatever the cells say."""
    scores = np.zeros((adata.n_vars, adata.n_vars), np.float32)
    scores[:10] = np.arange(10 * adata.n_vars).reshape(10, -1) + 1
    adata.varp[key_added] = sparse.csr_matrix(scores)


def drawn(adata, *, seed, key_added):
    """Score pairs at random."""
    scores = np.zeros((adata.n_vars, adata.n_vars), np.float32)
    scores[:10] = np.random.default_rng([seed, adata.n_obs, int(abs(adata.X[0, 0]) * 1e6)]).random((10, adata.n_vars))
    adata.varp[key_added] = sparse.csr_matrix(scores)


def record_of(adata, key="stability"):
    return tr.get.record(adata, key)


def test_frequencies_are_counts_of_refits_on_the_halves(adata):
    tr.tl.stability(adata, "pearson", n=3, n_top=12, seed=5, progress=False)
    counts = np.zeros((adata.n_vars,) * 2)
    for cells in _stability._halves(adata, 3, None, 5):
        half = adata[cells].copy()
        tr.tl.baseline(half, "pearson")
        edges = tr.get.edges(half, "pearson")
        edges = edges[edges["source"] != edges["target"]].head(12)
        place = [adata.var_names.get_indexer(edges[name]) for name in ("source", "target")]
        counts[tuple(place)] += 1
    np.testing.assert_allclose(adata.varp["stability_frequency"].toarray(), counts / 6, rtol=1e-6)


def test_halves_share_no_cell_and_donors_are_not_split(adata):
    adata.obs["donor"] = pd.Categorical(np.arange(adata.n_obs) % 7)
    for batch_key in (None, "donor"):
        halves = _stability._halves(adata, 4, batch_key, 0)
        assert len(halves) == 8
        for one, other in zip(halves[::2], halves[1::2], strict=True):
            assert not set(one) & set(other)
            if batch_key is None:
                assert len(one) == len(other) == adata.n_obs // 2
            else:
                donors = adata.obs["donor"].to_numpy()
                assert not set(donors[one]) & set(donors[other])
                assert len(set(donors[one])) == len(set(donors[other])) == 3


def test_a_method_that_ignores_the_cells_is_perfectly_stable(adata):
    tr.tl.stability(adata, stubborn, n=3, n_top=20, progress=False)
    record = record_of(adata)
    assert set(adata.varp["stability_frequency"].data) == {1.0}
    assert record["agreement"]["jaccard"].tolist() == [1.0] * 3
    assert "UNSTABLE" not in record["words"]


def test_a_method_that_draws_agrees_as_chance_has_it():
    adata = noise(0)
    tr.tl.stability(adata, drawn, n=100, n_top=60, progress=False)
    record = record_of(adata)
    agreement = record["agreement"]
    mean, se = agreement["jaccard"].mean(), agreement["jaccard"].std() / 10
    assert mean == pytest.approx(agreement["chance"].iloc[0], abs=4 * se + 0.003)
    assert record["words"].startswith("UNSTABLE: ")


def test_on_noise_edges_above_a_threshold_are_no_more_than_the_bound():
    """Every pair is alike in noise, and selected with the probability of a blind choice: the bound counts them all."""
    kept = []
    for seed in range(20):
        adata = noise(seed)
        tr.tl.stability(adata, "pearson", n=10, n_top=29, seed=seed, progress=False)
        selected = record_of(adata)["selected"].set_index("threshold")
        kept.append(selected["n_edges"])
    kept = pd.concat(kept, axis=1).T
    for threshold in (0.7, 0.9):
        mean, se = kept[threshold].mean(), kept[threshold].std() / 20**0.5
        assert mean <= selected.loc[threshold, "bound"] + 3 * se
        assert mean <= selected.loc[threshold, "bound_unimodal"] + 3 * se


def test_planted_edges_are_selected_more_often_than_others(adata):
    tr.tl.stability(adata, "ridge", n=5, n_top=40, progress=False)
    frequency, truth = adata.varp["stability_frequency"].toarray(), adata.varp["truth"].toarray() > 0
    candidates = adata.var["is_regulator"].to_numpy()
    assert frequency[candidates][truth[candidates]].mean() > 5 * frequency[candidates][~truth[candidates]].mean()


def test_a_classifier_learns_from_the_train_fold_alone(adata):
    adata.varp["network"] = adata.varp["truth"]
    tr.pp.split_edges(adata, scheme="edge", seed=0)
    tr.tl.stability(adata, "degree", n=2, n_top=10, progress=False)
    tr.tl.baseline(adata, "degree", network="network")
    best = tr.get.edges(adata, "degree").query("source != target").head(10)
    frequency = adata.varp["stability_frequency"]
    assert frequency.sum() == 10  # degrees do not depend on the cells
    cut = best["score"].min()
    place = [adata.var_names[i] for i in frequency.nonzero()[0]], [adata.var_names[i] for i in frequency.nonzero()[1]]
    scores = tr.get.edges(adata, "degree").set_index(["source", "target"])["score"]
    assert min(scores[pair] for pair in zip(*place, strict=True)) == cut


def test_seeds_change_nothing_for_a_method_without_chance(adata):
    tr.tl.stability(adata, "pearson", scheme="seeds", n=3, progress=False)
    record = record_of(adata)
    assert record["agreement"]["jaccard"].tolist() == [1.0, 1.0]
    assert "bound" not in record["selected"]


def test_workers_change_nothing_and_the_seed_does(adata):
    runs = [
        tr.tl.stability(adata, "pearson", n=3, progress=False, copy=True, **given)
        for given in ({}, {"n_jobs": 2}, {"seed": 9})
    ]
    one, two, other = (run.varp["stability_frequency"].toarray() for run in runs)
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()


def test_only_slots_that_are_named_appear(adata):
    before = content(adata)
    tr.tl.stability(adata, "pearson", n=2, progress=False, key_added="again")
    after = content(adata)
    assert set(after) - set(before) == {"varp/again_frequency", "uns/again"}
    assert all(after[slot] == before[slot] for slot in before)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"method": "magic"}, ValueError, "magic"),
        ({"scheme": "thirds"}, ValueError, "`scheme`"),
        ({"n": 1}, ValueError, "`n`"),
        ({"n_top": 0}, ValueError, "`n_top`"),
        ({"batch_key": "absent"}, KeyError, "absent"),
        ({"batch_key": "one"}, ValueError, "one value only"),
        ({"batch_key": "holes"}, ValueError, "no value for 3 cells"),
        ({"batch_key": "one", "scheme": "seeds"}, ValueError, "`batch_key='one'`"),
        ({"options": {"unknown": 1}}, TypeError, "unknown"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(adata, changes, error, words):
    adata.obs["one"] = "a"
    adata.obs["holes"] = pd.Series(["a", "b"] * 100, index=adata.obs_names).where(np.arange(200) > 2)
    before = content(adata)
    with pytest.raises(error, match=words):
        tr.tl.stability(adata, **{"method": "pearson", "n": 2, "progress": False, **changes})
    assert content(adata) == before


def test_too_few_cells_to_halve(adata):
    with pytest.raises(ValueError, match="Half of the cells are 7"):
        tr.tl.stability(adata[:15].copy(), "pearson", n=2, progress=False)
