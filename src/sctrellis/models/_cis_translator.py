"""The cis surrogate: one small network per gene over the peaks near it, all genes and all runs in one table."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from scipy import sparse, special
from torch import nn

from sctrellis._core import draws
from sctrellis.models._device import resolve_device
from sctrellis.models._ensemble import EpochCallback
from sctrellis.models._train import ParamGroup, Phase, TrainConfig, train
from sctrellis.models._translator import CellBatches, Effects, Translator, TranslatorFit, bag_sums

MAX_BATCHES = 32
"""Batches in an epoch at most, so that early stopping has a choice where there are many cells."""
_START = {name: np.float32(scale) for name, scale in (("effect", 0.03), ("bias", 0.3), ("output", 1.0))}
"""Spread of the initial weights; that of the output is divided by the root of the number of units."""
_BLOCK = 32_000_000
"""Numbers in the largest activation: genes are fitted in blocks of this size, which changes no result."""


@dataclass(frozen=True, kw_only=True)
class CisConfig:
    """Settings of the cis surrogate.

    Parameters
    ----------
    n_hidden
        Hidden units per gene.
    max_epochs
        Epochs; None takes as many as ``n_steps`` steps need.
    n_steps
        Steps of the optimiser.
    batch_size
        Cells in a batch.
    lr
        Learning rate.
    weight_decay
        Decoupled weight decay of everything but the intercepts.
    group_lasso
        Weight of the sum over peaks of the length of a peak's vector.
    likelihood
        ``"nb"`` for counts, ``"gaussian"`` for log-normalised values.
    theta
        Inverse dispersion of the negative binomial; None learns one per gene.
    """

    n_hidden: int = 16
    max_epochs: int | None = None
    n_steps: int = 660
    batch_size: int = 256
    lr: float = 5e-3
    weight_decay: float = 1e-3
    group_lasso: float = 2e-3
    likelihood: Literal["nb", "gaussian"] = "nb"
    theta: float | None = 8.0

    def n_epochs(self, n_cells: int) -> int:
        """Return the epochs of a fit to so many training cells."""
        if self.max_epochs is not None:
            return self.max_epochs
        return math.ceil(self.n_steps / len(CellBatches(np.arange(n_cells), self.batch_size, max_batches=MAX_BATCHES)))


class CisTranslator(Translator):
    r"""The fitted cis surrogate.

    .. math:: F_g(c) = a_{g,t(c)} + \log \mathrm{size}_c
              + \sum_u w_{gu} \, \mathrm{ReLU}\Bigl(b_{gu} + \sum_{j \in \mathrm{cis}(g)} x_{cj} U_{gju}\Bigr)

    An ensemble is one such network: its units are those of all runs, and the mean over the runs is part of ``w``.

    Parameters
    ----------
    weights
        ``genes`` (n_fitted,), ``indptr`` (n_fitted + 1,) and ``peaks`` (n_links,): the links of each gene, sorted;
        ``effect`` (n_links, width), ``bias`` and ``output`` (n_fitted, width), ``intercept`` (n_fitted, n_groups).
    facts
        ``n_peaks``, and the ``likelihood``.
    """

    n_blocks = 1

    def __init__(self, weights: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
        super().__init__()
        self.n_peaks = int(facts["n_peaks"])
        self.sized = facts["likelihood"] == "nb"
        self.width = weights["bias"].shape[1]
        self.indptr: torch.Tensor
        self.peaks: torch.Tensor
        for name in ("genes", "indptr", "peaks"):
            self.register_buffer(name, torch.from_numpy(np.asarray(weights[name], np.int64)))
        self.effect, self.bias, self.output, self.intercept = (
            nn.Parameter(torch.from_numpy(np.asarray(weights[name])))
            for name in ("effect", "bias", "output", "intercept")
        )

    def effects(self, g: int | torch.Tensor) -> Effects:
        """Return the vectors of the peaks of gene ``g``, or of each gene of a tensor, padded."""
        rows = self.rows_of(g)
        start, stop = self.indptr[rows], self.indptr[rows + 1]
        within = torch.arange(int((stop - start).max()), device=start.device)
        link = start.unsqueeze(-1) + within
        real = link < stop.unsqueeze(-1)
        link = torch.where(real, link, 0)
        peaks = torch.where(real, self.peaks[link], -1)
        effect = self.effect[link] * real.unsqueeze(-1)
        return Effects(peaks, effect, torch.zeros_like(peaks))

    def pre_activation(self, x: Any, g: int | torch.Tensor) -> torch.Tensor:
        """Return the hidden units' input, shape (n_cells, 1, width), with a leading axis for a tensor of genes."""
        rows = self.rows_of(g)
        several = rows.reshape(-1)
        lengths = self.indptr[several + 1] - self.indptr[several]
        bags = torch.repeat_interleave(torch.arange(len(several), device=lengths.device), lengths)
        first = torch.repeat_interleave(self.indptr[several] - lengths.cumsum(0) + lengths, lengths)
        links = first + torch.arange(len(bags), device=first.device)
        columns = _columns(x, self.peaks[links].cpu().numpy(), self.n_peaks)
        sums = bag_sums(columns, self.effect[links], bags.cpu().numpy(), len(several))
        pre = (sums + self.bias[several]).transpose(0, 1).unsqueeze(2)
        return pre if rows.ndim else pre[0]

    def head(
        self, pre: torch.Tensor, g: int | torch.Tensor, groups: torch.Tensor, log_size: torch.Tensor
    ) -> torch.Tensor:
        """Return the predicted log expression, shape (..., n_cells)."""
        rows = self.rows_of(g)
        output, intercept = self.output[rows], self.intercept[rows][..., groups]
        if rows.ndim:
            between = (1,) * (pre.ndim - 4)
            output = output.view(len(rows), *between, 1, self.width)
            intercept = intercept.view(len(rows), *between, len(groups))
        found = intercept + (torch.relu(pre.squeeze(-2)) * output).sum(dim=-1)
        return found + log_size if self.sized else found


