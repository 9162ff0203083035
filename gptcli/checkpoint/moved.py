"""Which weights moved between two models: figures of each tensor, of each layer, and of each kind of matrix."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gptcli.artifacts.locations import ADAPTER_CONFIG
from gptcli.errors import ArtifactError
from gptcli.models.arithmetic import NOTHING, Difference, compare, same_bits
from gptcli.models.importers.hugging_face import HuggingFaceDirectory, stored_tensors
from gptcli.models.load import ADAPTER_WEIGHTS
from gptcli.models.weights import StoredTensor, read_tensors

EMBEDDING, POSITIONS, HEAD, FINAL = "embedding", "positions", "head", "final norm"
_LAYER = re.compile(r"(?:^|\.)(?:layers|h)\.(\d+)\.(.+)$")
_BLOCKS = re.compile(r"^(?:self_attn|mlp|attn)\.")
_TRAINED = re.compile(r"\.(?:weight|bias)$")
_OUTSIDE = {
    "embed_tokens": EMBEDDING,
    "wte": EMBEDDING,
    "wpe": POSITIONS,
    "lm_head": HEAD,
    "norm": FINAL,
    "ln_f": FINAL,
}
# Where GPT-2 has two matrices of one name, the block they stand in tells them apart.
_SAME_NAMED = ("attn.c_proj", "mlp.c_proj")


@dataclass(frozen=True)
class Place:
    """Where a tensor stands: `part` is a layer's number, or what is outside the layers; `kind` the matrix it is."""

    part: int | str
    kind: str


@dataclass(frozen=True)
class Moved:
    """A tensor that both models have, and by how much it differs; `figures` is None where the shapes do."""

    name: str
    place: Place
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    dtypes: tuple[str, str]
    figures: Difference | None
    same: bool  # to the bit, in type and shape too


@dataclass(frozen=True)
class Comparison:
    """All tensors of two models."""

    tensors: list[Moved]
    only_first: list[str]
    only_second: list[str]

    @property
    def differing(self) -> list[Moved]:
        return [moved for moved in self.tensors if not moved.same]

    @property
    def is_same(self) -> bool:
        return not self.differing and not self.only_first and not self.only_second

    def parts(self) -> dict[int | str, Difference]:
        """The figures of each layer, as if its tensors were one, with the embedding before and the rest behind."""
        found: dict[int | str, Difference] = {}
        for moved in self.tensors:
            if moved.figures is not None:
                found[moved.place.part] = found.get(moved.place.part, NOTHING) + moved.figures
        return dict(sorted(found.items(), key=lambda pair: _order(pair[0])))

    def cells(self) -> dict[Place, Difference]:
        """The figures of each kind of matrix in each part."""
        found: dict[Place, Difference] = {}
        for moved in self.tensors:
            if moved.figures is not None:
                found[moved.place] = found.get(moved.place, NOTHING) + moved.figures
        return found

    def whole(self) -> Difference:
        """The figures of both models, as if each were one vector."""
        return sum((moved.figures for moved in self.tensors if moved.figures is not None), NOTHING)


def _order(part: int | str) -> tuple[int, int, str]:
    if isinstance(part, int):
        return (1, part, "")
    return (0 if part in (EMBEDDING, POSITIONS) else 2, 0, part)


def place_of(name: str) -> Place:
    """The part and kind of a tensor by its Hugging Face name, an adapter's included."""
    adapted = re.sub(r"\.(lora_[AB])\.weight$", r" \1", name)
    adapted = re.sub(r"\.token_adapter\.trainable_tokens_delta$", " rows", adapted)
    short = _TRAINED.sub(lambda match: " bias" if match[0] == ".bias" else "", adapted)
    layer = _LAYER.search(short)
    if layer is not None:
        inner = layer[2]
        kind = inner if inner.startswith(_SAME_NAMED) else _BLOCKS.sub("", inner)
        return Place(int(layer[1]), kind)
    own, _, rest = short.rpartition(".")[2].partition(" ")
    part = _OUTSIDE.get(own, own)
    return Place(part, f"{part} {rest}".strip())


def tensors_of(directory: Path) -> dict[str, StoredTensor]:
    """A model's tensors, read when they are asked for; an adapter's as PEFT names them.

    Under the names of the config's model where it is one that gptcli computes, else as they are stored. Raises
    ArtifactError where they can't be read.
    """
    if (directory / ADAPTER_CONFIG).is_file():
        found = read_tensors(directory / ADAPTER_WEIGHTS)
        return {
            name: StoredTensor(tuple(tensor.shape), tensor.dtype, lambda tensor=tensor: tensor)  # type: ignore[misc]
            for name, tensor in found.items()
        }
    try:
        return HuggingFaceDirectory().open(directory).tensors
    except ArtifactError:
        return dict(sorted(stored_tensors(directory)[1].items()))


def compare_models(
    first: Mapping[str, StoredTensor], second: Mapping[str, StoredTensor], advance: Callable[[int], None]
) -> Comparison:
    """Every tensor of both, a pair in memory at a time; `advance` is called with the bytes read."""
    shared = [name for name in first if name in second]
    moved = []
    for name in shared:
        one, other = first[name], second[name]
        place, shapes = place_of(name), (one.shape, other.shape)
        dtypes = str(one.dtype).removeprefix("torch."), str(other.dtype).removeprefix("torch.")
        figures, same = None, False
        if one.shape == other.shape:
            a, b = one.read(), other.read()
            figures, same = compare(a, b), same_bits(a, b)
        moved.append(Moved(name, place, shapes, dtypes, figures, same))
        advance(one.bytes + other.bytes)
    only_first = [name for name in first if name not in second]
    only_second = [name for name in second if name not in first]
    alone = [*(first[name] for name in only_first), *(second[name] for name in only_second)]
    advance(sum(tensor.bytes for tensor in alone))  # whose values nobody needs
    return Comparison(moved, only_first, only_second)


def finite(value: float | None) -> float | None:
    """A figure as JSON may hold it."""
    return value if value is not None and math.isfinite(value) else None
