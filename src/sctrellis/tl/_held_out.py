from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sctrellis._core import checks, slots
from sctrellis.tl._surrogate import Paired

if TYPE_CHECKING:
    from mudata import MuData


def held_out(
    mdata: "MuData", paired: Paired, search: Mapping[str, Any], surrogate: Mapping[str, Any], group: str
) -> np.ndarray:
    """Return the test cells of a group of a search, at least 2.

    Parameters
    ----------
    mdata, paired
        The data, as they are and as the surrogate reads them.
    search, surrogate
        Records of both; a search has its own groups or those of the surrogate.
    group
        Name of the group.
    """
    groupby = search["params"].get("groupby")
    if groupby is None or groupby == surrogate["params"]["groupby"]:
        labels = np.asarray(paired.group_names, dtype=object)[paired.groups]
    else:
        labels = slots.read_obs(mdata, groupby).astype(str).to_numpy(dtype=object)
    checks.has_slot("groups", group, np.unique(labels).tolist(), "the groups of cells")
    test = paired.split["test"]
    cells = test[labels[test] == group]
    if len(cells) < 2:
        msg = (
            f"Group {group!r} has {len(cells)} held-out cells, and at least 2 are needed. Split again with "
            "`sctrellis.pp.split_cells`."
        )
        raise ValueError(msg)
    return cells
