"""The published rules, each just above and just below its limit, and against plain readings of their definitions."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from gptcli.corpus.filters.c4 import C4Filter
from gptcli.corpus.filters.fineweb import FineWebFilter
from gptcli.corpus.filters.gopher_quality import GopherQualityFilter
from gptcli.corpus.filters.gopher_repetition import GopherRepetitionFilter
from gptcli.corpus.filters.ngrams import repeats
from gptcli.corpus.filters.sentences import count_sentences
from gptcli.corpus.filters.verdict import Filter, Verdict
from gptcli.corpus.filters.view import View, duplicates
from gptcli.corpus.filters.words import table_of_words

RULES: tuple[Filter, ...] = (C4Filter(), GopherQualityFilter(), GopherRepetitionFilter(), FineWebFilter())
KEPT = Verdict()


def value(one: Filter, rule: str, text: str, words: list[str] | None = None) -> float:
    return float(dict(one.measures(View(text, words)))[rule])


# --- C4 ---

SENTENCE = "This line has some words."
PAGE = "\n".join([SENTENCE] * 5)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("This line has no end", "lines_no_terminal_punctuation"),
        ("This line trails off...", "lines_no_terminal_punctuation"),
        ("Curly quotes don’t count.”", "lines_no_terminal_punctuation"),
        ("Two words.", "lines_too_few_words"),
        ("It is " + "x" * 1001 + " long.", "lines_long_word"),
        ("Please enable JavaScript to go on.", "lines_javascript"),
        ("Read our Privacy Policy before this.", "lines_policy"),
        ("This site uses cookies. Go on.", "lines_policy"),
    ],
)
def test_c4_drops_lines(line: str, reason: str) -> None:
    text, counts = C4Filter().rewrite(View(f"{PAGE}\n{line}\n\n{SENTENCE}"))
    assert (text, counts) == (f"{PAGE}\n{SENTENCE}", {reason: 1})
    switch: dict[str, object] = {
        "lines_no_terminal_punctuation": {"terminal_punctuation": False},
        "lines_too_few_words": {"min_words_per_line": 2},
        "lines_long_word": {"max_word_chars": 0},
        "lines_javascript": {"javascript": False},
        "lines_policy": {"policies": False},
    }
    other = C4Filter.model_validate(switch[reason])
    assert other.rewrite(View(f"{PAGE}\n{line}\n{SENTENCE}")) == (f"{PAGE}\n{line}\n{SENTENCE}", {})


@pytest.mark.parametrize("end", [".", "?", "!", '"', "'"])
def test_c4_keeps_lines_with_an_end(end: str) -> None:
    line = "Just three words"[:-1] + end
    assert C4Filter().rewrite(View(f"  {line} \r\n")) == (line, {})
    longest = f"It is {'x' * 1000} long{end}"
    assert C4Filter().rewrite(View(longest)) == (longest, {})


def test_c4_cuts_citations_and_counts_those_of_kept_lines() -> None:
    text = "As was shown[1] in it [edit].[citation needed]\nNot this[2]\nAn array [i] stays[] so."
    left, counts = C4Filter().rewrite(View(text))
    assert left == "As was shown in it .\nAn array [i] stays so."
    assert counts == {"lines_no_terminal_punctuation": 1, "citations": 4}
    assert C4Filter(citations=False).rewrite(View("It was so [1].")) == ("It was so [1].", {})


def test_c4_drops_documents() -> None:
    def verdict(text: str, **options: object) -> Verdict:
        one = C4Filter.model_validate(options)
        return one.verdict(View(one.rewrite(View(text))[0]))

    assert verdict(PAGE) == KEPT
    assert verdict("\n".join([SENTENCE] * 4)) == Verdict("too_few_sentences", 4)
    assert verdict("\n".join([SENTENCE] * 4), min_sentences=4) == KEPT
    assert verdict(f"{PAGE}\nA brace {{ is here.") == Verdict("curly_bracket", 1)
    assert verdict(f"{PAGE}\nA brace {{ is here.", curly_brackets=False) == KEPT
    assert verdict(f"{PAGE}\nLorem Ipsum it is.") == Verdict("lorem_ipsum", 1)
    assert verdict(f"{PAGE}\nLorem Ipsum it is.", lorem_ipsum=False) == KEPT
    # Lines that go for their shape take their signs with them; of phrases, lorem ipsum comes first, then javascript.
    assert verdict(f"{PAGE}\nif (a) {{") == KEPT
    assert verdict(f"{PAGE}\nNo javascript, lorem ipsum here.") == Verdict("lorem_ipsum", 1)
    assert verdict(f"{PAGE}\nNo javascript {{ here at all.") == KEPT
    assert verdict(f"{PAGE}\nUse cookies {{ here at all.") == Verdict("curly_bracket", 1)
    assert verdict("") == Verdict("too_few_sentences", 0)


# --- Gopher quality ---

WORDS = ["the", "of", *["word"] * 48]


def quality(words: list[str], text: str | None = None, **options: object) -> Verdict:
    view = View(" ".join(words) if text is None else text, words)
    return GopherQualityFilter.model_validate(options).verdict(view)


def test_gopher_quality_counts_words_without_punctuation() -> None:
    assert quality(WORDS) == KEPT
    assert quality(WORDS[:-1]) == Verdict("too_few_words", 49)
    assert quality([*WORDS[:-1], "."]) == Verdict("too_few_words", 49)
    assert quality(WORDS[:-1], min_words=49) == KEPT
    assert quality(WORDS * 2000) == KEPT
    assert quality([*WORDS * 2000, "word"]) == Verdict("too_many_words", 100_001)
    assert quality([*WORDS * 2000, "word"], max_words=0) == KEPT


def test_gopher_quality_mean_length() -> None:
    short = ["the", "of"] + ["ab"] * 47 + ["x" * 48]  # 147 characters beside 50 words
    assert quality([*short[:-1], "x" * 51]) == KEPT
    assert quality([*short[:-1], "x" * 50]) == Verdict("words_too_short", 149 / 50)
    long = ["the", "of"] + ["x" * 10] * 47
    assert quality([*long, "x" * 25, "!" * 99]) == KEPT
    assert quality([*long, "x" * 26]) == Verdict("words_too_long", 501 / 50)


@pytest.mark.parametrize(
    ("sign", "reason"), [("#", "too_many_hashes"), ("...", "too_many_ellipses"), ("…", "too_many_ellipses")]
)
def test_gopher_quality_signs(sign: str, reason: str) -> None:
    text = " ".join(WORDS)
    assert quality(WORDS, sign * 5 + text) == KEPT
    assert quality(WORDS, sign * 6 + text) == Verdict(reason, 6 / 50)


def test_gopher_quality_lines() -> None:
    lines = [*["  • word"] * 5, *["- word"] * 4, "word word ..."]
    assert quality(WORDS, "\n".join(lines)) == KEPT
    assert quality(WORDS, "\n".join([*lines[:-1], "-x"])) == Verdict("too_many_bullet_lines", 1.0)
    ends = ["word"] * 7 + ["word… ", "word...", "word ..."]
    assert quality(WORDS, "\n".join(ends)) == KEPT
    assert quality(WORDS, "\n".join([*ends[1:], "word…"])) == Verdict("too_many_ellipsis_lines", 0.4)


def test_gopher_quality_letters_and_stop_words() -> None:
    assert quality([*WORDS[:40], *["2024"] * 10]) == KEPT
    assert quality([*WORDS[:40], *["2024"] * 11]) == Verdict("too_few_words_with_letters", 40 / 51)
    assert quality(["the", *["word"] * 49]) == Verdict("too_few_stop_words", 1)
    assert quality(["The", "the", *["word"] * 49]) == Verdict("too_few_stop_words", 1)
    assert quality(["the", *["word"] * 49], min_stop_words=1) == KEPT
    assert value(GopherQualityFilter(), "too_few_stop_words", "the be to of and that have with, thewith") == 8


# --- Gopher repetition ---


def different(count: int, prefix: str = "w") -> list[str]:
    return [f"{prefix}{number:03d}" for number in range(count)]


def repetition(text: str, words: list[str] | None = None, **options: object) -> Verdict:
    return GopherRepetitionFilter.model_validate(options).verdict(View(text, words))


def test_gopher_repetition_lines_and_paragraphs() -> None:
    rest = [" ".join(different(5, f"{letter}x")) for letter in "abcdefg"]
    lines = [*rest, "one", "one", "one", "one"]
    assert repetition("\n".join(lines[:-1])) == KEPT  # 2 of 10
    assert repetition("\n".join([*rest[:-1], *lines[-4:]])) == KEPT  # 3 of 10
    assert repetition("\n".join([*rest[:6], *["one"] * 5])) == Verdict("duplicate_lines", 4 / 11)
    assert repetition("\n\n".join([*rest[:6], *["one"] * 5])) == Verdict("duplicate_paragraphs", 4 / 11)
    limit = GopherRepetitionFilter(top_2_gram=9, top_3_gram=9, top_4_gram=9)
    assert limit.verdict(View("\n".join([*rest, *["x" * 80] * 2]), ["a"])).reason == "duplicate_line_chars"
    text = "\n\n".join([*rest, *["x" * 80] * 2])
    assert limit.verdict(View(text, ["a"])) == Verdict("duplicate_paragraph_chars", 80 / len(text))
    assert value(limit, "duplicate_line_chars", "a\n\n\na\nb") == 1 / 7
    assert value(limit, "duplicate_lines", "\na\nb\n") == 1 / 4  # the empty one at the end repeats that at the start
    assert value(limit, "duplicate_paragraphs", "\n\na\n\n\n\n\na\n\nb\n\n") == 1 / 3


@pytest.mark.parametrize(("size", "limit"), [(2, 0.20), (3, 0.18), (4, 0.16)])
def test_gopher_repetition_top_n_gram(size: int, limit: float) -> None:
    one = GopherRepetitionFilter()
    rule = f"top_{size}_gram"
    words = []
    for number in range(10):
        words += [*different(size, "r"), *different(12, f"{number}x")]
    found = value(one, rule, " ".join(words), words)
    assert found == (5 * size - 1) * 10 / len(" ".join(words))
    assert not one.passes(rule, limit + 1e-9) and one.passes(rule, limit)
    assert one.model_copy(update={rule: found}).passes(rule, found)


@pytest.mark.parametrize(("size", "limit"), [(5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10)])
def test_gopher_repetition_duplicate_n_grams(size: int, limit: float) -> None:
    one = GopherRepetitionFilter()
    rule = f"duplicate_{size}_grams"
    words = [*different(60), *different(size), *different(20, "z")]
    text = " ".join(words)
    assert value(one, rule, text, words) == 4 * size / len(text)
    if size < 10:
        assert value(one, f"duplicate_{size + 1}_grams", text, words) == 0
    assert not one.passes(rule, limit + 1e-9) and one.passes(rule, limit)


def plain_top(words: list[str], size: int) -> int:
    grams = [" ".join(words[start : start + size]) for start in range(len(words) - size + 1)]
    return max((len(gram) * count for gram, count in Counter(grams).most_common(1)), default=0)


def plain_duplicates(words: list[str], size: int) -> int:
    seen: set[tuple[str, ...]] = set()
    start = total = 0
    while start + size <= len(words):
        gram = tuple(words[start : start + size])
        if gram in seen:
            total += len("".join(gram))
            start += size
        else:
            seen.add(gram)
            start += 1
    return total


@pytest.mark.parametrize("kinds", [1, 2, 3, 6, 40])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 30, 150])
def test_repeats_are_those_of_a_plain_reading(kinds: int, count: int) -> None:
    draw = random.Random(f"{kinds} {count}")
    for _ in range(12):
        words = [f"{'x' * (number % 4)}{number}" for number in (draw.randrange(kinds) for _ in range(count))]
        words += words[: draw.randrange(count + 1)]  # long runs come again, too
        found = list(repeats(table_of_words(words), range(2, 11)))
        assert [one.size for one in found] == list(range(2, 11))
        for one in found:
            assert one.top_chars() == plain_top(words, one.size), (words, one.size)
            assert one.duplicate_chars() == plain_duplicates(words, one.size), (words, one.size)


def test_duplicates() -> None:
    assert duplicates(["a", "bb", "c"]) == (0, 0)
    assert duplicates(["a", "bb", "bb", "a", "bb"]) == (3, 5)


# --- FineWeb ---


def fineweb(text: str, words: list[str] | None = None, **options: object) -> Verdict:
    return FineWebFilter.model_validate(options).verdict(View(text, words))


LONG = "this is a line of more than thirty characters"


def test_fineweb_lines() -> None:
    def page(ended: int, open_: int) -> str:
        lines = [f"{LONG} {number}." for number in range(ended)] + [
            f"{LONG} {number}" for number in range(100, 100 + open_)
        ]
        return "\n\n".join(lines)

    assert fineweb(page(3, 22)) == KEPT  # .12
    assert fineweb(page(2, 15)) == Verdict("too_few_punctuated_lines", 2 / 17)
    assert fineweb(f'{LONG}."\n{LONG} too. ') == Verdict("too_few_punctuated_lines", 0.0)
    assert fineweb(f"{LONG} に。\n \n") == KEPT
    exactly = ["x" * 26 + f" {number:02d}." for number in range(67)]  # 30 characters
    rest = [f"{LONG} {number}." for number in range(33)]
    assert fineweb("\n".join([*exactly, *rest])) == KEPT
    assert fineweb("\n".join([*exactly, *rest[1:]])) == Verdict("too_many_short_lines", 67 / 99)
    assert fineweb("\n".join([*exactly, *rest[1:]]), short_line_chars=29) == KEPT


def test_fineweb_repetition_and_newlines() -> None:
    rest = [f"{LONG} {number:04d}." for number in range(40)]  # 2040 characters
    assert fineweb("\n".join([*rest, "b" * 19 + ".", "b" * 19 + "."])) == KEPT
    text = "\n".join([*rest, "b" * 20 + ".", "b" * 20 + "."])
    assert fineweb(text) == Verdict("duplicate_line_chars", 21 / 2082)
    assert fineweb(f"{LONG}.\n\n\n{LONG}!", ["word"] * 10) == KEPT
    assert fineweb(f"{LONG}.\n\n\n{LONG}!", ["word"] * 9) == Verdict("too_many_newlines", 3 / 9)


# --- all of them ---


@pytest.mark.parametrize("one", RULES, ids=lambda one: one.name)
@pytest.mark.parametrize("text", ["", "\n", " \n\n ", "...", "{", "x", "\ud800 \x00", "€ → ★"])
def test_texts_without_words_are_measured(one: Filter, text: str) -> None:
    left, _ = one.rewrite(View(text))
    measured = list(one.measures(View(left)))
    assert measured
    failed = [(rule, found) for rule, found in measured if not one.passes(rule, found)]
    assert one.verdict(View(left)) == (Verdict(*failed[0]) if failed else KEPT)


@pytest.mark.parametrize("one", RULES, ids=lambda one: one.name)
def test_thresholds_are_read_only_by_passes(one: Filter) -> None:
    text = f"{PAGE}\n{PAGE} {LONG}. - one two… three # four"
    fields = type(one).model_fields
    named = [
        name
        for name, field in fields.items()
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("threshold")
    ]
    assert named
    other = one.model_copy(update=dict.fromkeys(named, 0))
    assert list(one.measures(View(text))) == list(other.measures(View(text)))
    assert one.rewrite(View(text)) == other.rewrite(View(text))


PROSE = """\
Everybody who worked at the mill knew that the river would rise again before spring was over. They moved the sacks of
flour to the upper floor, and they tied both boats to the old oak behind the barn.

