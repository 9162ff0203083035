"""gptcli eval: what a model is worth on text and chats it has not seen."""
