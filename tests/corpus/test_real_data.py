"""All of the real data in one call: what every file must give, told by other readers than ours, and nothing lost."""

from __future__ import annotations

import contextlib
import csv
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from gptcli.artifacts.manifest import Manifest, read_manifest
from gptcli.artifacts.project import Project
from gptcli.artifacts.schemas import SPLITS
from gptcli.artifacts.shards import open_shard, shard_paths
from gptcli.corpus import run
from gptcli.corpus.spec import CorpusSpec, inputs
from gptcli.job import Job
from gptcli.progress import Silent

# How a person would name the folders, each with the column or the separator that its ORIGIN.txt tells of.
SOURCES: list[dict[str, Any]] = [
    {"path": "README.md"},
    {"path": "*/ORIGIN.txt"},
    {"path": "banking77/[!O]*"},
    {"path": "blimp-dev/*.jsonl", "text_key": "sentence_good"},
    {"path": "c4-demo/*.jsonl"},
    {"path": "ckpt-*/[!O]*"},
    {"path": "dolly-hhrlhf-small/*.jsonl", "text_key": "response"},
    {"path": "dpo-en-demo/*.json", "text_key": "chosen.value"},
    {"path": "eval-mc-dev/[acp]*.jsonl", "text_key": "query"},
    {"path": "eval-mc-dev/[ls]*.jsonl", "text_key": "context"},
    {"path": "gguf-vocab-gpt2/[!O]*"},
    {"path": "glaive-toolcall-demo/*.json", "text_key": "tools"},
    {"path": "gpt2-bpe-vocab/[!O]*"},
    {"path": "gpteacher-roleplay/*.json", "text_key": "response"},
    {"path": "gsm8k-train/*.jsonl", "text_key": "answer"},
    {"path": "gutenberg-dev/[!O]*", "gutenberg": True},
    {"path": "html-dev/*/*"},
    {"path": "makemore-names/[!O]*", "separator": "line"},
    {"path": "multilingual-dev/[!O]*"},
    {"path": "parquet-angry-tweets/*.parquet"},
    {"path": "self-instruct-seeds/*.jsonl", "text_key": "instruction"},
    {"path": "sentencepiece-model/[!O]*"},
    {"path": "sms-spam/*.tsv", "header": False, "text_key": "2"},
    {"path": "stories260K-hf/[!O]*"},
    {"path": "tinyshakespeare/[!O]*", "separator": "blank_lines"},
    {"path": "tinystories-sample/[!O]*", "separator": "<|endoftext|>"},
    {"path": "warc-dev/*/*"},
    {"path": "wikitext2-valid/[!O]*", "separator": "line"},
]

# Documents, and records or rows left out, by file: from the ORIGIN.txt beside it and, where that has no figure, from
# the file itself (`told_by_others` reads all of them again with other means).
DOCUMENTS: dict[str, int] = {
    "banking77/train.csv": 10_003,  # 10,004 records with the header
    "banking77/test.csv": 3_080,
    "blimp-dev/anaphor_number_agreement.jsonl": 1_000,
    "blimp-dev/determiner_noun_agreement_1.jsonl": 1_000,
    "c4-demo/c4_demo.jsonl": 300,
    "dolly-hhrlhf-small/dolly_hhrlhf_train_small.jsonl": 1_000,
    "dpo-en-demo/dpo_en_demo.json": 300,
    "eval-mc-dev/arc_easy.jsonl": 2_376,
    "eval-mc-dev/copa.jsonl": 100,
    "eval-mc-dev/lambada_openai_small.jsonl": 8,
    "eval-mc-dev/piqa.jsonl": 1_838,
    "eval-mc-dev/svamp.jsonl": 300,
    "glaive-toolcall-demo/glaive_toolcall_en_demo.json": 300,
    "gpteacher-roleplay/roleplay-simple-deduped-roleplay-instruct.json": 1_923,
    "gsm8k-train/train.jsonl": 7_473,
    "makemore-names/names.txt": 32_033,  # 32,032 newlines; the last name has none
    "parquet-angry-tweets/test-00000-of-00001.parquet": 1_047,
    "parquet-angry-tweets/train-00000-of-00001.parquet": 2_411,
    "self-instruct-seeds/seed_tasks.jsonl": 175,
    "sms-spam/sms.tsv": 5_574,
    "tinyshakespeare/input.txt": 7_222,  # speeches
    "tinystories-sample/tinystories_sample.txt": 5,
    "wikitext2-valid/valid.txt": 2_461,  # of 3,760 lines; the others are a blank each
}

