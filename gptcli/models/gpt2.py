"""GPT-2 (Radford et al. 2019): learned positions, LayerNorm before each part, GELU, biases everywhere.

Attribute names and layouts are Hugging Face's, so `state_dict()` has exactly the tensors of a GPT2LMHeadModel
checkpoint: projections are kept [in, out] and computed as x · W + b, transposed nowhere.

Shapes: B sequences, T tokens, H hidden_size, V vocab_size, N heads, D head_dim.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gptcli.errors import SpecError
from gptcli.models.config import Gpt2Config
from gptcli.models.llama import KeyValues, OutputHead, TokenEmbedding
from gptcli.models.ops.activation import gelu
from gptcli.models.ops.attention import Branches, Starts, attend, causal_attention, sight
from gptcli.models.ops.embedding import embedding
from gptcli.models.ops.heads import split_heads
from gptcli.models.ops.norm import layer_norm

__all__ = ["Conv1D", "Gpt2", "Gpt2Config"]


class Conv1D(nn.Module):
    """x · weight + bias with weight [in, out] and bias [out]: GPT-2's projection, a convolution of width 1."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = nn.Parameter(torch.empty(in_features, out_features))
        self.bias = nn.Parameter(torch.zeros(out_features))
        nn.init.normal_(self.weight, std=in_features**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        flat = torch.addmm(self.bias.to(x.dtype), x.reshape(-1, self.in_features), self.weight)
        return flat.view(*x.shape[:-1], self.out_features)


class LayerNorm(nn.Module):
    """(x - mean) / deviation · weight + bias over the last dimension (Ba et al. 2016), computed in fp32."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        # Autocast gives fp32 on a GPU, which would carry on into the residual stream.
        return layer_norm(x, self.weight, self.bias, self.eps).to(x.dtype)


class Attention(nn.Module):
    """Causal attention of one layer, [B,T,H] to [B,T,H]; c_attn holds queries, keys and values side by side."""

    def __init__(self, config: Gpt2Config, layer: int) -> None:
        super().__init__()
        self.layer, self.heads = layer, config.num_attention_heads
        self.c_attn = Conv1D(config.hidden_size, 3 * config.hidden_size)
        self.c_proj = Conv1D(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor, positions: Tensor, cache: KeyValues | None, seen: Starts | Branches | None) -> Tensor:
        q, k, v = split_heads(self.c_attn(x), (self.heads, self.heads))
        if cache is None:
            mixed = causal_attention(q, k, v, seen)
        else:
            mixed = attend(q, *cache.extend(self.layer, k, v, positions))
        out: Tensor = self.c_proj(mixed)
        return out


class MLP(nn.Module):
    """Widen, GELU, narrow: [B,T,H] to [B,T,H]."""

    def __init__(self, config: Gpt2Config) -> None:
        super().__init__()
        self.c_fc = Conv1D(config.hidden_size, config.intermediate_size)
        self.c_proj = Conv1D(config.intermediate_size, config.hidden_size)
        self.tanh = config.gelu == "tanh"

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.c_proj(gelu(self.c_fc(x), tanh=self.tanh))
        return out


class Block(nn.Module):
    """One pre-norm decoder layer."""

    def __init__(self, config: Gpt2Config, layer: int, dropout: float) -> None:
        super().__init__()
        self.ln_1 = LayerNorm(config.hidden_size, config.layer_norm_epsilon)
        self.attn = Attention(config, layer)
        self.ln_2 = LayerNorm(config.hidden_size, config.layer_norm_epsilon)
        self.mlp = MLP(config)
        self.dropout = dropout

    def forward(self, x: Tensor, positions: Tensor, cache: KeyValues | None, seen: Starts | Branches | None) -> Tensor:
        x = x + self._drop(self.attn(self.ln_1(x), positions, cache, seen))
        return x + self._drop(self.mlp(self.ln_2(x)))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


class Decoder(nn.Module):
    """Embeddings, layers and final norm: Hugging Face's inner `transformer`."""

    def __init__(self, config: Gpt2Config, dropout: float) -> None:
        super().__init__()
        self.wte = TokenEmbedding(config.vocab_size, config.hidden_size)
        self.wpe = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.h = nn.ModuleList(Block(config, i, dropout) for i in range(config.num_hidden_layers))
        self.ln_f = LayerNorm(config.hidden_size, config.layer_norm_epsilon)
        self.dropout, self.head_dim = dropout, config.head_dim

    def forward(
        self,
        input_ids: Tensor,
        positions: Tensor | None,
        cache: KeyValues | None,
        starts: Tensor | None,
        last: Tensor | None,
        checkpointed: bool,
    ) -> Tensor:
        positions = self._positions(input_ids, positions, starts)
        seen = sight(starts, last)
        x = self.wte(input_ids) + embedding(positions, self.wpe.weight)
        if torch.is_autocast_enabled(x.device.type):  # or the whole residual stream would stay in the table's fp32
            x = x.to(torch.get_autocast_dtype(x.device.type))
        if self.dropout:
            x = F.dropout(x, self.dropout, self.training)
        if seen is not None:
            seen.prepare(x, self.head_dim)
        for block in self.h:
            if checkpointed:
                x = checkpoint(block, x, positions, None, seen, use_reentrant=False)
            else:
                x = block(x, positions, cache, seen)
        out: Tensor = self.ln_f(x)
        return out

    def _positions(self, input_ids: Tensor, positions: Tensor | None, starts: Tensor | None) -> Tensor:
        if positions is not None:
            return positions
        length = input_ids.shape[1]
        if length > self.wpe.num_embeddings:
            raise SpecError(
                f"a sequence of {length} tokens is longer than the model's "
                f"max_position_embeddings={self.wpe.num_embeddings}"
            )
        places = torch.arange(length, device=input_ids.device)
        return places[None] if starts is None else places - starts


class Gpt2(nn.Module):
    """A causal language model.

    `dropout` is the share of values dropped, in training mode, after the embeddings and on each layer's two outputs;
    it belongs to the training, not to the model, so it is no part of the config. So does `checkpoint_activations`:
    keep each layer's input alone and compute the layer again in the backward pass (Chen et al. 2016).
    """

    def __init__(self, config: Gpt2Config, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.transformer = Decoder(config, dropout)
        if not config.tie_word_embeddings:
            self.lm_head = OutputHead(config.hidden_size, config.vocab_size, bias=False)
        self.checkpoint_activations = False

    def hidden(
        self,
        input_ids: Tensor,
        positions: Tensor | None = None,
        cache: KeyValues | None = None,
        starts: Tensor | None = None,
        last: Tensor | None = None,
    ) -> Tensor:
        """Hidden states after the final norm, [B,T,H], of token ids [B,T].

        `positions` [B,T] choose the learned positions (default: 0…T-1, or with `starts` each token's place in its
        document). `starts` [B,T]: the index in the row of the first token each position sees; default: the row's
        first. With a `cache`, positions are needed, and attention sees what the cache holds before them too; it
        takes no `starts`. Rows that are trees of tokens have `last` [B,T] (models/ops/attention.py, Branches) and
        positions. Raises SpecError when T exceeds max_position_embeddings and no positions are given.
        """
        checkpointed = self.checkpoint_activations and torch.is_grad_enabled() and cache is None
        out: Tensor = self.transformer(input_ids, positions, cache, starts, last, checkpointed)
        return out

    def head(self, hidden: Tensor) -> Tensor:
        """Logits […,V] of hidden states […,H], cap·tanh(logits/cap) where the config has a softcap."""
        tied = self.config.tie_word_embeddings
        logits: Tensor = self.transformer.wte.logits(hidden) if tied else self.lm_head(hidden)
        return torch.tanh(logits / self.softcap) * self.softcap if self.softcap else logits

    @property
    def softcap(self) -> float:
        """What bounds the logits; 0: nothing does."""
        return self.config.final_logit_softcapping

    @property
    def head_weight(self) -> Tensor:
        """The output matrix [V,H]: the embedding where tied, else lm_head's weight (see models/llama.py)."""
        layer = self.transformer.wte if self.config.tie_word_embeddings else self.lm_head
        return layer.whole_weight()

    def forward(self, input_ids: Tensor) -> Tensor:
        """Logits [B,T,V] of token ids [B,T]."""
        return self.head(self.hidden(input_ids))
