from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from gptcli.engines.roles import Roles
from gptcli.engines.tokenizers_json import TokenizersJson
from gptcli.errors import ArtifactError, SpecError

Family = Callable[[str], tuple[TokenizersJson, Any]]
FAMILIES = ("llama3", "qwen2", "llama2", "unigram")
MARKUP = (
    "<s>", "</s>", "<unk>", "<pad>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>",
    "<|end_of_text|>", "<|eot_id|>",
)  # fmt: skip


def opened(content: dict[str, Any], **roles: Any) -> TokenizersJson:
    return TokenizersJson(json.dumps(content).encode(), "tokenizer.json", Roles(**roles))


@pytest.mark.parametrize("name", FAMILIES)
def test_ids_and_text_are_the_package_s_own(name: str, family: Family, awkward: list[str]) -> None:
    ours, other = family(name)
    texts = [*awkward, "", " ", "<tool_call>x</tool_call>", "a\u0301 ①", *json.__doc__.splitlines(True)]
    texts = [text for text in texts if name != "unigram" or not any(mark in text for mark in MARKUP)]
    batch = ours.encode_batch(texts)
    assert batch == ours.encode_batch(texts, threads=1)
    for text, ids in zip(texts, batch, strict=True):
        assert ids == other.encode(text, add_special_tokens=False).ids, text
        if not any(map(ours.is_unknown, ids)):
            assert ours.decode(ids) == other.decode(ids, skip_special_tokens=False), text


@pytest.mark.parametrize("name", FAMILIES)
def test_no_text_becomes_markup(name: str, family: Family) -> None:
    ours, _ = family(name)
    control = {token_id for token_id in range(ours.vocab_size) if ours.is_control(token_id)}
    assert ours.eos_id in control
    for mark in MARKUP:
        for text in (mark, f"a{mark}b", f"{mark}{mark}", f" {mark} ", f"\n{mark}\n", mark[1:], mark[:-1]):
            ids = ours.encode(text)
            assert control.isdisjoint(ids) and (ours.is_lossless is False or ours.decode(ids) == text), text
            assert control.isdisjoint(ours.encode_batch([text])[0])


def test_not_even_by_the_disguise_of_a_control_piece(family: Family) -> None:
    ours, _ = family("unigram")
    disguised = json.loads(_inside(ours))["model"]["vocab"][ours.eos_id][0]
    ids = ours.encode(f"a{disguised}b")
    assert ours.eos_id not in ids and ours.eos_id not in ours.encode_batch([disguised])[0]


def _inside(engine: TokenizersJson) -> str:
    text: str = engine._tokenizer.to_str()
    return text


def test_roles_and_pieces_of_llama3(family: Family) -> None:
    ours, _ = family("llama3")
    assert (ours.bos_id, ours.eos_id, ours.pad_id, ours.unk_id, ours.vocab_size) == (500, 501, None, None, 503)
    assert ours.is_lossless and ours.is_byte_level
    space, newline = ours.id_of("Ġ"), ours.id_of("Ċ")
    assert space is not None and newline is not None
    assert ours.piece_bytes(space) == b" " and ours.piece_bytes(newline) == b"\n" and ours.piece_bytes(500) is None
    assert not ours.is_byte(space) and ours.is_byte(ours.id_of("Ã") or 0) and ours.is_control(502)
    assert b"".join(filter(None, map(ours.piece_bytes, ours.encode("né \U0001f600\n")))) == "né \U0001f600\n".encode()


def test_roles_and_pieces_of_qwen2(family: Family) -> None:
    ours, _ = family("qwen2")
    assert (ours.bos_id, ours.eos_id) == (None, 500) and not ours.is_lossless, "it normalises"
    assert [ours.is_control(token_id) for token_id in range(499, 505)] == [False, True, True, True, False, False]
    assert ours.encode("<tool_call>") == [503] and ours.piece_bytes(503) == b"<tool_call>"
    assert ours.decode([503, 502, 504]) == "<tool_call></tool_call>"


