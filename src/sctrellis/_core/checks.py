"""The only place where bad input is worded: what was expected, what was found, what to do."""

import re
import warnings
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

MIN_CELLS = 10


def some(values: Iterable[Any], n: int = 3) -> str:
    """Return the first few values, quoted, for a message."""
    values = list(values)
    return ", ".join(repr(str(v)) for v in values[:n]) + (", …" if len(values) > n else "")


def warn(message: str, category: type[UserWarning] = UserWarning) -> None:
    """Warn at the line of the user's own code."""
    import sys

    # The first frame outside the package is where the user called us.
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] == "sctrellis":
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def integer(name: str, value: Any, *, minimum: int = 1) -> int:
    """Return ``value`` as an int of at least ``minimum``."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        msg = f"Expected `{name}` to be an integer, found {value!r}."
        raise TypeError(msg)
    if value < minimum:
        msg = f"Expected `{name}` to be at least {minimum}, found {value}."
        raise ValueError(msg)
    return int(value)


def number(
    name: str,
    value: Any,
    *,
    low: float = -np.inf,
    high: float = np.inf,
    open_low: bool = False,
    open_high: bool = False,
) -> float:
    """Return ``value`` as a finite float in the interval from ``low`` to ``high``."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        msg = f"Expected `{name}` to be a number, found {value!r}."
        raise TypeError(msg)
    if not np.isfinite(value):
        msg = f"Expected `{name}` to be a finite number, found {value}."
        raise ValueError(msg)
    inside = (value > low if open_low else value >= low) and (value < high if open_high else value <= high)
    if not inside:
        interval = f"{'(' if open_low else '['}{low:g}, {high:g}{')' if open_high else ']'}"
        msg = f"Expected `{name}` to lie in {interval}, found {value}."
        raise ValueError(msg)
    return float(value)


def choice(name: str, value: Any, options: Collection[Any]) -> Any:
    """Return ``value`` if it is one of ``options``."""
    if value not in options:
        msg = f"Expected `{name}` to be one of {', '.join(repr(o) for o in options)}; found {value!r}."
        raise ValueError(msg)
    return value


def seed(value: int | None) -> int:
    """Return the seed to use: ``value``, or one drawn from the system where it is None."""
    if value is None:
        return int(np.random.SeedSequence().generate_state(1)[0])
    value = integer("seed", value, minimum=0)
    if value >= 2**32:
        msg = f"Expected `seed` to be below 2**32 = {2**32}, found {value}."
        raise ValueError(msg)
    return value


def n_jobs(value: int | None) -> int:
    """Return the number of workers: None is ``settings.n_jobs``, -1 is all cores, 0 raises."""
    from sctrellis._settings import settings

    value = settings.n_jobs if value is None else value
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        msg = f"Expected `n_jobs` to be an integer or None, found {value!r}."
        raise TypeError(msg)
    if value == 0 or value < -1:
        msg = f"Expected `n_jobs` to be -1 (all cores) or at least 1, found {value}."
        raise ValueError(msg)
    return int(value)


def slot_name(name: str, value: Any) -> str:
    """Return ``value`` if it can name a slot."""
    if not isinstance(value, str):
        msg = f"Expected `{name}` to be a str, found {value!r}."
        raise TypeError(msg)
    if not value or "/" in value or "\\" in value or value.startswith("."):
        msg = (
            f"Expected `{name}` to be a non-empty name without '/' or '\\' that does not start with '.', found "
            f"{value!r}: h5ad and zarr use these for folders."
        )
        raise ValueError(msg)
    return value


def has_slot(name: str, key: Any, available: Iterable[Any], slot: str, remedy: str = "") -> None:
    """Raise KeyError unless ``key`` is among the ``available`` keys of ``slot``."""
    available = list(available)
    if key not in available:
        listed = ", ".join(map(repr, available)) or "none"
        msg = f"`{name}`: {key!r} not found in `{slot}`. Available: {listed}."
        raise KeyError(f"{msg} {remedy}".rstrip())


