"""llama2.c's .bin files (github.com/karpathy/llama2.c, export.py): the legacy one, version 1 and version 2.

Seven int32 say dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, max_seq_len. The legacy file has nothing
before them, fp32 weights behind them, two tables of phases after the last norm, and a negative vocab_size where the
head is its own. Versions 1 and 2 have a header of 256 bytes: magic, version, the seven, a byte for a tied head, and in
version 2 the group size of its matrices, int8 values followed by an fp32 scale a group. The same kind of tensor stands
together for all layers. Queries and keys are in the order that turns neighbouring values. Neither the epsilon nor the
rotary base is stored: they are 1e-5 and 10000 throughout llama2.c.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gptcli.errors import ArtifactError
from gptcli.models.family import config_from_hf
from gptcli.models.importers.fitting import fit
from gptcli.models.importers.foreign import ForeignModel, StoredTensor, values_at
from gptcli.models.importers.llama2c_tokenizer import find_tokenizer
from gptcli.models.importers.rotary_layout import to_halves

MAGIC = 0x616B3432  # "ak42"
_HEADER_BYTES = 256  # of versions 1 and 2
_SIZES = ("dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "max_seq_len")
_ARCHIVE = b"PK\x03\x04"  # how pytorch_model.bin begins
_MOST = 1 << 24  # of any of these sizes
_HINT = "fetch it again from its source, or name another file"


@dataclass(frozen=True)
class Header:
    """The sizes of a file, its version (0: legacy), whether the head is the embedding, and where weights begin."""

    version: int
    tied: bool
    group_size: int
    begin: int
    dim: int
    hidden_dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    vocab_size: int
    max_seq_len: int

    @property
    def head_dim(self) -> int:
        return self.dim // self.n_heads


class Llama2C:
    """A file llama2.c's `run` or `runq` opens."""

    name = "llama2.c"

    def recognises(self, path: Path) -> bool:
        if not path.is_file() or path.suffix != ".bin":
            return False
        with path.open("rb") as file:
            return file.read(4) != _ARCHIVE

    def open(self, path: Path) -> ForeignModel:
        header = read_header(path)
        config = config_from_hf(_config(header))
        tokenizer = find_tokenizer(path, header.vocab_size)
        return ForeignModel(
            form=f"llama, {self.name} " + (f"version {header.version}" if header.version else "legacy file"),
            config=config,
            tensors=fit(_stored(path, header), config, str(path)),
            files=(path,),
            tokenizer=tokenizer,
            no_tokenizer="" if tokenizer else f"beside {path} lies no tokenizer of {header.vocab_size} ids",
        )


def read_header(path: Path) -> Header:
    """What a file says of itself. Raises ArtifactError unless its sizes account for every byte of it."""
    try:
        with path.open("rb") as file:
            data = file.read(_HEADER_BYTES)
        size = path.stat().st_size
    except OSError as error:
        raise ArtifactError(f"{path} can't be read: {error.strerror or error}", "check the path") from error
    if len(data) < 28:
        raise ArtifactError(f"{path} ends after {len(data)} bytes, inside its header", _HINT)
    header = _versioned(path, data) if struct.unpack_from("<I", data)[0] == MAGIC else _legacy(data)
    for name in _SIZES:
        if not 1 <= getattr(header, name) <= _MOST:
            raise ArtifactError(f"{path} is no llama2.c file: {name} would be {getattr(header, name)}", _HINT)
    if header.dim % header.n_heads or header.head_dim % 2 or header.n_heads % header.n_kv_heads:
        raise ArtifactError(
            f"{path} is no llama2.c file: width {header.dim}, {header.n_heads} heads and {header.n_kv_heads} of keys "
            "do not go together",
            _HINT,
        )
    _require_size(path, header, size)
    return header


def _legacy(data: bytes) -> Header:
    sizes = dict(zip(_SIZES, struct.unpack_from("<7i", data), strict=True))
    tied, sizes["vocab_size"] = sizes["vocab_size"] > 0, abs(sizes["vocab_size"])
    return Header(0, tied, 0, 28, **sizes)


def _versioned(path: Path, data: bytes) -> Header:
    if len(data) < _HEADER_BYTES:
        raise ArtifactError(f"{path} ends after {len(data)} bytes, inside its header of {_HEADER_BYTES}", _HINT)
    version, *sizes, tied = struct.unpack_from("<8iB", data, 4)
    if version not in (1, 2):
        raise ArtifactError(f"{path}: version {version} of llama2.c's format is not known, only 1 and 2", _HINT)
    group_size = struct.unpack_from("<i", data, 37)[0] if version == 2 else 0
    if tied > 1 or (version == 2 and not 1 <= group_size <= _MOST):
        raise ArtifactError(f"{path}: its header is damaged (tied {tied}, group size {group_size})", _HINT)
    return Header(version, bool(tied), group_size, _HEADER_BYTES, **dict(zip(_SIZES, sizes, strict=True)))


