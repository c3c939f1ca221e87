"""Devices: what is there is taken, what is not raises, and nothing falls back in silence."""

import pytest
import torch

from sctrellis import settings
from sctrellis.models import resolve_device


def test_auto_is_cuda_where_present(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")
    assert resolve_device() == torch.device("cpu")


def test_auto_follows_the_settings(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(settings, "device", "cpu")
    assert resolve_device("auto") == torch.device("cpu")
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    monkeypatch.setattr(settings, "device", "cuda:1")
    assert resolve_device("auto") == torch.device("cuda:1")


def test_auto_never_takes_mps(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("cpu")
    assert resolve_device("mps") == torch.device("mps")


def test_devices_pass_through():
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("device", ["gpu", "", "cuda:x", None, 1.5, ["cpu"]])
def test_unknown_devices(device):
    with pytest.raises(ValueError, match=r"Expected `device` to be 'auto', 'cpu', 'cuda', 'cuda:0', … or 'mps', found"):
        resolve_device(device)


@pytest.mark.parametrize("device", ["meta", torch.device("meta")])
def test_devices_that_cannot_compute(device):
    with pytest.raises(ValueError, match="Expected `device` to be a CPU, CUDA or MPS device, found .*meta"):
        resolve_device(device)


def test_missing_devices_raise(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for device in ("cuda", "cuda:0", torch.device("cuda")):
        with pytest.raises(ValueError, match="`device='cuda.*'`, but 0 CUDA devices are present. Use `device='auto'`"):
            resolve_device(device)
    with pytest.raises(ValueError, match="`device='mps'`, but this machine has no MPS device"):
        resolve_device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="`device='cuda:2'`, but 2 CUDA devices are present"):
        resolve_device("cuda:2")
