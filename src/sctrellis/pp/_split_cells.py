from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sctrellis._core import checks, draws, logs, record, slots
from sctrellis._core.keys import CELL_SPLIT, Keys

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData


def split_cells(
    mdata: "MuData | AnnData",
    groupby: str | None = None,
    *,
    val_frac: float = 0.1,
    test_frac: float = 0.2,
    seed: int | None = 0,
    key_added: str | None = None,
    copy: bool = False,
) -> "MuData | AnnData | None":
    """Divide the cells into training, validation and test, in the same shares within every group; no values are read.

    Everything that is fitted or searched on these cells shares this split, and is reported on the test cells.

    Parameters
    ----------
    mdata
        A MuData or an AnnData.
    groupby
        Column of ``mdata.obs``, or of the ``obs`` of a modality, with the group of each cell. None divides all cells as
        one group.
    val_frac, test_frac
        Shares for validation, in [0, 1), and for testing, in (0, 1).
    seed
        Seed, in [0, 2**32); None draws one and records it.
    key_added
        Key of what is written; None is ``"cell_split"``.
    copy
        Whether to return a copy instead of changing ``mdata``.

    Returns
    -------
    `None`, or the copy if ``copy=True``. Sets:

    ``mdata.obs[key_added]`` : category
        ``"train"``, ``"validation"`` or ``"test"``.
    ``mdata.uns[key_added]`` : dict
        Record; ``counts`` is a table of groups by parts.

    Raises
    ------
    KeyError
        Where there is no such column.
    ValueError
        Where a fraction is out of range, a cell has no group, or no group has the three cells that are needed.

    Notes
    -----
    Draws are keyed by names of cells (sha256) and the seed: the order of the cells does not matter. Shares are rounded
    to whole cells within each group, but a group of at least three cells has one in every part. A smaller group trains
    only, with a warning.

    Examples
    --------
    >>> import sctrellis as tr
    >>> mdata = tr.datasets.simulate_multiome(100)
    >>> tr.pp.split_cells(mdata, "cell_group", test_frac=0.4)
    >>> mdata.uns["cell_split"]["counts"].loc["group_0"].tolist()
    [12, 3, 10]
    """
    params = record.arguments(split_cells, locals())
    keys = Keys.for_method(CELL_SPLIT, key_added)
    if type(mdata).__name__ != "MuData":
        slots.source(mdata)
    test_frac = checks.number("test_frac", test_frac, low=0, high=1, open_low=True, open_high=True)
    val_frac = checks.number("val_frac", val_frac, low=0, high=1, open_high=True)
    if test_frac + val_frac >= 1:
        msg = (
            f"Expected `test_frac` + `val_frac` to be below 1, found {test_frac:g} + {val_frac:g}: nothing is left to "
            "train on."
        )
        raise ValueError(msg)
    used = checks.seed(seed)
    repeated = int(mdata.obs_names.duplicated().sum())
    if repeated:
        msg = f"`mdata.obs_names` has {repeated:,} repeated cells. Make them unique with `obs_names_make_unique()`."
        raise ValueError(msg)
    if groupby is None:
        codes, groups = np.zeros(mdata.n_obs, dtype=np.int64), pd.Index(["all"])
    else:
        codes, groups = pd.factorize(slots.read_obs(mdata, groupby), sort=True)
    if (codes < 0).any():
        msg = (
            f"{int((codes < 0).sum()):,} of {mdata.n_obs:,} cells have no group in `obs[{groupby!r}]`. Drop them, or "
            "give them a group of their own."
        )
        raise ValueError(msg)
    size = np.bincount(codes, minlength=len(groups))
    small = np.flatnonzero(size < 3)
    if len(small) == len(groups):
        msg = f"Expected a group of at least 3 cells to divide, found groups of at most {max(size, default=0)}."
        raise ValueError(msg)
    if len(small):
        checks.warn(
            f"{len(small)} groups of fewer than 3 cells cannot be divided ({checks.some(groups[small])}): their cells "
            "are for training only."
        )
    folds = draws.folds(mdata.obs_names, codes, val_frac, test_frac, used)
    table = pd.crosstab(groups[codes].astype(str), folds, dropna=False).rename_axis(index=None, columns=None)
    table.columns = table.columns.astype(str)
    run = record.build(
        "split_cells",
        mdata,
        params=params,
        seed=used,
        slots={"split": f"obs/{keys.base}"},
        extra={"counts": table.reindex(groups.astype(str))},
    )
    totals = folds.value_counts()
    logs.logger.info("%s", ", ".join(f"{n} {name}" for name, n in totals.items()))
    if copy:
        mdata = mdata.copy()
    logs.added(slots.write(mdata, obs={keys.base: folds}, uns={keys.record: run}))
    return mdata if copy else None
