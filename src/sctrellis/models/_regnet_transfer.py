"""Move a fitted RegNet to other cells without labels of theirs."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from sctrellis._core import logs
from sctrellis.models._device import resolve_device
from sctrellis.models._edge_features import LabelledPairs
from sctrellis.models._regnet import RegNet
from sctrellis.models._regnet_data import reduce_cells
from sctrellis.models._regnet_fit import STEPS, RegNetFit, divergence, message_edges, score_regnet
from sctrellis.models._seed import generator
from sctrellis.models._train import ParamGroup, Phase, TrainConfig, train

_GENES = 2_048
"""Genes compared with one another in a step: their cosines are 17 MB."""
_CHUNK = 16
"""Pairs whose gradients are taken at once."""


@dataclass(frozen=True, kw_only=True)
class TransferConfig:
    """How :func:`transfer_regnet` trains.

    Parameters
    ----------
    mask_frac
        Share of the features that are hidden, and predicted.
    contrast, relational
        Weights of the contrast along edges, and of the distance to old cosines.
    temperature
        Temperature of the contrast.
    ewc
        Share of the loss that the pull to the old weights makes up when it sets in, after the first epoch; 0 leaves it
        out.
    n_fisher
        Labelled pairs of the source that say which weights matter.
    max_epochs
        Epochs at most; one has 10 steps.
    lr
        Learning rate.
    patience
        Epochs without a smaller loss on fixed draws before training stops; None trains to the end.
    """

    mask_frac: float = 0.1
    contrast: float = 0.1
    relational: float = 1.0
    temperature: float = 0.07
    ewc: float = 0.05
    n_fisher: int = 512
    max_epochs: int = 30
    lr: float = 2e-4
    patience: int | None = 5


@dataclass(frozen=True)
class GeneSteps:
    """Steps without labels: each yields the sorted positions of the genes to compare, int64.

    Parameters
    ----------
    n_genes
        Number of genes.
    n_steps
        Steps in an epoch.
    seed
        Seed of the genes drawn where there are more than 2,048.
    device
        Where the positions go.
    """

    n_genes: int
    n_steps: int
    seed: int
    device: torch.device

    def __len__(self) -> int:
        return self.n_steps

    def epoch(self, epoch: int) -> Iterator[torch.Tensor]:
        """Yield the steps of an epoch."""
        for step in range(self.n_steps):
            chosen = np.arange(self.n_genes)
            if self.n_genes > _GENES:
                rng = np.random.default_rng([self.seed, epoch, step])
                chosen = np.sort(rng.choice(self.n_genes, _GENES, replace=False))
            yield torch.from_numpy(chosen).to(self.device)


def info_nce(vectors: torch.Tensor, one: torch.Tensor, other: torch.Tensor, temperature: float) -> torch.Tensor:
    r"""Return the contrast of pairs: :math:`\log \sum_{k \ne i} e^{c_{ik} / t} - c_{ij} / t`, averaged over pairs.

    Parameters
    ----------
    vectors : (n, d)
        Vectors; :math:`c` is their cosine.
    one, other : (n_pairs,), int64
        Pairs that belong together.
    temperature
        The temperature :math:`t`.
    """
    unit = nn.functional.normalize(vectors, dim=-1)
    logits = unit @ unit.T / temperature
    others = torch.logsumexp(
        logits.masked_fill(torch.eye(len(unit), dtype=torch.bool, device=unit.device), -math.inf), -1
    )
    return (others[one] - logits[one, other]).mean()


def relational(vectors: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Return the mean squared difference between the cosines of two sets of vectors, each row of cosines centred."""

    def cosines(x: torch.Tensor) -> torch.Tensor:
        unit = nn.functional.normalize(x, dim=-1)
        found = unit @ unit.T
        return found - found.mean(-1, keepdim=True)

    return nn.functional.mse_loss(cosines(vectors), cosines(reference))


