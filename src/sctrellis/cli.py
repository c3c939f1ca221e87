"""The command line: files in, files out; everything else is a function of the package."""

import argparse
import inspect
import os
import re
import shutil
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Literal, Union, get_args, get_origin

_FIGURES = (".png", ".pdf", ".svg")
_BACKED_GB = 1.0
"""Files above this size are read cell by cell, unless the user says otherwise."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 2 after bad input, 130 after Ctrl-C.

    Parameters
    ----------
    argv
        Arguments; None takes those of the process.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    args = _parser(argv).parse_args(argv)
    from sctrellis import settings

    if args.verbose:
        settings.verbosity = "info" if args.verbose == 1 else "debug"
    with warnings.catch_warnings():
        # Meant for programmers, who do not read them here.
        for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
        warnings.showwarning = lambda message, *_, **__: _tell(f"warning: {message}")
        try:
            args.run(args)
        except (ValueError, TypeError, KeyError, OSError, ImportError, FloatingPointError) as error:
            if args.verbose > 1:
                import traceback

                traceback.print_exc()
            # str() of a KeyError is a quoted repr.
            text = error.args[0] if isinstance(error, KeyError) and error.args else error
            _tell(f"error: {str(text) or type(error).__name__}")
            return 2
        except KeyboardInterrupt:
            again = " Call it again with the same --checkpoint to go on." if getattr(args, "checkpoint", None) else ""
            _tell(f"stopped; no output was written.{again}")
            return 130
    return 0


def _tell(text: str) -> None:
    print("sctrellis:", " ".join(text.split()), file=sys.stderr)


def _say(text: str) -> None:
    print(text, flush=True)


# What a command takes.


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser; only the command in ``argv`` gets its options, which cost an import."""
    from sctrellis import __version__

    parser = argparse.ArgumentParser(
        prog="sctrellis",
        description="Infer gene regulatory networks from single-cell RNA and judge them.",
        epilog="`sctrellis COMMAND --help` lists the options of a command.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"sctrellis {__version__}")
    parser.set_defaults(verbose=0)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    named = next((arg for arg in argv if arg in _COMMANDS), None)
    for name, (summary, options) in _COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        if name == named:
            command.add_argument(
                "-v", "--verbose", action="count", default=0, help="Say what is done; twice: more, and where it failed."
            )
            options(command)
    return parser


def _network_options(name: str) -> Callable[[argparse.ArgumentParser], None]:
    """Return a function that adds the options of a method of :mod:`sctrellis.tl`."""

    def add(parser: argparse.ArgumentParser) -> None:
        from sctrellis import tl

        function = getattr(tl, name)
        _input_options(parser)
        parser.add_argument("--out", type=Path, required=True, help="h5ad or zarr file to write (h5mu for a MuData).")
        parser.add_argument("--edges", type=Path, help="Also write the edges as a table (csv or csv.gz).")
        parser.add_argument("--n-edges", type=int, help="With --edges: only this many of the strongest.")
        if "embedding" in inspect.signature(function).parameters:
            parser.add_argument(
                "--embedding",
                metavar="FILE_OR_KEY",
                help="Gene embeddings: a table, npz, parquet or h5ad file, or a key of .varm.",
            )
            parser.add_argument(
                "--known",
                nargs="?",
                const="network",
                metavar="KEY",
                help="Use known edges as a prior: those of --network, or the key of .varp named here.",
            )
        parser.add_argument(
            "--split",
            choices=("edge", "target", "regulator", "both", "infosem"),
            help="Hold out some edges of --network before the fit, to judge on later.",
        )
        _function_options(parser, function)
        parser.set_defaults(run=lambda args: _infer(args, function))

    return add


def _evaluate_options(parser: argparse.ArgumentParser) -> None:
    from sctrellis import tl

    _input_options(parser)
    parser.add_argument("--keys", nargs="+", required=True, help="Inferred networks: keys of .varp.")
    parser.add_argument("--out", type=Path, required=True, help="Table to write (csv or csv.gz).")
    parser.add_argument("--figure", type=Path, help="Also draw precision against recall (png, pdf or svg).")
    _function_options(parser, tl.evaluate, leave=("keys", "key_added"))
    parser.set_defaults(run=_evaluate)


def _demo_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("demo_output"), help="Folder for the files it makes.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of everything that is drawn.")
    parser.add_argument("--quick", action="store_true", help="Little of everything: shows that it works.")
    parser.set_defaults(run=_demo)


_COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "infosem": (
        "Infer a network with InfoSEM, with gene embeddings and known edges where given.",
        _network_options("infosem"),
    ),
    "deepsem": ("Infer a network with DeepSEM.", _network_options("deepsem")),
    "baseline": ("Infer a network with a simple method.", _network_options("baseline")),
    "evaluate": ("Judge inferred networks against known edges, beside baselines.", _evaluate_options),
    "demo": ("Show it all on cells that come with the package.", _demo_options),
}


def _input_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", type=Path, help="Log-normalised cells x genes: h5ad or zarr, or h5mu with --mod.")
    parser.add_argument(
        "--regulators",
        metavar="FILE_OR_KEY",
        help="Who may regulate: a file of names, a Boolean column of .var, or all [.var['is_regulator']].",
    )
    parser.add_argument(
        "--network",
        metavar="FILE_OR_KEY",
        help="Known edges: a table with source and target, or a key of .varp [network].",
    )
    parser.add_argument("--ignore-case", action="store_true", help="Match gene names in files without regard to case.")
    parser.add_argument(
        "--backed",
        action=argparse.BooleanOptionalAction,
        help=f"Stream an h5ad file instead of loading it [above {_BACKED_GB:g} GB].",
    )


def _function_options(parser: argparse.ArgumentParser, function: Callable[..., Any], leave: Sequence[str] = ()) -> None:
    """Add an option for every argument of ``function`` that has none yet, worded as in its docstring."""
    there = {action.dest for action in parser._actions} | {"adata", "copy", *leave}
    described = _descriptions(function)
    for name, parameter in inspect.signature(function).parameters.items():
        if name in there:
            continue
        # Arguments that are not given are not passed on: the defaults live in the function.
        options: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS}
        default = "" if parameter.default in (None, False) else f" [{_shown(parameter.default)}]"
        options["help"] = described.get(name, "") + default
        options |= _kind(parameter.annotation)
        parser.add_argument("--" + name.replace("_", "-"), **options)
    parser.set_defaults(arguments=[name for name in inspect.signature(function).parameters if name not in leave])


def _kind(annotation: Any) -> dict[str, Any]:
    """Return what argparse needs to read values of a type."""
    union = get_origin(annotation) in (types.UnionType, Union)
    parts = [part for part in (get_args(annotation) if union else (annotation,)) if part is not type(None)]
    if bool in parts:
        return {"action": argparse.BooleanOptionalAction if union else "store_true"}
    many = next((part for part in parts if get_origin(part) is not None and get_origin(part) is not Literal), None)
    if many is not None:
        return {"nargs": "*", **_kind(get_args(many)[0])}
    if get_origin(parts[0]) is Literal:
        return {"choices": get_args(parts[0])}
    kind = next(part for part in parts if part in (int, float, str))
    return {"type": kind, "metavar": {int: "N", float: "X", str: "TEXT"}[kind]}


