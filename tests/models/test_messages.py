import numpy as np
import pytest
import torch
from torch.func import jvp, vmap

from sctrellis.models import _messages as messages
from sctrellis.models._messages import MessageGraph

REGULATOR, TARGET = torch.tensor([0, 0, 1, 2, 3]), torch.tensor([1, 2, 2, 0, 2])  # 4 has no edge; 0 and 2 both ways


def graph(direction="regulators", **options):
    return MessageGraph(REGULATOR, TARGET, 5, direction, **options)


def features(d=3):
    return torch.from_numpy(np.random.default_rng(0).normal(size=(5, d)))


def brute_force(h, pairs):
    """Mean of the senders of every receiver; its own row for a gene without."""
    rows = [[h[s] for r, s in pairs if r == i] or [h[i]] for i in range(len(h))]
    return torch.stack([torch.stack(found).mean(0) for found in rows])


def pairs_of(direction):
    edges = list(zip(REGULATOR.tolist(), TARGET.tolist(), strict=True))
    heard = [(t, r) for r, t in edges]
    return {"regulators": [heard], "targets": [edges], "both": [heard, edges], "merged": [heard + edges]}[direction]


@pytest.mark.parametrize("direction", ["regulators", "targets", "both", "merged"])
def test_means_are_those_of_the_loop(direction):
    h = features()
    found = graph("both", merged=True) if direction == "merged" else graph(direction)
    expected = torch.cat([brute_force(h, pairs) for pairs in pairs_of(direction)], dim=1)
    torch.testing.assert_close(found.mean(h), expected, rtol=0, atol=1e-15)


def test_a_gene_without_neighbours_keeps_its_own_row_and_is_counted_as_having_none():
    h = features()
    assert torch.equal(graph().mean(h)[[3, 4]], h[[3, 4]])
    assert graph().count.tolist() == [1, 1, 3, 0, 0]
    assert graph("targets").count.tolist() == [2, 1, 1, 1, 0]
    assert graph("both").count.tolist() == [3, 2, 4, 1, 0]


def test_blocks_of_features_change_nothing(monkeypatch):
    h = features(7)
    whole = graph().mean(h)
    monkeypatch.setattr(messages, "_GATHERED", 10)  # 2 features at once
    assert torch.equal(graph().mean(h), whole)


def test_derivatives_of_means_are_means():
    h, tangents = features(), torch.from_numpy(np.random.default_rng(1).normal(size=(4, 5, 3)))
    found = vmap(lambda t: jvp(graph().mean, (h,), (t,))[1])(tangents)
    torch.testing.assert_close(found, torch.stack([graph().mean(t) for t in tangents]))
    assert torch.autograd.gradcheck(graph().mean, (h.requires_grad_(),))


def test_unordered_pairs_have_one_number():
    one, other = np.array([0, 3, 2]), np.array([3, 0, 1])
    found = messages.unordered(one, other, 4)
    assert found[0] == found[1] != found[2]
    everything = [messages.unordered(np.array([i]), np.array([j]), 4)[0] for i in range(4) for j in range(i, 4)]
    assert len(set(everything)) == 10
