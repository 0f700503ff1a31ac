"""The tokenizer of a run, from its record (imports no jax)."""

from pathlib import Path
from typing import Any, Optional

from lm.data.config import SentencePieceFile, SentencePieceTokenizer
from lm.data.tokenizer import Tokenizer, build
from lm.errors import UserError
from lm.train import made_by
from lm.train.config import RunConfig


def run_tokenizer(config: RunConfig, data_dir: str, saved: dict[str, Any]) -> Tokenizer:
    """Returns the run's tokenizer; `saved` is its record. One that was trained on the run's text is needed, and not that text.

    Raises:
      UserError: the pieces that it trained are not there, or the tokenizer is not that of the run.
    """
    chosen, expected = config.data.tokenizer, saved["data"]["tokenizer"]["fingerprint"]
    if isinstance(chosen, SentencePieceTokenizer):
        file = trained_pieces(config, expected, data_dir)
        if file is None:
            raise UserError(
                f"{data_dir} lacks the tokenizer that the run trained on its text: name the directory of its data with --data_dir"
            )
        return config.data.objective.tokenizer(build(SentencePieceFile(str(file)), [], data_dir))
    tokenizer = config.data.objective.tokenizer(build(chosen, [], data_dir))
    if tokenizer.fingerprint != expected:
        raise UserError(made_by.other_tokenizer(saved))
    return tokenizer


def trained_pieces(config: RunConfig, fingerprint: str, data_dir: str) -> Optional[Path]:
    """Returns the file of the SentencePiece model that a run trained on its text, if it is there."""
    if not isinstance(config.data.tokenizer, SentencePieceTokenizer):
        return None
    for file in sorted(Path(data_dir).glob("tokenizers/*/tokenizer.model")):
        found = build(SentencePieceFile(str(file)), [], data_dir)
        if config.data.objective.tokenizer(found).fingerprint == fingerprint:
            return file
    return None
