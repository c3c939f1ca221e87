"""Fit a network on labelled pairs of genes and score pairs with it; arrays in, arrays out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from sctrellis._core import logs
from sctrellis.models._edge_features import LabelledPairs, Negatives, PairBatches
from sctrellis.models._genelink import GeneLink, message_graph
from sctrellis.models._prior import Features
from sctrellis.models._scgreat import ScGreat
from sctrellis.models._seed import generator
from sctrellis.models._train import Phase, TrainConfig, train

MAX_BATCHES = 64
"""Batches in an epoch at most: early stopping must get its say where there are millions of pairs."""
_EVALUATED = 65_536


@dataclass(frozen=True, kw_only=True)
class EdgeConfig:
    """How to train a classifier of pairs.

    Parameters
    ----------
    max_epochs, batch_size, lr
        Epochs at most, pairs in a batch, and learning rate at the start; it falls to 0 as a cosine.
    patience
        Epochs without a smaller validation loss before training stops; None trains to the end.
    negatives
        ``"all"``, or ``"balanced"``; see :class:`PairBatches`.
    mask_scored
        Whether GENELink holds back the messages between the two genes of a pair that it trains on.
    """

    max_epochs: int
    batch_size: int
    lr: float
    patience: int | None = 5
    negatives: Negatives = "all"
    mask_scored: bool = True


DEFAULTS: Mapping[str, dict[str, Any]] = {
    "genelink": {"max_epochs": 20, "batch_size": 2_048, "lr": 3e-3},
    "scgreat": {"max_epochs": 10, "batch_size": 1_024, "lr": 1e-3},
}


@dataclass(frozen=True, kw_only=True)
class EdgeFit:
    """Result of :func:`fit_edge_classifier`.

    Attributes
    ----------
    probability : (n_rows, n_genes), float32
        Score of each regulator with every gene, in [0, 1].
    weights
        Arrays that rebuild the network.
    history
        Loss by epoch, of training and of validation.
    fit
        Facts of the fit.
    """

    probability: np.ndarray
    weights: dict[str, np.ndarray]
    history: dict[str, list[float]]
    fit: dict[str, Any]


def fit_edge_classifier(
    method: Literal["genelink", "scgreat"],
    expression: np.ndarray,
    pairs: LabelledPairs,
    rows: np.ndarray,
    *,
    config: EdgeConfig,
    validation: LabelledPairs | None = None,
    held: tuple[np.ndarray, np.ndarray] | None = None,
    features: Features | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: bool | None = None,
) -> EdgeFit:
    """Fit a classifier of pairs and score regulators with every gene.

    Parameters
    ----------
    method
        ``"genelink"``, or ``"scgreat"``, which needs ``features``.
    expression : (n_genes, n_cells)
        Standardised expression of every gene, float32.
    pairs
        Pairs to learn from.
    rows
        Positions of the regulators to score.
    config
        How to train.
    validation
        Pairs whose loss says when to stop; None trains to the end.
    held
        Positions of the pairs to be judged on; they and their reverse stay out of GENELink's graph.
    features
        Fixed features of the genes.
    seed
        Seed of initial state, order and dropout.
    device
        Where to compute.
    progress
        Progress bar over epochs.

    Returns
    -------
    EdgeFit
        Scores, and what was fitted.
    """
    device = torch.device(device)
    noise = generator("cpu", seed, 0)  # the same start on every device
    x = torch.from_numpy(expression)
    facts: dict[str, Any] = {"device": device.type, "n_cells": expression.shape[1]}
    model: GeneLink | ScGreat
    if method == "genelink":
        nothing = np.zeros(0, np.int64)
        edges = pairs.row[pairs.label], pairs.column[pairs.label]
        messages = message_graph(*edges, *(held or (nothing, nothing)), n_genes=len(expression))
        model = GeneLink(x, torch.from_numpy(messages), noise, lr=config.lr, mask_scored=config.mask_scored)
        n_edges = (messages.shape[1] - len(expression)) // 2
        n_isolated = int((np.bincount(messages[0]) == 1).sum())
        facts |= {"n_graph_edges": n_edges, "n_isolated_genes": n_isolated}
    else:
        if features is None:
            msg = "`features` is None, and 'scgreat' needs features of the genes."
            raise ValueError(msg)
        values = torch.from_numpy(features.values.astype(np.float32))
        model = ScGreat(x, values, torch.from_numpy(~features.present), noise, lr=config.lr)
    model.to(device)
    batches = PairBatches(pairs, config.batch_size, seed, device, config.negatives, MAX_BATCHES)
    plan = TrainConfig(
        phases=(Phase(name="fit", n_epochs=config.max_epochs, cycle=(("all",),)),),
        clip_norm=1.0,
        patience=None if validation is None else config.patience,
    )
    with logs.progress_bar(config.max_epochs, method, progress=progress) as bar:

        def show(epoch: int, means: Mapping[str, float]) -> None:
            bar.set_postfix({name: f"{value:.4g}" for name, value in means.items()})
            bar.update()

        result = train(
            model,
            batches,
            plan,
            validation=None if validation is None else PairBatches(validation, _EVALUATED, seed, device),
            on_epoch_end=show,
        )
    model.eval()
    logits = model.score(torch.from_numpy(np.asarray(rows, dtype=np.int64)).to(device))
    return EdgeFit(
        probability=torch.sigmoid(logits).cpu().numpy(),
        weights={name: value.cpu().numpy() for name, value in model.state_dict().items()},
        history=result.history,
        fit={**facts, "epochs": result.epochs, "best_epoch": result.best_epoch, "stopped": result.stopped},
    )
