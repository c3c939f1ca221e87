"""Several fits that differ by their seed, and what they agree on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import nn

from sctrellis.models._seed import child_seeds
from sctrellis.models._train import TrainResult

EpochCallback = Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True, kw_only=True)
class SEMFit:
    """A fitted structural equation model, or an ensemble of them.

    Attributes
    ----------
    network : (n_regulators, n_genes), float32
        Signed coefficient of each regulator for each gene, averaged over the runs.
    std : (n_regulators, n_genes), float32
        Standard deviation over the runs; None for one run.
    stages
        Name of a stage to its network, in the order of the fit.
    parts
        What the priors made of each pair, such as ``"prior_mean"``; same shape as ``network``.
    weights
        Arrays that rebuild the trained modules; the first axis runs over the runs.
    history
        One value per epoch and run of ``run`` and of every loss part.
    info
        Facts of the fit, such as the ridge strength chosen.
    tables
        Arrays by table and column, such as the errors that the strength was chosen by.
    """

    network: np.ndarray
    std: np.ndarray | None
    stages: dict[str, np.ndarray] = field(default_factory=dict)
    parts: dict[str, np.ndarray] = field(default_factory=dict)
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    history: dict[str, list[float]] = field(default_factory=dict)
    info: dict[str, object] = field(default_factory=dict)
    tables: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """One trained module: its network, its arrays and what training did."""

    network: np.ndarray
    weights: dict[str, np.ndarray]
    training: TrainResult


def arrays_of(module: nn.Module) -> dict[str, np.ndarray]:
    """Return the parameters and buffers of a module as NumPy arrays; dots in names become underscores."""
    return {name.replace(".", "_"): value.detach().cpu().numpy() for name, value in module.state_dict().items()}


def fit_runs(
    fit_one: Callable[[int, Path | None], Run],
    n_runs: int,
    seed: int,
    *,
    n_jobs: int = 1,
    checkpoint: str | Path | None = None,
) -> list[Run]:
    """Run ``fit_one(seed, checkpoint)`` once per seed.

    Runs share memory as threads: torch releases the interpreter, and each run draws from generators of its own, so the
    number of workers does not change any result. Each run has its own checkpoint folder.
    """
    from joblib import Parallel, delayed

    folders = [None if checkpoint is None else Path(checkpoint) / f"run_{i}" for i in range(n_runs)]
    seeds = child_seeds(seed, n_runs)
    if n_runs == 1 or n_jobs == 1:
        return [fit_one(child, folder) for child, folder in zip(seeds, folders, strict=True)]
    jobs = (delayed(fit_one)(child, folder) for child, folder in zip(seeds, folders, strict=True))
    return list(Parallel(n_jobs=n_jobs, prefer="threads")(jobs))


def combine(runs: list[Run]) -> tuple[np.ndarray, np.ndarray | None, dict[str, np.ndarray], dict[str, list[float]]]:
    """Return mean network, spread, stacked arrays and the history of all runs, one after the other."""
    networks = np.stack([run.network for run in runs])
    std = networks.std(axis=0) if len(runs) > 1 else None
    weights = {name: np.stack([run.weights[name] for run in runs]) for name in runs[0].weights}
    history: dict[str, list[float]] = {"run": []}
    for i, run in enumerate(runs):
        history["run"] += [float(i)] * run.training.epochs
        for part, values in run.training.history.items():
            history.setdefault(part, []).extend(values)
    return networks.mean(axis=0), std, weights, history


def training_info(runs: list[Run]) -> dict[str, object]:
    """Return epochs and the reason of the stop, one per run; no best epoch, since the last state is what is kept."""
    return {
        "epochs": [run.training.epochs for run in runs],
        "stopped": [run.training.stopped for run in runs],
    }
