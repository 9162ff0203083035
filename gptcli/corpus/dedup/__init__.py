"""Near-duplicates and repeated paragraphs: hashes of a text, the join by shared hashes, and what stays."""
