"""C4's rules on lines, and on what is left of a document."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from gptcli.corpus.filters.verdict import Filter, Value, threshold
from gptcli.corpus.filters.view import View

_CITATION = re.compile(r"\[(?:\d*|edit|citation needed)\]")
_ENDS = (".", "?", "!", '"', "'")
_POLICIES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
_POLICY_BYTES = tuple(policy.encode() for policy in _POLICIES)


class C4Filter(Filter):
    """C4's cleaning (Raffel et al. 2020, 2.2): lines that are no sentences go, then documents that are no prose.

    Without its list of bad words. A line that holds lorem ipsum or { stays, once it has passed the rules before, so
    that its document can be dropped for it; the order of the rules is datatrove's. Source code does not outlive them.
    """

    name: Literal["c4"] = "c4"
    citations: bool = Field(True, description="cut out [1], [edit] and [citation needed]")
    terminal_punctuation: bool = Field(True, description="keep only lines that end in . ? ! \" or ', and not in ...")
    min_words_per_line: int = Field(3, description="fewest words of a line, as spaces part them", ge=0)
    max_word_chars: int = Field(1000, description="longest word of a line, in characters; 0: no limit", ge=0)
    javascript: bool = Field(True, description="drop lines that mention javascript")
    policies: bool = Field(True, description="drop lines on cookies, privacy policies and terms of use")
    lorem_ipsum: bool = Field(True, description="drop documents that hold lorem ipsum")
    curly_brackets: bool = Field(True, description="drop documents that hold {")
    min_sentences: int = threshold(5, "fewest sentences of what is left of a document", ge=0)

    def rewrite(self, view: View) -> tuple[str, dict[str, int]]:
        counts: dict[str, int] = {}
        cited = self.citations and "[" in view.text
        wary = cited or self._may_drop_for_phrases(view.text)
        kept: list[str] = []
        citations = 0
        for whole in view.lines:
            line, found = whole.strip(), 0
            if cited and "[" in line:
                line, found = _CITATION.subn("", line)
            reason = self._shape(whole, line) or (self._phrase(line) if wary else "")
            if not reason:
                kept.append(line)
                citations += found
            elif line:
                counts[reason] = counts.get(reason, 0) + 1
        if citations:
            counts["citations"] = citations
        return "\n".join(kept).strip(), counts

    def _shape(self, whole: str, line: str) -> str:
        """Why a line is dropped for its words or its end; words are counted with the citations still in it."""
        longest = self.max_word_chars
        if longest and len(whole) > longest and max(map(len, whole.split()), default=0) > longest:
            return "lines_long_word"
        if self.terminal_punctuation and (not line.endswith(_ENDS) or line.endswith("...")):
            return "lines_no_terminal_punctuation"
        fewest = self.min_words_per_line
        if fewest and len(whole.split(None, fewest - 1)) < fewest:
            return "lines_too_few_words"
        return ""

    def _may_drop_for_phrases(self, text: str) -> bool:
        """Whether lines have to be looked at one by one."""
        lower = text.encode("utf-8", "surrogatepass").lower()
        return (self.javascript and b"javascript" in lower) or (
            self.policies and any(policy in lower for policy in _POLICY_BYTES)
        )

    def _phrase(self, line: str) -> str:
        lower = line.lower()
        if self.lorem_ipsum and "lorem ipsum" in lower:
            return ""
        if self.javascript and "javascript" in lower:
            return "lines_javascript"
        if self.curly_brackets and "{" in line:
            return ""
        return "lines_policy" if self.policies and any(policy in lower for policy in _POLICIES) else ""

    def measures(self, view: View) -> Iterator[tuple[str, Value]]:
        if self.curly_brackets:
            yield "curly_bracket", view.text.count("{")
        if self.lorem_ipsum:
            yield "lorem_ipsum", view.text.encode("utf-8", "surrogatepass").lower().count(b"lorem ipsum")
        yield "too_few_sentences", view.sentences if view.text else 0

    def passes(self, rule: str, value: Value) -> bool:
        return float(value) >= self.min_sentences if rule == "too_few_sentences" else not value
