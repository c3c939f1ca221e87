"""DeepSEM: a variational autoencoder whose latent noise is mixed by the network."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sctrellis._core import checks
from sctrellis.models._batches import Batches, Standardised
from sctrellis.models._device import resolve_device
from sctrellis.models._ensemble import EpochCallback, Run, SEMFit, arrays_of, combine, fit_runs, training_info
from sctrellis.models._entrywise import EntrywiseMLP
from sctrellis.models._seed import generator
from sctrellis.models._sem import sem_noise, sem_response
from sctrellis.models._train import ParamGroup, Phase, TrainConfig, train


@dataclass(frozen=True, kw_only=True)
class DeepSEMConfig:
    """Settings of DeepSEM; the defaults are those of its authors for networks that are not cell-type specific.

    Parameters
    ----------
    alpha
        Weight of the mean absolute adjacency in the loss. The penalty per target is ``alpha / (beta * n_genes)``.
    beta
        Weight of the Kullback-Leibler term.
    n_epochs
        Epochs; the adjacency is far from its optimum when they end, which is part of the method.
    batch_size
        Cells in a batch.
    n_hidden
        Width of the two hidden layers.
    lr
        Learning rate of encoder and decoder.
    lr_adjacency
        Learning rate of the adjacency.
    lr_decay
        Factor of ``lr`` per epoch.
    network_epochs, adjacency_epochs
        Epochs for encoder and decoder, then for the adjacency, in turn.
    """

    alpha: float = 100.0
    beta: float = 1.0
    n_epochs: int = 90
    batch_size: int = 64
    n_hidden: int = 128
    lr: float = 1e-4
    lr_adjacency: float = 2e-5
    lr_decay: float = 0.95
    network_epochs: int = 1
    adjacency_epochs: int = 2


class DeepSEM(nn.Module):
    """The module; entries of a cell pass one by one through networks that all genes share.

    Parameters
    ----------
    n_genes
        Number of genes.
    config
        Settings.
    noise
        Random stream of the initial weights.
    """

    def __init__(self, n_genes: int, config: DeepSEMConfig, noise: torch.Generator) -> None:
        super().__init__()
        self.config = config
        hidden, device = config.n_hidden, noise.device
        self.encoder = EntrywiseMLP((2, hidden, hidden, 2), noise)
        self.decoder = EntrywiseMLP((1, hidden, hidden, 1), noise)
        self.prior_mean = EntrywiseMLP((1, hidden, n_genes), noise)
        self.prior_log_variance = EntrywiseMLP((1, hidden, n_genes), noise)
        start = torch.rand(n_genes, n_genes, generator=noise, device=device) * 2e-4 + 1 / max(n_genes - 1, 1)
        self.adjacency = nn.Parameter(start)
        self.off_diagonal: torch.Tensor
        self.register_buffer("off_diagonal", 1 - torch.eye(n_genes, device=device), persistent=False)

    @property
    def weights(self) -> torch.Tensor:
        """``A``, shape (n_genes, n_genes): row = regulator, column = target, diagonal 0."""
        return self.adjacency * self.off_diagonal

    def param_groups(self) -> dict[str, ParamGroup]:
        """Encoder and decoder in one group, the adjacency in another."""
        networks = [parameter for name, parameter in self.named_parameters() if name != "adjacency"]
        return {
            "networks": ParamGroup(params=networks, lr=self.config.lr, optimiser="rmsprop", decay=self.config.lr_decay),
            "adjacency": ParamGroup(params=[self.adjacency], lr=self.config.lr_adjacency, optimiser="rmsprop"),
        }

    def losses(self, batch: torch.Tensor, noise: torch.Generator, progress: float) -> dict[str, torch.Tensor]:
        """Return the loss of cells, shape (n, n_genes): squared error, one-sample KL, mean absolute adjacency.

        The published code mixes log-variances, and mean and log-variance of the prior, by ``I - A`` as it does the
        means; this is not how variances propagate, and is kept because it is the method.
        """
        weights = self.weights
        everyone = torch.arange(len(weights), device=batch.device)
        one = torch.ones_like(batch)
        encoded = self.encoder(torch.stack([one, batch], dim=-1))
        mean = sem_noise(encoded[..., 0], weights, everyone)
        log_variance = sem_noise(encoded[..., 1], weights, everyone)
        draw = torch.randn(batch.shape, generator=noise, device=batch.device)
        variance = log_variance.exp()
        z = mean + draw * torch.sqrt(variance + 1e-10)
        reconstruction = self.decoder(sem_response(z, weights, everyone).unsqueeze(-1)).squeeze(-1)
        cluster = torch.ones(1, 1, device=batch.device)  # one mixture component: its assignment is constant
        prior_mean = sem_noise(self.prior_mean(cluster), weights, everyone)
        prior_variance = sem_noise(self.prior_log_variance(cluster), weights, everyone).exp()
        posterior = -0.5 * (torch.log(variance + 1e-8) + (z - mean) ** 2 / (variance + 1e-8))
        prior = -0.5 * (torch.log(prior_variance + 1e-8) + (z - prior_mean) ** 2 / (prior_variance + 1e-8))
        parts = {
            "reconstruction": ((batch - reconstruction) ** 2).mean(),
            "kl": (posterior - prior).mean(),
            "l1": weights.abs().mean(),
        }
        loss = parts["reconstruction"] + self.config.beta * parts["kl"] + self.config.alpha * parts["l1"]
        return {"loss": loss, **parts}

    def after_epoch(self, epoch: int) -> None:
        """Nothing: the published method does not guard its system."""


def fit_deepsem(
    rows: Any,
    regulators: np.ndarray,
    *,
    config: DeepSEMConfig = DeepSEMConfig(),
    n_runs: int = 1,
    seed: int = 0,
    device: str | torch.device = "auto",
    n_jobs: int | None = None,
    checkpoint: str | Path | None = None,
    fingerprint: str = "",
    on_epoch_end: EpochCallback | None = None,
) -> SEMFit:
    """Fit DeepSEM.

    Parameters
    ----------
    rows
        Cells x genes source with ``shape``, ``summary``, ``streamed`` and ``take``, such as ``_core.rows.Rows``.
    regulators : (n_genes,), bool
        Genes whose rows of the adjacency are returned; all genes condition each other in the fit.
    config
        Settings.
    n_runs
        Fits with different seeds, averaged.
    seed
        Seed.
    device
        Torch device.
    n_jobs
        Workers; None is ``settings.n_jobs``, -1 all cores.
    checkpoint
        Folder of the checkpoints; a fit that was stopped resumes from it.
    fingerprint
        Describes the data; a checkpoint of other data is refused.
    on_epoch_end
        Called after each epoch with its number and mean losses.

    Returns
    -------
    SEMFit
        Network and trained arrays.

    Notes
    -----
    Cost per batch of n cells: O(n G h^2) for hidden layers of width h and O(G^3) for the system.

    References
    ----------
    :cite:p:`shu2021deepsem`; the authors' code https://github.com/HantaoShu/DeepSEM (MIT) was read, none of it is used.

    Examples
    --------
    >>> import numpy as np, sctrellis as tr
    >>> from sctrellis._core.rows import Rows
    >>> rows = Rows(tr.datasets.toy().X)
    >>> config = tr.models.DeepSEMConfig(n_epochs=3, n_hidden=8)
    >>> tr.models.fit_deepsem(rows, np.ones(30, bool), config=config, device="cpu").network.shape
    (30, 30)
    """
    device = resolve_device(device)
    data = Standardised(rows)
    index = np.flatnonzero(regulators)
    cycle = (("networks",),) * config.network_epochs + (("adjacency",),) * config.adjacency_epochs
    plan = TrainConfig(phases=(Phase(name="deepsem", n_epochs=config.n_epochs, cycle=cycle),))
    full = f"deepsem {sorted(asdict(config).items())} {data.shape} {fingerprint}"

    def fit_one(run_seed: int, folder: Path | None) -> Run:
        module = DeepSEM(data.shape[1], config, generator(device, run_seed, 2**32))
        batches = Batches(data, config.batch_size, run_seed, device)
        result = train(
            module,
            batches,
            plan,
            checkpoint=folder,
            fingerprint=f"{full} {run_seed}",
            on_epoch_end=on_epoch_end,
        )
        network = module.weights.detach()[torch.from_numpy(index).to(device)].cpu().numpy()
        return Run(network, arrays_of(module), result)

    runs = fit_runs(fit_one, n_runs, seed, n_jobs=checks.n_jobs(n_jobs), checkpoint=checkpoint)
    network, std, weights, history = combine(runs)
    info = {"device": device.type, "n_runs": n_runs, **training_info(runs)}
    return SEMFit(network=network, std=std, weights=weights, history=history, info=info)
