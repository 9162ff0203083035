"""datatrove's four rule sets on JSON lines of documents, run by the Python of an environment that holds datatrove.

usage: PYTHON tests/bench/filters_peer.py < documents.jsonl > verdicts.jsonl      (rows with "text")
       PYTHON tests/bench/filters_peer.py --time < documents.jsonl                (one object: seconds, documents)

A row that comes back holds the rule that each set drops the document for ("" keeps it), the words that they went by,
the text that C4's rules on lines leave and its sentences.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.utils.text import split_into_sentences, split_into_words

FILTERS = {
    "gopher_repetition": GopherRepetitionFilter(),
    "gopher_quality": GopherQualityFilter(),
    "c4": C4QualityFilter(),
    "fineweb": FineWebQualityFilter(),
}
LINES = C4QualityFilter(min_num_sentences=-1)


def dropped_for(name: str, text: str) -> str:
    answer = FILTERS[name].filter(Document(text=text, id=""))
    if isinstance(answer, tuple):
        return "" if answer[0] else str(answer[1])
    return "" if answer else "dropped"


def judged(text: str) -> dict[str, Any]:
    left = Document(text=text, id="")
    LINES.filter(left)
    return {
        "verdicts": {name: dropped_for(name, text) for name in FILTERS},
        "words": split_into_words(text),
        "text": left.text,
        "sentences": [one for line in left.text.split("\n") for one in split_into_sentences(line)],
    }


def main() -> None:
    texts = [json.loads(line)["text"] for line in sys.stdin]
    if "--time" in sys.argv[1:]:
        FILTERS["gopher_quality"].filter(Document(text=texts[0], id=""))  # loads the tokenizer
        started = time.perf_counter()
        for text in texts:
            for name in FILTERS:
                dropped_for(name, text)
        print(json.dumps({"seconds": time.perf_counter() - started, "documents": len(texts)}))
        return
    for text in texts:
        print(json.dumps(judged(text)))


if __name__ == "__main__":
    main()
