from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BeforeValidator, Field

from gptcli.errors import SpecError
from gptcli.spec import Spec, nest, parse_setting, resolve, run_field


class Inner(Spec):
    rank: int = Field(8, ge=1)


class Short(Spec):
    name: Literal["short"] = "short"
    most: int = Field(9, ge=1)


class Plain(Spec):
    name: Literal["plain"] = "plain"
    like: str = "good"


class Judge(Spec):
    seed: int = 1
    like: str = Field(min_length=1)
    weights: str = run_field("", "where they lie")


def by_name(given: Any) -> Any:
    return {"name": given} if isinstance(given, str) else given


Named = Annotated[Short | Plain, Field(discriminator="name"), BeforeValidator(by_name)]


class Outer(Spec):
    lr: float = Field(0.1, gt=0)
    kind: Literal["a", "b"] = "a"
    inner: Inner = Inner()
    rows: list[Inner] = Field([])
    filters: list[Named] = Field([])
    source: list[str | Judge] = Field([])
    judge: Judge | None = None
    batch: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    workers: int = run_field(0, "processes")


def test_later_layers_win_and_every_value_knows_its_origin() -> None:
    layers = [("recipe", {"lr": 1.0, "inner": {"rank": 2}}), ("--set", {"inner": {"rank": 3}})]
    spec, origins = resolve(Outer, layers)
    assert (spec.lr, spec.inner.rank) == (1.0, 3)
    given = {"lr": "recipe", "inner.rank": "--set"}
    assert {key: origin for key, origin in origins.items() if origin != "default"} == given
    assert origins["rows"] == origins["workers"] == "default"


def test_how_it_runs_is_no_content() -> None:
    content = Outer(workers=4, judge=Judge(like="a", weights="b")).content()
    assert content["inner"] == {"rank": 8} and content["judge"] == {"seed": 1, "like": "a"} and "workers" not in content


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"rl": 1.0}, r"unknown key rl \(recipe\): did you mean lr\?"),
        ({"inner": {"rnak": 1}}, r"unknown key inner.rnak \(recipe\): did you mean rank\?"),
        ({"lr": -1}, r"lr = -1 \(recipe\): should be greater than 0"),
        ({"lr": float("nan")}, r"lr = nan \(recipe\)"),
        ({"kind": "c"}, r"kind = 'c' \(recipe\): should be 'a' or 'b'"),
        ({"batch": 0}, r"^batch = 0 \(recipe\): should be greater than or equal to 1, or should be 'auto'$"),
        ({"rows": [{"rnak": 1}]}, r"^unknown key rows.0.rnak \(recipe\): did you mean rank\?$"),
        ({"rows": [{"rank": 0}]}, r"^rows.0.rank = 0 \(recipe\): should be greater than or equal to 1$"),
        ({"rows": [3]}, r"^rows.0 = 3 \(recipe\): should be a table \{rank = …\}$"),
        ({"rows": "a"}, r"^rows = 'a' \(recipe\): should be a list, as rows=\[\"a\"\]$"),
        ({"rows": {"rank": 1}}, r"^rows = \{'rank': 1\} \(recipe\): should be a list, as rows=\[\{rank = 1\}\]$"),
        ({"rows": {"0": {"rank": 1}}}, r"^rows = .* \(recipe\): items of a list cannot be set one by one$"),
        ({"filters": ["shrot"]}, r"^unknown filter shrot \(recipe\): did you mean short\?$"),
        ({"filters": ["x"]}, r"^unknown filter x \(recipe\)$"),
        (
            {"filters": [{"nam": "x"}]},
            r'^filters.0 = \{nam = "x"\} \(recipe\): a filter table needs a name \(name = "short"',
        ),
        ({"filters": [3]}, r"^filters.0 = 3 \(recipe\): should be a filter's name or a table with one$"),
        ({"filters": [{"name": "short", "like": "x"}]}, r"^unknown key filters.0.like \(recipe\)$"),
        ({"filters": [{"name": "short", "most": 0}]}, r"^filters.0.most = 0 \(recipe\): should be greater"),
        ({"source": [{"like": "x", "sed": 1}]}, r"^unknown key source.0.sed \(recipe\): did you mean seed\?$"),
        ({"source": [{"seed": 1}]}, r"^source.0.like is missing \(recipe\)$"),
        ({"source": [3]}, r"^source.0 = 3 \(recipe\): should be a valid string, or should be a table \{like = …\}$"),
        ({"judge": "a.txt"}, r"^judge = 'a.txt' \(recipe\): is a table: set judge.seed, judge.like$"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(values: dict[str, object], match: str) -> None:
    with pytest.raises(SpecError, match=match) as caught:
        resolve(Outer, [("recipe", values)])
    assert "\n" not in caught.value.message and caught.value.hint


@pytest.mark.parametrize(
    ("values", "hint"),
    [
        ({"filters": ["shrot"]}, "known: short, plain"),
        ({"filters": [{}]}, "known: short, plain"),
        ({"filters": [{"name": "short", "like": "x"}]}, "known keys: most, name"),
        ({"source": [{"seed": 1}]}, "add like = … to that table"),
        ({"judge": "a.txt"}, "for example --set judge.like=a.txt"),
    ],
)
def test_a_hint_shows_the_way_out(values: dict[str, object], hint: str) -> None:
    with pytest.raises(SpecError) as caught:
        resolve(Outer, [("recipe", values)])
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("text", "value"),
    [("a=1", 1), ("a=1e-3", 0.001), ("a=true", True), ("a=[1, 2]", [1, 2]), ("a=hello", "hello"), ("a=x=y", "x=y")],
)
def test_settings_are_toml_or_text(text: str, value: object) -> None:
    assert parse_setting(text) == ("a", value)


def test_a_setting_without_a_value_is_refused() -> None:
    with pytest.raises(SpecError, match="expected KEY=VALUE"):
        parse_setting("lr")


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ('a=["b"', '["b" is no valid TOML (unclosed array)', """--set 'a=["a", "b"]'"""),
        ("a=[b]", "[b] is no valid TOML (invalid value)", """--set 'a="[…"'"""),
        ("a.b={c=", "{c= is no valid TOML (invalid value)", "--set 'a.b={a = 1}'"),
    ],
)
def test_lists_and_tables_that_are_none(text: str, message: str, hint: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_setting(text)
    assert caught.value.message == f"--set {text}: {message}" and hint in caught.value.hint


def test_dotted_keys_nest_and_none_is_nothing() -> None:
    assert nest({"a.b": 1, "a.c": 2, "d": None}) == {"a": {"b": 1, "c": 2}}
