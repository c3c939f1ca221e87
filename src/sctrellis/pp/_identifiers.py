"""Which genes the names in a user's table stand for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sctrellis._core import checks, logs

MISSING, EXACT, ALIAS, CASE = 0, 1, 2, 3
_ALIAS_COLUMNS = ("alias", "synonym", "previous", "from", "old")
_NAME_COLUMNS = ("name", "symbol", "gene", "to", "new")


@dataclass(frozen=True)
class Matches:
    """What each of the given names is in ``adata.var_names``.

    Parameters
    ----------
    names
        The names that were looked up, each once.
    position : (n_names,)
        Position of the gene, -1 where there is none.
    how : (n_names,)
        ``MISSING``, ``EXACT``, ``ALIAS`` or ``CASE``.
    case_only : (n_names,)
        True where a name is missing and would be found if case were ignored.
    """

    names: pd.Index
    position: np.ndarray
    how: np.ndarray
    case_only: np.ndarray

    @property
    def found(self) -> np.ndarray:
        """True where a name stands for a gene."""
        return self.position >= 0

    def warn(self, argument: str) -> None:
        """Warn about what makes names miss their genes: the case of letters, or a spreadsheet."""
        missed = self.names[self.case_only]
        if len(missed):
            checks.warn(
                f"{len(missed):,} names in `{argument}` differ from `adata.var_names` only in case "
                f"({checks.some(missed)}) and were left out. Pass `match_case=False` to match them."
            )
        missing = self.names[~self.found]
        months = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
        pattern = rf"(?i:\d{{1,2}}-(?:{months})|(?:{months})-\d{{1,2}})"
        dates = missing[np.asarray(missing.str.fullmatch(pattern), dtype=bool)]
        if len(dates):
            checks.warn(
                f"{len(dates)} names in `{argument}` look like dates ({checks.some(dates)}): a spreadsheet has "
                "probably "
                "changed gene symbols such as MARCH2 or SEPT1. Correct them at the source."
            )


def factorize(values: Any) -> tuple[np.ndarray, pd.Index]:
    """Return codes and the distinct names as stripped str; blank and missing names have code -1."""
    series = pd.Series(values).reset_index(drop=True)
    if series.dtype.kind == "f" and (series.dropna() % 1 == 0).all():
        series = series.astype("Int64")  # numeric ids become floats where one is missing: 7157.0 is 7157
    codes, raw = pd.factorize(series)
    names = pd.Series(np.asarray(raw, dtype=object), dtype=object).astype(str).str.strip()
    second, unique = pd.factorize(names.where(names != "", None))
    return np.append(second, -1)[codes], pd.Index(unique, dtype=object)


def match(names: pd.Index, var_names: pd.Index, *, match_case: bool = True, aliases: Any = None) -> Matches:
    """Look up distinct ``names``: as they are, then as aliases, then without regard to case.

    A name or alias that would fit several genes fits none of them.
    """
    genes = pd.Index(var_names)
    position = np.asarray(genes.get_indexer(names), dtype=np.int64)
    how = np.where(position >= 0, EXACT, MISSING).astype(np.int8)
    table = _alias_table(aliases, genes)
    everywhere = np.arange(len(genes))

    def fill(found: np.ndarray, code: int) -> None:
        new = (position < 0) & (found >= 0)
        position[new], how[new] = found[new], code

    if table is not None:
        fill(_lookup(table.index, genes.get_indexer(table.to_numpy()), names), ALIAS)
    folded = names.str.casefold()
    by_case = _lookup(genes.str.casefold(), everywhere, folded)
    if table is not None:
        other = _lookup(table.index.str.casefold(), genes.get_indexer(table.to_numpy()), folded)
        by_case = np.where(by_case >= 0, by_case, other)
    case_only = (position < 0) & (by_case >= 0)
    if not match_case:
        fill(by_case, CASE)
        case_only = np.zeros(len(names), dtype=bool)
    return Matches(names, position, how, case_only)


def _lookup(keys: pd.Index, positions: np.ndarray, names: pd.Index) -> np.ndarray:
    """Return the position that each name has under ``keys``, -1 where there is none or more than one."""
    table = pd.DataFrame({"key": np.asarray(keys, dtype=object), "position": positions}).drop_duplicates()
    table = table[~table["key"].duplicated(keep=False)]
    found = pd.Index(table["key"], dtype=object).get_indexer(pd.Index(names, dtype=object))
    return np.append(table["position"].to_numpy(dtype=np.int64), -1)[found]


def _alias_table(aliases: Any, genes: pd.Index) -> pd.Series | None:
    """Return aliases as a Series, alias -> name in ``genes``; other aliases are left out."""
    if aliases is None:
        return None
    if isinstance(aliases, pd.DataFrame):
        lowered = [str(c).casefold() for c in aliases.columns]
        alias = next((lowered.index(c) for c in _ALIAS_COLUMNS if c in lowered), None)
        name = next((lowered.index(c) for c in _NAME_COLUMNS if c in lowered), None)
        if alias is None or name is None:
            msg = (
                "Expected `aliases` to have the columns 'alias' and 'name' (the name in `adata.var_names`), "
                f"found {checks.some(aliases.columns, 10) or 'none'}."
            )
            raise ValueError(msg)
        series = pd.Series(aliases.iloc[:, name].to_numpy(), index=aliases.iloc[:, alias].to_numpy())
    elif isinstance(aliases, pd.Series):
        series = aliases
    elif isinstance(aliases, Mapping):
        series = pd.Series(list(aliases.values()), index=list(aliases.keys()), dtype=object)
    else:
        msg = (
            "Expected `aliases` to be a mapping, Series or DataFrame from alias to name in `adata.var_names`, "
            f"found {type(aliases).__name__}."
        )
        raise TypeError(msg)
    listed = [isinstance(value, list | tuple | set | np.ndarray) for value in series]
    if any(listed):
        msg = (
            "Expected `aliases` to give one name for each alias, found a list of names. A table from name to many "
            "aliases "
            "becomes one from alias to name by `table.explode('alias')`."
        )
        raise ValueError(msg)
    series = series[series.notna().to_numpy()]
    series = pd.Series(series.astype(str).str.strip().to_numpy(), index=series.index.astype(str).str.strip())
    known = series.isin(genes).to_numpy()
    if len(series) and not known.any():
        if series.index.isin(genes).any():
            msg = (
                "`aliases` goes from alias to the name in `adata.var_names`; this one seems to go the other way round."
            )
            raise ValueError(msg)
        raise checks.no_match("aliases", list(series), list(genes))
    logs.logger.debug("%d of %d aliases lead to a gene", known.sum(), len(series))
    return series[known]
