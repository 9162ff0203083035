"""Peak memory of `gptcli corpus` on one large file: 0.5 GB, then 2 GB of it, filters and near-duplicates on.

usage: python tests/bench/corpus_memory.py [DIR]    (default: .bench/memory, made anew; 8 GB of disk)

The text is sentences of real books in a random order, so that no two documents are alike.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from pathlib import Path

from process_tree import measure

DATA = Path(os.environ.get("GPTCLI_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
SIZES = (500_000_000, 2_000_000_000)
LINES = 12  # of a document
FILTERS = 'filters=["gopher_quality", "gopher_repetition", "fineweb"]'


def sentences() -> list[str]:
    """Sentences of real English books."""
    texts = [path.read_text("utf-8", "replace") for path in sorted((DATA / "gutenberg-dev").glob("*.txt"))]
    return [" ".join(part.split()) + "." for text in texts for part in text.split(".") if 20 < len(part) < 400]


def write_documents(path: Path, size: int) -> None:
    """A jsonl file of at least `size` bytes; a larger one begins as a smaller one does."""
    chance, pool, written = random.Random(0), sentences(), 0
    with path.open("w", encoding="utf-8") as file:
        while written < size:
            lines = [" ".join(chance.choices(pool, k=4)) for _ in range(LINES)]
            written += file.write(json.dumps({"text": "\n".join(lines)}) + "\n")


def main(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    (directory / "recipe.toml").write_text("")
    source = directory / "documents.jsonl"
    command = [sys.executable, "-m", "gptcli", "corpus", str(source), "-C", str(directory), "--json", "-q"]
    command += ["--set", FILTERS, "--set", "workers=2", "--set", "keep_units=false"]
    peaks = []
    for size in SIZES:
        write_documents(source, size)
        run = measure(command)
        shutil.rmtree(directory / "corpus")
        peaks.append(run.peak_bytes)
        figures = {
            "bytes": source.stat().st_size,
            "documents": json.loads(run.stdout)["documents"],
            "mb_per_second": round(source.stat().st_size / run.seconds / 1e6, 2),
            "peak_mb": round(run.peak_bytes / 1e6),
        }
        print(json.dumps({"stage": "corpus memory", **figures}), flush=True)
    print(json.dumps({"stage": "corpus memory", "growth": round(peaks[1] / peaks[0], 3)}))
    shutil.rmtree(directory)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else ".bench/memory").resolve())
