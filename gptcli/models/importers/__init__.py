"""Foreign weights, opened as what they are and given Hugging Face's names: the inverse of what exports write."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from gptcli.errors import ArtifactError
from gptcli.models.importers.foreign import ForeignModel
from gptcli.models.importers.gguf import Gguf
from gptcli.models.importers.hugging_face import HuggingFaceDirectory
from gptcli.models.importers.llama2c import Llama2C

__all__ = ["FORMS", "ForeignModel", "Form", "open_foreign"]


class Form(Protocol):
    """A form in which weights are found: `recognises` looks at names and the first bytes alone."""

    name: str

    def recognises(self, path: Path) -> bool: ...
    def open(self, path: Path) -> ForeignModel: ...


FORMS: tuple[Form, ...] = (HuggingFaceDirectory(), Gguf(), Llama2C())  # the first that recognises a path opens it
_FILES = ("*.gguf", "*.bin")


def open_foreign(path: Path) -> ForeignModel:
    """Open the model at `path`: a Hugging Face directory, a GGUF file, or one of llama2.c's.

    Raises ArtifactError where there is none, or it is damaged, or of an architecture that is not computed here.
    """
    try:
        for form in FORMS:
            if form.recognises(path):
                return form.open(path)
        if not path.exists():
            raise ArtifactError(f"there is no model at {path}", "name a Hugging Face directory, a .gguf or a .bin file")
        inside = sorted(found.name for pattern in _FILES for found in path.glob(pattern)) if path.is_dir() else []
    except OSError as error:
        raise ArtifactError(f"{path} can't be read: {error.strerror or error}", "check the path") from error
    forms = ", ".join(form.name for form in FORMS)
    if path.is_dir():
        hint = f"name the file itself: {path / inside[0]}" if inside else f"what is opened: {forms}"
        raise ArtifactError(f"{path} is no model directory: it has no config.json", hint)
    beside = (path.parent / "config.json").is_file()
    hint = f"name its directory: {path.parent}" if beside else f"what is opened: {forms}"
    raise ArtifactError(f"{path} is no model by its name and first bytes", hint)
