from typing import TYPE_CHECKING

import numpy as np

from sctrellis._core import checks, logs, record, slots
from sctrellis._core.keys import Keys
from sctrellis.tl._fitted_regnet import read_regnet

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData


def latent_map(
    adata: "AnnData | MuData",
    key: str = "regnet",
    *,
    n_neighbors: int = 15,
    min_dist: float = 0.5,
    seed: int | None = 0,
    mod: str | None = None,
    key_added: str | None = None,
    copy: bool = False,
) -> "AnnData | MuData | None":
    """Lay out the genes in two dimensions, by their latent vectors and by their expression.

    Parameters
    ----------
    adata
        The AnnData that :func:`sctrellis.tl.regnet` or :func:`sctrellis.tl.regnet_finetune` was run on; a MuData with
        ``mod``.
    key
        Key of that run in ``adata.uns``.
    n_neighbors
        Nearest genes that the layout keeps near; fewer where there are fewer genes.
    min_dist
        Smallest distance between points.
    seed
        Seed of the layout, in [0, 2**32); None draws one and records it.
    mod
        Modality to use where ``adata`` is a MuData.
    key_added
        Base of the slots' names; None is `key`.
    copy
        Return a copy with the result instead of writing to ``adata``.

    Returns
    -------
    `None`, or the copy if ``copy=True``. Sets:

    ``adata.varm["X_" + key_added + "_umap"]`` : float32, shape (n_vars, 2)
        UMAP of the latent means.
    ``adata.varm["X_" + key_added + "_expression_umap"]`` : float32, shape (n_vars, 2)
        UMAP of the features that the model reads: coordinates of the standardised profiles on principal axes.
    ``adata.uns[key_added + "_latent_map"]`` : dict
        Record of the run.

    Raises
    ------
    KeyError
        If there is no such record or modality.
    ValueError
        If the record is of another method or of other genes, or a setting is out of range.

    Notes
    -----
    UMAP draws clusters into latent vectors that lie on a line, too: look at the participation ratio in the record of
    the model (``fit``) before reading distances.

    References
    ----------
    UMAP: :cite:p:`mcinnes2018umap`, as in scanpy.

    Examples
    --------
    >>> import sctrellis as tr
    >>> adata = tr.datasets.toy()
    >>> tr.pp.split_edges(adata, "network")
    >>> tr.tl.regnet(adata, network="network", max_epochs=1)
    >>> tr.tl.latent_map(adata)  # doctest: +SKIP
    >>> adata.varm["X_regnet_umap"].shape  # doctest: +SKIP
    (30, 2)
    """
    values = locals()
    checks.integer("n_neighbors", n_neighbors, minimum=2)
    checks.number("min_dist", min_dist, low=0, high=1)
    seed = checks.seed(seed)
    root, ad = slots.target(adata, copy=copy, mod=mod)
    _, model = read_regnet(ad, key)
    keys = Keys.for_method(key, key_added)
    latent = slots.read_embedding(ad, Keys(key).latent)
    features = model.features.numpy()
    maps = {
        keys.latent_map: _umap(latent, n_neighbors, min_dist, seed),
        keys.expression_map: _umap(features, n_neighbors, min_dist, seed),
    }
    slot = keys.of_genes("latent_map")
    entry = record.build(
        "latent_map",
        ad,
        params=record.arguments(latent_map, values),
        seed=seed,
        slots=dict(zip(("latent", "expression"), (f"varm/{name}" for name in maps), strict=True)),
        extra={"model": key},
    )
    logs.added(slots.write(ad, varm=maps, uns={slot: entry}))
    return root if copy else None


def _umap(values: np.ndarray, n_neighbors: int, min_dist: float, seed: int) -> np.ndarray:
    import scanpy as sc
    from anndata import AnnData

    genes = AnnData(values)
    sc.pp.neighbors(genes, n_neighbors=min(n_neighbors, len(values) - 1), use_rep="X", random_state=seed)
    sc.tl.umap(genes, min_dist=min_dist, random_state=seed)
    return np.asarray(genes.obsm["X_umap"], dtype=np.float32)
