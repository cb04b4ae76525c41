"""Describe invalid settings by their place, their value and what they should be, and never show a secret.

A setting is secret if its type is a SecretStr, or if its field has `repr=False`: a URL with a password in it, for
example. Modules declare theirs in the same way.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, SecretBytes, SecretStr, ValidationError
from pydantic.fields import FieldInfo

__all__ = ["describe_violations", "secret_settings", "without_userinfo"]

_SECRET_NAME = re.compile(r"secret|password|token|credential|api_?key|private_?key", re.IGNORECASE)
_PLAIN_ADDRESS = re.compile(r"[\w+.\-]+:/*[^:@?#\s]*")
"""An address without user, password and query, which tells nothing."""
_USERINFO = re.compile(r"(://)[^\s'\"]*@")


def describe_violations(
    error: ValidationError, model: type[BaseModel], origins: Mapping[str, str], prefix: str = ""
) -> list[str]:
    """Return one line for each invalid value of a ValidationError: its place, the value, what it should be.

    Args:
        error: the error.
        model: the model that rejected the values.
        origins: names of the model's fields for people, such as of environment variables.
        prefix: what comes before the name of other fields.
    """
    lines = list[str]()
    for violation in error.errors(include_url=False):
        location = [str(part) for part in violation["loc"]]
        where = origins.get(location[0], f"{prefix}{location[0]}") if location else prefix.rstrip(".")
        where = ".".join([where, *location[1:]])
        text = f"{violation['msg'][0].lower()}{violation['msg'][1:]}"
        if violation["type"] == "extra_forbidden":
            lines.append(f"{where}: unknown setting")
        elif violation["type"] == "missing":
            lines.append(f"{where}: is required")
        elif _may_show(model, location, violation["input"]) and not any(map(_names_a_secret, location)):
            lines.append(without_userinfo(f"{where} = {violation['input']!r}: {text}"))
        else:
            lines.append(f"{where}: {text}")
    return lines


def secret_settings(model: type[BaseModel]) -> Iterator[str]:
    """Yield the dotted names of a model's secret settings; `*` stands for keys and places."""
    for name, field in model.model_fields.items():
        if _is_secret(field):
            yield f"{name}.*" if get_args(field.annotation) and not _is_optional(field.annotation) else name
        for nested in _models(field.annotation):
            star = "" if field.annotation is nested else ".*"
            yield from (f"{name}{star}.{each}" for each in secret_settings(nested))


def _may_show(model: type[BaseModel], location: Sequence[str], value: object) -> bool:
    """Whether an invalid value holds no secret: neither its own setting is one, nor one in it."""
    field: FieldInfo | None = None
    for part in location:
        found = model.model_fields.get(part)
        # Otherwise it is a key of a dict or a place in a list of the field before.
        field = found or field
        if field is None:
            return True
        if _is_secret(field):
            is_address = isinstance(value, str) and _PLAIN_ADDRESS.fullmatch(value) is not None
            return is_address and not _is_secret_text(field)
        model = next(_models(field.annotation), model)
    inner = [model] if field is None else [*_models(field.annotation)]
    return not any(True for each in inner for _ in secret_settings(each))


def _names_a_secret(name: str) -> bool:
    # A module's author may have forgotten to mark it. A file's name is no secret.
    return bool(_SECRET_NAME.search(name)) and not name.endswith("_file")


def _is_secret(field: FieldInfo) -> bool:
    return not field.repr or _is_secret_text(field)


def _is_secret_text(field: FieldInfo) -> bool:
    return any(each in (SecretStr, SecretBytes) for each in _parts(field.annotation))


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    for each in _parts(annotation):
        if isinstance(each, type) and issubclass(each, BaseModel):
            yield each


def _parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    for each in get_args(annotation):
        yield from _parts(each)


def _is_optional(annotation: Any) -> bool:
    return type(None) in get_args(annotation)


def without_userinfo(text: str) -> str:
    """Return a text with the users and passwords of URLs left out: any setting may have an address."""
    return _USERINFO.sub(r"\1…@", text)
