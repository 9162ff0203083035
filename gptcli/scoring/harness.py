"""The tasks of EleutherAI's lm-evaluation-harness, asked of our own models through its `TemplateLM`.

The package is an extra and is imported only here, when a task is asked for. Texts are encoded as its `hf` model
encodes them for a tokenizer that puts bos before a text: contexts begin with bos where the tokenizer has one.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from gptcli.errors import GptcliError, SpecError
from gptcli.scoring.engine import Answering
from gptcli.scoring.requests import Completion, CompletionAnswer, Likelihood, LikelihoodAnswer
from gptcli.templates import chat_template as template_of
from gptcli.templates import encode_chat
from gptcli.tokenizer import Tokenizer

OFFLINE = ("HF_DATASETS_OFFLINE", "HF_HUB_OFFLINE")
PLAINLY = "ask it plainly: --set harness_chat=false"
MOST_TOKENS = 256  # of a completion whose task names no limit, as in the harness
LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


@dataclass(frozen=True)
class HarnessRun:
    """`figures`: `hellaswag.acc`, of a filter other than none `gsm8k.exact_match.strict-match`, its standard error
    `hellaswag.acc_stderr`; `samples`: each task's rows as the harness logs them; `versions`: of each task; `shots` the
    examples before each task's items; `harness`: the package's own version."""

    figures: dict[str, float]
    samples: dict[str, list[dict[str, Any]]]
    versions: dict[str, Any]
    shots: dict[str, int]
    harness: str


def run_harness(
    tasks: Sequence[str],
    tokenizer: Tokenizer,
    engine: Answering,
    *,
    max_positions: int,
    num_fewshot: int | None = None,
    limit: int = 0,
    include_path: Path | None = None,
    offline: bool = False,
    chat: bool = False,
    seed: int = 1234,
) -> HarnessRun:
    """Run tasks of the harness's catalogue, or of the YAML files under `include_path`.

    `max_positions`: of the model; `num_fewshot`: None as each task has it; `limit`: items a task, 0 all; `offline`: no
    network, data sets from Hugging Face's cache or files alone; `chat`: prompts are user's turns, rendered by
    templates.py. Raises SpecError where the package is missing, a task is unknown, asks for what is not supported, or
    its data can't be had.
    """
    try:
        with _surroundings(offline):
            import lm_eval
            from lm_eval.evaluator import simple_evaluate

            manager = _catalogue(tasks, include_path)
            found: Any = simple_evaluate(
                model=_model_class()(tokenizer, engine, max_positions),
                tasks=list(tasks),
                num_fewshot=num_fewshot,
                limit=limit or None,
                task_manager=manager,
                bootstrap_iters=0,
                apply_chat_template=chat,
                random_seed=seed,
                numpy_random_seed=seed,
                torch_random_seed=seed,
                fewshot_random_seed=seed,
            )
    except ImportError as error:
        raise SpecError(
            f"the lm-evaluation-harness can't be imported ({error})", "pip install 'gptcli[harness]'"
        ) from error
    except (GptcliError, KeyboardInterrupt):
        raise
    except Exception as error:
        raise SpecError(
            f"the lm-evaluation-harness could not run {', '.join(tasks)}: {type(error).__name__}: {error}",
            "its data sets come from the hub, or offline from its cache; a YAML in a folder of your own may name files",
        ) from error
    versions = {name: found["versions"][name] for name in sorted(found["versions"])}
    shots = {name: int(count) for name, count in sorted(found["n-shot"].items())}
    return HarnessRun(_figures(found["results"]), found["samples"], versions, shots, str(lm_eval.__version__))


@contextmanager
def _surroundings(offline: bool) -> Iterator[None]:
    """Hugging Face's libraries kept off the network where wanted, and the harness's log kept to what went wrong."""
    before = {name: os.environ.get(name) for name in OFFLINE}
    log = logging.getLogger("lm_eval")
    level = log.level
    log.setLevel(logging.ERROR)
    os.environ.update(dict.fromkeys(OFFLINE if offline else (), "1"))
    try:
        with _silence():
            yield
    finally:
        log.setLevel(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _silence() -> Iterator[None]:
    """Nothing on stderr, of its subprocesses neither: bars of several libraries, and git's complaint where there is no
    repository. What went wrong is raised."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    sys.stderr.flush()
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(nowhere)
        os.close(kept)


def _catalogue(tasks: Sequence[str], include_path: Path | None) -> Any:
    """Where the harness finds tasks: in the folder alone where that has them all, for its own has thousands of files.

    SpecError for a task that is nowhere.
    """
    from lm_eval.tasks import TaskManager

    if include_path is not None:
        own = TaskManager(include_path=str(include_path), include_defaults=False)
        if set(tasks) <= set(own.all_tasks):
            return own
    manager = TaskManager(include_path=None if include_path is None else str(include_path))
    _require_known(tasks, manager)
    return manager


