"""Where peaks and genes lie: read from names, columns, BED and GTF, and brought to one naming of chromosomes."""

import gzip
import io
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sctrellis._core import checks
from sctrellis.pp import _identifiers as identifiers
from sctrellis.pp import _read_table as tables

_CHROM = (
    "chrom", "chr", "chromosome", "seqnames", "seqname", "seqid", "contig", "chromosomename",
    "chromosome/scaffoldname",
)  # fmt: skip
_START = ("start", "chromstart", "txstart", "genestart", "genestart(bp)", "startposition")
_END = ("end", "chromend", "txend", "geneend", "geneend(bp)", "endposition", "stop")
_STRAND = ("strand",)
_TSS = ("tss", "transcriptionstartsite", "transcriptionstartsite(tss)")
_NAMES = (
    "name", "genename", "genesymbol", "symbol", "gene", "hgncsymbol", "externalgenename", "geneid", "ensemblid",
    "ensemblgeneid", "genestableid", "genestableidversion", "geneids",
)  # fmt: skip
_FEATURE = ("feature", "type")
_STRANDS = {"+": "+", "1": "+", "+1": "+", "1.0": "+", "-": "-", "-1": "-", "-1.0": "-", "\u2212": "-"}
_BED = ("chrom", "start", "end", "name", "score", "strand")
# Names of chromosomes may hold separators too, as chrUn_KI270742v1 does: the last two numbers are the positions.
_INTERVAL = r"^(?P<chrom>.+)(?P<first>[:_.-])(?P<start>\d+)(?P<second>[_.-])(?P<end>\d+)$"
_VERSION = r"^(ENS[A-Z]*\d+)\.\d+(?:_PAR_Y)?$"
# No known gene is longer (RBFOX1 has 2.5 Mb): copies of a name that lie further apart are different genes.
_LONGEST = 3_000_000


