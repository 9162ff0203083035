"""A tokenizer learnt from a corpus: words counted natively, then sentencepiece's trainers."""
