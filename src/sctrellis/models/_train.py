"""The one training loop: phases, alternating groups, early stopping, history, checkpoint and resume."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import torch
from safetensors.torch import load_file
from torch import nn

from sctrellis._core import checks
from sctrellis._core.logs import logger
from sctrellis.models._io import recover, write_folder
from sctrellis.models._seed import generator

_CHECKPOINT = ("progress.json", "state.safetensors")


@dataclass(frozen=True, kw_only=True)
class ParamGroup:
    """Parameters that are trained together.

    Parameters
    ----------
    params
        The parameters.
    lr
        Learning rate at the start of a phase.
    optimiser
        ``"adam"`` or ``"adamw"`` (betas 0.9 and 0.99), or ``"rmsprop"``.
    decay
        ``"cosine"`` to zero over the phase, or the factor that an epoch of the phase multiplies the rate by.
    weight_decay
        Share of the learning rate that parameters shrink by in a step; ``"adamw"`` only.
    """

    params: Sequence[nn.Parameter]
    lr: float
    optimiser: Literal["adam", "adamw", "rmsprop"] = "adam"
    decay: float | Literal["cosine"] = 1.0
    weight_decay: float = 0.0

    def build(self) -> torch.optim.Optimizer:
        """Return the optimiser."""
        if self.optimiser == "adam":
            return torch.optim.Adam(self.params, lr=self.lr, betas=(0.9, 0.99))
        if self.optimiser == "adamw":
            return torch.optim.AdamW(self.params, lr=self.lr, betas=(0.9, 0.99), weight_decay=self.weight_decay)
        return torch.optim.RMSprop(self.params, lr=self.lr)

    def rate(self, fraction: float, epoch: int) -> float:
        """Return the learning rate at a fraction of the phase, in its given epoch."""
        if self.decay == "cosine":
            return self.lr * 0.5 * (1 + math.cos(math.pi * fraction))
        return self.lr * self.decay**epoch


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of epochs; epoch ``e`` of it trains the groups ``cycle[e % len(cycle)]``.

    Parameters
    ----------
    name
        Name, for messages.
    n_epochs
        Number of epochs.
    cycle
        Groups trained in turn.
    """

    name: str
    n_epochs: int
    cycle: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How to train.

    Parameters
    ----------
    phases
        The phases, in order.
    clip_norm
        Largest norm of the gradient; None does not clip.
    patience
        Epochs without a better monitored loss before training stops and the best state returns; None trains to the end
        and keeps the last state.
    checkpoint_every
        Epochs between checkpoints.
    """

    phases: tuple[Phase, ...]
    clip_norm: float | None = None
    patience: int | None = None
    checkpoint_every: int = 10


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What training did; the module itself holds the trained state.

    Attributes
    ----------
    history
        Loss part to one mean per epoch; ``validation`` too where some were held out.
    epochs
        Epochs trained.
    best_epoch
        Epoch with the smallest monitored loss.
    stopped
        ``"end"`` or ``"early_stopping"``.
    """

    history: dict[str, list[float]] = field(default_factory=dict)
    epochs: int = 0
    best_epoch: int = 0
    stopped: str = "end"


class Trainable(Protocol):
    """What the loop asks of a module."""

    def param_groups(self) -> dict[str, ParamGroup]:
        """Return the groups by name; a parameter is in one group."""
        ...

    def losses(self, batch: torch.Tensor, noise: torch.Generator, progress: float) -> dict[str, torch.Tensor]:
        """Return ``"loss"`` and its parts for a batch; ``progress`` runs from 0 to 1 over the phase."""
        ...

    def after_epoch(self, epoch: int) -> None:
        """Do what the module must between epochs, such as keeping its system solvable."""
        ...


class BatchSource(Protocol):
    """What the loop asks of batches, such as those of cells: tensors whose first axis counts, and where they lie."""

    @property
    def seed(self) -> int:
        """Seed of the order and of the noise."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the batches are."""
        ...

    def __len__(self) -> int: ...

    def epoch(self, epoch: int) -> Iterator[torch.Tensor]:
        """Yield the batches of an epoch."""
        ...


def _epochs(phases: Sequence[Phase]) -> Iterator[tuple[Phase, int]]:
    for phase in phases:
        for epoch in range(phase.n_epochs):
            yield phase, epoch


