"""Single-device language models: modules that know no file, process rank or command-line flag."""
