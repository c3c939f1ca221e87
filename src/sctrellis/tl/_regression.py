"""Regulators, targets and covariates as matrices, for tests of every regulator given all others."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sctrellis._core import checks, slots

COPY = 0.9999
"""Absolute correlation from which two regulators count as copies."""


@dataclass(frozen=True)
class Regression:
    """What regresses on what.

    Parameters
    ----------
    x : float32, (n_obs, p)
        Regulators that vary.
    y : float32, (n_obs, m)
        Targets that vary.
    rows, columns
        Gene positions of regulators and targets.
    own : (m,)
        Which regulator each target is, -1 for none.
    covariates : float64, (n_obs, k), or None
        Known covariates, categories as indicators.
    """

    x: np.ndarray
    y: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    own: np.ndarray
    covariates: np.ndarray | None

    @classmethod
    def read(
        cls,
        adata: Any,
        *,
        layer: str | None,
        regulators: str | Sequence[str] | None,
        targets: str | Sequence[str] | None,
        covariates: str | Sequence[str] | None,
    ) -> "Regression":
        """Read the matrices; genes that are constant over the cells are left out."""
        mask = slots.read_regulators(adata, regulators)
        known = _covariates(adata, covariates)
        if targets is None:
            wanted = np.flatnonzero(~mask)
        elif isinstance(targets, str) and targets == "all":
            wanted = np.arange(adata.n_vars)
        else:
            wanted = checks.gene_positions("targets", targets, adata.var_names)
        if not len(wanted):
            msg = "Every gene is a regulator, so no target is left: pass `targets='all'`, or fewer `regulators`."
            raise ValueError(msg)
        matrix = slots.read_matrix(adata, layer)
        varies = matrix.summary.std > 0
        rows, columns = np.flatnonzero(mask & varies), wanted[varies[wanted]]
        for name, positions, least, among in (
            ("regulators", rows, 2, mask.sum()),
            ("targets", columns, 1, len(wanted)),
        ):
            if len(positions) < least:
                msg = (
                    f"Only {len(positions)} of the {among} `{name}` vary over the cells: at least {least} must. "
                    f"Choose others with `{name}=`."
                )
                raise ValueError(msg)
        x = matrix.select(rows).in_memory()
        _warn_of_copies(x, adata.var_names[rows])
        own = np.full(adata.n_vars, -1)
        own[rows] = np.arange(len(rows))
        return cls(x, matrix.select(columns).in_memory(), rows, columns, own[columns], known)


def _covariates(adata: Any, names: str | Sequence[str] | None) -> np.ndarray | None:
    if names is None:
        return None
    names = [names] if isinstance(names, str) else list(names)
    parts = []
    for name in names:
        checks.has_slot("covariates", name, adata.obs.columns, "adata.obs")
        column = adata.obs[name]
        if column.isna().any():
            msg = f"`covariates`: `adata.obs[{name!r}]` has {int(column.isna().sum())} missing values. Fill them first."
            raise ValueError(msg)
        if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
            part = column.to_numpy(dtype=np.float64)[:, None]
            if not np.isfinite(part).all():
                msg = f"`covariates`: `adata.obs[{name!r}]` has infinite values."
                raise ValueError(msg)
        else:
            part = pd.get_dummies(column.astype(str), drop_first=True).to_numpy(dtype=np.float64)
        parts.append(part)
    known = np.concatenate(parts, axis=1) if parts else np.zeros((adata.n_obs, 0))
    known = known[:, np.ptp(known, axis=0) > 0]
    if not known.shape[1]:
        msg = f"`covariates`: {checks.some(names) or 'none'} has one value in all cells. Leave `covariates` out."
        raise ValueError(msg)
    if known.shape[1] >= adata.n_obs // 2:
        msg = (
            f"`covariates` make {known.shape[1]:,} columns for {adata.n_obs:,} cells: too many to take off. Is one of "
            "them a name of cells, or a number stored as text?"
        )
        raise ValueError(msg)
    return known


def _warn_of_copies(x: np.ndarray, names: Any) -> None:
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    first, second = np.nonzero(np.triu(np.abs(z.T @ z / len(z)) > COPY, k=1))
    if len(first):
        checks.warn(
            f"{len(first)} pairs of regulators are copies of each other (as {names[first[0]]!r} and "
            f"{names[second[0]]!r}): which of the two regulates cannot be told, and a q-value of either means little. "
            "Keep one of them."
        )
