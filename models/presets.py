"""Presets: frozen dataclasses of plain values, changed by the overrides of `params.yaml` and kept as JSON."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")


class WrongConfig(ValueError):
    """A field that is unknown, of another type or out of its range."""


def changed(preset: T, overrides: Mapping[str, Any]) -> T:
    """`preset` with other values for some fields. Raises WrongConfig."""
    names = [field.name for field in fields(preset)]  # type: ignore[arg-type]
    if unknown := sorted(overrides.keys() - set(names)):
        raise WrongConfig(f"{type(preset).__module__} has no field {', '.join(unknown)}; it has {', '.join(names)}")
    return replace(preset, **overrides)  # type: ignore[type-var]


def check_types(config: object) -> None:
    """For `__post_init__`: each value has its field's type; lists become tuples, 1 becomes 1.0. Raises WrongConfig."""
    for name, hint in get_type_hints(type(config)).items():
        object.__setattr__(config, name, _checked(name, getattr(config, name), hint))


def _checked(name: str, value: Any, hint: Any) -> Any:
    if get_origin(hint) is Literal:
        if value in get_args(hint):
            return value
        raise WrongConfig(f"{name} must be one of {', '.join(map(repr, get_args(hint)))}, not {value!r}")
    if get_origin(hint) is tuple and isinstance(value, list | tuple):
        return tuple(_checked(name, item, get_args(hint)[0]) for item in value)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is hint:  # and not isinstance(), which takes True for an int
        return value
    raise WrongConfig(f"{name} must be {hint.__name__ if isinstance(hint, type) else hint}, not {value!r}")
