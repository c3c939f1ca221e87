"""Fit the crossmodal surrogate: ATAC, then RNA, then the alignment of both, each a stage of the one training loop."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy import sparse, stats
from torch import nn

from sctrellis.models._crossmodal import SIZES, CrossmodalNetwork, Discriminator
from sctrellis.models._device import resolve_device
from sctrellis.models._ensemble import EpochCallback
from sctrellis.models._seed import generator
from sctrellis.models._train import ParamGroup, Phase, TrainConfig, TrainResult, train
from sctrellis.models._translator import CellBatches, TranslatorFit

_EVALUATED = 1024


@dataclass(frozen=True, kw_only=True)
class CrossmodalConfig:
    """Settings of the crossmodal surrogate; rates and weights are those published, sizes of the RNA part a fifth.

    Parameters
    ----------
    width, n_block_hidden, n_latent, n_maps
        Length of a peak's vector, width of a chromosome's hidden layer, length of a code, affine maps of a translator.
    rna_wide, rna_narrow
        Widths of the RNA autoencoder; published: 640 and 320.
    pairing
        ``"paired"`` compares the codes of a cell; ``"unpaired"`` draws RNA and ATAC of different cells.
    max_epochs
        Epochs of each stage at most; None takes as many as ``n_steps`` steps need.
    n_steps
        Steps of each stage; published: 36,000 for ATAC and alignment, 9,000 for RNA.
    patience
        Epochs without a smaller validation loss before a stage stops; the alignment of unpaired codes never does.
    batch_size
        Cells in a batch.
    lr
        Rate of all groups; None is 0.001 for ATAC, 0.0005 for RNA and translators, 0.0001 for discriminators and for
        the ATAC encoder in the last stage.
    cycle, rna_share, adversary, paired
        Weights: of codes after a cycle, divisor of what belongs to RNA, of adversaries, and of paired terms.
    """

    width: int = 16
    n_block_hidden: int = 32
    n_latent: int = 20
    n_maps: int = 9
    rna_wide: int = 128
    rna_narrow: int = 64
    pairing: Literal["paired", "unpaired"] = "paired"
    max_epochs: int | None = None
    n_steps: int = 1500
    patience: int = 10
    batch_size: int = 128
    lr: float | None = None
    cycle: float = 1.0
    rna_share: float = 5.0
    adversary: float = 0.5
    paired: float = 1.0

    def rate(self, usual: float) -> float:
        """Return the learning rate of a group."""
        return usual if self.lr is None else self.lr

    def n_epochs(self, n_cells: int) -> int:
        """Return the epochs of a stage on so many training cells."""
        if self.max_epochs is not None:
            return self.max_epochs
        return math.ceil(self.n_steps / len(CellBatches(np.arange(n_cells), self.batch_size)))


@dataclass(frozen=True)
class _Cells:
    """What the stages read of a cell."""

    x: sparse.csr_matrix
    y: sparse.csr_matrix
    groups: np.ndarray

    def rna(self, cells: np.ndarray, like: torch.Tensor) -> torch.Tensor:
        """Return expression, shape (n, n_genes)."""
        return torch.from_numpy(self.y[cells].toarray()).to(like)

    def group(self, cells: np.ndarray, like: torch.Tensor) -> torch.Tensor:
        """Return the group of each cell."""
        return torch.from_numpy(self.groups[cells]).to(like.device)


class _Stage(nn.Module):
    """What the stages share: the network, the data, and the losses of reconstruction."""

    def __init__(self, network: CrossmodalNetwork, cells: _Cells, config: CrossmodalConfig) -> None:
        super().__init__()
        self.network, self.cells, self.config = network, cells, config

    def after_epoch(self, epoch: int) -> None:
        """Nothing to do."""

    def atac_loss(self, code: torch.Tensor, x: sparse.csr_matrix, noise: torch.Generator) -> torch.Tensor:
        """Return the focal loss of all open entries and as many drawn ones, of which the open are left out."""
        atac = self.network.atac
        row, peak, is_open = drawn_entries(x, noise, code.device)
        logits = atac.logits(atac.decode(code), row, peak)
        sign = torch.where(is_open, 1.0, -1.0)
        return (torch.sigmoid(-sign * logits) ** 2 * nn.functional.softplus(-sign * logits)).mean()

    def rna_loss(self, found: torch.Tensor, y: torch.Tensor, noise: torch.Generator) -> torch.Tensor:
        """Return the squared error of what is expressed and of as many other entries."""
        expressed = y > 1e-4
        n_expressed = expressed.sum()
        share = n_expressed / (y.numel() - n_expressed).clamp(min=1)
        kept = expressed | (torch.rand(y.shape, generator=noise, device=y.device) < share)
        return ((found - y) ** 2 * kept).sum() / kept.sum().clamp(min=1)


def drawn_entries(
    x: sparse.csr_matrix, noise: torch.Generator, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return row, column and state of all open entries, and of closed ones among as many that are drawn."""
    n_cells, n_peaks = x.shape
    row = np.repeat(np.arange(n_cells, dtype=np.int64), np.diff(x.indptr))
    opened = torch.from_numpy(row * n_peaks + x.indices).to(device)
    drawn = torch.randint(n_cells * n_peaks, opened.shape, generator=noise, device=device)
    at = torch.searchsorted(opened, drawn).clamp(max=max(len(opened) - 1, 0))
    entries = torch.cat([opened, drawn[opened[at] != drawn]]) if len(opened) else opened
    is_open = torch.arange(len(entries), device=device) < len(opened)
    return entries // n_peaks, entries % n_peaks, is_open


