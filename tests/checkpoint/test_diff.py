from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from gptcli.checkpoint.command import checkpoint
from gptcli.checkpoint.moved import compare_models, place_of, tensors_of
from gptcli.errors import ArtifactError

SVG = "{http://www.w3.org/2000/svg}"


def ask(root: Path, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    checkpoint([*words, "-C", str(root), "--json"], standalone_mode=False)
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def show(root: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    checkpoint([*words, "-C", str(root)], standalone_mode=False)
    return capsys.readouterr().out


def foreign(root: Path, name: str, change: Any) -> str:
    """A directory without a manifest: base@100 with its tensors and its config changed by `change(tensors, config)`."""
    source, target = root / "runs/base/checkpoints/step-00000100", root / name
    target.mkdir()
    tensors, config = load_file(source / "model.safetensors"), json.loads((source / "config.json").read_text())
    change(tensors, config)
    save_file(tensors, target / "model.safetensors", {"format": "pt"})
    (target / "config.json").write_text(json.dumps(config))
    (target / "tokenizer.model").write_bytes((source / "tokenizer.model").read_bytes())
    return f"./{name}"


def test_a_checkpoint_and_itself(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = ask(root, capsys, "diff", "base@100", "base@100")
    assert found["same"] is True and found["title"] == "base@100 and base@100: no difference"
    told = ("config", "tokenizer", "spec", "lineage", "only_first", "only_second")
    assert not any(found[key] for key in told) and all(tensor["same"] for tensor in found["tensors"])
    assert show(root, capsys, "diff", "base@100", "base@100") == "base@100 and base@100: no difference\n"


def test_which_layers_moved(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def change(tensors: dict[str, torch.Tensor], config: dict[str, Any]) -> None:
        tensors["model.layers.1.self_attn.q_proj.weight"] *= 1.5
        tensors["model.embed_tokens.weight"][2] = -tensors["model.embed_tokens.weight"][2]

    other = foreign(root, "changed", change)
    found = ask(root, capsys, "diff", "base@100", other)
    assert not found["same"] and found["config"] == {} and found["tokenizer"] == []
    by_name = {tensor["name"]: tensor for tensor in found["tensors"]}
    assert {name for name, tensor in by_name.items() if not tensor["same"]} == {
        "model.layers.1.self_attn.q_proj.weight",
        "model.embed_tokens.weight",
    }
    q = by_name["model.layers.1.self_attn.q_proj.weight"]
    assert q["relative"] == pytest.approx(0.5) and q["cosine"] == pytest.approx(1.0) and q["changed"] == 16
    assert (q["part"], q["kind"]) == (1, "q_proj") and by_name["model.embed_tokens.weight"]["changed"] == 4
    assert [layer["part"] for layer in found["layers"]] == ["embedding", 0, 1, "final norm", "head"]
    moved = {layer["part"]: layer["changed"] for layer in found["layers"]}
    assert moved == {"embedding": 4, 0: 0, 1: 16, "final norm": 0, "head": 0}
    first = load_file(root / "runs/base/checkpoints/step-00000100/model.safetensors")
    last = load_file(root / "changed/model.safetensors")
    squares = sum(float((last[name].double() - first[name].double()).square().sum()) for name in first)
    assert found["whole"]["distance"] == pytest.approx(squares**0.5)
    shown = show(root, capsys, "diff", "base@100", other)
    assert "2 of 25 tensors differ" in shown and "moved most" in shown and "layer 0      the same" in shown


def test_other_configs_tensors_and_training(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def change(tensors: dict[str, torch.Tensor], config: dict[str, Any]) -> None:
        del tensors["lm_head.weight"]
        tensors["model.norm.weight"] = torch.ones(4, dtype=torch.bfloat16)
        tensors["more"] = torch.zeros(3)
        tensors["model.embed_tokens.weight"] = torch.zeros(9, 4)
        config |= {"vocab_size": 9, "tie_word_embeddings": True}

    other = foreign(root, "other", change)
    (root / "other/tokenizer.model").write_bytes(b"others")
    found = ask(root, capsys, "diff", "base@100", other)
    assert found["config"] == {"vocab_size": [8, 9], "tie_word_embeddings": [False, True]}
    assert (found["only_first"], found["only_second"]) == (["lm_head.weight"], ["more"])
    assert found["tokenizer"] == ["tokenizer.model"] and found["spec"] == {"lr": [0.1, "(not set)"]}
    assert found["lineage"][0]["path"] == "tokens/main"
    shown = show(root, capsys, "diff", "base@100", other)
    for told in ("vocab_size: 8 → 9", "tokenizer.model differ", "[8, 4] → [9, 4]", "float16 → bfloat16", "lr: 0.1"):
        assert told in shown
    assert "only in the first: lm_head.weight" in shown and "only in the second: more" in shown


def test_a_config_that_gptcli_does_not_compute_is_compared_as_it_is(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(tensors: dict[str, torch.Tensor], config: dict[str, Any]) -> None:
        config |= {"model_type": "another", "dropout": 0.5}

    found = ask(root, capsys, "diff", "base@100", foreign(root, "other", change))
    assert found["config"] == {"model_type": ["qwen3", "another"], "dropout": ["(not set)", 0.5]}
    assert found["same"] is False and found["title"].endswith("the weights are the same")


def test_every_byte_advances_the_bar(root: Path) -> None:
    def change(tensors: dict[str, torch.Tensor], config: dict[str, Any]) -> None:
        del tensors["lm_head.weight"]
        tensors["more"] = torch.zeros(3)
        config["model_type"] = "another"

    homes = [root / "runs/base/checkpoints/step-00000100", root / foreign(root, "other", change)]
    first, second = map(tensors_of, homes)
    read: list[int] = []
    compare_models(first, second, read.append)
    assert sum(read) == sum(tensor.bytes for each in (first, second) for tensor in each.values())


def test_values_that_are_no_numbers_are_told_and_stay_json(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def change(tensors: dict[str, torch.Tensor], config: dict[str, Any]) -> None:
        tensors["model.norm.weight"][0] = torch.nan

    found = ask(root, capsys, "diff", "base@100", foreign(root, "broken", change))
    tensor = next(each for each in found["tensors"] if each["name"] == "model.norm.weight")
    assert tensor["relative"] is None and tensor["largest"] is None and tensor["changed"] == 1
    assert "moved unknown of its norm" in show(root, capsys, "diff", "base@100", "./broken", "--picture", "p.svg")


def test_adapters_are_compared_by_their_factors(
    adapter_run: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = ask(root, capsys, "diff", "chat@10", "chat@20")
    assert [layer["part"] for layer in found["layers"]] == [0, 1]
    assert {tensor["kind"] for tensor in found["tensors"]} == {"q_proj lora_A", "q_proj lora_B"}
    with pytest.raises(ArtifactError, match="chat is an adapter, base a whole model"):
        ask(root, capsys, "diff", "chat", "base")


def test_the_picture(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = ask(root, capsys, "diff", "base@100", "base@400", "--picture", "moved.svg")
    assert found["picture"] == "moved.svg"
    text = (root / "moved.svg").read_text(encoding="utf-8")
    tree = ET.fromstring(text)
    assert tree.tag == f"{SVG}svg" and "prefers-color-scheme" in text
    assert not any(word in text for word in ("href", "url(", "<script", "@import"))
    shown = [element.text for element in tree.iter(f"{SVG}text")]
    for label in ("embedding", "layer 0", "layer 1", "final norm", "head", "q_proj", "down_proj", "not at all"):
        assert label in shown
    hints = [element.text or "" for element in tree.iter(f"{SVG}title")]
    tensor = next(each for each in found["tensors"] if each["name"] == "model.layers.0.mlp.up_proj.weight")
    hint = next(hint for hint in hints if hint.startswith("layer 0, up_proj"))
    assert f"moved {100 * tensor['relative']:.0f} %" in hint
    width = float(tree.attrib["width"])
    assert all(
        float(each.attrib["x"]) + float(each.attrib["width"]) <= width
        for each in tree.iter(f"{SVG}rect")
        if "x" in each.attrib
    )


def test_the_picture_of_no_difference_and_of_a_strange_name(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "<b>&").symlink_to(root / "runs/base/checkpoints/step-00000100")
    ask(root, capsys, "diff", "./<b>&", "base@100", "--picture", "same.svg")
    tree = ET.fromstring((root / "same.svg").read_text(encoding="utf-8"))
    shown = [element.text or "" for element in tree.iter(f"{SVG}text")]
    assert any("./<b>&" in text for text in shown) and any("no difference" in text for text in shown)


@pytest.mark.parametrize(
    ("name", "part", "kind"),
    [
        ("model.layers.12.self_attn.q_proj.weight", 12, "q_proj"),
        ("model.layers.0.self_attn.q_proj.bias", 0, "q_proj bias"),
        ("model.layers.3.input_layernorm.weight", 3, "input_layernorm"),
        ("transformer.h.1.attn.c_proj.weight", 1, "attn.c_proj"),
        ("transformer.h.1.mlp.c_proj.bias", 1, "mlp.c_proj bias"),
        ("transformer.h.1.mlp.c_fc.weight", 1, "c_fc"),
        ("h.0.ln_1.weight", 0, "ln_1"),
        ("transformer.wte.weight", "embedding", "embedding"),
        ("transformer.wpe.weight", "positions", "positions"),
        ("model.norm.weight", "final norm", "final norm"),
        ("transformer.ln_f.bias", "final norm", "final norm bias"),
        ("lm_head.weight", "head", "head"),
        ("base_model.model.model.layers.2.mlp.up_proj.lora_A.weight", 2, "up_proj lora_A"),
        ("base_model.model.lm_head.token_adapter.trainable_tokens_delta", "head", "head rows"),
        ("score.weight", "score", "score"),
    ],
    ids=lambda value: str(value),
)
def test_where_a_tensor_stands(name: str, part: int | str, kind: str) -> None:
    place = place_of(name)
    assert (place.part, place.kind) == (part, kind)
