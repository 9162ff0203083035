"""What text is turned into ids by: one file an engine, one face over them in tokenizer.py."""
