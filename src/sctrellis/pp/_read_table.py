"""Tables of any make: plain or gzip, comma, tab or semicolon, CSV or parquet."""

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sctrellis._core import checks

# What the first bytes of a file that is no table give it away as.
_NOT_TABLES = {
    b"PK\x03\x04": "a zip archive, as Excel writes. Save the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "an old Excel file. Save the sheet as CSV",
    b"\x89HDF": "an HDF5 file. Give a table, as CSV, TSV or parquet",
    b"\x93NUMPY": "a NumPy array. Give a table, as CSV, TSV or parquet",
    b"BZh": "compressed with bzip2. Decompress it, or use gzip",
    b"\xfd7zXZ": "compressed with xz. Decompress it, or use gzip",
}


def describe(value: Any) -> str | None:
    """Return what an argument was, in a few words that fit a record: no data, no absolute path."""
    if value is None:
        return None
    if isinstance(value, str | Path):
        return Path(value).name
    name = type(value).__name__
    if hasattr(value, "number_of_edges"):
        return f"{name}, {value.number_of_edges()} edges"
    if hasattr(value, "shape"):
        return f"{name}, {' x '.join(map(str, value.shape))}"
    return f"{name}, {len(value)} entries" if hasattr(value, "__len__") else name


def read_bytes(argument: str, path: str | Path) -> bytes:
    """Return the contents of a file, decompressed where its first bytes say gzip, whatever its name."""
    path = checks.existing_file(argument, path)
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            msg = f"`{argument}`: the gzip file '{path.name}' is cut short or damaged ({error}). Copy it again."
            raise ValueError(msg) from error
    return content


def read_table(
    argument: str, path: str | Path, *, is_header: Callable[[list[str]], bool] = lambda row: True
) -> pd.DataFrame:
    """Return a table from a file; text columns are str, and a missing entry is the empty str.

    Parameters
    ----------
    argument
        Name of the user's argument, for messages.
    path
        CSV, TSV, semicolon-separated text or parquet, plain or gzip.
    is_header
        Given the first row, whether it names the columns; otherwise they are numbered from 0.
    """
    content = read_bytes(argument, path)
    name = Path(path).name
    if content[:4] == b"PAR1":
        try:
            return _with_index(pd.read_parquet(io.BytesIO(content)))
        except (ValueError, OSError) as error:
            msg = f"`{argument}`: the parquet file '{name}' cannot be read ({error}). Copy or write it again."
            raise ValueError(msg) from error
    frame = _read_text(argument, name, _decode(argument, name, content))
    if is_header([str(v) for v in frame.iloc[0]]):
        frame.columns = pd.Index([str(v).strip().lstrip("#") for v in frame.iloc[0]])
        frame = frame.iloc[1:].reset_index(drop=True)
        if not len(frame):
            msg = f"`{argument}`: '{name}' holds a header and no rows."
            raise ValueError(msg)
    return frame


def as_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a user's DataFrame with named levels of its index as columns."""
    return _with_index(frame)


def _with_index(frame: pd.DataFrame) -> pd.DataFrame:
    named = [level for level in frame.index.names if level is not None and level not in frame.columns]
    return frame.reset_index(level=named) if named else frame


def _decode(argument: str, name: str, content: bytes) -> str:
    for magic, what in _NOT_TABLES.items():
        if content.startswith(magic):
            msg = f"`{argument}`: '{name}' is {what}."
            raise ValueError(msg)
    if content[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\x00" in content[:4096]:
        msg = f"`{argument}`: '{name}' looks like UTF-16 text or a binary file. Save it as CSV in UTF-8."
        raise ValueError(msg)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        msg = f"`{argument}`: '{name}' is not UTF-8 text (byte {error.start}). Save it as CSV in UTF-8."
        raise ValueError(msg) from error
    if not text.strip():
        msg = f"`{argument}`: '{name}' is empty."
        raise ValueError(msg)
    return text


def _read_text(argument: str, name: str, text: str) -> pd.DataFrame:
    delimiter = _delimiter(text)
    options: dict[str, Any] = {"sep": delimiter, "header": None, "dtype": str, "keep_default_na": False}
    try:
        frame = pd.read_csv(io.StringIO(text), **options)
    except pd.errors.ParserError as error:
        try:
            # A lone quotation mark within a description would swallow the rows up to the next one.
            frame = pd.read_csv(io.StringIO(text), quoting=csv.QUOTE_NONE, **options)
        except pd.errors.ParserError:
            msg = (
                f"`{argument}`: the rows of '{name}' have different numbers of columns when split at {delimiter!r} "
                f"({error}). Was it written with row names and no name for their column?"
            )
            raise ValueError(msg) from error
    return frame.fillna("")


def _delimiter(text: str) -> str:
    """Return the delimiter that splits the first lines evenly into the most columns."""
    lines = [line for line in text[:65536].splitlines()[:200] if line.strip()]
    if len(text) > 65536 and len(lines) > 1:
        lines = lines[:-1]  # may be cut
    best, width = "\t", 1
    for delimiter in "\t;,":
        widths = {len(row) for row in csv.reader(lines, delimiter=delimiter)}
        if len(widths) == 1 and max(widths) > width:
            best, width = delimiter, max(widths)
    return best if width > 1 else max("\t;,", key=lines[0].count)


def normal(column: Hashable) -> str:
    """Return a column name as it is compared: without case, blanks, '_', '-' and '#'."""
    return "".join(c for c in str(column).casefold() if c not in " _-#.")


def find_column(
    argument: str, frame: pd.DataFrame, option: str, given: str | int | None, synonyms: Sequence[str] = ()
) -> int | None:
    """Return the position of a column: the one that the user names, or else the first of its usual names.

    Parameters
    ----------
    argument, option
        Names of the user's arguments that hold the table and choose the column, for messages.
    frame
        The table.
    given
        Name (case is ignored where that leaves one column) or position; None looks for ``synonyms``.
    synonyms
        Usual names, in order of preference, as :func:`normal` returns them.
    """
    columns = list(frame.columns)
    if given is None:
        lowered = [normal(column) for column in columns]
        return next((lowered.index(name) for name in synonyms if name in lowered), None)
    if isinstance(given, bool) or not isinstance(given, int | np.integer | str):
        msg = f"Expected `{option}` to be the name or the position of a column of `{argument}`, found {given!r}."
        raise TypeError(msg)
    hits = [i for i, column in enumerate(columns) if column == given]
    if not hits and isinstance(given, int | np.integer) and 0 <= given < len(columns):
        hits = [int(given)]
    if not hits and isinstance(given, str):
        hits = [i for i, column in enumerate(columns) if normal(column) == normal(given)]
    if len(hits) == 1:
        return hits[0]
    problem = "occurs more than once" if hits else "not found"
    msg = f"`{option}`: column {given!r} {problem} in `{argument}`. Columns found: {listed(frame)}."
    raise ValueError(msg)


def listed(frame: pd.DataFrame) -> str:
    """Return the column names, quoted, for a message."""
    return checks.some(frame.columns, 12) or "none"
