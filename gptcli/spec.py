"""What to do, as data: pydantic models, resolved from layers, every value knowing where it came from."""

from __future__ import annotations

import difflib
import tomllib
import types
import typing
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from gptcli.errors import SpecError

SpecType = TypeVar("SpecType", bound="Spec")
Layer = tuple[str, dict[str, Any]]  # where the values come from, and the (nested) values


class Spec(BaseModel):
    """A stage's spec, or a table in one: unknown keys are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def content(self) -> dict[str, Any]:
        """The fields that decide the content, JSON-able; fields made by `run_field` are left out."""
        return {
            name: _content(getattr(self, name))
            for name, field in type(self).model_fields.items()
            if not _is_run_field(field)
        }


def _content(value: Any) -> Any:
    if isinstance(value, Spec):
        return value.content()
    if isinstance(value, list | tuple):
        return [_content(item) for item in value]
    if isinstance(value, dict):
        return {key: _content(item) for key, item in value.items()}
    return value


def _as_list(given: Any) -> Any:
    return [given] if isinstance(given, str) else given


OneOrMore = Annotated[list[str], BeforeValidator(_as_list)]  # a single string stands for a list of one


def run_field(default: Any, description: str, **constraints: Any) -> Any:
    """A field that says how to run (workers, say), not what to make: it stays out of every hash."""
    return Field(default, description=description, json_schema_extra={"run_only": True}, **constraints)


def _is_run_field(field: Any) -> bool:
    return isinstance(field.json_schema_extra, dict) and bool(field.json_schema_extra.get("run_only"))


def parse_setting(text: str) -> tuple[str, Any]:
    """`key.path=value` as typed after --set; the value is read as TOML, or taken as a string where it is none.

    Raises SpecError when there is no `=`.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise SpecError(f"--set {text}: expected KEY=VALUE", "for example --set lr=0.001")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()


def nest(flat: dict[str, Any]) -> dict[str, Any]:
    """{"a.b": 1} as {"a": {"b": 1}}; None values are left out."""
    nested: dict[str, Any] = {}
    for dotted, value in flat.items():
        if value is None:
            continue
        *parents, last = dotted.split(".")
        table = nested
        for parent in parents:
            table = table.setdefault(parent, {})
            if not isinstance(table, dict):
                raise SpecError(f"{dotted}: {parent} is no table", "check the key's path")
        table[last] = value
    return nested


def _flatten(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, dict) and value:
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both_tables = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both_tables else value
    return merged


def resolve(spec_class: type[SpecType], layers: list[Layer]) -> tuple[SpecType, dict[str, str]]:
    """Lay the layers over one another, lowest first, and validate.

    Returns the spec and, for every dotted key, the name of the layer its value came from ("default" for the rest).
    Raises SpecError naming the key, its layer and, for an unknown key, the nearest known one.
    """
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, values in layers:
        merged = _merge(merged, values)
        origins.update(dict.fromkeys(_flatten(values), origin))
    try:
        spec = spec_class.model_validate(merged)
    except ValidationError as error:
        raise SpecError(*_explain(spec_class, error, origins)) from error
    return spec, {key: origins.get(key, "default") for key in _flatten(spec.model_dump())}


def _explain(spec_class: type[Spec], error: ValidationError, origins: dict[str, str]) -> tuple[str, str]:
    """One sentence for all that is wrong, and a hint for the first of it."""
    sentences: dict[str, str] = {}  # one a key, however many of its types refuse the value
    hint = "gptcli schema prints every key with its range"
    for problem in error.errors(include_url=False):
        path = _path(spec_class, problem["loc"])
        key = ".".join(str(part) for part in path)
        origin = next((label for name, label in origins.items() if name == key or key.startswith(f"{name}.")), "")
        where = f" ({origin})" if origin else ""
        if problem["type"] == "extra_forbidden":
            known = sorted({name for model in _models_at(spec_class, path[:-1]) for name in model.model_fields})
            near = difflib.get_close_matches(str(problem["loc"][-1]), known, 1, 0.5)
            sentences[key] = f"unknown key {key}{where}" + (f": did you mean {near[0]}?" if near else "")
            hint = hint if near else f"known keys: {', '.join(known)}"
        elif not key:  # a rule over several keys, which its message names
            sentences[key] = problem["msg"].removeprefix("Value error, ")
        elif problem["type"] == "missing":
            sentences[key] = f"{key} is missing"
            hint = f"set it in the recipe or with --set {key}=VALUE"
        else:
            message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
            begun = sentences.get(key)
            sentences[key] = f"{begun}, or {message}" if begun else f"{key} = {problem['input']!r}{where}: {message}"
    return "; ".join(sentences.values()), hint


def _path(spec_class: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Where a problem is, in keys and positions as a recipe has them.

    pydantic puts the member of a union that it tried between them, `constrained-int` say: what is neither a position
    nor a field of the table it stands in, and isn't the unknown key at the end.
    """
    path: tuple[int | str, ...] = ()
    for number, part in enumerate(loc):
        models = _models_at(spec_class, path)
        is_field = any(part in model.model_fields for model in models)
        if isinstance(part, int) or is_field or (models and number == len(loc) - 1):
            path = (*path, part)
    return path


def _models_at(spec_class: type[BaseModel], path: tuple[int | str, ...]) -> list[type[BaseModel]]:
    """The tables that may stand at `path` below a spec; none where a plain value does."""
    models: list[type[BaseModel]] = [spec_class]
    for part in path:
        if isinstance(part, str):
            fields = [model.model_fields[part] for model in models if part in model.model_fields]
            models = [found for field in fields for found in _models_in(field.annotation)]
    return models


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for part in typing.get_args(annotation) for model in _models_in(part)]
