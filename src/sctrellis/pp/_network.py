from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from sctrellis._core import checks, logs, record, slots
from sctrellis._core.keys import REGULATORS, Keys
from sctrellis.pp import _identifiers as identifiers
from sctrellis.pp import _read_table as tables

if TYPE_CHECKING:
    from anndata import AnnData

_SOURCE = ("source", "regulator", "tf", "gene1", "from", "regulatorgene", "tfname", "sourcegene")
_TARGET = ("target", "targetgene", "gene2", "to", "gene", "targetname")
_WEIGHT = ("weight", "edgeweight", "importance")
_SIGN = ("sign", "mor", "type")
_LABEL = ("label",)
_SIGNS = {
    **dict.fromkeys(("+", "1", "+1", "activation", "activating", "activator", "positive", "up", "act"), 1),
    **dict.fromkeys(("-", "-1", "\u2212", "repression", "repressing", "repressor", "inhibition", "inhibiting"), -1),
    **dict.fromkeys(("negative", "down", "rep"), -1),
    **dict.fromkeys(("", "0", "?", "unknown", "nan", "none", "na"), 0),
}


def network(
    adata: "AnnData",
    edges: Any,
    *,
    source: str | int | None = None,
    target: str | int | None = None,
    weight: str | int | None = None,
    label: str | int | None = None,
    sign: str | int | None = None,
    match_case: bool = True,
    aliases: Any = None,
    key_added: str | None = None,
    mod: str | None = None,
    copy: bool = False,
) -> "AnnData | None":
    """Store known regulatory edges as a gene x gene matrix; expression is not read.

    Parameters
    ----------
    adata
        AnnData, cells x genes, or a MuData with ``mod``.
    edges
        One row per edge: a DataFrame, the path of a CSV, TSV, semicolon-separated or parquet file, plain or gzip, or a
        networkx graph (an undirected edge counts in both directions).
    source, target
        Columns of the regulator and of the target, by name or by position; None looks for the usual names (``source``,
        ``regulator``, ``TF``, ``Gene1``; ``target``, ``Gene2``, ``gene``). With positions, a file has no header.
    weight
        Column of the confidence of an edge; None reads ``weight``, ``EdgeWeight`` or ``importance`` where there is one,
        and otherwise every edge gets 1. A negative weight is a repression of that strength; a weight of 0 says nothing
        and is left out.
    label
        Column that is 1 for an edge and 0 for a pair that is known to be none; None reads ``label`` where there is one.
    sign
        Column that tells activation from repression (``+`` / ``-``, numbers, or words such as ``Repression``); None
        reads
        ``sign``, ``mor`` or ``type`` where there is one.
    match_case
        Whether ``Gata1`` and ``GATA1`` are different genes.
    aliases
        Mapping or Series from alias to the name in ``adata.var_names``, or a DataFrame with columns ``alias`` and
        ``name``; used for names that are not found otherwise.
    key_added
        Key of what is written; None is ``"network"``.
    mod
        Modality of a MuData.
    copy
        Whether to return a copy instead of changing ``adata``.

    Returns
    -------
    `None`, or the copy if ``copy=True``. Sets:

    ``adata.varp[key_added]`` : csr_matrix, float32, shape (n_vars, n_vars)
        Row = regulator, column = target: > 0 a known edge (its confidence), -1 a known non-edge, absent unknown.
    ``adata.varp[key_added + "_sign"]`` : csr_matrix, int8, shape (n_vars, n_vars)
        1 activation, -1 repression, absent unknown or contradictory. Only where the edges carry signs.
    ``adata.uns[key_added]`` : dict
        Record; ``counts`` says what became of every row.

    Raises
    ------
    ValueError
        Where a column is not found, a weight is missing or no number, a label is neither 0 nor 1, a pair is labelled
        both 0 and 1, a file is damaged, empty or no text, or no edge is left.
    TypeError
        Where ``edges`` is neither a table, nor a path, nor a graph.
    FileNotFoundError
        Where there is no such file.

    Notes
    -----
    Rows are left out and counted in this order: blank names, weight 0, self edges, edges with a gene that is not in
    ``adata.var_names``, and repeats. Of a repeated pair the largest absolute weight is kept, with its sign; where the
    largest weights have both signs, the pair has none. ``counts`` then satisfies read = blank + zero_weight +
    self_edges + unknown_edges + duplicates + edges + non_edges. Time and memory grow with the number of rows.

    Where ``adata.var["is_regulator"]`` exists and the targets are regulators rather than the sources, a warning says
    that the columns may be swapped.

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd, sctrellis as tr
    >>> genes = pd.DataFrame(index=["GATA1", "SPI1", "HBB"])
    >>> adata = anndata.AnnData(np.ones((3, 3), dtype="float32"), var=genes)
    >>> edges = pd.DataFrame({"source": ["GATA1", "SPI1"], "target": ["HBB", "GATA1"], "sign": ["+", "-"]})
    >>> tr.pp.network(adata, edges)
    >>> adata.varp["network"].toarray()
    array([[0., 0., 1.],
           [1., 0., 0.],
           [0., 0., 0.]], dtype=float32)
    >>> adata.uns["network"]["counts"]["edges"]
    2
    """
    params = record.arguments(network, locals())
    root, ad = slots.target(adata, copy=copy, mod=mod)
    keys = Keys.for_method("network", key_added)
    checks.gene_names(ad.var_names)
    frame = _frame(edges, source, target)
    table, counts, matches = _edges(
        frame,
        ad.var_names,
        columns={"source": source, "target": target, "weight": weight, "label": label, "sign": sign},
        match_case=match_case,
        aliases=aliases,
    )
    shape = (ad.n_vars, ad.n_vars)
    pairs = (table["source"].to_numpy(), table["target"].to_numpy())
    varp = {keys.network: sparse.csr_matrix((table["value"].to_numpy(np.float32), pairs), shape=shape)}
    places = {"network": f"varp/{keys.network}"}
    # A matrix of signs from an earlier call must not outlive its network.
    if counts.pop("signed") or _sign_key(keys) in ad.varp:
        signs = table["sign"].to_numpy(np.int8)
        varp[_sign_key(keys)] = sparse.csr_matrix((signs, pairs), shape=shape)
        varp[_sign_key(keys)].eliminate_zeros()
        places["sign"] = f"varp/{_sign_key(keys)}"

    matches.warn("edges")
    _warn_swapped(ad, varp[keys.network])
    replaced = keys.network in ad.varp and (slots.read_network(ad, keys.network) != varp[keys.network]).nnz
    if replaced and keys.fold in ad.varp:
        checks.warn(
            f"`adata.varp[{keys.fold!r}]` holds folds of the network that is replaced. "
            f"Run `sctrellis.pp.split_edges(adata, {keys.network!r})` again."
        )
    params |= {"edges": tables.describe(edges), "aliases": tables.describe(aliases)}
    uns = {keys.record: record.build("network", ad, params=params, seed=0, slots=places, extra={"counts": counts})}
    logs.logger.info(
        "%(read)d rows: %(edges)d known edges of %(regulators)d regulators and %(targets)d targets, %(non_edges)d "
        "known "
        "non-edges; left out: %(blank)d blank, %(zero_weight)d of weight 0, %(self_edges)d self edges, "
        "%(unknown_edges)d "
        "with one of %(unknown_genes)d unknown genes, %(duplicates)d repeats; %(alias_matches)d genes found by alias, "
        "%(case_matches)d ignoring case",
        counts,
    )
    logs.added(slots.write(ad, varp=varp, uns=uns))
    return root if copy else None


