"""The process that workers are forked from.

``__main__.py`` is how it begins; FD, its argument, is a socket. It imports what a worker needs, once, and forks a
worker for every socket that it is sent over FD. A fork costs a millisecond and shares the memory; a start of Python
with its imports costs fifty. It never has a second thread, so that forking it is safe, which forking the loop process
would not be.

FD keeps messages apart. The conversation::

    loop                    nursery
    Reach                ->
                         <-  Confinement
    +, with a socket     ->                one worker, who serves that socket

Before it forks, it confines itself: no worker has ever been less confined (``confinement``).

When FD ends it waits for its workers, whose sockets end with it, and exits. So whoever waits for the nursery has waited
for all of them, and their use of the processor is counted to it. One that does not end is killed.
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
import socket
import sys
import traceback
from contextlib import suppress

from asyncpull.extract.confinement import Confinement, confine, confine_worker
from asyncpull.extract.worker import serve
from asyncpull.kernel import keep_freed_memory

# How long a worker has, in seconds, to hear that its socket has ended.
_PATIENCE = 10
_LONGEST = 1 << 16
# What pieces of a layer a worker has in memory at a time, several times over.
_KEPT_BYTES = 64 << 20


def main() -> None:
    """Fork workers until nobody can ask for one any more."""
    os.umask(0)
    requests = socket.socket(fileno=int(sys.argv[1]))
    try:
        reach = pickle.loads(requests.recv(_LONGEST))
        confinement = confine(reach)
        requests.send(pickle.dumps(confinement))
    except (BrokenPipeError, ConnectionResetError, EOFError):  # a pull that needed no worker has ended already
        return
    signal.signal(signal.SIGCHLD, _reap)
    own = os.getpid()
    keep_freed_memory(_KEPT_BYTES)
    gc.freeze()  # so that no collection in a worker copies the pages it shares
    gc.enable()
    while (fd := _next_request(requests)) is not None:
        if os.fork() == 0:
            _become_a_worker(requests, fd, own, confinement)
        os.close(fd)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(_PATIENCE)  # which ends this process, and with it those workers that are left
    with suppress(ChildProcessError):
        while True:
            os.wait()


def _next_request(requests: socket.socket) -> int | None:
    """The socket of the next worker; None when nobody can ask any more."""
    try:
        _, fds, _, _ = socket.recv_fds(requests, 1, 1)
    except ConnectionResetError:  # they have not even heard how we are confined
        return None
    return fds[0] if fds else None


def _become_a_worker(requests: socket.socket, fd: int, nursery: int, confinement: Confinement) -> None:
    status = 1
    try:
        confine_worker(nursery, confinement)
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