def _descriptions(function: Callable[..., Any]) -> dict[str, str]:
    """Return the first sentence about each parameter in a numpydoc docstring, without markup."""
    text = inspect.getdoc(function) or ""
    section = re.search(r"^Parameters\n-+\n(.*?)(?=^\S[^\n]*\n-+\n)", text, re.MULTILINE | re.DOTALL)
    found: dict[str, str] = {}
    for names, body in re.findall(r"^(\w.*)\n((?:[ \t]+.*\n|\n)+)", section[1] if section else "", re.MULTILINE):
        plain = re.sub(r":\w+:`~?(?:sctrellis\.)?([^`]+)`|`+", lambda m: m[1] or "", " ".join(body.split()))
        first = re.split(r"(?<=[.:]) (?=[A-Z\"])|;", plain)[0].rstrip(".:")
        if not first.startswith('"'):  # a list of the choices, which argparse shows itself
            found |= dict.fromkeys(names.split(", "), first.replace("%", "%%"))
    return found


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


# What a command does.


def _infer(args: argparse.Namespace, function: Callable[..., Any]) -> None:
    from sctrellis import get, pp

    _check_output("--out", args.out, (".h5mu",) if args.input.suffix == ".h5mu" else (".h5ad", ".zarr"))
    if args.edges is not None:
        _check_output("--edges", args.edges, (".csv", ".csv.gz"))
    if args.n_edges is not None and args.edges is None:
        msg = "--n-edges says how many edges --edges writes; give --edges too."
        raise ValueError(msg)
    if args.split is not None and args.network is None:
        msg = "--split divides known edges: name them with --network."
        raise ValueError(msg)
    data = _read(args)
    given, mod = _given(args, data), getattr(args, "mod", None)
    if args.split is not None:
        seed = {"seed": args.seed} if "seed" in args else {}
        pp.split_edges(data, given["network"], scheme=args.split, mod=mod, **seed)
    parameters = inspect.signature(function).parameters
    if "network" not in parameters:
        given.pop("network", None)
    function(data, **given)
    method = given.get("method", parameters["method"].default) if "method" in parameters else args.command
    with _written(args.out, args.edges) as (out, *edges):
        _write(data, out)
        for path in edges:
            _write_table(get.edges(data, given.get("key_added", method), n_top=args.n_edges, mod=mod), path)


def _evaluate(args: argparse.Namespace) -> None:
    from sctrellis import _report, tl

    _check_output("--out", args.out, (".csv", ".csv.gz"))
    if args.figure is not None:
        _check_output("--figure", args.figure, _FIGURES)
    data = _read(args)
    table = tl.evaluate(data, args.keys, **_given(args, data))
    with _written(args.out, args.figure) as (out, *figures):
        _write_table(table, out)
        for path in figures:
            _draw(data, path, getattr(args, "mod", None))
    _say(_report.scores(table))


def _demo(args: argparse.Namespace) -> None:
    from sctrellis import _demo as demonstration

    demonstration.demo(args.out, seed=args.seed, quick=args.quick, say=_say)


# Files.


def _read(args: argparse.Namespace) -> Any:
    """Return the AnnData or MuData in the input file."""
    path, mod = args.input, getattr(args, "mod", None)
    if path.suffix not in (".h5ad", ".zarr", ".h5mu"):
        msg = f"Expected the input to end in .h5ad, .zarr or .h5mu, found '{path}'."
        raise ValueError(msg)
    if not path.exists():
        msg = f"There is no file '{path}'."
        raise FileNotFoundError(msg)
    backed = args.backed
    if backed and path.suffix != ".h5ad":
        msg = f"--backed streams h5ad files only, found '{path}'. Leave it out."
        raise ValueError(msg)
    try:
        if path.suffix == ".h5mu":
            import mudata

            data = mudata.read_h5mu(path)
        elif path.suffix == ".zarr":
            import anndata

            return anndata.read_zarr(path)
        else:
            import anndata

            large = path.stat().st_size > _BACKED_GB * 1e9
            return anndata.read_h5ad(path, backed="r" if backed or (backed is None and large) else None)
    except (OSError, KeyError, ValueError, TypeError) as error:
        msg = f"'{path}' cannot be read as {path.suffix[1:]}: {error}"
        raise ValueError(msg) from error
    if mod not in data.mod:
        found = "none was chosen" if mod is None else f"found {mod!r}"
        msg = f"'{path}' has several modalities: choose one with --mod, of {', '.join(data.mod)}; {found}."
        raise ValueError(msg)
    return data


