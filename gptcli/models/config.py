"""The shape of a model, under Hugging Face's field names: the Llama family's here, GPT-2's beside it.

Whatever its family, a config has: model_type, vocab_size, hidden_size, intermediate_size, num_hidden_layers,
num_attention_heads, num_key_value_heads, head_dim, max_position_embeddings, tie_word_embeddings,
final_logit_softcapping, bos_token_id, eos_token_id, eos_ids, pad_token_id, lookup_parameters, to_hf(dtype).
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, TypeAlias

from gptcli.errors import ArtifactError
from gptcli.models import gpt2_config
from gptcli.models.gpt2_config import Gpt2Config
from gptcli.models.hf_fields import as_ids, one_or_more, table, token_ids

__all__ = ["ARCHITECTURES", "Gpt2Config", "LlamaConfig", "ModelConfig", "architectures", "config_from_hf"]

ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
# What transformers assumes where a config.json leaves the key out, where it differs between the model types.
_DEFAULT_MAX_POSITIONS = {"llama": 2048, "mistral": 131072, "qwen2": 32768, "qwen3": 32768}
_DEFAULT_KV_HEADS = {"mistral": 8}
_REQUIRED = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")


@dataclass(frozen=True)
class LlamaConfig:
    """Sizes and switches of one model; every field means what it means in Hugging Face's config.json.

    Token ids stand here because config.json carries them; the model itself never reads them.
    `final_logit_softcapping` c makes logits c · tanh(logits / c), as in Gemma 2; 0: none. Only Gemma's own classes
    read that key elsewhere: transformers' Llama family computes the plain logits.
    Raises ArtifactError when the sizes contradict each other.
    """

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    bos_token_id: int | None = None
    eos_token_id: int | tuple[int, ...] | None = None
    pad_token_id: int | None = None
    final_logit_softcapping: float = 0.0

    def __post_init__(self) -> None:
        if self.model_type not in ARCHITECTURES:
            raise ArtifactError(
                f"model type {self.model_type!r} is not supported", f"supported: {', '.join(ARCHITECTURES)}"
            )
        for field in (*_REQUIRED, "num_key_value_heads", "head_dim", "max_position_embeddings"):
            if getattr(self, field) < 1:
                raise ArtifactError(f"model config: {field} is {getattr(self, field)}, must be at least 1")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ArtifactError(
                f"model config: num_attention_heads={self.num_attention_heads} is not a multiple of "
                f"num_key_value_heads={self.num_key_value_heads}"
            )
        if self.head_dim % 2:
            raise ArtifactError(f"model config: head_dim={self.head_dim} is odd; rotary positions need an even one")
        if self.model_type == "llama" and self.hidden_size % self.num_attention_heads:
            raise ArtifactError(
                f"model config: hidden_size={self.hidden_size} is not a multiple of "
                f"num_attention_heads={self.num_attention_heads}, which model type llama demands"
            )
        if not 0 <= self.rms_norm_eps < math.inf or not 0 < self.rope_theta < math.inf:
            raise ArtifactError(
                f"model config: rms_norm_eps={self.rms_norm_eps} and rope_theta={self.rope_theta} must be finite, the "
                "first not negative, the second above 0"
            )
        if not 0 <= self.final_logit_softcapping < math.inf:
            raise ArtifactError(
                f"model config: final_logit_softcapping is {self.final_logit_softcapping}, must be finite and not "
                "negative"
            )

    @property
    def qk_norm(self) -> bool:
        """Queries and keys are RMS-normalised per head before the rotation (qwen3)."""
        return self.model_type == "qwen3"

    @property
    def qkv_bias(self) -> bool:
        """The q, k and v projections carry biases: always in qwen2, never in mistral, else as attention_bias says."""
        return self.model_type == "qwen2" or (self.attention_bias and self.model_type in ("llama", "qwen3"))

    @property
    def o_bias(self) -> bool:
        """The attention's output projection carries a bias."""
        return self.attention_bias and self.model_type in ("llama", "qwen3")

    @property
    def gated_bias(self) -> bool:
        """The three MLP projections carry biases (llama only)."""
        return self.mlp_bias and self.model_type == "llama"

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """All end-of-sequence ids, possibly none."""
        return as_ids(self.eos_token_id)

    @property
    def lookup_parameters(self) -> int:
        """Parameters that are looked up and multiply nothing: an untied embedding."""
        return 0 if self.tie_word_embeddings else self.vocab_size * self.hidden_size

    @classmethod
    def from_hf(cls, raw: dict[str, Any]) -> LlamaConfig:
        """Read what config.json holds, in transformers 4's or 5's spelling.

        Raises ArtifactError for a missing or mistyped key, another model type, or a feature this architecture
        does not compute (rope scaling, a sliding window shorter than the context, another activation).
        """
        model_type = raw.get("model_type")
        if not isinstance(model_type, str) or model_type not in ARCHITECTURES:
            raise ArtifactError(f"model type {model_type!r} is not supported", f"supported: {', '.join(ARCHITECTURES)}")
        missing = [key for key in _REQUIRED if raw.get(key) is None]
        if missing:
            raise ArtifactError(f"model config lacks {', '.join(missing)}")
        try:
            config = cls._read(raw, model_type)
            _refuse_unsupported(raw, config)
        except (TypeError, ValueError, OverflowError) as error:
            raise ArtifactError(f"model config: a value has the wrong type: {error}") from error
        return config

    @classmethod
    def _read(cls, raw: dict[str, Any], model_type: str) -> LlamaConfig:
        heads, eps = int(raw["num_attention_heads"]), raw.get("rms_norm_eps")
        rope = table(raw, "rope_parameters")
        shared = int(raw["hidden_size"]) // heads if heads else 0  # no heads are refused below, by name
        head_dim = raw.get("head_dim") or (128 if model_type == "qwen3" else shared)
        return cls(
            model_type=model_type,
            vocab_size=int(raw["vocab_size"]),
            hidden_size=int(raw["hidden_size"]),
            intermediate_size=int(raw["intermediate_size"]),
            num_hidden_layers=int(raw["num_hidden_layers"]),
            num_attention_heads=heads,
            num_key_value_heads=int(raw.get("num_key_value_heads") or _DEFAULT_KV_HEADS.get(model_type, heads)),
            head_dim=int(head_dim),
            max_position_embeddings=int(raw.get("max_position_embeddings") or _DEFAULT_MAX_POSITIONS[model_type]),
            rms_norm_eps=float(1e-6 if eps is None else eps),
            rope_theta=float(rope.get("rope_theta") or raw.get("rope_theta") or 10000.0),
            tie_word_embeddings=bool(raw.get("tie_word_embeddings", False)),
            attention_bias=bool(raw.get("attention_bias", False)),
            mlp_bias=bool(raw.get("mlp_bias", False)),
            bos_token_id=next(iter(token_ids(raw, "bos_token_id")), None),
            eos_token_id=one_or_more(raw, "eos_token_id"),
            pad_token_id=next(iter(token_ids(raw, "pad_token_id")), None),
            final_logit_softcapping=float(raw.get("final_logit_softcapping") or 0.0),
        )

    def to_hf(self, dtype: str = "float32") -> dict[str, Any]:
        """What config.json holds, readable by transformers 4 (rope_theta, torch_dtype) and 5 (rope_parameters, dtype).

        `dtype` names the stored weights' type, e.g. "bfloat16".
        """
        out: dict[str, Any] = {"architectures": [ARCHITECTURES[self.model_type]]}
        out.update(dataclasses.asdict(self))
        if isinstance(self.eos_token_id, tuple):
            out["eos_token_id"] = list(self.eos_token_id)
        if not self.final_logit_softcapping:
            del out["final_logit_softcapping"]
        if self.model_type in ("mistral", "qwen2"):
            del out["attention_bias"]
        if self.model_type != "llama":
            del out["mlp_bias"]
            out["sliding_window"] = None
        if self.model_type in ("qwen2", "qwen3"):
            out["use_sliding_window"] = False
            out["max_window_layers"] = self.num_hidden_layers
        out["rope_parameters"] = {"rope_type": "default", "rope_theta": self.rope_theta}
        out.update(hidden_act="silu", attention_dropout=0.0, use_cache=True, dtype=dtype, torch_dtype=dtype)
        return out


