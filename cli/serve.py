"""`fullfunnel serve BUNDLE`: the same as `python -m service BUNDLE`."""

from service.__main__ import configure, run

__all__ = ["configure", "run"]
