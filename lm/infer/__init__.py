"""Texts from a model: `load(run_or_directory)` returns a TextModel that writes, scores, embeds and fills in texts."""

from pathlib import Path
from typing import TYPE_CHECKING, Optional, Union

if TYPE_CHECKING:
    from lm.infer.text_model import TextModel


def load(path: Union[str, Path], *, step: Optional[int] = None, data_dir: Optional[str] = None) -> "TextModel":
    """Returns the model of a run, or of a directory in the Hugging Face layout, with its tokenizer.

    Args:
      path: the work directory of a run, or a directory with config.json and model.safetensors.
      step: the step of the run's checkpoint (default: the newest).
      data_dir: the directory of the run's tokenizer (default: that of the run's record).

    Raises:
      UserError: there is neither, or the checkpoint or the tokenizer is missing, or the model's family is not supported.
    """
    from lm.infer import sources

    return sources.load(Path(path), step=step, data_dir=data_dir)
