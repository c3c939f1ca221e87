"""Both surrogates: the additive first layer, equal to a dense forward pass; gradients; what is never allocated."""

import numpy as np
import pytest
import torch
from scipy import sparse
from torch.utils._python_dispatch import TorchDispatchMode

from sctrellis import models
from sctrellis.models import _translator

N_CELLS, N_PEAKS, N_GENES, N_GROUPS = 90, 40, 6, 2
LINKS = {0: [0, 3, 4], 1: [2, 3, 9, 10, 11], 3: [20], 4: [5, 30, 39]}  # genes 2 and 5 have none


def data(seed=0):
    """Return accessibility, counts, groups, links and a split."""
    rng = np.random.default_rng(seed)
    x = sparse.csr_matrix((rng.random((N_CELLS, N_PEAKS)) < 0.4).astype(np.float32))
    y = sparse.csr_matrix(rng.poisson(2.0, (N_CELLS, N_GENES)).astype(np.float32))
    links = sparse.lil_matrix((N_GENES, N_PEAKS), dtype=np.float32)
    for gene, peaks in LINKS.items():
        links[gene, peaks] = 1
    split = dict(zip(("train", "validation", "test"), np.split(np.arange(N_CELLS), [60, 75]), strict=True))
    return x, y, rng.integers(0, N_GROUPS, N_CELLS), links.tocsr(), split


def fit_cis(seed=0, **options):
    x, y, groups, links, split = data()
    config = models.CisConfig(max_epochs=3, n_hidden=4, batch_size=32)
    log_size = np.linspace(-1, 1, N_CELLS).astype(np.float32)
    cells = {"groups": groups, "log_size": log_size, "split": split}
    return models.fit_cis_translator(x, y, links, **cells, config=config, seed=seed, device="cpu", **options)


def fit_crossmodal(seed=0, pairing="paired"):
    x, y, groups, _, split = data()
    config = models.CrossmodalConfig(
        max_epochs=2, width=3, n_block_hidden=4, n_latent=5, n_maps=2, rna_wide=8, rna_narrow=6, batch_size=32,
        pairing=pairing,
    )  # fmt: skip
    block = np.arange(N_PEAKS) % 3  # chromosomes mixed in the order of peaks
    cells = {"groups": groups, "split": split}
    return models.fit_crossmodal(x, y.log1p(), block, **cells, config=config, seed=seed, device="cpu")


def loaded(fit):
    return models.load_translator({"surrogate": fit.surrogate, "weights": fit.weights})


@pytest.fixture(params=["cis", "crossmodal"], scope="module")
def translator(request):
    """A fitted surrogate of each kind."""
    return loaded(fit_cis(n_runs=2) if request.param == "cis" else fit_crossmodal())


def arguments(dtype=torch.float32):
    x, _, groups, *_ = data()
    log_size = torch.linspace(-1, 1, N_CELLS, dtype=dtype)
    return x, torch.from_numpy(groups), log_size


def dense_cis(translator, x, g, groups, log_size):
    """Evaluate the formula of the cis surrogate from its weights, with a dense matrix and a loop over peaks."""
    row = translator.genes.tolist().index(g)
    start, stop = translator.indptr[row : row + 2].tolist()
    hidden = translator.bias[row].repeat(len(x), 1)
    for link in range(start, stop):
        hidden = hidden + x[:, translator.peaks[link], None] * translator.effect[link]
    return translator.intercept[row][groups] + log_size + (hidden.clamp(min=0) * translator.output[row]).sum(1)


