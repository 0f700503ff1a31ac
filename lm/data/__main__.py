"""`python -m lm.data --config=configs/decoder.py:tiny [--config.KEY=VALUE ...]`: prepares the text of a configuration, and trains nothing.

Several processes that share `data_dir`, such as the tasks of a SLURM array, may be given the same command at once: of text that is streamed
each does what the others have not done yet.
"""

import sys
from typing import Any, Optional

from lm import config as config_lib
from lm.data import corpora
from lm.errors import UserError, run_cli
from lm.run import load, parse

HELP = """usage: python -m lm.data --config=FILE.py:NAME [--config.KEY=VALUE ...]

Prepares the text of a configuration: corpora, tokenizer, tokens. It trains nothing. Give the same command on any number of machines that
share the directory --config.data_dir: they divide the work. Killed at any moment, it continues from what is on disk.

  --config=FILE.py:NAME   the configuration, such as configs/decoder.py:tiny
  --config.KEY=VALUE      what to change of it; python -m lm.run --help lists the keys

LM_WORKERS=N in the environment is the number of processes (default: the cores that this process may use)."""


def main(argv: Optional[list[str]] = None) -> int:
    """Runs the command with these arguments (default: those of the process) and returns its exit status."""
    arguments = parse(sys.argv[1:] if argv is None else argv, ("config",), ("help",))
    if "help" in arguments.switches:
        print(HELP)
        return 0
    if "config" not in arguments.values:
        raise UserError("--config is missing, such as --config=configs/decoder.py:tiny; --help says more")
    config = config_lib.apply_overrides(load(arguments.values["config"]), arguments.overrides)
    for index, component in enumerate(config.data.components):
        with corpora.of_component(index):
            corpora.check(component)
            corpora.check_files(component, config.data_dir)
    from lm.data import pipeline

    print(in_words(pipeline.write(config.data, config.data_dir)))
    return 0


def in_words(counts: dict[str, Any]) -> str:
    """Says what a data set has in one line."""
    splits = [
        f"{split} {counts['documents'][split]:,} documents, {counts['bytes'][split] / 1e6:,.1f} MB, {counts['tokens'][split]:,} tokens"
        for split in ("train", "validation")
    ]
    return f"{'; '.join(splits)}; fingerprint {counts['fingerprint']}"


if __name__ == "__main__":
    run_cli(main)
