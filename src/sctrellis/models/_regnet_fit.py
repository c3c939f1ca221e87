"""Fit RegNet on labelled pairs of genes and score pairs with it; arrays in, arrays out."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from sctrellis._core import logs
from sctrellis.models._device import resolve_device
from sctrellis.models._edge_features import LabelledPairs, cross_entropy
from sctrellis.models._edge_head import mean_probability
from sctrellis.models._messages import unordered
from sctrellis.models._regnet import RegNet, RegNetConfig
from sctrellis.models._regnet_data import MESSAGE, AllPairs, Steps, reduce_cells
from sctrellis.models._seed import generator
from sctrellis.models._train import ParamGroup, Phase, TrainConfig, train

STEPS = 10
"""Steps between two looks at the validation pairs."""
_WARM_UP = 0.3
"""Share of the steps over which the weight of the divergence rises."""
_LOGVAR = -2.0
"""Log-variance at the start: noise that is large from the start drowns what the head could learn from."""
_PAIRS = 2**17
"""Pairs whose hidden layer is held at once: 2**17 with 128 units are 67 MB."""


@dataclass(frozen=True, kw_only=True)
class RegNetFit:
    """Result of :func:`fit_regnet`.

    Attributes
    ----------
    model
        The fitted model, on the CPU, in evaluation mode.
    logits, std, probability : (n_rows, n_genes), float32
        Log-odds of each regulator with every gene at the share of edges of the training pairs; their standard deviation
        under the latent noise; the mean probability under both.
    mu : (n_genes, latent), float32
        Mean of the latent vectors.
    gate : (n_genes,), float32
        Mean share of the attention's context in a gene's features.
    history
        Parts of the loss by epoch; ``validation`` is 1 less the average precision there.
    fit
        Facts of the fit.
    """

    model: RegNet
    logits: np.ndarray
    std: np.ndarray
    probability: np.ndarray
    mu: np.ndarray
    gate: np.ndarray
    history: dict[str, list[float]]
    fit: dict[str, Any]


class SupervisedTask(nn.Module):
    """The losses of a step, as the trainer asks for them.

    Parameters
    ----------
    model
        The model to train.
    config
        Weights of the losses.
    shift
        Log-odds of an edge among all training pairs less those among pairs that are asked about.
    """

    def __init__(self, model: RegNet, config: RegNetConfig, shift: float) -> None:
        super().__init__()
        self.model, self.config, self.shift = model, config, shift

    def losses(self, batch: torch.Tensor, noise: torch.Generator, progress: float) -> dict[str, torch.Tensor]:
        """Return the loss and its parts; for validation, 1 less the average precision of the pairs."""
        model, config = self.model, self.config
        row, column, label = batch.unbind(1)
        if not self.training:
            mu = model.encode().mu
            pairs = zip(row.split(_PAIRS), column.split(_PAIRS), strict=True)
            logits = torch.cat([model.head(mu, *pair) for pair in pairs])
            return {"loss": 1 - average_precision(logits, label)}
        sent, asked = label == MESSAGE, label != MESSAGE
        encoding = model.encode(graph=model.graph_of(row[sent], column[sent]), noise=noise)
        mu, logvar = encoding.mu, encoding.logvar
        z = mu + torch.exp(0.5 * logvar) * torch.randn(mu.shape, generator=noise, device=mu.device, dtype=mu.dtype)
        parts = {
            "edges": cross_entropy(model.head(z, row[asked], column[asked]) - self.shift, label[asked]),
            "divergence": divergence(mu, logvar, config.free_bits),
            "reconstruction": nn.functional.mse_loss(model.decoder(z), model.features),
        }
        weights = {"edges": 1.0, "divergence": config.beta * min(1.0, progress / _WARM_UP)}
        weights["reconstruction"] = config.reconstruction
        if config.entropy:
            parts["entropy"] = model.entropy(encoding).mean()
            weights["entropy"] = config.entropy
        return {"loss": sum((weights[name] * part for name, part in parts.items()), mu.new_zeros(())), **parts}

    def param_groups(self) -> dict[str, ParamGroup]:
        """Return the only group."""
        return {"all": ParamGroup(params=list(self.parameters()), lr=self.config.lr)}

    def after_epoch(self, epoch: int) -> None:
        """Do nothing."""


def divergence(mu: torch.Tensor, logvar: torch.Tensor, free_bits: float) -> torch.Tensor:
    """Return the mean over latent dimensions of the divergence from a standard normal, at least ``free_bits`` each."""
    each = 0.5 * (mu.square() + logvar.exp() - 1 - logvar).mean(0)
    return each.clamp(min=free_bits).mean()


def average_precision(scores: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Return the area under the step-wise precision-recall curve; equal scores make one step."""
    order = torch.argsort(scores, descending=True)
    _, length = torch.unique_consecutive(scores[order], return_counts=True)
    last = length.cumsum(0)
    found = label[order].cumsum(0)[last - 1].double()
    gained = torch.diff(found, prepend=found.new_zeros(1))
    return (gained / found[-1] * found / last).sum()


