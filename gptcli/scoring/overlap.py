"""How much of a text its references have: ROUGE by rouge-score, corpus BLEU and chrF by sacrebleu.

Both come with the extra `gptcli[metrics]` and are loaded when they are first asked for.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from gptcli.errors import SpecError

ROUGE = ("rouge1", "rouge2", "rougeL")
_PACKAGES = {"rouge": "rouge_score.rouge_scorer", "bleu": "sacrebleu", "chrf": "sacrebleu"}
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class CorpusScore:
    """A figure of a whole corpus (0 to 100), and how it was computed, as sacrebleu's signature says it."""

    score: float
    signature: str


def require(metric: str) -> Any:
    """The package behind `rouge`, `bleu` or `chrf`. Raises SpecError with the command that installs it."""
    name = _PACKAGES[metric]
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0].replace("_", "-")
        raise SpecError(
            f"{metric} needs the package {package}, which is not installed ({error})", "pip install 'gptcli[metrics]'"
        ) from error


def rouge(text: str, references: Sequence[str], *, words: str, stemmer: bool) -> dict[str, float]:
    """F-measures of ROUGE-1, ROUGE-2 and ROUGE-L (Lin 2004), of each the best over the references.

    `words`: "latin" takes runs of a-z and 0-9 of the lower-cased text for words, as rouge-score does; "unicode" runs of
    letters, digits and _ of any script. `stemmer`: Porter's, for English (latin only).
    """
    best = _scorer(words, stemmer).score_multi(list(references), text)
    return {name: float(best[name].fmeasure) for name in ROUGE}


class _UnicodeWords:
    """What rouge-score asks of a tokenizer."""

    def tokenize(self, text: str) -> list[str]:
        return _WORD.findall(text.casefold())


@lru_cache(maxsize=4)
def _scorer(words: str, stemmer: bool) -> Any:
    tokenizer = _UnicodeWords() if words == "unicode" else None
    return require("rouge").RougeScorer(list(ROUGE), use_stemmer=stemmer, tokenizer=tokenizer)


def corpus_score(
    metric: Literal["bleu", "chrf"], texts: Sequence[str], references: Sequence[Sequence[str]], *, tokenize: str = "13a"
) -> CorpusScore:
    """BLEU (Papineni et al. 2002; words by `tokenize`) or chrF2 (Popović 2015) of all texts against their references.

    Each text has at least one, not all the same number.
    """
    package = require(metric)
    # force: texts that look tokenised are what the model wrote, and no cause for a warning.
    scorer = package.BLEU(tokenize=tokenize, force=True) if metric == "bleu" else package.CHRF()
    most = max(map(len, references), default=1)
    streams = [[each[n] if n < len(each) else None for each in references] for n in range(most)]
    score = scorer.corpus_score(list(texts), streams)
    return CorpusScore(float(score.score), str(scorer.get_signature().format()))
