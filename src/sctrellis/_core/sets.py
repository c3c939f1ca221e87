"""Read the element sets that a search stored."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from sctrellis._core import checks, record


@dataclass(frozen=True)
class ElementSets:
    """Element sets of a run: `sets` has a row per selected peak, `tasks` one per set."""

    key: str
    record: dict[str, Any]
    sets: pd.DataFrame
    tasks: pd.DataFrame

    def only(
        self, targets: str | Sequence[str] | None = None, groups: str | Sequence[str] | None = None
    ) -> "ElementSets":
        """Return the sets of some targets and groups; raises where there are none."""
        sets, tasks = self.sets, self.tasks
        for argument, column, names in (("targets", "target", targets), ("groups", "group", groups)):
            if names is None:
                continue
            listed = [names] if isinstance(names, str) else [str(name) for name in names]
            missing = sorted(set(listed) - set(tasks[column]))
            if missing:
                msg = (
                    f"`{argument}`: {checks.some(missing)} not found in `mdata.uns[{self.key!r}]`. "
                    f"Available: {checks.some(dict.fromkeys(tasks[column]), 8)}."
                )
                raise KeyError(msg)
            sets, tasks = (table[table[column].isin(listed)] for table in (sets, tasks))
        return ElementSets(self.key, self.record, sets.reset_index(drop=True), tasks.reset_index(drop=True))

    def one(self, target: str | None, group: str | None) -> "ElementSets":
        """Return the one set of a target in a group; ``group`` may be left out where the target has one only."""
        chosen = self.only(target, group)
        if len(chosen.tasks) != 1:
            pairs = [f"{t} in {g}" for t, g in zip(chosen.tasks["target"], chosen.tasks["group"], strict=True)]
            msg = (
                f"`mdata.uns[{self.key!r}]` has {len(pairs)} sets for `target={target!r}`, `group={group!r}`: "
                f"{checks.some(pairs)}. Name one."
            )
            raise ValueError(msg)
        return chosen


def read(mdata: Any, key: str) -> ElementSets:
    """Return the element sets of ``mdata.uns[key]``, as `tl.grids` and `tl.attribution` write them."""
    entry = record.read(mdata, key)
    tables = entry.get("sets"), entry.get("tasks")
    if not all(isinstance(table, pd.DataFrame) for table in tables):
        msg = (
            f"`mdata.uns[{key!r}]` holds no element sets: it is the record of {entry.get('method')!r}. Run "
            "`sctrellis.tl.grids` or `sctrellis.tl.attribution` and pass its `key_added` as `key`."
        )
        raise ValueError(msg)
    sets, tasks = (plain(table) for table in tables if table is not None)
    # A task that could not be searched has a row, and no set.
    tasks = tasks.merge(sets[["group", "target"]].drop_duplicates(), on=["group", "target"])
    if not len(sets):
        msg = f"`mdata.uns[{key!r}]` holds no selected peak. Search again with other `targets` or `groups`."
        raise ValueError(msg)
    return ElementSets(key, entry, sets, tasks)


def plain(table: pd.DataFrame) -> pd.DataFrame:
    """Return a stored table with text as str and rows counted from 0, the same before and after a file."""
    table = table.reset_index(drop=True)
    text = [c for c in table if not pd.api.types.is_numeric_dtype(table[c])]
    return table.astype(dict.fromkeys(text, str))
