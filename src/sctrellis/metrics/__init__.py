"""Numbers in, numbers out: arrays, no AnnData."""

__all__: list[str] = []
