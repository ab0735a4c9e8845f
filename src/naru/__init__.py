"""naru: a whole Docker in Python. `docs/architecture.md` is the map of these packages."""

__version__ = "0.1.0"
