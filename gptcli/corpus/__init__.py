"""corpus: any text to clean, deduplicated, split documents."""
