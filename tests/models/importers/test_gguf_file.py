"""GGUF files built byte by byte: what is read of them, and what is refused."""

from __future__ import annotations

import contextlib
import resource
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gptcli.errors import ArtifactError
from gptcli.models.importers import open_foreign
from gptcli.models.importers.gguf_file import read_gguf
from gptcli.tokenizer import Tokenizer

F32, F16, Q4_K, Q8_0, BF16 = 0, 1, 12, 8, 30
UINT8, UINT32, INT32, FLOAT, BOOL, STRING, ARRAY, UINT64, DOUBLE = 0, 4, 5, 6, 7, 8, 9, 10, 12


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def entry(key: str, kind: int, value: Any) -> bytes:
    return text(key) + struct.pack("<I", kind) + value_bytes(kind, value)


def value_bytes(kind: int, value: Any) -> bytes:
    if kind == STRING:
        return text(value)
    if kind == ARRAY:
        inner, items = value
        return struct.pack("<IQ", inner, len(items)) + b"".join(value_bytes(inner, item) for item in items)
    forms = {UINT8: "<B", UINT32: "<I", INT32: "<i", FLOAT: "<f", BOOL: "<?", UINT64: "<Q", DOUBLE: "<d"}
    return struct.pack(forms[kind], value)


def gguf(
    entries: list[bytes],
    tensors: list[tuple[str, tuple[int, ...], int, bytes]],
    version: int = 3,
    alignment: int = 32,
    counts: tuple[int, int] | None = None,
) -> bytes:
    """A file; `tensors` are (name, shape outermost first, type, bytes); `counts` overrides the header's."""
    infos, data = b"", b""
    for name, shape, kind, content in tensors:
        data = data.ljust(-(-len(data) // alignment) * alignment, b"\0")
        infos += text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape[::-1])
        infos += struct.pack("<IQ", kind, len(data))
        data += content
    head = b"GGUF" + struct.pack("<IQQ", version, *(counts or (len(tensors), len(entries)))) + b"".join(entries) + infos
    return head.ljust(-(-len(head) // alignment) * alignment, b"\0") + data


def llama_entries(*, vocabulary: bool = True) -> list[bytes]:
    found = [
        entry("general.architecture", STRING, "llama"),
        entry("llama.embedding_length", UINT32, 8),
        entry("llama.feed_forward_length", UINT32, 32),
        entry("llama.block_count", UINT32, 1),
        entry("llama.attention.head_count", UINT32, 2),
        entry("llama.context_length", UINT32, 16),
        entry("llama.attention.layer_norm_rms_epsilon", FLOAT, 1e-5),
    ]
    if vocabulary:
        pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", "a", "\u2581a"]
        kinds = [2, 3, 3, *[6] * 256, 1, 1, 1]
        found += [
            entry("tokenizer.ggml.model", STRING, "llama"),
            entry("tokenizer.ggml.tokens", ARRAY, (STRING, pieces)),
            entry("tokenizer.ggml.scores", ARRAY, (FLOAT, [0.0] * 259 + [-2.0, -3.0, -1.0])),
            entry("tokenizer.ggml.token_type", ARRAY, (UINT32, kinds)),
            entry("tokenizer.ggml.bos_token_id", UINT32, 1),
            entry("tokenizer.ggml.eos_token_id", UINT32, 2),
            entry("tokenizer.ggml.add_space_prefix", BOOL, False),
            entry("tokenizer.chat_template", STRING, "{{ messages }}"),
        ]
    return found


def llama_tensors() -> list[tuple[str, tuple[int, ...], int, bytes]]:
    shapes = {
        "token_embd.weight": (262, 8),
        "output_norm.weight": (8,),
        "blk.0.attn_norm.weight": (8,),
        "blk.0.attn_q.weight": (8, 8),
        "blk.0.attn_k.weight": (8, 8),
        "blk.0.attn_v.weight": (8, 8),
        "blk.0.attn_output.weight": (8, 8),
        "blk.0.ffn_norm.weight": (8,),
        "blk.0.ffn_gate.weight": (32, 8),
        "blk.0.ffn_up.weight": (32, 8),
        "blk.0.ffn_down.weight": (8, 32),
    }
    draw = np.random.default_rng(1)
    return [(name, shape, F32, draw.normal(size=shape).astype("<f4").tobytes()) for name, shape in shapes.items()]


def write(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("alignment", [32, 128])
def test_versions_and_alignments(version, alignment, tmp_path):
    entries = llama_entries() + ([entry("general.alignment", UINT32, alignment)] if alignment != 32 else [])
    tensors = llama_tensors()
    model = open_foreign(write(tmp_path, gguf(entries, tensors, version, alignment)))
    embedding = model.tensors["model.embed_tokens.weight"].read()
    assert embedding.numpy().tobytes() == tensors[0][3]
    assert (model.config.eos_token_id, model.config.tie_word_embeddings) == (2, True)
    assert model.form == "llama, GGUF, F32"


def test_every_readable_type(tmp_path):
    values = torch.linspace(-3, 3, 64).view(2, 32)
    scales = np.array([0.5, 0.25], "<f2")
    whole = np.arange(-32, 32, dtype=np.int8).reshape(2, 32)
    blocks = b"".join(scales[row].tobytes() + whole[row].tobytes() for row in range(2))
    stored = {
        "a": (F32, values.numpy().tobytes(), values),
        "b": (F16, values.half().numpy().tobytes(), values.half()),
        "c": (BF16, values.bfloat16().view(torch.int16).numpy().tobytes(), values.bfloat16()),
        "d": (Q8_0, blocks, torch.from_numpy(whole * scales.astype(np.float32)[:, None])),
    }
    path = write(tmp_path, gguf([], [(name, (2, 32), kind, data) for name, (kind, data, _) in stored.items()]))
    file = read_gguf(path)
    for name, (_, _, want) in stored.items():
        assert file.read(name).dtype == want.dtype and torch.equal(file.read(name), want), name


def test_metadata_of_every_kind(tmp_path):
    rows = [
        ("u8", UINT8, 7),
        ("flag", BOOL, True),
        ("big", UINT64, 2**63),
        ("words", ARRAY, (STRING, ["a", "é", ""])),
        ("numbers", ARRAY, (UINT32, [1, 2, 3])),
    ]
    path = write(tmp_path, gguf([entry(*row) for row in rows], []))
    found = read_gguf(path).metadata
    assert (found["u8"], found["flag"], found["big"], found["words"]) == (7, True, 2**63, ["a", "é", ""])
    assert found["numbers"].tolist() == [1, 2, 3]


def test_a_sentencepiece_vocabulary_becomes_a_model(tmp_path):
    model = open_foreign(write(tmp_path, gguf(llama_entries(), llama_tensors())))
    assert model.tokenizer is not None
    model.tokenizer.write(tmp_path / "tokenizer")
    tokenizer = Tokenizer.load(tmp_path / "tokenizer")
    assert tokenizer.encode("a a") == [260, 261]
    assert tokenizer.decode(tokenizer.encode("a  aé\n</s>")) == "a  aé\n</s>"
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.vocab_size) == (1, 2, 262)
    assert (tmp_path / "tokenizer" / "chat_template.jinja").read_text() == "{{ messages }}"


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([entry("tokenizer.ggml.model", STRING, "bert")], "of the kind 'bert'"),
        ([], "holds no tokenizer"),
        (
            [entry("tokenizer.ggml.model", STRING, "gpt2"), entry("tokenizer.ggml.pre", STRING, "odd")],
            r"\('odd'\) cuts text",
        ),
    ],
    ids=["bert", "none", "pre"],
)
def test_vocabularies_of_unknown_rules_are_told(entries, words, tmp_path):
    model = open_foreign(write(tmp_path, gguf(llama_entries(vocabulary=False) + entries, llama_tensors())))
    assert model.tokenizer is None
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(model.no_tokenizer)


def test_other_quantisations_are_named(tmp_path):
    tensors = [*llama_tensors()[1:], ("token_embd.weight", (262, 8), Q4_K, bytes(2000))]
    with pytest.raises(ArtifactError, match=r"token_embd\.weight is stored as Q4_K") as caught:
        open_foreign(write(tmp_path, gguf(llama_entries(), tensors)))
    assert "Q8_0" in caught.value.hint


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (entry("llama.rope.scaling.type", STRING, "yarn") + entry("llama.rope.scaling.factor", FLOAT, 4.0), "'yarn'"),
        (entry("llama.expert_count", UINT32, 8) + entry("x", UINT8, 1), "mixture of experts"),
        (entry("split.count", UINT32, 3) + entry("x", UINT8, 1), "one part of several"),
        (entry("llama.rope.dimension_count", UINT32, 2) + entry("x", UINT8, 1), "rotated in part"),
        (entry("llama.context_length", UINT32, 3) + entry("x", UINT8, 1), "twice"),
        (entry("general.alignment", UINT32, 48) + entry("x", UINT8, 1), "no power of two"),
        (entry("general.alignment", STRING, "x" * 999) + entry("x", UINT8, 1), "no power of two"),
        (text("x") + struct.pack("<I", 99) + entry("y", UINT8, 1), "type 99"),
        (entry("x", ARRAY, (ARRAY, [(ARRAY, [(ARRAY, [(UINT8, [])])])])) + entry("y", UINT8, 1), "type 9"),
        (entry("x", ARRAY, (STRING, [b"\xff"])) + entry("y", UINT8, 1), "no UTF-8"),
        (text("x") + struct.pack("<IIQ", ARRAY, STRING, 2**60) + entry("y", UINT8, 1), "more than its"),
        (text("x") + struct.pack("<IIQ", ARRAY, UINT64, 2**61) + entry("y", UINT8, 1), "more than its"),
        (text("x") + struct.pack("<IQ", STRING, 2**63) + entry("y", UINT8, 1), "ends inside 'x'"),
    ],
    ids=[
        *("yarn", "experts", "split", "partial", "twice", "alignment", "alignment_text", "type", "nested", "utf8"),
        *("strings", "numbers", "long"),
    ],
)
def test_metadata_that_can_t_be_meant_is_refused(extra, words, tmp_path):
    entries = [*llama_entries(), extra]
    data = gguf(entries, llama_tensors(), counts=(len(llama_tensors()), len(entries) + 1))
    with pytest.raises(ArtifactError, match=words):
        open_foreign(write(tmp_path, data))


