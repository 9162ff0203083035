"""The Llama family: one decoder that covers Hugging Face's `llama`, `mistral`, `qwen2` and `qwen3`.

RMSNorm (Zhang & Sennrich 2019), rotary positions (Su et al. 2021) in Hugging Face's half-rotated layout,
grouped-query attention (Ainslie et al. 2023), SwiGLU (Shazeer 2020). Attribute names are Hugging Face's, so
`state_dict()` has exactly the tensor names of a Hugging Face checkpoint.

Shapes: B sequences, T tokens, H hidden_size, V vocab_size, N heads, K key/value heads, D head_dim.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gptcli.errors import SpecError
from gptcli.models.config import LlamaConfig
from gptcli.models.ops.activation import swiglu
from gptcli.models.ops.attention import Branches, Starts, attend, causal_attention, sight
from gptcli.models.ops.embedding import embedding
from gptcli.models.ops.heads import Phases, rotary_heads
from gptcli.models.ops.linear import fused_linear
from gptcli.models.ops.norm import add_rms_norm, rms_norm

__all__ = ["KeyValues", "Llama", "LlamaConfig", "project"]


class KeyValues(Protocol):
    """What attention asks of a key/value cache; inference/cache.py has the implementation."""

    def extend(
        self, layer: int, keys: Tensor, values: Tensor, positions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Store [B,K,T,D] keys and values at `positions` [B,T].

        Returns all keys and values to attend to [B,K,S,D], and the mask [B,1,T,S] (None: plain causal over T).
        """
        ...


@dataclass(frozen=True)
class Context:
    """What every layer needs to know of the tokens it reads: their rotary phases, what each one sees of its row,
    and, with a cache, their positions [B,T]."""

    phases: Phases
    seen: Starts | Branches | None = None
    positions: Tensor | None = None
    cache: KeyValues | None = None


class RMSNorm(nn.Module):
    """x / rms(x) · weight over the last dimension, computed in fp32."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)

    def after_adding(self, x: Tensor, branch: Tensor) -> tuple[Tensor, Tensor]:
        """The sum x + branch, and that normalised."""
        return add_rms_norm(x, branch, self.weight, self.eps)


class Rotary(nn.Module):
    """Tables of cos and sin, [max_positions, D/2], fp32 whatever the model is cast to."""

    def __init__(self, head_dim: int, theta: float, max_positions: int) -> None:
        super().__init__()
        self.head_dim, self.theta, self.max_positions = head_dim, theta, max_positions
        self.cos: Tensor
        self.sin: Tensor
        self._fill(torch.device("cpu"))

    def _fill(self, device: torch.device) -> None:
        # Always computed on the CPU: every device then rotates by the same table.
        exponents = torch.arange(0, self.head_dim, 2, dtype=torch.int64, device="cpu").float() / self.head_dim
        inverse = 1.0 / (self.theta**exponents)
        phases = torch.outer(torch.arange(self.max_positions, dtype=torch.float32, device="cpu"), inverse)
        self.register_buffer("cos", phases.cos().to(device), persistent=False)
        self.register_buffer("sin", phases.sin().to(device), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Rotary:
        # Module.to(bfloat16) would round the tables and to_empty() would leave them blank; both pass through here.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._fill(self.cos.device)
        return self

    def forward(self, length: int, positions: Tensor | None) -> Phases:
        """cos and sin, [1,T,D/2] for positions 0…T-1, or [B,T,D/2] for `positions` [B,T]."""
        if positions is not None:
            return self.cos[positions], self.sin[positions]
        if length > self.max_positions:
            raise SpecError(
                f"a sequence of {length} tokens is longer than the model's max_position_embeddings={self.max_positions}"
            )
        return self.cos[None, :length], self.sin[None, :length]


def project(x: Tensor, *layers: nn.Linear) -> Tensor:
    """The outputs of several linear layers of one input, side by side; one matrix product where they are plain."""
    if all(type(layer) is nn.Linear for layer in layers):
        return fused_linear(x, [layer.weight for layer in layers], [layer.bias for layer in layers])
    outputs = [layer(x) for layer in layers]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-1)


class Attention(nn.Module):
    """Causal grouped-query attention of one layer, [B,T,H] to [B,T,H]."""

    def __init__(self, config: LlamaConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim = config.head_dim
        self.counts = (config.num_attention_heads, config.num_key_value_heads)
        self.eps = config.rms_norm_eps
        queries = config.num_attention_heads * config.head_dim
        keys = config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, queries, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.hidden_size, keys, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.hidden_size, keys, bias=config.qkv_bias)
        self.o_proj = nn.Linear(queries, config.hidden_size, bias=config.o_bias)
        if config.qk_norm:
            self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps)
            self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps)
        self.qk_norm = config.qk_norm

    def forward(self, x: Tensor, context: Context) -> Tensor:
        joined = project(x, self.q_proj, self.k_proj, self.v_proj)
        gains = (self.q_norm.weight, self.k_norm.weight) if self.qk_norm else None
        q, k, v = rotary_heads(joined, self.counts, context.phases, gains, self.eps)
        if context.cache is not None and context.positions is not None:
            k, v, mask = context.cache.extend(self.layer, k, v, context.positions)
            mixed = attend(q, k, v, mask)
        else:
            mixed = causal_attention(q, k, v, context.seen)
        return project(mixed, self.o_proj)


class MLP(nn.Module):
    """SwiGLU, [B,T,H] to [B,T,H]."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.gated_bias)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.gated_bias)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.gated_bias)

    def forward(self, x: Tensor) -> Tensor:
        return project(swiglu(project(x, self.gate_proj, self.up_proj)), self.down_proj)


