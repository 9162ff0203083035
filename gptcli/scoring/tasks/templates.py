"""Text with {field} of a row in it: how a task says what is asked. No code is evaluated."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Annotated, Any

from pydantic import AfterValidator

from gptcli.records.decoding import without_surrogates

_NOWHERE = object()
_FIELDS_TOLD = 12


class Unposable(Exception):
    """A row that makes no item; the message is the reason under which it is counted.

    `detail`: more of it, for a person: told of the first row where none makes an item.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.detail = detail


def _checked(template: str) -> str:
    parts(template)
    return template


Template = Annotated[str, AfterValidator(_checked)]


@lru_cache(maxsize=1024)
def parts(template: str) -> tuple[tuple[str, str], ...]:
    """A template as (text, field) pairs, the text standing before the field; the last field is "".

    `{name}` is a field: all between the braces, without blanks around it; `{{` and `}}` are braces. Raises ValueError
    for a brace that is neither.
    """
    found: list[tuple[str, str]] = []
    text, at = "", 0
    while at < len(template):
        mark = template[at]
        if mark not in "{}":
            text, at = text + mark, at + 1
        elif template[at + 1 : at + 2] == mark:
            text, at = text + mark, at + 2
        elif mark == "}":
            raise ValueError(f"has a lone }} at character {at + 1}: a brace that is text is doubled")
        else:
            end = template.find("}", at)
            name = template[at + 1 : end].strip()
            if end < 0 or not name or "{" in name:
                raise ValueError(
                    f"has a {{ at character {at + 1} that is no {{field}}: a brace that is text is doubled"
                )
            found.append((text, name))
            text, at = "", end + 1
    return (*found, (text, ""))


def render(template: str, row: dict[str, Any]) -> str:
    """A template with the fields of a row put in (`text_of` each). Raises Unposable as `field` and `text_of` do."""
    return "".join(text + (text_of(field(row, name), name) if name else "") for text, name in parts(template))


def field_or_text(named: str, row: dict[str, Any]) -> str:
    """What a key names that takes either: a template where it has braces, else the field of that name."""
    return render(named, row) if "{" in named or "}" in named else text_of(field(row, named), named)


def field(row: dict[str, Any], way: str) -> Any:
    """The value of a field: of that very name or, where there is none, at the end of a dotted way.

    A way leads through objects by name, through lists by number (from 0), and by name through a list of objects, as a
    list of what each has there. Raises Unposable `no_field:WAY` where it leads nowhere, `null_field:WAY` at a null.
    """
    value = row[way] if way in row else _along(row, way.split("."))
    if value is _NOWHERE:
        names = [str(name) for name in row]
        more = f" and {len(names) - _FIELDS_TOLD} more" if len(names) > _FIELDS_TOLD else ""
        told = f"it has {', '.join(names[:_FIELDS_TOLD])}{more}" if names else "it has none"
        raise Unposable(f"no_field:{way}", f"there is no field {way}; {told}")
    if value is None:
        raise Unposable(f"null_field:{way}", f"the field {way} is null")
    return value


def _along(value: Any, way: list[str]) -> Any:
    for number, name in enumerate(way):
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isdecimal() and len(name) < 10 and int(name) < len(value):
            value = value[int(name)]
        elif isinstance(value, list) and value:
            found = [_along(inner, way[number:]) for inner in value if isinstance(inner, dict)]
            return found if len(found) == len(value) and _NOWHERE not in found else _NOWHERE
        else:
            return _NOWHERE
    return value


def text_of(value: Any, name: str) -> str:
    """A value as text: a string as it stands, all else as JSON has it; a lone surrogate becomes U+FFFD.

    Raises Unposable `unwritable:NAME` for a value that JSON has not.
    """
    try:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise Unposable(
            f"unwritable:{name}", f"the field {name} holds {type(value).__name__}, which is no text"
        ) from error
    return without_surrogates(text)[0]
