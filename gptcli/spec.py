"""What to do, as data: pydantic models, resolved from layers, every value knowing where it came from."""

from __future__ import annotations

import difflib
import json
import tomllib
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
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

    def may_change(self, key: str, made: dict[str, Any], step: int) -> bool:
        """Whether a run begun with the spec `made`, and stopped after so many steps, goes on with this one's `key`."""
        return False


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

    Raises SpecError when there is no `=`, and for what begins as a list or table of TOML and is none.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise SpecError(f"--set {text}: expected KEY=VALUE", "for example --set lr=0.001")
    key, value = key.strip(), value.strip()
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError as error:
        if not value.startswith(("[", "{")):
            return key, value
        fault = str(error).partition(" (at ")[0]
        example = '["a", "b"]' if value.startswith("[") else "{a = 1}"
        raise SpecError(
            f"--set {text}: {value} is no valid TOML ({fault[:1].lower()}{fault[1:]})",
            f"""for example --set '{key}={example}'; text that begins so takes quotes: --set '{key}="{value[0]}…"'""",
        ) from error


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


@dataclass(frozen=True)
class _Problem:
    """What pydantic found wrong, in a recipe's terms."""

    path: tuple[int | str, ...]  # keys and positions, as a recipe has them
    models: list[type[BaseModel]]  # the tables that may stand there; of an unknown key: those it stands in
    kind: str  # pydantic's name
    message: str
    given: Any
    context: dict[str, Any]

    @property
    def key(self) -> str:
        return ".".join(map(str, self.path))

    @property
    def noun(self) -> str:
        """What an item of a list is called: filters.0 is a filter."""
        names = [part for part in self.path if isinstance(part, str)]
        return names[-1].removesuffix("s") if isinstance(self.path[-1], int) else self.key

    def is_for_another(self, others: list[_Problem]) -> bool:
        """Whether a table was given, and refused by a member of a union that is none, where another member is one."""
        is_table = isinstance(self.given, dict) and self.kind.endswith("_type") and bool(self.models)
        return is_table and any(other.path[: len(self.path)] == self.path for other in others if other is not self)


def _explain(spec_class: type[Spec], error: ValidationError, origins: dict[str, str]) -> tuple[str, str]:
    """One sentence for all that is wrong, and a hint for the last of it that has one."""
    problems = [_problem(spec_class, found) for found in error.errors(include_url=False)]
    sentences: dict[str, str] = {}  # one a key, however many of its types refuse the value
    hint = "gptcli schema prints every key with its range"
    for problem in problems:
        if problem.is_for_another(problems):
            continue
        key = problem.key
        origin = next((label for name, label in origins.items() if f"{key}.".startswith(f"{name}.")), "")
        if isinstance(problem.given, dict):  # where the first of its keys comes from
            origin = origin or next((label for name, label in origins.items() if name.startswith(f"{key}.")), "")
        where = f" ({origin})" if origin else ""
        told = _KINDS.get(problem.kind) if key else None
        if told is not None:
            sentences[key], better = told(problem, where)
        elif not key:  # a rule over several keys, which its message names
            sentences[key], better = problem.message, ""
        else:
            message, better = _refused(problem)
            sentences[key] = (
                f"{sentences[key]}, or {message}"
                if key in sentences
                else f"{key} = {problem.given!r}{where}: {message}"
            )
        hint = better or hint
    return "; ".join(sentences.values()), hint


def _unknown_key(problem: _Problem, where: str) -> tuple[str, str]:
    known = sorted({name for model in problem.models for name in model.model_fields})
    near = difflib.get_close_matches(str(problem.path[-1]), known, 1, 0.5)
    sentence = f"unknown key {problem.key}{where}"
    return (f"{sentence}: did you mean {near[0]}?", "") if near else (sentence, f"known keys: {', '.join(known)}")


def _missing(problem: _Problem, where: str) -> tuple[str, str]:
    if any(isinstance(part, int) for part in problem.path):
        return f"{problem.key} is missing{where}", f"add {problem.path[-1]} = … to that table"
    return f"{problem.key} is missing", f"set it in the recipe or with --set {problem.key}=VALUE"


