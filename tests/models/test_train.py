"""The training loop: what is trained when and how fast, when it stops, and that a stop costs nothing."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn

from sctrellis._core.rows import Rows
from sctrellis.models._batches import Batches, Standardised
from sctrellis.models._seed import generator
from sctrellis.models._train import ParamGroup, Phase, TrainConfig, train

CPU = torch.device("cpu")


class Tiny(nn.Module):
    """A noisy linear auto-encoder with a scalar parameter and state of its own between epochs."""

    def __init__(self, n_genes=5, *, optimiser="adam", decay="cosine", seed=0):
        super().__init__()
        noise = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(0.1 * torch.randn(n_genes, n_genes, generator=noise))
        self.shift = nn.Parameter(torch.randn((), generator=noise))
        self.register_buffer("n_epochs", torch.zeros((), dtype=torch.int64))
        self.register_buffer("average", torch.zeros(n_genes))
        self.options = {"optimiser": optimiser, "decay": decay}
        self.n_losses = 0

    def param_groups(self):
        return {
            "map": ParamGroup(params=[self.weight], lr=0.03, **self.options),
            "shift": ParamGroup(params=[self.shift], lr=0.01, **self.options),
        }

    def losses(self, batch, noise, progress):
        self.n_losses += 1
        noisy = batch + 0.1 * torch.randn(batch.shape, generator=noise)
        error = (noisy @ self.weight + self.shift - batch).square().mean()
        if self.training:
            self.average = 0.9 * self.average + 0.1 * batch.mean(0)
        size = self.weight.abs().mean()
        return {"loss": error + (1 + progress) * 0.1 * size, "error": error, "size": size}

    def after_epoch(self, epoch):
        self.n_epochs += 1
        with torch.no_grad():
            self.weight.fill_diagonal_(0.0)


def cells(n_obs=50, seed=0, batch_size=16, **options):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n_obs, 5)) + rng.normal(size=(n_obs, 1))
    return Batches(Standardised(Rows(x)), batch_size, seed, CPU, **options)


CYCLE = (
    Phase(name="warm", n_epochs=3, cycle=(("map", "shift"),)),
    Phase(name="turns", n_epochs=8, cycle=(("map",), ("shift",))),
)


def config(**options):
    return TrainConfig(**{"phases": CYCLE, "checkpoint_every": 2, "clip_norm": 1.0, **options})


def state_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) and a[name].shape == b[name].shape for name in a)


# Interruption and resumption -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimiser", ["adam", "rmsprop"])
@pytest.mark.parametrize("patience", [None, 100])
@pytest.mark.parametrize("stops", [[0], [1], [3], [6], [10], [2, 5, 9]])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_resumed_fit_is_the_same_to_the_bit(tmp_path, optimiser, patience, stops, error):
    held_out = cells(seed=3, cells=np.arange(40, 50))
    options = {"validation": held_out, "fingerprint": "same"}
    whole = Tiny(optimiser=optimiser)
    expected = train(whole, cells(cells=np.arange(40)), config(patience=patience), **options)
    for n_before, stop in enumerate(stops):
        model = Tiny(optimiser=optimiser, seed=n_before)  # another start shows that all of it is read

        def interrupt(epoch, means, stop=stop):
            if epoch == stop:
                raise error

        if n_before == 0:
            model.load_state_dict(Tiny(optimiser=optimiser).state_dict())
        with pytest.raises(error):
            train(
                model,
                cells(cells=np.arange(40)),
                config(patience=patience),
                checkpoint=tmp_path / "stop",
                on_epoch_end=interrupt,
                **options,
            )
        written = (tmp_path / "stop" / "progress.json").is_file()
        assert written == (stop >= 2)
        if written:
            assert json.loads((tmp_path / "stop" / "progress.json").read_text())["epoch"] == stop // 2 * 2
    last = Tiny(optimiser=optimiser, seed=0 if stops[-1] < 2 else 99)
    result = train(
        last, cells(cells=np.arange(40)), config(patience=patience), checkpoint=str(tmp_path / "stop"), **options
    )
    assert result == expected
    assert list(result.history) == list(expected.history)
    assert same(state_of(last), state_of(whole))
    assert [path.name for path in tmp_path.iterdir()] == ["stop"]


def test_a_finished_fit_is_read_and_not_trained_again(tmp_path):
    first, again = Tiny(), Tiny(seed=5)
    result = train(first, cells(), config(), checkpoint=tmp_path / "fit")
    assert train(again, cells(), config(), checkpoint=tmp_path / "fit") == result
    assert again.n_losses == 0
    assert same(state_of(first), state_of(again))


def test_a_fit_that_stopped_early_stays_stopped(tmp_path):
    first, again = Falling(), Falling()
    options = {"validation": rows(4), "checkpoint": tmp_path / "fit"}
    long = TrainConfig(phases=(Phase(name="fall", n_epochs=50, cycle=(("all",),)),), patience=3)
    result = train(first, rows(4), long, **options)
    assert result.stopped == "early_stopping"
    assert train(again, rows(4), long, **options) == result
    assert again.n_losses == 0
    assert same(state_of(first), state_of(again))


def test_another_fit_is_refused(tmp_path):
    train(Tiny(), cells(), config(), checkpoint=tmp_path / "fit", fingerprint="mine")
    before = {path.name: path.read_bytes() for path in (tmp_path / "fit").iterdir()}
    model = Tiny(seed=4)
    start = state_of(model)
    with pytest.raises(ValueError, match="The checkpoint at '.*fit' is of another fit: its data, settings or seed"):
        train(model, cells(), config(), checkpoint=tmp_path / "fit", fingerprint="yours")
    assert same(state_of(model), start)
    assert {path.name: path.read_bytes() for path in (tmp_path / "fit").iterdir()} == before


def test_a_folder_of_something_else_is_refused_before_training(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    model = Tiny()
    with pytest.raises(ValueError, match=r"`checkpoint`: the folder '.*' holds other files \('notes.txt'\)"):
        train(model, cells(), config(), checkpoint=tmp_path)
    assert model.n_losses == 0
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_what_is_said_on_interruption(tmp_path, caplog):
    def interrupt(epoch, means):
        if epoch == 4:
            raise KeyboardInterrupt

    for checkpoint, every, words in [
        (None, 2, "interrupted after epoch 5"),
        (tmp_path / "a", 99, "interrupted after epoch 5"),
        (tmp_path / "b", 2, f"interrupted after epoch 5; the checkpoint at '{tmp_path / 'b'}' can be resumed"),
    ]:
        caplog.clear()
        model = Tiny()
        with pytest.raises(KeyboardInterrupt):
            train(model, cells(), config(checkpoint_every=every), checkpoint=checkpoint, on_epoch_end=interrupt)
        assert caplog.messages == [words]
        assert all(parameter.requires_grad for parameter in model.parameters())
    caplog.clear()
    caplog.set_level("INFO", "sctrellis")
    train(Tiny(), cells(), config(), checkpoint=tmp_path / "b")
    assert caplog.messages == ["resumed from 'b' at epoch 4"]


CHILD = """
    import signal, sys
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is born deaf to it
    sys.path.insert(0, {tests!r})
    from test_train import Tiny, cells, TrainConfig, Phase, train

    plan = TrainConfig(phases=(Phase(name="long", n_epochs=20_000, cycle=(("map", "shift"),)),), checkpoint_every=1)
    for line in sys.stdin:
        try:
            print("ready", flush=True)
            train(Tiny(), cells(), plan, checkpoint={folder!r}, fingerprint="child")
            print("finished", flush=True)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("n_trials", [10, pytest.param(60, marks=pytest.mark.slow)])
