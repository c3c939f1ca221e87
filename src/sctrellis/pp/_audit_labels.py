from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sctrellis._core import checks, logs, record, slots
from sctrellis._core.keys import REGULATORS, Keys
from sctrellis.pp import _identifiers as identifiers
from sctrellis.pp import _network as networks
from sctrellis.pp import _read_table as tables

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

_INDEX = ("index",)
_NAME = ("name", "gene", "tf", "symbol", "target")
_EXAMPLES = 3


def audit_labels(
    adata: "AnnData | MuData",
    edges: Any,
    network: str = "network",
    *,
    source: str | int | None = None,
    target: str | int | None = None,
    label: str | int | None = None,
    names: Any = None,
    mod: str | None = None,
    key_added: str | None = None,
) -> pd.DataFrame:
    """Look for what is wrong with a table of labelled pairs before anything learns from it; expression is not read.

    Parameters
    ----------
    adata
        AnnData with a known network, or a MuData with ``mod``.
    edges
        One row per pair: a DataFrame, or the path of a CSV, TSV, semicolon-separated or parquet file, plain or gzip.
    network
        Key of ``adata.varp`` with the known edges, from another source than the table, such as a list of positives.
    source, target
        Columns of the regulator and of the target, by name or by position; None looks for the usual names.
    label
        Column that is 1 for an edge and 0 for a pair that is none; None looks for ``label``.
    names
        Where genes are given by index: a table with columns ``index`` and ``name`` (or ``Gene``, ``TF``), or its path.
        None takes what is in the columns for names.
    mod
        Modality of a MuData.
    key_added
        Key of ``adata.uns`` for the table and its record; None is ``"audit_labels"``.

    Returns
    -------
    DataFrame
        One row per ``check``, also stored in ``adata.uns[key_added]["table"]``, with ``n``, ``out_of``, ``value``
        (their ratio, or the area) and ``examples``:

        ``"unmapped"``
            Rows with a gene that is not in `names` or not in ``adata.var_names``. Later checks leave them out.
        ``"self_pair"``
            Rows of a gene with itself. Later checks leave them out.
        ``"transposed_negative"``, ``"transposed_positive"``
            Rows labelled 0 (or 1) whose source is no regulator while the target is one.
        ``"duplicate"``
            Rows that repeat a pair with the same label.
        ``"conflict"``
            Pairs that are labelled both 0 and 1.
        ``"known_edge_labelled_0"``
            Known edges of `network` that the table labels 0, out of all of them.
        ``"edge_given_regulator_target"``, ``"edge_given_other_target"``
            Rows labelled 1 among those whose target may, or may not, regulate. Rows whose source is no regulator are
            left out, as by a loader that looks sources up among regulators.
        ``"auroc_of_other_target"``
            How well the one bit "the target is no regulator" predicts the label of these rows; NaN if all are equal.

    Raises
    ------
    KeyError
        If the network or the modality is missing.
    ValueError
        If a column is not found, a label is neither 0 nor 1, no row can be mapped, or a file is damaged or empty.
    TypeError
        If ``edges`` is neither a table nor a path.
    FileNotFoundError
        If there is no such file.

    Notes
    -----
    Regulators are those of ``adata.var["is_regulator"]``, if there, and the sources of `network`. A transposed pair of
    two regulators cannot be told from one that is not. An area far from 0.5 in the last row means that a model can
    predict labels without reading a cell. Time is linear in the number of rows, but for sorting.

    Examples
    --------
    >>> import pandas as pd, sctrellis as tr
    >>> adata = tr.datasets.toy()
    >>> row, column = adata.varp["network"].nonzero()
    >>> names = adata.var_names
    >>> edges = pd.DataFrame({"source": names[row], "target": names[column], "label": 1})
    >>> edges.loc[:4, "label"] = 0
    >>> tr.pp.audit_labels(adata, edges).set_index("check").loc["known_edge_labelled_0", "n"].item()
    5
    """
    params = record.arguments(audit_labels, locals())
    keys = Keys.for_method("audit_labels", key_added)
    _, ad = slots.target(adata, mod=mod)
    checks.gene_names(ad.var_names)
    known = slots.read_network(ad, network) > 0
    frame = networks._frame(edges, source, target)
    given = {"source": source, "target": target, "label": label}
    usual = {"source": networks._SOURCE, "target": networks._TARGET, "label": networks._LABEL}
    at = {name: tables.find_column("edges", frame, name, given[name], usual[name]) for name in given}
    places_of = {name: place for name, place in at.items() if place is not None}
    for name in at:
        if name not in places_of:
            msg = f"`edges` has no column for `{name}` under a usual name. Name it; found {tables.listed(frame)}."
            raise ValueError(msg)
    source_at, target_at = places_of["source"], places_of["target"]
    edge = networks._labels(frame, places_of["label"])
    n = len(frame)
    ends: pd.Series = pd.concat([frame.iloc[:, source_at], frame.iloc[:, target_at]], ignore_index=True)
    codes, found = identifiers.factorize(ends)
    position = np.append(_positions(found, names, ad.var_names), -1)
    row, column = position[codes[:n]], position[codes[n:]]
    mapped = (row >= 0) & (column >= 0)
    if not mapped.any():
        raise checks.no_match("edges", list(found), list(ad.var_names))

    regulates = known.getnnz(axis=1) > 0
    if REGULATORS in ad.var:
        regulates = regulates | slots.read_regulators(ad)
    own = mapped & (codes[:n] == codes[n:])
    kept = mapped & (row != column)
    from_regulator, to_regulator = regulates[row] & kept, regulates[column] & kept
    swapped = kept & ~from_regulator & to_regulator
    pair = row.astype(np.int64) * ad.n_vars + column
    table = pd.DataFrame({"pair": pair, "edge": edge})[kept]
    repeated = np.zeros(n, dtype=bool)
    repeated[kept] = table.duplicated().to_numpy()
    mixed = table.groupby("pair")["edge"].nunique() > 1
    conflict = np.zeros(n, dtype=bool)
    conflict[kept] = table["pair"].isin(mixed.index[mixed]).to_numpy() & ~table["pair"].duplicated().to_numpy()
    network_pairs = known.tocoo()
    of_network = network_pairs.row.astype(np.int64) * ad.n_vars + network_pairs.col
    flipped = kept & ~edge & np.isin(pair, of_network) & ~repeated
    judged, other = from_regulator, from_regulator & ~to_regulator
    towards = from_regulator & to_regulator
    lines = [
        ("unmapped", ~mapped, n),
        ("self_pair", own | (mapped & (row == column)), n),
        ("transposed_negative", swapped & ~edge, int((kept & ~edge).sum())),
        ("transposed_positive", swapped & edge, int((kept & edge).sum())),
        ("duplicate", repeated, int(kept.sum())),
        ("conflict", conflict, int(table["pair"].nunique())),
        ("known_edge_labelled_0", flipped, len(of_network)),
        ("edge_given_regulator_target", towards & edge, int(towards.sum())),
        ("edge_given_other_target", other & edge, int(other.sum())),
    ]
    shown = frame.iloc[:, [source_at, target_at]].astype(str).agg(" -> ".join, axis=1).to_numpy()
    result = pd.DataFrame(
        {
            "check": [name for name, *_ in lines],
            "n": [int(rows.sum()) for _, rows, _ in lines],
            "out_of": [out_of for *_, out_of in lines],
            "examples": [", ".join(shown[np.flatnonzero(rows)[:_EXAMPLES]]) for _, rows, _ in lines],
        }
    )
    result.insert(3, "value", np.divide(result["n"], result["out_of"].replace(0, np.nan)).astype(float))
    y, bit = edge[judged], other[judged]
    # The area of one bit: half of one plus its true less its false positive rate.
    area = 0.5 * (1 + bit[y].mean() - bit[~y].mean()) if y.any() and not y.all() else np.nan
    last = {"check": "auroc_of_other_target", "n": len(y), "out_of": len(y), "value": area, "examples": ""}
    result = pd.concat([result, pd.DataFrame([last])], ignore_index=True)
    params |= {"edges": tables.describe(edges), "names": tables.describe(names)}
    places = {"table": f"uns/{keys.record}/table"}
    built = record.build("audit_labels", ad, params=params, seed=0, slots=places, extra={"table": result})
    logs.added(slots.write(ad, uns={keys.record: built}))
    return result


def _positions(found: pd.Index, names: Any, var_names: pd.Index) -> np.ndarray:
    """Return the position of each gene that the table names, or gives the index of; -1 where there is none."""
    if names is None:
        return identifiers.match(found, var_names).position
    frame = tables.as_frame(names) if isinstance(names, pd.DataFrame) else tables.read_table("names", names)
    index = tables.find_column("names", frame, "names", None, _INDEX)
    name = tables.find_column("names", frame, "names", None, _NAME)
    if index is None or name is None:
        msg = f"Expected `names` to have the columns 'index' and 'name', found {tables.listed(frame)}."
        raise ValueError(msg)
    by_index = pd.Series(frame.iloc[:, name].astype(str).to_numpy(), index=frame.iloc[:, index].astype(str))
    by_index = by_index[~by_index.index.duplicated()]
    return np.asarray(var_names.get_indexer(pd.Index(by_index.reindex(found).fillna(""))), dtype=np.int64)
