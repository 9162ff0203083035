"""Learning rates by kind of parameter and width, so that what was tuned on a small model serves a large one."""

from __future__ import annotations

from gptcli.models.family import ModelConfig
from gptcli.pretrain.spec import PretrainSpec
from gptcli.training.optimizer import Rates

TUNED_WIDTH = 256  # of the models on which the rates were tuned
FROM_SCRATCH = Rates(matrix=0.02, embedding=0.1, head=0.004, gain=0.01)
CONTINUED = Rates(matrix=0.002, embedding=0.0003, head=0.0003, gain=0.0003)
ADAMW_MATRIX = 0.15  # the matrices' rate under AdamW, of Muon's


def peak_rates(spec: PretrainSpec, config: ModelConfig) -> Rates:
    """The rates that the spec sets, and for those it leaves at 0 the tuned ones carried over to the model's width.

    Muon's step has the same size in every direction, so its rate holds for any width. AdamW's rates of embeddings and
    head fall with the square root of the width (the rule nanochat found), the matrices' under AdamW with the width
    itself (Yang et al. 2022), a gain's stays.
    """
    tuned = CONTINUED if spec.base else FROM_SCRATCH
    wider = config.hidden_size / TUNED_WIDTH
    matrix = tuned.matrix if spec.optimizer == "muon" else tuned.matrix * ADAMW_MATRIX / wider
    head = spec.head_lr or tuned.head * wider**-0.5
    # A tied table is a head as well, which a rate that is right for a look-up alone would blow up.
    embedding = head if config.tie_word_embeddings else spec.embedding_lr or tuned.embedding * wider**-0.5
    return Rates(spec.lr or matrix, embedding, head, spec.gain_lr or tuned.gain)