def test_an_interrupt_at_any_moment_leaves_a_checkpoint_that_can_be_resumed(tmp_path, n_trials):
    folder = tmp_path / "fit"
    code = textwrap.dedent(CHILD.format(tests=os.path.dirname(__file__), folder=str(folder)))  # noqa: PTH120
    pause = np.random.default_rng(0)
    epochs = [0]
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        for _ in range(n_trials):
            child.stdin.write("go\n")
            child.stdin.flush()
            assert child.stdout.readline() == "ready\n"
            while not folder.exists() and child.poll() is None:  # the first checkpoint
                time.sleep(0.01)
            time.sleep(0.15 * pause.random())
            child.send_signal(signal.SIGINT)
            assert child.stdout.readline() == "interrupted\n"
            progress = json.loads((folder / "progress.json").read_text())
            assert len(dict(progress["history"])["loss"]) == progress["epoch"] >= epochs[-1]
            assert load_file(folder / "state.safetensors")["model.n_epochs"] == progress["epoch"]
            epochs.append(progress["epoch"])
        child.kill()
    assert epochs[-1] > epochs[1] > 0
    # What is left is resumed here, and equals a fit that nobody interrupted.
    plan = TrainConfig(
        phases=(Phase(name="long", n_epochs=20_000, cycle=(("map", "shift"),)),), checkpoint_every=10_000
    )

    def stop(epoch, means):
        if epoch == epochs[-1] + 2:
            raise InterruptedError

    resumed, whole = Tiny(seed=9), Tiny()
    for model, checkpoint in ((resumed, folder), (whole, None)):
        with pytest.raises(InterruptedError):
            train(model, cells(), plan, checkpoint=checkpoint, fingerprint="child", on_epoch_end=stop)
    assert same(state_of(resumed), state_of(whole))