# Web archives: every record by what becomes of it. Documents are responses and conversions with text.
ARCHIVES: dict[str, dict[str, int]] = {
    "cc_net/sample.warc.txt": {"warc:warcinfo": 1, "": 3},
    "dolma/sample-0000.warc.gz": {"warc:warcinfo": 1, "warc:request": 22, "warc:metadata": 3, "": 22},
    "warcio/bad.arc": {"warc:warcinfo": 1, "empty": 2, "warc:no_http": 1},
    "warcio/example-bad-non-chunked.warc.gz": {"warc:warcinfo": 2, "warc:request": 2, "warc:revisit": 1, "": 1},
    "warcio/example-bad.warc.gz.bad": {
        "warc:warcinfo": 1,
        "warc:request": 2,
        "warc:revisit": 1,
        "warc:status": 1,
        "": 1,
    },
    "warcio/example-digest.warc": {"warc:request": 4},
    "warcio/example-iana.org-chunked.warc": {"warc:warcinfo": 1, "warc:request": 1, "": 1},
    "warcio/example-resource.warc.gz": {"warc:warcinfo": 2, "": 1},
    "warcio/example-space-in-url.arc": {"warc:warcinfo": 1, "": 1},
    "warcio/example-trunc.warc": {"warc:warcinfo": 2, "warc:request": 1, "": 1},
    "warcio/example-wget-bad-target-uri.warc.gz": {"warc:warcinfo": 1, "warc:request": 1, "warc:metadata": 3, "": 1},
    "warcio/example-wrong-chunks.warc.gz": {"warc:request": 1, "": 1},
    "warcio/example.arc": {"warc:warcinfo": 1, "": 1},
    "warcio/example.arc.gz": {"warc:warcinfo": 1, "": 1},
    "warcio/example.warc": {"warc:warcinfo": 2, "warc:request": 2, "warc:revisit": 1, "": 1},
    "warcio/example.warc.gz": {"warc:warcinfo": 2, "warc:request": 2, "warc:revisit": 1, "": 1},
    "warcio/post-test.warc.gz": {"not_text": 3, "warc:request": 3},  # their answers are JSON
    "whirlwind/whirlwind.warc": {"warc:warcinfo": 1, "warc:request": 1, "warc:metadata": 1, "": 1},
    "whirlwind/whirlwind.warc.gz": {"warc:warcinfo": 1, "warc:request": 1, "warc:metadata": 1, "": 1},
    "whirlwind/whirlwind.warc.wat": {"warc:warcinfo": 1, "warc:metadata": 1},
    "whirlwind/whirlwind.warc.wat.gz": {"warc:warcinfo": 1, "warc:metadata": 1},
    "whirlwind/whirlwind.warc.wet": {"warc:warcinfo": 1, "": 1},
    "whirlwind/whirlwind.warc.wet.gz": {"warc:warcinfo": 1, "": 1},
}
# Those with lengths that are wrong or that end too early. The other bad ones break rules that reading needs not.
FAULTS = {
    "cc_net/sample.warc.txt": "bad_length",
    "warcio/bad.arc": "bad_length",
    "warcio/example-space-in-url.arc": "truncated",
    "warcio/example-trunc.warc": "bad_length",
}

ALIKE = ("duplicate", "near_duplicate")  # documents that gave way to a like one
Counts = dict[str, int]  # by reason; "": documents


def data_files(data_dir: Path) -> dict[str, Path]:
    return {path.relative_to(data_dir).as_posix(): path for path in sorted(data_dir.rglob("*")) if path.is_file()}


def told_by_others(name: str, path: Path, options: dict[str, Any]) -> Counts:
    """What a file must give, read without anything of gptcli."""
    if name.startswith("warc-dev/") and path.name != "ORIGIN.txt":
        return ARCHIVES[name.removeprefix("warc-dev/")]
    raw = path.read_bytes()
    key, separator = options.get("text_key", "text"), options.get("separator", "none")
    if path.suffix == ".parquet":
        return judged(pyarrow.parquet.read_table(path).to_pylist(), key)
    if b"\0" in raw[:8192]:
        return {"not_text": 1}
    if path.suffix == ".html":
        return {"": 1}
    if path.suffix in (".csv", ".tsv"):
        return judged(list(table_rows(path, options.get("header", True))), key)
    if path.suffix in (".jsonl", ".json"):
        return judged(list(json_rows(raw)), key)
    text = raw.decode("latin-1" if path.name.endswith("-8.txt") else "utf-8-sig").replace("\r\n", "\n")
    pieces = {
        "none": [text],
        "line": text.split("\n"),
        "blank_lines": re.split(r"\n\n+", text),
        "<|endoftext|>": text.split("<|endoftext|>"),
    }[separator]
    # A blank makes a piece; nothing but newlines is none.
    return dict(Counter("" if piece.strip() else "empty" for piece in pieces if piece.strip("\n")))


