"""A transformer's operations, each with a plain PyTorch form and, for bf16 on one CPU thread, a native one."""
