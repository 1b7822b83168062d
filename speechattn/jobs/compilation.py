"""Compilation of inner loops by Numba."""

from collections.abc import Callable
from typing import Any, TypeVar

import numba

__all__ = ["compiled"]

_F = TypeVar("_F", bound=Callable)


def compiled(*, reorder: bool = False) -> Callable[[_F], _F]:
    """Compile a function on first use, without the interpreter's lock, and keep it in Numba's cache if it has one.

    Args:
        reorder: Whether sums may be computed in another order, which lets vector units share them.
    """
    options: dict[str, Any] = {"nogil": True, "fastmath": {"reassoc", "contract", "nsz"} if reorder else False}

    def compile_it(function: _F) -> _F:
        made: Any
        try:
            made = numba.njit(cache=True, **options)(function)
        except RuntimeError:  # no folder for the cache can be written
            made = numba.njit(**options)(function)
        return made

    return compile_it
