"""The part of a tokenize run that makes a tokenizer of the train split: count, train, write; each step outlives a kill.

sentencepiece's trainers can't be interrupted, so all but small ones run in a process of their own, which ends with
this one and is ended by a stop; its memory is given back whole, too.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gptcli.errors import ResourceError
from gptcli.job import Job
from gptcli.runtime.executor import begin_worker
from gptcli.tokenize.hf_files import write_tokenizer
from gptcli.tokenize.learning.counting import CountingRules, RunMap, WordCounts, count_corpus
from gptcli.tokenize.learning.figures import FOLDER, write_training_figures
from gptcli.tokenize.learning.train import Trained, TrainingOptions, train
from gptcli.tokenize.spec import TokenizeSpec
from gptcli.tokenize.units import is_sealed, seal

COUNTED, WORDS = f"{FOLDER}/words", f"{FOLDER}/words.arrow"  # in the units
SMALL = 2 << 20  # bytes of distinct words: learnt from within a second or two, as long as a process takes to start

_LOOK_EVERY = 0.2  # seconds between two looks at whether to stop


def learn_tokenizer(
    spec: TokenizeSpec, job: Job, units: Path, directory: Path, shards: Sequence[Path], run_map: RunMap
) -> None:
    """Train on corpus shards and write the tokenizer's files into `directory`; what is done outlives the process in
    `units`. run_map: how the shards are shared out to be counted.

    Raises SpecError when the text can't give vocab_size, StoppedError, ArtifactError for a broken shard.
    """
    options, path = training_options(spec), units / WORDS
    began = time.monotonic()
    if not is_sealed(units, COUNTED):
        _count(spec, options, job, shards, path, run_map)
        seal(units, COUNTED, [WORDS])
    counted = time.monotonic()
    words = WordCounts.load(path)
    job.progress.say(f"training {spec.vocab_size:,} pieces on {len(words):,} distinct words")
    trained = train_apart(path, options, job.stop.check)
    if trained.left_out_distinct_words:
        job.progress.say(
            f"the rarest {trained.left_out_distinct_words:,} distinct words, {trained.left_out_words:,} of "
            f"{trained.words:,} counted, are left out of training (max_words)"
        )
    write_tokenizer(directory, trained.model)
    seconds = {"counting_seconds": counted - began, "training_seconds": time.monotonic() - counted}
    records = {name: round(value, 3) for name, value in seconds.items()}
    write_training_figures(units, trained.figures(), records)


def training_options(spec: TokenizeSpec) -> TrainingOptions:
    """The spec's keys of training."""
    return TrainingOptions(
        vocab_size=spec.vocab_size,
        model_type=spec.model_type,
        split_digits=spec.split_digits,
        split_by_script=spec.split_by_script,
        max_piece_chars=spec.max_piece_chars,
        character_coverage=spec.character_coverage,
        user_tokens=tuple(spec.user_tokens),
        max_words=spec.max_words,
    )


def _count(
    spec: TokenizeSpec, options: TrainingOptions, job: Job, shards: Sequence[Path], path: Path, run_map: RunMap
) -> None:
    rules = CountingRules(options.split_by_script, options.split_digits, options.user_tokens)
    with job.progress.bar("counting words", len(shards), "shards") as bar:

        def after_each() -> None:
            job.stop.check()
            bar.advance()

        count_corpus(
            shards, rules, run_map=run_map, sample_bytes=spec.sample_bytes, seed=spec.seed, after_each=after_each
        ).save(path)


def train_apart(words: Path, options: TrainingOptions, check: Callable[[], None], small: int = SMALL) -> Trained:
    """`train` on a file of words, in a process of its own for more than `small` bytes of them.

    `check` is called all the while, and what it raises ends that process. Raises what `train` does, and ResourceError
    when the process dies.
    """
    if WordCounts.load(words).distinct_bytes <= small:
        return train(WordCounts.load(words), options)
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_train_and_send, args=(os.getpid(), words, options, sender), daemon=True)
    process.start()
    sender.close()
    try:
        while not receiver.poll(_LOOK_EVERY):
            check()
        found = receiver.recv()
    except EOFError:
        check()  # a signal to the whole group reaches both
        raise ResourceError(
            "the process that trains the tokenizer died, most likely for want of memory",
            "run again with fewer words: --set max_words=1000000, or --set sample_bytes=500000000",
        ) from None
    finally:
        process.kill()
        process.join()
        receiver.close()
    if isinstance(found, Exception):
        raise found
    assert isinstance(found, Trained)
    return found


def _train_and_send(parent: int, words: Path, options: TrainingOptions, sender: Any) -> None:
    begin_worker(parent)
    try:
        sender.send(train(WordCounts.load(words), options))
    except Exception as error:
        sender.send(error)
