"""The doors between rooms: who may import what, who writes slots, and no pickle anywhere."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src" / "sctrellis"
SOURCES = sorted(SRC.rglob("*.py"))
ROOMS = ("_core", "datasets", "explain", "get", "metrics", "models", "pl", "pp", "tl")
ARRAYS = frozenset({"numpy", "scipy", "pandas"})
FITS = frozenset({"sklearn", "joblib"})


@dataclass(frozen=True)
class Doors:
    """What a room may import: at the top of a file, and only inside a function (or for the type checker)."""

    top: frozenset[str]
    inside: frozenset[str] = frozenset()
    closed: frozenset[str] = frozenset()


# Rooms are named as `sctrellis.room`, other packages by their import name; `closed` bars part of an open room.
DOORS = {
    "_core": Doors(ARRAYS | {"anndata", "mudata"}, frozenset({"tqdm", "dask", "h5py", "zarr"})),
    "models": Doors(
        frozenset({"torch", "numpy", "scipy", "safetensors", "sctrellis._core"}),
        FITS | {"tqdm", "lightning_fabric"},
        closed=frozenset({"sctrellis._core.slots"}),
    ),
    "explain": Doors(
        frozenset({"torch", "numpy", "scipy", "safetensors", "sctrellis._core", "sctrellis.models"}),
        FITS | {"tqdm"},
        closed=frozenset({"sctrellis._core.slots"}),
    ),
    "metrics": Doors(
        ARRAYS | FITS | {"sctrellis._core"},
        frozenset({"lightgbm", "tqdm"}),
        closed=frozenset({"sctrellis._core.slots"}),
    ),
    "pp": Doors(
        ARRAYS | {"sctrellis._core"}, FITS | {"anndata", "mudata", "networkx", "pyarrow", "h5py", "scanpy", "tqdm"}
    ),
    "tl": Doors(
        ARRAYS | FITS | {"sctrellis._core", "sctrellis.metrics"},
        frozenset(
            {"sctrellis.models", "sctrellis.explain", "sctrellis.pp"}
            | {"anndata", "mudata", "lightgbm", "networkx", "scanpy", "tqdm"}
        ),
    ),
    "get": Doors(ARRAYS | {"sctrellis._core"}, frozenset({"anndata", "mudata", "networkx"})),
    "datasets": Doors(
        ARRAYS | {"sctrellis._core"}, frozenset({"anndata", "mudata", "networkx", "pooch", "scanpy", "sklearn", "tqdm"})
    ),
    "pl": Doors(
        ARRAYS | {"sctrellis._core", "sctrellis.get"}, frozenset({"anndata", "mudata", "matplotlib", "networkx"})
    ),
    # The files beside the rooms.
    "__init__": Doors(frozenset({"sctrellis._settings"}), frozenset(f"sctrellis.{room}" for room in ROOMS)),
    "_settings": Doors(frozenset()),
    "cli": Doors(
        frozenset(),
        ARRAYS | {f"sctrellis.{r}" for r in ROOMS} | {"sctrellis", "anndata", "mudata", "scanpy", "matplotlib"},
    ),
    "__main__": Doors(frozenset({"sctrellis.cli"})),
    "_demo": Doors(
        frozenset(),
        frozenset({"anndata", "matplotlib", "pandas", "sctrellis"}),
        closed=frozenset({"sctrellis._core", "sctrellis.models", "sctrellis.cli"}),
    ),
    "_report": Doors(frozenset(), frozenset({"pandas"})),
}


@dataclass(frozen=True)
class Import:
    """One imported module, or name from a module, and where it stands."""

    name: str
    line: int
    at_top: bool


def room_of(path: Path) -> str:
    """Return the room of a file, or the name of a file beside the rooms."""
    return path.relative_to(SRC).with_suffix("").parts[0]


def package_of(path: Path) -> list[str]:
    """Return the package that relative imports of a file start from."""
    return ["sctrellis", *path.relative_to(SRC).parent.parts]


def imports_of(tree: ast.Module, package: list[str]) -> Iterator[Import]:
    """Yield every import, those of functions and of ``if TYPE_CHECKING`` marked as not at the top."""

    def walk(node: ast.AST, at_top: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from (Import(alias.name, child.lineno, at_top) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = package[: len(package) - child.level + 1] if child.level else []
                module = ".".join([*base, *([child.module] if child.module else [])])
                yield from (Import(f"{module}.{alias.name}", child.lineno, at_top) for alias in child.names)
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                yield from walk(child, at_top=False)
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                for statement in child.body:
                    yield from walk(ast.Module([statement], []), at_top=False)
                for statement in child.orelse:
                    yield from walk(ast.Module([statement], []), at_top)
            else:
                yield from walk(child, at_top)

    yield from walk(tree, at_top=True)


def under(name: str, doors: frozenset[str]) -> bool:
    """Whether a dotted name is one of ``doors``, or lies in one."""
    parts = name.split(".")
    return any(".".join(parts[:n]) in doors for n in range(1, len(parts) + 1))


def closed_doors(source: str, room: str, package: list[str]) -> list[str]:
    """Return what a file of ``room`` imports through a closed door."""
    doors = DOORS[room]
    found = []
    for item in imports_of(ast.parse(source), package):
        name = item.name
        if name.split(".")[0] in sys.stdlib_module_names:
            if name.startswith("importlib.import_module") and room not in ("__init__", "cli"):
                found.append(f"line {item.line}: {name} hides what is imported")
            continue
        own = frozenset({f"sctrellis.{room}", "sctrellis._settings"})
        # `from sctrellis import settings` is the same object.
        if name == "sctrellis.settings" or under(name, own):
            continue
        if under(name, doors.closed):
            found.append(f"line {item.line}: {name} is closed to {room}")
        elif under(name, doors.inside):
            if item.at_top:
                found.append(f"line {item.line}: {name} belongs inside the function that needs it")
        elif not under(name, doors.top):
            found.append(f"line {item.line}: {name} is closed to {room}")
    return found


SLOTS = frozenset({"X", "layers", "obs", "obsm", "obsp", "raw", "uns", "var", "varm", "varp"})
CHANGERS = frozenset({"clear", "insert", "pop", "popitem", "setdefault", "update"})


def slot_in(node: ast.expr) -> str | None:
    """Return the slot that an assignment target reaches into, such as ``varp`` of ``adata.varp["x"].data``."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Starred):
        if isinstance(node, ast.Attribute) and node.attr in SLOTS:
            return node.attr
        node = node.value
    return None