def _sign_key(keys: Keys) -> str:
    return keys.stage("sign")


def _frame(edges: Any, source: str | int | None, target: str | int | None) -> pd.DataFrame:
    """Return the edges as a DataFrame, from whatever holds them."""
    if isinstance(edges, pd.DataFrame):
        frame = tables.as_frame(edges)
    elif isinstance(edges, str | Path):
        positions = isinstance(source, int) or isinstance(target, int)

        def is_header(row: list[str]) -> bool:
            words = {tables.normal(cell) for cell in row}
            return not positions or (bool(words & set(_SOURCE)) and bool(words & set(_TARGET)))

        frame = tables.read_table("edges", edges, is_header=is_header)
    elif hasattr(edges, "edges") and hasattr(edges, "is_directed"):
        frame = _from_graph(edges)
    else:
        hint = (
            " Make one with `pandas.DataFrame(edges, columns=['source', 'target'])`."
            if isinstance(edges, list | tuple | set | np.ndarray)
            else ""
        )
        msg = f"Expected `edges` to be a DataFrame, a path or a networkx graph, found {type(edges).__name__}.{hint}"
        raise TypeError(msg)
    if not len(frame):
        msg = "`edges` holds no edge."
        raise ValueError(msg)
    return frame


def _from_graph(graph: Any) -> pd.DataFrame:
    edges = list(graph.edges(data=True))
    attributes = pd.DataFrame([data for *_, data in edges]).drop(columns=["source", "target"], errors="ignore")
    frame = pd.DataFrame({"source": [u for u, *_ in edges], "target": [v for _, v, _ in edges]}).join(attributes)
    if not graph.is_directed():
        other = frame[frame["source"] != frame["target"]]
        frame = pd.concat([frame, other.rename(columns={"source": "target", "target": "source"})], ignore_index=True)
    return frame


