from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from gptcli.engines.engine import Engine
from gptcli.engines.sentence_piece import SentencePiece, open_model
from gptcli.tokenize.learning.train import count_words, train_model


@pytest.fixture(scope="module")
def ours() -> SentencePiece:
    words = count_words([pa.array([Path(__file__).read_text(encoding="utf-8")], pa.large_string())])
    return SentencePiece(open_model(train_model(words, vocab_size=400), "ours"))


@pytest.fixture
def other(data_dir: Path) -> SentencePiece:
    return SentencePiece(open_model((data_dir / "sentencepiece-model" / "test_model.model").read_bytes(), "test"))


def test_what_ids_stand_for(ours: SentencePiece) -> None:
    engine: Engine = ours
    assert (engine.bos_id, engine.eos_id, engine.pad_id, engine.unk_id) == (1, 2, 3, 0)
    assert engine.piece_bytes(2) is None and engine.is_control(2) and not engine.is_control(0) and engine.is_unknown(0)
    byte = engine.id_of("<0x0A>")
    assert byte is not None and engine.is_byte(byte) and engine.piece_bytes(byte) == b"\n"
    assert engine.id_of("no such piece") is None and engine.id_of("<unk>") == 0
    text = "from the words, é \U0001f600\n"
    assert b"".join(engine.piece_bytes(token_id) or b"" for token_id in engine.encode(text)) == text.encode()


def test_lossless_is_told_by_the_settings(ours: SentencePiece, other: SentencePiece) -> None:
    assert ours.is_lossless and not other.is_lossless


@pytest.mark.parametrize("mark", ["<s>", "</s>", "<pad>", "<unk>", "<|im_start|>", "<|im_end|>", "<0x0A>"])
def test_no_text_becomes_markup(mark: str, ours: SentencePiece, other: SentencePiece) -> None:
    for engine in (ours, other):
        ids = engine.encode(f"a{mark}b")
        assert not any(map(engine.is_control, ids))
    assert ours.decode(ours.encode(f"a{mark}b")) == f"a{mark}b"
