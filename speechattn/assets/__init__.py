"""Files that ship with the package: phone tables, speaker lists, models."""

from importlib.resources import files

__all__ = ["asset_lines"]


def asset_lines(name: str) -> list[str]:
    """Read the lines of a text file in this folder, without blank lines and comments (#)."""
    lines = (files(__name__) / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]