By noon the water had reached the second step. "It won't come higher," said the miller, but his daughter did not
believe him. She had seen what happened three years ago, when the bridge was carried off in a single night.

Was there still time to warn the people downstream? She took the grey horse and rode along the dyke. Nobody would
listen at first, so she rang the church bell until all of them had come out with their lanterns.
"""


def test_plain_prose_is_kept() -> None:
    for one in RULES:
        if one.name != "c4":  # its lines are whole paragraphs
            assert one.verdict(View(PROSE)) == KEPT
    left, counts = C4Filter().rewrite(View(PROSE.replace("\n\n", "\r").replace("\n", " ").replace("\r", "\n")))
    assert counts == {} and left.count("\n") == 2
    assert C4Filter().verdict(View(left)) == KEPT
    assert count_sentences(left) == 8


@pytest.mark.parametrize(
    "part",
    [
        "word " * 4,
        "a\n",
        "\n",
        "x",
        "same old words in here again and again. ",
        "Mr. ",
        "...",
        "[1]",
        "'a",
        "1,",
        "é。",
    ],
    ids=["word", "lines", "newlines", "run", "phrase", "abbreviation", "dots", "citation", "quotes", "numbers", "wide"],
)
def test_no_rule_is_quadratic(part: str) -> None:
    """A text of so many characters would take it many minutes."""
    text = part * (300_000 // len(part))
    for one in RULES:
        left, _ = one.rewrite(View(text))
        assert all(float(found) >= 0 for _, found in one.measures(View(left)))


def test_a_document_of_twenty_million_characters() -> None:
    text = "\n".join(f"Line {number} of {number % 977} has the words {number * 7919}." for number in range(410_000))
    assert len(text) > 15_000_000
    dropped = {one.name: one.verdict(View(one.rewrite(View(text))[0])).reason for one in RULES}
    assert dropped == {"c4": "", "gopher_quality": "too_many_words", "gopher_repetition": "top_3_gram", "fineweb": ""}
