import logging
import os
import subprocess
import sys

import pytest

from sctrellis._settings import Settings


@pytest.fixture
def logger():
    """The package's logger, put back as it was."""
    logger = logging.getLogger("sctrellis")
    handlers, level = list(logger.handlers), logger.level
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)


def test_verbosity_attaches_one_handler_only(logger, capfd):
    before = len(logger.handlers)
    settings = Settings()
    assert len(logger.handlers) == before
    for level in ("info", "debug", "info"):
        settings.verbosity = level
        assert settings.verbosity == level
    Settings().verbosity = "info"
    assert len(logger.handlers) == before + 1
    logger.info("said once")
    logger.debug("too quiet")
    assert capfd.readouterr().err == "said once\n"
    assert logger.propagate


@pytest.mark.parametrize("level", ["error", "warning", "info", "debug"])
def test_verbosity_sets_the_level(logger, level):
    Settings().verbosity = level
    assert logger.level == getattr(logging, level.upper())


def test_unknown_verbosity_changes_nothing(logger):
    settings = Settings()
    before = (list(logger.handlers), logger.level)
    with pytest.raises(ValueError, match=r"Expected `verbosity` to be one of \['debug', 'error', 'info', 'warning'\]"):
        settings.verbosity = "loud"
    assert settings.verbosity == "warning"
    assert (list(logger.handlers), logger.level) == before


def test_repr_shows_every_setting():
    settings = Settings()
    for name in ("verbosity", "progress", "device", "n_jobs", "max_dense_gb", "dataset_dir"):
        assert f"{name}={getattr(settings, name)!r}" in repr(settings)


def test_dataset_dir_comes_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("SCTRELLIS_DATA", str(tmp_path))
    assert Settings().dataset_dir == tmp_path
    monkeypatch.delenv("SCTRELLIS_DATA")
    assert Settings().dataset_dir.parts[-2:] == (".cache", "sctrellis")


def test_importing_changes_nothing():
    code = """
import logging, sys, warnings
before = (list(warnings.filters), list(logging.root.handlers), logging.root.level)
import sctrellis
after = (list(warnings.filters), list(logging.root.handlers), logging.root.level)
assert before == after
loaded = [m for m in ("torch", "matplotlib", "scanpy", "anndata") if m in sys.modules]
assert not loaded, loaded
assert all(isinstance(h, logging.NullHandler) for h in logging.getLogger("sctrellis").handlers)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
