"""The 8 -> 3 demonstration: which pixels of an 8 have to go for a small network to see a 3."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from sctrellis.explain import AdditiveObjective

SIZE = 6


@dataclass(frozen=True)
class Digits:
    """Images of 8 and 3 with pixels in [0, 1], a fitted network, and the accuracy on test images."""

    train: np.ndarray
    test: np.ndarray
    net: nn.Sequential
    accuracy: float

    def objective(self):
        """Return the objective of making the training 8s a 3: cross entropy towards 3."""
        first, rest = self.net[0], self.net[1:]
        x = torch.from_numpy(self.train)
        return AdditiveObjective.build(
            sparse.csr_matrix(self.train),
            np.arange(64)[None],
            effects=first.weight.T[None],
            pre=first(x)[None, :, None],
            head=lambda pre: -F.log_softmax(rest(pre[..., 0, :]), dim=-1)[..., 0],
        )

    def flipped(self, pixels):
        """Return the share of test 8s that are a 3 without some pixels."""
        masked = torch.from_numpy(self.test).clone()
        masked[:, pixels] = 0
        return float((self.net(masked).argmax(dim=1) == 0).float().mean())


def fitted(seed):
    """Fit a network of 64 hidden units to 64 % of the images of 3 and 8; 16 % are not used, 20 % are for testing."""
    digits = load_digits()
    chosen = np.isin(digits.target, [3, 8])
    x, y = (digits.data[chosen] / 16).astype(np.float32), (digits.target[chosen] == 8).astype(np.int64)
    order = np.random.default_rng(seed).permutation(len(x))
    train, test = order[: int(0.64 * len(x))], order[int(0.8 * len(x)) :]
    stream = torch.Generator().manual_seed(seed)
    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    for layer in (net[0], net[2]):
        bound = layer.in_features**-0.5
        nn.init.uniform_(layer.weight, -bound, bound, generator=stream)
        nn.init.uniform_(layer.bias, -bound, bound, generator=stream)
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    inputs, labels = torch.from_numpy(x), torch.from_numpy(y)
    for _ in range(1_500):
        batch = train[torch.randint(len(train), (64,), generator=stream).numpy()]
        optimiser.zero_grad()
        F.cross_entropy(net(inputs[batch]), labels[batch]).backward()
        optimiser.step()
    net.requires_grad_(requires_grad=False).eval()
    accuracy = float((net(inputs[test]).argmax(dim=1) == labels[test]).float().mean())
    return Digits(x[train][y[train] == 1], x[test][y[test] == 1], net, accuracy)