def _columns(x: Any, peaks: np.ndarray, n_peaks: int) -> sparse.csr_matrix:
    """Return columns of ``x``, which may repeat, as CSR with sorted indices."""
    if x.shape[1] != n_peaks:
        msg = f"Expected `x` to have the {n_peaks} peaks of the fit, found {x.shape[1]}."
        raise ValueError(msg)
    columns = sparse.csr_matrix(x)[:, peaks]
    columns.sort_indices()
    return columns


@dataclass(frozen=True)
class _Targets:
    """What each member of the table is fitted to: counts of cells, or of the cells that they were swapped for."""

    y: sparse.csr_matrix
    log_size: np.ndarray
    rows: np.ndarray  # (n_permutations + 1, n_cells): partner of each cell, the first row the cell itself
    n_runs: int

    def take(self, cells: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Return expression (n, n_genes, n_members) and log size (n, 1, n_members)."""
        partners = self.rows[:, cells]
        shape = (*partners.shape, self.y.shape[1])
        y = torch.from_numpy(self.y[partners.ravel()].toarray().reshape(shape)).permute(1, 2, 0)
        size = torch.from_numpy(self.log_size[partners]).T.unsqueeze(1)
        # All runs have the true pairs: the first of the partners.
        repeats = torch.tensor([self.n_runs] + [1] * (len(partners) - 1))
        return y.repeat_interleave(repeats, dim=2), size.repeat_interleave(repeats, dim=2)


class _CisModule(nn.Module):
    """The table while it is fitted: genes x members, where members are the runs and the refits to permuted pairs.

    Parameters
    ----------
    columns : (n_cells, n_links)
        Accessibility of the peak of each link.
    gene_of_link : (n_links,)
        Gene of each link, never decreasing.
    targets
        What is fitted.
    groups : (n_cells,)
        Group of each cell.
    start
        Initial ``effect`` (n_links, n_members, n_hidden), ``bias`` and ``output`` (n_genes, n_members, n_hidden),
        ``intercept`` (n_genes, n_groups), ``log_theta`` (n_genes,), and ``scale`` (n_genes,), the residual variance of
        a Gaussian fit.
    config
        Settings.
    """

    def __init__(
        self,
        columns: sparse.csr_matrix,
        gene_of_link: np.ndarray,
        targets: _Targets,
        groups: np.ndarray,
        start: Mapping[str, np.ndarray],
        config: CisConfig,
    ) -> None:
        super().__init__()
        self.columns, self.gene_of_link, self.targets, self.groups = columns, gene_of_link, targets, groups
        self.config = config
        self.binary = bool((columns.data == 1).all())
        self.n_members = start["effect"].shape[1]
        self.effect = nn.Parameter(torch.from_numpy(start["effect"]))
        self.bias = nn.Parameter(torch.from_numpy(start["bias"]))
        self.output = nn.Parameter(torch.from_numpy(start["output"]))
        intercept = torch.from_numpy(start["intercept"]).unsqueeze(1).repeat(1, self.n_members, 1)
        self.intercept = nn.Parameter(intercept)
        log_theta = torch.from_numpy(start["log_theta"])[:, None].repeat(1, self.n_members)
        self.log_theta = nn.Parameter(log_theta)
        self.scale: torch.Tensor
        self.link: torch.Tensor
        self.register_buffer("scale", torch.from_numpy(start["scale"]))
        self.register_buffer("link", torch.from_numpy(gene_of_link))
        self._held_out: list[torch.Tensor] = []
        self._best_loss = torch.full(intercept.shape[:2], math.inf)
        self._best: dict[str, torch.Tensor] = {}
        self.best_epoch = torch.zeros(intercept.shape[:2], dtype=torch.int64)

    def param_groups(self) -> dict[str, ParamGroup]:
        """The network, and the intercepts, which are not shrunk."""
        free = [self.intercept] + ([self.log_theta] if self.config.theta is None else [])
        options: dict[str, Any] = {"lr": self.config.lr, "optimiser": "adamw"}
        network = [self.effect, self.bias, self.output]
        return {
            "network": ParamGroup(params=network, weight_decay=self.config.weight_decay, **options),
            "intercepts": ParamGroup(params=free, **options),
        }

    def forward(self, cells: np.ndarray) -> torch.Tensor:
        """Return predictions less log size, shape (n, n_genes, n_members)."""
        n_genes, n_members, n_hidden = self.bias.shape
        table = self.effect.view(len(self.effect), -1)
        sums = bag_sums(self.columns[cells], table, self.gene_of_link, n_genes, binary=self.binary)
        hidden = torch.relu(sums.view(len(cells), n_genes, n_members, n_hidden) + self.bias)
        group = torch.from_numpy(self.groups[cells]).to(hidden.device)
        return (hidden * self.output).sum(dim=-1) + self.intercept[:, :, group].permute(2, 0, 1)

    def losses(self, batch: torch.Tensor, noise: torch.Generator, progress: float) -> dict[str, torch.Tensor]:
        """Return the summed loss of all genes and members, and its parts as means over them."""
        cells = batch.cpu().numpy()
        predicted = self(cells)
        y, log_size = (value.to(predicted) for value in self.targets.take(cells))
        if self.config.likelihood == "nb":
            misfit = self._misfit(predicted + log_size, y)
        else:
            misfit = (y - predicted) ** 2 / (2 * self.scale[:, None])
        per_gene = misfit.mean(dim=0)
        length = torch.sqrt((self.effect**2).sum(dim=-1) + 1e-12)  # the small number keeps the slope finite at 0
        penalty = self.config.group_lasso * length
        if not self.training:
            self._held_out.append(misfit.detach().sum(dim=0))
        # A sum, so that how many genes are fitted together changes no gene's steps.
        loss = per_gene.sum() + penalty.sum()
        return {"loss": loss, "misfit": per_gene.mean(), "penalty": penalty.sum() / per_gene.numel()}

    def _misfit(self, log_mean: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the negative log-likelihood less what depends on the counts alone."""
        log_theta = self.log_theta
        theta = log_theta.exp()
        value = (y + theta) * torch.logaddexp(log_theta, log_mean) - y * log_mean - theta * log_theta
        if self.config.theta is None:
            value = value + torch.lgamma(theta) - torch.lgamma(y + theta)
        return value

    def after_epoch(self, epoch: int) -> None:
        """Keep, for each gene and member, the state with the smallest loss on the validation cells."""
        held_out = torch.stack(self._held_out).sum(dim=0)
        self._held_out = []
        better = held_out.cpu() < self._best_loss
        self._best_loss = torch.where(better, held_out.cpu(), self._best_loss)
        self.best_epoch[better] = epoch
        for name, value in self.named_parameters():
            now = value.detach()
            rows = better.to(now.device)
            rows = rows[self.link] if name == "effect" else rows
            rows = rows.view(*rows.shape, *(1,) * (now.ndim - 2))
            self._best[name] = torch.where(rows, now, self._best.get(name, now))

    def restore(self) -> None:
        """Return every gene and member to its best state."""
        for name, value in self.named_parameters():
            value.data.copy_(self._best[name])


def fit_cis_translator(
    x: sparse.csr_matrix,
    y: sparse.csr_matrix,
    links: sparse.csr_matrix,
    *,
    groups: np.ndarray,
    log_size: np.ndarray,
    split: Mapping[str, np.ndarray],
    config: CisConfig = CisConfig(),
    gene_keys: np.ndarray | None = None,
    peak_keys: np.ndarray | None = None,
    n_runs: int = 3,
    null_rows: np.ndarray | None = None,
    seed: int = 0,
    device: torch.device | str = "auto",
    on_epoch_end: EpochCallback | None = None,
) -> TranslatorFit:
    r"""Fit the cis surrogate to all genes that have a link.

    Parameters
    ----------
    x : (n_cells, n_peaks)
        Accessibility, 0 and 1 or anything between.
    y : (n_cells, n_genes)
        Counts, or log-normalised values for a Gaussian likelihood.
    links : (n_genes, n_peaks)
        Stored where a peak may act on a gene; values are not read.
    groups : (n_cells,)
        Group of each cell, 0 to n_groups - 1.
    log_size : (n_cells,)
        Logarithm of the size factor of each cell.
    split
        Positions of the cells of ``"train"`` and ``"validation"``, and of those whose null predictions are wanted as
        ``"test"``.
    config
        Settings.
    gene_keys, peak_keys : uint64
        A number for each gene and peak that decides its initial state, such as a hash of its name; None is its
        position.
    n_runs
        Members of the ensemble. They differ by their initial state.
    null_rows : (n_null, n_cells)
        For each refit of the null the cell whose expression stands in for that of each cell; None makes no null.
    seed
        Seed of the initial state and of the order of cells.
    device
        Torch device.
    on_epoch_end
        Called after each epoch of each block of genes with its number and mean losses.

    Returns
    -------
    TranslatorFit
        The surrogate; genes without a link are not part of it.

    Notes
    -----
    The loss of a gene is its mean negative log-likelihood plus :math:`\lambda \sum_j \|U_{gj}\|_2`. Each gene keeps the
    state of the epoch with its smallest validation loss. Genes do not share anything, so fitting some of them gives
    what fitting all of them gives, up to rounding. A batch costs one sparse sum over its open links times the members,
    and O(n G K H) for n cells, G genes, K members and H units.

    Examples
    --------
    >>> import numpy as np, sctrellis as tr
    >>> from scipy import sparse
    >>> rng = np.random.default_rng(0)
    >>> x = sparse.csr_matrix(rng.integers(0, 2, (200, 4)).astype(np.float32))
    >>> y = sparse.csr_matrix(rng.poisson(np.exp(1.5 * x.toarray()[:, :1])).astype(np.float32))
    >>> split = {"train": np.arange(120), "validation": np.arange(120, 160), "test": np.arange(160, 200)}
    >>> links = sparse.csr_matrix(np.ones((1, 4)))
    >>> cells = {"groups": np.zeros(200, int), "log_size": np.zeros(200), "split": split}
    >>> config = tr.models.CisConfig(n_steps=100)
    >>> fit = tr.models.fit_cis_translator(x, y, links, **cells, config=config, n_runs=1)
    >>> np.linalg.norm(fit.weights["effect"], axis=1).argmax()
    np.int64(0)
    """
    device = resolve_device(device)
    n_cells, n_peaks = x.shape
    links = sparse.csr_matrix(links)
    links.sort_indices()
    genes = np.flatnonzero(np.diff(links.indptr))
    gene_keys = np.arange(links.shape[0], dtype=np.uint64) if gene_keys is None else gene_keys
    peak_keys = np.arange(n_peaks, dtype=np.uint64) if peak_keys is None else peak_keys
    null_rows = np.zeros((0, n_cells), np.int64) if null_rows is None else null_rows
    rows = np.concatenate([np.arange(n_cells)[None], null_rows])
    n_members = n_runs + len(null_rows)
    # A number for each member; a null refit starts like none of the runs.
    members = np.concatenate([np.arange(n_runs), 2**32 + np.arange(len(null_rows))]).astype(np.uint64)
    train_cells = np.sort(split["train"])
    per_epoch = CellBatches(train_cells, config.batch_size, seed, device, MAX_BATCHES)
    n_epochs = config.n_epochs(len(train_cells))
    plan = TrainConfig(phases=(Phase(name="cis", n_epochs=n_epochs, cycle=(("network", "intercepts"),)),))
    validation = CellBatches(np.sort(split["validation"]), config.batch_size, seed, device)
    size = max(1, _BLOCK // (config.batch_size * n_members * config.n_hidden))
    parts: list[dict[str, np.ndarray]] = []
    nulls, thetas, histories, best = [], [], [], []
    for begin in range(0, len(genes), size):
        block = genes[begin : begin + size]
        chosen = links[block]
        gene_of_link = np.repeat(np.arange(len(block)), np.diff(chosen.indptr))
        targets = _Targets(sparse.csr_matrix(y[:, block], dtype=np.float32), log_size.astype(np.float32), rows, n_runs)
        start = _start(targets, groups, train_cells, config)
        start |= _noise(gene_keys[block], peak_keys[chosen.indices], gene_of_link, members, config.n_hidden, seed)
        columns = _columns(x, chosen.indices, n_peaks)
        module = _CisModule(columns, gene_of_link, targets, groups, start, config).to(device)
        result = train(module, per_epoch, plan, validation=validation, on_epoch_end=on_epoch_end)
        module.restore()
        parts.append(_ensemble(module, n_runs))
        thetas.append(np.exp(module.log_theta.detach()[:, :n_runs].mean(dim=1).cpu().numpy().astype(np.float64)))
        nulls.append(_null_predictions(module, split["test"], n_runs))
        histories.append((len(block), result.history))
        best.append(module.best_epoch[:, :n_runs].numpy())
    indptr = np.concatenate([[0], np.cumsum(np.diff(links.indptr)[genes])])
    weights = {"genes": genes, "indptr": indptr, "peaks": links.indices.astype(np.int64)}
    weights |= {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return TranslatorFit(
        surrogate={"kind": "cis", "n_peaks": n_peaks, "likelihood": config.likelihood},
        weights=weights,
        history=_history(histories, n_members),
        fit={"epochs": n_epochs, "best_epoch": np.concatenate(best), "device": device.type},
        theta=np.concatenate(thetas),
        null=np.concatenate(nulls, axis=2),
    )


def _start(targets: _Targets, groups: np.ndarray, cells: np.ndarray, config: CisConfig) -> dict[str, np.ndarray]:
    """Return intercepts that fit each group's mean without any peak, and the dispersion or variance around them."""
    n_groups = int(groups.max()) + 1
    member = sparse.csr_matrix((np.ones(len(cells)), (groups[cells], np.arange(len(cells)))), (n_groups, len(cells)))
    y = targets.y[cells].astype(np.float64)
    theta = np.full(y.shape[1], 8.0 if config.theta is None else config.theta)
    total = np.asarray((member @ y).todense())
    if config.likelihood == "nb":
        exposure = member @ np.exp(targets.log_size[cells].astype(np.float64))
        # Half a count where a group has none: its logarithm must be finite.
        intercept = np.log((total + 0.5) / (exposure[:, None] + 0.5))
        variance = np.ones(y.shape[1])
        if config.theta is None:
            size_factor = np.exp(targets.log_size[cells].astype(np.float64))[:, None]
            mean = size_factor * np.exp(intercept)[groups[cells]]
            excess = ((y.toarray() - mean) ** 2 - mean).sum(axis=0)
            theta = 1 / np.clip(excess / (mean**2).sum(axis=0), 0.01, 10)
    else:
        size = np.maximum(np.asarray(member.sum(axis=1)), 1)
        intercept = total / size
        squares = np.asarray((member @ y.multiply(y)).todense()).sum(axis=0) - (size * intercept**2).sum(axis=0)
        variance = np.maximum(squares / len(cells), 1e-6)
    start = {"intercept": intercept.T, "scale": variance, "log_theta": np.log(theta)}
    return {name: value.astype(np.float32) for name, value in start.items()}


def _noise(
    gene_keys: np.ndarray,
    peak_keys: np.ndarray,
    gene_of_link: np.ndarray,
    members: np.ndarray,
    n_hidden: int,
    seed: int,
) -> dict[str, np.ndarray]:
    """Return the initial network; what a gene and a peak start from depends on neither order nor company."""
    unit = np.arange(n_hidden, dtype=np.uint64)

    def normal(part: str, *keys: np.ndarray) -> np.ndarray:
        spread = [key[:, None, None] for key in keys]
        drawn = draws.uniform(seed, part, *spread, members[:, None], unit)
        return _START[part] * special.ndtri(drawn + 2.0**-54).astype(np.float32)  # never at 0, whose quantile is -inf

    return {
        "effect": normal("effect", gene_keys[gene_of_link], peak_keys),
        "bias": normal("bias", gene_keys),
        "output": normal("output", gene_keys) / np.float32(math.sqrt(n_hidden)),
    }


def _ensemble(module: _CisModule, n_runs: int) -> dict[str, np.ndarray]:
    """Return the runs as one network whose units are those of all of them."""
    effect, bias, output, intercept = (
        value.detach()[:, :n_runs].cpu().numpy()
        for value in (module.effect, module.bias, module.output, module.intercept)
    )
    return {
        "effect": effect.reshape(len(effect), -1),
        "bias": bias.reshape(len(bias), -1),
        "output": output.reshape(len(output), -1) / np.float32(n_runs),
        "intercept": intercept.mean(axis=1),
    }


@torch.no_grad()
def _null_predictions(module: _CisModule, cells: np.ndarray, n_runs: int) -> np.ndarray:
    """Return the predictions of the refits to permuted pairs, shape (n_null, n_cells, n_genes)."""
    module.eval()
    found = np.zeros((module.n_members - n_runs, len(cells), len(module.bias)), np.float32)
    for start in range(0, len(cells) if len(found) else 0, module.config.batch_size):
        part = slice(start, start + module.config.batch_size)
        found[:, part] = module(cells[part])[:, :, n_runs:].permute(2, 0, 1).cpu().numpy()
    return found


def _history(parts: Sequence[tuple[int, dict[str, list[float]]]], n_members: int) -> dict[str, list[float]]:
    """Return losses per gene and member over all blocks of genes."""
    n_genes = sum(n for n, _ in parts)
    history = {}
    for name in parts[0][1]:
        # The sums are what the steps follow; the parts are means already.
        share = [1 / n_members if name in ("loss", "validation") else n for n, _ in parts]
        values = [w * np.asarray(found[name]) for w, (_, found) in zip(share, parts, strict=True)]
        history[name] = list(np.sum(values, axis=0) / n_genes)
    return history