def slot_writes(source: str) -> list[str]:
    """Return the statements that write to a slot of AnnData or MuData."""
    found = []
    for node in ast.walk(ast.parse(source)):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign | ast.Delete):
            targets = [
                t for target in node.targets for t in (target.elts if isinstance(target, ast.Tuple) else [target])
            ]
        elif isinstance(node, ast.AugAssign | ast.AnnAssign):
            targets = [node.target]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            in_place = any(
                k.arg == "inplace" and isinstance(k.value, ast.Constant) and k.value.value is True
                for k in node.keywords
            )
            if node.func.attr in CHANGERS or in_place:
                targets = [node.func.value]
        found += [f"line {node.lineno}: writes .{slot}" for t in targets if (slot := slot_in(t))]
    return found


PICKLE_MODULES = frozenset({"cloudpickle", "dill", "marshal", "pickle", "shelve"})
PICKLE_CALLS = frozenset({"joblib.dump", "joblib.load", "read_pickle", "to_pickle", "torch.load", "torch.save"})


def pickles(source: str) -> list[str]:
    """Return the imports and calls that read or write pickle."""
    tree = ast.parse(source)
    found = [
        f"line {i.line}: {i.name}" for i in imports_of(tree, ["x"]) if under(i.name, PICKLE_MODULES | PICKLE_CALLS)
    ]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        if name in PICKLE_CALLS or name.split(".")[-1] in PICKLE_CALLS:
            found.append(f"line {node.lineno}: {name}")
        for keyword in node.keywords:
            if keyword.arg == "allow_pickle" and not (
                isinstance(keyword.value, ast.Constant) and keyword.value.value is False
            ):
                found.append(f"line {node.lineno}: {name}(allow_pickle=...)")
    return found


def name_of(path: Path) -> str:
    """Return the path of a file below the repository, for test ids."""
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_doors(path):
    assert closed_doors(path.read_text("utf-8"), room_of(path), package_of(path)) == []


@pytest.mark.parametrize("path", [p for p in SOURCES if p != SRC / "_core" / "slots.py"], ids=name_of)
def test_only_slots_writes(path):
    assert slot_writes(path.read_text("utf-8")) == []


def test_slots_is_where_slots_are_written():
    assert slot_writes((SRC / "_core" / "slots.py").read_text("utf-8"))


@pytest.mark.parametrize(
    "path",
    sorted(p for folder in ("src", "tests", "benchmarks", "docs") for p in (ROOT / folder).rglob("*.py")),
    ids=name_of,
)
def test_no_pickle(path):
    assert pickles(path.read_text("utf-8")) == []


def test_every_file_has_a_room():
    assert {room_of(path) for path in SOURCES} <= set(DOORS)


