import math

import pytest
import torch
from torch.func import jvp
from torch.utils._python_dispatch import TorchDispatchMode

from sctrellis.models import _gated_attention as attention
from sctrellis.models._gated_attention import GatedAttention
from sctrellis.models._seed import generator


def layer(dtype=torch.float64, width=8):
    return GatedAttention(width, generator("cpu", 0)).to(dtype)


def features(n=50, width=8, dtype=torch.float64):
    return torch.randn(n, width, generator=generator("cpu", 1), dtype=torch.float64).to(dtype)


def dense(module, h, keys=None):
    """Context and entropy from the matrix of all weights."""
    kept = h if keys is None else h[keys]
    scores = module.query(h) @ module.key(kept).T / math.sqrt(h.shape[1])
    weights = torch.softmax(scores, dim=1)
    return weights @ module.value(kept), -(weights * torch.log(weights)).sum(1)


def gradients(value, *of):
    return torch.autograd.grad(value, of, retain_graph=True)


@pytest.mark.parametrize("keys", [None, torch.tensor([3, 7, 20])], ids=["all", "regulators"])
@pytest.mark.parametrize("kernel", ["fused", "math"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_context_and_entropy_are_those_of_the_matrix(keys, kernel, dtype, tolerance, monkeypatch):
    monkeypatch.setattr(attention, "CHUNK", 16)  # several chunks, the last one smaller
    module, h = layer(dtype), features(dtype=dtype).requires_grad_()
    weight = torch.randn(50, generator=generator("cpu", 2), dtype=torch.float64).to(dtype)
    context, entropy = dense(module, h, keys)
    for found, expected in (
        (module.context(h, keys, kernel=kernel), context),
        (module.entropy(h, keys), entropy),
    ):
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
        summed = weight if expected.ndim == 1 else weight[:, None]
        of = (h, module.query.weight, module.key.weight)
        for one, other in zip(
            gradients((found * summed).sum(), *of), gradients((expected * summed).sum(), *of), strict=True
        ):
            torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * float(other.abs().max()))
    n_keys = 50 if keys is None else len(keys)
    assert ((entropy >= 0) & (entropy <= math.log(n_keys) + 1e-6)).all()


def test_entropy_of_equal_scores_is_that_of_equal_weights():
    module = layer()
    with torch.no_grad():
        module.key.weight.zero_()
    torch.testing.assert_close(module.entropy(features(30)), torch.full((30,), math.log(30), dtype=torch.float64))


def test_the_gate_mixes_context_and_own_features():
    module, h = layer(), features()
    found = module(h)
    mixed = found.gate * found.context + (1 - found.gate) * h
    torch.testing.assert_close(found.h, module.norm(h + module.out(mixed)))
    with torch.no_grad():
        module.gate.weight.zero_()
        module.gate.bias.fill_(-50)  # shut: what others have does not come in
    closed = module(h)
    torch.testing.assert_close(closed.h, module.norm(h + module.out(h)))


def test_forward_derivatives_are_finite_differences():
    module, h, tangent = layer(), features(), torch.randn(50, 8, generator=generator("cpu", 3), dtype=torch.float64)

    def function(x):
        return module(x, kernel="math").h

    _, found = jvp(function, (h,), (tangent,))
    step = 1e-6
    expected = (function(h + step * tangent) - function(h - step * tangent)) / (2 * step)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


class Largest(TorchDispatchMode):
    """The largest number of elements that any operation returned."""

    n = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        parts = found if isinstance(found, tuple | list) else (found,)
        self.n = max([self.n, *(part.numel() for part in parts if isinstance(part, torch.Tensor))])
        return found


def test_no_step_holds_all_pairs_of_genes(monkeypatch):
    monkeypatch.setattr(attention, "CHUNK", 16)
    module, h = layer(torch.float32), features(400, dtype=torch.float32).requires_grad_()
    with Largest() as seen:
        (module(h).h.square().mean() + module.entropy(h).mean()).backward()
    assert seen.n < 400**2 / 10
    with Largest() as seen:
        dense(module, h)[1].sum().backward()
    assert seen.n >= 400**2  # the matrix would have been noticed
