"""InfoSEM: a structural equation model of expression whose network has informative priors."""

import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from sctrellis._core import checks
from sctrellis.models._batches import Batches, Standardised
from sctrellis.models._complete import complete_network
from sctrellis.models._device import resolve_device
from sctrellis.models._ensemble import EpochCallback, Run, SEMFit, arrays_of, combine, fit_runs, training_info
from sctrellis.models._entrywise import EntrywiseMLP
from sctrellis.models._prior import reduce_embedding
from sctrellis.models._ridge import MAX_SYSTEM, RidgeNetwork, ridge_network
from sctrellis.models._seed import generator
from sctrellis.models._sem import sem_noise, sem_response, spectral_radius
from sctrellis.models._shrink import ShrinkConfig, ShrunkNetwork, shrink_network
from sctrellis.models._strength import choose_prior_strength
from sctrellis.models._train import ParamGroup, Phase, TrainConfig, train

_MAX_RADIUS = 0.95


@dataclass(frozen=True, kw_only=True)
class InfoSEMConfig:
    """Settings of InfoSEM; one stage after the other.

    Parameters
    ----------
    rho
        Ridge strength of the start; None chooses it by cross-validated node-wise error.
    others
        How many times more strongly coefficients of genes that are not regulators are shrunk; None chooses among 1, 10
        and 100 by the same error.
    n_components
        Principal components of the embedding that are used, at most.
    shrink
        Settings of the convex stage, which has the priors.
    choose_strength
        Choose ``shrink.lam_mean`` by the reconstruction of held-out cells instead of taking it as given.
    warm_start
        Start the variational stage at the convex solution; else at an empty network.
    n_epochs
        Epochs of the variational stage; 0 ends with the convex stage.
    steps_per_epoch
        Batches in an epoch at most.
    batch_size
        Cells in a batch.
    n_hidden
        Width of the hidden layer of encoder and decoder.
    beta
        Weight of the Kullback-Leibler term, reached after the first 30 % of the steps.
    lr
        Learning rate of encoder and decoder.
    lr_adjacency
        Learning rate of the network, relative to the root mean square of its start.
    """

    rho: float | None = None
    others: float | None = None
    n_components: int = 32
    shrink: ShrinkConfig = ShrinkConfig()
    choose_strength: bool = False
    warm_start: bool = True
    n_epochs: int = 20
    steps_per_epoch: int = 4
    batch_size: int = 128
    n_hidden: int = 16
    beta: float = 1.0
    lr: float = 2e-3
    lr_adjacency: float = 0.005