@pytest.mark.parametrize(
    ("room", "source", "caught"),
    [
        ("_core", "import numpy as np\nfrom anndata import AnnData", False),
        ("_core", "def f():\n    import torch", True),
        ("_core", "from sctrellis import tl", True),
        ("_core", "from sctrellis.models._seed import seeded", True),
        ("_core", "from .. import tl", True),
        ("_core", "from . import checks\nfrom .keys import Keys\nfrom sctrellis._settings import settings", False),
        ("models", "import torch\nfrom torch import nn\nfrom sctrellis._core import checks, logs", False),
        ("models", "from sctrellis._core import checks, slots", True),
        ("models", "from sctrellis._core.slots import write", True),
        ("models", "def f():\n    from ..tl import infosem", True),
        ("models", "import pandas as pd", True),
        ("models", "from anndata import AnnData", True),
        ("explain", "from sctrellis.models import fit_infosem", False),
        ("explain", "from sctrellis._core import slots", True),
        ("metrics", "import joblib\nfrom sklearn.metrics import roc_auc_score", False),
        ("metrics", "def f():\n    import torch", True),
        ("metrics", "if TYPE_CHECKING:\n    from anndata import AnnData", True),
        ("pp", "def f():\n    from sctrellis import tl", True),
        ("pp", "def f():\n    import networkx as nx", False),
        ("tl", "from sctrellis._core import slots\nfrom sctrellis.metrics import auroc", False),
        ("tl", "def infosem():\n    from sctrellis.models import fit_infosem", False),
        ("tl", "from sctrellis.models import fit_infosem", True),
        ("tl", "import torch", True),
        ("tl", "def f():\n    import matplotlib.pyplot as plt", True),
        ("tl", "import anndata", True),
        ("tl", "if TYPE_CHECKING:\n    from anndata import AnnData", False),
        ("tl", "try:\n    import anndata\nexcept ImportError:\n    pass", True),
        ("tl", "class A:\n    import anndata", True),
        ("tl", "def f():\n    from sctrellis.cli import main", True),
        ("tl", "import importlib\nfrom importlib import import_module", True),
        ("get", "import networkx as nx", True),
        ("get", "def f():\n    import networkx as nx", False),
        ("get", "def f():\n    from sctrellis.metrics import auroc", True),
        ("datasets", "import pooch", True),
        ("datasets", "def f():\n    import torch", True),
        ("pl", "import matplotlib.pyplot as plt", True),
        ("pl", "if TYPE_CHECKING:\n    from matplotlib.axes import Axes\nelse:\n    import matplotlib", True),
        ("pl", "if TYPE_CHECKING:\n    from matplotlib.axes import Axes", False),
        ("pl", "def f():\n    from sctrellis.tl import evaluate", True),
        ("__init__", "from sctrellis import tl", True),
        ("_settings", "import numpy", True),
        ("cli", "import scanpy", True),
        ("cli", "def main():\n    import sctrellis as tr", False),
    ],
)
def test_a_closed_door_is_noticed(room, source, caught):
    package = ["sctrellis", room] if room in ROOMS else ["sctrellis"]
    assert bool(closed_doors(source, room, package)) is caught


@pytest.mark.parametrize(
    ("source", "caught"),
    [
        ("adata.uns['a'] = 1", True),
        ("adata.uns['a']['b'] = 1", True),
        ("adata.X = x", True),
        ("self.mdata.mod['rna'].varp['a'] = x", True),
        ("adata.var.loc[0, 'a'] = 1", True),
        ("adata.X[0] += 1", True),
        ("adata.varp['a'].data[:] = 0", True),
        ("x, adata.uns['a'] = 1, 2", True),
        ("del adata.uns['a']", True),
        ("adata.uns.update(a=1)", True),
        ("adata.var.drop(columns='a', inplace=True)", True),
        ("x = adata.X", False),
        ("mean = adata.var['a'].mean()", False),
        ("uns = {}\nuns['a'] = 1", False),
        ("AnnData(X=x, obs=obs)", False),
    ],
)
def test_a_written_slot_is_noticed(source, caught):
    assert bool(slot_writes(source)) is caught


@pytest.mark.parametrize(
    ("source", "caught"),
    [
        ("import pickle", True),
        ("from pickle import dumps", True),
        ("def f():\n    import cloudpickle", True),
        ("joblib.load(path)", True),
        ("from joblib import load", True),
        ("torch.save(state, path)", True),
        ("pd.read_pickle(path)", True),
        ("frame.to_pickle(path)", True),
        ("np.load(path, allow_pickle=True)", True),
        ("np.load(path, allow_pickle=flag)", True),
        ("np.load(path, allow_pickle=False)", False),
        ("np.load(path)", False),
        ("joblib.Parallel(2)", False),
        ("'a pickle in a string'", False),
    ],
)
def test_pickle_is_noticed(source, caught):
    assert bool(pickles(source)) is caught


@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        ("import sctrellis; sctrellis.settings, dir(sctrellis)", "torch matplotlib scanpy anndata mudata sklearn"),
        ("import sctrellis.metrics", "torch matplotlib scanpy anndata mudata"),
        ("import sctrellis.models", "matplotlib scanpy anndata mudata"),
        ("import sctrellis.pp, sctrellis.get, sctrellis.datasets", "torch matplotlib scanpy"),
        ("import sctrellis.tl", "torch matplotlib scanpy"),
        ("import sctrellis.pl", "torch matplotlib scanpy"),
        ("import sctrellis.cli", "torch matplotlib scanpy anndata"),
    ],
)
def test_loads_nothing_heavy(statement, heavy):
    if "cli" in statement and not (SRC / "cli.py").exists():
        pytest.skip("there is no cli.py yet")
    code = f"{statement}\nimport sys\nprint(*sorted(set({heavy.split()!r}) & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.split() == []
