import logging
import subprocess
import sys

import pytest

import sctrellis as tr
from sctrellis._core import logs


def test_added_names_the_slots(caplog):
    with caplog.at_level(logging.INFO, logger="sctrellis"):
        logs.added(["varp['m']", "uns['m']"])
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [("INFO", "added varp['m'], uns['m']")]


def test_the_package_stays_silent_until_asked(capfd):
    logs.logger.warning("not shown by a handler of last resort")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("setting", "progress", "shown"),
    [(True, None, True), (False, None, False), (True, False, False), (False, True, True), (None, True, True)],
)
def test_progress_bar_follows_the_argument_then_the_settings(monkeypatch, capfd, setting, progress, shown):
    monkeypatch.setattr(tr.settings, "progress", setting)
    with logs.progress_bar(3, "fit m", progress=progress) as bar:
        bar.update(3)
        assert bar.disable is not shown
    assert ("fit m" in capfd.readouterr().err) is shown


def test_progress_bar_is_silent_in_batch_logs(monkeypatch, capfd):
    # pytest's captured stderr is no terminal, as in a batch job.
    monkeypatch.setattr(tr.settings, "progress", None)
    with logs.progress_bar(3, "fit m") as bar:
        bar.update(3)
    assert capfd.readouterr().err == ""


def test_progress_bar_counts_in_its_unit(capfd):
    with logs.progress_bar(4, "score", progress=True, unit="target") as bar:
        bar.update(2)
        bar.refresh()
    assert "2/4" in (err := capfd.readouterr().err)
    assert "target" in err


def test_a_bar_that_is_not_shown_loads_nothing():
    code = "import sys; from sctrellis._core.logs import progress_bar as bar\n" + "\n".join(
        f"with bar(2, 'fit', progress={progress}) as b: b.set_postfix(loss=1, refresh=False); b.update(); b.update(1)"
        for progress in (False, None)
    )
    run = [sys.executable, "-c", f"{code}\nprint('tqdm' in sys.modules)"]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("False", "")
