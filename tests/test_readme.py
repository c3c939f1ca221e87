"""What the README shows runs as it stands."""

import re
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")


def test_example(tmp_path, monkeypatch):
    mpl.use("Agg")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL):
        exec(block, names)
    assert {"infosem", "pearson"} <= set(names["table"]["key"])
    assert "baseline" in set(names["table"]["kind"])
    assert list(names["edges"].columns[:3]) == ["source", "target", "weight"]
    assert len(names["edges"]) == 20
    assert isinstance(names["ax"], Axes)
    assert list(tmp_path.iterdir()) == []


def test_commands_are_targets_of_the_makefile():
    makefile = (Path(__file__).parents[1] / "Makefile").read_text("utf-8")
    commands = re.findall(r"^\$ make (\w+)", README, re.MULTILINE)
    assert commands == ["demo", "test"]
    for command in commands:
        assert re.search(rf"^{command}:", makefile, re.MULTILINE)