def _unknown_name(problem: _Problem, where: str) -> tuple[str, str]:
    """Of tables that a key tells apart, one of a kind that isn't there."""
    tag, known = str(problem.context["tag"]), _names(problem)
    near = difflib.get_close_matches(tag, known, 1, 0.5)
    sentence = f"unknown {problem.noun} {tag}{where}" + (f": did you mean {near[0]}?" if near else "")
    return sentence, f"known: {', '.join(known)}"


def _no_name(problem: _Problem, where: str) -> tuple[str, str]:
    discriminator, known = problem.context["discriminator"].strip("'"), _names(problem)
    example = f'{discriminator} = "{known[0]}"' if known else discriminator
    sentence = (
        f"{problem.key} = {_toml(problem.given)}{where}: a {problem.noun} table needs a {discriminator} ({example})"
    )
    return sentence, f"known: {', '.join(known)}"


def _no_named_table(problem: _Problem, where: str) -> tuple[str, str]:
    sentence = f"{problem.key} = {problem.given!r}{where}: should be a {problem.noun}'s name or a table with one"
    return sentence, f"known: {', '.join(_names(problem))}"


_KINDS: dict[str, Callable[[_Problem, str], tuple[str, str]]] = {
    "extra_forbidden": _unknown_key,
    "missing": _missing,
    "union_tag_invalid": _unknown_name,
    "union_tag_not_found": _no_name,
    "model_attributes_type": _no_named_table,
}


def _refused(problem: _Problem) -> tuple[str, str]:
    """What is wrong with a value, as it is told behind the value, and a hint or none."""
    if problem.kind == "model_type":
        return _no_table(problem)
    if problem.kind == "list_type":
        if isinstance(problem.given, dict) and all(name.isdecimal() for name in problem.given):
            return "items of a list cannot be set one by one", f"set the whole list: {problem.key}=[…]"
        return f"should be a list, as {problem.key}=[{_toml(problem.given)}]", ""
    return problem.message, ""


def _no_table(problem: _Problem) -> tuple[str, str]:
    fields = {name: field for model in problem.models for name, field in model.model_fields.items()}
    keys = [name for name, field in fields.items() if not _is_run_field(field) and not _is_name(field)]
    needed = [name for name in keys if fields[name].is_required()] or keys[:1]
    if isinstance(problem.path[-1], int):
        return f"should be a table {{{', '.join(f'{name} = …' for name in needed)}}}", ""
    example = f"for example --set {problem.key}.{needed[0]}={problem.given}" if fields[needed[0]].is_required() else ""
    return f"is a table: set {', '.join(f'{problem.key}.{name}' for name in keys)}", example


def _names(problem: _Problem) -> list[str]:
    """By what the tables of a union are told apart."""
    return [str(field.default) for model in problem.models for field in model.model_fields.values() if _is_name(field)]


def _is_name(field: Any) -> bool:
    """Whether a key has one value only, which tells its table from others."""
    return typing.get_origin(field.annotation) is typing.Literal and typing.get_args(field.annotation) == (
        field.default,
    )


def _toml(value: Any) -> str:
    """A value as a recipe has it."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key} = {_toml(item)}' for key, item in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False, default=str)


def _problem(spec_class: type[BaseModel], found: Any) -> _Problem:
    """A problem with its place in keys and positions as a recipe has them.

    pydantic puts the member of a union that it tried between them, `constrained-int` or a table's name, say.
    """
    path: tuple[int | str, ...] = ()
    models: list[type[BaseModel]] = [spec_class]
    for number, part in enumerate(found["loc"]):
        fields = [model.model_fields[part] for model in models if part in model.model_fields]
        if fields:
            path, models = (*path, part), [inner for field in fields for inner in _models_in(field.annotation)]
        elif isinstance(part, int) or (found["type"] == "extra_forbidden" and number == len(found["loc"]) - 1):
            path = (*path, part)
        else:
            models = [model for model in models if _is_member(model, part)] or models
    message = found["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return _Problem(path, models, found["type"], message, found["input"], found.get("ctx", {}))


def _is_member(model: type[BaseModel], label: str) -> bool:
    """Whether pydantic calls this member of a union so."""
    return model.__name__ == label or any(
        _is_name(field) and field.default == label for field in model.model_fields.values()
    )


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for part in typing.get_args(annotation) for model in _models_in(part)]
