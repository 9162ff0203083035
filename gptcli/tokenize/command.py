"""gptcli tokenize"""

from __future__ import annotations

from typing import Annotated

import typer

from gptcli.options import Shared, shared_options


@shared_options(Shared)
def tokenize(
    vocab_size: Annotated[
        int | None,
        typer.Option("--vocab-size", help="Ids in the vocabulary to train (8192 unless set).", show_default=False),
    ] = None,
    *,
    shared: Shared,
) -> None:
    """Train a tokenizer on a corpus, and encode the corpus with it.

    \b
    Examples:
      gptcli tokenize --vocab-size 4096
      gptcli tokenize --name other --set corpus=mine --set tokenizer=main
    """
    from gptcli import stage

    stage.execute("tokenize", shared, {"vocab_size": vocab_size})
