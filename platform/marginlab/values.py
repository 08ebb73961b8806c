"""Configuration as values: frozen, typed, printable, round-tripping through JSON, with a stable fingerprint.

Everything a study is made of (losses, margin policies, networks, searches, studies) is declared with :func:`value`.
The standard library alone is used, because these values reach processes that have nothing but torch and numpy.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import hashlib
import importlib
import inspect
import json
import math
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")

_SCALARS = {"int": int, "float": float, "str": str, "bool": bool}


class InputError(ValueError):
    """Something the user gave cannot be used. The message is a sentence: the place, what is wrong, what to do."""


def later(*, default: Any) -> Any:
    """A field that was added after studies had been recorded: left out of JSON and fingerprints while it has its default."""
    return dataclasses.field(default=default, metadata={"later": True})


@dataclass_transform(frozen_default=True, field_specifiers=(later,))
def value(cls: type[T]) -> type[T]:
    """Turn a class into a frozen value: a dataclass that refuses unknown fields and wrong scalar types in a sentence.

    Fields annotated ``float`` take an ``int`` and store a float, so that equal values have equal fingerprints.
    A class may define ``check(self)``, called last, which raises :class:`InputError` for values out of range.
    """
    cls = dataclasses.dataclass(frozen=True)(cls)
    init = cls.__init__
    names = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]

    @functools.wraps(init)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        for name in kwargs:
            if name not in names:
                raise InputError(unknown_field(cls.__name__, name, names))
        try:
            init(self, *args, **kwargs)
        except TypeError as e:  # a required field is missing, or given twice
            raise InputError(f"{cls.__name__}: {str(e).replace('__init__() ', '')}.") from None
        for f in dataclasses.fields(self):
            object.__setattr__(self, f.name, _checked(cls.__name__, f.name, _annotation(f.type), getattr(self, f.name)))
        check = getattr(self, "check", None)
        if check is not None:
            check()

    cls.__init__ = __init__  # type: ignore[method-assign]
    if not _shipped(cls):  # now, because the file may be another one later
        with contextlib.suppress(OSError, TypeError):
            cls._type_source = hashlib.sha256(inspect.getsource(cls).encode()).hexdigest()[:16]  # type: ignore[attr-defined]
    return cls


def unknown_field(owner: str, name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"{owner} has no field {name!r}; its fields are {', '.join(names) or 'none'}.{hint}"


def _annotation(kind: Any) -> str:
    """A field's annotation as text, whether or not its module postpones annotations."""
    return str(kind.__name__) if isinstance(kind, type) else str(kind)


def _checked(owner: str, name: str, annotation: str, v: Any) -> Any:
    options = [a.strip() for a in annotation.split("|")]
    if isinstance(v, list):
        v = tuple(v)
    if v is None and "None" in options:
        return v
    scalars = [_SCALARS[o] for o in options if o in _SCALARS]
    if len(scalars) < len([o for o in options if o != "None"]):
        return v  # a nested value or a tuple: its own class has checked it
    if float in scalars and isinstance(v, int) and not isinstance(v, bool) and int not in scalars:
        v = float(v)
    if type(v) not in scalars:
        raise InputError(f"{owner}.{name} must be {annotation}, not {v!r}.")
    if isinstance(v, float) and not math.isfinite(v):
        raise InputError(f"{owner}.{name} must be a finite number, not {v!r}.")
    return v


def type_tag(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def to_json(v: Any) -> Any:
    """The value as plain JSON data; a nested value carries its type as ``{"type": "module:Name", ...}``."""
    if dataclasses.is_dataclass(v) and not isinstance(v, type):
        said = [f for f in dataclasses.fields(v) if not (f.metadata.get("later") and getattr(v, f.name) == f.default)]
        fields = {f.name: to_json(getattr(v, f.name)) for f in said}
        return {"type": type_tag(type(v)), **_source(type(v)), **fields}
    if isinstance(v, dict):
        return {str(k): to_json(x) for k, x in v.items()}
    if isinstance(v, (list, tuple)):
        return [to_json(x) for x in v]
    if v is None or isinstance(v, (bool, int, float, str)):
        return v
    raise InputError(
        f"{v!r} of type {type(v).__name__} cannot be part of a configuration: use numbers, text or values."
    )


def _source(cls: type) -> dict[str, str]:
    """A hash of the source of a class that is not MarginLab's own: what such a class does is part of its fingerprint."""
    if _shipped(cls):
        return {}
    if "_type_source" not in vars(cls):
        raise InputError(f"{cls.__name__} has no source file: define it in a study file or a module, with @value.")
    return {"type_source": vars(cls)["_type_source"]}


def _shipped(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == "marginlab"


def from_json(data: Any) -> Any:
    """The inverse of :func:`to_json`. Lists come back as tuples."""
    if isinstance(data, list):
        return tuple(from_json(x) for x in data)
    if not isinstance(data, dict):
        return data
    fields = {k: from_json(v) for k, v in data.items() if k not in ("type", "type_source")}
    if "type" not in data:
        return fields
    module, _, name = data["type"].partition(":")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        raise InputError(f"The type {data['type']!r} of a recorded configuration cannot be imported.") from None
    if not dataclasses.is_dataclass(cls):
        raise InputError(f"The type {data['type']!r} of a recorded configuration is not a value.")
    return cls(**fields)  # type: ignore[operator]


def canonical(v: Any) -> str:
    return json.dumps(to_json(v), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def fingerprint(v: Any, length: int = 16) -> str:
    """Hexadecimal digest of the value's canonical JSON: the same on every machine and Python version."""
    return hashlib.sha256(canonical(v).encode()).hexdigest()[:length]


def stable_seed(*parts: Any) -> int:
    """A 32-bit seed from any printable parts. Unlike ``hash()`` it does not depend on the process."""
    text = "\0".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")


def at_path(v: Any, path: str) -> Any:
    """The field at a dotted path, such as ``margin.k_delta``."""
    for part in path.split("."):
        v = getattr(_owner(v, part, path), part)
    return v


def with_path(v: T, path: str, new: Any) -> T:
    """A copy of the value with the field at a dotted path replaced (and checked again)."""
    owners: list[Any] = [v]
    parts = path.split(".")
    for depth, part in enumerate(parts):
        _owner(owners[-1], part, path)
        if depth < len(parts) - 1:
            owners.append(getattr(owners[-1], part))
    for owner, part in zip(reversed(owners), reversed(parts), strict=True):
        new = dataclasses.replace(owner, **{part: new})
    return new  # type: ignore[no-any-return]


def _owner(v: Any, part: str, path: str) -> Any:
    names = [f.name for f in dataclasses.fields(v)] if dataclasses.is_dataclass(v) else []
    if part not in names:
        raise InputError(f"The path {path!r} leads nowhere: {unknown_field(type(v).__name__, part, names)}")
    return v
