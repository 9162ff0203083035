from __future__ import annotations

import json
import os
import pty
import subprocess
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptcli.artifacts.project import Project
from gptcli.errors import ArtifactError, SpecError
from gptcli.tokenize.hf_files import write_tokenizer
from gptcli.tokenize.views import pieces as pieces_module
from gptcli.tokenize.views import showing
from gptcli.tokenize.views.awkward import AWKWARD
from gptcli.tokenize.views.pieces import BYTE, CONTROL, UNKNOWN, Pieces, spans
from gptcli.tokenize.views.visible import printable, visible, visible_bytes
from gptcli.tokenizer import Tokenizer

HOSTILE = "\x1b[31m[red]x[/red]\x07\x9b2J\u202egnp.\u2066a\u2069\u200f\r\x00b\x08\x7f [link=http://x]y \U000e0041\u200b"


@pytest.fixture
def project(tmp_path: Path, code_model: bytes) -> Project:
    """A project whose tokens/main is a tokenizer alone, which is all that --show needs."""
    write_tokenizer(tmp_path / "tokens/main/tokenizer", code_model)
    return Project.open(tmp_path)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, code_model: bytes) -> Tokenizer:
    home = tmp_path_factory.mktemp("own")
    write_tokenizer(home, code_model)
    return Tokenizer.load(home)


def show(project: Project, text: str, *others: str, name: str | None = None) -> dict[str, Any]:
    return showing.show(project, name, text, others).figures


@pytest.mark.parametrize("number", range(len(AWKWARD)))
def test_pieces_tile_the_text(project: Project, number: int) -> None:
    text = AWKWARD[number]
    told = show(project, text)
    data, at = text.encode(), 0
    for piece in told["pieces"]:
        assert piece["start"] == at and piece["end"] >= at
        assert bytes.fromhex(piece["bytes"]) == data[piece["start"] : piece["end"]]
        assert piece["text"] is None or piece["text"].encode().hex() == piece["bytes"]
        at = piece["end"]
    assert at == len(data) == told["bytes"] and told["decodes_to_itself"]
    assert told["tokens"] == len(told["pieces"]) and told["chars"] == len(text)


def test_known_pieces(project: Project) -> None:
    told = show(project, "a\u2581é")
    escaped = next(piece for piece in told["pieces"] if piece["bytes"] == "e29681")
    assert escaped["piece"].endswith("B") and (escaped["start"], escaped["end"]) == (1, 4)
    assert told["bytes_per_token"] == round(6 / told["tokens"], 4)
    assert show(project, "")["bytes_per_token"] is None


def test_places_in_long_documents(own: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = Pieces.of(own)
    text = "a\u2581\ue000B\ue000A\ue001 x\ue000\u2581\u2581é\U0001f469\u200d\U0001f4bb\n" * 3
    ids = np.array(own.document(text), np.uint16)
    data, places = spans(own, pieces, ids.tolist())
    assert data == text.encode() and places[0] == 0 and places[-1] == len(data)
    for at_once in (1 << 20, 1, 2, 3, 7):
        monkeypatch.setattr(pieces_module, "_AT_ONCE", at_once)
        assert [pieces.place(ids, number) for number in range(len(ids) + 1)] == places.tolist()
        assert pieces.stored(ids) == data


@settings(max_examples=150, deadline=None)
@given(st.text(st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from("\u2581\ue000AB ")), max_size=30))
def test_places_are_those_of_the_text(own: Tokenizer, text: str) -> None:
    ids = own.encode(text)
    data, places = spans(own, Pieces.of(own), ids)
    assert data == text.encode() and places[-1] == len(data)
    assert (np.diff(places) >= 0).all()


def test_kinds(own: Tokenizer) -> None:
    kinds = Pieces.of(own).kinds
    assert kinds[0] == UNKNOWN and (kinds[1:22] == CONTROL).all() and (kinds[22:278] == BYTE).all()
    assert Pieces.of(own).escapes


def test_other_tokenizers_beside_it(project: Project, data_dir: Path) -> None:
    text = "Héllo wörld \U0001f600"
    told = show(project, text, f"{data_dir}/gpt2-bpe-vocab", f"{data_dir}/stories260K-hf")
    gpt2, stories = told["others"]
    assert gpt2["tokenizer"].endswith("gpt2-bpe-vocab") and gpt2["vocab_size"] == 50257
    assert gpt2["decodes_to_itself"] and gpt2["pieces"][0]["piece"] == "H"
    for one in (gpt2, stories):
        joined = b"".join(bytes.fromhex(piece["bytes"]) for piece in one["pieces"])
        assert joined == text.encode()
    assert stories["pieces"][0]["piece"] == "▁H" and stories["pieces"][0]["end"] == 1


def test_a_text_that_comes_back_changed(project: Project, data_dir: Path) -> None:
    told = show(project, "  a\u2581b ", f"{data_dir}/stories260K-hf")["others"][0]
    assert not told["decodes_to_itself"]
    assert b"".join(bytes.fromhex(piece["bytes"]) for piece in told["pieces"]) != "  a\u2581b ".encode()


