"""Read what `tl.redundancy` stored."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pandas as pd

from sctrellis._core import record
from sctrellis._core import sets as _sets

if TYPE_CHECKING:
    from mudata import MuData

TABLES = ("tasks", "elements", "pairs", "expression")


@dataclass(frozen=True)
class Redundancy:
    """Tables of a run; ``sign`` is -1 where sets are meant to lower expression."""

    key: str
    sign: int
    tasks: pd.DataFrame
    elements: pd.DataFrame
    pairs: pd.DataFrame
    expression: pd.DataFrame

    def one(self, target: str | None, group: str | None) -> "Redundancy":
        """Return the tables of the one set of a target in a group."""
        task = _sets.ElementSets(self.key, {}, self.tasks, self.tasks).one(target, group).tasks.iloc[0]
        part = {}
        for name in TABLES:
            table = getattr(self, name)
            if len(table):
                table = table[(table["target"] == task["target"]) & (table["group"] == task["group"])]
            part[name] = table.reset_index(drop=True)
        return replace(self, **part)


def read(mdata: "MuData", key: str) -> Redundancy:
    """Return the tables at ``mdata.uns[key + "_redundancy"]``."""
    key = f"{key}_redundancy"
    entry = record.read(mdata, key)
    if entry.get("method") != "redundancy":
        msg = (
            f"`mdata.uns[{key!r}]` is the record of {entry.get('method')!r}, not of `sctrellis.tl.redundancy`. Run it "
            "on the search first."
        )
        raise ValueError(msg)
    empty = pd.DataFrame()
    return Redundancy(key, int(entry["sign"]), **{name: _sets.plain(entry.get(name, empty)) for name in TABLES})
