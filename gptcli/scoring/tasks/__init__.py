"""Tasks: what a model is asked, one kind a file."""

from __future__ import annotations

from gptcli.scoring.tasks.classification import Classification
from gptcli.scoring.tasks.cloze import Cloze
from gptcli.scoring.tasks.generation import Generation
from gptcli.scoring.tasks.minimal_pairs import MinimalPairs
from gptcli.scoring.tasks.multiple_choice import MultipleChoice
from gptcli.scoring.tasks.task import Task

TASKS: tuple[type[Task], ...] = (MultipleChoice, MinimalPairs, Cloze, Classification, Generation)

__all__ = ["TASKS", "Task"]