def test_roles_and_pieces_of_llama2(family: Family) -> None:
    ours, _ = family("llama2")
    assert (ours.bos_id, ours.eos_id, ours.unk_id) == (1, 2, 0) and not ours.is_lossless, "it puts a space in front"
    assert ours.is_byte(3 + 0xE9) and ours.piece_bytes(3 + 0xE9) == b"\xe9" and ours.piece(13) == "<0x0A>"
    assert ours.is_unknown(0) and not ours.is_control(0) and ours.decode([0]) == "\ufffd"
    assert ours.decode([1, *ours.encode("  two spaces"), 2]) == "  two spaces"


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_stream_equals_the_whole(name: str, family: Family, data: st.DataObject) -> None:
    ours, other = family(name)
    ids = data.draw(
        st.lists(
            st.one_of(
                st.integers(0, ours.vocab_size + 3),
                st.sampled_from([token_id for token_id in range(300) if ours.is_byte(token_id)] or [0]),
            ),
            max_size=20,
        )
    )
    decoder = ours.decoder()
    parts = [decoder.feed(token_id) for token_id in ids]
    whole = ours.decode(ids)
    assert "".join(parts) + decoder.finish() == whole
    if ours.is_byte_level and all(token_id < ours.vocab_size for token_id in ids):
        assert whole == other.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("name", ["llama3", "qwen2", "llama2"])
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=40))
def test_characters_come_whole_and_early(name: str, family: Family, text: str) -> None:
    ours, _ = family(name)
    decoder = ours.decoder()
    ids = ours.encode(text)
    if any(map(ours.is_unknown, ids)):
        return
    seen = "".join(map(decoder.feed, ids))
    assert decoder.finish() == "" and seen == ours.decode(ids)
    assert seen == text or not ours.is_lossless


@pytest.mark.parametrize(
    "decoder",
    [None, {"type": "BPEDecoder", "suffix": "</w>"}, {"type": "Sequence", "decoders": [{"type": "ByteFallback"}]}],
    ids=["none", "by suffix", "without fuse"],
)
def test_a_decoder_of_another_make_speaks_at_the_end(decoder: Any, family_file: Callable[[str], str]) -> None:
    content = json.loads(family_file("llama3"))
    content["decoder"] = decoder
    ours, other = opened(content), Tokenizer.from_str(json.dumps(content))
    ids = ours.encode("two words")
    assert ours.decode(ids) == other.decode(ids) and not ours.is_lossless and not ours.is_byte_level
    stream = ours.decoder()
    mixed = [500, *ids, 999, 501, *ids]
    assert "".join(map(stream.feed, mixed)) == "" and stream.finish() == ours.decode(mixed)
    assert ours.decode(mixed) == f"{other.decode(ids)}\ufffd{other.decode(ids)}"


def test_ids_without_a_piece(family_file: Callable[[str], str]) -> None:
    content = json.loads(family_file("llama3"))
    vocab = content["model"]["vocab"]
    last = max(vocab, key=vocab.__getitem__)
    del vocab[last]
    content["model"]["merges"] = [merge for merge in content["model"]["merges"] if "".join(merge) != last]
    content["added_tokens"], content["post_processor"] = [], None
    vocab["<|endoftext|>"] = 600
    ours = opened(content)
    assert ours.vocab_size == 601 and ours.eos_id == 600 and ours.bos_id is None
    assert ours.piece(550) == "" and ours.piece_bytes(550) is None and not ours.is_control(550)
    assert ours.decode([ours.encode("a")[0], 550, 601, 600, -1]) == "a\ufffd\ufffd\ufffd"


def test_merges_that_lead_to_a_named_token(family_file: Callable[[str], str]) -> None:
    """A role may name a piece that the model learnt from text: then no text becomes it any more."""
    content = json.loads(family_file("llama3"))
    content["model"]["ignore_merges"] = False
    plain = opened(content)
    piece = next(p for p in (plain.piece(i) for i in range(499, 300, -1)) if p.isalpha() and p.isascii())
    token_id = plain.id_of(piece)
    assert token_id in plain.encode(piece)
    named = opened(content, tokens={"eos_token": piece}, names=frozenset({piece}))
    assert named.eos_id == token_id
    assert token_id not in named.encode(piece) and named.decode(named.encode(f"a {piece}")) == f"a {piece}"
    content["model"]["ignore_merges"] = True
    named = opened(content, tokens={"eos_token": piece}, names=frozenset({piece}))
    assert token_id not in named.encode(piece) and named.decode(named.encode(piece)) == piece


def test_a_chat_marker_is_control_though_the_file_says_otherwise(family_file: Callable[[str], str]) -> None:
    content = json.loads(family_file("qwen2"))
    for token in content["added_tokens"]:
        token["special"] = False
    ours = opened(content)
    assert [ours.is_control(token_id) for token_id in range(500, 504)] == [True, True, True, False]
    assert {500, 501, 502}.isdisjoint(ours.encode("<|endoftext|><|im_start|><|im_end|>"))


