"""The process that shims are forked from, as its parent sees it."""

from naru.launcher.main import spawn

__all__ = ["spawn"]
