from __future__ import annotations

import json
import random
from pathlib import Path

import pyarrow as pa
import pytest

from gptcli.errors import ArtifactError, SpecError
from gptcli.tokenize.hf_files import write_tokenizer
from gptcli.tokenize.train import count_words, train_model
from gptcli.tokenizer import Tokenizer

AWKWARD = json.loads((Path(__file__).parent / "data" / "awkward.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    directory = tmp_path_factory.mktemp("tokenizer")
    words = count_words([pa.array([*AWKWARD, Path(__file__).read_text(encoding="utf-8")], pa.large_string())])
    write_tokenizer(directory, train_model(words, vocab_size=600))
    return Tokenizer.load(directory)


@pytest.fixture
def stories(data_dir: Path) -> Tokenizer:
    return Tokenizer.load(data_dir / "stories260K-hf")


def test_special_ids(tokenizer: Tokenizer) -> None:
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, tokenizer.eot_id) == (1, 2, 3, 5)
    assert tokenizer.marker_ids == {"<|im_start|>": 4, "<|im_end|>": 5}
    assert tokenizer.vocab_size == 600 and tokenizer.piece(2) == "</s>" and tokenizer.is_control(2)
    assert tokenizer.document("a") == [1, *tokenizer.encode("a"), 2]
    with pytest.raises(SpecError, match="600"):
        tokenizer.piece(600)


def test_a_model_with_its_own_settings(stories: Tokenizer) -> None:
    assert (stories.vocab_size, stories.bos_id, stories.eos_id, stories.pad_id) == (512, 1, 2, None)
    assert stories.eot_id == stories.eos_id and stories.marker_ids == {}
    assert stories.decode([1, 403, 407, 261, 378]) == "Once upon a time"
    assert stories.encode("Once upon a time") == [403, 407, 261, 378]


def test_awkward_text_comes_back(tokenizer: Tokenizer) -> None:
    for text, ids in zip(AWKWARD, tokenizer.encode_batch(AWKWARD), strict=True):
        assert ids == tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert not any(tokenizer.is_control(token_id) for token_id in ids)


def random_ids(tokenizer: Tokenizer, generator: random.Random) -> list[int]:
    """Ids as an untrained model might emit them: stray bytes, halves of characters, controls, escapes."""
    pieces = [tokenizer.piece(token_id) for token_id in range(tokenizer.vocab_size)]
    byte_ids = [pieces.index(f"<0x{byte:02X}>") for byte in range(256)]
    escapes = [token_id for token_id, piece in enumerate(pieces) if set(piece) <= set("\u2581\ue000AB")]
    ids: list[int] = []
    for _ in range(generator.randrange(12)):
        kind = generator.randrange(5)
        if kind == 0:
            ids.append(generator.choice(byte_ids))
        elif kind == 1:
            character = generator.choice(["é", "日", "\U0001f600", "\ue000", "\u2581"]).encode()
            ids += [byte_ids[byte] for byte in character][: generator.randrange(5)]
        elif kind == 2:
            ids.append(generator.choice(escapes))
        elif kind == 3:
            ids.append(generator.randrange(4))
        else:
            ids.append(generator.randrange(tokenizer.vocab_size))
    return ids


@pytest.mark.parametrize("which", ["tokenizer", "stories"])
def test_streaming_equals_decoding_the_whole(which: str, request: pytest.FixtureRequest) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(which)
    generator = random.Random(7)
    for _ in range(2000):
        ids = random_ids(tokenizer, generator)
        decoder = tokenizer.decoder()
        assert "".join(map(decoder.feed, ids)) + decoder.finish() == tokenizer.decode(ids), ids


def test_streaming_waits_for_whole_characters(tokenizer: Tokenizer) -> None:
    decoder = tokenizer.decoder()
    ids = [22 + byte for byte in "é\U0001f600".encode()]
    assert [decoder.feed(token_id) for token_id in ids] == ["", "é", "", "", "", "\U0001f600"]
    assert decoder.finish() == ""
    decoder = tokenizer.decoder()
    assert decoder.feed(22 + 0xE6) == "" and decoder.finish() == "\ufffd"


def test_ids_beyond_the_vocabulary_are_shown(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode([*tokenizer.encode("a"), 600, *tokenizer.encode("b")]) == "a\ufffdb"


def test_lone_surrogates_are_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(SpecError, match=r"U\+D800.*character 1"):
        tokenizer.encode("a\ud800")


def test_copies_with_its_files(tokenizer: Tokenizer, tmp_path: Path) -> None:
    names = tokenizer.copy_to(tmp_path / "copy", model_max_length=256)
    assert names == ("tokenizer.model", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    copy = Tokenizer.load(tmp_path / "copy")
    assert copy.fingerprint == tokenizer.fingerprint and copy.files == names
    assert json.loads((tmp_path / "copy" / "tokenizer_config.json").read_bytes())["model_max_length"] == 256
    assert (tmp_path / "copy" / "tokenizer.json").read_bytes() == (tokenizer.directory / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("content", [None, b"", b"not a model", b"\x0a\x05\x0a\x03abc"])
def test_missing_and_broken_models(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"tokenizer\.model"):
        Tokenizer.load(tmp_path)
