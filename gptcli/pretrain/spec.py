"""What to pretrain: the model's sizes, the data and the rule it learns by."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from gptcli.artifacts.manifest import Input, Inputs, Manifest, read_manifest
from gptcli.artifacts.project import Project
from gptcli.console import human_count
from gptcli.errors import ArtifactError
from gptcli.training.spec import TrainingSpec

STAGE = "pretrain"
KIND = "run"
FOLDER = "runs"
DEFAULT_NAME = "base"
TRAINED = True

CHECKPOINT_BYTES = 12  # a parameter: fp32 weight and at most two fp32 states


class PretrainSpec(TrainingSpec):
    """[pretrain.NAME]"""

    preset: Literal["", "3m", "10m", "30m", "124m", "350m"] = Field(
        "", description="sizes to start from, about so many parameters with 8,192 to 50,000 pieces"
    )
    tokens: str = Field("main", description="the tokens artifact to learn from")
    architecture: Literal["qwen3", "llama"] = Field("qwen3", description="qwen3 normalises queries and keys")
    hidden_size: int = Field(256, ge=8, description="width of the residual stream")
    num_layers: int = Field(4, ge=1, description="decoder layers")
    num_heads: int = Field(4, ge=1, description="attention heads")
    num_kv_heads: int = Field(0, ge=0, description="key and value heads; 0: as many as num_heads")
    head_dim: int = Field(64, ge=2, multiple_of=2, description="width of a head")
    intermediate_size: int = Field(0, ge=0, description="width of the MLP; 0: 8/3 hidden_size, in steps of 64")
    tie_embeddings: bool = Field(False, description="one matrix for embedding and output head; it learns at head_lr")
    rope_theta: float = Field(10000.0, gt=0, description="base of the rotary phases")
    embedding_std: float = Field(0.02, gt=0, description="standard deviation of the initial embeddings")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of activations dropped in training")
    global_batch_tokens: int = Field(4096, ge=1, description="tokens a step; a multiple of seq_len")
    optimizer: Literal["muon", "adamw"] = Field("muon", description="rule for the matrices; the rest is AdamW's")
    embedding_lr: float = Field(0.1, gt=0, description="peak learning rate of the embeddings")
    head_lr: float = Field(0.004, gt=0, description="peak learning rate of an untied output head")
    gain_lr: float = Field(0.01, gt=0, description="peak learning rate of the norms' gains")

    sample_tokens: int = Field(48, ge=0, description="tokens of text the model writes at each validation; 0: none")

    @model_validator(mode="after")
    def _sizes_fit(self) -> PretrainSpec:
        fixed = self.micro_batch_size != "auto"
        unit = self.seq_len * (int(self.micro_batch_size) if fixed else 1)
        if self.global_batch_tokens % unit:
            below = self.global_batch_tokens // unit * unit
            nearest = ", ".join(str(tokens) for tokens in (below, below + unit) if tokens)
            raise ValueError(
                f"global_batch_tokens={self.global_batch_tokens} is not a multiple of "
                f"{'micro_batch_size*' if fixed else ''}seq_len={unit}; nearest: {nearest}"
            )
        if self.architecture == "llama" and self.hidden_size % self.num_heads:
            raise ValueError(
                f"hidden_size={self.hidden_size} is no multiple of num_heads={self.num_heads}, "
                "which architecture=llama demands"
            )
        if self.num_heads % self.kv_heads:
            raise ValueError(f"num_heads={self.num_heads} is no multiple of num_kv_heads={self.kv_heads}")
        return self

    @property
    def kv_heads(self) -> int:
        return self.num_kv_heads or self.num_heads

    @property
    def mlp_width(self) -> int:
        return self.intermediate_size or max(64, int(8 * self.hidden_size / 3 / 64) * 64)

    @property
    def sequences(self) -> int:
        """Sequences a step."""
        return self.global_batch_tokens // self.seq_len


SPEC = PretrainSpec

_WIDE = {"num_layers": 12, "seq_len": 1024, "global_batch_tokens": 524288}
PRESETS: dict[str, dict[str, Any]] = {
    "3m": {"hidden_size": 128, "num_layers": 4, "num_heads": 2},
    "10m": {"hidden_size": 256, "num_layers": 8, "num_heads": 4, "seq_len": 512, "global_batch_tokens": 8192},
    "30m": {"hidden_size": 448, "num_layers": 9, "num_heads": 7, "seq_len": 512, "global_batch_tokens": 16384},
    "124m": {**_WIDE, "hidden_size": 768, "num_heads": 12, "tie_embeddings": True},
    "350m": {**_WIDE, "hidden_size": 1024, "num_heads": 16, "tie_embeddings": True, "num_layers": 24},
}


def inputs(spec: PretrainSpec, project: Project, previous: Manifest | None) -> Inputs:
    manifest = tokens_manifest(spec.tokens, project)
    return Inputs((Input("tokens", f"tokens/{spec.tokens}", manifest.content_sha256),))


def tokens_manifest(name: str, project: Project) -> Manifest:
    """The manifest of tokens/NAME; ArtifactError naming the command that makes it."""
    place = project.place("tokens", name)
    if not place.exists():
        raise ArtifactError(f"there is no tokens/{name}", f"gptcli tokenize --name {name}")
    return read_manifest(place, "tokens")


def count_parameters(spec: PretrainSpec, vocab_size: int) -> int:
    """Parameters of the model, embeddings and head included."""
    attention = spec.hidden_size * spec.head_dim * 2 * (spec.num_heads + spec.kv_heads)
    gains = 2 * spec.hidden_size + (2 * spec.head_dim if spec.architecture == "qwen3" else 0)
    layer = attention + 3 * spec.hidden_size * spec.mlp_width + gains
    tables = (1 if spec.tie_embeddings else 2) * vocab_size * spec.hidden_size
    return spec.num_layers * layer + tables + spec.hidden_size


def disk_needed(spec: PretrainSpec, project: Project, inputs: Inputs) -> int:
    """Bytes of the checkpoints kept, the best one and the one being written."""
    vocab_size = int(tokens_manifest(spec.tokens, project).stats["vocab_size"])
    return (spec.keep + 2) * CHECKPOINT_BYTES * count_parameters(spec, vocab_size)


def summary(stats: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [
        ("parameters", human_count(stats["parameters"])),
        ("steps", f"{stats['step']:,} ({human_count(stats['tokens'])} tokens, {stats['epochs']:.2f} epochs)"),
        ("train loss", f"{stats['train_loss']:.4f}"),
    ]
    if "val_loss" in stats:
        rows.append(("validation loss", f"{stats['val_loss']:.4f}"))
        rows.append(("validation bits per byte", f"{stats['val_bits_per_byte']:.4f}"))
    return rows
