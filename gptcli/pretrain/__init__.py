"""pretrain: a GPT from scratch on a tokens artifact."""
