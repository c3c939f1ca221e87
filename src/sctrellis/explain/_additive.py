"""The objective of a search over sets of peaks: exact after every change, for the price of the change."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch.nn import functional as F

_CHUNK = 2**19
"""Numbers of pre-activation that are evaluated at once: 2 MB of float32, which stay in the cache."""


@dataclass(frozen=True)
class AdditiveObjective:
    r"""Mean output of a model over cells after a set of peaks is perturbed, for several tasks at once.

    The model adds one vector per peak before anything else, so a perturbation moves a few pre-activations and nothing
    has to be computed from the peaks again. T tasks share their C cells; each has up to M candidates of its own.

    Parameters
    ----------
    effects : (T, M, W)
        First-layer vector of each candidate.
    block : (T, M)
        Which of the B sums the vector is added to, such as the chromosome.
    value : (T, M)
        What a perturbed peak is set to.
    legal : (T, M)
        Whether a candidate may be chosen; False pads tasks with fewer candidates.
    pre : (T, C, B, W)
        Pre-activations of the unperturbed cells.
    head
        The model above the first layer: pre-activations (T, K, C, B, W) to outputs (T, K, C), differentiable.
    sign
        1 to bring the output down, -1 to bring it up.
    inputs
        Inputs of the candidates in the cells.
    share : (T, C)
        Weight of each cell in the mean, which adds up to 1; None weighs all alike.

    Notes
    -----
    With p the value that a peak is set to, x the input and V the vector, removing a set S adds
    :math:`\sum_{j \in S} (p_j - x_{cj}) V_j` to the pre-activations of cell c. The loss is the mean of the signed
    output over the cells. Cost of a set: L W a cell and the head; of a swap: 2 W and the head. Memory: inputs that are
    not 0, and pre-activations; nothing has the size of cells x peaks.
    """

    effects: torch.Tensor
    block: torch.Tensor
    value: torch.Tensor
    legal: torch.Tensor
    pre: torch.Tensor
    head: Callable[[torch.Tensor], torch.Tensor]
    sign: float
    inputs: "Inputs"
    share: torch.Tensor | None = None

    @classmethod
    def build(
        cls,
        x: sparse.spmatrix,
        peaks: np.ndarray,
        *,
        effects: torch.Tensor,
        pre: torch.Tensor,
        head: Callable[[torch.Tensor], torch.Tensor],
        block: torch.Tensor | None = None,
        value: float | torch.Tensor = 0.0,
        sign: float = 1.0,
        legal: np.ndarray | None = None,
    ) -> "AdditiveObjective":
        """Return the objective of tasks on one matrix of inputs.

        Parameters
        ----------
        x : (C, n_peaks)
            Inputs of the cells, sparse.
        peaks : (T, M)
            Candidates of each task, as columns of ``x``; -1 where a task has fewer.
        effects, pre, head, block, sign
            As above; without ``block`` all vectors are added to the only sum.
        value
            What a perturbed peak is set to: one number, or (T, M).
        legal : (T, M)
            Candidates that may be chosen; those that are 0 in all cells never are.
        """
        owner = getattr(head, "__self__", head)
        if getattr(owner, "training", False):
            msg = "The model is in training mode, where outputs depend on the batch. Call `model.eval()` first."
            raise ValueError(msg)
        device, dtype = effects.device, effects.dtype
        block = torch.zeros(peaks.shape, dtype=torch.long, device=device) if block is None else block
        inputs = Inputs.build(x, peaks, block, pre.shape[2], dtype)
        allowed = inputs.counts().reshape(peaks.shape) > 0
        if legal is not None:
            allowed &= torch.as_tensor(legal, device=device)
        return cls(
            effects=effects,
            block=block,
            value=torch.as_tensor(value, device=device, dtype=dtype).expand(peaks.shape),
            legal=allowed,
            pre=pre,
            head=head,
            sign=sign,
            inputs=inputs,
        )

    @property
    def n_tasks(self) -> int:
        """Number of tasks T."""
        return self.effects.shape[0]

    @property
    def n_candidates(self) -> int:
        """Number of candidates M, with padding."""
        return self.effects.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.effects.device

    def restrict(self, columns: torch.Tensor) -> "AdditiveObjective":
        """Return the same objective with the candidates ``columns``, shape (T, m), only."""
        wide = columns[:, :, None].expand(-1, -1, self.effects.shape[2])
        block = self.block.gather(1, columns)
        return AdditiveObjective(
            effects=self.effects.gather(1, wide),
            block=block,
            value=self.value.gather(1, columns),
            legal=self.legal.gather(1, columns),
            pre=self.pre,
            head=self.head,
            sign=self.sign,
            inputs=self.inputs.select(columns, block, self.pre.shape[2]),
            share=self.share,
        )

    # exact evaluation

    def loss(self, pre: torch.Tensor) -> torch.Tensor:
        """Return the loss of pre-activations (T, K, C, B, W): shape (T, K)."""
        outputs = self.head(pre)
        mean = outputs.mean(dim=-1) if self.share is None else (outputs * self.share[:, None]).sum(dim=-1)
        return self.sign * mean

    def outputs(self, index: torch.Tensor) -> torch.Tensor:
        """Return the output in every cell after the sets ``index`` (T, K, L) are perturbed: (T, K, C)."""
        return torch.cat([self.head(self.perturbed(part)) for part in self._split(index)], dim=1)

    def perturbed(self, index: torch.Tensor) -> torch.Tensor:
        """Return the pre-activations after the sets ``index`` (T, K, L) are perturbed: (T, K, C, B, W)."""
        return self.pre[:, None] + self.shift(index)

    def shift(self, index: torch.Tensor) -> torch.Tensor:
        """Return what perturbing the sets ``index`` (T, K, S) adds to the pre-activations: (T, K, C, B, W)."""
        n_tasks, n_sets, size = index.shape
        n_cells, n_blocks, width = self.pre.shape[1:]
        moved = self.pre.new_zeros(n_tasks, n_sets, n_cells, n_blocks * width)
        for part in index.split(max(1, _CHUNK // max(1, n_tasks * n_sets * n_cells)), dim=2) if size else ():
            flat = part.reshape(n_tasks, -1)
            change = self.value.gather(1, flat)[..., None] - self.inputs.columns(flat)
            vectors = self.effects.gather(1, flat[..., None].expand(-1, -1, width))
            if n_blocks > 1:
                placed = vectors.new_zeros(n_tasks, flat.shape[1], n_blocks, width)
                at = self.block.gather(1, flat)[:, :, None, None].expand(-1, -1, 1, width)
                vectors = placed.scatter_(2, at, vectors[:, :, None]).flatten(2)
            change = change.view(*part.shape, n_cells).transpose(2, 3)
            moved += change @ vectors.view(*part.shape, -1)
        return moved.view(n_tasks, n_sets, n_cells, n_blocks, width)

    def weighted(self, weights: torch.Tensor) -> torch.Tensor:
        """Return the pre-activations with every candidate perturbed in part.

        Parameters
        ----------
        weights : (T, R, M)
            Share of the perturbation, 0 to 1; 0 and 1 say which peaks a set has.

        Returns
        -------
        Tensor, shape (T, R, C, B, W)
        """
        n_tasks, n_sets, _ = weights.shape
        n_cells, n_blocks, width = self.pre.shape[1:]
        table = weights.transpose(1, 2)[..., None] * self.effects[:, :, None]
        moved = self.inputs.sum_over_peaks(table.flatten(0, 1).flatten(1))
        moved = moved.view(n_tasks, n_cells, n_blocks, n_sets, width).permute(0, 3, 1, 2, 4)
        return self.pre[:, None] + self._constant(weights)[:, :, None] - moved

    def _constant(self, weights: torch.Tensor) -> torch.Tensor:
        """Return what the values of perturbed peaks add in every cell alike: (T, R, B, W)."""
        n_blocks, width = self.pre.shape[2:]
        moved = (weights * self.value[:, None])[..., None] * self.effects[:, None]
        at = self.block[:, None, :, None].expand_as(moved)
        return moved.new_zeros(*weights.shape[:2], n_blocks, width).scatter_add_(2, at, moved)

    def evaluate(self, index: torch.Tensor) -> torch.Tensor:
        """Return the loss of the sets ``index`` (T, K, L): (T, K)."""
        return torch.cat([self.loss(self.perturbed(part)) for part in self._split(index)], dim=1)

    def add(self, base: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Return the loss after one more peak is perturbed.

        Parameters
        ----------
        base : (T, R, C, B, W)
            Pre-activations to start from.
        index : (T, R, K)
            One candidate each.

        Returns
        -------
        Tensor, shape (T, R, K)
        """
        return self._moved(base, index, 1)

    def drop(self, base: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Return the loss after one peak is given back; as :meth:`add`."""
        return self._moved(base, index, -1)

    def swap(self, index: torch.Tensor, slot: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
        """Return the loss after one member of each set is replaced.

        Parameters
        ----------
        index : (T, R, L)
            The sets.
        slot : (T, R)
            Position of the member that goes.
        candidates : (T, R, K)
            Who comes instead, one at a time.

        Returns
        -------
        Tensor, shape (T, R, K)
        """
        kept = torch.arange(index.shape[2], device=index.device) != slot[..., None]
        rest = index[kept].view(*index.shape[:2], -1)
        return self.add(self.perturbed(rest), candidates)

    def _moved(self, base: torch.Tensor, index: torch.Tensor, direction: int) -> torch.Tensor:
        n_tasks, n_sets, n_moves = index.shape
        flat = index.reshape(n_tasks, -1, 1)
        owner = torch.arange(n_sets, device=index.device).repeat_interleave(n_moves)
        losses = []
        for start, part in self._chunks(flat):
            of = owner[start : start + part.shape[1]]
            moved = self.shift(part).mul_(direction)
            losses.append(self.loss(moved.add_(base[:, of])))
        return torch.cat(losses, dim=1).view(n_tasks, n_sets, n_moves)

    def _chunks(self, index: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        size = max(1, _CHUNK // max(1, self.pre.numel()))
        for start in range(0, index.shape[1], size):
            yield start, index[:, start : start + size]

    def _split(self, index: torch.Tensor) -> Iterator[torch.Tensor]:
        return (part for _, part in self._chunks(index))

    # first order

    def gradient(self, pre: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss (T, R) of pre-activations (T, R, C, B, W) and its gradient in them."""
        with torch.enable_grad():
            leaf = pre.detach().requires_grad_()
            loss = self.loss(leaf)
            (gradient,) = torch.autograd.grad(loss.sum(), leaf)
        return loss.detach(), gradient

    def first_order(self, pre: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        r"""Return the loss and the first-order change of it for every candidate, from one backward pass of the head.

        Parameters
        ----------
        pre : (T, R, C, B, W)
            Pre-activations of the perturbed cells.

        Returns
        -------
        Tensor, shape (T, R)
            The loss.
        Tensor, shape (T, R, M)
            :math:`d_j = \sum_c (p_j - x_{cj}) G_c \cdot V_j` with G the gradient of the loss: what perturbing a peak
            changes; for a member, minus what giving it back changes. All candidates cost one sparse product.
        """
        loss, gradient = self.gradient(pre)
        n_tasks, n_sets = loss.shape
        width = gradient.shape[-1]
        table = gradient.permute(0, 2, 3, 1, 4).flatten(0, 2).flatten(1)
        seen = self.inputs.sum_over_cells(table).view(n_tasks, -1, n_sets, width)
        d = seen.mul_(self.effects[:, :, None]).sum(dim=-1).transpose(1, 2).neg()
        if bool(self.value.any()):
            at = self.block[:, None, :, None].expand(-1, n_sets, -1, width)
            everywhere = gradient.sum(dim=2).gather(2, at).mul_(self.effects[:, None])
            d = d + self.value[:, None] * everywhere.sum(dim=-1)
        return loss, d


@dataclass(frozen=True)
class Inputs:
    """Inputs of pairs of task and candidate in the cells, of which only those that are not 0 are stored.

    Pairs are numbered task by task, sums task by task, cell by cell and block by block. Sums over the peaks of a cell
    and over the cells of a peak are each one pass over what is stored.

    Parameters
    ----------
    n_cells
        Number of cells C.
    start : (T * M + 1,)
        Where the entries of each pair begin.
    cell, x, row
        Cell and input of each entry, pair by pair, and the sum that it is part of.
    by_cell
        The same entries sum by sum: pairs, where each sum begins, inputs.
    """

    n_cells: int
    start: torch.Tensor
    cell: torch.Tensor
    x: torch.Tensor
    row: torch.Tensor
    by_cell: tuple[torch.Tensor, torch.Tensor, torch.Tensor]

    @classmethod
    def build(
        cls, x: sparse.spmatrix, peaks: np.ndarray, block: torch.Tensor, n_blocks: int, dtype: torch.dtype
    ) -> "Inputs":
        """Return the inputs of ``peaks`` (T, M), columns of ``x``; -1 has none."""
        csc = sparse.csc_matrix(x)
        wanted = np.asarray(peaks, dtype=np.int64).ravel()
        counts = np.where(wanted >= 0, np.diff(csc.indptr)[wanted], 0)
        start = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        at = np.repeat(csc.indptr[:-1][wanted] - start[:-1], counts) + np.arange(start[-1])
        cell = torch.as_tensor(csc.indices[at].astype(np.int32, copy=False), device=block.device)
        values = torch.as_tensor(csc.data[at], device=block.device, dtype=dtype)
        return cls._sorted(csc.shape[0], torch.as_tensor(start, device=block.device), cell, values, block, n_blocks)

    @classmethod
    def _sorted(
        cls, n_cells: int, start: torch.Tensor, cell: torch.Tensor, x: torch.Tensor, block: torch.Tensor, n_blocks: int
    ) -> "Inputs":
        n_sums = block.shape[0] * n_cells * n_blocks
        # Half the memory where 32 bits will do; sums want all their indices in one type.
        kind = torch.int32 if max(n_sums, block.numel(), len(cell)) < 2**31 else torch.int64
        pair = torch.arange(block.numel(), dtype=kind, device=block.device).repeat_interleave(start.diff())
        first = torch.arange(block.shape[0], dtype=kind, device=block.device)[:, None] * (n_cells * n_blocks)
        row = (first + block.to(kind)).view(-1).repeat_interleave(start.diff()).add_(cell, alpha=n_blocks)
        order = row.argsort(stable=True)
        ends = torch.bincount(row, minlength=n_sums).cumsum(0)
        by_cell = (pair[order], torch.cat([ends.new_zeros(1), ends]).to(kind), x[order])
        return cls(n_cells, start.to(kind), cell, x, row, by_cell)

    def counts(self) -> torch.Tensor:
        """Return the number of cells in which each pair is not 0: (T * M,)."""
        return self.start.diff()

    def select(self, columns: torch.Tensor, block: torch.Tensor, n_blocks: int) -> "Inputs":
        """Return the inputs of the candidates ``columns`` (T, m), which are added to ``block`` (T, m)."""
        at, owner = self._entries(columns)
        ends = torch.bincount(owner, minlength=columns.numel()).cumsum(0)
        start = torch.cat([ends.new_zeros(1), ends])
        return self._sorted(self.n_cells, start, self.cell[at], self.x[at], block, n_blocks)

    def columns(self, columns: torch.Tensor) -> torch.Tensor:
        """Return the inputs of ``columns`` (T, m) in every cell, dense: (T, m, C)."""
        at, owner = self._entries(columns)
        dense = self.x.new_zeros(columns.numel(), self.n_cells)
        dense[owner, self.cell[at]] = self.x[at]
        return dense.view(*columns.shape, self.n_cells)

    def _entries(self, columns: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the entries of ``columns`` (T, m), and to which of them each belongs."""
        n_candidates = (len(self.start) - 1) // columns.shape[0]
        first = torch.arange(columns.shape[0], device=columns.device)[:, None] * n_candidates
        pair = (first + columns).reshape(-1)
        start = self.start[pair].long()
        counts = self.start[pair + 1] - start
        owner = torch.arange(len(pair), device=pair.device).repeat_interleave(counts)
        before = counts.cumsum(0) - counts
        at = (start - before)[owner] + torch.arange(len(owner), device=pair.device)
        return at, owner

    def sum_over_peaks(self, table: torch.Tensor) -> torch.Tensor:
        """Return the sum of x times ``table`` (T * M, n) over the peaks of each cell and block: (T * C * B, n)."""
        pair, start, x = self.by_cell
        return F.embedding_bag(pair, table, start, mode="sum", per_sample_weights=x, include_last_offset=True)

    def sum_over_cells(self, table: torch.Tensor) -> torch.Tensor:
        """Return the sum of x times ``table`` (T * C * B, n) over the cells of each pair: (T * M, n)."""
        return F.embedding_bag(
            self.row, table, self.start, mode="sum", per_sample_weights=self.x, include_last_offset=True
        )
