"""Fitted models on disk: config.json, safetensors and gene names; no pickle, nothing half written."""

import glob
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from sctrellis._core import checks

_SCHEMA = 1


@dataclass(frozen=True)
class SavedModel:
    """A fitted model as read by :func:`load`.

    Attributes
    ----------
    method
        Name of the method, such as ``"infosem"``.
    config
        Settings of the fit.
    weights
        Name to array; the first axis runs over the runs of an ensemble.
    var_names
        Genes, in the order of the arrays.
    """

    method: str
    config: dict[str, Any]
    weights: dict[str, np.ndarray]
    var_names: list[str]


def write_folder(path: str | Path, files: Mapping[str, Any], *, argument: str = "path") -> None:
    """Write a folder of ``*.json`` (any JSON value), ``*.txt`` (str) and ``*.safetensors`` (name to array) at once.

    A folder already there is replaced only when the new one is complete: a stop at any moment leaves one of both, if
    need be aside, from where :func:`recover` puts it back. A folder with other files in it is refused.
    """
    path = checks.replaceable_folder(argument, path, files)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    old = temporary.with_name(f"{temporary.name}.old")
    try:
        for name, content in files.items():
            if name.endswith(".safetensors"):
                # Not `ascontiguousarray`, which makes a scalar an array of one.
                save_file({key: np.asarray(value, order="C") for key, value in content.items()}, temporary / name)
            elif name.endswith(".json"):
                (temporary / name).write_text(json.dumps(content, indent=1, sort_keys=True), encoding="utf-8")
            else:
                (temporary / name).write_text(content, encoding="utf-8")
        temporary.chmod(0o755)
        if path.exists():
            os.replace(path, old)  # noqa: PTH105 - the atomic primitive, by its own name
        os.replace(temporary, path)  # noqa: PTH105
    finally:
        if old.exists() and not path.exists():  # stopped between the two moves
            os.replace(old, path)  # noqa: PTH105
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def recover(path: str | Path) -> None:
    """Put back a folder that :func:`write_folder` had moved aside when its process was killed."""
    path = Path(path)
    if path.name and not path.exists():
        aside = [item for item in path.parent.glob(f".{glob.escape(path.name)}.*.old") if item.is_dir()]
        if aside:
            os.replace(max(aside, key=lambda item: item.stat().st_mtime), path)  # noqa: PTH105


def save(
    path: str | Path,
    method: str,
    *,
    config: Mapping[str, Any],
    weights: Mapping[str, np.ndarray],
    var_names: list[str],
) -> None:
    """Write a fitted model as a folder: ``config.json``, ``model.safetensors``, ``var_names.txt``.

    Parameters
    ----------
    path
        Folder to write; one already there is replaced once the new one is complete.
    method
        Name of the method.
    config
        Settings of the fit, as JSON can hold them.
    weights
        Name to array.
    var_names
        Genes, in the order of the arrays.

    Returns
    -------
    None
        The folder is written.

    Examples
    --------
    >>> import tempfile, numpy as np, sctrellis as tr
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     weights = {"adjacency": np.eye(2)}
    ...     tr.models.save(f"{folder}/fit", "infosem", config={}, weights=weights, var_names=["A", "B"])
    ...     tr.models.load(f"{folder}/fit").var_names
    ['A', 'B']
    """
    from importlib.metadata import version

    head = {
        "schema": _SCHEMA,
        "method": method,
        "config": dict(config),
        "shapes": {name: list(value.shape) for name, value in weights.items()},
        "versions": {"sctrellis": version("sctrellis")},
    }
    write_folder(
        path, {"config.json": head, "model.safetensors": dict(weights), "var_names.txt": "\n".join(map(str, var_names))}
    )


def load(path: str | Path, *, var_names: list[str] | None = None) -> SavedModel:
    """Read a fitted model from its folder.

    Parameters
    ----------
    path
        Folder written by :func:`save` or by ``save_model=`` of a ``tl`` function.
    var_names
        Genes that the model must have, in order; None takes what is there.

    Returns
    -------
    SavedModel
        Settings, arrays and gene names.

    Raises
    ------
    FileNotFoundError
        If a file of the folder is missing.
    ValueError
        If a file is damaged, the schema is newer than this version reads, an array has another shape than announced,
        or genes differ.

    Examples
    --------
    >>> import tempfile, sctrellis as tr
    >>> adata = tr.datasets.toy()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tr.tl.infosem(adata, save_model=f"{folder}/fit")
    ...     tr.models.load(f"{folder}/fit").weights["adjacency"].shape
    (1, 30, 30)
    """
    path = Path(path)
    recover(path)
    for name in ("config.json", "model.safetensors", "var_names.txt"):
        checks.existing_file("path", path / name)
    try:
        head = json.loads((path / "config.json").read_text(encoding="utf-8"))
        weights = load_file(path / "model.safetensors")
    except (ValueError, SafetensorError) as error:
        msg = f"`path`: the model at '{path}' cannot be read ({error}): the folder is damaged."
        raise ValueError(msg) from error
    if not isinstance(head, dict) or not {"schema", "method", "config", "shapes"} <= head.keys():
        msg = f"`path`: '{path / 'config.json'}' does not describe a model of sctrellis."
        raise ValueError(msg)
    if head["schema"] > _SCHEMA:
        msg = f"`path`: the model at '{path}' has schema {head['schema']}, newer than {_SCHEMA}: upgrade sctrellis."
        raise ValueError(msg)
    for name, shape in head["shapes"].items():
        found = list(weights[name].shape) if name in weights else None
        if found != shape:
            msg = f"`path`: array {name!r} at '{path}' has shape {found}, but {shape} was saved: the folder is damaged."
            raise ValueError(msg)
    genes = (path / "var_names.txt").read_text(encoding="utf-8").split("\n")
    given = genes if var_names is None else list(map(str, var_names))
    if given != genes:
        missing, extra = _without(genes, given), _without(given, genes)
        what = "the order differs"
        if missing:
            what = f"{len(missing)} of its genes are missing ({checks.some(missing)})"
        elif extra:
            what = f"{len(extra)} genes are not its own ({checks.some(extra)})"
        msg = f"The model at '{path}' was fitted on other genes: {what}. Select and order them as in its var_names.txt."
        raise ValueError(msg)
    return SavedModel(head["method"], head["config"], weights, genes)


def _without(names: list[str], others: list[str]) -> list[str]:
    known = set(others)
    return [name for name in names if name not in known]
