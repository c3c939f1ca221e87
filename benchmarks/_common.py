"""What the benchmarks share: arguments, a cache of fits, and tables that say how they were made."""

import argparse
import glob
import hashlib
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

HERE = Path(__file__).parent
SOURCE = HERE.parent / "src" / "sctrellis"
CACHE = HERE / ".cache"
# Read at the start: a fit belongs to the code that was loaded, also where a file changes meanwhile.
_CODE = {str(file.relative_to(SOURCE)): file.read_bytes() for file in SOURCE.rglob("*.py")}
_PACKAGES = ("sctrellis", "torch", "numpy", "scipy", "scikit-learn", "anndata")


def parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with the arguments that every benchmark has."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    made.add_argument("--results", type=Path, default=HERE / "results", help="folder of the tables")
    made.add_argument("--fresh", action="store_true", help="repeat fits that an earlier run has stored")
    made.add_argument("--reuse", action="store_true", help="also take stored fits that other versions of the code made")
    return made


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of its children that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(part.ru_utime + part.ru_stime for part in used)


def digest(sources: Sequence[str]) -> str:
    """Return a hash of files of the package, given relative to it: results of other code are not reused."""
    mark = hashlib.sha256()
    for name in sorted(sources):
        mark.update(_CODE[name])
    return mark.hexdigest()[:12]


def cached(
    key: Mapping[str, Any],
    sources: Sequence[str],
    compute: Callable[[], dict[str, np.ndarray]],
    *,
    fresh: bool = False,
    reuse: bool = False,
) -> dict[str, np.ndarray]:
    """Return the arrays of a fit, and its ``cpu_s``, from the cache or computed and stored.

    A stopped benchmark goes on where it was. The name of the file holds the arguments and the hash of the code.
    """
    text = json.dumps({**key, "code": digest(sources)}, sort_keys=True)
    name = "-".join(str(value) for value in key.values()).replace("/", "_")
    file = CACHE / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.npz"
    if reuse and not fresh and not file.is_file():
        others = CACHE.glob(f"{glob.escape(name)}-{'?' * 12}.npz")
        file = max(others, key=lambda other: other.stat().st_mtime, default=file)
    if file.is_file() and not fresh:
        with np.load(file) as stored:
            return dict(stored)
    start = cpu_seconds()
    arrays = compute()
    arrays["cpu_s"] = np.array(cpu_seconds() - start)
    CACHE.mkdir(exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}.tmp.npz")
    np.savez(part, **arrays)
    part.replace(file)
    print(f"  {name}: {arrays['cpu_s']:.1f} CPU s", flush=True)
    return arrays


def provenance(seeds: str) -> list[str]:
    """Return the lines that say how a table was made."""
    script = Path(sys.argv[0]).name
    command = " ".join(["python", f"benchmarks/{script}", *sys.argv[1:]])
    versions = []
    for name in _PACKAGES:
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            versions.append(f"{name} missing")
    threads = os.environ.get("OMP_NUM_THREADS", "default")
    return [
        f"Command: {command}",
        f"Seeds: {seeds}",
        f"Code: {_commit()}",
        f"Versions: Python {platform.python_version()}, {', '.join(versions)}",
        # Fits that were made elsewhere and brought here are told so by hand.
        f"Machine: {os.environ['SCTRELLIS_MACHINE']}"
        if "SCTRELLIS_MACHINE" in os.environ
        else f"Machine: {_processor()}, {os.cpu_count()} cores, OMP_NUM_THREADS={threads}, "
        f"load {os.getloadavg()[0]:.1f} when the table was written",
        f"Date: {time.strftime('%Y-%m-%d')}",
    ]


def _commit() -> str:
    if "SCTRELLIS_COMMIT" in os.environ:  # a copy of the files on a machine that has no git
        return f"commit {os.environ['SCTRELLIS_COMMIT']}"
    asked = subprocess.run(
        ["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"commit {asked.stdout.strip()}" if asked.returncode == 0 else "not under git"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def write(
    folder: Path,
    name: str,
    *,
    title: str,
    reading: str,
    seeds: str,
    data: pd.DataFrame,
    sections: Sequence[tuple[str, pd.DataFrame | str]],
) -> None:
    """Write ``name.csv`` (the numbers, long) and ``name.md`` (the tables to read), both with how they were made."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [*provenance(seeds), f"How to read it: {reading}"]
    with (folder / f"{name}.csv").open("w", encoding="utf-8") as out:
        out.writelines(f"# {line}\n" for line in [title, *lines])
        data.to_csv(out, index=False, float_format="%.5g")
    text = [f"# {title}", ""]
    for line in lines:
        label, rest = line.split(": ", 1)
        text.append(f"- {label}: `{rest}`" if label == "Command" else f"- {label}: {rest}")
    for heading, content in sections:
        text += ["", f"## {heading}", "", content if isinstance(content, str) else markdown(content)]
    (folder / f"{name}.md").write_text("\n".join(text) + "\n", encoding="utf-8")
    print(f"{folder / name}.md", flush=True)


def markdown(frame: pd.DataFrame) -> str:
    """Return a table of strings and numbers as Markdown."""
    rows = [[str(column) for column in frame.columns], ["---"] * frame.shape[1]]
    rows += [[_cell(value) for value in row] for row in frame.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.3g}"
    return str(value).replace("|", "\\|")


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Return mean and standard deviation (divisor n - 1); no deviation of a single value."""
    array = np.asarray(values, dtype=float)
    deviation = f" ± {array.std(ddof=1):.{digits}f}" if len(array) > 1 else ""
    return f"{array.mean():.{digits}f}{deviation}"
