"""`gptcli corpus` beside datatrove on the same documents: Gopher, C4 and FineWeb filters, then MinHash.

usage: python tests/bench/corpus_peers.py [DIR]    (default: .bench/corpus, made anew)

datatrove's environment: `python -m venv .bench/datatrove && .bench/datatrove/bin/pip install 'datatrove[processing]'
spacy orjson`. Both run as processes of their own with two workers, start-up included: ours twice, theirs, ours twice.
The documents are what texts the test data and Python's standard library (with its tests) hold, none twice.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from process_tree import Run, measure

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("GPTCLI_TEST_DATA", HERE.parents[2] / "shared" / "data"))
PEER = Path(os.environ.get("GPTCLI_PEERS", ".bench")) / "datatrove" / "bin" / "python"
BYTES = 40_000_000
FILES = 2  # one for each of the peer's tasks
GROUP_CHARS = 4000  # small texts that stand side by side make one document


def strings(value: Any) -> Iterator[str]:
    """Every text of a row, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from strings(item)


def texts() -> Iterator[str]:
    """Real text, prose first."""
    for path in sorted(DATA.rglob("*")):
        if path.suffix == ".txt" and path.name != "ORIGIN.txt" and path.stat().st_size > 20_000:
            yield from path.read_text("utf-8", "replace").replace("\r\n", "\n").split("\n\n")
        elif path.suffix == ".jsonl":
            for line in path.read_text("utf-8").splitlines():
                yield "\n".join(strings(json.loads(line)))
        elif path.suffix == ".json" and path.stat().st_size > 100_000:
            for row in json.loads(path.read_text("utf-8")):
                yield "\n".join(strings(row))
    for path in sorted(Path(os.__file__).parent.rglob("*.py")):
        if "site-packages" not in path.parts:
            yield from path.read_text("utf-8", "replace").split("\n\n\n")


def documents() -> Iterator[str]:
    """Texts joined to documents of at least `GROUP_CHARS` characters, `BYTES` in all, none of them twice."""
    seen: set[int] = set()
    waiting: list[str] = []
    held = written = 0
    for text in texts():
        if hash(text) in seen or not text.strip():
            continue
        seen.add(hash(text))
        waiting.append(text)
        held += len(text)
        if held >= GROUP_CHARS:
            document = "\n\n".join(waiting)
            yield document
            written += len(document.encode("utf-8", "replace"))
            waiting, held = [], 0
        if written >= BYTES:
            return


def write_documents(directory: Path) -> tuple[int, int]:
    """Documents and bytes of text written, each to the file that holds least."""
    directory.mkdir(parents=True)
    files = [(directory / f"{number}.jsonl").open("w", encoding="utf-8") for number in range(FILES)]
    sizes = [0] * FILES
    count = 0
    for text in documents():
        data = text.encode("utf-8", "replace")
        least = sizes.index(min(sizes))
        files[least].write(json.dumps({"text": data.decode()}) + "\n")
        sizes[least] += len(data)
        count += 1
    for file in files:
        file.close()
    return count, sum(sizes)


def ours(directory: Path) -> Run:
    shutil.rmtree(directory / "corpus", ignore_errors=True)
    command = [sys.executable, "-m", "gptcli", "corpus", "documents", "-C", str(directory), "--json", "-q"]
    filters = 'filters=["gopher_quality", "gopher_repetition", "c4", "fineweb"]'
    return measure([*command, "--set", filters, "--set", "workers=2"])


def theirs(directory: Path) -> Run:
    shutil.rmtree(directory / "peer", ignore_errors=True)
    script = HERE / "corpus_peer_datatrove.py"
    return measure([str(PEER), str(script), str(directory / "documents"), str(directory / "peer")])


def tell(who: str, run: Run, count: int, size: int) -> None:
    answer = json.loads(run.stdout.splitlines()[-1])
    figures = {
        "who": who,
        "seconds": round(run.seconds, 1),
        "documents_per_second": round(count / run.seconds, 1),
        "mb_per_second": round(size / run.seconds / 1e6, 3),
        "peak_mb": round(run.peak_bytes / 1e6),
        "kept": answer["documents"],
    }
    print(json.dumps({"stage": "corpus beside datatrove", **figures}), flush=True)


def main(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    count, size = write_documents(directory / "documents")
    (directory / "recipe.toml").write_text("")
    print(json.dumps({"stage": "corpus beside datatrove", "documents": count, "bytes": size}), flush=True)
    runs = []
    for who in ("gptcli", "gptcli", "datatrove", "gptcli", "gptcli"):
        if who == "datatrove" and not PEER.exists():
            print(json.dumps({"stage": "corpus beside datatrove", "peer": f"{PEER} is not there"}))
            return
        run = (ours if who == "gptcli" else theirs)(directory)
        tell(who, run, count, size)
        runs.append((who, run))
    mine = [run for who, run in runs if who == "gptcli"]
    peer = next(run for who, run in runs if who == "datatrove")
    ratios = [round(peer.seconds / run.seconds, 1) for run in mine]
    memory = [round(run.peak_bytes / peer.peak_bytes, 2) for run in mine]
    print(json.dumps({"stage": "corpus beside datatrove", "times_as_fast": ratios, "memory_share": memory}))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else ".bench/corpus").resolve())
