"""The manners of docs/contributing/style.md, over every public function and class."""

import importlib
import inspect
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

API = Path(__file__).parents[1] / "docs" / "api"
ROOMS = ("pp", "tl", "get", "pl", "datasets", "metrics", "models", "explain")
ON_ADATA = frozenset({"pp", "tl", "get", "pl"})
WRITING = frozenset({"pp", "tl"})
MAX_POSITIONAL = 3
# These make an object of what they are given, instead of writing into one.
MAKING = frozenset({"pp.multiome", "tl.predict_perturbation"})
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
# One word for one thing: a parameter of another house's name, and ours.
OTHER_NAMES = {
    "inplace": "copy",
    "verbose": "sctrellis.settings.verbosity",
    "random_state": "seed",
    "use_gpu": "device",
    "learning_rate": "lr",
    "n_epochs": "max_epochs",
    "epochs": "max_epochs",
    "modality": "mod",
    "threads": "n_jobs",
    "n_threads": "n_jobs",
    "disable_progress": "progress",
}
DEFAULTS = {
    "copy": False,
    "device": "auto",
    "key_added": None,
    "layer": None,
    "mod": None,
    "n_jobs": None,
    "progress": None,
    "seed": 0,
}
# Parameters that mean the same wherever they stand in a room begin with the same sentence; others say what they are for
# in each function (the seed of what?), but what their special value means in the same words.
SAME_SENTENCE = ("copy", "device", "layer", "mod")
SAME_WORDS = {
    "seed": "None draws one",
    "n_jobs": "-1 all cores",
    "progress": "None follows `settings.progress`",
}


@dataclass(frozen=True)
class Export:
    """One name of a room's ``__all__``."""

    room: str
    name: str

    @property
    def object(self):
        """The function, class or constant."""
        return getattr(importlib.import_module(f"sctrellis.{self.room}"), self.name)

    @property
    def parameters(self) -> list[inspect.Parameter]:
        """Parameters of the function, or of the class's constructor."""
        return list(inspect.signature(self.object).parameters.values())

    def __str__(self) -> str:
        return f"{self.room}.{self.name}"


def exports_of(*rooms: str) -> list[Export]:
    """Return what the rooms export."""
    return [Export(room, name) for room in rooms for name in importlib.import_module(f"sctrellis.{room}").__all__]


EXPORTS = exports_of(*ROOMS)
FUNCTIONS = [e for e in EXPORTS if inspect.isfunction(e.object)]
CALLABLES = [e for e in EXPORTS if callable(e.object)]
every_export = pytest.mark.parametrize("export", EXPORTS, ids=str)
every_function = pytest.mark.parametrize("export", FUNCTIONS, ids=str)
every_callable = pytest.mark.parametrize("export", CALLABLES, ids=str)


