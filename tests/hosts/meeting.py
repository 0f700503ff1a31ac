"""One of several processes that meet, take part in collectives, and end: `meeting.py HOW FOLDER --coordinator=...`.

HOW is "refused" (process 0 refuses something for all), "failed" (process 1 alone has an error) or "waiting" (until a signal ends one of
them). Once all have met, each touches a file of its number in FOLDER.
"""

import sys
from pathlib import Path

from lm import distributed
from lm.errors import UserError, run_cli
from lm.train import signals


def refuse():
    raise UserError("no such run")


def main():
    how, folder, *flags = sys.argv[1:]
    settings = distributed.settings(dict(flag.removeprefix("--").split("=", 1) for flag in flags))
    with (
        signals.Stop(at_once=True),
        distributed.joined(settings),
    ):
        from jax.experimental.multihost_utils import sync_global_devices

        sync_global_devices("met")
        (Path(folder) / str(distributed.index())).touch()
        if how == "refused":
            distributed.first(refuse)
        if how == "failed" and distributed.index() == 1:
            raise UserError("no room here")
        while True:
            sync_global_devices("again")


if __name__ == "__main__":
    run_cli(main)