@pytest.mark.parametrize("counts", [(2**62, 1), (1, 2**62), (2**64 - 1, 2**64 - 1), (12, 3), (10**6, 15)], ids=str)
def test_counts_that_do_not_fit_are_refused(counts, tmp_path):
    with pytest.raises(ArtifactError):
        open_foreign(write(tmp_path, gguf(llama_entries(), llama_tensors(), counts=counts)))


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (("token_embd.weight", (2**40, 2**40), F32, b""), "do not lie in the file"),
        (("token_embd.weight", (2**63, 2), F32, b""), "do not lie in the file"),
        (("token_embd.weight", (0, 8), F32, b""), "do not lie in the file"),
        (("token_embd.weight", (262, 8), Q8_0, bytes(9000)), "no whole blocks"),
        (("token_embd.weight", (1, 1, 1, 1, 8), F32, bytes(32)), "5 dimensions"),
        (("output_norm.weight", (8,), F32, bytes(32)), "twice"),
        (("token_embd.weight", (262, 8), 77, bytes(9000)), "stored as number 77"),
        (("odd.weight", (4,), F32, bytes(16)), r"token_embd\.weight is missing"),
    ],
    ids=["huge", "overflow", "empty", "blocks", "dimensions", "twice", "type", "missing"],
)
def test_tensors_that_can_t_be_there_are_refused(tensor, words, tmp_path):
    with pytest.raises(ArtifactError, match=words):
        open_foreign(write(tmp_path, gguf(llama_entries(), [*llama_tensors()[1:], tensor])))