def table_rows(path: Path, header: bool) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8", newline="") as file:
        if path.suffix == ".tsv":
            rows = [line.rstrip("\r\n").split("\t") for line in file]
        else:
            rows = [row for row in csv.reader(file) if row]
    names = rows.pop(0) if header else [str(number) for number in range(1, 1 + max(map(len, rows)))]
    for row in rows:
        yield dict(zip(names, row, strict=False))


def json_rows(raw: bytes) -> Iterator[Any]:
    whole = None
    with contextlib.suppress(ValueError):
        whole = json.loads(raw)  # a list, or one object over many lines
    if whole is not None:
        yield from whole if isinstance(whole, list) else [whole]
        return
    for line in raw.decode().split("\n"):
        if line.strip():
            yield json.loads(line)


def judged(rows: list[Any], key: str) -> Counts:
    found: Counter[str] = Counter()
    for row in rows:
        if not isinstance(row, dict):
            found["bad_row:not_object"] += 1
            continue
        text: Any = row
        for part in [key] if key in row else key.split("."):
            text = text.get(part)
        if text is None:
            found["bad_row:no_text"] += 1
        elif not isinstance(text, str):
            found["bad_row:text_not_string"] += 1
        else:
            found["" if text.strip() else "empty"] += 1
    return dict(found)


def expected(data_dir: Path, sources: list[dict[str, Any]]) -> dict[str, Counts]:
    """By file; every file of the folder is in one source."""
    files = data_files(data_dir)
    found: dict[str, Counts] = {}
    for source in sources:
        for path in sorted(data_dir.glob(source["path"])):
            name = path.relative_to(data_dir).as_posix()
            if path.is_file():
                assert name not in found, f"{name} stands in two sources"
                found[name] = told_by_others(name, path, source)
    assert found.keys() == files.keys()
    return found


def given(project: Project, name: str, data_dir: Path) -> dict[str, Counts]:
    """What the corpus says of every file: documents (those that are like others among them), and what was left out."""
    place = project.place("corpus", name)
    found: dict[str, Counter[str]] = {}
    for split in SPLITS:
        for path in shard_paths(place, split):
            for row in open_shard(path).read_all().column("path").to_pylist():
                found.setdefault(row, Counter())[""] += 1
    for row in open_shard(place / "dropped.arrow").read_all().select(["path", "reason"]).to_pylist():
        reason = "" if row["reason"] in ALIKE else row["reason"]
        found.setdefault(row["path"], Counter())[reason] += 1
    return {Path(path).relative_to(data_dir).as_posix(): dict(counts) for path, counts in found.items()}


def texts(project: Project, name: str, ending: str) -> list[str]:
    found = []
    for split in SPLITS:
        for path in shard_paths(project.place("corpus", name), split):
            table = open_shard(path).read_all().select(["path", "text"])
            found += [row["text"] for row in table.to_pylist() if row["path"].endswith(ending)]
    return found


def adds_up(manifest: Manifest) -> None:
    for stats in [manifest.stats, *manifest.stats["sources"]]:
        assert stats["documents_read"] == stats["documents"] + sum(stats["left_out"].values())
    for key in ("documents_read", "documents", "bytes", "chars", "invalid_bytes"):
        assert manifest.stats[key] == sum(source[key] for source in manifest.stats["sources"])
    together: Counter[str] = Counter()
    for source in manifest.stats["sources"]:
        together.update(source["left_out"])
    assert together == manifest.stats["left_out"]
    rows = {entry.path: entry.rows or 0 for entry in manifest.files}
    assert rows.pop("dropped.arrow") == sum(manifest.stats["left_out"].values())
    assert sum(count for name, count in rows.items() if "/" not in name) == manifest.stats["documents"]


def faults(manifest: Manifest, data_dir: Path) -> dict[str, str]:
    told = [(Path(found["path"]).relative_to(data_dir), found["fault"]) for found in manifest.stats["faults"]]
    assert len(told) == len(dict(told))
    return {path.relative_to("warc-dev").as_posix(): fault for path, fault in told}


def test_the_table_is_what_other_readers_find(data_dir: Path) -> None:
    found = expected(data_dir, SOURCES)
    assert {name: counts for name, counts in found.items() if name in DOCUMENTS} == {
        name: {"": count, **({"empty": 3_760 - count} if name.startswith("wikitext2") else {})}
        for name, count in DOCUMENTS.items()
    }
    for name, counts in ARCHIVES.items():
        assert records(data_dir / "warc-dev" / name) == (sum(counts.values()), counts.get("warc:request", 0)), name


