"""gptcli checkpoint: list, show, verify, import, tag, alias and prune models."""