def participation_ratio(mu: np.ndarray) -> float:
    r"""Return :math:`(\sum \lambda)^2 / \sum \lambda^2` of the covariance of latent means: dimensions in use."""
    variance = np.clip(np.linalg.eigvalsh(np.cov(mu.astype(np.float64), rowvar=False)), 0, None)
    return float(variance.sum() ** 2 / max((variance**2).sum(), np.finfo(float).tiny))


def message_edges(
    row: np.ndarray, column: np.ndarray, held: tuple[np.ndarray, np.ndarray] | None, n_genes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the edges that may carry messages, sorted, each once: none between the genes of a held-out pair."""
    kept = row != column
    if held is not None:
        kept &= ~np.isin(unordered(row, column, n_genes), unordered(*held, n_genes))
    codes = np.unique(row[kept].astype(np.int64) * n_genes + column[kept])
    return codes // n_genes, codes % n_genes


def fit_regnet(
    expression: np.ndarray,
    pairs: LabelledPairs,
    rows: np.ndarray,
    *,
    config: RegNetConfig | None = None,
    validation: LabelledPairs | None = None,
    held: tuple[np.ndarray, np.ndarray] | None = None,
    prior: tuple[np.ndarray, np.ndarray] | None = None,
    noise_variance: np.ndarray | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    progress: bool | None = None,
) -> RegNetFit:
    """Fit RegNet on labelled pairs and score regulators with every gene.

    Parameters
    ----------
    expression : (n_genes, n_cells)
        Standardised expression of every gene, float32.
    pairs
        Pairs to learn from: regulator, target, label.
    rows
        Positions of the regulators to score, and to attend to with ``attn_keys="regulators"``.
    config
        Shape and training; None is the default.
    validation
        Pairs whose average precision says when to stop; None, or without an edge, trains to the end.
    held
        Regulators and targets of the pairs to be judged on: no message runs between their two genes.
    prior
        Regulators and targets of further edges that carry messages; they are not learnt.
    noise_variance : (n_genes,)
        Relative variance of the measurement of each gene, for ``aggregator="eb"``; None is 1.
    seed
        Seed of initial state, pairs drawn, dropout and latent noise.
    device
        Torch device.
    progress
        Progress bar over epochs.

    Returns
    -------
    RegNetFit
        Scores, latent vectors, and the model.

    Raises
    ------
    ValueError
        If no edge is left to learn from.
    FloatingPointError
        If the loss stops being finite.

    Examples
    --------
    >>> import numpy as np, sctrellis as tr
    >>> rng = np.random.default_rng(0)
    >>> row, column = np.repeat(np.arange(3), 9), np.tile(np.arange(3, 12), 3)
    >>> pairs = tr.models.LabelledPairs(row, column, rng.random(27) < 0.3)
    >>> config = tr.models.RegNetConfig(max_epochs=2, hidden=8, latent=4)
    >>> expression = rng.normal(size=(12, 40)).astype(np.float32)
    >>> tr.models.fit_regnet(expression, pairs, np.arange(3), config=config).logits.shape
    (3, 12)
    """
    config, device, n_genes = config or RegNetConfig(), resolve_device(device), len(expression)
    facts: dict[str, Any] = {"device": device.type, "n_cells": expression.shape[1]}
    if held is not None:
        reverse_held = np.isin(unordered(pairs.row, pairs.column, n_genes), unordered(*held, n_genes))
        facts["n_reverse_held_out"] = int(reverse_held.sum())
        if config.reversed_pairs == "hide":
            pairs = LabelledPairs(*(part[~reverse_held] for part in (pairs.row, pairs.column, pairs.label)))
    n_edges, n_others = int(pairs.label.sum()), int((~pairs.label).sum())
    if not n_edges or not n_others:
        msg = f"`pairs` hold {n_edges} edges and {n_others} other pairs to learn from: both kinds are needed."
        raise ValueError(msg)
    sent = pairs.label & config.train_messages
    row, column = pairs.row[sent], pairs.column[sent]
    if prior is not None:
        row, column = np.concatenate([row, prior[0]]), np.concatenate([column, prior[1]])
    regulator, target = message_edges(row, column, held, n_genes)
    noise = generator("cpu", seed, 0)  # the same start on every device
    positions = torch.from_numpy(np.asarray(rows, dtype=np.int64))
    features = torch.from_numpy(reduce_cells(expression, config.n_features))
    model = RegNet(
        features,
        torch.from_numpy(regulator),
        torch.from_numpy(target),
        noise,
        config,
        keys=positions,
        noise_variance=None if noise_variance is None else torch.from_numpy(noise_variance.astype(np.float32)),
    )
    with torch.no_grad():
        model.head.out.bias.fill_(math.log(n_edges / n_others))
        model.logvar.bias.fill_(_LOGVAR)
    steps = Steps(
        pairs, regulator, target, n_genes, config.asked_frac, config.n_neg, config.neg_mode, STEPS, seed, device
    )
    asked = steps.step(0, 0)[:, 2]
    drawn = math.log((asked == 1).sum() / max(1, (asked == 0).sum()))
    task = SupervisedTask(model, config, math.log(n_edges / n_others) - drawn).to(device)
    judged = config.patience is not None and validation is not None and bool(validation.label.any())
    plan = TrainConfig(
        phases=(Phase(name="fit", n_epochs=config.max_epochs, cycle=(("all",),)),),
        clip_norm=1.0,
        patience=config.patience if judged else None,
    )
    with logs.progress_bar(config.max_epochs, "regnet", progress=progress) as bar:

        def show(epoch: int, means: Mapping[str, float]) -> None:
            bar.set_postfix({name: f"{value:.4g}" for name, value in means.items()})
            bar.update()

        result = train(
            task,
            steps,
            plan,
            validation=AllPairs(validation, seed, device) if judged and validation is not None else None,
            on_epoch_end=show,
        )
    facts |= {"epochs": result.epochs, "best_epoch": result.best_epoch, "stopped": result.stopped}
    isolated = model.graph.count == 0
    facts |= {"n_graph_edges": len(regulator), "n_isolated_genes": int(isolated.sum())}
    return score_regnet(model.eval(), positions.to(device), result.history, facts)


@torch.no_grad()
def score_regnet(
    model: RegNet, rows: torch.Tensor, history: dict[str, list[float]], facts: dict[str, Any]
) -> RegNetFit:
    """Return what a fitted model says of regulators ``rows`` and every gene; the model goes to the CPU."""
    encoding = model.encode()
    logits = model.head.matrix(encoding.mu, rows)
    variance = model.head.variance(encoding.mu, encoding.logvar.exp(), rows)
    probability = mean_probability(logits, variance)
    entropy = model.entropy(encoding)
    mu = encoding.mu.cpu().numpy()
    facts |= {"participation_ratio": participation_ratio(mu), "mean_logvar": float(encoding.logvar.mean())}
    facts |= {"attention_entropy_mean": float(entropy.mean()), "attention_entropy_max": float(entropy.max())}
    return RegNetFit(
        model=model.cpu(),
        logits=logits.cpu().numpy(),
        std=variance.sqrt().cpu().numpy(),
        probability=probability.cpu().numpy(),
        mu=mu,
        gate=encoding.gate.mean(1).cpu().numpy(),
        history=history,
        fit=facts,
    )
