"""What Go's JSON decoder and Docker's own types accept beyond the schema, made plain before it is checked.

`null` for a field that cannot hold it means "not given"; a single string stands for a list of one word where
Docker's `strslice` type is used; a key may be written in any case (docker-py says `detachKeys`). Only requests that
fail the strict decoder, or have a key that begins with a small letter, come here.
"""

from __future__ import annotations

import types
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec

# The fields moby declares as strslice.StrSlice.
STRING_SLICES = frozenset({"Cmd", "Entrypoint", "Shell", "CapAdd", "CapDrop"})


def relax(value: Any, kind: Any) -> Any:
    """Return `value` without the nulls and lone strings that `kind` would refuse; everything else untouched."""
    kind = _main(kind)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _relax_struct(value, kind) if isinstance(value, dict) else value
    origin, args = get_origin(kind), get_args(kind)
    if origin is list and isinstance(value, list):
        return [relax(item, args[0]) for item in value if item is not None or _takes_null(args[0])]
    if origin is dict and isinstance(value, dict):
        return {key: _relax_entry(item, args[1]) for key, item in value.items()}
    return value


def _relax_struct(value: dict[str, Any], kind: type[msgspec.Struct]) -> dict[str, Any]:
    kinds, spellings = _fields(kind)
    relaxed: dict[str, Any] = {}
    for written, item in value.items():
        key = written if written in kinds else spellings.get(written.lower(), "")
        if not key or (key != written and key in value) or (item is None and not _takes_null(kinds[key])):
            continue
        if key in STRING_SLICES and isinstance(item, str):
            item = [item]
        relaxed[key] = relax(item, kinds[key])
    return relaxed


@cache
def _fields(kind: type[msgspec.Struct]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the types of a struct's JSON keys, and the keys by their small letters."""
    hints = get_type_hints(kind)
    kinds = {key: hints[name] for name, key in zip(kind.__struct_fields__, kind.__struct_encode_fields__, strict=True)}
    return kinds, {key.lower(): key for key in kinds}


def _relax_entry(item: Any, kind: Any) -> Any:
    """Return a map's entry; the key of a null one counts (`ExposedPorts: {"80/tcp": null}`)."""
    if item is not None or _takes_null(kind):
        return relax(item, kind)
    main = _main(kind)
    return {} if get_origin(main) is dict or (isinstance(main, type) and issubclass(main, msgspec.Struct)) else main()


def _main(kind: Any) -> Any:
    """Return `X` of `X | None`."""
    if get_origin(kind) in (Union, types.UnionType):
        return next(arg for arg in get_args(kind) if arg is not type(None))
    return kind


def _takes_null(kind: Any) -> bool:
    return type(None) in get_args(kind)