def dense_crossmodal(translator, x, g):
    """Evaluate the crossmodal surrogate layer by layer on a dense matrix, without any of its own forward functions."""
    state = {name: value.to(x) for name, value in translator.network.state_dict().items()}
    block = translator.network.atac.block

    def activated(values, name):
        mean, variance = state[f"{name}.norm.running_mean"], state[f"{name}.norm.running_var"]
        scaled = (values - mean) / torch.sqrt(variance + 1e-5)
        scaled = scaled * state[f"{name}.norm.weight"] + state[f"{name}.norm.bias"]
        return torch.where(scaled > 0, scaled, scaled * state[f"{name}.slope.weight"])

    def affine(values, name):
        return values @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    one_hot = torch.nn.functional.one_hot(block).to(x)
    pooled = torch.einsum("np,pk,pw->nkw", x, one_hot, state["atac.effect"]) + state["atac.bias"]
    hidden = activated(pooled.flatten(1), "atac.before").view(pooled.shape)
    hidden = torch.stack([hidden[:, k] @ state["atac.widen.weight"][k] for k in range(hidden.shape[1])], 1)
    hidden = activated((hidden + state["atac.widen.bias"]).flatten(1), "atac.after")
    code = affine(affine(hidden, "atac.code.0"), "atac.code.1")
    share = torch.softmax(affine(affine(code, "to_rna.gate.0").clamp(min=0), "to_rna.gate.2"), 1)
    for i in range(3):
        maps = torch.einsum("nm,mij->nij", share, state["to_rna.map"][i])
        code = (maps @ code[:, :, None])[:, :, 0] + share @ state["to_rna.shift"][i]
        if i < 2:
            code = torch.where(code > 0, code, code * state[f"to_rna.slope.{i}.weight"])
    hidden = activated(affine(code, "rna.spread.0"), "rna.spread.1")
    hidden = activated(affine(hidden, "rna.spread.2"), "rna.spread.3")
    return affine(hidden, "rna.out")[:, translator.genes.tolist().index(g)]


def dense(translator, x, g, groups, log_size):
    if isinstance(translator, models.CisTranslator):
        return dense_cis(translator, x, g, groups, log_size)
    return dense_crossmodal(translator, x, g)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("value", [0.0, 1.0, 0.3])
def test_moving_the_first_layer_equals_a_dense_forward_pass(translator, value, dtype, tolerance):
    translator = loaded_copy(translator).to(dtype)
    x, groups, log_size = arguments(dtype)
    generator = np.random.default_rng(1)
    for g in LINKS:
        found = translator.effects(g)
        chosen = torch.from_numpy(generator.permutation(len(found.peaks))[:4])
        peaks = found.peaks[chosen]
        changed = torch.from_numpy(x.toarray()).to(dtype)
        before = changed[:, peaks].clone()
        changed[:, peaks] = value
        pre = translator.pre_activation(x, g)
        for i, j in enumerate(chosen):
            pre[:, found.block[j]] += (value - before[:, i, None]) * found.effect[j]
        moved = translator.head(pre, g, groups, log_size)
        again = translator.predict(sparse.csr_matrix(changed.numpy()), g, groups, log_size)
        expected = dense(translator, changed, g, groups, log_size)
        assert (moved - expected).abs().max() <= tolerance
        assert (again - expected).abs().max() <= tolerance


def loaded_copy(translator):
    import copy

    return copy.deepcopy(translator)


def test_several_genes_equal_one_at_a_time(translator):
    x, groups, log_size = arguments()
    several = torch.tensor([4, 0, 1])
    found = translator.effects(several)
    pre = translator.pre_activation(x, several)
    together = translator.head(pre, several, groups, log_size)
    sets = translator.head(torch.stack([pre, 2 * pre], dim=1), several, groups, log_size)
    for i, g in enumerate(several.tolist()):
        alone = translator.effects(g)
        n = len(alone.peaks)
        torch.testing.assert_close(found.peaks[i, :n], alone.peaks)
        assert (found.peaks[i, n:] == -1).all()
        torch.testing.assert_close(found.effect[i, :n], alone.effect)
        assert not found.effect[i, n:].any()
        torch.testing.assert_close(together[i], translator.predict(x, g, groups, log_size))
        torch.testing.assert_close(sets[i, 1], translator.head(2 * pre[i], g, groups, log_size))
    everything = translator.predict_all(x, groups.numpy(), log_size.numpy())
    column = translator.genes.tolist().index(4)
    np.testing.assert_allclose(everything[:, column], together[0].numpy(), atol=1e-5)


