"""toy: small, complete, always the same."""

import anndata
import numpy as np
import pytest

import sctrellis as tr


def test_toy_is_deterministic_and_seeded():
    first, second, other = tr.datasets.toy(), tr.datasets.toy(), tr.datasets.toy(seed=1)
    assert first.X.tobytes() == second.X.tobytes() != other.X.tobytes()
    assert first.varm["embedding"].tobytes() == second.varm["embedding"].tobytes()


def test_toy_has_what_every_method_reads():
    from sctrellis._core import slots

    adata = tr.datasets.toy()
    assert slots.read_matrix(adata).shape == (60, 30)
    regulators = slots.read_regulators(adata)
    assert regulators.sum() == 6
    network = slots.read_network(adata, "network")
    assert (network != slots.read_network(adata, "truth")).nnz == 0
    assert network is not adata.varp["truth"]
    assert set(np.unique(network.nonzero()[0])) <= set(np.flatnonzero(regulators))
    # Enough edges, and enough regulators with edges, to hold some out.
    assert len(np.unique(network.nonzero()[0])) >= 4
    assert np.isfinite(slots.read_embedding(adata, "embedding")).all()


def test_changing_one_network_leaves_the_other():
    adata = tr.datasets.toy()
    adata.varp["network"].data[:] = 7
    assert (adata.varp["truth"].data == 1).all()


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_toy_round_trip(tmp_path, form):
    adata = tr.datasets.toy()
    path = tmp_path / f"toy.{form}"
    getattr(adata, f"write_{form}")(path)
    again = getattr(anndata, f"read_{form}")(path)
    np.testing.assert_array_equal(adata.X, again.X)
    assert (adata.varp["network"] != again.varp["network"]).nnz == 0


def test_bad_seed():
    with pytest.raises(TypeError, match="`seed` to be an integer"):
        tr.datasets.toy(seed="a")
