from typing import TYPE_CHECKING, Any

from sctrellis._core import record as _record
from sctrellis._core import slots

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData


def record(adata: "AnnData | MuData", key: str, *, mod: str | None = None) -> dict[str, Any]:
    """Read the record of a run: what was run, on what, with which arguments, and how the fit went.

    Values have plain Python types and are the same before and after h5ad or zarr.

    Parameters
    ----------
    adata
        The AnnData, or a MuData: with ``mod``, or alone where the record is of the MuData itself.
    key
        Name of the record in ``adata.uns``.
    mod
        Modality to use where ``adata`` is a MuData.

    Returns
    -------
    dict
        ``method``, ``versions``, ``params`` (every argument, defaults filled in), ``seed``, ``inputs``, ``slots``, and,
        where there was a fit, ``fit`` and ``history`` (DataFrame, one row per epoch), beside entries of the method's
        own. Changing it does not change ``adata``, except for arrays, which are not copied.

    Raises
    ------
    KeyError
        If there is no such entry in ``adata.uns``.
    ValueError
        If the entry is not a record, or was written by a later version.

    Examples
    --------
    >>> import anndata, numpy as np, sctrellis as tr
    >>> adata = anndata.AnnData(np.ones((3, 2), np.float32))
    >>> adata.uns["net"] = {"schema": 1, "method": "pearson", "seed": np.int64(0)}
    >>> tr.get.record(adata, "net")
    {'schema': 1, 'method': 'pearson', 'seed': 0}
    """
    whole = mod is None and type(adata).__name__ == "MuData" and key in adata.uns
    return _record.read(adata if whole else slots.source(adata, mod), key)