def _edges(
    frame: pd.DataFrame,
    var_names: pd.Index,
    *,
    columns: dict[str, str | int | None],
    match_case: bool,
    aliases: Any,
) -> tuple[pd.DataFrame, dict[str, Any], identifiers.Matches]:
    """Return each known pair once (source, target, value, sign), what became of the rows, and the matched names."""
    usual = {"source": _SOURCE, "target": _TARGET, "weight": _WEIGHT, "label": _LABEL, "sign": _SIGN}
    at = {name: tables.find_column("edges", frame, name, given, usual[name]) for name, given in columns.items()}
    source_at, target_at = at["source"], at["target"]
    if source_at is None or target_at is None:
        what = "regulators" if source_at is None else "targets"
        msg = (
            f"`edges` has no column for the {what} under a usual name. Columns found: {tables.listed(frame)}. "
            "Name them, as in `source='TF', target='gene'`; for a file without a header give positions, as in "
            "`source=0, target=1`."
        )
        raise ValueError(msg)
    if source_at == target_at:
        msg = f"`source` and `target` are the same column of `edges`, {frame.columns[source_at]!r}."
        raise ValueError(msg)

    n_read = len(frame)
    ends: pd.Series = pd.concat([frame.iloc[:, source_at], frame.iloc[:, target_at]], ignore_index=True)
    codes, names = identifiers.factorize(ends)
    if not len(names):
        msg = "`edges` names no genes: the columns of regulators and targets are blank."
        raise ValueError(msg)
    matches = identifiers.match(names, var_names, match_case=match_case, aliases=aliases)
    # Unknown genes get numbers of their own, so that self edges among them are seen as such.
    gene = np.where(matches.found, matches.position, len(var_names) + np.arange(len(names)))
    table = pd.DataFrame({"source": gene[codes[:n_read]], "target": gene[codes[n_read:]]})
    size, signs, signed = _strength(frame, at["weight"], at["sign"], by_name=columns["sign"] is not None)
    positive = _labels(frame, at["label"])
    table["value"] = np.where(positive, size, -1.0)
    table["sign"] = np.where(positive, signs, 0)

    counts: dict[str, Any] = {"read": n_read}
    zero = positive & (size == 0)
    if zero.any() and at["label"] is None:
        checks.warn(
            f"{zero.sum():,} of {n_read:,} rows of `edges` have weight 0 and are left out as unknown. If 0 marks "
            "pairs that "
            "are known to be no edge, name the column with `label=` instead of `weight=`."
        )
    blank = (codes[:n_read] < 0) | (codes[n_read:] < 0)
    own = table["source"].to_numpy() == table["target"].to_numpy()
    unknown = (table[["source", "target"]].to_numpy() >= len(var_names)).any(axis=1)
    left_out = np.zeros(n_read, dtype=bool)
    for name, rows in (("blank", blank), ("zero_weight", zero), ("self_edges", own), ("unknown_edges", unknown)):
        counts[name] = int((rows & ~left_out).sum())
        left_out |= rows
    table = table[~left_out]
    if table.empty:
        raise _none_left(counts, matches, codes[:n_read], codes[n_read:], var_names)
    n_left = len(table)
    table = _unique(table, var_names)
    is_edge = table["value"].to_numpy() > 0
    counts |= {
        "duplicates": n_left - len(table),
        "edges": int(is_edge.sum()),
        "non_edges": int((~is_edge).sum()),
        "regulators": int(table.loc[is_edge, "source"].nunique()),
        "targets": int(table.loc[is_edge, "target"].nunique()),
        "unknown_genes": int((~matches.found).sum()),
        "alias_matches": int((matches.how == identifiers.ALIAS).sum()),
        "case_matches": int((matches.how == identifiers.CASE).sum()),
        "case_mismatches": int(matches.case_only.sum()),
        "activations": int((table["sign"] > 0).sum()),
        "repressions": int((table["sign"] < 0).sum()),
        "signed": signed,
    }
    return table, counts, matches