ModelConfig: TypeAlias = LlamaConfig | Gpt2Config


def architectures() -> tuple[str, ...]:
    """Every model_type there is."""
    return (*ARCHITECTURES, gpt2_config.MODEL_TYPE)


def config_from_hf(raw: dict[str, Any]) -> ModelConfig:
    """The model's shape from what config.json holds. Raises ArtifactError as the family's own `from_hf` does."""
    model_type = raw.get("model_type")
    if model_type == gpt2_config.MODEL_TYPE:
        return Gpt2Config.from_hf(raw)
    if not isinstance(model_type, str) or model_type not in ARCHITECTURES:
        raise ArtifactError(f"model type {model_type!r} is not supported", f"supported: {', '.join(architectures())}")
    return LlamaConfig.from_hf(raw)


def _refuse_unsupported(raw: dict[str, Any], config: LlamaConfig) -> None:
    if raw.get("hidden_act", "silu") not in ("silu", "swish"):
        raise ArtifactError(f"activation {raw['hidden_act']!r} is not supported, only silu")
    for rope in (table(raw, "rope_scaling"), table(raw, "rope_parameters")):
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default":
            raise ArtifactError(f"rope scaling of type {kind!r} is not supported, only plain rotary positions")
    if float(raw.get("partial_rotary_factor") or 1.0) != 1.0:
        raise ArtifactError("partial rotary positions (partial_rotary_factor below 1) are not supported")
    window = raw.get("sliding_window", 4096 if config.model_type == "mistral" else None)
    if config.model_type.startswith("qwen") and not raw.get("use_sliding_window", False):
        window = None
    if window is not None and config.model_type != "llama" and int(window) < config.max_position_embeddings:
        raise ArtifactError(
            f"sliding-window attention (sliding_window={window} below "
            f"max_position_embeddings={config.max_position_embeddings}) is not supported"
        )
    if raw.get("quantization_config"):
        raise ArtifactError("quantised weights are not supported; use the unquantised model")