def _require_known(tasks: Sequence[str], manager: Any) -> None:
    unknown = [task for task in tasks if task not in manager.all_tasks]
    if unknown:
        from difflib import get_close_matches

        near = get_close_matches(unknown[0], manager.all_tasks, 3)
        raise SpecError(
            f"the lm-evaluation-harness has no task {unknown[0]!r}",
            f"did you mean {' or '.join(near)}?" if near else "lm_eval ls tasks lists them",
        )


def _figures(results: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The harness's `{task: {"acc,none": 0.5, …}}` as flat names; what is no number is left out."""
    out = {}
    for task, figures in results.items():
        for key, value in figures.items():
            metric, comma, chosen = key.partition(",")
            if comma and isinstance(value, int | float):
                out[f"{task}.{metric}" + (f".{chosen}" if chosen != "none" else "")] = float(value)
    return out


class _Model:
    """What the harness asks of a model, answered by an engine."""

    def __init__(self, tokenizer: Tokenizer, engine: Answering, max_positions: int) -> None:
        super().__init__()  # the harness's own
        self.words, self.engine, self.max_length = tokenizer, engine, max_positions
        self.chats: dict[str, tuple[int, ...]] = {}

    @property
    def eot_token_id(self) -> int:
        return self.words.eos_id

    @property
    def prefix_token_id(self) -> int:
        return self.words.eos_id if self.words.bos_id is None else self.words.bos_id

    @property
    def tokenizer_name(self) -> str:
        return self.words.fingerprint

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        return template_of(self.words) if chat_template else None

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A text that stands for the chat; its ids are kept aside, for no text encodes to control ids."""
        if not add_generation_prompt:
            raise SpecError(
                "a task of the harness begins the assistant's answer, which chats can't",
                PLAINLY,
            )
        ids = tuple(encode_chat(self.words, chat_history, add_generation_prompt=True)[0])
        text = "\n".join(f"{message['role']}: {message['content']}" for message in chat_history)
        while self.chats.setdefault(text, ids) != ids:
            text += "\n"
        return text

    def _ids(self, context: str) -> list[int]:
        if not self.chats:
            return self.tok_encode(context)
        if context not in self.chats:
            raise SpecError("a task of the harness changes a chat after it was rendered", PLAINLY)
        return list(self.chats[context])

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        bos = [] if self.words.bos_id is None or add_special_tokens is False else [self.words.bos_id]
        return [*bos, *self.words.encode(string)]

    def _loglikelihood_tokens(self, requests: Any, **_: Any) -> list[tuple[float, bool]]:
        asked = [Likelihood(tuple(context), tuple(continuation)) for _, context, continuation in requests]
        return [
            (answer.logprob, answer.greedy)
            for answer in self.engine.answer(asked)
            if isinstance(answer, LikelihoodAnswer)
        ]

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
        # A tokenizer with bos has it twice, the second one predicted: so the harness's own models have it.
        from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

        windows: list[tuple[None, list[int], list[int]]] = []
        counts = []
        for request in requests:
            ids = self.tok_encode(request.args[0])
            found = get_rolling_token_windows(ids, self.prefix_token_id, self.max_length, 1)
            own = [(None, *make_disjoint_window(window)) for window in found]
            windows.extend(own)
            counts.append(len(own))
        scores = iter(self._loglikelihood_tokens(windows))
        return [sum(next(scores)[0] for _ in range(count)) for count in counts]

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
        asked = [self._completion(*request.args) for request in requests]
        return [answer.text for answer in self.engine.answer(asked) if isinstance(answer, CompletionAnswer)]

    def _completion(self, context: str, wanted: dict[str, Any]) -> Completion:
        if wanted.get("do_sample") and float(wanted.get("temperature", 1.0)) > 0:
            raise SpecError("a task of the harness asks for sampled completions; ours are greedy", "leave it out")
        until = wanted.get("until") or []
        stops = [until] if isinstance(until, str) else list(until)
        most = next((int(wanted[name]) for name in LIMITS if wanted.get(name)), MOST_TOKENS)
        return Completion(
            tuple(self._ids(context)) or (self.prefix_token_id,), most, tuple(text for text in stops if text)
        )


@cache
def _model_class() -> Any:
    """The class the harness takes; made here, for its parent class is the harness's."""
    from lm_eval.api.model import TemplateLM

    class EngineModel(_Model, TemplateLM):  # type: ignore[misc,unused-ignore]
        def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> list[tuple[float, bool]]:
            answers: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
            return answers

        def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
            if self.chats:
                return self._ids(context), self.tok_encode(continuation, add_special_tokens=False)
            pair: tuple[list[int], list[int]] = super()._encode_pair(context, continuation)
            return pair

    return EngineModel
