"""What is allocated while a block runs: by torch every tensor, by NumPy the bytes at the worst moment."""

import tracemalloc

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Allocations(TorchDispatchMode):
    """Remember how many numbers each tensor that is made holds, and with ``numpy`` the most bytes that NumPy holds."""

    def __init__(self, *, numpy=False):
        super().__init__()
        self.numbers = set()
        self.numpy = numpy  # slow
        self.peak_bytes = 0

    def __enter__(self):
        if self.numpy:
            tracemalloc.start()
        return super().__enter__()

    def __exit__(self, *raised):
        super().__exit__(*raised)
        if self.numpy:
            self.peak_bytes = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for value in made if isinstance(made, tuple | list) else (made,):
            if isinstance(value, torch.Tensor) and value.layout == torch.strided:
                self.numbers.add(value.untyped_storage().size() // value.element_size())
        return made

    def multiples(self, number):
        """Return the sizes that are multiples of a number, such as the product of two prime dimensions."""
        return sorted(size for size in self.numbers if size and size % number == 0)
