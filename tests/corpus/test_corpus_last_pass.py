"""What the last pass decides: scores, duplicates, weights, splits, paragraphs; and that samples tell the truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gptcli.artifacts.build import cache_path
from gptcli.artifacts.manifest import Manifest
from gptcli.artifacts.project import Project
from gptcli.artifacts.schemas import SPLITS
from gptcli.artifacts.shards import open_shard, shard_paths
from gptcli.corpus import run
from gptcli.corpus.spec import CorpusSpec, inputs
from gptcli.errors import SpecError
from gptcli.job import Job
from gptcli.progress import Silent

WHOLE: dict[str, Any] = {"val_share": 0, "test_share": 0}


def build(project: Project, name: str = "main", **keys: Any) -> Manifest:
    spec = CorpusSpec.model_validate(keys)
    job = Job(project, name, project.place("corpus", name), inputs(spec, project, None), Silent())
    job.place.parent.mkdir(parents=True, exist_ok=True)
    return run.run(spec, job)


def put(project: Project, name: str, texts: list[str], key: str = "text") -> str:
    (project.root / name).write_text("".join(json.dumps({key: text}) + "\n" for text in texts))
    return name


def rows(project: Project, name: str = "main") -> list[tuple[str, str, str]]:
    """Id, split and text of every document."""
    place = project.place("corpus", name)
    return [
        (row["id"], split, row["text"])
        for split in SPLITS
        for path in shard_paths(place, split)
        for row in open_shard(path).read_all().to_pylist()
    ]


def words(number: int, count: int = 40) -> str:
    """A text like no other."""
    letters = "abcdefghij"
    own = letters[number // 10 % 10] + letters[number % 10]
    return " ".join(own + letters[place // 10] + letters[place % 10] for place in range(count))


@pytest.mark.parametrize("keep_scores", [False, True])
def test_two_filters_of_one_name_both_judge(project: Project, keep_scores: bool) -> None:
    put(project, "a.jsonl", ["has foo in it", "has bar in it", "has neither"])
    filters = [{"name": "regex", "drop": "foo"}, {"name": "regex", "drop": "bar"}]
    found = build(project, source="a.jsonl", filters=filters, keep_scores=keep_scores, **WHOLE)
    assert found.stats["left_out"] == {"filter:regex:drop_found": 2}


def test_kept_scores_give_the_same_reasons(project: Project) -> None:
    put(project, "a.jsonl", ["# # # few", "word " * 60, "this and those that have been with them " * 20])
    keys: dict[str, Any] = {"source": "a.jsonl", "filters": [{"name": "gopher_quality", "min_words": 20}], **WHOLE}
    plain, kept = (build(project, f"is-{keep}".lower(), keep_scores=keep, **keys) for keep in (False, True))
    assert plain.stats == kept.stats and len(plain.stats["left_out"]) == 2
    places = [project.place("corpus", name) / "dropped.arrow" for name in ("is-false", "is-true")]
    first, second = ({row["id"]: row for row in open_shard(path).read_all().to_pylist()} for path in places)
    assert {row["value"] for row in first.values()} == {row["value"] for row in second.values()}
    assert {row["reason"] for row in first.values()} == {row["reason"] for row in second.values()}


def test_what_is_left_of_different_texts_may_be_the_same(project: Project) -> None:
    first = [f"{words(number)}\n\nand {words(number + 50)}" for number in range(20)]
    second = [f"{words(number)}\n\nAll rights reserved by us." for number in range(20)]
    put(project, "a.jsonl", [*first, *second])
    manifest = build(project, source="a.jsonl", repeated_paragraphs=60, val_share=0.2, test_share=0.2)
    texts = [text for _, _, text in rows(project)]
    assert texts.count("All rights reserved by us.") == 1 and manifest.stats["left_out"] == {"duplicate": 19}
    assert len({identity for identity, _, _ in rows(project)}) == len(texts) == 21
    samples = json.loads((project.place("corpus", "main") / "samples.json").read_text())
    written = {identity: text for identity, _, text in rows(project)}
    assert all(written[sample["id"]].startswith(sample["text"]) for sample in samples["kept"])


def test_a_document_counts_with_the_highest_weight_of_those_it_stands_for(project: Project) -> None:
    texts = [words(number) for number in range(40)]
    put(project, "a.jsonl", texts)
    put(project, "b.jsonl", [*texts[:20], *(text.rsplit(" ", 1)[0] for text in texts[20:])])
    manifest = build(project, source=[{"path": "a.jsonl", "weight": 0.01}, {"path": "b.jsonl"}], **WHOLE)
    assert manifest.stats["left_out"] == {"duplicate": 20, "near_duplicate": 20}
    assert manifest.stats["documents"] == 40


def test_short_twins_share_a_split(project: Project) -> None:
    pairs = [words(number, 3) for number in range(90)]
    put(project, "a.jsonl", [text + end for text in pairs for end in (".", "!")])
    build(project, source="a.jsonl", val_share=0.3, test_share=0.2)
    split = {text: split for _, split, text in rows(project)}
    assert len(split) == 180 and all(split[text + "."] == split[text + "!"] for text in pairs)


def test_the_same_command_fails_twice(project: Project) -> None:
    put(project, "a.jsonl", ["x"], key="content")
    put(project, "b.jsonl", ["y"])
    for _ in range(2):
        with pytest.raises(SpecError, match=r"no row of a\.jsonl has the text key"):
            build(project, source=["a.jsonl", "b.jsonl"], **WHOLE)


def test_a_text_that_filters_shorten_is_judged_by_its_length(project: Project) -> None:
    long, short = "This line is a sentence that stays here.", "A short one stays."
    put(project, "a.jsonl", [f"{long}\nthis one goes", f"this goes, and it is long enough\n{short}"])
    filters = [{"name": "c4", "min_sentences": 0}]
    manifest = build(project, source="a.jsonl", filters=filters, min_chars=30, **WHOLE)
    assert manifest.stats["left_out"] == {"too_short": 1} and [text for _, _, text in rows(project)] == [long]


def test_a_units_folder_that_holds_other_things(project: Project) -> None:
    put(project, "a.jsonl", ["x"])
    first = build(project, source="a.jsonl", **WHOLE)
    cache: Path = cache_path(project.place("corpus", "main"))
    (cache / "folder").mkdir()
    for path in cache.glob("*.arrow"):
        path.unlink()
    next(cache.glob("*.done")).write_text("{}")
    assert build(project, source="a.jsonl", **WHOLE).content_sha256 == first.content_sha256
    assert not (cache / "folder").exists()
