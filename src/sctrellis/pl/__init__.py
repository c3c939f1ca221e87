"""Draw what is stored."""

__all__: list[str] = []
