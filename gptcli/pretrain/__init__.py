"""pretrain: a GPT learns a tokens artifact, from scratch or from another model's weights."""
