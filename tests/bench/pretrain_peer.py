"""A peer training a small Llama-like model as its users would, on ids that are given; it is ended from outside.

usage: PEER_PYTHON tests/bench/pretrain_peer.py PEER PRECISION SHAPE IDS OUT

PEER: transformers (its Trainer; PRECISION fp32 or bf16) or litgpt (litgpt.pretrain.setup, which compiles; PRECISION
32-true or bf16-mixed). SHAPE: a JSON object of sizes. IDS: a file of uint16. OUT: a folder for what the peer writes.
Every step ends with a line `step N`, the peer's own or one that it is asked for.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

Shape = dict[str, int]


def windows(ids: Path, width: int, seq_len: int) -> Callable[[int], Any]:
    """The number-th window of `width` ids, `seq_len` after the one before it; after the last comes the first."""
    stream = np.memmap(ids, np.uint16, "r")
    count = (len(stream) - width) // seq_len

    def window(number: int) -> Any:
        start = number % count * seq_len
        return torch.from_numpy(stream[start : start + width].astype(np.int64))

    return window


def by_transformers(precision: str, shape: Shape, ids: Path, out: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

    config = LlamaConfig(
        vocab_size=shape["vocab_size"],
        hidden_size=shape["hidden_size"],
        intermediate_size=shape["intermediate_size"],
        num_hidden_layers=shape["num_layers"],
        num_attention_heads=shape["num_heads"],
        num_key_value_heads=shape["num_heads"],
        max_position_embeddings=shape["seq_len"],
        tie_word_embeddings=True,
    )
    window = windows(ids, shape["seq_len"], shape["seq_len"])

    class Rows(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 1 << 20

        def __getitem__(self, number: int) -> dict[str, Any]:
            row = window(number)
            return {"input_ids": row, "labels": row}

    class Tell(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            print(f"step {state.global_step}", flush=True)

    arguments = TrainingArguments(
        output_dir=str(out),
        per_device_train_batch_size=shape["sequences"],
        max_steps=10_000,
        use_cpu=True,
        bf16=precision.startswith("bf16"),
        torch_compile=precision.endswith("compiled"),
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    Trainer(model=LlamaForCausalLM(config), args=arguments, train_dataset=Rows(), callbacks=[Tell()]).train()


def by_litgpt(precision: str, shape: Shape, ids: Path, out: Path) -> None:
    from litgpt import Config, pretrain
    from litgpt.args import EvalArgs, TrainArgs
    from litgpt.data import DataModule

    class Rows(torch.utils.data.IterableDataset):
        def __iter__(self) -> Iterator[Any]:
            window = windows(ids, shape["seq_len"] + 1, shape["seq_len"])
            yield from map(window, range(1 << 40))

    class Data(DataModule):
        def connect(self, tokenizer: Any = None, batch_size: int = 1, max_seq_length: Any = None, **_: Any) -> None:
            self.sequences = batch_size

        def train_dataloader(self) -> Any:
            return torch.utils.data.DataLoader(Rows(), batch_size=self.sequences)

        def val_dataloader(self) -> Any:
            return torch.utils.data.DataLoader(Rows(), batch_size=self.sequences)

    config = Config(
        name="bench",
        block_size=shape["seq_len"],
        vocab_size=shape["vocab_size"],
        padded_vocab_size=shape["vocab_size"],
        n_layer=shape["num_layers"],
        n_head=shape["num_heads"],
        n_embd=shape["hidden_size"],
        intermediate_size=shape["intermediate_size"],
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        mlp_class_name="LLaMAMLP",
    )
    tokens = shape["sequences"] * shape["seq_len"]
    train = TrainArgs(
        save_interval=None,
        log_interval=1,
        global_batch_size=shape["sequences"],
        micro_batch_size=shape["sequences"],
        max_tokens=10_000 * tokens,
        max_norm=1.0,
        min_lr=4e-5,
        lr_warmup_steps=1,
        tie_embeddings=True,
    )
    never = EvalArgs(interval=1 << 30, max_iters=1, initial_validation=False, final_validation=False)
    shutil.rmtree(out, ignore_errors=True)
    sys.argv = sys.argv[:1]
    pretrain.setup(
        "bench",
        model_config=config,
        out_dir=out,
        precision=precision,
        data=Data(),
        train=train,
        eval=never,
        logger_name="csv",
        devices=1,
    )


PEERS = {"transformers": by_transformers, "litgpt": by_litgpt}

if __name__ == "__main__":
    PEERS[sys.argv[1]](sys.argv[2], json.loads(sys.argv[3]), Path(sys.argv[4]), Path(sys.argv[5]))
