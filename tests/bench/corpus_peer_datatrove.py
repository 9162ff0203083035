"""datatrove's side of corpus_peers.py: filters, then MinHash in its four stages, two workers.

usage: PYTHON tests/bench/corpus_peer_datatrove.py DOCUMENTS OUT    (prints how many documents are left)
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
)
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers.jsonl import JsonlWriter
from datatrove.utils.hashing import HashConfig

CONFIG = MinhashConfig(hash_config=HashConfig(precision=64), num_buckets=14, hashes_per_bucket=8)


def run(out: Path, name: str, tasks: int, *pipeline: Any) -> None:
    LocalPipelineExecutor(
        pipeline=list(pipeline), tasks=tasks, workers=2, logging_dir=str(out / "logs" / name), skip_completed=False
    ).run()


def main(documents: str, out: Path) -> None:
    kept, found = str(out / "filtered"), str(out / "minhash")
    filters = [GopherQualityFilter(), GopherRepetitionFilter(), C4QualityFilter(), FineWebQualityFilter()]
    with contextlib.redirect_stdout(sys.stderr):
        run(out, "filters", 2, JsonlReader(documents), *filters, JsonlWriter(kept))
        run(out, "signatures", 2, JsonlReader(kept), MinhashDedupSignature(output_folder=f"{found}/s", config=CONFIG))
        run(
            out,
            "buckets",
            CONFIG.num_buckets,
            MinhashDedupBuckets(input_folder=f"{found}/s", output_folder=f"{found}/b", config=CONFIG),
        )
        run(
            out, "cluster", 1, MinhashDedupCluster(input_folder=f"{found}/b", output_folder=f"{found}/i", config=CONFIG)
        )
        drop = MinhashDedupFilter(input_folder=f"{found}/i")
        run(out, "dedup", 2, JsonlReader(kept), drop, JsonlWriter(f"{found}/o"))
    left = sum(gzip.decompress(path.read_bytes()).count(b"\n") for path in Path(found, "o").glob("*.gz"))
    print(json.dumps({"documents": left}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
