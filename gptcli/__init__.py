"""gptcli: from raw text to a trained, evaluated, fine-tuned, versioned and published GPT."""

__version__ = "0.1.0"
