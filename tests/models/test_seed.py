"""Random streams: explicit, told apart by all of their integers, and without effect on global state."""

import random

import numpy as np
import torch

from sctrellis.models._seed import child_seeds, generator


def draw(*entropy, device="cpu"):
    return tuple(torch.randn(4, generator=generator(device, *entropy)).tolist())


def test_streams_depend_on_every_integer():
    pairs = [(seed, epoch) for seed in (0, 1, 7, 2**32 - 1) for epoch in (0, 1, 2, 100)]
    streams = {draw(*pair) for pair in pairs}
    assert len(streams) == len(pairs)
    assert draw(3, 5) == draw(3, 5)


def test_global_states_are_untouched():
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    draw(0, 1)
    child_seeds(0, 3)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002
    assert before[2] == random.getstate()


def test_child_seeds_do_not_depend_on_how_many_there_are():
    many = child_seeds(5, 100)
    assert child_seeds(5, 3) == many[:3]
    assert len(set(many)) == 100
    assert all(isinstance(seed, int) and 0 <= seed < 2**32 for seed in many)
    assert not set(many) & set(child_seeds(6, 100))
