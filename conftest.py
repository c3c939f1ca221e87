"""What tests and the examples in docstrings share."""

import sys

import pytest


@pytest.fixture(autouse=True)
def _close_figures():
    """Close what a test drew, if anything did: open figures pile up over a session."""
    yield
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        pyplot.close("all")


@pytest.fixture(autouse=True)
def _no_audit_asked(monkeypatch):
    """Networks of tests and examples are audited where the audit is what is tested."""
    from sctrellis import settings

    monkeypatch.setattr(settings, "_audit", "off")
