from __future__ import annotations

import signal
from typing import Any

import pytest

from gptcli.artifacts.manifest import Inputs
from gptcli.artifacts.project import Project
from gptcli.errors import ArtifactError, StoppedError
from gptcli.options import Shared
from gptcli.spec import Spec
from gptcli.stage import Standing, execute, what_differs, what_stands


def test_a_damaged_manifest_counts_as_nothing_under_force(project: Project) -> None:
    for name, file in (("base", "manifest.json"), ("chat", "spec.json")):
        place = project.place("runs", name)
        place.mkdir(parents=True)
        (place / file).write_text("{")
        with pytest.raises(ArtifactError, match="cannot be read"):
            what_stands(place)
        assert what_stands(place, force=True) == Standing()
    foreign = project.place("corpus", "mine")
    foreign.mkdir(parents=True)
    (foreign / "thesis.txt").touch()
    with pytest.raises(ArtifactError, match="no gptcli artifact"):  # never deleted by --force
        what_stands(foreign, force=True)


def test_a_signal_while_sources_are_hashed(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def hashing(*_: object) -> None:
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("hashing went on")

    monkeypatch.setattr("gptcli.corpus.spec.inputs", hashing)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with pytest.raises(StoppedError):
            execute("corpus", Shared(project=project.root), {"source": ["a.txt"]})
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert project.holder("corpus", "main") is None


class Made(Spec):
    rate: int = 1
    inner: dict[str, int] | None = None
    items: list[Any] = []  # noqa: RUF012


A, B, C = {"name": "a", "least": 5, "note": None}, {"path": "b", "most": 6}, "c"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ({"rate": 2}, {}, ["rate was 2, now 1"]),
        ({"inner": {"x": 1, "y": 2}}, {"inner": {"x": 1, "y": 3}}, ["inner.y was 2, now 3"]),
        ({"inner": {"x": 1}}, {"inner": {"z": 1}}, ["inner.x was 1, now None", "inner.z was None, now 1"]),
        ({"items": [A, B]}, {"items": [{**A, "least": 4}, B]}, ["items.0.least was 5, now 4"]),
        ({"items": [B]}, {"items": [A, {**B, "most": 7}]}, ["items: a was added", "items.1.most was 6, now 7"]),
        ({"items": [A, B, C]}, {"items": [A]}, ["items: b was removed", "items: c was removed"]),
        ({"items": [A, C]}, {"items": [B, C]}, ["items: a was removed", "items: b was added"]),
        ({"items": [A, B]}, {"items": [B, A]}, ["items stood in another order"]),
        (
            {"items": [A, B]},
            {"items": [B, {**A, "least": 4}]},
            ["items stood in another order", "items.1.least was 5, now 4"],
        ),
        ({"items": ["a"]}, {"items": [A]}, ["items.0 was 'a', now {'name': 'a', 'least': 5}"]),
        ({"items": [[1, 2], 3]}, {"items": [[1, 2], 4]}, ["items: 3 was removed", "items: 4 was added"]),
        ({"items": [A, A]}, {"items": [A]}, ["items: a was removed"]),
        ({"items": [A, B]}, {"items": [A, B]}, []),
    ],
)
def test_only_what_changed_is_named(old: dict[str, Any], new: dict[str, Any], told: list[str]) -> None:
    assert what_differs(Standing(spec=Made(**old).content()), Made(**new), Inputs()) == told