def test_gradients_of_the_head_equal_finite_differences(translator):
    translator = loaded_copy(translator).double()
    x, groups, log_size = arguments(torch.float64)
    pre = translator.pre_activation(x[:4], 1).requires_grad_()
    torch.autograd.gradcheck(lambda p: translator.head(p, 1, groups[:4], log_size[:4]), (pre,))


def test_what_was_not_fitted_is_refused(translator):
    x, groups, log_size = arguments()
    with pytest.raises(ValueError, match="Gene 99 was not fitted"):
        translator.effects(99)
    with pytest.raises(ValueError, match=f"the {N_PEAKS} peaks of the fit, found 3"):
        translator.pre_activation(x[:, :3], 0)
    if isinstance(translator, models.CisTranslator):
        with pytest.raises(ValueError, match="Gene 2 was not fitted"):  # it has no peak
            translator.predict(x, 2, groups, log_size)


def test_training_mode_is_refused():
    translator = loaded(fit_crossmodal())
    x, groups, log_size = arguments()
    translator.train()
    with pytest.raises(ValueError, match="training mode"):
        translator.predict(x, 0, groups, log_size)


def test_a_record_of_something_else_is_refused():
    with pytest.raises(ValueError, match="record of 'grids' holds no fitted surrogate"):
        models.load_translator({"method": "grids"})


class _Largest(TorchDispatchMode):
    """Remember every shape that an operation returns."""

    def __init__(self):
        super().__init__()
        self.shapes = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else [out]:
            if isinstance(value, torch.Tensor):
                self.shapes.add(tuple(value.shape))
        return out


@pytest.mark.parametrize("fit", [fit_cis, fit_crossmodal])
def test_nothing_of_cells_by_peaks_is_dense(fit, monkeypatch):
    def refuse(self, *args, **kwargs):
        assert self.shape[1] != N_PEAKS, "the accessibility was made dense"
        return original(self, *args, **kwargs)

    original = sparse.csr_matrix.toarray
    monkeypatch.setattr(sparse.csr_matrix, "toarray", refuse)
    with _Largest() as seen:
        translator = loaded(fit())
        x, groups, log_size = arguments()
        translator.predict(x, 0, groups, log_size)
    assert seen.shapes
    assert not [shape for shape in seen.shapes if N_PEAKS in shape and set(shape) & {N_CELLS, 60, 32, 28, 15}]


def test_bag_sums_are_a_product():
    rng = np.random.default_rng(0)
    x = sparse.random(7, 9, 0.5, "csr", dtype=np.float32, rng=rng)
    table = torch.from_numpy(rng.normal(size=(9, 3)).astype(np.float32))
    bag = np.array([0, 0, 0, 2, 2, 3, 3, 3, 3])  # bag 1 is empty
    found = _translator.bag_sums(x, table, bag, 4)
    for k in range(4):
        np.testing.assert_allclose(found[:, k], x[:, bag == k].toarray() @ table.numpy()[bag == k], atol=1e-6)


def test_batches_of_cells():
    batches = _translator.CellBatches(np.arange(10, 31), 5, 3)
    one, other = (list(batches.epoch(epoch)) for epoch in (0, 1))
    assert [len(b) for b in one] == [5, 5, 5, 5]  # a single cell left over is no batch
    assert not torch.equal(one[0], other[0])
    assert torch.equal(one[0], next(batches.epoch(0)))
    assert set(torch.cat(one).tolist()) <= set(range(10, 31))
    assert len(_translator.CellBatches(np.arange(100), 5, max_batches=3)) == 3