def gene_names(var_names: Sequence[str]) -> None:
    """Raise unless gene names are unique, non-empty strings."""
    import pandas as pd

    index = pd.Index(var_names)
    duplicated = index[index.duplicated()].unique()
    if len(duplicated):
        msg = (
            f"`adata.var_names` has {len(duplicated)} duplicated names ({some(duplicated)}), so edges cannot be named. "
            "Use unique identifiers such as Ensembl ids, or drop the copies with "
            "`adata = adata[:, ~adata.var_names.duplicated()].copy()`; `adata.var_names_make_unique()` renames genes, "
            "which then miss known networks."
        )
        raise ValueError(msg)
    blank = [i for i, value in enumerate(index) if not isinstance(value, str) or not value.strip()]
    if blank:
        msg = f"`adata.var_names` has {len(blank)} names that are empty or not str (first at position {blank[0]})."
        raise ValueError(msg)


def matrix_shape(n_obs: int, n_vars: int) -> None:
    """Raise unless there are enough cells and genes to relate one gene to another."""
    if n_obs < MIN_CELLS:
        msg = f"Expected `adata` to have at least {MIN_CELLS} cells, found {n_obs}: too few to relate genes."
        raise ValueError(msg)
    if n_vars < 2:
        msg = f"Expected `adata` to have at least 2 genes, found {n_vars}."
        raise ValueError(msg)


def expression(summary: Any, slot: str, var_names: Sequence[str]) -> None:
    """Raise or warn on values that are not log-normalised expression.

    Parameters
    ----------
    summary
        :class:`sctrellis._core.rows.Summary` of the matrix.
    slot
        Where the matrix is, for the message: ``"X"`` or ``"layers['name']"``.
    var_names
        Gene names, for the message.
    """
    names = np.asarray(var_names)
    if summary.n_nonfinite.any():
        bad = np.flatnonzero(summary.n_nonfinite)
        msg = (
            f"`adata.{slot}` has {int(summary.n_nonfinite.sum())} NaN or infinite values in {len(bad)} genes "
            f"({some(names[bad])}). Impute them, or drop these genes or cells."
        )
        raise ValueError(msg)
    if summary.minimum < 0:
        msg = (
            f"`adata.{slot}` has negative values (minimum {summary.minimum:.4g}): it looks scaled. "
            "sctrellis standardises genes itself: pass log-normalised values, as with `layer=` or "
            "`adata.raw.to_adata()`."
        )
        raise ValueError(msg)
    if summary.integral and summary.maximum > 20:
        warn(
            f"`adata.{slot}` holds only integers up to {summary.maximum:g}: these look like raw counts, and "
            "log-normalised values are assumed. Run `sc.pp.normalize_total(adata); sc.pp.log1p(adata)` first, or "
            "choose a `layer`."
        )
    elif summary.maximum > 50:
        warn(
            f"`adata.{slot}` has values up to {summary.maximum:.4g}: log-normalised values are assumed, which "
            "rarely pass 20. Run `sc.pp.log1p(adata)` first, or choose a `layer`."
        )
    constant = np.flatnonzero(summary.std == 0)
    if len(constant) == len(names):
        msg = f"All {len(names)} genes of `adata.{slot}` are constant over the cells: there is nothing to relate."
        raise ValueError(msg)
    if len(constant):
        warn(
            f"{len(constant)} of {len(names)} genes are constant in `adata.{slot}` ({some(names[constant])}); they get "
            "no edges. Drop them with `sc.pp.filter_genes(adata, min_cells=1)`."
        )


def dense_size(shape: tuple[int, ...], what: str, remedy: str, *, itemsize: int = 4) -> None:
    """Raise unless a dense array of ``shape`` stays below ``settings.max_dense_gb``."""
    from sctrellis._settings import settings

    size = float(np.prod([float(n) for n in shape])) * itemsize / 1e9
    if size > settings.max_dense_gb:
        msg = f"{what} needs {size:.1f} GB (`sctrellis.settings.max_dense_gb` is {settings.max_dense_gb:g}). {remedy}"
        raise ValueError(msg)


