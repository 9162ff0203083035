"""Documents by how much they are like those that a user holds up as good."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from gptcli.corpus.filters.lists import path_of
from gptcli.corpus.filters.verdict import Filter, Value, threshold
from gptcli.corpus.filters.view import View
from gptcli.errors import SpecError
from gptcli.spec import run_field

if TYPE_CHECKING:
    from gptcli.corpus.filters.logistic import Weights


class QualityFilter(Filter):
    """Keep documents that a classifier, trained first, takes for one of `like` rather than of `unlike`.

    Logistic regression on hashed words and pairs of words, of a document's first 16 KB. A score of .5 is even odds
    between the two files, however many documents either holds.
    """

    name: Literal["quality"] = "quality"
    like: str = Field(min_length=1, description="file of good documents, as jsonl or text")
    unlike: str = Field("", description="file of bad documents; empty: a sample of the sources themselves")
    min_score: float = threshold(0.5, "least score of a document, 0 to 1", ge=0, le=1)
    weights: str = run_field("", "where the trained weights lie: the stage sets it")

    def files(self) -> list[str]:
        return [self.like, self.unlike] if self.unlike else [self.like]

    def located(self, root: Path) -> QualityFilter:
        unlike = path_of("quality.unlike", self.unlike, root) if self.unlike else ""
        return self.model_copy(update={"like": path_of("quality.like", self.like, root), "unlike": unlike})

    def measures(self, view: View) -> Iterator[tuple[str, Value]]:
        if not self.weights:
            raise SpecError("the quality filter has no weights", "it is trained by gptcli corpus, before the cleaning")
        yield "low_quality", round(_weights(self.weights).score(view.text), 4)

    def passes(self, rule: str, value: Value) -> bool:
        return float(value) >= self.min_score


@lru_cache(maxsize=4)
def _weights(path: str) -> Weights:
    from gptcli.corpus.filters.logistic import load_weights  # numpy: not to be loaded where a spec is only read

    return load_weights(Path(path))
