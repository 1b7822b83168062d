"""Tables and lists that come with the package."""

from __future__ import annotations

from importlib.resources import files

__all__ = ["asset_lines"]


def asset_lines(name: str) -> list[str]:
    """The lines of a file of this folder, without comments, which begin with #, and without blank ones."""
    lines = (files(__name__) / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]