def test_missing_tokens_name_the_command_that_makes_them(project: Project) -> None:
    with pytest.raises(ArtifactError, match="there are no tokens/other") as caught:
        show(project, "x", name="other")
    assert "gptcli tokenize --name other" in caught.value.hint


def test_another_tokenizer_where_there_are_no_tokens(tmp_path: Path, data_dir: Path) -> None:
    project = Project.open(tmp_path)
    assert show(project, "a", f"{data_dir}/gpt2-bpe-vocab/encoder.json")["vocab_size"] == 50257
    with pytest.raises(ArtifactError):
        show(project, "a")
    with pytest.raises(ArtifactError):
        show(project, "a", f"{data_dir}/gpt2-bpe-vocab", name="main")
    with pytest.raises(ArtifactError, match="no tokenizer"):
        show(project, "a", "./nowhere")
    (tmp_path / "tokenizer.model").write_bytes(b"broken")
    with pytest.raises(ArtifactError, match="not a sentencepiece model") as caught:
        show(project, "a", "./tokenizer.model")
    assert caught.value.message.startswith(str(tmp_path / "tokenizer.model"))


def test_nothing_in_a_text_reaches_a_terminal_raw(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    report = showing.show(project, None, HOSTILE, [])
    assert report.figures["decodes_to_itself"]
    for as_json in (False, True):
        showing.print_shown(report, as_json)
        out = capsys.readouterr().out
        assert all(sign == "\n" or unicodedata.category(sign) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for sign in out)
    assert json.loads(out)["pieces"][0]["text"] == "\x1b"


def test_a_terminal_shows_colours_and_no_markup(project: Project, gptcli: Any) -> None:
    leader, follower = pty.openpty()
    environment = gptcli.environment(TERM="xterm-256color", COLUMNS="200")
    environment.pop("NO_COLOR", None)
    words = [*gptcli.command, "tokenize", "-C", str(project.root), "--show", "[bold]def[/bold] \x1b]0;title\x07 x"]
    with subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL, stdout=follower) as process:
        os.close(follower)
        shown = b""
        try:
            while part := os.read(leader, 65536):
                shown += part
        except OSError:  # the other end is closed
            pass
    os.close(leader)
    text = shown.decode()
    assert process.returncode == 0 and "\x1b[30;" in text
    plain = "".join(part.partition("m")[2] for part in f"m{text}".split("\x1b["))
    assert "[bold]def[/bold]·\\x1b]0;title\\x07·x" in plain and "\x07" not in text and "\x1b]" not in text


def test_standard_input_and_what_is_no_text(project: Project, gptcli: Any) -> None:
    def run(data: bytes, *words: bytes | str) -> subprocess.CompletedProcess[bytes]:
        command = [*gptcli.command, "tokenize", "-C", str(project.root), "--show", *words]
        return subprocess.run(command, input=data, env=gptcli.environment(), capture_output=True, check=False)

    done = run("déf\r\n".encode(), "-", "--json")
    assert json.loads(done.stdout)["bytes"] == 6
    broken = run(b"", b"a\xff\xfe")
    assert broken.returncode == 2 and b"byte 0xFF at 1" in broken.stderr and b"Traceback" not in broken.stderr


def test_texts_that_are_none(project: Project) -> None:
    with pytest.raises(SpecError, match="no UTF-8: byte 0xED at 1"):
        show(project, "a\ud800")
    with pytest.raises(SpecError, match="no UTF-8: byte 0x80 at 0"):
        show(project, "\udc80")
    with pytest.raises(SpecError, match="more than"):
        show(project, "a" * (showing.MOST_BYTES + 1))


def test_visible() -> None:
    assert visible(" a\tb\r\n") == "·a→b␍↵"
    assert visible("\x1b\u202e\ue000") == "\\x1b\\u202e\\ue000"
    assert visible("\u0301a") == "\u25cc\u0301a"
    assert visible_bytes(b"a\xe2\x96\x81\xe2\x96 \xff") == "a▁<E2><96>·<FF>"
    assert printable("a b\nc") == "a b\\nc"


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["--show", "x", "--verify"], "--show and --verify do not go together"),
        (["--stats", "--locate", "val:0"], "--stats and --locate do not go together"),
        (["--stats", "--force"], "--force would do nothing"),
        (["--show", "", "--vocab-size", "300"], "--vocab-size would do nothing"),
        (["--verify", "--set", "seed=1", "--dry-run"], "--set and --dry-run would do nothing"),
        (["--compare", "main"], "--compare sets other tokenizers beside --show or --stats"),
        (["--verify", "--compare", "main"], "--compare sets other tokenizers beside --show or --stats"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_views_exclude_each_other_and_what_makes_tokens(words: list[str], fault: str) -> None:
    from typer import Typer
    from typer.testing import CliRunner

    from gptcli.tokenize.command import tokenize

    app = Typer()
    app.command()(tokenize)
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, SpecError) and fault in result.exception.message and result.exception.hint
