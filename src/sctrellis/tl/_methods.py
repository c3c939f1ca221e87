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
        Name of the method and its default slot.
    options
        Arguments that make a fit fast enough for a test.
    stochastic
        Whether another seed gives another result.
    follows_genes
        Whether permuting the genes only permutes the scores; not where numbers are drawn for positions.
    function_name
        Name of its function in :mod:`sctrellis.tl`, where that is not ``name``.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    stochastic: bool = False
    follows_genes: bool = True
    function_name: str | None = None

    @property
    def function(self) -> Callable[..., Any]:
        """The public function."""
        from sctrellis import tl

        return getattr(tl, self.function_name or self.name)


METHODS: tuple[Method, ...] = (
    Method(name="deepsem", options={"max_epochs": 3, "n_hidden": 4, "n_runs": 2}, stochastic=True, follows_genes=False),
    Method(
        name="infosem",
        options={"embedding": "embedding", "known": "network", "max_epochs": 2, "n_hidden": 4, "keep_stages": True},
        stochastic=True,
        follows_genes=False,
    ),
    Method(name="pearson", function_name="baseline", options={"method": "pearson"}),
    Method(name="spearman", function_name="baseline", options={"method": "spearman"}),
    Method(name="pearson_pc1", function_name="baseline", options={"method": "pearson_pc1"}),
    Method(name="partial", function_name="baseline", options={"method": "partial"}),
    Method(name="ridge", function_name="baseline", options={"method": "ridge"}, stochastic=True),
    Method(name="gbm", function_name="baseline", options={"method": "gbm"}, stochastic=True, follows_genes=False),
    Method(name="random", function_name="baseline", options={"method": "random"}, stochastic=True, follows_genes=False),
    Method(
        name="knockoffs",
        options={"targets": "all", "n_draws": 2},
        stochastic=True,
        follows_genes=False,
    ),
    Method(name="one_hot", function_name="edge_classifier", options={"method": "one_hot"}),
    Method(name="degree", function_name="edge_classifier", options={"method": "degree"}),
    Method(
        name="embedding_lr",
        function_name="edge_classifier",
        options={"method": "embedding", "embedding": "embedding"},
    ),
    Method(
        name="matcomp",
        function_name="edge_classifier",
        options={"method": "matcomp", "n_factors": 2},
        stochastic=True,
        follows_genes=False,
    ),
    Method(
        name="genelink",
        function_name="edge_classifier",
        options={"method": "genelink", "max_epochs": 2},
        stochastic=True,
        follows_genes=False,
    ),
    Method(
        name="scgreat",
        function_name="edge_classifier",
        options={"method": "scgreat", "embedding": "embedding", "max_epochs": 2},
        stochastic=True,
        follows_genes=False,
    ),
    Method(
        name="regnet",
        options={"max_epochs": 2, "hidden": 16, "latent": 16},
        stochastic=True,
        follows_genes=False,
    ),
)
