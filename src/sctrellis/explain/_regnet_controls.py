"""Models that know less than the fitted one: fresh weights, or other neighbours."""

import numpy as np
import torch

from sctrellis.models._messages import MessageGraph
from sctrellis.models._regnet import RegNet
from sctrellis.models._seed import generator


def precise(model: RegNet, device: torch.device) -> RegNet:
    """Return the model on a device, in float64 where that device has it."""
    return model.to(device) if device.type == "mps" else model.to(device, torch.float64)


def initialised(model: RegNet, seed: int) -> RegNet:
    """Return a model of the same shape, features and graph with fresh weights."""
    noise_variance, keys = model.noise_variance, model.keys
    fresh = RegNet(
        model.features.cpu(),
        model.regulator.cpu(),
        model.target.cpu(),
        generator("cpu", seed),
        model.config,
        keys=None if keys is None else keys.cpu(),
        noise_variance=None if noise_variance is None else noise_variance.cpu(),
    )
    return fresh.to(model.features.device, model.features.dtype).eval()


def graph_of_edges(model: RegNet, regulator: np.ndarray, target: np.ndarray) -> MessageGraph:
    """Return the graph of some edges, on the model's device."""
    edges = (torch.from_numpy(ends).to(model.features.device) for ends in (regulator, target))
    return model.graph_of(*edges)
