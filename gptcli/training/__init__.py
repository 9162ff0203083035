"""The training loop and its parts, shared by pretrain and finetune-lora."""
