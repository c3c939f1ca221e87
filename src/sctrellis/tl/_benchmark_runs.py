"""One run of a benchmark: split, fit, judge, measure, store. What `tl.benchmark` plans, this file does."""

import hashlib
import inspect
import json
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sctrellis._core import logs, slots
from sctrellis._core.keys import Keys
from sctrellis.tl._baseline_scores import BASELINES
from sctrellis.tl._edge_classifier import EDGE_METHODS

CLASSIFIERS = {name: name for name in EDGE_METHODS if name not in ("degree", "embedding")} | {
    "embedding_lr": "embedding"
}
"""Methods of `tl.edge_classifier` by their name here; "degree" is the baseline of that name."""
NAIVE = frozenset({*BASELINES, "one_hot", "embedding_lr", "cosine", "prefix"})
"""Methods that others have to beat."""
REAL, SHUFFLED, RANDOM, NO_EMBEDDING = "real", "shuffled", "random", "none"
PAIR_CLASSES = {"infosem": ("SS", "SU", "US", "UU")}
KEY = "benchmarked"
TEXT = ("method", "kind", "embedding", "scheme", "pair_class", "metric", "level", "note", "error")
COLUMNS = (
    *("method", "kind", "embedding", "scheme", "pair_class", "seed", "metric", "level", "value", "base"),
    *("n_pairs", "n_positive", "n_regulators", "scored", "seconds", "wall_seconds", "peak_memory_mb"),
    *("note", "error"),
)
# What a method may raise when it fails. A full disk (OSError), an interruption and the end of the process stop the
# benchmark instead: what is done stays.
FAILURES = (
    *(ValueError, TypeError, KeyError, IndexError, AttributeError, ImportError),
    *(RuntimeError, ArithmeticError, MemoryError),
)
_POLL = 0.01
"""Seconds between two looks at the memory in use."""


@dataclass(frozen=True)
class Plan:
    """A method of the benchmark: what to call, and what it reads."""

    name: str
    function: Callable[..., Any]
    options: Mapping[str, Any]
    kind: str
    labels: bool
    embedding: str | None

    def described(self) -> dict[str, Any]:
        """Return what identifies the method, in types that JSON has."""
        module, name = getattr(self.function, "__module__", ""), getattr(self.function, "__qualname__", "")
        return {"function": f"{module}.{name}", "options": plain(dict(self.options)), "embedding": self.embedding}


@dataclass(frozen=True)
class Common:
    """What all runs share."""

    network: str
    universe: str
    test_frac: float
    val_frac: float
    metrics: tuple[str, ...]
    regulators: Any
    layer: str | None
    folder: str | None = None
    fingerprint: str = ""


@dataclass(frozen=True)
class Task:
    """Runs that share one fit: a method with one kind of embedding and one seed, on one scheme or more."""

    plan: Plan
    embedding: str
    seed: int
    schemes: tuple[str, ...]
    common: Common = field(repr=False)

    def file(self, scheme: str) -> str:
        """Return the name of the file of one run."""
        name = json.dumps([self.plan.name, self.embedding, scheme, self.seed])
        slug = "".join(c if c.isalnum() and c.isascii() else "-" for c in self.plan.name)[:40]
        digest = hashlib.sha256(name.encode()).hexdigest()[:10]
        return f"{slug}.{self.embedding}.{scheme}.{self.seed}.{digest}.json"


def plan(name: str, spec: Any, *, network: str, embedding: str | None) -> Plan:
    """Return what the name of a method, or a pair of function and arguments, asks for."""
    from sctrellis import tl

    kind = "baseline" if spec is None and name in NAIVE else "method"
    called, options = (name, {}) if spec is None else spec
    options = dict(options)
    own = called if callable(called) else None
    if own is None:
        named = options.get("embedding", embedding)
        own, preset = _function(called, network=network, embedding=named, method=name)
        options = {**preset, **options}
        kind = "baseline" if called in NAIVE else kind
    parameters = inspect.signature(own).parameters
    if "embedding" in parameters and "embedding" not in options and callable(called) and embedding is not None:
        options["embedding"] = embedding
    used = options.get("embedding")
    if used is not None and not isinstance(used, str):
        msg = f"Expected the `embedding` of method {name!r} to be a key of `adata.varm`, found {used!r}."
        raise TypeError(msg)
    reads = options.get("known") is not None or options.get("network") is not None
    if own is tl.baseline:
        reads = options.get("method") == "degree"
    elif "network" in parameters:
        reads = True
    if "network" in parameters and reads:
        options.setdefault("network", network)
    try:
        inspect.signature(own).bind(
            None, **{**options, **arguments_of(parameters, 0, Common(network, "", 0, 0, (), None, None))}
        )
    except TypeError as error:
        msg = f"`methods`: {name!r} cannot be called with {sorted(options)}: {error}."
        raise TypeError(msg) from None
    return Plan(name, own, options, kind, reads, used)


