"""tl.deepsem: what it writes, saves and resumes, and what it refuses."""

import numpy as np
import pytest
from helpers import content, crowded_toy, digest

import sctrellis as tr
from sctrellis.tl import _sem

FAST = {"max_epochs": 3, "n_hidden": 4}


def interrupt(monkeypatch, after):
    """Have the user press Ctrl-C after some epochs; returns the epochs seen, those of later fits included."""
    seen = []
    build = _sem.epoch_bar

    def with_stop(*args, **kwargs):
        bar, callback = build(*args, **kwargs)

        def on_epoch_end(epoch, means):
            callback(epoch, means)
            seen.append(epoch)
            if len(seen) == after:
                raise KeyboardInterrupt

        return bar, on_epoch_end

    monkeypatch.setattr(_sem, "epoch_bar", with_stop)
    return seen


def test_a_stopped_fit_changes_nothing_and_resumes(monkeypatch, tmp_path):
    whole, stopped = crowded_toy(), crowded_toy()
    options = {"max_epochs": 24, "n_hidden": 4, "n_runs": 2}
    tr.tl.deepsem(whole, **options)
    before = content(stopped)
    seen = interrupt(monkeypatch, after=24 + 13)
    with pytest.raises(KeyboardInterrupt):
        tr.tl.deepsem(stopped, checkpoint=tmp_path / "c", **options)
    assert content(stopped) == before
    tr.tl.deepsem(stopped, checkpoint=tmp_path / "c", **options)
    assert seen[24 + 13 :] == list(range(10, 24))  # the first run is done, the second had a checkpoint
    assert content(stopped) == content(whole)
    # A fit that is done is read from its checkpoint.
    n_seen = len(seen)
    tr.tl.deepsem(stopped, checkpoint=tmp_path / "c", **options)
    assert len(seen) == n_seen
    assert content(stopped) == content(whole)


def _other_cells(adata):
    return adata[5:].copy()


def _other_values(adata):
    adata.X[0, 0] += 0.5
    return adata


def _other_names(adata):
    adata.var_names = [f"renamed_{name}" for name in adata.var_names]
    return adata


@pytest.mark.parametrize("change", [_other_cells, _other_values, _other_names])
def test_a_checkpoint_of_other_data_is_refused(change, tmp_path):
    tr.tl.deepsem(crowded_toy(), checkpoint=tmp_path / "c", **FAST)
    other = change(crowded_toy())
    before = content(other)
    with pytest.raises(ValueError, match=r"of another fit: its data, settings or seed differ\. Choose another"):
        tr.tl.deepsem(other, checkpoint=tmp_path / "c", **FAST)
    assert content(other) == before


@pytest.mark.parametrize("change", [{"seed": 1}, {"alpha": 1.0}, {"max_epochs": 4}, {"layer": "expression"}])
def test_a_checkpoint_of_other_settings_is_refused(change, tmp_path):
    adata = crowded_toy()
    adata.layers["expression"] = np.float32(0.5) * adata.X + np.float32(0.1)
    tr.tl.deepsem(adata, checkpoint=tmp_path / "c", **FAST)
    with pytest.raises(ValueError, match="of another fit"):
        tr.tl.deepsem(adata, checkpoint=tmp_path / "c", **{**FAST, **change})


def test_the_saved_model_is_the_one_in_the_record(tmp_path):
    adata = crowded_toy()
    tr.tl.deepsem(adata, save_model=tmp_path / "model", n_runs=2, **FAST)
    saved = tr.models.load(tmp_path / "model", var_names=list(adata.var_names))
    weights = adata.uns["deepsem"]["weights"]
    assert saved.method == "deepsem"
    assert saved.config["n_hidden"] == 4
    assert saved.config["n_epochs"] == 3
    assert saved.config["alpha"] == 100.0
    assert saved.weights.keys() == weights.keys()
    for name, value in saved.weights.items():
        assert digest(value) == digest(weights[name])
    # The network is the mean of the runs' adjacencies at the pairs of a regulator with another gene.
    mean = weights["adjacency"].mean(0)
    network = adata.varp["deepsem"].tocoo()
    np.testing.assert_allclose(network.data, mean[network.row, network.col], rtol=1e-6)
    spread = adata.varp["deepsem_std"].tocoo()
    np.testing.assert_allclose(spread.data, weights["adjacency"].std(0)[spread.row, spread.col], rtol=1e-4, atol=1e-9)


