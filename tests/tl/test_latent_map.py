import numpy as np
import pytest
from helpers import content

import sctrellis as tr

# A model this small and short may be flat; what it says does not matter here.
pytestmark = pytest.mark.filterwarnings("ignore:The latent means of the genes use")


def fitted():
    adata = tr.datasets.toy()
    tr.pp.split_edges(adata, "network")
    tr.tl.regnet(adata, network="network", max_epochs=1, hidden=16, latent=16)
    return adata


@pytest.mark.slow
def test_near_genes_stay_near_and_equal_seeds_give_equal_maps():
    adata = fitted()
    before, state = content(adata), np.random.get_state()[1].tolist()  # noqa: NPY002
    tr.tl.latent_map(adata)
    assert np.random.get_state()[1].tolist() == state  # noqa: NPY002
    after = content(adata)
    added = {"varm/X_regnet_umap", "varm/X_regnet_expression_umap", "uns/regnet_latent_map"}
    assert set(after) - set(before) == added
    for name, values in (("umap", adata.varm["X_regnet"]), ("expression_umap", None)):
        points = adata.varm[f"X_regnet_{name}"]
        assert points.shape == (adata.n_vars, 2)
        assert np.isfinite(points).all()
        if values is not None:
            far = np.linalg.norm(values[:, None] - values[None], axis=-1)
            drawn = np.linalg.norm(points[:, None] - points[None], axis=-1)
            upper = np.triu_indices(len(far), 1)
            assert np.corrcoef(far[upper], drawn[upper])[0, 1] > 0.3
    again = fitted()
    tr.tl.latent_map(again)
    assert content(again) == after


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"key": "nothing"}, KeyError, "'nothing' not found in `adata.uns`"),
        ({"key": "network_fold"}, ValueError, "one of 'regnet' or 'regnet_finetune' is needed"),
        ({"n_neighbors": 1}, ValueError, "Expected `n_neighbors` to be at least 2, found 1"),
        ({"min_dist": 2}, ValueError, "Expected `min_dist` to lie in"),
    ],
)
def test_bad_input(options, error, message):
    adata = fitted()
    before = content(adata)
    with pytest.raises(error, match=message):
        tr.tl.latent_map(adata, **options)
    assert content(adata) == before
