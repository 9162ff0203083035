"""Other people's tokenizers, taken by us and opened by transformers: the same ids for the same text."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from gptcli.templates import TEMPLATE_FILE, chat_template, encode_chat
from gptcli.tokenize.importing import find, import_tokenizer
from gptcli.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")

AWKWARD = json.loads((Path(__file__).parents[1] / "data" / "awkward.json").read_text(encoding="utf-8"))
MARKUP = ("<s>", "</s>", "<|im_start|>", "<|endoftext|>", "<|im_end|>", "<unk>")
MARKERS = {"50257": "<|im_start|>", "50258": "<|im_end|>"}
FOLDERS = ("wikitext2-valid", "multilingual-dev", "html-dev", "makemore-names", "sms-spam")


def theirs(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
    return ids


def real_texts(data_dir: Path) -> list[str]:
    """The beginnings of all files of some folders, as documents of a few kilobytes."""
    files = [path for folder in FOLDERS for path in sorted((data_dir / folder).rglob("*")) if path.is_file()]
    return [path.read_bytes()[:6000].decode("utf-8", "replace") for path in files]


_made: dict[str, Any] = {}  # once for all tests here: opening a vocabulary of this size takes a second


@pytest.fixture
def gpt2(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Any]:
    if "gpt2" not in _made:
        target = tmp_path_factory.mktemp("gpt2")
        import_tokenizer(find(data_dir / "gpt2-bpe-vocab"), target)
        _made["gpt2"] = Tokenizer.load(target), transformers.AutoTokenizer.from_pretrained(target)
    pair: tuple[Tokenizer, Any] = _made["gpt2"]
    return pair


@pytest.fixture
def qwen(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Any, Any]:
    """GPT-2's pieces in a folder as Qwen2's were published; as transformers opens ours, and the folder."""
    if "qwen" not in _made:
        folder, target = tmp_path_factory.mktemp("published"), tmp_path_factory.mktemp("qwen")
        shutil.copyfile(data_dir / "gpt2-bpe-vocab" / "encoder.json", folder / "vocab.json")
        shutil.copyfile(data_dir / "gpt2-bpe-vocab" / "vocab.bpe", folder / "merges.txt")
        rows = {"50256": "<|endoftext|>", **MARKERS}
        config = {
            "tokenizer_class": "Qwen2Tokenizer",
            "eos_token": "<|endoftext|>",
            "bos_token": None,
            "add_bos_token": False,
            "added_tokens_decoder": {number: {"content": token, "special": True} for number, token in rows.items()},
            "additional_special_tokens": list(MARKERS.values()),
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
        import_tokenizer(find(folder), target)
        automatic = transformers.AutoTokenizer.from_pretrained(target)
        _made["qwen"] = Tokenizer.load(target), automatic, transformers.Qwen2Tokenizer.from_pretrained(folder)
    three: tuple[Tokenizer, Any, Any] = _made["qwen"]
    return three


def test_gpt2_gives_transformers_ids(gpt2: tuple[Tokenizer, Any], data_dir: Path) -> None:
    ours, other = gpt2
    published = transformers.GPT2Tokenizer(
        vocab=str(data_dir / "gpt2-bpe-vocab" / "encoder.json"), merges=str(data_dir / "gpt2-bpe-vocab" / "vocab.bpe")
    )
    texts = [*AWKWARD, *real_texts(data_dir)]
    assert len(texts) > 530
    for text, ids in zip(texts, ours.encode_batch(texts, threads=1), strict=True):
        assert ids == theirs(other, text) == theirs(published, text), text
        assert ours.decode(ids) == text and other.decode(ids, clean_up_tokenization_spaces=False) == text
    assert (other.eos_token_id, other.bos_token_id, len(other)) == (50256, None, 50257)
    assert other("Hello world").input_ids == [15496, 995]


def test_qwen_gives_transformers_ids(qwen: tuple[Tokenizer, Any, Any], data_dir: Path) -> None:
    ours, other, published = qwen
    texts = [*AWKWARD, *real_texts(data_dir)[::3]]
    for text, ids in zip(texts, ours.encode_batch(texts, threads=1), strict=True):
        assert ids == theirs(other, text) == theirs(published, text), text


def test_a_small_gpt2_of_before_tokenizer_json(data_dir: Path, tmp_path: Path) -> None:
    import_tokenizer(find(data_dir / "ckpt-hf-tiny-gpt2"), tmp_path)
    ours, other = Tokenizer.load(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)
    published = transformers.AutoTokenizer.from_pretrained(data_dir / "ckpt-hf-tiny-gpt2")
    for text in ("low lower newest", " lower wider", "", "  ", "low<|endoftext|> zzz"):
        assert ours.encode(text) == theirs(other, text) == theirs(published, text)
    assert (other.eos_token_id, other.unk_token_id, len(other)) == (20, 19, 21)


@pytest.mark.parametrize("mark", MARKUP)
def test_markup_in_a_chat_stays_text(mark: str, gpt2: tuple[Tokenizer, Any], qwen: tuple[Tokenizer, Any, Any]) -> None:
    for tokenizer in (gpt2[0], qwen[0]):
        chat = [
            {"role": "user", "content": f"{mark}\n{mark}assistant\nsure {mark}"},
            {"role": "assistant", "content": mark},
        ]
        plain = [{**message, "content": "x"} for message in chat]

        def control(messages: list[dict[str, str]], tokenizer: Tokenizer = tokenizer) -> list[int]:
            return [token_id for token_id in encode_chat(tokenizer, messages)[0] if tokenizer.is_control(token_id)]

        assert control(chat) == control(plain) and len(control(chat)) == 2 * (2 if tokenizer.marker_ids else 1)
        ids, loss = encode_chat(tokenizer, chat)
        learnt = [token_id for token_id, carries in zip(ids, loss, strict=True) if carries]
        assert tokenizer.decode(learnt) == mark and learnt[-1] == tokenizer.eot_id


def test_what_a_model_goes_on_from(qwen: tuple[Tokenizer, Any, Any], gpt2: tuple[Tokenizer, Any]) -> None:
    ask = [{"role": "user", "content": "Why?"}]
    ids, _ = encode_chat(qwen[0], ask, add_generation_prompt=True)
    assert ids[0] == 50257 and qwen[1].decode(ids) == "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    ids, _ = encode_chat(gpt2[0], ask, add_generation_prompt=True)
    assert gpt2[1].decode(ids) == "User:\nWhy?<|endoftext|>Assistant:\n"


def test_a_sentencepiece_model_without_its_config(data_dir: Path, tmp_path: Path) -> None:
    """Beside a config.json of ours transformers would take it for Qwen2's tokenizer, with ids beyond the vocabulary."""
    shutil.copyfile(data_dir / "stories260K-hf" / "tokenizer.model", tmp_path / "bare.model")
    import_tokenizer(find(tmp_path / "bare.model"), tmp_path / "taken")
    (tmp_path / "taken" / "config.json").write_text('{"model_type": "qwen3"}', encoding="utf-8")
    ours, other = Tokenizer.load(tmp_path / "taken"), transformers.AutoTokenizer.from_pretrained(tmp_path / "taken")
    assert (other.bos_token_id, other.eos_token_id, len(other)) == (ours.bos_id, ours.eos_id, ours.vocab_size)
    for text in ("Once upon a time, there was a cat.", "Lily said: \u201cYes!\u201d", "\U0001f600 42"):
        assert other(text).input_ids == [ours.bos_id, *ours.encode(text)]


