"""Random streams of a fit: explicit generators, so that no global state is read or written."""

import numpy as np
import torch


def generator(device: torch.device | str, *entropy: int) -> torch.Generator:
    """Return a torch generator whose stream depends on all the integers given, such as seed and epoch."""
    state = np.random.SeedSequence(entropy).generate_state(1, dtype=np.uint64)[0]
    return torch.Generator(device=device).manual_seed(int(state) % 2**63)


def child_seeds(seed: int, n: int) -> list[int]:
    """Return one seed per independent fit; the first ones do not depend on how many there are."""
    return [int(child.generate_state(1)[0]) for child in np.random.SeedSequence(seed).spawn(n)]
