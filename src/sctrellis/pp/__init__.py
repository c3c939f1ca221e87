"""AnnData and MuData in and out; nothing is trained here."""

__all__: list[str] = []
