from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sctrellis._core import checks, logs, slots
from sctrellis._core.keys import REGULATORS, Keys
from sctrellis.pp import _identifiers as identifiers
from sctrellis.pp import _read_table as tables

if TYPE_CHECKING:
    from anndata import AnnData

_COLUMNS = (
    "tf", "symbol", "gene", "regulator", "source", "name", "tfs", "genes", "genesymbol", "genename", "tfname",
    "hgncsymbol", "transcriptionfactor", "ensembl", "ensemblid", "geneid", "entrezid", "entrez",
)  # fmt: skip


def regulators(
    adata: "AnnData",
    names: Any,
    *,
    match_case: bool = True,
    aliases: Any = None,
    key_added: str | None = None,
    mod: str | None = None,
    copy: bool = False,
) -> "AnnData | None":
    """Mark the genes that may regulate others, such as transcription factors; expression is not read.

    Parameters
    ----------
    adata
        AnnData, cells x genes, or a MuData with ``mod``.
    names
        Gene names (list, set, Series, Index, array), a DataFrame, or the path of a text, CSV or TSV file, plain or
        gzip: one name per line, or a table with a column such as ``TF``, ``Symbol`` or ``Gene`` (the first column
        otherwise). Where a table names genes in several ways, the column that finds the most genes is read.
    match_case
        Whether ``Gata1`` and ``GATA1`` are different names. A name that would fit several genes fits none.
    aliases
        Mapping or Series from alias to the name in ``adata.var_names``, or a DataFrame with columns ``alias`` and
        ``name``; used for names that are not found otherwise.
    key_added
        Key of what is written; None is ``"is_regulator"``.
    mod
        Modality of a MuData.
    copy
        Whether to return a copy instead of changing ``adata``.

    Returns
    -------
    `None`, or the copy if ``copy=True``. Sets:

    ``adata.var[key_added]`` : bool, shape (n_vars,)
        True where a gene may regulate.

    Raises
    ------
    ValueError
        Where no name is found (the message says which identifiers each side uses), or there are no names.
    TypeError
        Where ``names`` is no collection of names.
    FileNotFoundError
        Where ``names`` is a str and there is no such file.

    Notes
    -----
    How many names were found, missing, repeated, or matched by alias or without regard to case is logged at level info.
    A warning follows where names differ in case only, and where fewer than a tenth of the names and fewer than one gene
    in a hundred match, which suggests different identifiers. (A list for the whole genome matches few names in a
    selection of variable genes; that alone is no reason to warn.)

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd, sctrellis as tr
    >>> genes = pd.DataFrame(index=["GATA1", "SPI1", "HBB"])
    >>> adata = anndata.AnnData(np.ones((3, 3), dtype="float32"), var=genes)
    >>> tr.pp.regulators(adata, ["GATA1", "SPI1", "KLF1"])
    >>> adata.var["is_regulator"].tolist()
    [True, True, False]
    """
    root, ad = slots.target(adata, copy=copy, mod=mod)
    key = Keys.for_method(REGULATORS, key_added).base
    checks.gene_names(ad.var_names)
    codes, unique = identifiers.factorize(_names(names, ad.var_names))
    if not len(unique):
        msg = "`names` holds no gene name."
        raise ValueError(msg)
    matches = identifiers.match(unique, ad.var_names, match_case=match_case, aliases=aliases)
    found = matches.found
    if not found.any():
        raise checks.no_match("names", list(unique), ad.var_names)
    mask = np.zeros(ad.n_vars, dtype=bool)
    mask[matches.position[found]] = True
    n_genes = int(mask.sum())
    matches.warn("names")
    if found.sum() < 0.1 * len(unique) and n_genes < 0.01 * ad.n_vars:
        missing = unique[~found]
        checks.warn(
            f"Only {found.sum():,} of {len(unique):,} names in `names` are in `adata.var_names` (missing: "
            f"{checks.some(missing)}; var_names: {checks.some(ad.var_names)}). Do both use the same identifiers?"
        )
    logs.logger.info(
        "%d of %d genes may regulate: %d names found (%d by alias, %d ignoring case), %d missing, %d repeated",
        n_genes,
        ad.n_vars,
        found.sum(),
        (matches.how == identifiers.ALIAS).sum(),
        (matches.how == identifiers.CASE).sum(),
        (~found).sum(),
        (codes >= 0).sum() - len(unique) + found.sum() - n_genes,
    )
    logs.added(slots.write(ad, var={key: mask}))
    return root if copy else None


def _names(names: Any, var_names: pd.Index) -> pd.Series:
    """Return the names that the user gave, in whichever form."""
    if isinstance(names, str | Path):
        if not Path(names).is_file() and isinstance(names, str):
            msg = (
                f"`names`: no file at {names!r} (the working directory is '{Path.cwd()}'). To name one gene, pass a "
                "list: "
                f"`names=[{names!r}]`."
            )
            raise FileNotFoundError(msg)
        frame = tables.read_table(
            "names", names, is_header=lambda row: any(tables.normal(cell) in _COLUMNS for cell in row)
        )
        return _column(frame, var_names)
    if isinstance(names, pd.DataFrame):
        if not names.shape[1]:
            msg = "`names` is a DataFrame without columns."
            raise ValueError(msg)
        return _column(tables.as_frame(names), var_names)
    if isinstance(names, bytes | dict) or not isinstance(names, Iterable):
        msg = f"Expected `names` to be gene names or the path of a file, found {type(names).__name__}."
        raise TypeError(msg)
    series = names if isinstance(names, pd.Series) else pd.Series(list(names), dtype=object)
    if len(series) and series.map(lambda value: isinstance(value, bool | np.bool_)).all():
        msg = (
            "Expected `names` to hold gene names, found Booleans. A mask over the genes needs no function: "
            "`adata.var['is_regulator'] = mask`."
        )
        raise TypeError(msg)
    strange = series[[not (isinstance(v, str | int | float | np.number) or v is None or v is pd.NA) for v in series]]
    if len(strange):
        msg = f"Expected `names` to hold gene names, found {type(strange.iloc[0]).__name__}."
        raise TypeError(msg)
    return series


def _column(frame: pd.DataFrame, var_names: pd.Index) -> pd.Series:
    """Return the column of names; of several that name genes, the one that finds the most."""
    lowered = [tables.normal(column) for column in frame.columns]
    candidates = [lowered.index(name) for name in _COLUMNS if name in lowered] or [0]
    folded = var_names.str.casefold()
    hits = [frame.iloc[:, i].astype(str).str.strip().str.casefold().isin(folded).sum() for i in candidates]
    best = candidates[int(np.argmax(hits))]
    if frame.shape[1] > 1:
        logs.logger.info("read names from column %r", frame.columns[best])
    return frame.iloc[:, best]
