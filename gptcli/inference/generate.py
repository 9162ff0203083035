"""Generation for one reader: read a prompt once, then a token a step."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from gptcli.errors import SpecError
from gptcli.inference.engine import open_reader
from gptcli.inference.reader import Reader
from gptcli.inference.sampling import Sampling, sample
from gptcli.models.family import CausalLM, ModelConfig


class Session:
    """A model and the tokens it has read; a prompt that begins as the last one did is not read again from the start."""

    def __init__(self, model: CausalLM) -> None:
        self.model = model
        self.reader: Reader = open_reader(model, 1)
        self.ids: list[int] = []

    def generate(self, prompt: Sequence[int], settings: Sampling, stop_ids: Collection[int] = ()) -> Iterator[int]:
        """Yield new token ids until a stop id (not yielded), max_tokens, or the end of the model's positions.

        Raises SpecError when the prompt is empty, leaves no room or holds ids that the model hasn't, ArtifactError when
        the logits are no numbers.
        """
        limit = self.model.config.max_position_embeddings
        check_prompt(prompt, self.model.config)
        self.reader.copy(0, 0, self._common(prompt))
        self.ids = list(prompt)
        for _ in range(settings.max_tokens):
            logits = self.reader.read([0], [self.ids[self.reader.lengths[0] :]])
            token = sample(logits, [self.ids], [settings])[0]
            if token in stop_ids:
                return
            self.ids.append(token)
            yield token
            if len(self.ids) >= limit:
                return

    def _common(self, prompt: Sequence[int]) -> int:
        """How many leading tokens have been read already; the last one is always read, for its logits."""
        held = min(len(prompt) - 1, self.reader.lengths[0], len(self.ids))
        for at in range(held):
            if prompt[at] != self.ids[at]:
                return at
        return held


def generate(model: CausalLM, prompt: Sequence[int], settings: Sampling, stop_ids: Collection[int] = ()) -> list[int]:
    """The token ids that follow one prompt; see Session.generate.

    For a model in training too: dropout is off meanwhile, and its mode afterwards what it was.
    """
    was_training = model.training
    model.eval()
    try:
        return list(Session(model).generate(prompt, settings, stop_ids))
    finally:
        model.train(was_training)


def check_prompt(prompt: Sequence[int], config: ModelConfig, name: str = "the prompt") -> None:
    """Raise SpecError unless the prompt has a token, leaves room for one more within the model's positions, and holds
    ids of its vocabulary alone."""
    limit = config.max_position_embeddings
    if not prompt:
        raise SpecError(f"{name} is empty", "give at least one token of text")
    if len(prompt) >= limit:
        raise SpecError(
            f"{name} has {len(prompt)} tokens, and the model reads at most {limit - 1} before its answer",
            "shorten it",
        )
    strange = next((token for token in prompt if not 0 <= token < config.vocab_size), None)
    if strange is not None:
        raise SpecError(
            f"{name} holds the id {strange}, and the model's ids are 0 … {config.vocab_size - 1}",
            "encode the text with the model's own tokenizer",
        )
