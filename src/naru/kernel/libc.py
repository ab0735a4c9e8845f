"""The one door to libc: declare a function or a raw syscall once, with full types, raising OSError on failure.

Declarations are made at import and never changed afterwards: other threads share them.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(name: str, path_index: int | None) -> Callable[[Any, Any, tuple[Any, ...]], Any]:
    def check(result: Any, _function: Any, arguments: tuple[Any, ...]) -> Any:
        if result == -1:
            number = ctypes.get_errno()
            if path_index is not None and isinstance(arguments[path_index], bytes):
                raise OSError(number, f"{name}: {os.strerror(number)}", os.fsdecode(arguments[path_index]))
            raise OSError(number, f"{name}: {os.strerror(number)}")
        return result

    return check


def libc_call(name: str, *argtypes: Any, restype: Any = ctypes.c_int, path: int | None = None) -> Callable[..., int]:
    """Return libc's `name` with its types set; the call raises OSError on -1, naming argument `path` if given."""
    prototype = ctypes.CFUNCTYPE(restype, *argtypes, use_errno=True)
    function = prototype((name, _libc))
    function.errcheck = _checked(name, path)
    return function


def syscall(name: str, number: int, *argtypes: Any, path: int | None = None) -> Callable[..., int]:
    """Return the raw system call `number` as a function of `argtypes`, for calls that libc does not wrap.

    OSError on -1. syscall(2)
    """
    prototype = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_long, *argtypes, use_errno=True)
    function = prototype(("syscall", _libc))
    function.errcheck = _checked(name, None if path is None else path + 1)

    def call(*arguments: Any) -> int:
        return int(function(number, *arguments))

    return call
