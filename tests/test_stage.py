from __future__ import annotations

import signal

import pytest

from gptcli.artifacts.project import Project
from gptcli.errors import ArtifactError, StoppedError
from gptcli.options import Shared
from gptcli.stage import Standing, execute, what_stands


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
