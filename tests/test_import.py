"""Importing sctrellis gives the rooms and changes nothing."""

import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sctrellis as tr

ROOT = Path(__file__).parents[1]

UNTOUCHED = """
import json, logging, random, warnings
import matplotlib, numpy, torch

def state():
    return [
        [str(f) for f in warnings.filters],
        [str(h) for h in logging.getLogger().handlers],
        [str(h) for h in logging.getLogger("sctrellis").handlers if not isinstance(h, logging.NullHandler)],
        {k: str(v) for k, v in matplotlib.rcParams.items()},
        str(random.getstate()), str(numpy.random.get_state()), str(torch.get_rng_state().tolist()),
        str(torch.get_default_dtype()), torch.get_num_threads(),
    ]

# What the packages that we build on do on import is theirs.
import anndata, joblib, mudata, networkx, safetensors.torch, sklearn, tqdm.auto
before = state()
import sctrellis
from sctrellis import datasets, explain, get, metrics, models, pl, pp, tl
print(json.dumps(before == state()))
"""


@pytest.mark.parametrize("room", sorted(set(tr.__all__) - {"settings"}))
def test_rooms_are_there(room):
    module = getattr(tr, room)
    assert module.__name__ == f"sctrellis.{room}"
    assert module.__doc__
    missing = [name for name in module.__all__ if not hasattr(module, name)]
    assert missing == []
    assert list(module.__all__) == sorted(module.__all__)


def test_dir_lists_the_rooms():
    assert set(tr.__all__) <= set(dir(tr))


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'sctrellis' has no attribute 'tools'"):
        tr.tools  # noqa: B018


def test_importing_changes_nothing(tmp_path):
    run = subprocess.run([sys.executable, "-c", UNTOUCHED], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) is True
    assert list(tmp_path.iterdir()) == []


def test_one_version():
    assert tr.__version__ == importlib.metadata.version("sctrellis")
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert re.search(r"^version: (.*)$", citation, re.MULTILINE).group(1) == tr.__version__


def test_types_are_shipped():
    assert (Path(tr.__file__).parent / "py.typed").exists()


def test_constraints_install_no_cuda_and_no_local_files():
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!]+", pin) for pin in pins)
    assert not [pin for pin in pins if re.match("nvidia|cuda|triton", pin)]
