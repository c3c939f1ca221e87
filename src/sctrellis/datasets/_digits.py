"""Handwritten digits: a search for sets of inputs that anybody can judge by eye."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sctrellis._core import checks, draws, record, slots
from sctrellis._core.keys import CELL_SPLIT

if TYPE_CHECKING:
    from anndata import AnnData


def digits_demo(*, seed: int | None = 0) -> "AnnData":
    """Read the handwritten eights and threes that come with scikit-learn, divided for training and testing.

    Which few pixels of an eight must go for a classifier to see a three? The answer can be judged by eye. Needs no
    network.

    Parameters
    ----------
    seed
        Seed of the split; None draws one and records it. The same seed gives identical results.

    Returns
    -------
    An AnnData of 357 images as rows and 64 pixels as columns, named ``pixel_0_0`` (row, column), …, with

    `adata.X` : float32, shape (357, 64)
        Brightness in [0, 1].
    `adata.obs["digit"]` : category
        ``"3"`` or ``"8"``.
    `adata.obs["cell_split"]` : category
        64 % ``"train"``, 16 % ``"validation"``, 20 % ``"test"``, of each digit.
    `adata.var` : DataFrame
        `row` and `column` of each pixel, from 0 to 7.
    `adata.uns["digits_demo"]` : dict
        The record: seed.

    Raises
    ------
    TypeError, ValueError
        If `seed` is not an integer from 0 to 2**32 - 1.

    Examples
    --------
    >>> import sctrellis as tr
    >>> adata = tr.datasets.digits_demo()
    >>> adata.obs["digit"].value_counts().to_dict()
    {'3': 183, '8': 174}
    """
    params = record.arguments(digits_demo, locals())
    from anndata import AnnData
    from sklearn.datasets import load_digits

    seed = checks.seed(seed)
    images, labels = load_digits(return_X_y=True)
    chosen = np.flatnonzero(np.isin(labels, (3, 8)))
    names = [f"image_{i}" for i in chosen]
    is_eight = (labels[chosen] == 8).astype(np.int64)
    row, column = np.divmod(np.arange(64), 8)
    adata = AnnData(
        (images[chosen] / 16).astype(np.float32),
        obs=pd.DataFrame({"digit": pd.Categorical(np.array(["3", "8"], dtype=object)[is_eight])}, index=names),
        var=pd.DataFrame(
            {"row": row, "column": column}, index=[f"pixel_{r}_{c}" for r, c in zip(row, column, strict=True)]
        ),
    )
    run = record.build("digits_demo", adata, params=params, seed=seed, slots={"split": f"obs/{CELL_SPLIT}"})
    folds = draws.folds(names, is_eight, 0.16, 0.2, seed)
    slots.write(adata, obs={CELL_SPLIT: folds}, uns={"digits_demo": run})
    return adata