def _given(args: argparse.Namespace, data: Any) -> dict[str, Any]:
    """Return the arguments of the function that were given; what files hold is in ``data`` afterwards."""
    from sctrellis import pp
    from sctrellis._core import slots

    given = {name: value for name in args.arguments if (value := getattr(args, name, None)) is not None}
    mod = given.get("mod")
    adata = slots.source(data, mod)
    options: dict[str, Any] = {"match_case": not args.ignore_case, "mod": mod}
    if args.regulators is not None and args.regulators != "all" and _is_file("regulators", args, adata.var, ".var"):
        pp.regulators(data, args.regulators, **options)
        del given["regulators"]
    if args.network is not None and _is_file("network", args, adata.varp, ".varp"):
        pp.network(data, args.network, **options)
        given["network"] = "network"
    elif args.network is not None:
        given["network"] = args.network
    if "embedding" in given and _is_file("embedding", args, adata.varm, ".varm"):
        pp.gene_embedding(data, args.embedding, **options)
        given["embedding"] = "embedding"
    return given


def _is_file(name: str, args: argparse.Namespace, slot: Any, where: str) -> bool:
    """Whether an option names a file, and not a key of a slot, which goes first."""
    value = getattr(args, name)
    if value in slot:
        return False
    if Path(value).is_file():
        return True
    msg = f"--{name}: there is no file '{value}', and no such key in {where} (there: {', '.join(slot) or 'none'})."
    raise FileNotFoundError(msg)


def _check_output(option: str, path: Path, suffixes: Sequence[str]) -> None:
    """Raise before anything is computed where a file could not be written at the end."""
    if not path.name.endswith(tuple(suffixes)):
        msg = f"Expected {option} to end in {' or '.join(suffixes)}, found '{path}'."
        raise ValueError(msg)
    if not path.parent.is_dir():
        msg = f"{option}: there is no folder '{path.parent}'. Make it first."
        raise FileNotFoundError(msg)
    if not os.access(path.parent, os.W_OK):
        msg = f"{option}: the folder '{path.parent}' cannot be written to."
        raise PermissionError(msg)
    store = path.suffix == ".zarr" and any((path / name).exists() for name in ("zarr.json", ".zgroup"))
    if path.is_dir() and not store:
        msg = f"{option}: '{path}' is a folder. Name another file."
        raise ValueError(msg)


@contextmanager
def _written(*paths: Path | None) -> Iterator[list[Path]]:
    """Yield where to write for a moment; then everything moves to ``paths``, or, after an error, nothing."""
    wanted = [path for path in paths if path is not None]
    with ExitStack() as stack:
        pending = []
        for path in wanted:
            folder = Path(mkdtemp(prefix=f".{path.name}.", dir=path.parent))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            pending.append(folder / path.name)
        yield pending
        for path, new in zip(wanted, pending, strict=True):
            if path.is_dir():
                path.replace(new.parent / "replaced")  # a folder cannot be moved over another
            new.replace(path)


def _write(data: Any, path: Path) -> None:
    if path.suffix == ".h5mu":
        data.write_h5mu(path)
    elif path.suffix == ".zarr":
        data.write_zarr(path)
    else:
        data.write_h5ad(path)
    if getattr(data, "isbacked", False) and path.suffix != ".h5mu":
        data.file.close()


def _write_table(table: Any, path: Path) -> None:
    # Without the time of writing, equal tables are equal files.
    table.to_csv(path, index=False, compression={"method": "gzip", "mtime": 0} if path.suffix == ".gz" else None)


def _draw(data: Any, path: Path, mod: str | None) -> None:
    from matplotlib import pyplot as plt

    from sctrellis import pl

    pl.precision_recall(data, mod=mod)
    plt.savefig(path, dpi=150)
    plt.close()