class _AtacStage(_Stage):
    def param_groups(self) -> dict[str, ParamGroup]:
        """The ATAC autoencoder."""
        return {"atac": ParamGroup(params=list(self.network.atac.parameters()), lr=self.config.rate(1e-3))}

    def losses(self, batch: torch.Tensor, noise: torch.Generator, progress: float) -> dict[str, torch.Tensor]:
        """Return the loss of reconstruction."""
        x, atac = self.cells.x[batch.cpu().numpy()], self.network.atac
        return {"loss": self.atac_loss(atac.encode(atac.pool(x)), x, noise)}


class _RnaStage(_Stage):
    def param_groups(self) -> dict[str, ParamGroup]:
        """The RNA autoencoder."""
        return {"rna": ParamGroup(params=list(self.network.rna.parameters()), lr=self.config.rate(5e-4))}

    def losses(self, batch: torch.Tensor, noise: torch.Generator, progress: float) -> dict[str, torch.Tensor]:
        """Return the loss of reconstruction."""
        rna = self.network.rna
        y = self.cells.rna(batch.cpu().numpy(), rna.out.weight)
        return {"loss": self.rna_loss(rna.decode(rna.code(y)), y, noise)}


class _AlignStage(_Stage):
    """Translators, discriminators and, with pairs, the ATAC encoder; normalisation stays as it was."""

    def __init__(
        self,
        network: CrossmodalNetwork,
        cells: _Cells,
        config: CrossmodalConfig,
        train_cells: np.ndarray,
        noise: torch.Generator,
    ) -> None:
        super().__init__(network, cells, config)
        n_groups = int(cells.groups.max()) + 1
        self.judges = nn.ModuleDict({name: Discriminator(config.n_latent, n_groups, noise) for name in ("atac", "rna")})
        self.train_cells = torch.from_numpy(train_cells)

    def train(self, mode: bool = True) -> "_AlignStage":  # noqa: FBT001, FBT002 - torch's own signature
        """Set the mode of all but the autoencoders, which stay in evaluation mode."""
        super().train(mode)
        self.network.eval()
        return self

    def param_groups(self) -> dict[str, ParamGroup]:
        """Translators, discriminators, and the ATAC encoder where codes are paired."""
        network, atac = self.network, self.network.atac
        translators = [*network.to_rna.parameters(), *network.to_atac.parameters()]
        groups = {
            "translators": ParamGroup(params=translators, lr=self.config.rate(5e-4)),
            "discriminators": ParamGroup(params=list(self.judges.parameters()), lr=self.config.rate(1e-4)),
        }
        if self.config.pairing == "paired":
            encoder = [atac.effect, atac.bias]
            for part in (atac.before, atac.widen, atac.after, atac.code):
                encoder += list(part.parameters())
            groups["encoder"] = ParamGroup(params=encoder, lr=self.config.rate(1e-4))
        return groups

    def losses(self, batch: torch.Tensor, noise: torch.Generator, progress: float) -> dict[str, torch.Tensor]:
        """Return cycles, adversaries and paired terms; of validation cells only what adversaries do not decide."""
        config, network, cells = self.config, self.network, batch.cpu().numpy()
        paired = config.pairing == "paired"
        partners = cells
        if not paired and self.training:
            drawn = torch.randint(len(self.train_cells), (len(cells),), generator=noise, device=batch.device)
            partners = self.train_cells[drawn.cpu()].numpy()
        x, y = self.cells.x[cells], self.cells.rna(partners, network.rna.out.weight)
        of_atac, of_rna = network.atac.encode(network.atac.pool(x)), network.rna.code(y)
        as_rna, as_atac = network.to_rna(of_atac), network.to_atac(of_rna)
        atac_again, rna_again = network.to_atac(as_rna), network.to_rna(as_atac)
        cycle = config.cycle * (
            (of_rna - rna_again).abs().mean() / config.rna_share + (of_atac - atac_again).abs().mean()
        )
        cycle = cycle + self.rna_loss(network.rna.decode(rna_again), y, noise) / config.rna_share
        parts = {"cycle": cycle + self.atac_loss(atac_again, x, noise)}
        if paired:
            direct = (of_rna - as_rna).abs().mean() + (of_atac - as_atac).abs().mean()
            parts["paired"] = config.paired * (self.rna_loss(network.rna.decode(as_rna), y, noise) + direct)
        if self.training:
            group = {"atac": self.cells.group(cells, of_atac), "rna": self.cells.group(partners, of_atac)}
            real = {"atac": of_atac, "rna": of_rna}
            # The group of a translated code is that of the cell that it comes from.
            fake = {"rna": [(as_rna, group["atac"]), (rna_again, group["rna"])],
                    "atac": [(as_atac, group["rna"]), (atac_again, group["atac"])]}  # fmt: skip
            parts |= self._adversaries(real, fake, group, noise)
        return {"loss": torch.stack(list(parts.values())).sum(), **parts}

    def _adversaries(
        self,
        real: Mapping[str, torch.Tensor],
        fake: Mapping[str, list[tuple[torch.Tensor, torch.Tensor]]],
        group: Mapping[str, torch.Tensor],
        noise: torch.Generator,
    ) -> dict[str, torch.Tensor]:
        """Return what translators lose where their codes are recognised, and what discriminators lose otherwise.

        One step moves both: translators see the discriminators' weights as constants, discriminators the codes.
        """
        fooled, judged = [], []
        for name, judge in self.judges.items():
            fixed = {key: value.detach() for key, value in judge.named_parameters()}
            for code, of in fake[name]:
                logit = torch.func.functional_call(judge, fixed, (code, of, noise))
                fooled.append(nn.functional.softplus(-logit).mean())
            as_real = judge(real[name].detach(), group[name], noise)
            judged.append(nn.functional.softplus(-as_real).mean())
            judged += [nn.functional.softplus(judge(code.detach(), of, noise)).mean() for code, of in fake[name][:1]]
        weight = self.config.adversary
        return {"fooled": weight * torch.stack(fooled).sum(), "judged": weight * torch.stack(judged).sum()}