def _strength(frame: pd.DataFrame, weight: int | None, sign: int | None, *, by_name: bool) -> tuple[Any, Any, bool]:
    """Return the absolute weight and the sign (1, -1, 0 unknown) of every row, and whether there are signs at all."""
    size, signs, signed = np.ones(len(frame)), np.zeros(len(frame)), False
    if weight is not None:
        values = _numbers(frame.iloc[:, weight], f"column {frame.columns[weight]!r} of `edges`, the weight,")
        size = np.abs(values)
        if (values < 0).any():
            signs, signed = np.sign(values), True
    if sign is None:
        return size, signs, signed
    column = frame.iloc[:, sign]
    numeric = pd.to_numeric(column.astype(object), errors="coerce")
    words = column.astype(str).str.strip().str.casefold().map(_SIGNS)
    read = np.sign(numeric).fillna(words)
    strange = column[read.isna().to_numpy()]
    if len(strange):
        # 'type' and its like may well mean something else; what the user names, or calls a sign, must be one.
        if not by_name and tables.normal(frame.columns[sign]) != "sign":
            logs.logger.info("column %r of the edges is not read: it holds no signs", frame.columns[sign])
            return size, signs, signed
        msg = (
            f"Expected column {frame.columns[sign]!r} of `edges`, the sign, to hold '+' and '-', 1 and -1, or words "
            "such as "
            f"'activation' and 'repression'; found {checks.some(strange.unique())}."
        )
        raise ValueError(msg)
    given = read.to_numpy(dtype=float)
    clash = np.flatnonzero((signs < 0) & (given > 0))
    if len(clash):
        msg = f"`edges` has {len(clash)} rows with a negative weight and a positive sign (first: row {clash[0] + 1})."
        raise ValueError(msg)
    return size, given, True