def train(
    model: nn.Module,
    batches: BatchSource,
    config: TrainConfig,
    *,
    validation: BatchSource | None = None,
    checkpoint: str | Path | None = None,
    fingerprint: str = "",
    on_epoch_end: Callable[[int, Mapping[str, float]], None] | None = None,
) -> TrainResult:
    """Train a module that is :class:`Trainable`, in place.

    Parameters
    ----------
    model
        The module; on the device of the batches.
    batches
        Training batches; their seed also seeds the noise of each epoch.
    config
        How to train.
    validation
        Held-out batches; their loss is monitored instead of the training loss.
    checkpoint
        Folder of the last checkpoint. One that is there is resumed from, and the result is the same as that of a run
        without a stop; it is replaced every ``checkpoint_every`` epochs and at the end.
    fingerprint
        Describes data and settings; a checkpoint with another one is refused.
    on_epoch_end
        Called with the epoch and its mean losses.

    Returns
    -------
    TrainResult
        History, and why training stopped.

    Raises
    ------
    FloatingPointError
        If a loss is not finite.
    ValueError
        If the checkpoint is of another fit.
    """
    groups = model.param_groups()  # type: ignore[operator]
    optimisers = {name: group.build() for name, group in groups.items()}
    state = _State(model, optimisers, fingerprint)
    if checkpoint is not None:
        recover(checkpoint)
        checks.replaceable_folder("checkpoint", checkpoint, _CHECKPOINT)  # now, not after hours of training
        if (Path(checkpoint) / _CHECKPOINT[0]).is_file():
            state.read(Path(checkpoint))
            logger.info("resumed from '%s' at epoch %d", Path(checkpoint).name, state.epoch)
    plan = list(_epochs(config.phases))
    stopped = state.exhausted(config.patience)
    before = {parameter: parameter.requires_grad for parameter in model.parameters()}
    try:
        for epoch in range(state.epoch, len(plan)):
            if stopped:
                break
            phase, epoch_in_phase = plan[epoch]
            active = phase.cycle[epoch_in_phase % len(phase.cycle)]
            means = _one_epoch(model, batches, config, groups, optimisers, phase, epoch_in_phase, epoch, active)
            if validation is not None:
                means["validation"] = _evaluate(model, validation, epoch)
            model.after_epoch(epoch)  # type: ignore[operator]
            state.record(epoch, means, means.get("validation", means["loss"]), keep_best=config.patience is not None)
            if on_epoch_end is not None:
                on_epoch_end(epoch, means)
            stopped = state.exhausted(config.patience)
            if checkpoint is not None and not stopped and (epoch + 1) % config.checkpoint_every == 0:
                state.write(Path(checkpoint))
    except KeyboardInterrupt:
        written = checkpoint is not None and (Path(checkpoint) / _CHECKPOINT[0]).is_file()
        kept = f"; the checkpoint at '{checkpoint}' can be resumed" if written else ""
        logger.warning("interrupted after epoch %d%s", state.epoch, kept)
        raise
    finally:
        for parameter, trained in before.items():
            parameter.requires_grad_(trained)
    if checkpoint is not None:
        state.write(Path(checkpoint))
    if config.patience is not None and state.best:
        model.load_state_dict(state.best)
    return TrainResult(
        history=state.history,
        epochs=state.epoch,
        best_epoch=state.best_epoch,
        stopped="early_stopping" if stopped else "end",
    )


def _one_epoch(
    model: nn.Module,
    batches: BatchSource,
    config: TrainConfig,
    groups: Mapping[str, ParamGroup],
    optimisers: Mapping[str, torch.optim.Optimizer],
    phase: Phase,
    epoch_in_phase: int,
    epoch: int,
    active: tuple[str, ...],
) -> dict[str, float]:
    for name, group in groups.items():
        for parameter in group.params:
            parameter.requires_grad_(name in active)
            parameter.grad = None
    parameters = [parameter for name in active for parameter in groups[name].params]
    noise = generator(batches.device, batches.seed, epoch)
    sums: dict[str, torch.Tensor] = {}
    n_cells = 0
    model.train()
    for i, batch in enumerate(batches.epoch(epoch)):
        fraction = (epoch_in_phase + i / len(batches)) / phase.n_epochs
        losses = model.losses(batch, noise, fraction)  # type: ignore[operator]
        if not torch.isfinite(losses["loss"]):
            value = float(losses["loss"].detach())
            msg = f"Loss became {value:g} at epoch {epoch} ({phase.name}). Lower the learning rate"
            if batch.is_floating_point():
                largest = float(batch.abs().max())
                msg += (
                    f", or check the expression for extreme values: the largest standardised one here is {largest:.3g}"
                )
            msg += "."
            raise FloatingPointError(msg)
        losses["loss"].backward()
        if config.clip_norm is not None:
            nn.utils.clip_grad_norm_(parameters, config.clip_norm)
        for name in active:
            for options in optimisers[name].param_groups:
                options["lr"] = groups[name].rate(fraction, epoch_in_phase)
            optimisers[name].step()
            optimisers[name].zero_grad(set_to_none=True)
        for part, value in losses.items():
            sums[part] = sums.get(part, torch.zeros_like(value.detach())) + value.detach() * len(batch)
        n_cells += len(batch)
    return {part: float(total) / n_cells for part, total in sums.items()}