def known_names() -> list[str]:
    """Return the names of methods that need no function."""
    others = ("deepsem", "infosem", "infosem_b", "infosem_c", "infosem_bc", "regnet")
    return list(dict.fromkeys([*BASELINES, "cosine", "prefix", *CLASSIFIERS, *others]))


def _function(
    called: Any, *, network: str, embedding: str | None, method: str
) -> tuple[Callable[..., Any], dict[str, Any]]:
    from sctrellis import tl

    if called in BASELINES:
        return tl.baseline, {"method": called}
    if called == "prefix":
        return prefix, {}
    if called == "cosine":
        return cosine, {"embedding": _needed(embedding, method)}
    if called in CLASSIFIERS:
        reads = called in ("scgreat", "embedding_lr")
        own = {"embedding": _needed(embedding, method)} if reads else {}
        return tl.edge_classifier, {"method": CLASSIFIERS[called], **own}
    if called in ("infosem_b", "infosem_c", "infosem_bc"):
        prior = called.removeprefix("infosem_")
        own = {"embedding": _needed(embedding, method)} if "b" in prior else {}
        return tl.infosem, {**own, **({"known": network} if "c" in prior else {})}
    if isinstance(called, str) and called in set(tl.__all__) - {"benchmark", "bias_audit", "evaluate"}:
        return getattr(tl, called), {}
    msg = (
        f"`methods`: {called!r} is none of the methods known: {', '.join(known_names())}. For a function of your own, "
    )
    msg += "give `{name: (function, arguments)}`."
    raise ValueError(msg)


def _needed(embedding: str | None, method: str) -> str:
    if embedding is None:
        msg = f"`methods`: {method!r} reads an embedding: name a key of `adata.varm` with `embedding=`."
        raise ValueError(msg)
    return embedding


def cosine(adata: Any, *, embedding: str, key_added: str) -> None:
    """Store the cosine of the embeddings of both genes (0 where one has none), shifted to [0, 2], for every pair."""
    vectors = np.nan_to_num(slots.read_embedding(adata, embedding))
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(length > 0, length, 1)
    _every_pair(adata, 1 + unit @ unit.T, key_added)


def prefix(adata: Any, *, key_added: str) -> None:
    """Store, for every pair, how many leading characters both names share, whatever their case."""
    genes = pd.Index(adata.var_names).str.upper()
    width = max(map(len, genes))
    letters = np.array([list(name.ljust(width, "\0")) for name in genes])
    equal = np.ones((len(genes), len(genes)), dtype=bool)
    shared = np.zeros((len(genes), len(genes)), dtype=np.float32)
    for column in letters.T:
        equal &= (column[:, None] == column) & (column != "\0")
        shared += equal
    _every_pair(adata, shared, key_added)


def _every_pair(adata: Any, scores: np.ndarray, key: str) -> None:
    everything = np.arange(adata.n_vars)
    slots.write(adata, varp={key: slots.network_csr(scores, everything, everything, adata.n_vars)})


def part(adata: Any, common: Common, embeddings: Sequence[str]) -> Any:
    """Return an object with what a run reads, sharing the matrices with the original."""
    from anndata import AnnData

    if adata.isbacked:
        adata = adata.to_memory()
    networks = [key for key in (common.network, Keys(common.network).fold) if key in adata.varp]
    keys = [common.network, *embeddings]
    return AnnData(
        X=adata.X,
        obs=adata.obs.copy(),
        var=adata.var.copy(),
        layers=dict(adata.layers),
        varm={key: adata.varm[key] for key in embeddings},
        varp={key: adata.varp[key] for key in networks},
        uns={key: adata.uns[key] for key in keys if key in adata.uns},
    )


def control(values: np.ndarray, kind: str, seed: int) -> np.ndarray:
    """Return an embedding that knows nothing of its genes: rows swapped, or normal numbers of the same scale."""
    rng = np.random.default_rng([seed, 1])
    there = ~np.isnan(values).any(axis=1)
    found, changed = values[there], values.copy()
    if kind == SHUFFLED:
        changed[there] = found[rng.permutation(len(found))]
    else:
        changed[there] = found.mean(axis=0) + found.std(axis=0) * rng.standard_normal(found.shape)
    return changed.astype(np.float32)