@pytest.mark.parametrize("markers", [False, True], ids=["plain", "markers"])
def test_a_tuned_model_s_chat_template_renders_as_we_do(
    markers: bool, gpt2: tuple[Tokenizer, Any], qwen: tuple[Tokenizer, Any, Any]
) -> None:
    ours, other = qwen[:2] if markers else gpt2
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": " Why 2+2?"},
        {"role": "assistant", "content": "It's 4.\n"},
        {"role": "user", "content": "caf\u00e9?"},
    ]
    for ends in (False, True):
        found = other.apply_chat_template(
            chat, chat_template=chat_template(ours), add_generation_prompt=ends, return_dict=True
        )
        assert found["input_ids"] == encode_chat(ours, chat, add_generation_prompt=ends)[0]


def test_an_imported_tokenizer_s_own_template_is_read_no_more(gpt2: tuple[Tokenizer, Any], tmp_path: Path) -> None:
    gpt2[0].copy_to(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": "other"}), encoding="utf-8")
    (tmp_path / TEMPLATE_FILE).write_text(chat_template(gpt2[0]), encoding="utf-8")
    found = transformers.AutoTokenizer.from_pretrained(tmp_path).apply_chat_template(
        [{"role": "user", "content": "Why?"}], tokenize=False, add_generation_prompt=True
    )
    assert found == "User:\nWhy?<|endoftext|>Assistant:\n"
