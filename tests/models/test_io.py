"""Saved models: nothing is lost on the way, at whatever moment a write stops, and what is damaged says so."""

import json
import os
import shutil

import numpy as np
import pytest

from sctrellis import models
from sctrellis.models import _io, load

GENES = ["GATA1", "SPI1", "HLA-DRA", "Ünï"]
CONFIG = {"rho": 1.5, "lam": float("inf"), "prior": "mean", "full": True, "cycle": (1, 2), "start": None}


def arrays(seed=0):
    rng = np.random.default_rng(seed)
    square = rng.normal(size=(4, 4))
    return {
        "adjacency": square.astype(np.float32),
        "double": square,
        "fortran": np.asfortranarray(square),
        "view": square[::2, 1:],
        "scalar": np.array(2.5),
        "index": np.arange(3),
        "mask": np.array([True, False]),
        "empty": np.zeros((0, 4), dtype=np.float32),
    }


def save(path, method, config, weights, genes):
    models.save(path, method, config=config, weights=weights, var_names=genes)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def saved(tmp_path):
    save(tmp_path / "fit", "infosem", CONFIG, arrays(), GENES)
    return tmp_path / "fit"


def test_round_trip(saved):
    model = load(str(saved), var_names=GENES)
    assert model.method == "infosem"
    assert model.config == {**CONFIG, "cycle": [1, 2]}
    assert model.var_names == GENES
    assert model.weights.keys() == arrays().keys()
    for name, array in arrays().items():
        assert model.weights[name].shape == array.shape
        assert model.weights[name].dtype == array.dtype
        assert np.array_equal(model.weights[name], array)


def test_same_content_same_bytes(saved, tmp_path):
    save(tmp_path / "again", "infosem", CONFIG, arrays(), GENES)
    assert files(saved) == files(tmp_path / "again")


def test_three_files(saved):
    content = files(saved)
    assert set(content) == {"config.json", "model.safetensors", "var_names.txt"}
    head = json.loads(content["config.json"])
    assert head["schema"] == 1
    assert head["versions"]["sctrellis"]
    size = int.from_bytes(content["model.safetensors"][:8], "little")
    assert set(json.loads(content["model.safetensors"][8 : 8 + size])) - {"__metadata__"} == set(arrays())


def test_parent_folders_are_made_and_nothing_else(tmp_path):
    save(tmp_path / "a" / "b" / "fit", "ridge", {}, {}, GENES)
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["fit"]
    assert load(tmp_path / "a" / "b" / "fit").weights == {}


def test_a_folder_is_replaced_whole(saved):
    save(saved, "deepsem", {}, {"adjacency": np.eye(2)}, GENES[:2])
    model = load(saved)
    assert (model.method, model.var_names, list(model.weights)) == ("deepsem", GENES[:2], ["adjacency"])
    assert [path.name for path in saved.parent.iterdir()] == ["fit"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("moment", ["arrays", "names", "first move", "second move"])
def test_a_stop_at_any_moment_keeps_what_was_there(saved, monkeypatch, error, moment):
    before = files(saved)
    replace, n_moves = os.replace, []

    def stop(*args, **kwargs):
        raise error

    def move(source, target):
        n_moves.append(target)
        if len(n_moves) == {"first move": 1, "second move": 2}[moment]:
            raise error
        replace(source, target)

    if moment == "arrays":
        monkeypatch.setattr(_io, "save_file", stop)
    elif moment == "names":
        monkeypatch.setattr(_io.Path, "write_text", stop)
    else:
        monkeypatch.setattr(_io.os, "replace", move)
    with pytest.raises(error):
        save(saved, "deepsem", {}, {"adjacency": np.eye(2)}, GENES[:2])
    monkeypatch.undo()
    assert files(saved) == before
    assert [path.name for path in saved.parent.iterdir()] == ["fit"]


@pytest.mark.parametrize("name", ["fit", "fit[1]*"])
def test_a_process_killed_between_the_moves_loses_nothing(tmp_path, monkeypatch, name):
    folder = tmp_path / name
    save(folder, "infosem", CONFIG, arrays(), GENES)
    before, replace, killed = files(folder), os.replace, []

    def move(source, target):
        if killed or source != folder:
            killed.append(True)
            raise InterruptedError  # and nothing after it runs, as `rmtree` does not below
        replace(source, target)

    monkeypatch.setattr(_io.os, "replace", move)
    monkeypatch.setattr(_io.shutil, "rmtree", lambda *args, **kwargs: None)
    with pytest.raises(InterruptedError):
        save(folder, "deepsem", {}, {"adjacency": np.eye(2)}, GENES[:2])
    monkeypatch.undo()
    assert not folder.exists()
    assert load(folder).method == "infosem"
    assert files(folder) == before


def test_other_files_are_never_deleted(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "thesis.docx").write_text("years of work")
    with pytest.raises(ValueError, match=r"`path`: the folder '.*results' holds other files \('thesis.docx'\)"):
        save(folder, "infosem", {}, arrays(), GENES)
    assert (folder / "thesis.docx").read_text() == "years of work"
    file = tmp_path / "model"
    file.write_text("mine")
    with pytest.raises(ValueError, match="`path`: '.*model' is a file. Name a folder"):
        save(file, "infosem", {}, arrays(), GENES)
    assert file.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "results"]


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "fit").mkdir()
    save(tmp_path / "fit", "infosem", {}, arrays(), GENES)
    assert load(tmp_path / "fit").method == "infosem"


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "var_names.txt"])
def test_missing_files(saved, name):
    (saved / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"`path`: no file at '.*{name}'"):
        load(saved)