def _config(header: Header) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "vocab_size": header.vocab_size,
        "hidden_size": header.dim,
        "intermediate_size": header.hidden_dim,
        "num_hidden_layers": header.n_layers,
        "num_attention_heads": header.n_heads,
        "num_key_value_heads": header.n_kv_heads,
        "head_dim": header.head_dim,
        "max_position_embeddings": header.max_seq_len,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": header.tied,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


@dataclass(frozen=True)
class Group:
    """One kind of tensor as it stands in the file: for `count` layers, or once. An empty name is skipped."""

    name: str  # Hugging Face's, with {} for the layer
    shape: tuple[int, ...]
    count: int = 1
    norm: bool = False
    heads: int = 0  # rows to be brought into Hugging Face's order, by so many heads


def _groups(header: Header) -> list[Group]:
    dim, hidden, layers, keys = header.dim, header.hidden_dim, header.n_layers, header.n_kv_heads * header.head_dim
    before = Group("model.layers.{}.input_layernorm.weight", (dim,), layers, norm=True)
    after = Group("model.layers.{}.post_attention_layernorm.weight", (dim,), layers, norm=True)
    last = Group("model.norm.weight", (dim,), norm=True)
    embedding = Group("model.embed_tokens.weight", (header.vocab_size, dim))
    attention = [
        Group("model.layers.{}.self_attn.q_proj.weight", (dim, dim), layers, heads=header.n_heads),
        Group("model.layers.{}.self_attn.k_proj.weight", (keys, dim), layers, heads=header.n_kv_heads),
        Group("model.layers.{}.self_attn.v_proj.weight", (keys, dim), layers),
        Group("model.layers.{}.self_attn.o_proj.weight", (dim, dim), layers),
    ]
    mlp = [
        Group("model.layers.{}.mlp.gate_proj.weight", (hidden, dim), layers),
        Group("model.layers.{}.mlp.down_proj.weight", (dim, hidden), layers),
        Group("model.layers.{}.mlp.up_proj.weight", (hidden, dim), layers),
    ]
    head = [] if header.tied else [Group("lm_head.weight", (header.vocab_size, dim))]
    if header.version == 0:
        phases = [Group("", (header.max_seq_len, header.head_dim // 2))] * 2
        return [embedding, before, *attention, after, *mlp, last, *phases, *head]
    return [before, after, last, embedding, *attention, *mlp, *head]


def _item_bytes(group: Group, header: Header, path: Path) -> int:
    """Bytes of one tensor of a group."""
    count = math.prod(group.shape)
    if header.version < 2 or group.norm:
        return 4 * count
    if count % header.group_size:
        raise ArtifactError(
            f"{path}: {group.name} has {count} values, which groups of {header.group_size} do not divide", _HINT
        )
    return count + 4 * (count // header.group_size)


def _places(path: Path, header: Header) -> Iterator[tuple[Group, int, int]]:
    """(group, layer, first byte) of every tensor, in the file's order."""
    at = header.begin
    for group in _groups(header):
        size = _item_bytes(group, header, path)
        for layer in range(group.count):
            yield group, layer, at
            at += size


def _require_size(path: Path, header: Header, size: int) -> None:
    at = header.begin
    for group in _groups(header):
        item = _item_bytes(group, header, path)
        if at + item * group.count > size:
            layer = max(0, size - at) // item
            name = group.name.format(layer) or "the table of phases"
            raise ArtifactError(f"{path} ends after {size:,} bytes, inside {name}", _HINT)
        at += item * group.count
    if at != size:
        raise ArtifactError(f"{path} has {size - at:,} bytes more than its header accounts for", _HINT)


def _stored(path: Path, header: Header) -> dict[str, StoredTensor]:
    return {
        group.name.format(layer): StoredTensor(group.shape, torch.float32, _reader(path, header, group, at))
        for group, layer, at in _places(path, header)
        if group.name
    }


def _reader(path: Path, header: Header, group: Group, at: int) -> Callable[[], Tensor]:
    def read() -> Tensor:
        count = math.prod(group.shape)
        if header.version == 2 and not group.norm:
            values = torch.from_numpy(values_at(path, np.int8, count, at)).float()
            scales = torch.from_numpy(values_at(path, "<f4", count // header.group_size, at + count))
            tensor = (values.view(-1, header.group_size) * scales[:, None]).view(group.shape)
        else:
            tensor = torch.from_numpy(values_at(path, "<f4", count, at)).view(group.shape)
        return to_halves(tensor, group.heads) if group.heads else tensor

    return read
