"""Bad input: one line that names the culprit, a hint, the right exit code, no traceback, and nothing lost."""

from __future__ import annotations

import gzip
import json
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

BASE = "runs/base/checkpoints/step-00000018"
ADAPTER = "runs/chat/checkpoints/step-00000008"
SPEC, ARTIFACT, RESOURCE, GATE, DIVERGED, STOPPED = 2, 3, 4, 5, 6, 75
NEW = ("--name", "new")


def nothing(root: Path) -> None:
    """The project as it is."""


@dataclass(frozen=True)
class Case:
    words: tuple[str, ...]
    code: int
    named: tuple[str, ...]
    change: Callable[[Path], None] = nothing
    heavy: bool = False  # whether torch may be loaded before the error is known
    plain: bool = False  # as a user whom permissions bind
    environment: dict[str, str] = field(default_factory=dict)


def write(name: str, text: str | bytes, mode: int = 0o644) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        path.chmod(mode)

    return change


def folder(name: str, mode: int = 0o755, *files: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        (root / name).mkdir()
        for file in files:
            (root / name / file).write_text("some text\n")
        (root / name).chmod(mode)

    return change


def recipe(old: str, new: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        text = (root / "recipe.toml").read_text()
        assert old in text
        (root / "recipe.toml").write_text(text.replace(old, new, 1))

    return change


def gone(*names: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        for name in names:
            shutil.rmtree(root / name) if (root / name).is_dir() else (root / name).unlink()

    return change


def flipped(name: str, *also_gone: str) -> Callable[[Path], None]:
    """One bit of one byte, in the middle of a file."""

    def change(root: Path) -> None:
        gone(*also_gone)(root)
        data = bytearray((root / name).read_bytes())
        data[len(data) // 2] ^= 1
        (root / name).write_bytes(data)

    return change


def manifest(place: str, **fields: object) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        path = root / place / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

    return change


SOURCES = {
    "missing file": Case(("corpus", "books/none.txt", *NEW), SPEC, ("books/none.txt",)),
    "empty folder": Case(("corpus", "bare", *NEW), SPEC, ("bare",), folder("bare")),
    "no match": Case(("corpus", "books/*.txt", *NEW), SPEC, ("books/*.txt",)),
    "a url": Case(("corpus", "https://example.org/a.txt", *NEW), SPEC, ("https://example.org/a.txt",)),
    "unreadable folder": Case(("corpus", "shut", *NEW), SPEC, ("shut",), folder("shut", 0o000, "a.txt"), plain=True),
    "unreadable folder, globbed": Case(
        ("corpus", "shut/*.txt", *NEW), SPEC, ("shut",), folder("shut", 0o000, "a.txt"), plain=True
    ),
    "unreadable file": Case(("corpus", "a.txt", *NEW), SPEC, ("a.txt",), write("a.txt", "a", 0o000), plain=True),
    "unreadable chats": Case(
        ("finetune-lora", "a.jsonl", *NEW), SPEC, ("a.jsonl",), write("a.jsonl", "{}", 0o000), plain=True
    ),
    "no text key": Case(
        ("corpus", "a.jsonl", *NEW),
        SPEC,
        ("a.jsonl", "body", "title"),
        write("a.jsonl", '{"body": "a", "title": "b"}\n'),
    ),
    "no row is an object": Case(("corpus", "a.jsonl", *NEW), SPEC, ("a.jsonl",), write("a.jsonl", "[1]\n2\n")),
    "nothing but binary": Case(("corpus", "a.bin", *NEW), SPEC, ("not_text",), write("a.bin", bytes(range(256)))),
    "nothing but blanks": Case(("corpus", "a.txt", *NEW), SPEC, ("empty",), write("a.txt", "\n \n")),
    "missing chats": Case(("finetune-lora", "none.jsonl", *NEW), SPEC, ("none.jsonl",)),
    "chats that are text": Case(
        ("finetune-lora", "a.txt", *NEW), SPEC, ("a.txt",), write("a.txt", "hello\n"), heavy=True
    ),
    "chats of another form": Case(
        ("finetune-lora", "a.jsonl", *NEW),
        SPEC,
        ("a.jsonl:1", "question"),
        write("a.jsonl", '{"question": 1}\n'),
        heavy=True,
    ),
    "missing text": Case(("eval", "base", "--text", "none.txt", *NEW), SPEC, ("none.txt",)),
    "empty text": Case(("eval", "base", "--text", "a.txt", *NEW), SPEC, ("a.txt",), write("a.txt", ""), heavy=True),
}

KEYS = {
    "unknown key, set": Case(("pretrain", "--set", "hiden_size=3", *NEW), SPEC, ("hiden_size", "hidden_size")),
    "unknown key, recipe": Case(
        ("corpus",), SPEC, ("recipe.toml [corpus.main]", "seperator", "separator"), recipe("separator", "seperator")
    ),
    "unknown table": Case(("pretrain", "--set", "model.width=3", *NEW), SPEC, ("model",)),
    "a table where a value is due": Case(("pretrain", "--set", "steps.a=3", *NEW), SPEC, ("steps",)),
    "no value": Case(("pretrain", "--set", "steps", *NEW), SPEC, ("--set steps",)),
    "negative rate": Case(("pretrain", "--set", "lr=-1", *NEW), SPEC, ("lr = -1", "--set")),
    "rate that is no number": Case(("pretrain", "--set", "lr=nan", *NEW), SPEC, ("lr",)),
    "text where a number is due": Case(("pretrain", "--set", "steps=many", *NEW), SPEC, ("steps = 'many'",)),
    "no steps": Case(("pretrain", "--steps", "-1", *NEW), SPEC, ("steps = -1", "flag")),
    "batch that does not fit": Case(
        ("pretrain", "--set", "global_batch_tokens=1000", *NEW),
        SPEC,
        ("global_batch_tokens=1000", "seq_len=64", "960, 1024"),
    ),
    "heads that do not fit": Case(("pretrain", "--set", "num_kv_heads=3", *NEW), SPEC, ("num_heads", "num_kv_heads=3")),
    "unknown optimizer": Case(("pretrain", "--set", "optimizer=sgd", *NEW), SPEC, ("optimizer = 'sgd'",)),
    "shares that leave nothing": Case(("corpus", "texts", "--set", "val_share=0.99", *NEW), SPEC, ("val_share",)),
    "broken pattern": Case(("corpus", "texts", "--set", "separator='(('", *NEW), SPEC, ("((",)),
    "vocabulary too small": Case(("tokenize", "--set", "vocab_size=10", *NEW), SPEC, ("vocab_size = 10",)),
    "vocabulary too large": Case(("tokenize", "--set", "vocab_size=900000", *NEW), SPEC, ("vocab_size",)),
    "unknown format": Case(("export", "base", "--to", "gguf", *NEW), SPEC, ("gguf",)),
    "merge of what is no adapter": Case(("export", "base", "--set", "merge=false", *NEW), SPEC, ("merge",)),
    "context too long": Case(
        ("eval", "base", "--set", "seq_len=4096", *NEW), SPEC, ("seq_len = 4096", "64"), heavy=True
    ),
    "chat context too long": Case(
        ("finetune-lora", "--set", "seq_len=4096", *NEW), SPEC, ("seq_len=4096", "64"), heavy=True
    ),
    "gate that is none": Case(("eval", "base", "--fail-if", "better"), SPEC, ("better",)),
    "gate on no figure": Case(("eval", "base", "--fail-if", "bits>1"), SPEC, ("bits",)),
    "no version": Case(("checkpoint", "tag", "base", "newest"), SPEC, ("newest",)),
    "broken recipe": Case(("corpus",), SPEC, ("recipe.toml",), recipe("[corpus.main]", "[corpus.main")),
    "recipe of another encoding": Case(("corpus",), SPEC, ("recipe.toml",), write("recipe.toml", b"a = '\xff'\n")),
    "recipe without tables": Case(("corpus",), SPEC, ("corpus",), write("recipe.toml", "corpus = 3\n")),
    "stage without names": Case(("corpus",), SPEC, ("corpus.main",), write("recipe.toml", "[corpus]\nmain = 3\n")),
    "a table of no stage": Case(
        ("corpus", "texts", *NEW), SPEC, ("[pretran]",), recipe("[pretrain.base]", "[pretran.base]")
    ),
    "a key above every name": Case(
        ("pretrain", *NEW),
        SPEC,
        ("pretrain.lr = -1",),
        recipe("[pretrain.base]", "[pretrain]\nlr = -1\n[pretrain.base]"),
    ),
    "a key with two types": Case(
        ("pretrain", "--set", "micro_batch_size=0", *NEW),
        SPEC,
        ("micro_batch_size = 0 (--set): should be", "or should be 'auto'"),
    ),
    "no such device": Case(("pretrain", "--device", "abacus", *NEW), SPEC, ("abacus",)),
    "no such device, eval": Case(("eval", "base", "--device", "abacus", *NEW), SPEC, ("abacus",)),
    "a step in superscript": Case(("eval", "base@²", *NEW), ARTIFACT, ("²",)),
    "missing recipe": Case(("corpus", "--recipe", "other.toml"), SPEC, ("other.toml",)),
    "missing project": Case(("corpus", "-C", "elsewhere"), SPEC, ("elsewhere",)),
    "a project that is a file": Case(("status", "-C", "recipe.toml"), SPEC, ("recipe.toml",)),
    "a name that leads elsewhere": Case(("corpus", "--name", "../main"), SPEC, ("../main",)),
    "a name with a folder": Case(("pretrain", "--name", "a/b"), SPEC, ("a/b",)),
    "a hidden name": Case(("pretrain", "--name", ".base.partial"), SPEC, (".base.partial",)),
}

ARTIFACTS = {
    "no corpus yet": Case(("tokenize",), ARTIFACT, ("corpus",), gone("corpus", "tokens")),
    "no tokens yet": Case(("pretrain",), ARTIFACT, ("tokens/main",), gone("tokens", "runs")),
    "no such tokens": Case(("pretrain", "--set", "tokens=other", *NEW), ARTIFACT, ("tokens/other",)),
    "no such run": Case(("eval", "bass"), ARTIFACT, ("bass", "base, chat")),
    "no such step": Case(("eval", "base@7"), ARTIFACT, ("base", "7", "15, 18")),
    "no such version": Case(("eval", "small:1.0.0"), ARTIFACT, ("small",)),
    "no such directory": Case(("eval", "./elsewhere"), ARTIFACT, ("elsewhere",)),
    "no such base": Case(("finetune-lora", "--base", "bass", *NEW), ARTIFACT, ("bass",)),
    "adapter as a base": Case(("finetune-lora", "--base", "chat", *NEW), ARTIFACT, ("chat", "adapter")),
    "nothing to export": Case(("export", "bass", *NEW), ARTIFACT, ("bass",)),
    "nothing to show": Case(("checkpoint", "show", "bass"), ARTIFACT, ("bass",)),
    "nothing to verify": Case(("checkpoint", "verify", "bass"), ARTIFACT, ("bass",)),
    "nothing to tag": Case(("checkpoint", "tag", "bass", "1.0.0"), ARTIFACT, ("bass",)),
    "nothing to prune": Case(("checkpoint", "prune", "bass", "--keep", "1"), ARTIFACT, ("bass",)),
    "nobody to chat with": Case(("chat", "bass", "--prompt", "a"), ARTIFACT, ("bass",), heavy=True),
    "manifest cut short": Case(
        ("pretrain", *NEW),
        ARTIFACT,
        ("tokens/main/manifest.json",),
        write("tokens/main/manifest.json", '{"kind": "tok'),
    ),
    "manifest of a newer gptcli": Case(
        ("pretrain", *NEW),
        ARTIFACT,
        ("tokens/main", "9.9.9"),
        manifest("tokens/main", format_version=99, gptcli_version="9.9.9"),
    ),
    "another kind": Case(
        ("pretrain", *NEW), ARTIFACT, ("tokens/main", "corpus"), manifest("tokens/main", kind="corpus")
    ),
    "a foreign folder": Case(("corpus", "texts", *NEW), ARTIFACT, ("corpus/new",), write("corpus/new", "")),
    "flipped byte, resume": Case(
        ("pretrain",),
        ARTIFACT,
        ("step-00000015", "model.safetensors"),
        flipped("runs/base/checkpoints/step-00000015/model.safetensors", "runs/base/manifest.json", BASE),
        heavy=True,
    ),
    "flipped byte in the optimizer, resume": Case(
        ("pretrain",),
        ARTIFACT,
        ("step-00000015", "trainer/optimizer.safetensors"),
        flipped("runs/base/checkpoints/step-00000015/trainer/optimizer.safetensors", "runs/base/manifest.json", BASE),
        heavy=True,
    ),
    "flipped byte in an adapter, resume": Case(
        ("finetune-lora",),
        ARTIFACT,
        ("step-00000006", "adapter_model.safetensors"),
        flipped("runs/chat/checkpoints/step-00000006/adapter_model.safetensors", "runs/chat/manifest.json", ADAPTER),
        heavy=True,
    ),
    "flipped byte, eval": Case(
        ("eval", "base", "--force"),
        ARTIFACT,
        (f"{BASE}/model.safetensors",),
        flipped(f"{BASE}/model.safetensors"),
        heavy=True,
    ),
    "flipped byte in the config, eval": Case(
        ("eval", "base", "--force"), ARTIFACT, (f"{BASE}/config.json",), flipped(f"{BASE}/config.json"), heavy=True
    ),
    "flipped byte, base": Case(
        ("finetune-lora", *NEW),
        ARTIFACT,
        (f"{BASE}/model.safetensors",),
        flipped(f"{BASE}/model.safetensors"),
        heavy=True,
    ),
    "flipped byte, export": Case(
        ("export", "chat", *NEW),
        ARTIFACT,
        (f"{ADAPTER}/adapter_model.safetensors",),
        flipped(f"{ADAPTER}/adapter_model.safetensors"),
        heavy=True,
    ),
    "flipped byte, chat": Case(
        ("chat", "base", "--prompt", "a"),
        ARTIFACT,
        (f"{BASE}/tokenizer.model",),
        flipped(f"{BASE}/tokenizer.model"),
        heavy=True,
    ),
    "flipped byte, verify": Case(
        ("checkpoint", "verify", "base"),
        ARTIFACT,
        (f"{BASE}/trainer/optimizer.safetensors",),
        flipped(f"{BASE}/trainer/optimizer.safetensors"),
    ),
    "flipped byte, verify all": Case(
        ("checkpoint", "verify"),
        ARTIFACT,
        ("corpus/main/val-00000.arrow",),
        flipped("corpus/main/val-00000.arrow"),
        heavy=True,  # shapes are held against the model that the config describes
    ),
    "flipped byte, tag": Case(
        ("checkpoint", "tag", "base", "1.0.0"),
        ARTIFACT,
        ("model.safetensors",),
        flipped(f"{BASE}/model.safetensors"),
    ),
}

MACHINE = {
    "no GPU, pretrain": Case(("pretrain", "--device", "cuda", *NEW), RESOURCE, ("cuda",), heavy=True),
    "no GPU, finetune-lora": Case(("finetune-lora", "--device", "cuda", *NEW), RESOURCE, ("cuda",), heavy=True),
    "no GPU, eval": Case(("eval", "base", "--device", "cuda", *NEW), RESOURCE, ("cuda",), heavy=True),
    "no GPU, chat": Case(("chat", "base", "--prompt", "a", "--device", "cuda"), RESOURCE, ("cuda",), heavy=True),
    "no GPU, pretrain again": Case(("pretrain", "--force", "--device", "cuda"), RESOURCE, ("cuda",), heavy=True),
    "no GPU, finetune-lora again": Case(
        ("finetune-lora", "--force", "--device", "cuda"), RESOURCE, ("cuda",), heavy=True
    ),
    "a model the disk can't hold": Case(("pretrain", "--set", "hidden_size=2000000", *NEW), RESOURCE, ("disk",)),
    **{
        f"little disk, {words[0]}": Case(
            (*words, *NEW), RESOURCE, (words[0], "disk"), environment={"GPTCLI_TEST_FREE": "9"}
        )
        for words in (
            ("corpus", "texts"),
            ("tokenize",),
            ("pretrain",),
            ("finetune-lora", "chats.jsonl"),
            ("export",),
            ("eval",),
        )
    },
    "a project that can't be written": Case(
        ("corpus", "texts", *NEW), RESOURCE, (), lambda root: root.chmod(0o555), plain=True
    ),
    "a rate that diverges": Case(
        ("pretrain", "--set", "optimizer=adamw", "--set", "lr=1e30", "--set", "embedding_lr=1e30", *NEW),
        DIVERGED,
        ("diverged", "step"),
        heavy=True,
    ),
}

CASES = SOURCES | KEYS | ARTIFACTS | MACHINE


@pytest.fixture
def root(chain, tmp_path) -> Path:
    """The whole project, with tables for runs named `new` like those that stand."""
    copied: Path = chain.copy(tmp_path / "project")
    path = copied / "recipe.toml"
    tables = [table for table in path.read_text().split("\n\n") if table.startswith(("[pretrain", "[finetune-lora"))]
    more = "\n\n".join(table.replace(".base]", ".new]").replace(".chat]", ".new]") for table in tables)
    path.write_text(f"{path.read_text()}\n{more}\n")
    return copied


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_one_line_that_names_the_culprit(case: Case, root, gptcli, snapshot) -> None:
    case.change(root)
    before = snapshot(root, whole=True)
    done = gptcli(root, *case.words, plain=case.plain, **case.environment)
    for path in [root, *root.iterdir()]:
        path.chmod(path.stat().st_mode | 0o700)
    done.failed(case.code, *case.named)
    assert done.out == "" or case.words[:2] == ("checkpoint", "verify")
    assert case.heavy or "torch" not in done.heavy
    after = snapshot(root, whole=True)
    assert {name: after.get(name) for name in before} == before


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("corpsu",), "corpus"),
        (("corpus", "--nmae", "a"), "--nmae"),
        (("corpus", "--name"), "--name"),
        (("pretrain", "--steps", "many"), "many"),
        (("checkpoint", "shew"), "show"),
        (("checkpoint", "tag", "base"), "version"),
    ],
)
def test_usage(words, named, root, gptcli) -> None:
    done = gptcli(root, *words)
    done.failed(SPEC, named)
    assert done.out == "" and done.heavy == () and "gptcli" in done.err


def test_no_arguments_ask_for_help(root, gptcli) -> None:
    assert "Commands:" in gptcli(root, expect=2).err


def test_damage_among_good_text_is_counted_and_the_rest_kept(root, gptcli) -> None:
    rows = "".join(json.dumps({"text": f"Row {number} of {number * 7919}."}) + "\n" for number in range(2000))
    whole = gzip.compress(rows.encode(), mtime=0)
    write("cut.jsonl.gz", whole[: len(whole) // 2])(root)
    write("mixed.jsonl", '{"text": "first"}\n[1, 2]\n{"body": "none"}\nnot json\n{"text": "last"}\n')(root)
    done = gptcli(root, "corpus", "cut.jsonl.gz", "mixed.jsonl", *NEW, "--json", expect=0)
    cut, mixed = done.figures["sources"]
    assert done.figures["faults"] == [{"path": "cut.jsonl.gz", "fault": "truncated"}]
    assert "cut.jsonl.gz" in done.err
    assert 500 < cut["documents"] < 2000
    assert mixed["documents"] == 2
    assert sum(mixed["left_out"].values()) == 3 and all(name.startswith("bad_row:") for name in mixed["left_out"])
    write("chats-cut.jsonl.gz", gzip.compress((root / "chats.jsonl").read_bytes(), mtime=0)[:-40])(root)
    write("chats-mixed.jsonl", '{"prompt": "a", "completion": "b"}\n{"prompt": "a"}\n3\n')(root)
    tuned = gptcli(
        root, "finetune-lora", "chats-cut.jsonl.gz", "chats-mixed.jsonl", "--steps", "1", *NEW, "--json", expect=0
    )
    assert "chats-cut.jsonl.gz" in tuned.err
    assert sum(tuned.figures["left_out"].values()) >= 2


def test_tokens_of_another_tokenizer(root, gptcli, snapshot) -> None:
    gptcli(root, "tokenize", "--name", "other", "--set", "vocab_size=500", expect=0)
    before = snapshot(root, whole=True)
    done = gptcli(root, "eval", "base", "--set", "tokens=other", *NEW)
    done.failed(ARTIFACT, "tokens/other", BASE)
    # An interrupted run goes on with the tokens it began with, or not at all.
    gone("runs/base/manifest.json")(root)
    before.pop("runs/base/manifest.json")
    gptcli(root, "pretrain", "--set", "tokens=other").failed(ARTIFACT, "tokens")
    assert {name: hashed for name, hashed in snapshot(root, whole=True).items() if name in before} == before


def test_what_is_damaged_can_be_forced(root, gptcli) -> None:
    for name in ("corpus/main/manifest.json", "runs/base/manifest.json"):
        (root / name).write_text("{")
    gptcli(root, "corpus").failed(ARTIFACT, "corpus/main/manifest.json", "cannot be read")
    gptcli(root, "corpus", "--force", expect=0)
    gptcli(root, "pretrain", "--force", "--steps", "1", expect=0)
    assert (root / "runs/base.1" / "checkpoints").is_dir()  # nothing trained is deleted
    gptcli(root, "checkpoint", "verify", "base", expect=0)


def test_the_same_run_twice_at_once(root, gptcli, snapshot) -> None:
    ready = root.parent / "ready"
    words = ("pretrain", "--steps", "5000", *NEW)
    first = gptcli.start(root, *words, GPTCLI_TEST_READY=str(ready))
    deadline = time.monotonic() + 120
    while not ready.is_file() and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    second = gptcli(root, *words)
    second.failed(ARTIFACT, "runs/new", "busy", f"pid {first.pid}")
    assert "torch" not in second.heavy
    gptcli(root, "corpus", "texts", *NEW, expect=0)  # other work goes on
    assert first.poll() is None
    first.send_signal(signal.SIGTERM)
    _, err = first.communicate(timeout=120)
    assert first.returncode == STOPPED, err
    assert "hint: run the same command to go on" in err
    steps = [path.name for path in (root / "runs/new/checkpoints").iterdir()]
    assert steps and gptcli(root, "checkpoint", "verify", "new", expect=0)
