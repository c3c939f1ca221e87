from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from sctrellis._core import checks, record, slots
from sctrellis._core import sets as _sets

if TYPE_CHECKING:
    from mudata import MuData

_ELEMENTS = ("single", "last_in", "compensation", "shapley")
_UNKNOWN = "."


def element_sets(
    mdata: "MuData",
    key: str = "grids",
    *,
    targets: str | Sequence[str] | None = None,
    groups: str | Sequence[str] | None = None,
    format: Literal["table", "bed", "bedpe"] = "table",
    rna: str = "rna",
    atac: str = "atac",
) -> pd.DataFrame:
    r"""Read the sets of cis-regulatory elements that a search found, as a table or in the columns of BED and BEDPE.

    Parameters
    ----------
    mdata
        Paired RNA and ATAC, with the result of ``tl.grids`` or ``tl.attribution``.
    key
        Name of that result in ``mdata.uns``.
    targets
        Keep the sets of these genes.
    groups
        Keep the sets of these groups of cells.
    format
        ``"table"``
            All that is known of each selected peak.
        ``"bed"``
            The peaks as intervals: one row per gene, group and peak.
        ``"bedpe"``
            The links: peak first, start of transcription second.
    rna
        Modality with the genes and their coordinates.
    atac
        Modality with the peaks and their coordinates.

    Returns
    -------
    DataFrame
        One row per group, target and selected peak, in the order in which they were stored (rank 1 first).

        - ``"table"``: the columns of ``mdata.uns[key]["sets"]`` (``group``, ``target``, ``rank``, ``peak``, ``gain``,
          ``cumulative``, …), then ``chrom``, ``start`` and ``end`` of the peak, then, where ``tl.redundancy`` has run,
          ``single``, ``last_in``, ``compensation`` and ``shapley``.
        - ``"bed"``: ``chrom``, ``start``, ``end``, ``name`` (``target|group|rank``), ``score`` (integer of 0 to 1000,
          proportional to the size of the gain; 1000 is the largest of the table) and ``strand`` (``"."``).
        - ``"bedpe"``: ``chrom1``, ``start1``, ``end1``, ``chrom2``, ``start2``, ``end2``, ``name``, ``score`` (the gain
          in natural log units, with its sign), ``strand1`` (``"."``) and ``strand2`` (the gene's). A gene without
          coordinates has ``"."`` and -1, as the format asks.

        Positions count from 0 and ends are exclusive, as in the files. ``table.to_csv(path, sep="\t", header=False,
        index=False)`` writes one.

    Raises
    ------
    KeyError
        If there is no such result, target or group.
    ValueError
        If the entry holds no element sets, or a selected peak is none of the ATAC modality.

    Examples
    --------
    >>> import pandas as pd, sctrellis as tr
    >>> mdata = tr.datasets.simulate_multiome(60)
    >>> first = mdata.uns["truth"].iloc[[0]]
    >>> found = {"group": first["group"], "target": first["target"], "peak": first["peak"], "rank": 1, "gain": -0.2}
    >>> sets = pd.DataFrame(found)
    >>> mdata.uns["grids"] = {"schema": 1, "method": "grids", "sets": sets, "tasks": sets[["group", "target"]]}
    >>> tr.get.element_sets(mdata, format="bed").columns.tolist()
    ['chrom', 'start', 'end', 'name', 'score', 'strand']
    """
    checks.choice("format", format, ("table", "bed", "bedpe"))
    genes, peaks = slots.multiome(mdata, rna, atac)
    sets = _sets.read(mdata, key).only(targets, groups).sets
    at = slots.positions(peaks, sets["peak"], f"mdata.uns[{key!r}]")
    place = slots.coordinates(peaks, f"mdata[{atac!r}]").iloc[at].reset_index(drop=True)
    if format == "table":
        return _with_redundancy(pd.concat([sets, place], axis=1), mdata, f"{key}_redundancy")
    name = sets["target"] + "|" + sets["group"] + "|" + sets["rank"].astype(int).astype(str)
    gain = sets["gain"].to_numpy(dtype=float)
    if format == "bed":
        largest = np.abs(gain).max(initial=0) or 1.0
        score = np.rint(1000 * np.abs(gain) / largest).astype(int)
        return place.assign(name=name, score=score, strand=_UNKNOWN)
    gene = slots.coordinates(genes, f"mdata[{rna!r}]", ("chrom", "start", "end", "tss")).assign(
        strand=genes.var["strand"].astype(str)
    )
    gene = gene.iloc[slots.positions(genes, sets["target"], f"mdata.uns[{key!r}]")].reset_index(drop=True)
    known = gene["tss"] >= 0
    return pd.DataFrame(
        {
            "chrom1": place["chrom"],
            "start1": place["start"],
            "end1": place["end"],
            "chrom2": gene["chrom"].where(known, _UNKNOWN),
            "start2": gene["tss"],
            "end2": (gene["tss"] + 1).where(known, -1),
            "name": name,
            "score": gain,
            "strand1": _UNKNOWN,
            "strand2": gene["strand"].where(known, _UNKNOWN),
        }
    )


def _with_redundancy(table: pd.DataFrame, mdata: "MuData", key: str) -> pd.DataFrame:
    """Add what each element does within its set, where that is stored."""
    if key not in mdata.uns:
        return table
    elements = _sets.plain(record.read(mdata, key)["elements"])
    columns = ["group", "target", "peak"]
    return table.merge(elements[[*columns, *_ELEMENTS]], on=columns, how="left")
