"""The tokenizer of a run, from its record."""

from typing import Any

from lm.data import info
from lm.data.config import SentencePieceTokenizer
from lm.data.tokenizer import Tokenizer, build
from lm.errors import UserError
from lm.train.config import RunConfig


def run_tokenizer(config: RunConfig, data_dir: str, data: dict[str, Any]) -> Tokenizer:
    """Returns the run's tokenizer; `data` is the entry of that name in its record.

    Raises:
      UserError: the data that it was trained on are not there, or the tokenizer is not that of the run.
    """
    from lm.data import pipeline

    chosen = config.data.tokenizer
    if isinstance(chosen, SentencePieceTokenizer):
        if info.info(config.data, data_dir) is None:
            raise UserError(f"{data_dir} lacks the data that the run's tokenizer was trained on: name the right directory with --data_dir")
        tokenizer = pipeline.prepare(config.data, data_dir, lambda line: None).tokenizer
    else:
        tokenizer = config.data.objective.tokenizer(build(chosen, [], data_dir))
    if tokenizer.fingerprint != data["tokenizer"]["fingerprint"]:
        raise UserError(
            f"the {chosen.name} tokenizer is not the one that the run was trained with: restore it, or name its --data_dir. If the run was"
            " made before 0.6.0, which reads a tokenizer's own special ids, go on with the version that made it, or begin it anew"
        )
    return tokenizer