def run(base: Any, task: Task) -> list[dict[str, Any]]:
    """Fit once, judge on every scheme, and return (and store) the rows; a failure is a row too."""
    from anndata import AnnData

    common, plan = task.common, task.plan
    adata = AnnData(
        X=base.X, obs=base.obs, var=base.var, layers=dict(base.layers), varm=dict(base.varm), varp=dict(base.varp),
        uns=dict(base.uns),
    )  # fmt: skip
    if task.embedding in (SHUFFLED, RANDOM):
        key = str(plan.embedding)
        slots.write(adata, varm={key: control(slots.read_embedding(adata, key), task.embedding, task.seed)})
    shared: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    for scheme in task.schemes:
        started = dict.fromkeys(COLUMNS, np.nan) | dict.fromkeys(TEXT, "")
        started |= {
            "method": plan.name,
            "kind": plan.kind,
            "embedding": task.embedding,
            "scheme": scheme,
            "pair_class": "all",
            "seed": task.seed,
        }
        found = _scheme(adata, task, scheme, started, shared)
        if common.folder is not None:
            _store(Path(common.folder) / task.file(scheme), {"fingerprint": _own_print(task), "rows": found})
        rows += found
    return rows


def _scheme(
    adata: Any, task: Task, scheme: str, started: dict[str, Any], shared: dict[str, Any]
) -> list[dict[str, Any]]:
    from sctrellis.pp import split_edges

    common, plan = task.common, task.plan
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            split_edges(
                adata,
                common.network,
                scheme=scheme,  # type: ignore[arg-type]
                universe=common.universe,  # type: ignore[arg-type]
                test_frac=common.test_frac,
                val_frac=common.val_frac,
                seed=task.seed,
            )
            if plan.labels or not shared:
                shared.clear()
                shared.update(_fit(adata, task))
        except FAILURES as error:
            return [{**started, "error": _said(error), "note": _notes(caught)}]
    if "error" in shared:
        return [{**started, **shared}]
    cost = {name: shared[name] for name in ("seconds", "wall_seconds", "peak_memory_mb")}
    fit_notes = "; ".join(filter(None, [shared["note"], _notes(caught)])) if plan.labels else shared["note"]
    rows = []
    for pair_class in PAIR_CLASSES.get(scheme, ("all",)):
        rows += _judge(adata, task, pair_class, {**started, **cost, "pair_class": pair_class, "note": fit_notes})
    return rows


def _fit(adata: Any, task: Task) -> dict[str, Any]:
    plan = task.plan
    given = arguments_of(inspect.signature(plan.function).parameters, task.seed, task.common)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cpu, wall = time.process_time(), time.perf_counter()
        with _memory() as memory:
            try:
                plan.function(adata, **{**given, **plan.options})
            except FAILURES as error:
                return {"error": _said(error), "note": _notes(caught)}
        cost = {"seconds": time.process_time() - cpu, "wall_seconds": time.perf_counter() - wall}
    if KEY not in adata.varp:
        return {"error": f"the function wrote no network to `adata.varp[{KEY!r}]` (its `key_added`)", "note": ""}
    return {**cost, "peak_memory_mb": memory[0], "note": _notes(caught)}


def arguments_of(parameters: Mapping[str, Any], seed: int, common: Common) -> dict[str, Any]:
    """Return the arguments that every run gives, of those that a function has."""
    given = {
        "seed": seed,
        "n_jobs": 1,
        "progress": False,
        "layer": common.layer,
        "regulators": common.regulators,
        "key_added": KEY,
    }
    loose = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    return {name: value for name, value in given.items() if name in parameters or (loose and name == "key_added")}


def _judge(adata: Any, task: Task, pair_class: str, started: dict[str, Any]) -> list[dict[str, Any]]:
    from sctrellis.tl._evaluate import evaluate

    common = task.common
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            table = evaluate(
                adata,
                KEY,
                network=common.network,
                fold="test",
                pair_class=None if pair_class == "all" else pair_class,  # type: ignore[arg-type]
                universe=common.universe,  # type: ignore[arg-type]
                regulators=common.regulators,
                baselines=(),
                metrics=common.metrics,  # type: ignore[arg-type]
                missing="lowest",
                n_boot=0,
            )
        except FAILURES as error:
            return [{**started, "error": _said(error)}]
    note = "; ".join(filter(None, [started["note"], _notes(caught)]))
    kept = ["metric", "level", "value", "base", "n_pairs", "n_positive", "n_regulators", "scored"]
    return [started | dict(zip(kept, line, strict=True), note=note) for line in table[kept].itertuples(index=False)]


def _said(error: BaseException) -> str:
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    return f"{type(error).__name__}: {text}".replace("\0", "")


def _notes(caught: Sequence[warnings.WarningMessage]) -> str:
    # Of the package's own warnings only: what others announce is no part of a result.
    texts = [str(w.message).replace(repr(KEY), "it") for w in caught if w.category is UserWarning]
    return "; ".join(dict.fromkeys(texts))