def fit_crossmodal(
    x: sparse.csr_matrix,
    y: sparse.csr_matrix,
    block: np.ndarray,
    *,
    groups: np.ndarray,
    split: Mapping[str, np.ndarray],
    genes: np.ndarray | None = None,
    config: CrossmodalConfig = CrossmodalConfig(),
    seed: int = 0,
    device: torch.device | str = "auto",
    on_epoch_end: EpochCallback | None = None,
) -> TranslatorFit:
    """Fit the crossmodal surrogate.

    Parameters
    ----------
    x : (n_cells, n_peaks)
        Accessibility, 0 and 1, or anything between.
    y : (n_cells, n_genes)
        Log-normalised expression.
    block : (n_peaks,)
        Chromosome of each peak, 0 to n_blocks - 1.
    groups : (n_cells,)
        Group of each cell; discriminators have a logit for each.
    split
        Positions of the cells of ``"train"``, ``"validation"`` and ``"test"``.
    genes
        Positions of the genes to predict, increasing; None is all.
    config
        Settings.
    seed
        Seed of the initial state, the order of cells and what is drawn.
    device
        Torch device.
    on_epoch_end
        Called after each epoch of each stage with its number and mean losses.

    Returns
    -------
    TranslatorFit
        The surrogate, and the codes of all cells: of RNA, and of ATAC in the space of RNA.

    Notes
    -----
    ``fit["atac_auroc"]`` says how well open entries of the test cells are told from drawn closed ones by the way from
    RNA to ATAC, ``fit["atac_auroc_frequency"]`` how well by the frequency of each peak in the training cells alone.

    Examples
    --------
    >>> import numpy as np, sctrellis as tr
    >>> mdata = tr.datasets.simulate_multiome(100)
    >>> x, y = mdata["atac"].X, mdata["rna"].X
    >>> split = {"train": np.arange(70), "validation": np.arange(70, 85), "test": np.arange(85, 100)}
    >>> cells = {"groups": np.zeros(100, int), "split": split}
    >>> config = tr.models.CrossmodalConfig(max_epochs=2)
    >>> fit = tr.models.fit_crossmodal(x, y, np.arange(1200) // 600, **cells, config=config)
    >>> fit.latent["atac"].shape
    (100, 20)
    """
    device = resolve_device(device)
    genes = np.arange(y.shape[1]) if genes is None else np.asarray(genes)
    cells = _Cells(x, sparse.csr_matrix(y, dtype=np.float32)[:, genes], groups)
    noise = generator("cpu", seed, 0)  # the same start on every device
    shape = {name: getattr(config, name) for name in SIZES}
    network = CrossmodalNetwork(torch.from_numpy(np.asarray(block, np.int64)), len(genes), shape, noise)
    train_cells = np.sort(split["train"])
    stages = (
        ("atac", _AtacStage(network, cells, config)),
        ("rna", _RnaStage(network, cells, config)),
        ("align", _AlignStage(network, cells, config, train_cells, noise)),
    )
    batches = CellBatches(train_cells, config.batch_size, seed, device)
    validation = CellBatches(np.sort(split["validation"]), _EVALUATED, seed, device)
    results = {}
    for name, stage in stages:
        stage.to(device)
        blind = name == "align" and config.pairing == "unpaired"
        plan = Phase(name=name, n_epochs=config.n_epochs(len(train_cells)), cycle=(tuple(stage.param_groups()),))
        results[name] = train(
            stage,
            batches,
            TrainConfig(
                phases=(plan,),
                clip_norm=None if name == "align" else 1.0,
                patience=None if blind else config.patience,
            ),
            validation=validation,
            on_epoch_end=on_epoch_end,
        )
    network.eval()
    weights = {name: value.cpu().numpy() for name, value in network.state_dict().items()}
    facts = {"kind": "crossmodal", "n_peaks": x.shape[1], "likelihood": "gaussian", "pairing": config.pairing, **shape}
    return TranslatorFit(
        surrogate=facts,
        weights={"genes": genes, "block": np.asarray(block, np.int64), **weights},
        history=_history(results),
        fit={
            "epochs": [result.epochs for result in results.values()],
            "best_epoch": [result.best_epoch for result in results.values()],
            "stopped": [result.stopped for result in results.values()],
            "device": device.type,
            **_atac_quality(network, cells, split, seed),
        },
        theta=np.ones(len(genes)),
        latent=_latent(network, cells),
    )