def test_files_cut_short_anywhere_are_refused(tmp_path):
    whole = gguf(llama_entries(), llama_tensors())
    for length in sorted({*(len(whole) * part // 16 for part in range(16)), *range(0, 200, 3)}):
        with pytest.raises(ArtifactError):
            open_foreign(write(tmp_path, whole[:length]))


def test_flipped_bytes_of_the_header_are_refused_or_whole(tmp_path):
    """Nothing but an ArtifactError, at once and in little memory, whatever byte of the header is another."""
    whole = gguf(llama_entries(vocabulary=False), llama_tensors())
    header = len(gguf(llama_entries(vocabulary=False), [(n, s, k, b"") for n, s, k, _ in llama_tensors()]))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    draw, slowest = np.random.default_rng(0), 0.0
    for at in range(0, header, 2):
        path = write(tmp_path, whole[:at] + bytes([whole[at] ^ (1 << int(draw.integers(8)))]) + whole[at + 1 :])
        started = time.process_time()
        with contextlib.suppress(ArtifactError):
            open_foreign(path)
        slowest = max(slowest, time.process_time() - started)
    assert slowest < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 500_000


def test_other_endianness_and_versions_are_told(tmp_path):
    whole = gguf(llama_entries(), llama_tensors())
    for number, words in ((struct.pack(">I", 3), "big-endian"), (struct.pack("<I", 1), "version 1")):
        with pytest.raises(ArtifactError, match=words):
            open_foreign(write(tmp_path, whole[:4] + number + whole[8:]))
    with pytest.raises(ArtifactError, match="no GGUF file"):
        open_foreign(write(tmp_path, b"GGML" + whole[4:]))


def test_a_vocabulary_without_weights_is_no_model(data_dir):
    with pytest.raises(ArtifactError, match="no weights"):
        open_foreign(data_dir / "gguf-vocab-gpt2" / "ggml-vocab-gpt-2.gguf")


def with_entries(changes: list[tuple[str, int, Any]]) -> bytes:
    """A whole file, some of its metadata replaced or added."""
    old = [each for each in llama_entries() if not any(each.startswith(text(key)) for key, _, _ in changes)]
    return gguf([*old, *(entry(*change) for change in changes)], llama_tensors())


LIST = (UINT32, [1, 2, 3])
MISTYPED = {
    "architecture": ("general.architecture", ARRAY, LIST),
    "split": ("split.count", ARRAY, LIST),
    "experts": ("llama.expert_count", ARRAY, LIST),
    "scaling type": ("llama.rope.scaling.type", ARRAY, LIST),
    "scaling factor": ("llama.rope.scaling.factor", STRING, "2"),
    "scale linear": ("llama.rope.scale_linear", ARRAY, LIST),
    "window": ("llama.attention.sliding_window", ARRAY, LIST),
    "context": ("llama.context_length", FLOAT, 16.0),
    "epsilon": ("llama.attention.layer_norm_rms_epsilon", ARRAY, LIST),
    "eos": ("tokenizer.ggml.eos_token_id", STRING, "2"),
    "model": ("tokenizer.ggml.model", ARRAY, LIST),
    "hugging face": ("tokenizer.huggingface.json", UINT32, 1),
    "tokens": ("tokenizer.ggml.tokens", ARRAY, LIST),
    "types as a number": ("tokenizer.ggml.token_type", UINT32, 1),
    "types as texts": ("tokenizer.ggml.token_type", ARRAY, (STRING, ["1"] * 262)),
    "types as fractions": ("tokenizer.ggml.token_type", ARRAY, (FLOAT, [float("nan")] * 262)),
    "scores as a number": ("tokenizer.ggml.scores", UINT32, 1),
    "scores as texts": ("tokenizer.ggml.scores", ARRAY, (STRING, ["1"] * 262)),
    "bos added": ("tokenizer.ggml.add_bos_token", ARRAY, LIST),
    "space prefix": ("tokenizer.ggml.add_space_prefix", ARRAY, LIST),
    "charsmap": ("tokenizer.ggml.precompiled_charsmap", ARRAY, (FLOAT, [1.0])),
    "template": ("tokenizer.chat_template", ARRAY, LIST),
}


def open_whole(path: Path) -> None:
    tokenizer = open_foreign(path).tokenizer
    assert tokenizer is not None
    tokenizer.write(path.parent / "tokenizer")


@pytest.mark.parametrize("change", list(MISTYPED.values()), ids=list(MISTYPED))
def test_metadata_of_another_type_is_named(change, tmp_path):
    with pytest.raises(ArtifactError, match=rf"model\.gguf: {change[0]} is .*, no "):
        open_whole(write(tmp_path, with_entries([change])))


@pytest.mark.parametrize(("key", "value"), [("pre", (STRING, ["gpt-2"])), ("merges", LIST)], ids=["words", "merges"])
def test_a_byte_level_vocabulary_of_another_type_is_named(key, value, tmp_path):
    changes = [("tokenizer.ggml.model", STRING, "gpt2"), (f"tokenizer.ggml.{key}", ARRAY, value)]
    with pytest.raises(ArtifactError, match=rf"tokenizer\.ggml\.{key} is a list"):
        open_whole(write(tmp_path, with_entries(changes)))


@pytest.mark.parametrize("score", [1e300, float("inf"), float("nan")], ids=str)
def test_a_score_that_is_no_float32_is_refused(score, tmp_path):
    scores = (DOUBLE, [0.0] * 261 + [score])
    with pytest.raises(ArtifactError, match="the score of piece 261 is"):
        open_whole(write(tmp_path, with_entries([("tokenizer.ggml.scores", ARRAY, scores)])))


def test_whatever_a_value_does_the_file_is_at_fault(tmp_path, monkeypatch):
    path = write(tmp_path, with_entries([]))
    for error in (TypeError("no\nway"), ValueError(), OverflowError("far too large")):

        def fail(*_: Any, error: Exception = error) -> Any:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr("gptcli.models.importers.gguf_vocabulary.model_bytes", fail)
            with pytest.raises(ArtifactError, match=r"model\.gguf: a value in it can't be meant"):
                open_whole(path)
            patch.setattr("gptcli.models.importers.gguf.vocabulary_of", fail)
            with pytest.raises(ArtifactError, match=r"model\.gguf: a value in it can't be meant"):
                open_foreign(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("llama.rope.scale_linear", FLOAT, 4.0), "scale_linear=4"),
        (("llama.rope.scale_linear", FLOAT, float("nan")), "scale_linear=nan"),
        (("llama.attention.sliding_window", UINT32, 15), "sliding_window=15 below context_length=16"),
        (("llama.attention.sliding_window", INT32, -1), "sliding_window=-1"),
        (("llama.rope.scale_linear", FLOAT, 0.0), ""),
        (("llama.rope.scale_linear", FLOAT, 1.0), ""),
        (("llama.attention.sliding_window", UINT32, 0), ""),
        (("llama.attention.sliding_window", UINT32, 16), ""),
    ],
    ids=["linear 4", "linear nan", "window 15", "window -1", "linear 0", "linear 1", "window 0", "window 16"],
)
def test_scaled_positions_and_short_windows_are_refused(change, words, tmp_path):
    path = write(tmp_path, with_entries([change]))
    if not words:
        assert open_foreign(path).config.max_position_embeddings == 16
        return
    with pytest.raises(ArtifactError, match=words):
        open_foreign(path)
