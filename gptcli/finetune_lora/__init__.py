"""finetune-lora: chats on a frozen base, through low-rank updates."""