def _history(results: Mapping[str, TrainResult]) -> dict[str, list[float]]:
    """Return the losses of all stages one after the other, NaN for parts that a stage does not have."""
    parts = list(dict.fromkeys(name for result in results.values() for name in result.history))
    history: dict[str, list[float]] = {"phase": []}
    for i, result in enumerate(results.values()):
        history["phase"] += [float(i)] * result.epochs
        for name in parts:
            history.setdefault(name, []).extend(result.history.get(name, [np.nan] * result.epochs))
    return history


@torch.no_grad()
def _latent(network: CrossmodalNetwork, cells: _Cells) -> dict[str, np.ndarray]:
    """Return the codes of all cells in the space of RNA."""
    found: dict[str, list[np.ndarray]] = {"rna": [], "atac": []}
    for start in range(0, cells.x.shape[0], _EVALUATED):
        part = np.arange(start, min(start + _EVALUATED, cells.x.shape[0]))
        code = network.rna.code(cells.rna(part, network.rna.out.weight))
        translated = network.to_rna(network.atac.encode(network.atac.pool(cells.x[part])))
        found["rna"].append(code.cpu().numpy())
        found["atac"].append(translated.cpu().numpy())
    return {name: np.concatenate(codes) for name, codes in found.items()}


@torch.no_grad()
def _atac_quality(
    network: CrossmodalNetwork, cells: _Cells, split: Mapping[str, np.ndarray], seed: int
) -> dict[str, float]:
    """Return how well open and closed entries of test cells are told apart from RNA, and from frequencies alone."""
    like = network.rna.out.weight
    frequency = np.asarray(cells.x[split["train"]].mean(axis=0)).ravel()
    scores, known, states = [], [], []
    for start in range(0, len(split["test"]), _EVALUATED):
        part = split["test"][start : start + _EVALUATED]
        row, peak, is_open = drawn_entries(cells.x[part], generator(like.device, seed, 1, start), like.device)
        code = network.to_atac(network.rna.code(cells.rna(part, like)))
        scores.append(network.atac.logits(network.atac.decode(code), row, peak).cpu().numpy())
        known.append(frequency[peak.cpu().numpy()])
        states.append(is_open.cpu().numpy())
    state = np.concatenate(states)
    return {
        "atac_auroc": _auroc(np.concatenate(scores), state),
        "atac_auroc_frequency": _auroc(np.concatenate(known), state),
    }


def _auroc(scores: np.ndarray, state: np.ndarray) -> float:
    n_open = int(state.sum())
    if n_open in (0, len(state)):
        return float("nan")
    ranks = stats.rankdata(scores)
    return float((ranks[state].sum() - n_open * (n_open + 1) / 2) / (n_open * (len(state) - n_open)))