class Block(nn.Module):
    """One pre-norm decoder layer."""

    def __init__(self, config: LlamaConfig, layer: int, dropout: float) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)
        self.dropout = dropout

    def forward(self, x: Tensor, context: Context) -> Tensor:
        mixed = self._drop(self.self_attn(self.input_layernorm(x), context))
        x, normed = self.post_attention_layernorm.after_adding(x, mixed)
        return x + self._drop(self.mlp(normed))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


class TokenEmbedding(nn.Embedding):
    """The input embedding, and, where weights are tied, the output head as well."""

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:  # for random numbers without storage torch would import its compiler
            super().reset_parameters()

    def forward(self, input: Tensor) -> Tensor:
        return embedding(input, self.weight)

    def whole_weight(self) -> Tensor:
        """The table [V,H] as the forward pass sees it."""
        return self.weight

    def logits(self, hidden: Tensor) -> Tensor:
        """[…,H] to […,V], for a tied head."""
        return F.linear(hidden, self.weight)


class OutputHead(nn.Linear):
    """The untied output head, [V,H] without a bias."""

    def whole_weight(self) -> Tensor:
        """The matrix [V,H] as the forward pass sees it."""
        return self.weight


class Decoder(nn.Module):
    """Embedding, layers and final norm: Hugging Face's inner `model`."""

    def __init__(self, config: LlamaConfig, dropout: float) -> None:
        super().__init__()
        self.embed_tokens = TokenEmbedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, i, dropout) for i in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary = Rotary(config.head_dim, config.rope_theta, config.max_position_embeddings)
        self.dropout = dropout

    def forward(
        self,
        input_ids: Tensor,
        positions: Tensor | None,
        cache: KeyValues | None,
        starts: Tensor | None,
        last: Tensor | None,
        checkpointed: bool,
    ) -> Tensor:
        x = self.embed_tokens(input_ids)
        if torch.is_autocast_enabled(x.device.type):  # or the whole residual stream would stay in the table's fp32
            x = x.to(torch.get_autocast_dtype(x.device.type))
        if self.dropout:
            x = F.dropout(x, self.dropout, self.training)
        phases = self.rotary(input_ids.shape[1], positions)
        seen = sight(starts, last)
        if seen is not None:
            seen.prepare(x, self.rotary.head_dim)
        context = Context(phases, seen, positions, cache)
        for block in self.layers:
            x = checkpoint(block, x, context, use_reentrant=False) if checkpointed else block(x, context)
        out: Tensor = self.norm(x)
        return out


class Llama(nn.Module):
    """A causal language model.

    `dropout` is the share of values dropped, in training mode, after the embedding and on each layer's two
    outputs; it belongs to the training, not to the model, so it is no part of the config. So does
    `checkpoint_activations`: keep only each layer's input and compute the layer again in the backward pass.
    """

    def __init__(self, config: LlamaConfig, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.checkpoint_activations = False
        self.model = Decoder(config, dropout)
        if not config.tie_word_embeddings:
            self.lm_head = OutputHead(config.hidden_size, config.vocab_size, bias=False)

    def hidden(
        self,
        input_ids: Tensor,
        positions: Tensor | None = None,
        cache: KeyValues | None = None,
        starts: Tensor | None = None,
        last: Tensor | None = None,
    ) -> Tensor:
        """Hidden states after the final norm, [B,T,H], of token ids [B,T].

        `positions` [B,T] (default 0…T-1) turn the rotary phases; attention is causal over T, and from `starts` [B,T]
        on where given (the first place in its row that each token sees). With a `cache`, positions are needed, and
        attention sees what the cache holds before them too; starts are not read. Rows that are trees of tokens have
        `last` [B,T] (models/ops/attention.py, Branches) and positions.
        Raises SpecError when T exceeds max_position_embeddings and no positions are given.
        """
        checkpointed = self.checkpoint_activations and torch.is_grad_enabled() and cache is None
        out: Tensor = self.model(input_ids, positions, cache, starts, last, checkpointed)
        return out

    def head(self, hidden: Tensor) -> Tensor:
        """Logits […,V] of hidden states […,H], cap·tanh(logits/cap) where the config has a softcap."""
        tied = self.config.tie_word_embeddings
        logits: Tensor = self.model.embed_tokens.logits(hidden) if tied else self.lm_head(hidden)
        cap = self.softcap
        return torch.tanh(logits / cap) * cap if cap else logits

    @property
    def softcap(self) -> float:
        """What bounds the logits (Gemma 2's final_logit_softcapping); 0: nothing does."""
        return self.config.final_logit_softcapping

    @property
    def head_weight(self) -> Tensor:
        """The output matrix [V,H]: the embedding where tied, else lm_head's weight.

        With trainable rows (models/lora.py) this is a whole copy with the rows in place, whose gradient is
        dense; `head()` gives the same logits and touches the trained rows alone.
        """
        layer = self.model.embed_tokens if self.config.tie_word_embeddings else self.lm_head
        return layer.whole_weight()

    def forward(self, input_ids: Tensor) -> Tensor:
        """Logits [B,T,V] of token ids [B,T]."""
        return self.head(self.hidden(input_ids))
