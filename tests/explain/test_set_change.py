import numpy as np
import pytest
import torch
from scipy import sparse

from sctrellis.explain import SetChange
from sctrellis.models import load_translator
from sctrellis.models._translator import Effects, Translator

N_CELLS, N_PEAKS = 20, 12


def cis(seed=0):
    """Return a small cis surrogate of gene 3, which peaks 1, 4, 5, 8 and 11 can act on, in two groups."""
    rng = np.random.default_rng(seed)
    weights = {
        "genes": np.array([3]),
        "indptr": np.array([0, 5]),
        "peaks": np.array([1, 4, 5, 8, 11]),
        "effect": rng.normal(size=(5, 6)).astype(np.float32),
        "bias": rng.normal(size=(1, 6)).astype(np.float32),
        "output": rng.normal(size=(1, 6)).astype(np.float32),
        "intercept": rng.normal(size=(1, 2)).astype(np.float32),
    }
    return load_translator({"surrogate": {"kind": "cis", "n_peaks": N_PEAKS, "likelihood": "nb"}, "weights": weights})


class Blocks(Translator):
    """A surrogate with three blocks, as one with a network per chromosome has."""

    n_peaks, n_blocks, width = N_PEAKS, 3, 4

    def __init__(self):
        super().__init__()
        stream = torch.Generator().manual_seed(0)
        self.genes = torch.arange(5)
        self.block = torch.arange(N_PEAKS) % 3
        self.vectors = torch.randn(N_PEAKS, 4, generator=stream)
        self.outer = torch.randn(12, generator=stream)
        self.eval()

    def effects(self, g):
        parts = torch.arange(N_PEAKS), self.vectors, self.block
        return Effects(*(part.expand(*torch.as_tensor(g).shape, *part.shape) for part in parts))

    def pre_activation(self, x, g):
        dense = torch.as_tensor(x.toarray(), dtype=torch.float32)
        pre = torch.stack([dense[:, self.block == k] @ self.vectors[self.block == k] for k in range(3)], dim=1)
        return pre.expand(*torch.as_tensor(g).shape, *pre.shape)

    def head(self, pre, g, groups, log_size):
        return torch.tanh(pre).flatten(-2) @ self.outer + 0.1 * groups + log_size


def data(seed=1):
    rng = np.random.default_rng(seed)
    x = (rng.random((N_CELLS, N_PEAKS)) < 0.5).astype(np.float32)
    return x, rng.integers(0, 2, N_CELLS)


@pytest.mark.parametrize("make", [cis, Blocks])
@pytest.mark.parametrize("value", [0.0, 1.0, 0.3])
def test_every_part_of_the_set_against_the_whole_model(make, value):
    translator = make()
    x, groups = data()
    peaks = [8, 1, 5]
    change = SetChange(translator, 3, sparse.csr_matrix(x), groups=groups, peaks=peaks, value=value)
    of_cell = torch.as_tensor(groups), torch.zeros(N_CELLS)
    before = translator.predict(sparse.csr_matrix(x), 3, *of_cell)
    np.testing.assert_allclose(change.before, before, atol=1e-6)
    masks = (np.arange(8)[:, None] >> np.arange(3) & 1).astype(bool)
    found = change(masks)
    for mask, row in zip(masks, found, strict=True):
        moved = x.copy()
        moved[:, np.array(peaks)[mask]] = value
        expected = translator.predict(sparse.csr_matrix(moved), 3, *of_cell) - before
        np.testing.assert_allclose(row, expected, atol=1e-5)


def test_a_peak_that_cannot_act_changes_nothing():
    x, groups = data()
    change = SetChange(cis(), 3, sparse.csr_matrix(x), groups=groups, peaks=[0, 4, 9])
    found = change(np.array([[True, False, True], [False, True, False], [True, True, True]]))
    np.testing.assert_array_equal(found[0], 0)
    np.testing.assert_allclose(found[1], found[2], atol=1e-6)
    assert np.abs(found[1]).max() > 0.1


def test_many_sets_are_evaluated_in_parts(monkeypatch):
    from sctrellis.explain import _set_change

    x, groups = data()
    change = SetChange(cis(), 3, sparse.csr_matrix(x), groups=groups, peaks=[1, 4])
    masks = np.random.default_rng(0).random((30, 2)) < 0.5
    expected = change(masks)
    monkeypatch.setattr(_set_change, "_CHUNK", 1)
    np.testing.assert_allclose(change(masks), expected, atol=1e-6)


def test_a_model_in_training_mode_is_refused():
    x, groups = data()
    translator = cis().train()
    with pytest.raises(ValueError, match=r"training mode.*eval\(\)"):
        SetChange(translator, 3, sparse.csr_matrix(x), groups=groups, peaks=[1])