# What is trained, and how fast ----------------------------------------------------------------------------------------


class Source:
    """Batches of given rows, in order."""

    def __init__(self, values, batch_size, seed=0):
        self.values, self.batch_size, self.seed, self.device = values, batch_size, seed, CPU

    def __len__(self):
        return -(-len(self.values) // self.batch_size)

    def epoch(self, epoch):
        yield from self.values.split(self.batch_size)


def rows(n, batch_size=4, seed=0):
    return Source(torch.arange(float(n))[:, None], batch_size, seed)


class Plain(ParamGroup):
    """Steps of exactly rate times gradient."""

    def build(self):
        return torch.optim.SGD(self.params, lr=self.lr)


class Falling(nn.Module):
    """Each step lowers every parameter by the learning rate; held-out cells like it best at -0.55."""

    def __init__(self, groups=("all",), *, lr=0.1, decay=1.0, slope=1.0):
        super().__init__()
        self.named = nn.ParameterDict({name: nn.Parameter(torch.zeros(2)) for name in groups})
        self.lr, self.decay, self.slope = lr, decay, slope
        self.seen, self.n_losses, self.ended, self.modes = [], 0, [], []

    def param_groups(self):
        return {name: Plain(params=[p], lr=self.lr, decay=self.decay) for name, p in self.named.items()}

    def losses(self, batch, noise, progress):
        self.n_losses += 1
        self.modes.append(self.training)
        first = next(iter(self.named.values()))
        if self.training:
            drawn = float(torch.rand((), generator=noise))
            self.seen.append((float(first[0].detach()), progress, drawn))
            total = sum(p.sum() for p in self.named.values())
            return {"loss": self.slope * total, "mean": batch.mean(), "count": torch.tensor(float(len(batch)))}
        self.seen.append(("validation", progress, float(torch.rand((), generator=noise))))
        return {"loss": (first[0] + 0.55).square() + 0 * batch.sum()}

    def after_epoch(self, epoch):
        self.ended.append(epoch)


def falling(n_epochs, **options):
    return TrainConfig(phases=(Phase(name="fall", n_epochs=n_epochs, cycle=(("all",),)),), **options)


@pytest.mark.parametrize("decay", [1.0, 0.5, "cosine"])
def test_rates_follow_their_schedule_in_every_phase(decay):
    model = Falling(lr=0.1, decay=decay)
    cycle = (("all",),)
    plan = TrainConfig(phases=(Phase(name="a", n_epochs=3, cycle=cycle), Phase(name="b", n_epochs=2, cycle=cycle)))
    train(model, rows(10), plan)
    expected, progress = [], []
    for n_epochs in (3, 2):
        for epoch in range(n_epochs):
            for batch in range(3):
                fraction = (epoch + batch / 3) / n_epochs
                progress.append(fraction)
                rate = (1 + np.cos(np.pi * fraction)) / 2 if decay == "cosine" else decay**epoch
                expected.append(0.1 * rate)
    positions = [first for first, _, _ in model.seen] + [float(model.named["all"][0].detach())]
    assert -np.diff(positions) == pytest.approx(expected, abs=1e-6)
    assert [share for _, share, _ in model.seen] == pytest.approx(progress)


@pytest.mark.parametrize("optimiser", ["adam", "rmsprop"])
def test_optimisers_are_those_of_torch(optimiser):
    """The loop equals a bare loop over the same batches."""
    model, bare = Tiny(optimiser=optimiser, decay=0.9), Tiny(optimiser=optimiser)
    plan = TrainConfig(phases=(Phase(name="all", n_epochs=4, cycle=(("map", "shift"),)),))
    seen = []
    forward = model.losses
    model.losses = lambda batch, noise, progress: seen.append(batch.clone()) or forward(batch, noise, progress)
    train(model, cells(), plan)
    source = cells()
    assert all(map(torch.equal, seen, (b for e in range(4) for b in source.epoch(e))))
    made = {
        "adam": lambda p, lr: torch.optim.Adam([p], lr=lr, betas=(0.9, 0.99)),
        "rmsprop": lambda p, lr: torch.optim.RMSprop([p], lr=lr),
    }[optimiser]
    steps = [made(bare.weight, 0.03), made(bare.shift, 0.01)]
    for epoch in range(4):
        noise = generator(CPU, 0, epoch)
        for i, batch in enumerate(source.epoch(epoch)):
            bare.losses(batch, noise, (epoch + i / len(source)) / 4)["loss"].backward()
            for step, lr in zip(steps, (0.03, 0.01), strict=True):
                step.param_groups[0]["lr"] = lr * 0.9**epoch
                step.step()
                step.zero_grad()
        bare.after_epoch(epoch)
    assert same(state_of(model), state_of(bare))


def test_groups_take_turns_and_the_others_stand_still():
    model = Falling(("a", "b", "c"))
    phases = Phase(name="one", n_epochs=2, cycle=(("c",),)), Phase(name="two", n_epochs=6, cycle=(("a",), ("b", "a")))
    plan = TrainConfig(phases=phases)
    previous, moved = {name: p.detach().clone() for name, p in model.named.items()}, []

    def note(epoch, means):
        moved.append({name for name, p in model.named.items() if not torch.equal(p.detach(), previous[name])})
        previous.update({name: p.detach().clone() for name, p in model.named.items()})

    train(model, rows(8), plan, on_epoch_end=note)
    assert moved == [{"c"}] * 2 + [{"a"}, {"a", "b"}] * 3
    assert model.ended == list(range(8))


@pytest.mark.parametrize("optimiser", ["adam", "rmsprop"])
def test_momentum_does_not_move_a_group_that_waits(optimiser):
    model = Tiny(optimiser=optimiser)
    model.after_epoch = lambda epoch: None
    before, moved = state_of(model), []

    def note(epoch, means):
        nonlocal before
        now = state_of(model)
        moved.append([name for name in ("weight", "shift") if not torch.equal(now[name], before[name])])
        before = now

    train(model, cells(), config(), on_epoch_end=note)
    assert moved == [["weight", "shift"]] * 3 + [["weight"], ["shift"]] * 4
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_gradients_are_clipped_over_all_active_groups():
    for slope, clip, step in [(100.0, 1.0, 0.5), (0.1, 1.0, 0.1), (100.0, None, 100.0)]:
        model = Falling(("a", "b"), lr=1.0, slope=slope)
        plan = TrainConfig(phases=(Phase(name="p", n_epochs=1, cycle=(("a", "b"),)),), clip_norm=clip)
        train(model, rows(4), plan)
        # Four equal entries: a norm of 1 leaves 0.5 each.
        assert torch.cat(list(model.named.values())).tolist() == pytest.approx([-step] * 4, rel=1e-5)
    model = Falling(("a", "b"), lr=1.0, slope=100.0)
    train(model, rows(4), TrainConfig(phases=(Phase(name="p", n_epochs=1, cycle=(("b",),)),), clip_norm=1.0))
    assert model.named["b"].tolist() == pytest.approx([-(0.5**0.5)] * 2, rel=1e-5)


def test_history_weights_batches_by_their_size():
    model, told = Falling(), []
    result = train(model, rows(10), falling(2), on_epoch_end=lambda epoch, means: told.append((epoch, dict(means))))
    assert result.history["mean"] == pytest.approx([4.5, 4.5])
    assert result.history["count"] == pytest.approx([(16 + 16 + 4) / 10] * 2)
    # Before the three steps of the first epoch the loss was 0, -0.2 and -0.4, of 4, 4 and 2 cells.
    assert result.history["loss"][0] == pytest.approx((4 * 0 - 4 * 0.2 - 2 * 0.4) / 10)
    assert [epoch for epoch, _ in told] == [0, 1]
    assert all(means[part] == result.history[part][epoch] for epoch, means in told for part in means)
    assert result.epochs == 2
    assert result.stopped == "end"


def test_validation_is_weighted_too_and_in_evaluation_mode():
    model = Falling()
    model.losses = lambda batch, noise, progress: {"loss": batch.mean() + 0 * model.named["all"].sum()}
    result = train(model, rows(4), falling(1), validation=rows(10))
    assert result.history["validation"] == pytest.approx([4.5])
    model = Falling()
    train(model, rows(8), falling(2), validation=rows(8))
    assert model.modes == [True, True, False, False] * 2
    assert [share for kind, share, _ in model.seen if kind == "validation"] == [1.0] * 4


# When it stops --------------------------------------------------------------------------------------------------------


def test_early_stopping_returns_the_best_state():
    model, positions = Falling(), []
    note = lambda epoch, means: positions.append(float(model.named["all"][0].detach()))  # noqa: E731
    result = train(model, rows(4), falling(50, patience=3), validation=rows(4), on_epoch_end=note)
    errors = [(position + 0.55) ** 2 for position in positions]
    best = int(np.argmin(errors))
    assert result.history["validation"] == pytest.approx(errors, abs=1e-6)
    assert result.best_epoch == best
    assert float(model.named["all"][0].detach()) == positions[best]
    assert result.epochs == len(positions) == best + 1 + 3
    assert result.stopped == "early_stopping"


def test_patience_that_is_not_exhausted_returns_the_best_state_too():
    model = Falling()
    result = train(model, rows(4), falling(8, patience=30), validation=rows(4))
    assert result.stopped == "end"
    assert result.epochs == 8
    assert float(model.named["all"][0].detach()) == pytest.approx(-0.1 * (result.best_epoch + 1), abs=1e-6)
    assert result.best_epoch < 7


def test_without_patience_the_last_state_stays():
    model = Falling()
    result = train(model, rows(4), falling(20), validation=rows(4))
    assert result.epochs == 20
    assert result.best_epoch < 10
    assert float(model.named["all"][0].detach()) == pytest.approx(-2.0, abs=1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_fit(tmp_path, value):
    model = Tiny()
    forward = model.losses

    def broken(batch, noise, progress):
        losses = forward(batch, noise, progress)
        return {**losses, "loss": losses["loss"] * (value if model.n_losses > 4 * 3 + 1 else 1)}

    model.losses = broken
    message = (
        rf"Loss became {value:g} at epoch 3 \(turns\). Lower the learning rate, or check the expression for extreme "
        r"values: the largest standardised one here is \d+(\.\d+)?"
    )
    with pytest.raises(FloatingPointError, match=message):
        train(model, cells(), config(), checkpoint=tmp_path / "fit")
    assert all(torch.isfinite(value).all() for value in state_of(model).values())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert json.loads((tmp_path / "fit" / "progress.json").read_text())["epoch"] == 2


# Noise ----------------------------------------------------------------------------------------------------------------


def noise_of(source, n_epochs=4, **options):
    model = Falling()
    train(model, source, falling(n_epochs), **options)
    return model.seen


def test_noise_depends_on_seed_and_epoch_only():
    torch.manual_seed(1)  # noqa: TID251 - a state that must not matter
    one_batch = [drawn for _, _, drawn in noise_of(rows(4))]
    assert len(set(one_batch)) == 4
    torch.rand(7)
    assert [drawn for _, _, drawn in noise_of(rows(4))] == one_batch
    # More batches draw more in an epoch, and the next epoch begins where it would have.
    assert [drawn for _, _, drawn in noise_of(rows(12))][::3] == one_batch
    assert not set(one_batch) & {drawn for _, _, drawn in noise_of(rows(4, seed=1))}
    with_validation = noise_of(rows(4), validation=rows(4, seed=5))
    assert [drawn for kind, _, drawn in with_validation if kind != "validation"] == one_batch
    validation = {drawn for kind, _, drawn in with_validation if kind == "validation"}
    assert len(validation) == 1  # epochs are compared under the same noise


def test_global_random_state_is_untouched():
    state = torch.get_rng_state()
    train(Tiny(), cells(), config(), validation=cells(seed=1))
    assert torch.equal(state, torch.get_rng_state())
