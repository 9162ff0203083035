"""Fixtures every test may use."""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: small models, and test processes beside each other

from gptcli.artifacts.manifest import read_manifest, verify_files
from gptcli.artifacts.project import Project

DATA = Path(os.environ.get("GPTCLI_TEST_DATA", Path(__file__).parents[1] / ".." / "shared" / "data"))
INJECT = Path(__file__).parent / "faults" / "inject"  # the child's sitecustomize.py
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, PR_CAPBSET_DROP = 1, 2, 24  # linux/capability.h, linux/prctl.h


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real public data; tests that need it are skipped where it isn't."""
    if not DATA.is_dir():
        pytest.skip("no test data: set GPTCLI_TEST_DATA to its folder")
    return DATA.resolve()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """An empty project."""
    root = tmp_path / "project"
    root.mkdir()
    return Project.open(root)


@dataclass(frozen=True)
class Finished:
    """A gptcli process that has ended.

    `heavy`: which heavy packages it loaded; `events`: its fsyncs and renames (kind, path, seconds since the first).
    """

    code: int
    out: str
    err: str
    seconds: float
    heavy: tuple[str, ...] = ()
    events: tuple[tuple[str, str, float], ...] = ()

    @property
    def figures(self) -> dict[str, Any]:
        """stdout, which must be one JSON object and nothing else."""
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found

    def failed(self, code: int, *named: str) -> str:
        """Assert an error as every command shows it, naming the culprits; returns its line."""
        shown = f"exit {self.code}\n{self.out}{self.err}"
        assert self.code == code, shown
        assert "Traceback" not in self.err, shown
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, shown
        assert all(name in lines[0] for name in named), shown
        after = self.err.splitlines()[self.err.splitlines().index(lines[0]) + 1 :]
        assert len(after) == 1 and after[0].startswith("  hint: "), shown
        return lines[0]


class CommandLine:
    """`python -m gptcli` as a process of its own."""

    command = (sys.executable, "-m", "gptcli")

    def environment(self, **more: str) -> dict[str, str]:
        """A child's environment, without what the tests' own environment says to gptcli."""
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith(("GPTCLI_", "PYTEST_"))},
            "PYTHONPATH": f"{INJECT}{os.pathsep}{Path(__file__).parents[1]}",
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",  # small models: a second thread waits more than it computes
            **more,
        }

    def start(self, root: Path, *words: str, plain: bool = False, **environment: str) -> subprocess.Popen[str]:
        """Start a command in the project `root`; upper-case names are variables of its environment.

        `plain`: as a user whom permissions bind, even where the tests run as root.
        """
        return subprocess.Popen(
            [*self.command, *words],
            cwd=root,
            env=self.environment(**environment),
            text=True,
            encoding="utf-8",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=_obey_permissions if plain and os.geteuid() == 0 else None,
        )

    def __call__(
        self, root: Path, *words: str, expect: int | None = None, plain: bool = False, **environment: str
    ) -> Finished:
        """Run a command to its end; `expect` asserts its exit code."""
        report = root.parent / f".report-{os.getpid()}.json"
        started = time.monotonic()
        process = self.start(root, *words, plain=plain, **{"GPTCLI_TEST_REPORT": str(report), **environment})
        out, err = process.communicate(timeout=300)
        told = json.loads(report.read_text()) if report.is_file() else {"heavy": [], "events": []}
        report.unlink(missing_ok=True)
        events = tuple((kind, path, since) for kind, path, since in told["events"])
        seconds = time.monotonic() - started
        assert expect in (None, process.returncode), f"{' '.join(words)}: exit {process.returncode}\n{out}{err}"
        return Finished(process.returncode, out, err, seconds, tuple(told["heavy"]), events)


def _obey_permissions() -> None:
    """Give up root's right to pass over permissions; its owner's rights stay, so the interpreter can be read."""
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)


@pytest.fixture(scope="session")
def gptcli() -> CommandLine:
    return CommandLine()


RECIPE = """\
[corpus.main]
source = ["texts", "notes"]
separator = "blank_lines"
shard_bytes = 60_000

[tokenize.main]
vocab_size = 600

[pretrain.base]
dtype = "float32"
hidden_size = 64
num_layers = 2
num_heads = 2
num_kv_heads = 1
head_dim = 32
seq_len = 64
global_batch_tokens = 512
steps = 18
save_every = 5
val_every = 6
keep = 2
dropout = 0.1
threads = 1

[eval.base]
dtype = "float32"

[finetune-lora.chat]
chats = "chats.jsonl"
dtype = "float32"
val_share = 0.2
seq_len = 64
sequences = 8
steps = 8
save_every = 3
val_every = 4
warmup_steps = 2
dropout = 0.1
threads = 1
"""