def test_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="`path`: no file at '.*nothing.*config.json'. The working directory"):
        load(tmp_path / "nothing")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("damage", ["empty", "half", "noise"])
def test_damaged_files(saved, name, damage):
    content = (saved / name).read_bytes()
    noise = np.random.default_rng(0).bytes(len(content))
    (saved / name).write_bytes({"empty": b"", "half": content[: len(content) // 2], "noise": noise}[damage])
    with pytest.raises(ValueError, match=r"`path`: the model at '.*fit' cannot be read \(.*\): the folder is damaged"):
        load(saved)


@pytest.mark.parametrize("content", ["[1, 2]", "{}", '{"schema": 1, "method": "infosem"}'])
def test_config_of_something_else(saved, content):
    (saved / "config.json").write_text(content)
    with pytest.raises(ValueError, match="config.json' does not describe a model of sctrellis"):
        load(saved)


def rewrite(saved, **changes):
    head = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**head, **changes}))


def test_a_newer_schema(saved):
    rewrite(saved, schema=99)
    with pytest.raises(ValueError, match="has schema 99, newer than 1: upgrade sctrellis"):
        load(saved)


def test_arrays_of_another_shape(saved, tmp_path):
    save(tmp_path / "other", "infosem", {}, {**arrays(), "adjacency": np.eye(7)}, GENES)
    shutil.copy(tmp_path / "other" / "model.safetensors", saved)
    with pytest.raises(ValueError, match=r"array 'adjacency' at .* has shape \[7, 7\], but \[4, 4\] was saved"):
        load(saved)
    rewrite(saved, shapes={"theta": [3]})
    with pytest.raises(ValueError, match=r"array 'theta' at .* has shape None, but \[3\] was saved"):
        load(saved)


@pytest.mark.parametrize(
    ("genes", "message"),
    [
        ([*GENES[:3], "TP53"], r"fitted on other genes: 1 of its genes are missing \('Ünï'\)"),
        (["A", "B", "C", "D", "E"], r"4 of its genes are missing \('GATA1', 'SPI1', 'HLA-DRA', …\)"),
        ([*GENES, "TP53"], r"1 genes are not its own \('TP53'\)"),
        (GENES[::-1], "the order differs. Select and order them as in its var_names.txt"),
    ],
)
def test_other_genes(saved, genes, message):
    with pytest.raises(ValueError, match=message):
        load(saved, var_names=genes)


def test_many_other_genes_are_compared_at_once(tmp_path):
    genes = [f"gene{i}" for i in range(30_000)]
    save(tmp_path / "fit", "ridge", {}, {}, genes)
    assert load(tmp_path / "fit", var_names=genes).var_names == genes
    with pytest.raises(ValueError, match="the order differs"):
        load(tmp_path / "fit", var_names=genes[::-1])
