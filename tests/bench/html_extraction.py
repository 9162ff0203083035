"""Text of HTML pages by both extractors, in turn, on one core: megabytes of HTML a second.

usage: python tests/bench/html_extraction.py
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from gptcli.records.pages import read_page
from gptcli.records.pieces import ReadOptions

DATA = Path(os.environ.get("GPTCLI_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
ROUNDS = 5


def seconds(pages: list[bytes], extractor: str) -> float:
    options = ReadOptions(extractor=extractor)
    began = time.process_time()
    for page in pages:
        read_page(page, options)
    return time.process_time() - began


def main() -> None:
    pages = [path.read_bytes() for path in sorted((DATA / "html-dev").rglob("source.html"))]
    size = sum(map(len, pages))
    best = {"resiliparse": float("inf"), "trafilatura": float("inf")}
    for _ in range(ROUNDS):
        for extractor, before in best.items():
            best[extractor] = min(before, seconds(pages, extractor))
    rates = {extractor: round(size / taken / 1e6, 2) for extractor, taken in best.items()}
    times = round(best["trafilatura"] / best["resiliparse"], 1)
    print(json.dumps({"stage": "html extraction", "pages": len(pages), "mb_per_second": rates, "times_as_fast": times}))


if __name__ == "__main__":
    main()