@contextmanager
def _memory() -> Iterator[list[float]]:
    """Give a list whose one number becomes the peak of resident memory over that at the start, in MB."""
    found, before, stop = [0.0], _resident(), threading.Event()
    peak = [before]

    def watch() -> None:
        while not stop.wait(_POLL):
            peak[0] = max(peak[0], _resident())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        stop.set()
        watcher.join()
        found[0] = (max(peak[0], _resident()) - before) / 1e6


def _resident() -> float:
    """Return the bytes of memory in use; where the system does not tell, the most that ever were."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    try:
        import resource
    except ImportError:  # Windows
        return np.nan
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def plain(value: Any) -> Any:
    """Return a value in types that JSON has; arrays by their hash, other objects by their text."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
    return value if value is None or isinstance(value, str | bool | int | float) else repr(value)


def settings(adata: Any, common: Common, embeddings: Sequence[str]) -> dict[str, Any]:
    """Return what all runs in a folder must share: the data, the known network and how they are split and judged."""
    known = slots.read_network(adata, common.network).tocoo()
    summary = slots.read_matrix(adata, common.layer).summary
    genes = "\n".join(map(str, adata.var_names)).encode()
    return {
        "genes": _sha(genes),
        "expression": _sha(str(adata.n_obs).encode(), summary.mean.tobytes(), summary.std.tobytes()),
        "known_edges": _sha(*(np.ascontiguousarray(part).tobytes() for part in (known.row, known.col, known.data))),
        "regulators": _sha(slots.read_regulators(adata, common.regulators).tobytes())
        if common.regulators is not None or "is_regulator" in adata.var
        else "",
        "embeddings": {key: _sha(slots.read_embedding(adata, key).tobytes()) for key in sorted(embeddings)},
        "network": common.network,
        "universe": common.universe,
        "test_frac": common.test_frac,
        "val_frac": common.val_frac,
        "metrics": list(common.metrics),
        "layer": common.layer,
    }


def _sha(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def open_folder(folder: str | Path, shared: Mapping[str, Any]) -> Path:
    """Make the folder, or check that what it holds was made with the same settings."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        msg = f"`folder`: '{folder}' is a file. Name a folder, new or of an earlier benchmark."
        raise FileExistsError(msg)
    file = folder / "settings.json"
    if file.is_file():
        stored = _read(file)
        if stored is None:
            msg = f"`folder`: '{file}' cannot be read. Name another folder, or delete this one."
            raise ValueError(msg)
        # An embedding may join later; one that is there must be the same.
        differs = [k for k, v in shared.items() if k != "embeddings" and stored.get(k) != v]
        old = stored.get("embeddings", {})
        differs += [f"embedding {k!r}" for k, v in shared["embeddings"].items() if old.get(k, v) != v]
        if differs:
            msg = (
                f"`folder`: '{folder}' holds a benchmark with other settings ({', '.join(differs)} differ). Name "
                "another folder, or call with the settings of that one."
            )
            raise ValueError(msg)
        shared = {**shared, "embeddings": {**old, **shared["embeddings"]}}
    elif folder.is_dir() and any(folder.iterdir()):
        msg = f"`folder`: '{folder}' is not empty and holds no benchmark. Name a new folder."
        raise ValueError(msg)
    folder.mkdir(parents=True, exist_ok=True)
    _store(file, dict(shared))
    return folder


def finished(task: Task, scheme: str) -> list[dict[str, Any]] | None:
    """Return the rows of a run that is done; None where it is not, or failed and is to be tried again."""
    if task.common.folder is None:
        return None
    file = Path(task.common.folder) / task.file(scheme)
    stored = _read(file) if file.is_file() else None
    if stored is None:
        return None
    if stored.get("fingerprint") != _own_print(task):
        msg = (
            f"`folder`: the run of {task.plan.name!r} in '{file}' was made with other arguments. Give the method "
            "another name, or name another folder."
        )
        raise ValueError(msg)
    rows = stored["rows"]
    return None if any(row["error"] for row in rows) else rows


def _own_print(task: Task) -> dict[str, Any]:
    return task.plan.described()


def _read(file: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(file.read_text("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        logs.logger.warning("'%s' is damaged; its run is done again", file)
        return None
    return found if isinstance(found, dict) else None


def _store(file: Path, content: Mapping[str, Any]) -> None:
    """Write a file at once or not at all: a kill, or a full disk, leaves what was there."""
    new = file.with_name(f".{file.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with new.open("w", encoding="utf-8") as handle:
            json.dump(content, handle, indent=1)
            handle.flush()
            os.fsync(handle.fileno())
        new.replace(file)
    finally:
        new.unlink(missing_ok=True)


def table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return rows as a table with one type a column."""
    found = pd.DataFrame(list(rows), columns=list(COLUMNS))
    for name in TEXT:
        found[name] = found[name].astype(str)
    for name in set(COLUMNS) - set(TEXT):
        found[name] = found[name].astype(np.int64 if name == "seed" else np.float64)
    return found