@pytest.mark.parametrize(
    ("tokens", "ids", "expected"),
    [
        ({"eos_token": "<|im_end|>"}, {}, 502),
        ({}, {"eos_token_id": (502,)}, 502),
        ({}, {"eos_token_id": (500, 502)}, 500),
        ({}, {"eos_token_id": (5,)}, 500),
        ({"eos_token": "<nothing>"}, {}, "eos_token is '<nothing>', which the vocabulary has not"),
        ({"eos_token": "a"}, {}, "a character of ordinary text"),
    ],
    ids=["named", "by id", "one of two ids", "an id of ordinary text", "not there", "a letter"],
)
def test_which_token_ends_a_document(
    tokens: dict[str, str], ids: dict[str, tuple[int, ...]], expected: int | str, family_file: Callable[[str], str]
) -> None:
    content = json.loads(family_file("qwen2"))
    if isinstance(expected, str):
        with pytest.raises(ArtifactError, match=expected) as caught:
            opened(content, tokens=tokens, ids=ids, names=frozenset(tokens.values()))
        assert "tokenizer_config.json" in caught.value.hint
    else:
        ours = opened(content, tokens=tokens, ids=ids, names=frozenset(tokens.values()))
        assert ours.eos_id == expected and 5 in ours.encode(ours.piece(5)), "text stays text"


def test_no_end_and_two_ends(family_file: Callable[[str], str]) -> None:
    content = json.loads(family_file("llama3"))
    content["added_tokens"][1]["content"] = "</s>"
    content["added_tokens"][2]["content"] = "<|endoftext|>"
    with pytest.raises(ArtifactError, match=r"<\|endoftext\|> and </s> may each end"):
        opened(content)
    content["added_tokens"] = content["added_tokens"][:1]
    with pytest.raises(ArtifactError, match="nothing says which token ends a document"):
        opened(content)


@pytest.mark.parametrize(("adds_bos", "expected"), [(None, 500), (True, 500), (False, None)])
def test_bos_only_where_the_tokenizer_puts_it(
    adds_bos: bool | None, expected: int | None, family_file: Callable[[str], str]
) -> None:
    content = json.loads(family_file("llama3"))
    assert opened(content, tokens={"bos_token": "<|begin_of_text|>"}, adds_bos=adds_bos).bos_id == expected
    content["post_processor"] = None
    named = opened(content, tokens={"bos_token": "<|begin_of_text|>"}, adds_bos=adds_bos)
    assert named.bos_id == (500 if adds_bos else None)


def test_settings_that_are_not_for_text(family_file: Callable[[str], str]) -> None:
    content = json.loads(family_file("llama3"))
    plain = opened(content).encode(json.__doc__)
    content["truncation"] = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    content["padding"] = {
        "strategy": {"Fixed": 9000}, "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "x",
    }  # fmt: skip
    content["model"]["dropout"] = 0.5
    assert opened(content).encode(json.__doc__) == plain


def test_lossless_is_only_what_changes_nothing(family_file: Callable[[str], str]) -> None:
    def but(**changes: Any) -> bool:
        content = json.loads(family_file("llama3"))
        for key, value in changes.items():
            content[key] = value
        return opened(content).is_lossless

    words = json.loads(family_file("llama3"))["pre_tokenizer"]["pretokenizers"]
    assert but() and but(normalizer={"type": "Sequence", "normalizers": []})
    assert not but(normalizer={"type": "NFC"})
    assert not but(
        pre_tokenizer={"type": "Sequence", "pretokenizers": [words[0], {**words[1], "add_prefix_space": True}]}
    )
    assert not but(pre_tokenizer={"type": "Sequence", "pretokenizers": [{**words[0], "behavior": "Removed"}, words[1]]})
    added = json.loads(family_file("llama3"))["added_tokens"]
    word = {**added[0], "id": 503, "content": "word", "special": False}
    assert but(added_tokens=[*added, word]) and not but(added_tokens=[*added, {**word, "lstrip": True}])


def test_lone_surrogates_are_refused(family: Family) -> None:
    with pytest.raises(SpecError, match=r"U\+D800.*character 1"):
        family("llama3")[0].encode("a\ud800")
    with pytest.raises(SpecError, match=r"U\+D800.*character 2"):
        family("llama3")[0].encode_batch(["fine", "ab\ud800"])


