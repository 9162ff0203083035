"""The tokenize stage: train or take a tokenizer, and encode a corpus to token shards."""