@torch.no_grad()
def _evaluate(model: nn.Module, batches: BatchSource, epoch: int) -> float:
    model.eval()
    noise = generator(batches.device, batches.seed, 0)  # the same noise each time: epochs are compared
    total, n_cells = 0.0, 0
    for batch in batches.epoch(0):
        total += float(model.losses(batch, noise, 1.0)["loss"]) * len(batch)  # type: ignore[operator]
        n_cells += len(batch)
    return total / n_cells


class _State:
    """Where training is, and its round trip to a folder."""

    def __init__(self, model: nn.Module, optimisers: Mapping[str, torch.optim.Optimizer], fingerprint: str) -> None:
        self.model, self.optimisers, self.fingerprint = model, optimisers, fingerprint
        self.history: dict[str, list[float]] = {}
        self.epoch = 0
        self.best_epoch, self.best_loss = 0, math.inf
        self.best: dict[str, torch.Tensor] = {}

    def record(self, epoch: int, means: Mapping[str, float], monitored: float, *, keep_best: bool) -> None:
        for part, value in means.items():
            self.history.setdefault(part, []).append(value)
        self.epoch = epoch + 1
        if monitored < self.best_loss:
            self.best_loss, self.best_epoch = monitored, epoch
            if keep_best:
                self.best = {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    def write(self, path: Path) -> None:
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        for group, optimiser in self.optimisers.items():
            for index, slots in optimiser.state_dict()["state"].items():
                tensors |= {f"optimiser.{group}.{index}.{slot}": torch.as_tensor(v) for slot, v in slots.items()}
        progress = {
            "fingerprint": self.fingerprint,
            "epoch": self.epoch,
            "best_epoch": self.best_epoch,
            "best_loss": self.best_loss,
            "history": list(self.history.items()),  # JSON objects are written sorted; parts have an order
        }
        arrays = {name: value.detach().cpu().numpy() for name, value in tensors.items()}
        write_folder(path, dict(zip(_CHECKPOINT, (progress, arrays), strict=True)), argument="checkpoint")

    def exhausted(self, patience: int | None) -> bool:
        """Return whether the last ``patience`` epochs brought nothing better."""
        return patience is not None and self.epoch - 1 - self.best_epoch >= patience

    def read(self, path: Path) -> None:
        progress = json.loads((path / "progress.json").read_text(encoding="utf-8"))
        if progress["fingerprint"] != self.fingerprint:
            msg = (
                f"The checkpoint at '{path}' is of another fit: its data, settings or seed differ. Choose another "
                "`checkpoint` folder, or delete this one to start anew."
            )
            raise ValueError(msg)
        device = next(self.model.parameters()).device
        tensors = load_file(path / "state.safetensors", device=str(device))
        self.model.load_state_dict(_under("model.", tensors))
        self.best = _under("best.", tensors)
        for group, optimiser in self.optimisers.items():
            state: dict[int, dict[str, torch.Tensor]] = {}
            for name, value in _under(f"optimiser.{group}.", tensors).items():
                index, slot = name.split(".", 1)
                # Adam keeps its step count on the CPU wherever the parameters are.
                state.setdefault(int(index), {})[slot] = value.cpu() if slot == "step" else value
            optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
        self.epoch, self.history = progress["epoch"], dict(progress["history"])
        self.best_epoch, self.best_loss = progress["best_epoch"], progress["best_loss"]


def _under(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