def records(path: Path) -> tuple[int, int]:
    """Records of a web archive, and requests among them, by their first lines."""
    raw, unpacked = path.read_bytes(), b""
    while raw[:2] == b"\x1f\x8b":
        member = zlib.decompressobj(31)
        unpacked += member.decompress(raw)
        raw = member.unused_data
    unpacked = unpacked or raw
    arc = re.findall(rb"(?m)^(?:filedesc|https?)://\S.*? [\d.]+ \d{14,} \S+ \S+$", unpacked)
    warc = re.findall(rb"(?m)^WARC/\d\.\d\r?$", unpacked)
    return len(warc or arc), len(re.findall(rb"(?m)^WARC-Type: *request\r?$", unpacked))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project that this module's corpora are in."""
    return Project.open(tmp_path_factory.mktemp("real"))


@pytest.fixture
def by_column(shared: Project, data_dir: Path) -> Manifest:
    """Every file by its real column or separator."""
    place = shared.place("corpus", "columns")
    if not place.is_dir():
        place.parent.mkdir(exist_ok=True)
        spec = CorpusSpec.model_validate(
            {"source": [{**source, "path": f"{data_dir}/{source['path']}"} for source in SOURCES], "workers": 1}
        )
        run.run(spec, Job(shared, "columns", place, inputs(spec, shared, None), Silent()))
    return read_manifest(place)


def test_every_file_by_its_column_gives_what_it_holds(by_column: Manifest, shared: Project, data_dir: Path) -> None:
    adds_up(by_column)
    wanted = expected(data_dir, SOURCES)
    found = given(shared, "columns", data_dir)
    assert found == wanted
    read = {
        Path(source["source"]).relative_to(data_dir).as_posix(): source["documents_read"]
        for source in by_column.stats["sources"]
    }
    assert read == {
        source["path"]: sum(
            sum(wanted[path.relative_to(data_dir).as_posix()].values())
            for path in data_dir.glob(source["path"])
            if path.is_file()
        )
        for source in SOURCES
    }
    assert faults(by_column, data_dir) == FAULTS
    assert by_column.stats["invalid_bytes"] == 0


def test_texts_are_decoded_and_cut_as_they_should(by_column: Manifest, shared: Project, data_dir: Path) -> None:
    for name, words in {
        "22367-8.txt": ["unruhigen Träumen", "Mistkäfer", "Füße"],
        "19942-8.txt": ["Cunégonde", "Giroflée"],
        "wagahaiwa_nekodearu.txt": ["吾輩は猫である"],
    }.items():
        [text] = texts(shared, "columns", name)
        assert "\ufffd" not in text and "\r" not in text
        raw = (data_dir / "multilingual-dev" / name).read_bytes()
        assert text == raw.decode("utf-8" if name.startswith("w") else "latin-1").replace("\r\n", "\n")
        assert [word for word in words if word not in text] == []
    books = [text for path in data_dir.glob("gutenberg-dev/*[0-9].txt") for text in texts(shared, "columns", path.name)]
    assert len(books) == 5
    for text in books:
        assert "\r" not in text and "\ufeff" not in text and len(text) > 140_000
        assert not re.search(r"\*\*\* ?(?:START|END) OF", text), "Project Gutenberg's own words are in it"
    assert any("\n" in text for text in texts(shared, "columns", "train.csv")), "newlines in quotes"
    pages = texts(shared, "columns", "html-dev/001/source.html")
    assert len(pages) == 1 and len(pages[0]) < 9_000 and "Get your Frontend JavaScript Code Covered" in pages[0]


def test_the_whole_folder_as_one_source(data_dir: Path, gptcli: Any, tmp_path: Path) -> None:
    """As somebody would who does not know what is in it."""
    project = Project.open(tmp_path)
    done = gptcli(tmp_path, "corpus", str(data_dir), "--json", expect=0)
    manifest = read_manifest(project.place("corpus", "main"))
    adds_up(manifest)
    wanted = {name: told_by_others(name, path, {}) for name, path in data_files(data_dir).items()}
    assert given(project, "main", data_dir) == wanted
    assert done.figures["documents_read"] == sum(sum(counts.values()) for counts in wanted.values())
    assert faults(manifest, data_dir) == FAULTS
    assert all(name in done.err for name in FAULTS), done.err
    without = {Path(told["path"]).relative_to(data_dir).as_posix() for told in manifest.stats["without_text"]}
    assert without == {name for name, counts in wanted.items() if counts.get("bad_row:no_text")}
    columns = {Path(told["path"]).name: told["columns"] for told in manifest.stats["without_text"]}
    assert columns["copa.jsonl"] == ["query", "gold", "choices"]
    assert columns["sms.tsv"][0] == "ham"
    [book] = texts(project, "main", "1342-0.txt")
    raw = (data_dir / "gutenberg-dev" / "1342-0.txt").read_bytes()
    assert raw.startswith(b"\xef\xbb\xbf") and book == raw.decode("utf-8-sig").replace("\r\n", "\n")
