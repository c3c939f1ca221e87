"""A small network applied to every entry of a cells x genes matrix, shared by all genes."""

from collections.abc import Sequence

import torch
from torch import nn


class EntrywiseMLP(nn.Module):
    """Fully connected layers with tanh between them, on vectors of a few features.

    Parameters
    ----------
    sizes
        Width of each layer, input and output included.
    generator
        Random stream of the initial weights: Xavier-normal, biases 0.
    zero_last
        Start the last layer at 0, so that the network starts as the constant 0.
    """

    def __init__(self, sizes: Sequence[int], generator: torch.Generator, *, zero_last: bool = False) -> None:
        super().__init__()
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for i, (n_in, n_out) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
            weight = torch.zeros(n_in, n_out, device=generator.device)
            if not (zero_last and i == len(sizes) - 2):
                nn.init.xavier_normal_(weight, generator=generator)
            self.weights.append(nn.Parameter(weight))
            self.biases.append(nn.Parameter(torch.zeros(n_out, device=generator.device)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``x``, shape (..., sizes[0]), to shape (..., sizes[-1])."""
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = x @ weight + bias
            if i < last:
                x = torch.tanh(x)
        return x