def parse_peaks(var: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return `chrom`, `start` and `end` of every peak, chromosome ``""`` where unknown, and formats of names read.

    Columns win over a column ``interval``, as 10x files have it, and that over names.
    """
    chrom, start, end = (_find(var, synonyms) for synonyms in (_CHROM, _START, _END))
    if chrom is not None and start is not None and end is not None:
        return _checked(var.iloc[:, chrom], var.iloc[:, start], var.iloc[:, end], var.index), []
    found = _parsed(var["interval"]) if "interval" in var else None
    if found is None or found.empty:
        found = _parsed(var.index)
    table = found.reindex(np.arange(len(var)))
    formats = [f"chrom{first}start{second}end" for first, second in found[["first", "second"]].drop_duplicates().values]
    return _checked(table["chrom"], table["start"], table["end"], var.index), formats


def _parsed(names: Any) -> pd.DataFrame:
    """Return what could be read of names such as ``chr1:10-20``; the index says which."""
    plain = pd.Series(np.asarray(names, dtype=object)).astype(str).str.strip().str.replace(",", "", regex=False)
    return plain.str.extract(_INTERVAL).dropna()


def _checked(chrom: pd.Series, start: pd.Series, end: pd.Series, names: pd.Index) -> pd.DataFrame:
    """Return intervals by position, without those of unknown chromosome or position."""
    names_of = chrom.astype(object).where(chrom.notna().to_numpy(), "").astype(str).str.strip().to_numpy(dtype=object)
    low, high = (pd.to_numeric(column.astype(object), errors="coerce").to_numpy(float) for column in (start, end))
    known = (names_of != "") & np.isfinite(low) & np.isfinite(high) & (low >= 0)
    empty = known & (high <= low)
    if empty.any():
        first = np.flatnonzero(empty)[0]
        msg = (
            f"{int(empty.sum())} peaks end where they start or before it (first: {names[first]!r}, {low[first]:.0f} to "
            f"{high[first]:.0f}). Starts count from 0 and ends are not part of the peak."
        )
        raise ValueError(msg)
    return pd.DataFrame(
        {
            "chrom": np.where(known, names_of, ""),
            "start": np.where(known, low, -1).astype(np.int64),
            "end": np.where(known, high, -1).astype(np.int64),
        }
    )


def same_naming(chrom: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return names of chromosomes as ``other`` spells them: ``1`` as ``chr1``, ``MT`` as ``chrM``, or back."""
    spelled = {_bare(name): name for name in pd.unique(other) if name}
    prefix = "chr" if sum(str(name).lower().startswith("chr") for name in spelled.values()) * 2 > len(spelled) else ""

    def spell(name: str) -> str:
        bare = _bare(name)
        return spelled.get(bare, f"{prefix}{bare}" if prefix and len(bare) <= 2 else name)

    mapping = {name: spell(name) if name else "" for name in pd.unique(chrom)}
    return np.array([mapping[name] for name in chrom], dtype=object)


def _bare(name: str) -> str:
    bare = re.sub("^chr", "", str(name), flags=re.IGNORECASE)
    return "M" if bare == "MT" else bare


def locate_genes(genes: Any, var_names: pd.Index, *, match_case: bool, aliases: Any) -> pd.DataFrame:
    """Return `chrom`, `start`, `end`, `strand` and `tss` of every gene; ``""`` and -1 where unknown.

    Parameters
    ----------
    genes
        Path of a BED, GTF, GFF3, CSV or parquet file, plain or gzip, or a DataFrame.
    var_names
        Names of the genes to find.
    match_case, aliases
        As in :func:`sctrellis.pp.regulators`.
    """
    frame = _gene_table(genes)
    at = {
        name: _find(frame, synonyms)
        for name, synonyms in (("chrom", _CHROM), ("start", _START), ("end", _END), ("strand", _STRAND), ("tss", _TSS))
    }
    has_place = at["tss"] is not None or (at["start"] is not None and at["end"] is not None)
    if at["chrom"] is None or not has_place:
        msg = (
            "`genes` needs the columns 'chrom', 'start', 'end', a name of the gene and 'strand', or the columns of a "
            f"BED or GTF file. Columns found: {tables.listed(frame)}."
        )
        raise ValueError(msg)
    feature = _find(frame, _FEATURE)
    if feature is not None and (frame.iloc[:, feature] == "gene").any():
        frame = frame[(frame.iloc[:, feature] == "gene").to_numpy()]
    row_gene, offered = _match_rows(frame, var_names, match_case=match_case, aliases=aliases)
    if not (row_gene >= 0).any():
        raise checks.no_match("genes", offered, list(var_names))
    columns = {name: None if i is None else frame.iloc[:, i].to_numpy() for name, i in at.items()}
    rows = _rows(columns, row_gene)
    located = _one_place_each(rows).reindex(np.arange(len(var_names)))
    located["chrom"] = located["chrom"].fillna("").astype(object)
    located["strand"] = located["strand"].fillna("").astype(object)
    for name in ("start", "end", "tss"):
        located[name] = located[name].fillna(-1).astype(np.int64)
    return located[["chrom", "start", "end", "strand", "tss"]]


def _find(frame: pd.DataFrame, synonyms: Sequence[str]) -> int | None:
    return tables.find_column("genes", frame, "", None, synonyms)


def _match_rows(
    frame: pd.DataFrame, var_names: pd.Index, *, match_case: bool, aliases: Any
) -> tuple[np.ndarray, list[str]]:
    """Return the gene of every row, -1 where none, by any of its names; and names, for a message."""
    usual = [i for i, column in enumerate(frame.columns) if tables.normal(column) in _NAMES]
    if not usual:
        msg = (
            f"`genes` has no column of gene names, such as 'name' or 'gene_id'. Columns found: {tables.listed(frame)}."
        )
        raise ValueError(msg)
    row_gene = np.full(len(frame), -1, dtype=np.int64)
    offered: list[str] = []
    bare_genes = _without_version(var_names)
    for i in usual:
        codes, names = identifiers.factorize(frame.iloc[:, i])
        offered = offered or list(names)
        exact = identifiers.match(names, var_names, match_case=match_case, aliases=aliases).position
        bare = pd.Index(names.str.replace(_VERSION, r"\1", regex=True))
        # `match` wants each name once; names that differ only in their version share what is found.
        bare_codes, bare_names = pd.factorize(bare)
        by_id = identifiers.match(pd.Index(bare_names, dtype=object), bare_genes).position[bare_codes]
        found = np.append(np.where(exact >= 0, exact, by_id), -1)[codes]
        row_gene = np.where(row_gene >= 0, row_gene, found)
    return row_gene, offered


def _without_version(names: pd.Index) -> pd.Index:
    bare = names.astype(object).str.replace(_VERSION, r"\1", regex=True)
    return pd.Index(np.where(bare.duplicated(keep=False), names, bare), dtype=object)


def _rows(columns: dict[str, np.ndarray | None], row_gene: np.ndarray) -> pd.DataFrame:
    """Return the rows of the table that are of a gene, in one set of columns."""
    kept = row_gene >= 0

    def numbers(name: str) -> np.ndarray:
        values = pd.to_numeric(pd.Series(columns[name], dtype=object)[kept], errors="coerce").to_numpy(float)
        if not np.isfinite(values).all() or (values < 0).any():
            bad = int((~np.isfinite(values) | (values < 0)).sum())
            msg = f"Column {name!r} of `genes` holds {bad} values that are no positions."
            raise ValueError(msg)
        return values.astype(np.int64)

    rows = pd.DataFrame({"gene": row_gene[kept]})
    rows["chrom"] = pd.Series(columns["chrom"], dtype=object)[kept].astype(str).str.strip().to_numpy()
    strand = columns["strand"]
    rows["strand"] = "" if strand is None else pd.Series(strand)[kept].astype(str).map(_STRANDS).fillna("").to_numpy()
    if columns["start"] is None or columns["end"] is None:
        rows["tss"] = numbers("tss")
        return rows.assign(start=rows["tss"], end=rows["tss"] + 1)
    rows["start"], rows["end"] = numbers("start"), numbers("end")
    if (rows["end"] <= rows["start"]).any():
        msg = f"{int((rows['end'] <= rows['start']).sum())} rows of `genes` end where they start or before it."
        raise ValueError(msg)
    if columns["tss"] is not None:
        rows["tss"] = numbers("tss")
    return rows


def _one_place_each(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one interval per gene over all its rows; a gene with rows in different places has none."""
    # Copies on alternative contigs, and on Y of what is also on X, are the same gene.
    rows = rows.assign(rank=rows["chrom"].map({name: _rank(name) for name in rows["chrom"].unique()}))
    rows = rows[rows["rank"] == rows.groupby("gene")["rank"].transform("min")]
    groups = rows.groupby("gene")
    first = groups.first()
    low, high = groups["start"].min(), groups["end"].max()
    same = (groups["chrom"].nunique() == 1) & (groups["strand"].nunique() == 1) & (high - low <= _LONGEST)
    table = pd.DataFrame({"chrom": first["chrom"], "start": low, "end": high, "strand": first["strand"]})
    forward, backward = table["strand"] == "+", table["strand"] == "-"
    table["tss"] = np.where(forward, low, np.where(backward, high - 1, (low + high) // 2))
    if "tss" in rows:
        # The start that lies furthest upstream, as of the interval.
        table["tss"] = np.where(backward, groups["tss"].max(), groups["tss"].min())
    return table[same]


def _rank(chrom: str) -> int:
    bare = _bare(chrom)
    if re.fullmatch(r"\d{1,2}[LR]?|[A-Z]|[IVX]+", bare):
        return 1 if bare == "Y" else 0
    return 2


def _gene_table(genes: Any) -> pd.DataFrame:
    """Return the rows of a table of genes, with names of columns."""
    if isinstance(genes, pd.DataFrame):
        frame = tables.as_frame(genes)
        if not {tables.normal(column) for column in frame.columns} & {*_NAMES} and not _numbered(frame.index):
            frame = frame.reset_index(names="name")
        return frame
    if not isinstance(genes, str | Path):
        msg = f"Expected `genes` to be the path of a BED or GTF file, or a DataFrame, found {type(genes).__name__}."
        raise TypeError(msg)
    path = checks.existing_file("genes", genes)
    if _is_gtf(path):
        return _read_gtf(path)
    frame = tables.read_table("genes", path, is_header=lambda row: not _is_interval(row))
    if frame.columns.dtype.kind == "i":
        extra = [f"column_{i}" for i in range(len(_BED), frame.shape[1])]
        frame.columns = pd.Index([*_BED, *extra][: frame.shape[1]])
    return frame


def _numbered(index: pd.Index) -> bool:
    return isinstance(index, pd.RangeIndex) or index.dtype.kind in "iu"


def _is_interval(row: list[str]) -> bool:
    return len(row) >= 3 and row[1].strip().isdigit() and row[2].strip().isdigit()


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file, plain or gzip, whatever its name."""
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path, "rt", encoding="utf-8") if zipped else path.open(encoding="utf-8") as lines:
            yield from lines
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        msg = f"`genes`: the gzip file '{path.name}' is cut short or damaged ({error}). Copy it again."
        raise ValueError(msg) from error


def _is_gtf(path: Path) -> bool:
    try:
        line = next((line for line in _lines(path) if line.strip() and line[0] != "#"), "")
    except ValueError:
        return False  # no text: `read_table` says what is wrong
    fields = line.rstrip("\n").split("\t")
    return len(fields) == 9 and fields[3].isdigit() and fields[4].isdigit() and fields[6] in ("+", "-", ".")


def _read_gtf(path: Path) -> pd.DataFrame:
    """Return the genes of a GTF or GFF3 file, or where it has none, the transcripts or exons with their gene."""
    # Line by line: of some three million lines of an annotation, one in fifty is of a gene.
    for feature in ("gene", "transcript", "exon"):
        text = "".join(line for line in _lines(path) if f"\t{feature}\t" in line and line[0] != "#")
        if text:
            break
    else:
        msg = f"`genes`: '{path.name}' has no line of a gene, transcript or exon."
        raise ValueError(msg)
    frame = pd.read_csv(io.StringIO(text), sep="\t", header=None, quoting=3, dtype=str, usecols=[0, 3, 4, 6, 8])
    frame.columns = pd.Index(["chrom", "start", "end", "strand", "attributes"])
    attributes = frame.pop("attributes")
    frame["start"] = frame["start"].astype(np.int64) - 1  # counted from 1 here, from 0 with us
    frame["end"] = frame["end"].astype(np.int64)
    for name, keys in (("name", "gene_name|Name|gene"), ("gene_id", "gene_id|ID")):
        found = attributes.str.extract(rf'(?:^|;)\s*(?:{keys})[ =]"?(?:gene:)?([^";]+)"?', expand=False)
        frame[name] = found.fillna("")
    return frame


def own_table(var: pd.DataFrame) -> pd.DataFrame | None:
    """Return coordinates that an AnnData's genes carry in columns or ``interval``, as `locate_genes` reads them."""
    places = {"chrom": _CHROM, "start": _START, "end": _END, "strand": _STRAND, "tss": _TSS}
    at = {name: _find(var, synonyms) for name, synonyms in places.items()}
    table = pd.DataFrame({name: var.iloc[:, i].to_numpy() for name, i in at.items() if i is not None}, index=var.index)
    if not {"chrom", "start", "end"} <= {*table}:
        found = _parsed(var["interval"]) if "interval" in var else None
        if found is None or found.empty:
            return None
        table = found[["chrom", "start", "end"]].set_axis(var.index[found.index])
    table = table[(table["chrom"].notna() & table["chrom"].astype(str).ne("")).to_numpy()]
    return None if table.empty else table.assign(name=table.index)