def _labels(frame: pd.DataFrame, label: int | None) -> np.ndarray:
    """Return True for edges and False for known non-edges."""
    if label is None:
        return np.ones(len(frame), dtype=bool)
    column = frame.iloc[:, label]
    words = column.astype(str).str.strip().str.casefold().map({"true": 1.0, "false": 0.0})
    values = pd.to_numeric(column.astype(object), errors="coerce").astype(float).fillna(words)
    strange = column[~values.isin([0, 1]).to_numpy()]
    if len(strange):
        hint = " Signs go in `sign=`, confidences in `weight=`." if (values < 0).any() or (values > 0).any() else ""
        msg = (
            f"Expected column {frame.columns[label]!r} of `edges`, the label, to be 1 (edge) or 0 (known non-edge), "
            "found "
            f"{checks.some(strange.unique())}.{hint}"
        )
        raise ValueError(msg)
    return values.to_numpy() == 1


def _numbers(column: pd.Series, what: str) -> np.ndarray:
    """Return a column as finite float64."""
    values = pd.to_numeric(column.astype(object), errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        first = column.iloc[bad[0]]
        hint = (
            " Decimal commas: read the file with `pandas.read_csv(path, sep=';', decimal=',')` and pass the DataFrame."
            if isinstance(first, str) and first.count(",") == 1 and first.replace(",", "").lstrip("+-").isdigit()
            else " Drop these rows, or choose another column."
        )
        msg = (
            f"Expected {what} to hold finite numbers, found {str(first)!r} in row {bad[0] + 1} ({len(bad)} in "
            f"all).{hint}"
        )
        raise ValueError(msg)
    return values


def _unique(table: pd.DataFrame, var_names: pd.Index) -> pd.DataFrame:
    """Return every pair once: its largest weight, and its sign where the rows of that weight agree."""
    pair = ["source", "target"]
    label = (table["value"] > 0).groupby([table["source"], table["target"]], sort=False)
    mixed = label.transform("any").to_numpy() & ~label.transform("all").to_numpy()
    if mixed.any():
        clash = table[mixed].drop_duplicates(pair)
        named = [f"{var_names[s]} -> {var_names[t]}" for s, t in clash[pair].head(4).to_numpy()]
        msg = (
            f"`edges` labels {len(clash)} pairs both as an edge and as a known non-edge ({checks.some(named)}). "
            "Keep one row of each."
        )
        raise ValueError(msg)
    table = table[table["value"] == table.groupby(pair, sort=False)["value"].transform("max")]
    sign = table.groupby(pair)["sign"].agg(["min", "max"])
    # A row without a sign does not contradict one with a sign; plus and minus do, and leave 0.
    best = table.groupby(pair)[["value"]].max()
    best["sign"] = sign["min"].clip(upper=0) + sign["max"].clip(lower=0)
    return best.reset_index()


def _none_left(
    counts: dict[str, Any], matches: identifiers.Matches, source: np.ndarray, target: np.ndarray, var_names: pd.Index
) -> ValueError:
    """Return the error for a table of which no edge can be kept."""
    for name, codes in (("source", source), ("target", target)):
        used = np.unique(codes[codes >= 0])
        if not matches.found[used].any():
            return checks.no_match(f"edges ({name})", list(matches.names[used]), list(var_names))
    told = ", ".join(
        f"{number} {name.replace('_', ' ')}" for name, number in counts.items() if number and name != "read"
    )
    return ValueError(
        f"None of the {counts['read']:,} rows of `edges` joins two different genes of `adata.var_names`: {told}. "
        f"First names: {checks.some(matches.names)}; first var_names: {checks.some(var_names)}."
    )


def _warn_swapped(ad: Any, known: sparse.csr_matrix) -> None:
    """Warn where the targets, not the sources, are the regulators."""
    if REGULATORS not in ad.var or ad.var[REGULATORS].dtype != bool:
        return
    mask = ad.var[REGULATORS].to_numpy()
    edges = known.tocoo()
    of_sources, of_targets = (mask[np.unique(axis)].mean() for axis in (edges.row, edges.col))
    if of_sources < 0.5 < of_targets:
        checks.warn(
            f"{of_targets:.0%} of the targets in `edges` may regulate (`adata.var[{REGULATORS!r}]`), but only "
            f"{of_sources:.0%} of the sources: are `source` and `target` swapped?"
        )
