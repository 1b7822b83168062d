"""Import torchaudio, or say in one line why it cannot be imported.

torch and torchaudio wheels must be of one kind, both for CUDA or both for the CPU; otherwise torchaudio's
compiled part looks for a library that is not there, and what Python then says helps nobody.
"""

from __future__ import annotations

import runpy
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import torch

__all__ = ["import_torchaudio"]


def import_torchaudio() -> ModuleType:
    """The module torchaudio.

    Raises:
        ImportError: When it is not installed or does not fit the installed torch; the message names both.
    """
    try:
        import torchaudio
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise ImportError(
            f"torchaudio cannot be imported beside torch: torch {torch.__version__} and torchaudio "
            f"{_installed_build()} are installed, and they must be of one kind (both CUDA, or both CPU). "
            f"Install both from one index: pip install --force-reinstall torch torchaudio. ({error})"
        ) from error
    return torchaudio


def _installed_build() -> str:
    """The version of torchaudio with its build, such as 2.11.0+cpu, read without importing it."""
    spec = find_spec("torchaudio")
    for folder in (spec and spec.submodule_search_locations) or []:
        version = Path(folder) / "version.py"
        if version.is_file():
            return str(runpy.run_path(str(version)).get("__version__", "of unknown version"))
    return "(none)" if spec is None else "of unknown version"
