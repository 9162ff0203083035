from __future__ import annotations

import json
import random
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gptcli.errors import ArtifactError, SpecError
from gptcli.tokenize.hf_files import write_tokenizer
from gptcli.tokenize.importing import find, import_tokenizer
from gptcli.tokenize.learning.train import count_words, train_model
from gptcli.tokenizer import Tokenizer

AWKWARD = json.loads((Path(__file__).parent / "data" / "awkward.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    directory = tmp_path_factory.mktemp("tokenizer")
    words = count_words([pa.array([*AWKWARD, Path(__file__).read_text(encoding="utf-8")], pa.large_string())])
    write_tokenizer(directory, train_model(words, vocab_size=600))
    return Tokenizer.load(directory)


@pytest.fixture
def other(tokenizer: Tokenizer, tmp_path: Path) -> Tokenizer:
    """The same tokenizer, by its tokenizer.json alone."""
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (tmp_path / name).write_bytes((tokenizer.directory / name).read_bytes())
    return Tokenizer.load(tmp_path)


@pytest.fixture
def gpt2(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    if not _gpt2:
        target = tmp_path_factory.mktemp("gpt2")
        import_tokenizer(find(data_dir / "gpt2-bpe-vocab"), target)
        _gpt2.append(Tokenizer.load(target))
    return _gpt2[0]


_gpt2: list[Tokenizer] = []


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


def test_both_engines_are_one_tokenizer(tokenizer: Tokenizer, other: Tokenizer) -> None:
    """Our own tokenizer.model and tokenizer.json: the same ids, roles, texts and bytes, whichever is opened."""
    assert (tokenizer.engine.name, other.engine.name) == ("sentencepiece", "tokenizers")
    for name in ("vocab_size", "bos_id", "eos_id", "pad_id", "eot_id", "marker_ids"):
        assert getattr(tokenizer, name) == getattr(other, name), name
    assert tokenizer.engine.is_lossless and other.engine.is_lossless
    assert tokenizer.encode_batch(AWKWARD) == other.encode_batch(AWKWARD)
    for token_id in range(tokenizer.vocab_size):
        assert tokenizer.piece(token_id) == other.piece(token_id)
        for told in ("piece_bytes", "is_control", "is_byte", "is_unknown"):
            assert getattr(tokenizer.engine, told)(token_id) == getattr(other.engine, told)(token_id), token_id
    generator = random.Random(11)
    for _ in range(500):
        ids = [token_id for token_id in random_ids(tokenizer, generator) if token_id]
        assert tokenizer.decode(ids) == other.decode(ids), ids


@pytest.mark.parametrize("which", ["tokenizer", "stories", "other"])
def test_streaming_equals_decoding_the_whole(which: str, request: pytest.FixtureRequest) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(which)
    generator = random.Random(7)
    for _ in range(800):
        ids = random_ids(tokenizer, generator)
        decoder = tokenizer.decoder()
        assert "".join(map(decoder.feed, ids)) + decoder.finish() == tokenizer.decode(ids), ids


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=60), ids=st.lists(st.integers(0, 50260), max_size=12))
def test_gpt2_gives_every_text_back(gpt2: Tokenizer, text: str, ids: list[int]) -> None:
    assert gpt2.engine.is_lossless and gpt2.decode(gpt2.encode(text)) == text
    assert gpt2.document(text) == [*gpt2.encode(text), 50256]
    decoder = gpt2.decoder()
    assert "".join(map(decoder.feed, ids)) + decoder.finish() == gpt2.decode(ids)


@pytest.mark.parametrize("mark", ["<s>", "</s>", "<|im_start|>", "<|endoftext|>", "<|im_end|>", "<unk>", "<pad>"])
@pytest.mark.parametrize("which", ["tokenizer", "stories", "other", "gpt2"])
def test_markup_in_a_text_is_text(which: str, mark: str, request: pytest.FixtureRequest) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(which)
    for text in (mark, f"a {mark}b{mark}{mark}\n", f"{mark[:3]}{mark}"):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text and ids == tokenizer.encode_batch([text])[0]
        assert not any(map(tokenizer.is_control, ids))


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


def test_the_model_wins_over_the_json(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.copy_to(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    assert Tokenizer.load(tmp_path).engine.name == "sentencepiece"
    (tmp_path / "tokenizer.model").unlink()
    with pytest.raises(ArtifactError, match=r"tokenizer\.json: there is no model in it"):
        Tokenizer.load(tmp_path)
