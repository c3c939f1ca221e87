"""Names of slots: from one ``key_added`` to all of a method's slots."""

from dataclasses import dataclass

REGULATORS = "is_regulator"
"""Column of ``.var``: genes that may regulate."""

CELL_SPLIT = "cell_split"
"""Column of ``.obs``: what a cell is for, one of `CELL_FOLDS`."""

CELL_FOLDS = ("train", "validation", "test")


@dataclass(frozen=True)
class Keys:
    """Slots of one result, all named from one base.

    Parameters
    ----------
    base
        ``key_added``, or the method's name.
    """

    base: str

    @classmethod
    def for_method(cls, method: str, key_added: str | None) -> "Keys":
        """Slots of ``method``, or of ``key_added`` where the user gave one."""
        from sctrellis._core import checks

        if key_added is not None:
            checks.slot_name("key_added", key_added)
        return cls(key_added or method)

    @property
    def network(self) -> str:
        """``.varp``: edge scores."""
        return self.base

    @property
    def std(self) -> str:
        """``.varp``: spread of the scores over runs."""
        return f"{self.base}_std"

    @property
    def prob(self) -> str:
        """``.varp``: probability of each scored pair."""
        return f"{self.base}_prob"

    @property
    def latent(self) -> str:
        """``.varm``: latent vector of each gene."""
        return f"X_{self.base}"

    @property
    def latent_map(self) -> str:
        """``.varm``: latent vectors in two dimensions."""
        return f"{self.latent}_umap"

    @property
    def expression_map(self) -> str:
        """``.varm``: expression in two dimensions, as the model reads it."""
        return f"{self.latent}_expression_umap"

    @property
    def gate(self) -> str:
        """``.var``: mean share of the attention's context in a gene's features."""
        return f"{self.base}_gate"

    def of_genes(self, name: str) -> str:
        """``.var`` or ``.varm``: a quantity of each gene that was taken from the fitted model."""
        return f"{self.base}_{name}"

    @property
    def record(self) -> str:
        """``.uns``: the record of the run."""
        return self.base

    @property
    def fold(self) -> str:
        """``.varp``: fold of each pair of the universe."""
        return f"{self.base}_fold"

    @property
    def qval(self) -> str:
        """``.varp``: q-value of each scored pair."""
        return f"{self.base}_qval"

    @property
    def null(self) -> str:
        """``.uns``: the network beside random known edges."""
        return f"{self.base}_null"

    def stage(self, name: str) -> str:
        """``.varp``: the network after one stage of a fit."""
        return f"{self.base}_{name}"
