"""Damaged and monstrous data files: documents or a counted reason, in bounded memory; no traceback, no hang."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptcli.artifacts.manifest import read_manifest
from gptcli.artifacts.shards import open_shard
from gptcli.records.pieces import ReadOptions

PROGRAM = Path(__file__).with_name("mutants.py")
FOUND = importlib.util.spec_from_file_location("mutants", PROGRAM)
assert FOUND is not None and FOUND.loader is not None
mutants = importlib.util.module_from_spec(FOUND)  # a program, and no test
FOUND.loader.exec_module(mutants)

FEW, MANY, BATCH = 400, 10_000, 1000
GIGABYTE = 1 << 30  # bytes of RAM that no file may cost
SLOW = {
    "zip bomb.zip",
    "one line.csv",
    "one line.tsv",
    "one page.html",
    "empty lines.csv",
    "tables.html",
}  # monsters for `make faults`


def child(*words: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, what it told, stderr of a process that reads."""
    environment = {**os.environ, "PYTHONPATH": str(PROGRAM.parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(PROGRAM), *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


def read_mutants(data_dir: Path, folder: Path, begin: int, end: int) -> dict[str, Any]:
    code, told, err = child("mutants", str(data_dir), str(folder), str(begin), str(end))
    now = (folder / "now").read_text()
    assert code == 0, f"mutant {now} ended the process (exit {code}; -14, -27: too slow)\n{err[-2000:]}"
    assert told["failures"] == []
    assert told["rss"] < GIGABYTE, told
    return told


def test_damaged_files_give_documents_or_a_reason(data_dir: Path, tmp_path: Path) -> None:
    told = read_mutants(data_dir, tmp_path, 0, FEW)
    assert told["reasons"][""] > FEW and {"corrupt", "not_text", "empty", "bad_row:not_json"} < set(told["reasons"])


@pytest.mark.faults
@pytest.mark.parametrize("begin", range(FEW, MANY + FEW, BATCH))
def test_many_damaged_files(data_dir: Path, tmp_path: Path, begin: int) -> None:
    read_mutants(data_dir, tmp_path, begin, begin + BATCH)


ENDINGS = ("txt", "md", "jsonl", "json", "csv", "tsv", "html", "warc", "arrow", "zip", "tar", "gz", "bin")
# fmt: off
SCRAPS = st.sampled_from([
    b"\n", b"\r\n", b'"', b",", b"\t", b"{", b"}", b"[", b"]", b'{"text": "a"}\n', b'"text":', b"\xff\xfe", b"\0",
    b"\\u", b"\\ud800", b"<p>", b"<!--", b"WARC/1.0\r\n", b"Content-Length: 5\r\n", b"<|endoftext|>", b"\xe9",
    b"\x1f\x8b", b"PK\3\4", b"PAR1", b"ARROW1", b"1e999", b"\xc2\x85", b"  ", b"\xef\xbb\xbf",
])
# fmt: on
WORDS = st.text(max_size=9).map(lambda text: text.encode("utf-8", "replace"))
OPTIONS = st.builds(
    ReadOptions,
    separator=st.sampled_from(["none", "line", "blank_lines", "<|endoftext|>", "^#", r"\s+"]),
    encoding=st.sampled_from(["auto", "utf-8", "utf-16", "cp1252", "big5"]),
    gutenberg=st.booleans(),
    header=st.booleans(),
    max_chars=st.sampled_from([0, 3, 20_000_000]),
)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(
    content=st.lists(SCRAPS | st.binary(max_size=20) | WORDS, max_size=30),
    ending=st.sampled_from(ENDINGS),
    options=OPTIONS,
    part_bytes=st.sampled_from([1, 7, 40]),
)
def test_any_bytes_give_documents_or_a_reason(
    tmp_path_factory: pytest.TempPathFactory, content: list[bytes], ending: str, options: ReadOptions, part_bytes: int
) -> None:
    path = tmp_path_factory.getbasetemp() / f"any.{ending}"
    path.write_bytes(b"".join(content))
    mutants.check(path, options, part_bytes)


def read_monster(path: Path, separator: str = "none") -> dict[str, Any]:
    code, told, err = child("monster", str(path), separator)
    assert code == 0, f"exit {code} (-14, -27: too slow)\n{err[-2000:]}"
    assert told["failures"] == []
    assert told["rss"] < GIGABYTE, f"{told['rss']:,} bytes of memory"
    reasons: dict[str, Any] = told["reasons"]
    return reasons


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.faults] * (name in SLOW)) for name in mutants.MONSTERS]
)
def test_monsters(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    mutants.MONSTERS[name](path)
    reasons = read_monster(path, "line" if path.suffix == ".txt" or ".txt." in name else "none")
    path.unlink()
    if "bomb" in name:
        assert reasons.keys() & {"bomb", "too_long"} and reasons.keys() <= {"", "bomb", "too_long"}, reasons


@pytest.mark.faults
@pytest.mark.parametrize("ending", mutants.REAL)
def test_a_gigabyte_without_a_newline(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"one.{ending}"
    head = {"jsonl": b'{"text": "', "csv": b'text\n"', "tsv": b"text\n", "txt": b""}[ending]
    with path.open("wb") as file:
        file.write(head)
        for _ in range(1024):
            file.write(b"a" * (1 << 20))
    reasons = read_monster(path, "line")
    path.unlink()
    assert reasons == {"bad_row:too_long" if ending != "txt" else "too_long": 1}


def test_a_corpus_of_damaged_files(data_dir: Path, gptcli: Any, tmp_path: Path) -> None:
    known = mutants.seeds(data_dir)
    (tmp_path / "damaged").mkdir()
    for number in range(200):
        name, content = mutants.mutant(20_000 + number, known)
        (tmp_path / "damaged" / name).write_bytes(content)
    done = gptcli(tmp_path, "corpus", "damaged", "--json", "--set", "dedup=exact")
    assert done.code == 0 and "Traceback" not in done.err, done.err
    place = tmp_path / "corpus/main"
    stats = read_manifest(place).stats
    assert stats["documents_read"] == stats["documents"] + sum(stats["left_out"].values())
    dropped = open_shard(place / "dropped.arrow").read_all()
    assert Counter(dropped["reason"].to_pylist()) == stats["left_out"]
    named = {told["path"] for told in stats["faults"]}
    unreadable = {row["path"] for row in dropped.to_pylist() if row["reason"] in ("corrupt", "truncated", "bomb")}
    assert len(unreadable) > 5 and {path.partition("!")[0] for path in named} >= unreadable
