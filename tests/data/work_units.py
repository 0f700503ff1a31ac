"""Work of lm.data.shared_work that processes can import without anything else of the tests."""

import errno
import os
import signal

from lm.errors import UserError


def square(broken, number, folder):
    with open(os.path.join(folder, "text"), "w") as file:
        file.write(str(number**2))
    if number == 3 and os.path.exists(broken):
        with open(broken) as file:
            what = file.read()
        if what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise UserError("unit 3 is broken")
    return {"documents": number}
