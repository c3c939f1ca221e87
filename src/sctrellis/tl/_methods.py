"""The methods that infer a network: one line each, and the contract tests, the docs and the CLI know it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Method:
    """A network method as the contract tests see it.

    Parameters
    ----------
    name
        Name of the method, its function in :mod:`sctrellis.tl` and its default slot.
    options
        Arguments that make a fit fast enough for a test.
    stochastic
        Whether another seed gives another result.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    stochastic: bool = False

    @property
    def function(self) -> Callable[..., Any]:
        """The public function."""
        from sctrellis import tl

        return getattr(tl, self.name)


METHODS: tuple[Method, ...] = ()