class InfoSEM(nn.Module):
    """The variational stage: ``f(x) (I - A) = z`` and ``x = g(z (I - A)^-1)``, with ``A`` held near its prior.

    Parameters
    ----------
    start : (n_rows, n_genes)
        Network to start from; rows are the genes that condition others.
    positions : (n_rows,)
        Gene position of each row.
    centre : (n_rows, n_genes)
        Where the penalty pulls each coefficient: its prior mean, or its start.
    penalty : (n_rows, n_genes)
        Ridge penalty of each coefficient, on the half-squared loss of one cell.
    config
        Settings.
    noise
        Random stream of the initial weights.
    """

    def __init__(
        self,
        start: torch.Tensor,
        positions: torch.Tensor,
        centre: torch.Tensor,
        penalty: torch.Tensor,
        config: InfoSEMConfig,
        noise: torch.Generator,
    ) -> None:
        super().__init__()
        self.config = config
        hidden, n_genes = config.n_hidden, start.shape[1]
        # Residual with a last layer of 0: the stage starts at the convex solution, exactly.
        self.encoder = EntrywiseMLP((1, hidden, hidden, 1), noise, zero_last=True)
        self.log_variance = EntrywiseMLP((1, hidden, 1), noise, zero_last=True)
        self.decoder = EntrywiseMLP((1, hidden, hidden, 1), noise, zero_last=True)
        self.adjacency = nn.Parameter(start.clone())
        self.step_size = float(start.square().mean().sqrt()) or 1.0 / n_genes
        self.positions: torch.Tensor
        self.centre: torch.Tensor
        self.penalty: torch.Tensor
        self.allowed: torch.Tensor
        allowed = torch.ones_like(start)
        allowed[torch.arange(len(positions), device=start.device), positions] = 0.0
        for name, value in (("centre", centre), ("penalty", penalty), ("allowed", allowed)):
            self.register_buffer(name, value, persistent=False)
        self.register_buffer("positions", positions)
        self.mean: torch.Tensor
        self.variance: torch.Tensor
        self.register_buffer("mean", torch.zeros(n_genes, device=start.device))
        self.register_buffer("variance", torch.ones(n_genes, device=start.device))

    @property
    def weights(self) -> torch.Tensor:
        """``A``'s rows, shape (n_rows, n_genes); 0 for a gene on itself."""
        return self.adjacency * self.allowed

    def param_groups(self) -> dict[str, ParamGroup]:
        """Encoder and decoder, and the network."""
        networks = [parameter for name, parameter in self.named_parameters() if name != "adjacency"]
        step = self.config.lr_adjacency * self.step_size
        return {
            "networks": ParamGroup(params=networks, lr=self.config.lr, decay="cosine"),
            "adjacency": ParamGroup(params=[self.adjacency], lr=step, decay="cosine"),
        }

    def losses(self, batch: torch.Tensor, noise: torch.Generator, progress: float) -> dict[str, torch.Tensor]:
        """Return the loss of cells, shape (n, n_genes): squared error, KL to N(0, 1), penalty on the network."""
        entries = batch.unsqueeze(-1)
        weights = self.weights
        features = batch + self.encoder(entries).squeeze(-1)
        # Fixing the scale of f: an encoder that shrinks its output would strengthen the penalty by the square.
        features = nn.functional.batch_norm(
            features, self.mean, self.variance, training=self.training and len(batch) > 1, eps=1e-6
        )
        mean = sem_noise(features, weights, self.positions)
        log_variance = (self.log_variance(entries).squeeze(-1) - 1.0).clamp(-6.0, 2.0)
        draw = torch.randn(batch.shape, generator=noise, device=batch.device)
        # mean (I - A)^-1 is f(x) itself, so only the noise goes through the system.
        response = features + sem_response(draw * (0.5 * log_variance).exp(), weights, self.positions)
        reconstruction = response + self.decoder(response.unsqueeze(-1)).squeeze(-1)
        parts = {
            "reconstruction": ((batch - reconstruction) ** 2).mean(),
            "kl": 0.5 * (mean**2 + log_variance.exp() - log_variance - 1).mean(),
            "penalty": 0.5 * (self.penalty * (weights - self.centre) ** 2).sum() / batch.shape[1],
        }
        beta = self.config.beta * min(1.0, progress / 0.3 + 0.1)
        return {"loss": parts["reconstruction"] + beta * (parts["kl"] + parts["penalty"]), **parts}

    @torch.no_grad()
    def after_epoch(self, epoch: int) -> None:
        """Shrink the network where its system comes near to singular."""
        radius = spectral_radius(self.weights, self.positions, n_iterations=100)
        if radius > _MAX_RADIUS:
            self.adjacency.mul_(_MAX_RADIUS / radius)


@dataclass(frozen=True)
class _Start:
    """What the variational stage starts from."""

    start: np.ndarray
    positions: np.ndarray
    centre: np.ndarray
    penalty: np.ndarray
    rows: np.ndarray


def _all_genes(full: RidgeNetwork, shrunk: ShrunkNetwork, regulators: np.ndarray, device: torch.device) -> _Start:
    """Let all genes condition each other: the other genes' coefficients are optimal given the regulators'."""
    index = np.flatnonzero(regulators)
    start = complete_network(full, shrunk.weights, regulators, device)
    n_vars = len(start)
    penalty = np.full((n_vars, n_vars), full.rho * full.others, dtype=np.float32)
    penalty[index] = full.rho / np.maximum(shrunk.scale, 1e-3) ** 2
    centre = np.zeros((n_vars, n_vars), dtype=np.float32)
    centre[index] = shrunk.scale * shrunk.mean
    return _Start(start.float().cpu().numpy(), np.arange(n_vars), centre, penalty, index)


