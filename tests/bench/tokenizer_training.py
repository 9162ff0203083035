"""Time and memory of training a tokenizer, beside sentencepiece's own way and tokenizers' BPE trainer.

    python tests/bench/tokenizer_training.py CORPUS_DIR [--mb N] [--peer-mb N] [--vocab-size N] [--unigram]

CORPUS_DIR is a corpus artifact (corpus/NAME). Ours reads its train shards in two processes, as a stage does; the
peers read the same documents, the first N MB of them, from a text file. sentencepiece takes its input's size in
memory several times over, so the peers get fewer MB unless told otherwise, and ours is run on those too.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def main() -> None:
    """Run each trainer in a process of its own and print ratios, then figures."""
    sys.path.insert(0, str(HERE))
    from process_tree import measure

    told = arguments()
    if told.only:
        print(json.dumps(WAYS[told.only](told)))
        return
    common = [sys.executable, __file__, str(told.corpus), "--vocab-size", str(told.vocab_size)]
    common += ["--unigram"] if told.unigram else []
    runs = {}
    for name, way, size in (
        (f"ours, {told.mb} MB", "ours", told.mb),
        (f"ours, {told.peer_mb} MB", "ours", told.peer_mb),
        (f"sentencepiece, {told.peer_mb} MB", "sentencepiece", told.peer_mb),
        (f"tokenizers, {told.peer_mb} MB", "tokenizers", told.peer_mb),
    ):
        if way == "tokenizers" and told.unigram:
            continue
        run = measure([*common, "--only", way, "--mb", str(size)])
        runs[name] = (run.seconds, run.peak_bytes / 1e9, json.loads(run.stdout))
        print(f"done: {name}", file=sys.stderr)
    ours = runs[f"ours, {told.peer_mb} MB"]
    for name, (seconds, peak, _) in list(runs.items())[2:]:
        print(f"{name}: ours takes 1/{seconds / ours[0]:.1f} of its time and 1/{peak / ours[1]:.1f} of its memory")
    for name, (seconds, peak, found) in runs.items():
        print(f"{name}: {seconds:.1f} s with start-up, {peak:.2f} GB for all processes; {found}")


def arguments() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--mb", type=int, default=1000)
    parser.add_argument("--peer-mb", type=int, default=100)
    parser.add_argument("--vocab-size", type=int, default=32768)
    parser.add_argument("--unigram", action="store_true")
    parser.add_argument("--only", choices=["ours", "sentencepiece", "tokenizers"], help=argparse.SUPPRESS)
    return parser.parse_args()


def train_ours(told: Any) -> dict[str, Any]:
    """Count in two processes, train in a third."""
    from gptcli.artifacts.shards import shard_paths
    from gptcli.tokenize.learning.counting import CountingRules, count_corpus, text_size
    from gptcli.tokenize.learning.learn import train_apart
    from gptcli.tokenize.learning.train import TrainingOptions

    shards = shard_paths(told.corpus, "train")
    # The first shards that hold so much, the last of them whole: a shard is what a worker counts.
    taken, size = [], 0
    while len(taken) < len(shards) and size < told.mb * 1e6:
        taken.append(shards[len(taken)])
        size += text_size(taken[-1])
    with tempfile.TemporaryDirectory() as folder:
        path, began = Path(folder) / "words.arrow", time.monotonic()
        count_corpus(taken, CountingRules(True, True), run_map=_in_two).save(path)
        counted = time.monotonic()
        model_type = "unigram" if told.unigram else "bpe"
        trained = train_apart(path, TrainingOptions(told.vocab_size, model_type), lambda: None)
        ended = time.monotonic()
    return {
        "mb": round(size / 1e6),
        "counting_seconds": round(counted - began, 1),
        "training_seconds": round(ended - counted, 1),
        "distinct_words": trained.distinct_words,
        "left_out_words": trained.left_out_words,
    }


def _in_two(function: Any, items: Any) -> Any:
    from gptcli.runtime.executor import map_ordered

    return map_ordered(function, items, 2)


def documents(told: Any) -> Any:
    """The documents of the same shards, as long as they fit `--mb` rounded up to a shard."""
    from gptcli.artifacts.shards import shard_paths
    from gptcli.tokenize.encoding.shard_encoder import read_texts

    size = 0
    for shard in shard_paths(told.corpus, "train"):
        if size >= told.mb * 1e6:
            return
        for _, texts in read_texts(shard):
            for text in texts:
                value = text.as_py()
                size += len(value.encode())
                yield value


def train_sentencepiece(told: Any) -> dict[str, Any]:
    """Its own settings, but for those that keep text lossless and let it see all lines."""
    import sentencepiece

    lines = (line for text in documents(told) for line in text.splitlines() if line)
    with tempfile.TemporaryDirectory() as folder:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_prefix=f"{folder}/model",
            model_type="unigram" if told.unigram else "bpe",
            vocab_size=told.vocab_size,
            byte_fallback=True,
            split_digits=True,
            allow_whitespace_only_pieces=True,
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            normalization_rule_name="identity",
            max_sentence_length=1 << 30,
            train_extremely_large_corpus=told.unigram,
            num_threads=2,
            minloglevel=2,
        )
    return {}


def train_tokenizers(told: Any) -> dict[str, Any]:
    """Byte-level BPE as GPT-2's."""
    import tokenizers

    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=told.vocab_size, show_progress=False)
    tokenizer.train_from_iterator(documents(told), trainer)
    return {}


WAYS = {"ours": train_ours, "sentencepiece": train_sentencepiece, "tokenizers": train_tokenizers}

if __name__ == "__main__":
    main()