def _style(names: Sequence[str]) -> str:
    """Describe the kind of identifier, where it is one that we know."""
    names = [str(n) for n in names[:50]]
    if not names:
        return ""
    if sum(bool(re.match(r"ENS[A-Z]*G\d+", n)) for n in names) > len(names) / 2:
        return " (Ensembl ids)"
    if sum(n.isdigit() for n in names) > len(names) / 2:
        return " (numbers, such as Entrez ids)"
    if sum(n.isupper() for n in names) > len(names) / 2:
        return " (upper-case symbols, as for human)"
    if sum(n[:1].isupper() and n[1:].islower() for n in names if n.isalnum()) > len(names) / 2:
        return " (capitalised symbols, as for mouse)"
    return ""


def no_match(argument: str, names: Sequence[str], var_names: Sequence[str]) -> ValueError:
    """Return the error for gene names of which none is in ``adata.var_names``."""
    if not len(names):
        return ValueError(f"`{argument}` is empty. Pass names as in `adata.var_names`, such as {some(var_names)}.")
    hint = "Do both use the same identifiers?"
    lowered = {str(v).lower() for v in var_names}
    n_case = sum(str(n).lower() in lowered for n in names)
    stripped = {str(v).split(".")[0] for v in var_names}
    n_version = sum(str(n).split(".")[0] in stripped for n in names)
    if n_case:
        hint = f"{n_case} of them match when case is ignored: pass `match_case=False`."
    elif n_version:
        hint = (
            f"{n_version} of them match without the version suffix: strip it, as in `var_names.str.split('.').str[0]`."
        )
    return ValueError(
        f"None of the {len(names):,} names in `{argument}` is in `adata.var_names`. "
        f"First names: {some(names)}{_style(list(names))}; "
        f"first var_names: {some(var_names)}{_style(list(var_names))}. {hint}"
    )


def existing_file(name: str, path: str | Path) -> Path:
    """Return ``path`` as a Path if there is such a file."""
    path = Path(path)
    if not path.is_file():
        what = "a folder" if path.is_dir() else "no file"
        msg = f"`{name}`: {what} at '{path}'. The working directory is '{Path.cwd()}'."
        raise FileNotFoundError(msg)
    return path


def replaceable_folder(name: str, path: str | Path, files: Collection[str]) -> Path:
    """Return ``path`` as a Path if a folder of ``files`` can be written there without deleting anything else."""
    path = Path(path)
    if path.is_dir():
        others = sorted(item.name for item in path.iterdir() if item.name not in files)
        if others:
            msg = f"`{name}`: the folder '{path}' holds other files ({some(others)}), which would go. Name another."
            raise ValueError(msg)
    elif path.exists():
        msg = f"`{name}`: '{path}' is a file. Name a folder to write."
        raise ValueError(msg)
    return path


def gene_positions(argument: str, names: str | Sequence[str], var_names: Any) -> np.ndarray:
    """Return the positions of genes that must all exist, increasing and each once."""
    listed = [names] if isinstance(names, str) else [str(name) for name in names]
    if not listed:
        msg = f"Expected `{argument}` to name at least one gene, found none. Leave it out to take all."
        raise ValueError(msg)
    positions = var_names.get_indexer(listed)
    missing = list(dict.fromkeys(name for name, at in zip(listed, positions, strict=True) if at < 0))
    if missing:
        exact = {str(v).lower(): str(v) for v in var_names}
        near = [exact[name.lower()] for name in missing if name.lower() in exact]
        hint = f"First var_names: {some(var_names)}{_style(list(var_names))}."
        hint = f"Did you mean {some(near)}?" if near else hint
        msg = f"{len(missing)} of {len(listed)} `{argument}` are not in `adata.var_names` ({some(missing)}). {hint}"
        raise ValueError(msg)
    return np.unique(positions)
