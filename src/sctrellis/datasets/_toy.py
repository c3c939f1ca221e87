"""A data set small enough for examples and tests."""

from typing import TYPE_CHECKING

from sctrellis._core import slots
from sctrellis.datasets._simulate import simulate_grn

if TYPE_CHECKING:
    from anndata import AnnData


def toy(*, seed: int | None = 0) -> "AnnData":
    """Simulate 60 cells of 30 genes, 6 of them regulators, with a known network and gene embeddings.

    Any method fits it in well under a second. It shows how functions are called, and is too small to compare them.

    Parameters
    ----------
    seed
        Seed of all draws; None draws one and records it. The same seed gives identical results.

    Returns
    -------
    An AnnData as from :func:`simulate_grn`, with

    `adata.X` : float32, shape (60, 30)
        Expression, never negative.
    `adata.var["is_regulator"]` : bool
        Candidate regulators.
    `adata.varp["network"]` : csr_matrix, float32, shape (30, 30)
        Known edges, row = regulator, column = target: all true edges. `adata.varp["truth"]` is the same.
    `adata.varp["truth_effect"]` : csr_matrix, float32, shape (30, 30)
        Their signed effects.
    `adata.varm["embedding"]` : float32, shape (30, 8)
        Gene embeddings that predict edges.

    Raises
    ------
    TypeError, ValueError
        If `seed` is not an integer from 0 to 2**32 - 1.

    Notes
    -----
    The call is ``simulate_grn(60, 30, 6, density=0.15, embedding="informative", n_dims=8)``.

    Examples
    --------
    >>> import sctrellis as tr
    >>> adata = tr.datasets.toy()
    >>> adata.shape
    (60, 30)
    >>> adata.varp["network"].nnz
    26
    """
    adata = simulate_grn(60, 30, 6, density=0.15, embedding="informative", n_dims=8, seed=seed)
    slots.write(adata, varp={"network": adata.varp["truth"].copy()})
    return adata