def test_one_run_has_no_spread():
    adata = crowded_toy()
    tr.tl.deepsem(adata, **FAST)
    assert "deepsem_std" not in adata.varp
    assert tr.get.record(adata, "deepsem")["slots"] == {"network": "varp/deepsem"}


def test_the_history_has_every_epoch_of_every_run():
    adata = crowded_toy()
    tr.tl.deepsem(adata, n_runs=2, **FAST)
    record = tr.get.record(adata, "deepsem")
    history = record["history"]
    assert list(history.columns) == ["run", "loss", "reconstruction", "kl", "l1"]
    assert history["run"].tolist() == [0.0] * 3 + [1.0] * 3
    np.testing.assert_allclose(
        history["loss"], history["reconstruction"] + history["kl"] + 100 * history["l1"], rtol=1e-5
    )
    assert list(record["fit"]["epochs"]) == [3, 3]
    assert "labels_used" not in record


@pytest.mark.parametrize("name", ["save_model", "checkpoint"])
def test_a_folder_with_other_files_is_refused_before_the_fit(name, tmp_path, monkeypatch):
    seen = interrupt(monkeypatch, after=-1)
    folder = tmp_path / "thesis" / ("run_0" if name == "checkpoint" else "")
    folder.mkdir(parents=True)
    (folder / "chapter.txt").write_text("years of work")
    adata = crowded_toy()
    before = content(adata)
    with pytest.raises(ValueError, match=rf"`{name}`: the folder .* holds other files \('chapter\.txt'\)"):
        tr.tl.deepsem(adata, **{name: tmp_path / "thesis"}, **FAST)
    assert not seen
    assert (folder / "chapter.txt").read_text() == "years of work"
    assert content(adata) == before


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"alpha": -1}, ValueError, r"`alpha` to lie in \[0, inf\], found -1"),
        ({"beta": float("nan")}, ValueError, r"`beta` to be a finite number"),
        ({"max_epochs": 0}, ValueError, r"`max_epochs` to be at least 1, found 0"),
        ({"batch_size": 1}, ValueError, r"`batch_size` to be at least 2, found 1"),
        ({"n_hidden": 4.0}, TypeError, r"`n_hidden` to be an integer, found 4\.0"),
        ({"lr": 0}, ValueError, r"`lr` to lie in \(0, inf\], found 0"),
        ({"lr_adjacency": "fast"}, TypeError, r"`lr_adjacency` to be a number, found 'fast'"),
        ({"lr_decay": 1.5}, ValueError, r"`lr_decay` to lie in \(0, 1\], found 1\.5"),
        ({"n_runs": 0}, ValueError, r"`n_runs` to be at least 1, found 0"),
    ],
)
def test_bad_arguments(change, error, message):
    adata = crowded_toy()
    before = content(adata)
    with pytest.raises(error, match=message):
        tr.tl.deepsem(adata, **{**FAST, **change})
    assert content(adata) == before


def test_a_network_too_large_for_memory_is_refused(monkeypatch):
    adata = crowded_toy()
    monkeypatch.setattr(tr.settings, "max_dense_gb", 1e-6)
    with pytest.raises(ValueError, match=r"needs .* GB.*Select genes first"):
        tr.tl.deepsem(adata, **FAST)


def test_a_loss_that_is_not_finite_stops_the_fit():
    adata = crowded_toy()
    before = content(adata)
    with pytest.raises(FloatingPointError, match=r"Loss became .* at epoch \d+ .*Lower the learning rate"):
        tr.tl.deepsem(adata, max_epochs=30, n_hidden=4, lr=1e6, lr_adjacency=1e6)
    assert content(adata) == before