def fisher(model: RegNet, row: torch.Tensor, column: torch.Tensor, label: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return, for every parameter, the mean over labelled pairs of the squared gradient of a pair's cross-entropy.

    One forward pass serves all pairs, whose gradients are then taken a few at a time.
    """
    parameters = dict(model.named_parameters())
    mu = model.encode(kernel="math").mu
    each = nn.functional.binary_cross_entropy_with_logits(
        model.head(mu, row, column), label.to(mu.dtype), reduction="none"
    )
    total = {name: torch.zeros_like(value) for name, value in parameters.items()}
    eye = torch.eye(len(each), dtype=mu.dtype, device=mu.device)
    for chosen in eye.split(_CHUNK):
        found = torch.autograd.grad(
            each, list(parameters.values()), chosen, is_grads_batched=True, retain_graph=True, allow_unused=True
        )
        for name, gradient in zip(parameters, found, strict=True):
            if gradient is not None:
                total[name] += gradient.square().sum(0)
    return {name: value / len(each) for name, value in total.items()}


def align(
    features: np.ndarray, reference: np.ndarray, mine: np.ndarray, theirs: np.ndarray
) -> tuple[np.ndarray, float]:
    """Return features turned so that shared genes come to lie where they are in the reference, and how well they do.

    Parameters
    ----------
    features, reference : (n, d), (m, e)
        Features of two sets of genes; columns are added or left out until there are ``e``.
    mine, theirs : (n_shared,), int64
        Positions of shared genes in both.

    Returns
    -------
    tuple
        Features (n, e), float32, rotated (orthogonal Procrustes), and the share of the shared genes' squared features
        in the reference that they then explain.
    """
    width = reference.shape[1]
    padded = np.zeros((len(features), width))
    padded[:, : min(width, features.shape[1])] = features[:, :width]
    wanted = reference[theirs].astype(np.float64)
    left, _, right = np.linalg.svd(padded[mine].T @ wanted)
    turned = padded @ (left @ right)
    explained = 1 - ((wanted - turned[mine]) ** 2).sum() / max((wanted**2).sum(), np.finfo(float).tiny)
    return turned.astype(np.float32), float(explained)


class TransferTask(nn.Module):
    """The losses of a step without labels, as the trainer asks for them.

    Parameters
    ----------
    model
        The model, with features and graph of the new data.
    config
        Weights of the losses.
    shared : (n_shared,), int64
        Positions of the genes that the source has. This and what follows is where the model is.
    reference : (n_shared, latent)
        Their latent means there.
    importance
        For each parameter how much the source's edges depend on it, as :func:`fisher` returns it; empty without.
    """

    place: torch.Tensor
    reference: torch.Tensor
    strength: torch.Tensor

    def __init__(
        self,
        model: RegNet,
        config: TransferConfig,
        shared: torch.Tensor,
        reference: torch.Tensor,
        importance: Mapping[str, torch.Tensor],
    ) -> None:
        super().__init__()
        self.model, self.config = model, config
        place = torch.full((len(model.features),), -1, dtype=torch.int64, device=shared.device)
        place[shared] = torch.arange(len(shared), device=shared.device)
        self.register_buffer("place", place, persistent=False)
        self.register_buffer("reference", reference, persistent=False)
        self.register_buffer("strength", torch.zeros((), device=shared.device))
        self.importance = dict(importance)
        self.anchor = {name: value.detach().clone() for name, value in model.named_parameters()}
        self._last: tuple[float, float] = (0.0, 0.0)

    def losses(self, batch: torch.Tensor, noise: torch.Generator, progress: float) -> dict[str, torch.Tensor]:
        """Return the loss and its parts for genes to compare; for validation without the pull to the old weights."""
        model, config = self.model, self.config
        x = model.features
        hidden = torch.rand(x.shape, generator=noise, device=x.device) < config.mask_frac
        encoding = model.encode(x.masked_fill(hidden, 0), noise=noise if self.training else None)
        mu, logvar = encoding.mu, encoding.logvar
        z = (
            mu + torch.exp(0.5 * logvar) * torch.randn(mu.shape, generator=noise, device=x.device)
            if self.training
            else mu
        )
        error = (model.decoder(z) - x).square()
        parts = {
            "reconstruction": (error * hidden).sum() / hidden.sum().clamp(min=1),
            "divergence": divergence(mu, logvar, model.config.free_bits),
        }
        weights = {"reconstruction": 1.0, "divergence": model.config.beta}
        inside = torch.full((len(x),), -1, dtype=torch.int64, device=x.device)
        inside[batch] = torch.arange(len(batch), device=x.device)
        one, other = inside[model.regulator], inside[model.target]
        both = (one >= 0) & (other >= 0)
        if both.any():
            parts["contrast"] = info_nce(mu[batch], one[both], other[both], config.temperature)
            weights["contrast"] = config.contrast
        old = batch[self.place[batch] >= 0]
        if len(old) > 1:
            parts["relational"] = relational(mu[old], self.reference[self.place[old]])
            weights["relational"] = config.relational
        loss = sum((weights[name] * part for name, part in parts.items()), mu.new_zeros(()))
        if self.training and self.importance:
            pull = self.pull()
            self._last = (float(loss.detach()), float(pull.detach()))
            parts["pull"] = self.strength * pull
            loss = loss + parts["pull"]
        return {"loss": loss, **parts}

    def pull(self) -> torch.Tensor:
        """Return the squared distance to the old weights, each weighted by its importance."""
        named = dict(self.model.named_parameters())
        parts = [(value * (named[name] - self.anchor[name]).square()).sum() for name, value in self.importance.items()]
        return torch.stack(parts).sum()

    def param_groups(self) -> dict[str, ParamGroup]:
        """Return the only group: all but the head, of which these losses say nothing."""
        params = [value for name, value in self.model.named_parameters() if not name.startswith("head.")]
        return {"all": ParamGroup(params=params, lr=self.config.lr)}

    def after_epoch(self, epoch: int) -> None:
        """Set the strength of the pull after the first epoch, so that it is the wanted share of the loss."""
        loss, pull = self._last
        if epoch == 0 and pull > 0:
            self.strength.fill_(self.config.ewc * loss / pull)


def transfer_regnet(
    model: RegNet,
    expression: np.ndarray,
    rows: np.ndarray,
    *,
    shared: tuple[np.ndarray, np.ndarray],
    config: TransferConfig | None = None,
    pairs: LabelledPairs | None = None,
    held: tuple[np.ndarray, np.ndarray] | None = None,
    prior: tuple[np.ndarray, np.ndarray] | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    progress: bool | None = None,
) -> RegNetFit:
    """Fit a RegNet to other cells without labels of theirs, and score regulators with every gene.

    Parameters
    ----------
    model
        The fitted model, with its features and graph; it is not changed.
    expression : (n_genes, n_cells)
        Standardised expression of every gene in the new cells, float32.
    rows
        Positions of the regulators to score, and to attend to with ``attn_keys="regulators"``.
    shared
        Positions of the genes that both have, in the new data and in the model.
    config
        How to train; None is the default.
    pairs
        Labelled pairs of the source, by positions in the model: they say which weights matter. None leaves out the pull
        to the old weights.
    held
        Regulators and targets, in the new data, between which no message runs.
    prior
        Regulators and targets of further edges, in the new data, that carry messages.
    seed
        Seed of masks, dropout, latent noise, and genes and pairs drawn.
    device
        Torch device.
    progress
        Progress bar over epochs.

    Returns
    -------
    RegNetFit
        Scores, latent vectors, and the new model.

    Examples
    --------
    >>> import numpy as np, sctrellis as tr
    >>> rng = np.random.default_rng(0)
    >>> row, column = np.repeat(np.arange(3), 9), np.tile(np.arange(3, 12), 3)
    >>> pairs = tr.models.LabelledPairs(row, column, rng.random(27) < 0.3)
    >>> config = tr.models.RegNetConfig(max_epochs=2, hidden=8, latent=4)
    >>> expression = rng.normal(size=(12, 40)).astype(np.float32)
    >>> source = tr.models.fit_regnet(expression, pairs, np.arange(3), config=config).model
    >>> genes = np.arange(12)
    >>> settings = tr.models.TransferConfig(max_epochs=2)
    >>> found = tr.models.transfer_regnet(source, expression[:, :20], genes[:3], shared=(genes, genes), config=settings)
    >>> found.logits.shape
    (3, 12)
    """
    config, device, n_genes = config or TransferConfig(), resolve_device(device), len(expression)
    mine, theirs = shared
    reference = model.features.numpy()
    features, explained = align(reduce_cells(expression, reference.shape[1]), reference, mine, theirs)
    place = np.full(len(reference), -1, dtype=np.int64)
    place[theirs] = mine
    row, column = place[model.regulator.numpy()], place[model.target.numpy()]
    kept = (row >= 0) & (column >= 0)
    row, column = row[kept], column[kept]
    if prior is not None:
        row, column = np.concatenate([row, prior[0]]), np.concatenate([column, prior[1]])
    regulator, target = message_edges(row, column, held, n_genes)
    positions = torch.from_numpy(np.asarray(rows, dtype=np.int64))
    new = RegNet(
        torch.from_numpy(features),
        torch.from_numpy(regulator),
        torch.from_numpy(target),
        generator("cpu", seed, 0),
        model.config,
        keys=positions,
    )
    new.load_state_dict(model.state_dict())
    with torch.no_grad():
        old = model.encode().mu[torch.from_numpy(theirs)]
    importance: dict[str, torch.Tensor] = {}
    if pairs is not None and config.ewc > 0:
        rng = np.random.default_rng([seed, len(pairs)])
        chosen = rng.choice(len(pairs), min(config.n_fisher, len(pairs)), replace=False)
        parts = (torch.from_numpy(part[chosen]) for part in (pairs.row, pairs.column, pairs.label))
        found = fisher(model, *parts)
        importance = {name: value.to(device) for name, value in found.items() if not name.startswith("head.")}
    task = TransferTask(new.to(device), config, torch.from_numpy(mine).to(device), old.to(device), importance)
    plan = TrainConfig(
        phases=(Phase(name="transfer", n_epochs=config.max_epochs, cycle=(("all",),)),),
        clip_norm=1.0,
        patience=config.patience,
    )
    with logs.progress_bar(config.max_epochs, "regnet_finetune", progress=progress) as bar:

        def show(epoch: int, means: Mapping[str, float]) -> None:
            bar.set_postfix({name: f"{value:.4g}" for name, value in means.items()})
            bar.update()

        result = train(
            task,
            GeneSteps(n_genes, STEPS, seed, device),
            plan,
            validation=GeneSteps(n_genes, 1, seed, device),
            on_epoch_end=show,
        )
    facts: dict[str, Any] = {
        "device": device.type,
        "n_cells": expression.shape[1],
        "n_shared_genes": len(mine),
        "aligned": explained,
        "n_graph_edges": len(regulator),
        "n_isolated_genes": int((new.graph.count == 0).sum()),
        "epochs": result.epochs,
        "best_epoch": result.best_epoch,
        "stopped": result.stopped,
    }
    return score_regnet(new.eval(), positions.to(device), result.history, facts)
