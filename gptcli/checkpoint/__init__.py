"""gptcli checkpoint: models as they stand, what is made of them, and versions of them."""