def sections(docstring: str) -> dict[str, str]:
    """Return the sections of a numpydoc docstring by title; ``""`` is what comes before the first."""
    parts = re.split(r"^(\S[^\n]*)\n-{3,}\n", inspect.cleandoc(docstring), flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def described(docstring: str) -> dict[str, str]:
    """Return the text of each parameter of a numpydoc docstring, or of each attribute of a dataclass, in order."""
    texts: dict[str, list[str]] = {}
    names: list[str] = []
    found = sections(docstring)
    for line in found.get("Parameters", found.get("Attributes", "")).splitlines():
        if line and not line[0].isspace():
            names = [name.strip().lstrip("*") for name in line.split(" : ")[0].split(",")]
            texts.update({name: [] for name in names})
        else:
            for name in names:
                texts[name].append(line.strip())
    return {name: " ".join(text).strip() for name, text in texts.items()}


def first_sentence(text: str) -> str:
    """Return a text up to its first full stop or semicolon."""
    return re.split(r"(?<=[.;])\s", text)[0].rstrip(".;")


def signature_faults(export: Export) -> list[str]:
    """Return what is against the manners in the signature of a function."""
    signature, parameters = inspect.signature(export.object), export.parameters
    positional = [p for p in parameters if p.kind in POSITIONAL]
    faults = []
    makes = str(export) in MAKING
    if export.room in ON_ADATA and not makes and (not positional or positional[0].name not in ("adata", "mdata")):
        faults.append("the first parameter is `adata`, positional")
    if len(positional) > MAX_POSITIONAL:
        faults.append(
            f"at most {MAX_POSITIONAL} positional parameters, found {len(positional)}: put `*` before the rest"
        )
    for p in parameters:
        if p.kind in POSITIONAL and (isinstance(p.default, bool) or p.annotation is bool or p.annotation == "bool"):
            faults.append(f"`{p.name}` is a positional Boolean")
        if p.annotation is inspect.Parameter.empty:
            faults.append(f"`{p.name}` has no type")
        if p.name in OTHER_NAMES:
            faults.append(f"`{p.name}` is called {OTHER_NAMES[p.name]} here")
        if p.name in DEFAULTS and p.default is not inspect.Parameter.empty and p.default != DEFAULTS[p.name]:
            faults.append(f"`{p.name}` is {DEFAULTS[p.name]!r} by default, found {p.default!r}")
        if p.name in DEFAULTS and export.room in ON_ADATA and p.default is inspect.Parameter.empty:
            faults.append(f"`{p.name}` is {DEFAULTS[p.name]!r} by default, found no default")
    if signature.return_annotation is inspect.Signature.empty:
        faults.append("no type of what is returned")
    elif export.room in WRITING and not makes:
        returned = str(signature.return_annotation)
        hands_out_a_table = "DataFrame" in returned
        has_copy = "copy" in signature.parameters
        if not hands_out_a_table and not (
            has_copy and "None" in returned and ("AnnData" in returned or "MuData" in returned)
        ):
            faults.append("`copy: bool = False`, and `AnnData | None` is returned")
        if hands_out_a_table and "None" in returned:
            faults.append("a function that returns a table always does")
    return faults


def docstring_faults(export: Export) -> list[str]:
    """Return what is against the manners in the docstring of a function or class."""
    docstring = export.object.__doc__ or ""
    found, faults = sections(docstring), []
    if not found[""].strip():
        faults.append("no summary")
    expected = [p.name for p in export.parameters]
    # A class whose constructor takes what it likes describes itself.
    loose = inspect.isclass(export.object) and set(expected) <= {"args", "kwargs"}
    named = list(described(docstring))
    if expected != named and not loose:
        faults.append(f"Parameters are {expected}, described are {named}")
    faults += [f"`{name}` has no text" for name, text in described(docstring).items() if not text]
    if inspect.isfunction(export.object):
        faults += [f"no section {title}" for title in ("Returns", "Examples") if title not in found]
        if "Examples" in found and ">>>" not in found["Examples"]:
            faults.append("Examples cannot be run: no >>>")
    return faults


@every_function
def test_signature(export):
    assert signature_faults(export) == []


@every_callable
def test_docstring(export):
    assert docstring_faults(export) == []


@every_export
def test_listed_in_the_reference(export):
    page = (API / f"{export.room}.md").read_text("utf-8")
    assert f"   {export}\n" in page, f"add {export} to docs/api/{export.room}.md"


@pytest.mark.parametrize("room", ROOMS)
def test_the_reference_lists_only_what_is_there(room):
    listed = re.findall(rf"^   ({room}\.\w+)$", (API / f"{room}.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(str(e) for e in exports_of(room))


@pytest.mark.parametrize("name", SAME_SENTENCE)
@pytest.mark.parametrize("room", ROOMS)
def test_same_name_same_sentence(room, name):
    texts = {
        # A function of a MuData calls it so.
        str(e): first_sentence(described(e.object.__doc__ or "")[name]).replace("`mdata`", "`adata`")
        for e in FUNCTIONS
        if e.room == room and name in described(e.object.__doc__ or "")
    }
    usual = Counter(texts.values()).most_common(1)
    assert {e: text for e, text in texts.items() if text != usual[0][0]} == {}, f"elsewhere: {usual[0][0]}"


@pytest.mark.parametrize("export", [e for e in FUNCTIONS if e.room in ON_ADATA], ids=str)
def test_same_name_same_words(export):
    texts = described(export.object.__doc__ or "")
    missing = {
        name: words
        for name, words in SAME_WORDS.items()
        if name in texts and words not in texts[name].replace("``", "`")
    }
    assert missing == {}


def good(adata: "AnnData", names: list[str], *, layer: str | None = None, copy: bool = False) -> "AnnData | None":  # noqa: F821
    """Do a thing.

    Parameters
    ----------
    adata
        The object.
    names
        Names,
        on two lines.
    layer, copy
        As everywhere.

    Returns
    -------
    None.

    Examples
    --------
    >>> good.__name__
    'good'
    """


def bad(x, names, other: int, flag: bool, *, layer: str = "counts", verbose: bool = True):
    """Do a thing.

    Parameters
    ----------
    names
        Names.
    x
    """


@dataclass(frozen=True)
class _Fake(Export):
    function: object = None

    @property
    def object(self):
        return self.function


def test_manners_are_noticed():
    assert signature_faults(_Fake("tl", "good", good)) == []
    assert docstring_faults(_Fake("tl", "good", good)) == []
    faults = " | ".join(signature_faults(_Fake("tl", "bad", bad)))
    for fault in (
        "first parameter is `adata`",
        "at most 3 positional parameters, found 4",
        "`flag` is a positional Boolean",
        "`x` has no type",
        "`verbose` is called sctrellis.settings.verbosity",
        "`layer` is None by default, found 'counts'",
        "no type of what is returned",
    ):
        assert fault in faults
    faults = " | ".join(docstring_faults(_Fake("tl", "bad", bad)))
    for fault in ("described are ['names', 'x']", "`x` has no text", "no section Returns", "no section Examples"):
        assert fault in faults
    assert first_sentence("Seed; None draws one. And more.") == "Seed"
    assert described(good.__doc__)["names"] == "Names, on two lines."
