"""The command line: a line a command; main() alone turns exceptions into exit codes."""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from typing import Any

import typer

from gptcli.checkpoint.command import checkpoint
from gptcli.commands.chat import chat
from gptcli.commands.init import init
from gptcli.commands.schema import schema
from gptcli.commands.status import status
from gptcli.console import forsake, print_error, tell
from gptcli.corpus.command import corpus
from gptcli.errors import GptcliError, ResourceError, SpecError
from gptcli.eval.command import evaluate
from gptcli.export.command import export
from gptcli.finetune_lora.command import finetune_lora
from gptcli.pretrain.command import pretrain
from gptcli.tokenize.command import tokenize

INTERRUPTED = 130  # what a shell reports after a second Ctrl-C
UsageError: type[Exception] = typer.BadParameter.__bases__[0]  # of click, or of the copy in newer Typers

UNUSABLE_PATH = (errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)

app = typer.Typer(
    name="gptcli",
    help="""From raw text to a GPT of your own: each stage one command, files in between.

    \b
    Example:
      gptcli init my-gpt && make -C my-gpt && gptcli chat chat -C my-gpt
    """,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
app.command("init")(init)
app.command("corpus")(corpus)
app.command("tokenize")(tokenize)
app.command("pretrain")(pretrain)
app.command("eval")(evaluate)
app.add_typer(checkpoint, name="checkpoint")
app.command("finetune-lora")(finetune_lora)
app.command("export")(export)
app.command("chat")(chat)
app.command("status")(status)
app.command("schema")(schema)


@app.callback(invoke_without_command=True)
def version(show: bool = typer.Option(False, "--version", help="Show the version and exit.", is_eager=True)) -> None:
    if show:
        from gptcli import __version__

        print(f"gptcli {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line and exit: 0 done, 1 a bug, 2 usage or spec, 3 artifact, 4 resources, 5 gate, 6 diverged,
    75 stopped with its state saved, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that lacks a character shows "?" in its place
            stream.reconfigure(errors="replace")
    sys.exit(_run())


def _run() -> int:
    try:
        return app(prog_name="gptcli", standalone_mode=False) or 0
    except GptcliError as error:
        print_error(error.message, error.hint)
        return error.code
    except UsageError as error:
        return _usage(error)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our stdout has gone (gptcli … | head)
        forsake(sys.stdout)
        return 0
    except MemoryError:
        print_error("out of memory", "use a smaller micro_batch_size or fewer workers")
        return ResourceError.code
    except Exception as error:
        if isinstance(error, OSError) and error.errno in UNUSABLE_PATH:
            print_error(f"{error.filename}: {error.strerror}", "name another place")
            return SpecError.code
        return _unexpected(error)


def _usage(error: Any) -> int:
    text = error.format_message()
    if text.startswith("Usage:"):  # no arguments at all
        tell(text)
    else:
        print_error(text, f"{error.ctx.command_path if error.ctx else 'gptcli'} --help shows what there is")
    return SpecError.code


def _unexpected(error: Exception) -> int:
    if type(error).__name__ == "OutOfMemoryError":  # torch's, without importing torch to name it
        print_error(
            f"out of device memory: {str(error).splitlines()[0]}", "use --set micro_batch_size=N with a smaller N"
        )
        return ResourceError.code
    if os.environ.get("GPTCLI_DEBUG") == "1":
        traceback.print_exc()
    summary = str(error).splitlines()[0] if str(error) else "no message"
    print_error(
        f"this is a bug in gptcli: {type(error).__name__}: {summary}", "GPTCLI_DEBUG=1 shows where; please report it"
    )
    return 1
