"""Steps as blocks of datatrove, whose executors run them on SLURM and Ray where a corpus outgrows machines that share a folder.

    pipeline = [JsonlReader("in"), *blocks(recipes.read("gopher_quality,pii"), "ledgers"), JsonlWriter("out")]
    SlurmPipelineExecutor(pipeline, tasks=1000, ...).run()
    accounts("ledgers", recipes.read("gopher_quality,pii"))  # when all tasks are done

Steps that compare documents are left to datatrove's own blocks (MinhashDedupSignature and what follows). This module needs datatrove:
`pip install '.[datatrove]'`.
"""

import os
from collections.abc import Iterator, Sequence
from typing import Any

from datatrove.pipeline.base import PipelineStep

from lm.data.curation.apply import passing
from lm.data.curation.document import Document
from lm.data.curation.ledger import Account
from lm.data.curation.steps import ComparingStep, Step
from lm.data.store import read_json, write_json
from lm.errors import UserError


class StepBlock(PipelineStep):
    """One step over the documents of a task. Its account is written to FOLDER/PLACE-STEP/RANK.json when the task is done."""

    type = "lm"

    def __init__(self, step: Step, folder: str):
        self.name = step.name
        super().__init__()
        self._step, self._folder = step, folder

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        """Yields the documents that pass, with the text and metadata that the step gives them."""
        self._step.check()
        account = Account(self._step.name)
        present: list[Any] = []

        def given() -> Iterator[Document]:
            for document in data:
                present[:] = [document]
                yield Document(document.text, document.id, document.metadata)

        for passed in passing(given(), self._step, account):
            present[0].text, present[0].metadata = passed.text, passed.metadata
            yield present[0]
        write_json(os.path.join(self._folder, f"{rank:05d}.json"), account.to_json())


def blocks(steps: Sequence[Step], ledgers: str) -> list[StepBlock]:
    """Returns a block for each step. Raises UserError for steps that compare documents.

    Args:
      steps: the steps.
      ledgers: folder that all tasks share, in which they write what each step did.
    """
    comparing = next((step.name for step in steps if isinstance(step, ComparingStep)), None)
    if comparing is not None:
        raise UserError(
            f"{comparing} compares documents of all tasks: leave it out, and use datatrove's own blocks, such as MinhashDedupSignature"
        )
    return [StepBlock(step, _folder(ledgers, place, step)) for place, step in enumerate(steps)]


def accounts(ledgers: str, steps: Sequence[Step]) -> list[Account]:
    """Returns the account of each step over all tasks that are done."""
    found = []
    for place, step in enumerate(steps):
        account, folder = Account(step.name), _folder(ledgers, place, step)
        for name in sorted(os.listdir(folder)):
            account.merge(read_json(os.path.join(folder, name)))
        found.append(account)
    return found


def _folder(ledgers: str, place: int, step: Step) -> str:
    return os.path.join(ledgers, f"{place:02d}-{step.name}")