def _breakings() -> dict[str, tuple[Callable[[dict[str, Any]], object], str]]:
    charsmap = {"type": "Precompiled", "precompiled_charsmap": "BAAAAP////8="}
    return {
        "no model": (lambda c: c.pop("model"), "no model"),
        "a list": (lambda c: c.__setitem__("model", []), "no model"),
        "wordpiece": (lambda c: c["model"].__setitem__("type", "WordPiece"), "WordPiece"),
        "unnamed": (lambda c: (c["model"].pop("type"), c["model"].pop("merges")), "no known kind"),
        "two of one id": (lambda c: c["model"]["vocab"].__setitem__("zz", 1), "same id"),
        "no number": (lambda c: c["model"]["vocab"].__setitem__("zz", "1"), "an id below"),
        "huge": (lambda c: c["model"]["vocab"].__setitem__("zz", 4_000_000_000), "an id below"),
        "negative": (lambda c: c["model"]["vocab"].__setitem__("zz", -1), "an id below"),
        "merge of nothing": (lambda c: c["model"]["merges"].append(["qqq", "w"]), "out of vocabulary"),
        "merge of three": (lambda c: c["model"]["merges"].append("a b c"), "MergeType"),
        "unknown unknown": (lambda c: c["model"].__setitem__("unk_token", "zzz"), "'zzz' is not in"),
        "unknown is the end": (
            lambda c: (c["model"]["vocab"].pop("Ã"), c["model"]["vocab"].__setitem__("</s>", 503),
                       c["model"].__setitem__("unk_token", "</s>"), c["added_tokens"].clear(),
                       c["model"]["merges"].clear()),
            "ends a document",
        ),
        "a gap in added tokens": (lambda c: c["added_tokens"][2].__setitem__("id", 700), "gets the id 502"),
        "an added token twice": (lambda c: c["added_tokens"].append(c["added_tokens"][0]), "twice"),
        "an added token in place": (lambda c: c["added_tokens"][0].__setitem__("id", 7), "can't have the id 7"),
        "a bad pattern": (
            lambda c: c["pre_tokenizer"]["pretokenizers"][0].__setitem__("pattern", {"Regex": "(("}),
            "can't work with it",
        ),
        "a strange step": (lambda c: c.__setitem__("pre_tokenizer", {"type": "Nope"}), "can't work with it"),
        "a panic while it opens": (
            lambda c: c.__setitem__("normalizer", {**charsmap, "precompiled_charsmap": "AAAA"}),
            "can't work with it",
        ),
        "a panic at work": (lambda c: c.__setitem__("normalizer", charsmap), "can't work with it"),
        "a prefix that kills the engine": (
            lambda c: c["model"].__setitem__("continuing_subword_prefix", "a"),
            "begin with 'a'",
        ),
    }  # fmt: skip


@pytest.mark.parametrize("how", sorted(_breakings()))
def test_broken_files(how: str, family_file: Callable[[str], str], capfd: pytest.CaptureFixture[str]) -> None:
    content = json.loads(family_file("llama3"))
    damage, said = _breakings()[how]
    damage(content)
    with pytest.raises(ArtifactError, match=said) as caught:
        opened(content)
    assert caught.value.message.startswith("tokenizer.json") and caught.value.hint
    assert "panicked" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no tokenizer"),
        (b"{", "no tokenizer"),
        (b"[]", "no JSON object"),
        (b"\x80\x04\x95pickle", "no tokenizer"),
        (b"[" * 100_000, "no tokenizer"),
        (b'{"a": 1, "b": 2, "a": 3}', "'a' stands in it twice"),
        (b"\xff\xfe{}", "no tokenizer"),
    ],
    ids=["empty", "cut", "list", "pickle", "deep", "twice", "utf-16"],
)
def test_what_is_no_tokenizer(data: bytes, said: str) -> None:
    with pytest.raises(ArtifactError, match=said):
        TokenizersJson(data, "tokenizer.json", Roles())


def test_every_cut_of_a_file_is_an_error(family_file: Callable[[str], str]) -> None:
    data = family_file("unigram").encode()
    for size in range(0, len(data), len(data) // 25):
        with pytest.raises(ArtifactError):
            TokenizersJson(data[:size], "tokenizer.json", Roles())
