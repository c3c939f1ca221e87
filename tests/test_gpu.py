"""On a GPU the same is found as on the processor, and its memory is given back. Run with ``-m gpu``."""

import numpy as np
import pytest
import torch
from helpers import accepts, crowded_toy, fit
from planted import plant

import sctrellis as tr
from sctrellis.tl._methods import METHODS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("ignore:The latent means of the genes:UserWarning"),
    # Each target has elements in one of the two groups.
    pytest.mark.filterwarnings("ignore:No set of:UserWarning"),
]
DEVICE = [m for m in METHODS if accepts(m, "device")]


@pytest.fixture(autouse=True)
def _memory_is_given_back():
    torch.ones(64, 64, device="cuda") @ torch.ones(64, 64, device="cuda")  # the libraries' own workspace stays
    before = torch.cuda.memory_allocated()
    yield
    assert torch.cuda.memory_allocated() <= before + 2**20


@pytest.mark.parametrize("method", DEVICE, ids=[m.name for m in DEVICE])
def test_a_network_is_the_same_up_to_what_training_draws(method):
    """Random numbers of the two devices differ, and so do the last digits of sums: ranks may not differ much."""
    here, there = crowded_toy(), crowded_toy()
    fit(method, here, device="cpu")
    fit(method, there, device="cuda")
    one, other = here.varp[method.name], there.varp[method.name]
    assert (one != 0).nnz == pytest.approx((other != 0).nnz, rel=0.02)
    pairs = one.nonzero()
    values = [np.asarray(m[pairs]).ravel() for m in (one, other)]
    ranks = [np.argsort(np.argsort(v)) for v in values]
    assert np.corrcoef(ranks)[0, 1] > 0.8


@pytest.mark.parametrize("method", DEVICE, ids=[m.name for m in DEVICE])
def test_the_same_seed_gives_the_same_network_again(method):
    found = []
    for _ in range(2):
        adata = crowded_toy()
        fit(method, adata, device="cuda")
        found.append(adata.varp[method.name].toarray())
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3, atol=1e-3 * np.abs(found[0]).max())


@pytest.fixture(scope="module")
def planted():
    return plant(tr.datasets.simulate_multiome(500, 480, 12, n_targets=4, n_groups=2, seed=3))


@pytest.mark.parametrize("method", ["grids+", "grids"])
def test_the_search_finds_the_same_sets(planted, method):
    found = {}
    for device in ("cpu", "cuda"):
        mdata = planted.copy()
        targets = list(mdata.uns["targets"]["target"])
        tr.tl.grids(mdata, targets=targets, n_peaks=3, method=method, max_exhaustive=0, device=device, progress=False)
        found[device] = tr.get.record(mdata, "grids")["tasks"].set_index(["target", "group"])
    change = found["cpu"]["search_log_delta"]
    np.testing.assert_allclose(found["cuda"]["search_log_delta"], change, rtol=0.02 if method == "grids" else 1e-4)


@pytest.mark.parametrize("method", ["saliency", "smoothgrad", "greedy", "sage", "fimap", "single_knockout"])
def test_attributions_find_sets_of_the_same_worth(planted, method):
    found = {}
    for device in ("cpu", "cuda"):
        mdata = planted.copy()
        targets = list(mdata.uns["targets"]["target"])
        tr.tl.attribution(mdata, method, targets=targets, n_peaks=3, device=device, progress=False, key_added="found")
        found[device] = tr.get.record(mdata, "found")["tasks"]["search_log_delta"].to_numpy()
    np.testing.assert_allclose(found["cuda"], found["cpu"], rtol=0.1, atol=0.02)


def test_redundancy_is_the_same(planted):
    found = {}
    for device in ("cpu", "cuda"):
        mdata = planted.copy()
        tr.tl.grids(mdata, targets=list(mdata.uns["targets"]["target"]), n_peaks=2, device="cpu", progress=False)
        tr.tl.redundancy(mdata, device=device, progress=False)
        found[device] = tr.get.record(mdata, "grids_redundancy")
    for name, one in found["cpu"].items():
        if hasattr(one, "select_dtypes"):
            there = found["cuda"][name].select_dtypes("number")
            np.testing.assert_allclose(there, one.select_dtypes("number"), rtol=1e-3, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("kind", ["cis", "crossmodal"])
def test_a_surrogate_learns_as_much(kind):
    found = {}
    for device in ("cpu", "cuda"):
        mdata = tr.datasets.simulate_multiome(600, 480, 12, n_targets=4, n_groups=2, seed=3)
        options = {"n_null": 0} if kind == "cis" else {"max_epochs": 30}
        tr.tl.translate(mdata, kind=kind, groupby="cell_group", device=device, progress=False, **options)
        found[device] = tr.get.record(mdata, "translate")["genes"]["r_within"].to_numpy()
    assert abs(np.nanmean(found["cuda"]) - np.nanmean(found["cpu"])) < 0.05


def test_shrinkage_is_the_same_for_the_same_model():
    (method,) = (m for m in METHODS if m.name == "regnet")
    adata = crowded_toy()
    fit(method, adata, device="cpu")
    found = {}
    for device in ("cpu", "cuda"):
        tr.tl.shrinkage(adata, n_boot=10, n_rewired=2, device=device, progress=False, key_added=f"on_{device}")
        columns = [c for c in adata.var if c.startswith(f"on_{device}_")]
        found[device] = adata.var[columns].select_dtypes("number").to_numpy()
    assert found["cpu"].size
    np.testing.assert_allclose(found["cuda"], found["cpu"], rtol=1e-3, atol=1e-4)
