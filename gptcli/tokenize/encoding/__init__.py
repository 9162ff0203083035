"""Text to ids, exactly and fast: parts that may be encoded alone, each distinct one encoded once."""