STAGES = {
    "corpus": ("corpus",),
    "tokenize": ("tokenize",),
    "pretrain": ("pretrain",),
    "eval": ("eval", "base"),
    "finetune-lora": ("finetune-lora", "--base", "base"),
    "export": ("export", "chat", "--to", "hf"),
}
PLACES = {
    "corpus": "corpus/main",
    "tokenize": "tokens/main",
    "pretrain": "runs/base",
    "eval": "evals/base",
    "finetune-lora": "runs/chat",
    "export": "exports/main",
}


def make_sources(root: Path) -> None:
    """Some packages of the standard library, more notes than one unit of work holds, and chats in three shapes."""
    library = Path(sysconfig.get_path("stdlib"))
    for package in ("json", "email"):
        (root / "texts" / package).mkdir(parents=True)
        for path in sorted((library / package).glob("*.py")):
            shutil.copyfile(path, root / "texts" / package / path.name)
    (root / "notes").mkdir()
    for number in range(1100):
        (root / "notes" / f"{number:04d}.txt").write_text(f"Note {number}: {number} and {number} are {2 * number}.\n")
    draw = random.Random(7)
    rows: list[dict[str, Any]] = []
    for number in range(60):
        asked, answered = f"What is {number} and {draw.randint(0, 9)}?", "It is a number, as ever."
        turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
        shapes: list[dict[str, Any]] = [
            {"messages": turns},
            {"prompt": asked, "completion": answered},
            {"instruction": asked, "input": "", "output": answered},
        ]
        rows.append(shapes[number % 3])
    (root / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (root / "recipe.toml").write_text(RECIPE, encoding="utf-8")


@dataclass(frozen=True)
class Chain:
    """A small project that went through all stages once, undisturbed; nobody changes it."""

    root: Path
    stages: dict[str, Finished]

    def copy(self, target: Path, *, until: str | None = None) -> Path:
        """The project as it stood before the stage `until` ran (None: whole), at `target`."""
        names = list(STAGES)
        later = [PLACES[name] for name in (names[names.index(until) :] if until else [])]

        def ignore(directory: str, children: list[str]) -> set[str]:
            inside = Path(directory).relative_to(self.root).as_posix()
            return {
                child
                for child in children
                if f"{inside}/{child}" in later or child in (".gptcli", "notes") or child.endswith(".units")
            }

        shutil.copytree(self.root, target, ignore=ignore)
        (target / "notes").symlink_to(self.root / "notes")  # more than a thousand files that no test changes
        return target


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory, gptcli: CommandLine) -> Chain:
    """Made once for all processes of a test run."""
    home = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        home = home.parent
    root, record = home / "chain", home / "chain.json"
    with (home / "chain.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not record.is_file():
            shutil.rmtree(root, ignore_errors=True)
            make_sources(root)
            stages = {name: gptcli(root, *words, "--json", expect=0) for name, words in STAGES.items()}
            record.write_text(json.dumps({name: asdict(stage) for name, stage in stages.items()}), encoding="utf-8")
    told = json.loads(record.read_text(encoding="utf-8"))
    return Chain(root, {name: Finished(**stage) for name, stage in told.items()})


Snapshot = Callable[..., dict[str, str]]


@pytest.fixture(scope="session")
def snapshot() -> Snapshot:
    """Every file of a project and its hash: what must not differ between two ways to the same end."""

    def take(root: Path, *, below: str = "", whole: bool = False) -> dict[str, str]:
        """Without locks, timings and the manifests' records; `whole`: with timings and records."""
        files = sorted(path for path in (root / below).rglob("*") if path.is_file())
        return {
            path.relative_to(root).as_posix(): hashlib.sha256(_lasting(path, whole)).hexdigest()
            for path in files
            if ".gptcli" not in path.parts and (whole or path.name != "timings.jsonl")
        }

    return take


def _lasting(path: Path, whole: bool) -> bytes:
    if path.name != "manifest.json" or whole:
        return path.read_bytes()
    manifest = json.loads(path.read_bytes())
    manifest["records"] = sorted(manifest["records"])
    manifest.pop("manifest_sha256", None)  # the records are in it
    return json.dumps(manifest, sort_keys=True).encode()


@pytest.fixture(scope="session")
def finished_names() -> Callable[[Path], list[Path]]:
    """Every folder that carries an artifact's final name, each verified: to exist is to be whole."""

    def look(root: Path) -> list[Path]:
        containers = [root / name for name in ("corpus", "tokens", "evals", "exports")]
        containers += [*root.glob("models/*"), *root.glob("runs/*/checkpoints")]
        found = [
            path
            for container in containers
            if container.is_dir()
            for path in container.iterdir()
            if path.is_dir() and not path.name.startswith(".")
        ]
        for path in found:
            assert verify_files(path, read_manifest(path)) == [], path
        return found

    return look
