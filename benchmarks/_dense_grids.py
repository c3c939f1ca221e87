"""One step of the search as its formulas read, with everything dense: what the incremental step is measured against."""

import torch
from torch import nn

# Peaks of the study on each chromosome, in the order of its files, and the widths of its model.
CHROMOSOMES = (
    11348, 6169, 6997, 6364, 3554, 4233, 4076, 4178, 4966, 3189, 3807, 10272,
    3469, 1478, 2488, 8367, 6290, 7655, 7203, 6950, 6250, 5547, 2245, 124,
)  # fmt: skip
WIDTH = 16


class Head(nn.Module):
    """Everything above the sums over peaks: a branch per chromosome, an encoder, a gated translator, a decoder."""

    def __init__(self, stream: torch.Generator) -> None:
        super().__init__()

        def draw(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=stream) / shape[-2] ** 0.5

        n_chromosomes = len(CHROMOSOMES)
        self.branch = draw(n_chromosomes, WIDTH, 32)
        self.encode = [draw(n_chromosomes * 32, 20), draw(20, 20)]
        self.gate = [draw(20, 128), draw(128, 9)]
        self.maps = [draw(9, 20, 20) for _ in range(3)]
        self.decode = [draw(20, 320), draw(320, 640), draw(640, 1)]
        self.eval()

    def forward(self, pre: torch.Tensor) -> torch.Tensor:
        """Return outputs (...,) of sums (..., n_chromosomes, WIDTH)."""
        sums = pre.flatten(0, -3)
        hidden = torch.relu(torch.relu(sums).transpose(0, 1) @ self.branch)
        code = hidden.transpose(0, 1).flatten(1) @ self.encode[0] @ self.encode[1]
        share = torch.softmax(torch.relu(code @ self.gate[0]) @ self.gate[1], dim=-1)
        for each in self.maps:
            code = torch.relu(torch.einsum("bg,bi,gij->bj", share, code, each))
        for weight in self.decode[:-1]:
            code = torch.relu(code @ weight)
        return (code @ self.decode[-1])[:, 0].view(pre.shape[:-2])


def chromosome_of() -> torch.Tensor:
    """Return the chromosome of each peak."""
    return torch.arange(len(CHROMOSOMES)).repeat_interleave(torch.tensor(CHROMOSOMES))


class DenseStep:
    """A step of the search with a token per cell and peak: every set is a forward pass over all peaks.

    Parameters
    ----------
    table : (n_peaks, 2, WIDTH)
        Vector of each peak closed and open.
    head
        What comes after the sums.
    """

    def __init__(self, table: torch.Tensor, head: Head) -> None:
        self.table, self.head = table, head

    def sums(self, embedded: torch.Tensor) -> torch.Tensor:
        """Return the sum over the peaks of each chromosome of (n_cells, n_peaks, WIDTH)."""
        return torch.stack([part.sum(dim=1) for part in embedded.split(CHROMOSOMES, dim=1)], dim=1)

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the vectors of tokens (n_cells, n_peaks)."""
        return self.table[torch.arange(len(self.table)), tokens]

    def step(self, tokens: torch.Tensor, index: torch.Tensor, slot: int, n_candidates: int = 32) -> float:
        """Replace one member of the set ``index``, in place; return the loss after it."""
        closed = tokens.clone()
        closed[:, index] = 0
        embedded = self.embed(closed).requires_grad_()
        loss = self.head(self.sums(embedded)).mean()
        (gradient,) = torch.autograd.grad(loss, embedded)
        difference = self.table[None, :, 0] - self.embed(tokens)
        d = (gradient * difference).sum(dim=(0, 2))
        transition = d[None] - d[index][:, None]
        transition[:, index] = torch.inf
        best, chosen = float(loss.detach()), int(index[slot])
        for candidate in transition[slot].topk(n_candidates, largest=False).indices.tolist():
            tried = index.clone()
            tried[slot] = candidate
            closed = tokens.clone()
            closed[:, tried] = 0
            with torch.no_grad():
                value = float(self.head(self.sums(self.embed(closed))).mean())
            if value < best:
                best, chosen = value, candidate
        index[slot] = chosen
        return best
