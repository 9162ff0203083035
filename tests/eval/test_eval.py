from __future__ import annotations

import gzip
import json
import lzma
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from safetensors.torch import load_file, save_file

from gptcli.artifacts.build import Build
from gptcli.artifacts.manifest import Inputs, read_manifest, verify_files
from gptcli.errors import ArtifactError, GateError, ResourceError, SpecError, StoppedError
from gptcli.eval import measurement
from gptcli.eval.command import evaluate
from gptcli.eval.naming import name_of
from gptcli.models.load import load_model, read_config, save_adapter
from gptcli.models.lora import LoraConfig, apply_lora
from gptcli.records.chats import held_out
from gptcli.records.sources import expand, fingerprint, source_inputs
from gptcli.runtime.stop import Stop
from gptcli.templates import encode_chat
from gptcli.tokenizer import Tokenizer

app = typer.Typer()
app.command()(evaluate)


def run(root: Path, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """The command's JSON object."""
    capsys.readouterr()
    app([*words, "-C", str(root), "--json", "-q", "--device", "cpu"], standalone_mode=False)
    return json.loads(capsys.readouterr().out)


def by_hand(root: Path, texts: list[str], directory: Path, seq_len: int) -> dict[str, float]:
    tokenizer, model = Tokenizer.load(directory), load_model(directory)
    stream = [token for text in texts for token in tokenizer.document(text)]
    nats, count, first = 0.0, 0, 0
    for start in range(0, len(stream) - 1, seq_len):
        window = stream[start : start + seq_len + 1]
        with torch.no_grad():
            logits = model(torch.tensor([window[:-1]]))[0].double().log_softmax(-1)
        for row, target in zip(logits, window[1:], strict=True):
            if target != tokenizer.bos_id:
                nats, count, first = nats - float(row[target]), count + 1, first + int(row.argmax() == target)
    return {"loss": nats / count, "bits_per_byte": nats / math.log(2) / sum(map(len, map(str.encode, texts)))} | {
        "tokens": count,
        "accuracy": first / count,
    }


def texts_of(root: Path) -> list[str]:
    from gptcli.scoring.provenance import _documents

    return [text for _, text in _documents(root / "corpus" / "main", "val")]


def test_figures_are_those_of_the_rule(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = run(made, capsys, "base", "--set", "dtype=float32")
    wanted = by_hand(made, texts_of(made), made / "runs/base/checkpoints/step-00000020", 32)
    assert {key: report[key] for key in wanted} == pytest.approx(wanted, rel=1e-5)
    assert report["documents"] == 20 and report["seq_len"] == 32
    assert report["perplexity"] == pytest.approx(math.exp(report["loss"]))
    place = made / "evals" / "base"
    stored = json.loads((place / "report.json").read_text(encoding="utf-8"))
    assert stored["figures"]["loss"] == report["loss"] and stored["model"] == "base"
    manifest = read_manifest(place, "evaluation")
    assert verify_files(place, manifest) == []
    assert {entry.role: entry.path for entry in manifest.inputs} == {
        "model": "runs/base/checkpoints/step-00000020",
        "tokens": "tokens/main",
    }
    assert manifest.records["tokens_per_second"] > 0 and manifest.records["device"] == "cpu"


def test_limit_takes_whole_documents(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = run(made, capsys, "base@10", "--set", "dtype=float32", "--set", "limit=9", "--set", "seq_len=20")
    wanted = by_hand(made, texts_of(made)[:9], made / "runs/base/checkpoints/step-00000010", 20)
    assert {key: report[key] for key in wanted} == pytest.approx(wanted, rel=1e-5)
    assert report["documents"] == 9 and report["name"] == "base-10"


def test_text_files_are_scored_like_a_split(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, text in enumerate(texts_of(made)):
        (made / "texts").mkdir(exist_ok=True)
        (made / "texts" / f"{number:02d}.txt").write_text(text, encoding="utf-8")
    split = run(made, capsys, "base", "--set", "dtype=float32")
    text = run(made, capsys, "base", "--set", "dtype=float32", "--text", "texts", "--name", "text")
    assert text["loss"] == split["loss"] and text["bits_per_byte"] == split["bits_per_byte"]
    assert {entry.role for entry in read_manifest(made / "evals" / "text").inputs} == {"model", "text"}
    (made / "texts" / "00.txt").write_text("something else", encoding="utf-8")
    with pytest.raises(ArtifactError, match="text texts has changed"):
        run(made, capsys, "base", "--set", "dtype=float32", "--text", "texts", "--name", "text")


def test_a_foreign_directory_is_scored(data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A really trained model: on its own kind of text it is far below chance and well below an untrained one."""
    story = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park.\n"
    (tmp_path / "story.txt").write_text(story, encoding="utf-8")
    model = data_dir / "stories260K-hf"
    report = run(tmp_path, capsys, str(model), "--text", "story.txt", "--set", "dtype=float32", "--name", "stories")
    assert report["loss"] < 1.6 and report["accuracy"] > 0.5
    assert report["seq_len"] == read_config(model).max_position_embeddings


def test_the_same_again_is_done_already(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = run(made, capsys, "base")
    again = run(made, capsys, "base")
    assert again["title"].endswith("done already")
    assert again["content_sha256"] == first["content_sha256"] and again["loss"] == first["loss"]


def test_the_same_again_imports_no_torch(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(made, capsys, "base", "--split", "val", "--chats", "chats.jsonl", "--set", "val_share=0.5")
    before = (made / "evals" / "base" / "manifest.json").read_bytes()
    words = ["base", "--split", "val", "--chats", "chats.jsonl", "--set", "val_share=0.5", "-C", str(made)]
    words += ["--fail-if", "loss>100"]
    script = (
        "import sys, typer; from gptcli.eval.command import evaluate\n"
        f"app = typer.Typer(); app.command()(evaluate); app({words!r}, standalone_mode=False)\n"
        "assert not {'torch', 'pyarrow', 'transformers'} & set(sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 0 and "done already" in ended.stdout, ended.stderr
    assert (made / "evals" / "base" / "manifest.json").read_bytes() == before


def test_a_signal_ends_it_without_half_a_report(
    made: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Stop, "install", lambda stop: setattr(stop, "requested", True))
        with pytest.raises(StoppedError):
            run(made, capsys, "base")
    assert not (made / "evals" / "base").exists()
    assert run(made, capsys, "base")["loss"] > 0


def test_gates_are_judged_after_the_report_and_again(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    words = ["base", "-C", str(made), "--json", "-q", "--device", "cpu"]
    for _ in range(2):
        with pytest.raises(GateError, match="bits_per_byte is"):
            app([*words, "--fail-if", "bits_per_byte>0.1", "--fail-if", "loss<0"], standalone_mode=False)
        assert json.loads(capsys.readouterr().out)["loss"] > 0
    run(made, capsys, "base", "--fail-if", "bits_per_byte>100")
    with pytest.raises(SpecError, match="did you mean bits_per_byte"):
        run(made, capsys, "base", "--fail-if", "bits_per_bytes>100")
    with pytest.raises(SpecError, match="no figure chat_loss"):
        run(made, capsys, "base", "--fail-if", "chat_loss>1")


def test_baselines_are_what_the_compressors_give(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = run(made, capsys, "base", "--baselines", "--set", "limit=15")
    documents = [text.encode() for text in texts_of(made)[:15]]
    total = sum(map(len, documents))
    xz = lzma.PRESET_EXTREME | 9
    assert report["text_bytes"] == total
    assert report["gzip_bits_per_byte"] == 8 * sum(len(gzip.compress(one, 9)) for one in documents) / total
    assert report["xz_bits_per_byte"] == 8 * sum(len(lzma.compress(one, preset=xz)) for one in documents) / total
    assert report["gzip_bits_per_byte_stream"] == 8 * len(gzip.compress(b"".join(documents), 9)) / total
    assert report["xz_bits_per_byte_stream"] == 8 * len(lzma.compress(b"".join(documents), preset=xz)) / total


def test_baselines_need_the_corpus_the_tokens_were_made_of(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (made / "corpus" / "main").rename(made / "corpus" / "other")
    with pytest.raises(ArtifactError, match="corpus behind tokens/main is gone"):
        run(made, capsys, "base", "--baselines")


def test_chats_are_scored_on_held_out_answers_alone(
    made: Path, tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--chats", "chats.jsonl", "--set", "val_share=0.5", "--set", "dtype=float32")
    report = run(made, capsys, "base", *words)
    assert "loss" not in report
    model = load_model(made / "runs/base/checkpoints/step-00000020")
    questions = [question for number in range(40) if held_out(question := f"what is {number}?", 0.5)]
    nats, tokens = 0.0, 0
    for question in questions:
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": "a cat"}]
        ids, loss = encode_chat(tokenizer, messages)
        with torch.no_grad():
            logits = model(torch.tensor([ids]))[0].double().log_softmax(-1)
        for at in range(1, len(ids)):
            if loss[at]:
                nats, tokens = nats - float(logits[at - 1, ids[at]]), tokens + 1
    assert report["chats"] == len(questions) and report["chat_tokens"] == tokens
    assert report["chat_loss"] == pytest.approx(nats / tokens, rel=1e-5)
    assert report["chats_left_out"] == {"bad_row:no_chat": 1, "longer_than_seq_len": 1}
    both = run(made, capsys, "base", *words, "--split", "val", "--name", "both")
    assert both["chat_loss"] == report["chat_loss"] and both["bits_per_byte"] > 0


def test_batch_size_is_no_part_of_what_is_measured(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(made, capsys, "base", "--set", "batch_size=1")
    assert run(made, capsys, "base", "--set", "batch_size=7")["title"].endswith("done already")


def test_an_adapter_is_scored_on_its_base(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = made / "runs/base/checkpoints/step-00000020"
    model = load_model(base)
    lora = LoraConfig(2, 4.0, target_modules=("q_proj",))
    apply_lora(model, lora, torch.Generator().manual_seed(0))
    (made / "adapter").mkdir()
    save_adapter(model, lora, str(base), made / "adapter")  # a fresh adapter changes nothing
    plain = run(made, capsys, "base", "--set", "dtype=float32")
    adapted = run(made, capsys, "./adapter", "--set", "dtype=float32")
    assert adapted["loss"] == pytest.approx(plain["loss"], rel=1e-6) and adapted["name"] == "adapter"
    assert [entry.role for entry in read_manifest(made / "evals" / "adapter").inputs] == ["model", "base", "tokens"]


def test_tokens_of_another_tokenizer_are_refused_naming_both(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = made / "tokens" / "main" / "tokenizer" / "tokenizer.model"
    model.write_bytes(model.read_bytes() + b"\x00")
    with pytest.raises(ArtifactError, match=r"another tokenizer \(runs/base/.*\) than the tokens main \(tokens/main"):
        run(made, capsys, "base")
    assert not (made / "evals" / "base").exists()


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (("nothing",), ArtifactError, "no run nothing"),
        (("base", "--set", "tokens=other"), ArtifactError, "no tokens artifact other"),
        (("base", "--split", "test"), ArtifactError, "no test split"),
        (("base", "--split", "validation"), SpecError, "split"),
        (("base", "--set", "seq_len=33"), SpecError, "seq_len = 33 is longer"),
        (("base", "--text", "gone.txt"), SpecError, "no file gone.txt"),
        (("base", "--text", "empty.txt"), SpecError, "no token to predict"),
        (("base", "--text", "binary.txt"), SpecError, "holds no text"),
        (("base", "--text", "empty.txt", "--set", "separator=("), SpecError, "separator"),
        (("base", "--text", "empty.txt", "--split", "test"), SpecError, "text files have no split"),
        (("base", "--text", "python:docstrings"), SpecError, "python:docstrings holds chats"),
        (("base", "--set", "tokens="), SpecError, "nothing to score"),
        (("base", "--set", "sequence=3"), SpecError, "unknown key sequence"),
        (("base", "--chats", "chats.jsonl", "--set", "val_share=0.0000001"), SpecError, "no chat of chats.jsonl"),
        (("base", "--fail-if", "loss"), SpecError, "expected METRIC OP NUMBER"),
    ],
)
def test_bad_input_is_refused(
    made: Path,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    error: type[Exception],
    message: str,
) -> None:
    (made / "empty.txt").write_text("")
    (made / "binary.txt").write_bytes(b"\x00\x01\x02")
    with pytest.raises(error, match=message):
        run(made, capsys, *words)
    assert not (made / "evals" / "base").exists()


def test_a_device_that_is_not_there_is_refused(made: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(ResourceError, match="cuda"):
        app(["base", "-C", str(made), "-q", "--device", "cuda"], standalone_mode=False)


def test_weights_that_are_not_finite_are_told(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (made / "broken").mkdir()
    for path in (made / "runs/base/checkpoints/step-00000020").iterdir():
        if path.is_file() and path.name != "manifest.json":
            (made / "broken" / path.name).write_bytes(path.read_bytes())
    weights = load_file(made / "broken" / "model.safetensors")
    weights["model.norm.weight"][0] = math.nan
    save_file(weights, made / "broken" / "model.safetensors", {"format": "pt"})
    with pytest.raises(ArtifactError, match="no trained model's"):
        run(made, capsys, "./broken")


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("base", "base"),
        ("base@best", "base-best"),
        ("m:1.2.0", "m-1.2.0"),
        ("./a/b", "a-b"),
        ("../x", "x"),
        (".", "base"),
    ],
)
def test_names(model: str, name: str) -> None:
    assert name_of(model) == name


def trained_adapter(made: Path, share: float) -> None:
    """runs/chat, as fine-tuning leaves it: an adapter whose manifest tells the chats it saw."""
    base = made / "runs/base/checkpoints/step-00000020"
    model, lora = load_model(base), LoraConfig(2, 4.0, target_modules=("q_proj",))
    apply_lora(model, lora, torch.Generator().manual_seed(0))
    files = expand(["chats.jsonl"], made)
    sources = fingerprint(files)
    seen = Inputs((*source_inputs(files, sources, "chats"),), sources)
    spec = {"chats": ["chats.jsonl"], "val_share": share}
    place = made / "runs" / "chat" / "checkpoints" / "step-00000005"
    build = Build.open(place, kind="checkpoint", spec=spec, inputs=seen, say=print)
    save_adapter(model, lora, "runs/base/checkpoints/step-00000020", build.directory)
    build.commit({"step": 5}, {})


def test_chats_an_adapter_learned_from_are_never_held_out(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained_adapter(made, 0.3)
    report = run(made, capsys, "chat", "--chats", "chats.jsonl")
    assert report["chats"] == sum(held_out(f"what is {number}?", 0.3) for number in range(40))
    assert report["chats_val_share"] == 0.3
    copied = (made / "chats.jsonl").read_bytes()
    (made / "copy.jsonl").write_bytes(copied)
    for chats in ("chats.jsonl", "copy.jsonl"):
        with pytest.raises(SpecError, match="learned from the rest"):
            run(made, capsys, "chat", "--chats", chats, "--set", "val_share=0.5", "--name", "more")
    (made / "copy.jsonl").write_bytes(copied[copied.index(b"\n") + 1 :])  # other chats, as far as anyone can tell
    run(made, capsys, "chat", "--chats", "copy.jsonl", "--set", "val_share=0.5", "--name", "more")
    run(made, capsys, "chat", "--chats", "chats.jsonl", "--set", "val_share=0.2", "--name", "less")


def test_an_adapter_that_held_nothing_out_has_no_chats_to_score(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained_adapter(made, 0.0)
    with pytest.raises(SpecError, match="learned from the rest") as caught:
        run(made, capsys, "chat", "--chats", "chats.jsonl")
    assert "other chats" in caught.value.hint


def test_the_name_follows_the_model_wherever_it_was_named(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(made, capsys, "--set", "model='base@10'")["name"] == "base-10"
    (made / "recipe.toml").write_text('[eval.base]\nmodel = "base@best"\nlimit = 3\n', encoding="utf-8")
    report = run(made, capsys)
    assert report["name"] == "base-best" and report["documents"] == 3
    assert run(made, capsys, "--name", "nightly", "--set", "model=base")["name"] == "nightly"
    assert not (made / "evals" / "base").exists()


def test_chats_alone_need_no_tokens(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (made / "tokens").rename(made / "elsewhere")
    report = run(made, capsys, "base", "--chats", "chats.jsonl", "--set", "val_share=0.5")
    assert report["chats"] > 0 and "loss" not in report
    with pytest.raises(ArtifactError, match="no tokens artifact main"):
        run(made, capsys, "base", "--chats", "chats.jsonl", "--split", "val")


def test_text_that_changes_while_it_is_scored_is_refused(
    made: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (made / "texts").mkdir()
    (made / "texts" / "a.txt").write_text("the cat sat\n", encoding="utf-8")
    opened = measurement.open_model

    def later(*arguments: Any) -> Any:
        (made / "texts" / "0.txt").write_text("a dog ran\n", encoding="utf-8")
        return opened(*arguments)

    monkeypatch.setattr(measurement, "open_model", later)
    assert run(made, capsys, "base", "--text", "texts")["text_bytes"] == len("the cat sat\n")

    (made / "texts" / "0.txt").unlink()

    def other(*arguments: Any) -> Any:
        (made / "texts" / "a.txt").write_text("the cat sat on the mat\n", encoding="utf-8")
        return opened(*arguments)

    monkeypatch.setattr(measurement, "open_model", other)
    with pytest.raises(SpecError, match=r"texts/a\.txt changed while it was read"):
        run(made, capsys, "base", "--text", "texts", "--set", "limit=1", "--name", "other")
