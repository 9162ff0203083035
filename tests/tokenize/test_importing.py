from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gptcli import stage
from gptcli.artifacts.manifest import read_manifest
from gptcli.artifacts.project import Project
from gptcli.artifacts.shards import open_shard
from gptcli.errors import ArtifactError
from gptcli.options import Shared
from gptcli.tokenize.hf_files import write_tokenizer
from gptcli.tokenize.importing import find, import_tokenizer
from gptcli.tokenizer import Tokenizer

GPT2 = "gpt2-bpe-vocab"


def taken(path: Path, target: Path) -> Tokenizer:
    import_tokenizer(find(path), target)
    return Tokenizer.load(target)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A folder with vocab.json and merges.txt of all bytes and two merges, and what else is given."""

    def make(vocab: Any = None, merges: str | None = None, **files: Any) -> Path:
        from gptcli.engines.byte_level import CHARACTERS

        folder = tmp_path_factory.mktemp("small")
        pieces = {piece: number for number, piece in enumerate([*CHARACTERS, "th", "the"])}
        (folder / "vocab.json").write_text(json.dumps(pieces if vocab is None else vocab(pieces)), encoding="utf-8")
        (folder / "merges.txt").write_text("#version: 0.2\nt h\nth e\n" if merges is None else merges, encoding="utf-8")
        for name, content in files.items():
            (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
        return folder

    return make


def test_gpt2_by_its_first_names(data_dir: Path, tmp_path: Path) -> None:
    tokenizer = taken(data_dir / GPT2, tmp_path / "tokenizer")
    assert (tokenizer.vocab_size, tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (50257, None, 50256, None)
    assert tokenizer.files == ("tokenizer.json", "tokenizer_config.json") and tokenizer.engine.is_lossless
    assert tokenizer.document("Hello world") == [15496, 995, 50256]
    cases = (data_dir / "gguf-vocab-gpt2" / "ggml-vocab-gpt-2.gguf.inp").read_text(encoding="utf-8")
    rows = (data_dir / "gguf-vocab-gpt2" / "ggml-vocab-gpt-2.gguf.out").read_text(encoding="utf-8").split("\n")
    texts = cases.split("\n__ggml_vocab_test__\n")
    assert len(texts) > 40 and len(texts) <= len(rows)
    for text, row in zip(texts, rows, strict=False):
        assert tokenizer.encode(text) == [int(number) for number in row.split()], text
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_by_either_file_and_in_either_names(small: Callable[..., Path], tmp_path: Path) -> None:
    folder = small(tokenizer_config={"eos_token": "the"})
    whole = taken(folder, tmp_path / "whole")
    assert taken(folder / "merges.txt", tmp_path / "merges").fingerprint == whole.fingerprint
    (folder / "vocab.json").rename(folder / "encoder.json")
    (folder / "merges.txt").rename(folder / "vocab.bpe")
    assert taken(folder / "encoder.json", tmp_path / "renamed").fingerprint == whole.fingerprint


def test_a_model_directory_of_before_tokenizer_json(data_dir: Path, tmp_path: Path) -> None:
    tokenizer = taken(data_dir / "ckpt-hf-tiny-gpt2", tmp_path)
    assert (tokenizer.vocab_size, tokenizer.bos_id, tokenizer.eos_id) == (21, None, 20)
    assert not tokenizer.engine.is_lossless and tokenizer.decode(tokenizer.encode(" lower")) == " lower"
    assert not any(map(tokenizer.is_control, tokenizer.encode("low<|endoftext|><unk>")))
    config = json.loads((tmp_path / "tokenizer_config.json").read_bytes())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast" and config["eos_token"] == "<|endoftext|>"
    assert "added_tokens_decoder" not in config


@pytest.mark.parametrize("where", ["stories260K-hf", "sentencepiece-model/test_model.model"])
def test_a_sentencepiece_model_stays_as_it_is(where: str, data_dir: Path, tmp_path: Path) -> None:
    tokenizer = taken(data_dir / where, tmp_path)
    source = data_dir / where
    source = source / "tokenizer.model" if source.is_dir() else source
    assert (tmp_path / "tokenizer.model").read_bytes() == source.read_bytes()
    assert tokenizer.decode(tokenizer.encode("Once upon a time")) == "Once upon a time"


def test_a_tokenizer_json_stays_and_its_roles_are_named(small: Callable[..., Path], tmp_path: Path) -> None:
    import_tokenizer(find(small(added_tokens={"</s>": 258})), tmp_path / "first")
    (tmp_path / "model").mkdir()
    shutil.copyfile(tmp_path / "first" / "tokenizer.json", tmp_path / "model" / "tokenizer.json")
    (tmp_path / "model" / "generation_config.json").write_text('{"eos_token_id": 258}')
    source = find(tmp_path / "model")
    assert {path.name for path in source.files} == {"tokenizer.json", "generation_config.json"}
    import_tokenizer(source, tmp_path / "second")
    assert json.loads((tmp_path / "second" / "tokenizer_config.json").read_bytes())["eos_token"] == "</s>"
    assert not (tmp_path / "second" / "generation_config.json").exists()
    import_tokenizer(find(tmp_path / "second"), tmp_path / "third")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "third" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_both_files_must_agree(code_model: bytes, tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "both", code_model)
    assert taken(tmp_path / "both", tmp_path / "taken").files[:2] == ("tokenizer.model", "tokenizer.json")
    path = tmp_path / "both" / "tokenizer.json"
    content = json.loads(path.read_bytes())
    content["normalizer"]["normalizers"].pop(0)
    content["model"]["merges"] = content["model"]["merges"][1::2]
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ArtifactError, match="cut the same text into other pieces"):
        taken(tmp_path / "both", tmp_path / "other")
    del content["model"]["vocab"][next(iter(reversed(content["model"]["vocab"])))]
    content["model"]["merges"] = []
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"tokenizer\.model has 1,000 ids, tokenizer\.json has 999") as caught:
        taken(tmp_path / "both", tmp_path / "other")
    assert "tokenizer.model or" in caught.value.hint
    assert taken(tmp_path / "both" / "tokenizer.model", tmp_path / "one").files[0] == "tokenizer.model"
    assert not (tmp_path / "one" / "tokenizer.json").exists(), "who names a file means that file"


def test_added_tokens_follow_the_vocabulary(small: Callable[..., Path], tmp_path: Path) -> None:
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "eos_token": "<|endoftext|>",
        "added_tokens_decoder": {
            "258": {"content": "<|endoftext|>", "special": True},
            "259": {"content": "<|im_start|>", "special": True},
            "260": {"content": "<|im_end|>", "special": True},
            "261": {"content": "<tool_call>", "special": False},
        },
    }
    tokenizer = taken(small(tokenizer_config=config), tmp_path)
    assert tokenizer.marker_ids == {"<|im_start|>": 259, "<|im_end|>": 260} and tokenizer.eot_id == 260
    assert tokenizer.encode("the <tool_call>") == [257, 32, 261] and tokenizer.encode("e\u0301") == [0xC3, 0xA9]
    assert tokenizer.encode("1234") == [0x31, 0x32, 0x33, 0x34]


def test_added_tokens_json(small: Callable[..., Path], tmp_path: Path) -> None:
    folder = small(added_tokens={"</s>": 258}, special_tokens_map={"eos_token": "</s>"})
    tokenizer = taken(folder, tmp_path)
    assert tokenizer.eos_id == 258 and 258 not in tokenizer.encode("</s>")
    assert tokenizer.files == ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def _with(**more: Any) -> Callable[[dict[str, int]], dict[str, Any]]:
    return lambda pieces: {**pieces, **more}


@pytest.mark.parametrize(
    ("vocab", "merges", "config", "said"),
    [
        (_with(x9=400), None, None, "no piece has the id 258"),
        (_with(x9=7), None, None, "two pieces have the id 7"),
        (_with(x9="7"), None, None, "gives every piece an id"),
        (_with(x9=[7]), None, None, "gives every piece an id"),
        (lambda pieces: {}, None, None, "gives every piece an id"),
        (lambda pieces: [], None, None, "no JSON object"),
        (lambda pieces: {"the": 0, "t": 1, "h": 2, "th": 3, "e": 4}, None, None, "nothing says which token ends"),
        (lambda pieces: {"日": 0}, "", {"eos_token": "日"}, "no byte-level pieces"),
        (None, "t h\nth q\n", None, "line 2: the vocabulary has no 'thq'"),
        (None, "#version: 0.2\nt h e\n", None, "line 2: a merge is two pieces"),
        (None, "t h\nbroken", None, "line 2: a merge is two pieces"),
        (None, None, {"tokenizer_class": "BertTokenizer"}, "a BertTokenizer cuts text"),
        (None, None, {"eos_token": "<end>"}, "'<end>', which the vocabulary has not"),
        (None, None, {"added_tokens_decoder": {"900": {"content": "</s>", "special": True}}}, "without a gap"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value and "\n" not in value else "",
)
def test_broken_vocabularies(
    vocab: Any, merges: str | None, config: Any, said: str, small: Callable[..., Path], tmp_path: Path
) -> None:
    folder = small(vocab, merges, **({"tokenizer_config": config} if config else {}))
    with pytest.raises(ArtifactError, match=said) as caught:
        taken(folder, tmp_path)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("files", "said", "hint"),
    [
        ({}, "there is no tokenizer in", "tokenizer.json"),
        ({"vocab.json": b"{}"}, "but not merges.txt", "fetch merges.txt"),
        ({"vocab.bpe": b""}, "but not encoder.json", "fetch encoder.json"),
        ({"spiece.model": b""}, "there is no tokenizer in", "spiece.model"),
        ({"tokenizer.model": b"\x80\x04\x95K\x01."}, "not a sentencepiece model", "restore"),
        ({"tokenizer.model": b"IQ== 0\nIg== 1\nIw== 2\nJA== 3\n"}, "tiktoken's ranks", "tokenizer.json"),
        ({"tokenizer.json": b"\x80\x04\x95K\x01."}, "is no tokenizer", "fetch"),
        ({"tokenizer.json": b"{}", "tokenizer_config.json": b"{"}, "tokenizer_config.json is no JSON", "fetch"),
        ({"tokenizer.json": b"{}", "special_tokens_map.json": b"[]"}, "map.json holds no JSON object", "fetch"),
        ({"vocab.json": b"{}", "merges.txt": b"", "added_tokens.json": b'{"a": "b"}'}, "'a' has no id", "fetch"),
        ({"tokenizer.json": b"{}", "tokenizer_config.json": b'{"x": "\\ud800"}'}, "surrogates", "fetch"),
        ({"vocab.json": b'{"\\udc00": 0}', "merges.txt": b""}, "surrogates", "fetch"),
        ({"vocab.json": b'{"a": 0}', "merges.txt": b"\xff\xfe"}, "no UTF-8 text", "fetch"),
    ],
    ids=[
        "empty",
        "no merges",
        "no vocab",
        "other name",
        "pickle",
        "tiktoken",
        "pickle.json",
        "config",
        "map",
        "added",
        "half",
        "half piece",
        "utf-16",
    ],
)
def test_broken_folders(files: dict[str, bytes], said: str, hint: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    with pytest.raises(ArtifactError, match=said) as caught:
        taken(folder, tmp_path / "target")
    assert hint in caught.value.hint


def test_what_is_no_tokenizer_at_all(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04\x95")
    with pytest.raises(ArtifactError, match="no tokenizer by its name"):
        find(tmp_path / "pytorch_model.bin")
    with pytest.raises(ArtifactError, match="there is no tokenizer at"):
        find(tmp_path / "nowhere")


def test_the_hash_is_of_the_files_that_are_used(small: Callable[..., Path]) -> None:
    folder = small(tokenizer_config={"eos_token": "the"})
    before = find(folder).content_hash
    (folder / "config.json").write_text('{"eos_token_id": 3}')
    (folder / "notes.txt").write_text("not used")
    assert find(folder).content_hash == before, "the eos is named already"
    (folder / "merges.txt").write_text("t h\n")
    changed = find(folder).content_hash
    assert changed != before
    (folder / "tokenizer_config.json").write_text("{}")
    assert "config.json" in {path.name for path in find(folder).files} and find(folder).content_hash != changed


def test_a_corpus_in_somebody_else_s_tokens(
    small: Callable[..., Path], write_corpus: Callable[..., list[str]], tmp_path: Path
) -> None:
    texts = ["the thin one", "", "</s> the\n", "\U0001f600 <|im_end|>"]
    write_corpus(Project.open(tmp_path), {"train": [texts]})
    folder = small(added_tokens={"</s>": 258})

    def tokens(name: str, path: str) -> list[list[int]]:
        shared = Shared(project=tmp_path, name=name, settings=["workers=1", f"tokenizer={path}"], quiet=True)
        stage.execute("tokenize", shared, {})
        found: list[list[int]] = (
            open_shard(tmp_path / "tokens" / name / "train-00000.arrow").read_all()["tokens"].to_pylist()
        )
        return found

    rows = tokens("taken", str(folder))
    tokenizer = Tokenizer.load(tmp_path / "tokens" / "taken" / "tokenizer")
    assert rows == [tokenizer.document(text) for text in texts]
    assert rows == [[*tokenizer.encode(text), 258] for text in texts], "it has no bos"
    assert [tokenizer.decode(row) for row in rows] == texts
    manifest = read_manifest(tmp_path / "tokens" / "taken", "tokens")
    assert manifest.inputs[1].content_sha256 == find(folder).content_hash
    assert tokens("again", "taken") == rows == tokens("again-by-file", str(folder / "merges.txt"))
    with pytest.raises(ArtifactError, match="there are no tokens nowhere"):
        tokens("none", "nowhere")
