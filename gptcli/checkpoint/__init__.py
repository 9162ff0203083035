"""gptcli checkpoint: list, show, verify, tag, alias and prune what training has saved."""