def _regulators_only(ridge: RidgeNetwork, shrunk: ShrunkNetwork, regulators: np.ndarray) -> _Start:
    """Let only regulators condition, anchored at a solution that all genes conditioned.

    Regulators alone would have to explain what other genes stand in for (shared confounders), so the penalty pulls to
    the start, with the mean curvature of the loss around it.
    """
    index = np.flatnonzero(regulators)
    curvature = float(np.mean(1.0 / np.diag(ridge.precision[:, index])))
    penalty = np.full(shrunk.weights.shape, curvature, dtype=np.float32)
    return _Start(shrunk.weights, index, shrunk.weights, penalty, np.arange(len(index)))


def fit_infosem(
    rows: Any,
    regulators: np.ndarray,
    *,
    embedding: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    conditioning: Literal["auto", "all", "regulators"] = "auto",
    config: InfoSEMConfig = InfoSEMConfig(),
    n_runs: int = 1,
    seed: int = 0,
    device: str | torch.device = "auto",
    n_jobs: int | None = None,
    checkpoint: str | Path | None = None,
    fingerprint: str = "",
    on_epoch_end: EpochCallback | None = None,
) -> SEMFit:
    """Fit InfoSEM: ridge start, convex stage with the priors, short variational stage, ensemble.

    Parameters
    ----------
    rows
        Cells x genes source with ``shape``, ``summary``, ``streamed`` and ``take``, such as ``_core.rows.Rows``.
    regulators : (n_genes,), bool
        Genes that may regulate.
    embedding : (n_genes, d)
        Gene embeddings, the prior B; NaN rows are genes without. None leaves it out.
    labels : (n_regulators, n_genes)
        1 known edge, -1 known non-edge, 0 unknown: the prior C. None leaves it out.
    conditioning
        Genes that condition others in the variational stage: ``"all"``, ``"regulators"`` (anchored at a start in which
        all genes condition), or ``"auto"``: all up to 5,000 genes.
    config
        Settings.
    n_runs
        Variational stages with different seeds, averaged.
    seed
        Seed.
    device
        Torch device.
    n_jobs
        Workers; None is ``settings.n_jobs``, -1 all cores.
    checkpoint
        Folder of the checkpoints of the variational stage; a fit that was stopped resumes from it.
    fingerprint
        Describes the data; a checkpoint of other data is refused.
    on_epoch_end
        Called after each epoch with its number and mean losses.

    Returns
    -------
    SEMFit
        Network, the network after each stage (``"ridge"``, ``"convex"``, ``"deep"``), and what was learned.

    Notes
    -----
    Variational stage, per cell and with G genes: squared error of the reconstruction, plus ``beta`` times the KL of the
    latent noise to N(0, 1) and ``1/G`` times the ridge penalties of the convex stage. With the identity for encoder and
    decoder and no latent noise its optimum is that of the convex stage, so what it changes is what depth adds.

    References
    ----------
    :cite:p:`cui2025infosem`; the method is built from its poster and abstract, in our own way where they are silent.

    Examples
    --------
    >>> import numpy as np, sctrellis as tr
    >>> from sctrellis._core.rows import Rows
    >>> adata = tr.datasets.toy()
    >>> fit = tr.models.fit_infosem(Rows(adata.X), adata.var["is_regulator"].to_numpy(), device="cpu")
    >>> list(fit.stages)
    ['ridge', 'convex', 'deep']
    """
    device = resolve_device(device)
    regulators = np.asarray(regulators, dtype=bool)
    n_obs, n_vars = rows.shape
    everyone = conditioning == "all" or (conditioning == "auto" and n_vars <= MAX_SYSTEM)
    features = None if embedding is None else reduce_embedding(embedding, config.n_components)
    full = ridge_network(
        rows,
        regulators,
        rho=config.rho,
        others=config.others,
        device=device,
        seed=seed,
        full=everyone and config.n_epochs > 0,
    )
    index = np.flatnonzero(regulators)
    ridge = (
        full
        if len(full.weights) == len(index)
        else replace(full, weights=full.weights[index], precision=full.precision[index])
    )
    shrink, errors = config.shrink, None
    if config.choose_strength and features is not None and n_vars <= MAX_SYSTEM:
        shrink, errors = choose_prior_strength(
            rows, regulators, ridge, features=features, labels=labels, config=shrink, device=device, seed=seed
        )
    shrunk = shrink_network(
        ridge, regulators, n_obs=n_obs, features=features, labels=labels, config=shrink, device=device
    )
    stages = {"ridge": ridge.weights, "convex": shrunk.weights}
    parts = {}
    if embedding is not None:
        parts["prior_mean" if config.shrink.prior == "mean" else "prior_scale"] = (
            shrunk.mean if config.shrink.prior == "mean" else shrunk.scale
        )
    if labels is not None:
        parts["edge_probability"] = shrunk.edge_probability
    info: dict[str, object] = {
        "device": device.type,
        "conditioning": "all" if everyone else "regulators",
        "rho": ridge.rho,
        "others": ridge.others,
        "convex_steps": shrunk.n_iterations,
        "n_runs": n_runs,
        **_prior_info(shrunk),
    }
    if features is not None:
        info["lam_mean"] = shrink.lam_mean if shrunk.uses_embedding else float("inf")
    tables = {"cv": ridge.cv} if len(ridge.cv) else {}
    if errors is not None:
        tables["prior_strength"] = errors
    if config.n_epochs == 0:
        weights = {"adjacency": shrunk.weights[None], "positions": index[None]}
        return SEMFit(
            network=shrunk.weights, std=None, stages=stages, parts=parts, weights=weights, info=info, tables=tables
        )
    begin = _all_genes(full, shrunk, regulators, device) if everyone else _regulators_only(ridge, shrunk, regulators)
    del full
    data = Standardised(rows)
    plan = TrainConfig(
        phases=(Phase(name="variational stage", n_epochs=config.n_epochs, cycle=(("networks", "adjacency"),)),),
        clip_norm=1.0,
    )
    mark = hashlib.sha256(shrunk.weights.tobytes()).hexdigest()
    described = f"infosem {sorted(asdict(config).items())} {conditioning} {data.shape} {fingerprint} {mark}"

    def fit_one(run_seed: int, folder: Path | None) -> Run:
        given = (begin.start, begin.positions, begin.centre, begin.penalty)
        start, positions, centre, penalty = (torch.from_numpy(array).to(device) for array in given)
        if not config.warm_start:
            start = torch.zeros_like(start)
        module = InfoSEM(start, positions, centre, penalty, config, generator(device, run_seed, 2**32))
        batches = Batches(data, config.batch_size, run_seed, device, max_batches=config.steps_per_epoch)
        result = train(
            module,
            batches,
            plan,
            checkpoint=folder,
            fingerprint=f"{described} {run_seed}",
            on_epoch_end=on_epoch_end,
        )
        network = module.weights.detach().cpu().numpy()[begin.rows]
        return Run(network, arrays_of(module), result)

    runs = fit_runs(fit_one, n_runs, seed, n_jobs=checks.n_jobs(n_jobs), checkpoint=checkpoint)
    network, std, weights, history = combine(runs)
    return SEMFit(
        network=network,
        std=std,
        stages={**stages, "deep": network},
        parts=parts,
        weights=weights,
        history=history,
        info={**info, **training_info(runs)},
        tables=tables,
    )


def _prior_info(shrunk: ShrunkNetwork) -> dict[str, object]:
    """Return what the priors learned, in words that a record can hold."""
    found: dict[str, object] = {}
    for side, prediction in (("regulator", shrunk.regulator_prediction), ("target", shrunk.target_prediction)):
        if prediction is not None:
            found[f"embedding_{side}_explained"] = prediction.explained
            found[f"embedding_{side}_used"] = not np.isnan(prediction.strength)
    if found:
        found["prior_mean_weights"] = shrunk.mean_weights
    return found
