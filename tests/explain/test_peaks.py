"""Objectives of fitted surrogates of both kinds: exact, and of the peaks that may be chosen."""

import numpy as np
import pytest
import torch
from scipy import sparse

from sctrellis import models
from sctrellis.explain import attribute, subset_search
from sctrellis.explain._peaks import candidates, peak_objective

N_CELLS, N_PEAKS, N_GENES = 60, 40, 4
LINKS = {0: [0, 3, 4], 1: [2, 3, 9, 10, 11], 3: [5, 20, 39]}  # gene 2 has none


def data():
    rng = np.random.default_rng(0)
    x = sparse.csr_matrix((rng.random((N_CELLS, N_PEAKS)) < 0.4).astype(np.float32))
    y = sparse.csr_matrix(rng.poisson(2.0, (N_CELLS, N_GENES)).astype(np.float32))
    links = sparse.lil_matrix((N_GENES, N_PEAKS), dtype=np.float32)
    for gene, peaks in LINKS.items():
        links[gene, peaks] = 1
    split = dict(zip(("train", "validation", "test"), np.split(np.arange(N_CELLS), [40, 50]), strict=True))
    return x, y, rng.integers(0, 2, N_CELLS), links.tocsr(), split


@pytest.fixture(params=["cis", "crossmodal"], scope="module")
def translator(request):
    """A surrogate of each kind, fitted for a moment."""
    x, y, groups, links, split = data()
    if request.param == "cis":
        config = models.CisConfig(max_epochs=3, n_hidden=4, batch_size=32)
        size = np.zeros(N_CELLS, np.float32)
        fit = models.fit_cis_translator(x, y, links, groups=groups, log_size=size, split=split, config=config, n_runs=2)
    else:
        small = {"width": 3, "n_block_hidden": 4, "n_latent": 5, "n_maps": 2, "rna_wide": 8, "rna_narrow": 6}
        config = models.CrossmodalConfig(max_epochs=1, batch_size=32, **small)
        fit = models.fit_crossmodal(x, y.log1p(), np.arange(N_PEAKS) % 3, groups=groups, split=split, config=config)
    return models.load_translator({"surrogate": fit.surrogate, "weights": fit.weights})


def built(translator, *, value=0.0, usable=None, limited=True):
    x, _, groups, links, _ = data()
    genes = np.array([0, 1, 3])
    usable = np.ones(N_PEAKS, bool) if usable is None else usable
    chosen = candidates(translator, genes, usable, links if limited else None)
    return peak_objective(translator, x, genes, chosen, groups=groups, value=value), chosen, genes


@pytest.mark.parametrize("value", [0.0, 1.0, 0.3])
def test_moves_equal_the_prediction_from_the_changed_peaks(translator, value):
    objective, chosen, genes = built(translator, value=value)
    x, _, groups, *_ = data()
    sets = torch.tensor([[[0, 2], [1, 2]]] * 3)
    moves = torch.tensor([[[0, 1, 2]] * 2] * 3)
    slot = torch.tensor([[1, 0]] * 3)
    found, swapped = objective.evaluate(sets), objective.swap(sets, slot, moves)
    size = torch.zeros(N_CELLS)

    def predicted(task, members):
        changed = x.toarray()
        changed[:, chosen.peaks[task, members]] = value
        out = translator.predict(sparse.csr_matrix(changed), int(genes[task]), torch.from_numpy(groups), size)
        return float(out.mean())

    for task in range(3):
        for r in range(2):
            members = sets[task, r].tolist()
            assert float(found[task, r]) == pytest.approx(predicted(task, members), abs=1e-5)
            kept = members[1 - int(slot[task, r])]
            for k, new in enumerate(moves[task, r].tolist()):
                if new != kept:
                    assert float(swapped[task, r, k]) == pytest.approx(predicted(task, [kept, new]), abs=1e-5)


def test_candidates_are_linked_usable_and_padded(translator):
    usable = np.ones(N_PEAKS, bool)
    usable[[3, 20]] = False
    _, chosen, _ = built(translator, usable=usable)
    assert chosen.peaks.tolist() == [[0, 4, -1, -1], [2, 9, 10, 11], [5, 39, -1, -1]]
    assert chosen.counts.tolist() == [2, 4, 2]
    _, everything, _ = built(translator, usable=usable, limited=False)
    unlimited = sum(len(LINKS[g]) for g in (0, 1, 3)) - 3 if translator.n_blocks == 1 else 3 * (N_PEAKS - 2)
    assert everything.counts.sum() == unlimited


def test_search_and_scores_run_on_it(translator):
    objective, _, _ = built(translator, limited=False)
    found = subset_search(objective, 2, max_exhaustive=0, n_restarts=2)
    every = subset_search(objective, 2, max_exhaustive=10_000)
    assert every.exhaustive.all()
    assert (every.loss <= found.loss + 1e-6).all()
    assert (attribute(objective, 2, "saliency").loss[:, 0] >= every.loss - 1e-6).all()


def test_training_mode_is_refused(translator):
    translator.train()
    try:
        with pytest.raises(ValueError, match=r"training mode.*`.eval\(\)`"):
            built(translator)
    finally:
        translator.eval()
