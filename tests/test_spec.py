from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import Field

from gptcli.errors import SpecError
from gptcli.spec import Spec, nest, parse_setting, resolve, run_field


class Inner(Spec):
    rank: int = Field(8, ge=1)


class Outer(Spec):
    lr: float = Field(0.1, gt=0)
    kind: Literal["a", "b"] = "a"
    inner: Inner = Inner()
    rows: list[Inner] = Field([])
    batch: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    workers: int = run_field(0, "processes")


def test_later_layers_win_and_every_value_knows_its_origin() -> None:
    layers = [("recipe", {"lr": 1.0, "inner": {"rank": 2}}), ("--set", {"inner": {"rank": 3}})]
    spec, origins = resolve(Outer, layers)
    assert (spec.lr, spec.inner.rank) == (1.0, 3)
    rest = {"batch": "default", "workers": "default"}
    assert origins == {"lr": "recipe", "kind": "default", "inner.rank": "--set", "rows": "default", **rest}


def test_how_it_runs_is_no_content() -> None:
    assert Outer(workers=4).content() == {"lr": 0.1, "kind": "a", "inner": {"rank": 8}, "rows": [], "batch": "auto"}


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
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(values: dict[str, object], match: str) -> None:
    with pytest.raises(SpecError, match=match) as caught:
        resolve(Outer, [("recipe", values)])
    assert "\n" not in caught.value.message and caught.value.hint


@pytest.mark.parametrize(
    ("text", "value"),
    [("a=1", 1), ("a=1e-3", 0.001), ("a=true", True), ("a=[1, 2]", [1, 2]), ("a=hello", "hello"), ("a=x=y", "x=y")],
)
def test_settings_are_toml_or_text(text: str, value: object) -> None:
    assert parse_setting(text) == ("a", value)


def test_a_setting_without_a_value_is_refused() -> None:
    with pytest.raises(SpecError, match="expected KEY=VALUE"):
        parse_setting("lr")


def test_dotted_keys_nest_and_none_is_nothing() -> None:
    assert nest({"a.b": 1, "a.c": 2, "d": None}) == {"a": {"b": 1, "c": 2}}
