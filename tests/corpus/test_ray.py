"""The same corpus on a Ray cluster of two workers as in this process, byte for byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gptcli.artifacts.project import Project
from gptcli.corpus import plan, run
from gptcli.corpus.spec import CorpusSpec, inputs
from gptcli.errors import SpecError
from gptcli.job import Job
from gptcli.progress import Silent
from gptcli.runtime.cluster import map_on_ray

ray = pytest.importorskip("ray")


def build(project: Project, name: str, **keys: Any) -> Any:
    spec = CorpusSpec.model_validate(keys)
    job = Job(project, name, project.place("corpus", name), inputs(spec, project, None), Silent())
    job.place.parent.mkdir(parents=True, exist_ok=True)
    return run.run(spec, job)


def fails_at_three(number: int) -> int:
    if number == 3:
        raise SpecError("three", "not three")
    return number * number


def test_same_bytes_as_here(project: Project, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "UNIT_BYTES", 100_000)
    monkeypatch.setattr(plan, "PART_BYTES", 200_000)
    texts = next((data_dir / "tinyshakespeare").glob("[!O]*.txt")).read_text().split("\n\n")
    grouped = ["\n\n".join(texts[begin : begin + 12]) for begin in range(0, 1500, 2)]  # they overlap
    (project.root / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in grouped))
    keys: dict[str, Any] = {"source": "a.jsonl", "filters": ["length"], "near": {"threshold": 0.6}}
    here = build(project, "here", **keys)
    there = build(project, "there", executor="ray", workers=2, **keys)
    assert there.content_sha256 == here.content_sha256 and there.stats == here.stats
    assert here.stats["left_out"]["near_duplicate"] > 20
    assert list(map_on_ray(abs, [-1, 2, -3], 2)) == [1, 2, 3]
    with pytest.raises(SpecError, match="three"):
        list(map_on_ray(fails_at_three, range(9), 2))
    ray.shutdown()
