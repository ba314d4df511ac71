"""The process that workers are forked from.

``python -m asyncpull.extract.nursery FD``. It imports what a worker needs, once, and forks a worker for every socket
that it is sent over FD. A fork costs a millisecond and shares the memory; a start of Python with its imports costs
seventy. It never has a second thread, so that forking it is safe, which forking the loop process would not be.

When FD ends it waits for its workers, whose sockets end with it, and exits. So whoever waits for the nursery has waited
for all of them, and their use of the processor is counted to it.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import traceback
from contextlib import suppress

from asyncpull.extract.worker import serve


def main() -> None:
    """Fork workers until nobody can ask for one any more."""
    os.umask(0)
    requests = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGCHLD, _reap)
    gc.freeze()  # so that no collection in a worker copies the pages it shares
    while True:
        data, fds, _, _ = socket.recv_fds(requests, 1, 1)
        if not data:
            break
        if os.fork() == 0:
            _become_a_worker(requests, fds[0])
        os.close(fds[0])
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with suppress(ChildProcessError):
        while True:
            os.wait()


def _become_a_worker(requests: socket.socket, fd: int) -> None:
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        requests.close()
        serve(socket.socket(fileno=fd))
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)  # never back into the loop above


def _reap(*_: object) -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


if __name__ == "__main__":
    main()
