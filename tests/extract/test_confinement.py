"""What a worker cannot do, tried from inside of a process that is confined as workers are, and seen on real workers."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import pickle
import resource
import signal
import socket
import stat
import struct
import threading
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest

from asyncpull.errors import AsyncpullError, DigestMismatchError, LayerError, WorkerError
from asyncpull.extract import landlock
from asyncpull.extract.confinement import Confinement, Reach, confine, confine_worker, worker_environment
from asyncpull.extract.pool import WorkerPool
from asyncpull.extract.processes import Nursery
from asyncpull.extract.protocol import AnswerDecoder, Extracted, Failed, encode
from asyncpull.extract.seccomp import MACHINES
from asyncpull.kernel import filter_system_calls, forgo_privileges, leave_network_namespace
from tests.extract.test_pool import Layer, children, is_alive, tar, workers, workers_are
from tests.support.user_namespace import call_in_user_namespace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Result = TypeVar("Result")

NOTHING = Reach(())

CAPABILITIES = {"chown", "dac_override", "dac_read_search", "fowner", "fsetid", "mknod", "setfcap", "sys_admin"}

needs_landlock = pytest.mark.skipif(
    landlock.abi() < landlock.LEAST_ABI, reason=f"Landlock of this kernel is ABI {landlock.abi()}"
)
needs_filter = pytest.mark.skipif(os.uname().machine not in MACHINES, reason=f"no filter for {os.uname().machine}")


def in_child(function: Callable[[], Result]) -> Result:
    """Call ``function`` in a child process; return its result, or raise its error."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        answer: object
        try:
            answer = function()
        except BaseException as error:  # carried home
            answer = error
        try:
            os.write(theirs, pickle.dumps(answer))
        finally:
            os._exit(0)
    os.close(theirs)
    with open(ours, "rb") as answers:
        data = answers.read()
    _, status = os.waitpid(child, 0)
    assert data, f"the child ended with status {status:#x}"
    result: Result | BaseException = pickle.loads(data)
    if isinstance(result, BaseException):
        raise result
    return result


def in_worker(function: Callable[[], Result], reach: Reach = NOTHING) -> Result:
    """Call ``function`` in a process that is confined as workers are, by the code that confines them."""

    def nursery() -> Result:
        confinement, own = confine(reach), os.getpid()
        # A pipe made before, since what comes after must not be able to make one's way out by itself.
        ours, theirs = os.pipe()
        if os.fork() == 0:
            answer: object
            try:
                confine_worker(own, confinement)
                answer = function()
            except BaseException as error:  # carried home
                answer = error
            try:
                os.write(theirs, pickle.dumps(answer))
            finally:
                os._exit(0)
        os.close(theirs)
        data = os.read(ours, 1 << 16)
        os.wait()
        result: Result | BaseException = pickle.loads(data)
        if isinstance(result, BaseException):
            raise result
        return result

    return in_child(nursery)


def refusals(*attempts: Callable[[], object]) -> list[int | None]:
    """The error numbers of what is tried, None for what succeeds."""
    found: list[int | None] = []
    for attempt in attempts:
        try:
            attempt()
        except OSError as error:
            found.append(error.errno)
        else:
            found.append(None)
    return found


# ------------------------------------------------------------------------------------------------------ files


@pytest.fixture
def area(tmp_path: Path) -> Iterator[Path]:
    """A place with a staging area, layers to read, and a directory that is none of a worker's business."""
    for name in ("staging/a", "staging/b", "layers/l", "outside"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("staging/a/f", "layers/l/f", "outside/f"):
        (tmp_path / name).write_text(name)
    yield tmp_path
    assert (tmp_path / "outside/f").read_text() == "outside/f"
    assert os.listdir(tmp_path / "outside") == ["f"]
    assert (tmp_path / "layers/l/f").read_text() == "layers/l/f"
    assert os.listdir(tmp_path / "layers/l") == ["f"]


def reach(area: Path) -> Reach:
    return Reach((str(area / "staging"),), (str(area / "layers"),))


@needs_landlock
def test_files_outside_of_the_reach_are_out_of_reach(area: Path) -> None:
    def attempts() -> list[int | None]:
        outside, layers, staging = area / "outside", area / "layers/l", area / "staging"
        return refusals(
            lambda: Path("/etc/shadow").read_bytes(),
            lambda: Path("/etc/passwd").read_bytes(),
            lambda: Path("/proc/self/environ").read_bytes(),
            lambda: os.listdir("/root"),
            lambda: os.open("/dev/kmsg", os.O_RDONLY),
            lambda: (outside / "f").read_bytes(),
            lambda: (outside / "f").write_text("x"),
            lambda: os.truncate(outside / "f", 0),
            lambda: (outside / "new").write_text("x"),
            lambda: (outside / "f").unlink(),
            lambda: os.mkdir(outside / "d"),
            lambda: os.symlink("f", outside / "l"),
            lambda: (layers / "f").write_text("x"),
            lambda: (layers / "f").unlink(),
            lambda: (layers / "new").write_text("x"),
            lambda: os.rename(staging / "a/f", layers / "g"),
            lambda: os.link(layers / "f", staging / "g"),
            lambda: os.rename(staging / "a/f", outside / "g"),
            lambda: os.link(staging / "a/f", outside / "g"),
            lambda: os.open(staging / "link", os.O_RDONLY),
        )

    (area / "staging/link").symlink_to("../outside/f")
    found = in_worker(attempts, reach(area))
    assert set(found) <= {errno.EACCES, errno.EXDEV}, found


@needs_landlock
def test_what_extraction_does_in_the_staging_area_is_permitted(area: Path) -> None:
    def work() -> list[int | None]:
        a, b = area / "staging/a", area / "staging/b"
        return refusals(
            lambda: (area / "layers/l/f").read_bytes(),
            lambda: os.listdir(area / "layers"),
            lambda: os.open(a / "new", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600),
            lambda: os.truncate(a / "new", 5),
            lambda: os.link(a / "new", b / "linked"),
            lambda: os.rename(a / "f", b / "renamed"),
            lambda: os.symlink("x", a / "link"),
            lambda: os.mkfifo(a / "fifo"),
            lambda: os.mknod(a / "whiteout", stat.S_IFCHR, 0),
            lambda: os.mkdir(a / "d"),
            lambda: os.chmod(a / "d", 0o1777),
            lambda: os.setxattr(a / "d", "user.x", b"y"),
            lambda: os.rmdir(a / "d"),
            lambda: os.unlink(a / "link"),
        )

    found = in_worker(work, reach(area))
    assert set(found) == {None}, found
    assert (area / "staging/b/renamed").read_text() == "staging/a/f"
    assert (area / "staging/b/linked").stat().st_size == 5


@pytest.mark.root
def test_root_can_do_in_the_staging_area_what_it_takes_privileges_for(area: Path) -> None:
    def work() -> list[int | None]:
        a = area / "staging/a"
        capability = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
        return refusals(
            lambda: os.chown(a / "f", 1234, 4321),
            lambda: os.chmod(a / "f", 0o6755),
            lambda: os.setxattr(a / "f", "security.capability", capability),
            lambda: os.setxattr(a / "f", "trusted.overlay.opaque", b"y"),
            lambda: os.mknod(a / "disk", stat.S_IFBLK, os.makedev(8, 0)),
            lambda: os.mknod(a / "null", stat.S_IFCHR, os.makedev(1, 3)),
        )

    found = in_worker(work, reach(area))
    assert set(found) == {None}, found
    assert stat.S_IMODE((area / "staging/a/f").stat().st_mode) == 0o6755


@needs_landlock
@pytest.mark.root
def test_a_device_that_was_extracted_cannot_be_used(area: Path) -> None:
    """Writing to it is as any writing there; what a device can do beyond that is not."""

    def work() -> list[int | None]:
        node = area / "staging/tty"
        os.mknod(node, stat.S_IFCHR, os.makedev(1, 3))
        fd = os.open(node, os.O_RDWR)
        return refusals(lambda: os.ttyname(fd), lambda: __import__("fcntl").ioctl(fd, 0x5401, bytes(64)))

    if landlock.abi() < 5:
        pytest.skip(f"Landlock's ABI is {landlock.abi()}, and 5 is needed")
    assert in_worker(work, reach(area))[1] == errno.EACCES


# ---------------------------------------------------------------------------------------------------- network


@pytest.fixture
def listeners(tmp_path: Path) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A TCP port on loopback, and a daemon's socket in the file system."""
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as local:
        local.bind(str(tmp_path / "daemon.sock"))
        local.listen()
        yield tcp, local


def connect(listener: socket.socket) -> None:
    with socket.socket(listener.family) as client:
        client.connect(listener.getsockname())


@needs_filter
def test_nobody_can_be_called(listeners: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
    """Not even a daemon whose socket is in the file system, in a place where everything is permitted."""
    tcp, local = listeners
    connect(tcp)
    connect(local)

    def attempts() -> list[int | None]:
        return refusals(
            lambda: connect(tcp),
            lambda: connect(local),
            lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
            lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
            socket.socketpair,
        )

    assert in_worker(attempts, Reach((str(tmp_path),))) == [errno.EPERM] * 5


@pytest.mark.root
def test_a_network_namespace_alone_has_no_way_to_loopback(listeners: tuple[socket.socket, socket.socket]) -> None:
    def attempt() -> list[int | None]:
        leave_network_namespace()
        return refusals(lambda: connect(listeners[0]))

    assert in_child(attempt) == [errno.ENETUNREACH]


@pytest.mark.skipif(landlock.abi() < 4, reason=f"Landlock of this kernel is ABI {landlock.abi()}, and 4 is needed")
def test_landlock_alone_forbids_tcp(listeners: tuple[socket.socket, socket.socket]) -> None:
    def attempt() -> list[int | None]:
        forgo_privileges()
        landlock.restrict((), ())
        return refusals(lambda: connect(listeners[0]), lambda: socket.create_server(("127.0.0.1", 0)))

    assert in_child(attempt) == [errno.EACCES] * 2


@pytest.mark.skipif(landlock.abi() < 6, reason=f"Landlock of this kernel is ABI {landlock.abi()}, and 6 is needed")
def test_landlock_alone_keeps_from_signals_and_abstract_sockets() -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0asyncpull-test-{os.getpid()}")
        listener.listen()
        parent = os.getpid()

        def attempt() -> list[int | None]:
            forgo_privileges()
            landlock.restrict((), ())
            return refusals(lambda: connect(listener), lambda: os.kill(parent, 0))

        assert in_child(attempt) == [errno.EPERM] * 2


# ------------------------------------------------------------------------------------- processes, privileges


@needs_filter
def test_no_programs_no_processes_no_signals() -> None:
    parent = os.getpid()

    def attempts() -> tuple[list[int | None], bool]:
        found = refusals(
            lambda: os.execv("/bin/true", ["true"]),
            os.fork,
            lambda: os.posix_spawn("/bin/true", ["true"], {}),
            lambda: os.kill(parent, 0),
            lambda: os.pidfd_open(parent),
            lambda: os.chroot("/"),
            leave_network_namespace,
        )
        ran: list[bool] = []
        thread = threading.Thread(target=lambda: ran.append(True))
        thread.start()
        thread.join()
        return found, ran == [True]

    assert in_worker(attempts) == ([errno.EPERM] * 7, True)


@pytest.mark.root
def test_a_setuid_program_gives_nothing(tmp_path: Path) -> None:
    """Without the filter, which forbids it anyway."""
    program = tmp_path / "id"
    program.write_bytes(Path("/usr/bin/id").read_bytes())
    program.chmod(0o4755)

    def effective_user(*, confined: bool) -> int:
        ours, theirs = os.pipe()
        child = os.fork()
        if not child:
            os.dup2(theirs, 1)
            fd = os.open(program, os.O_RDONLY)
            if confined:
                forgo_privileges()
            os.setresuid(1000, 1000, 1000)
            os.execve(fd, ["id", "-u"], {})
        os.close(theirs)
        os.waitpid(child, 0)
        with open(ours, "rb") as answer:
            return int(answer.read())

    if effective_user(confined=False) != 0:
        pytest.skip("setuid programs do nothing on this file system")
    assert effective_user(confined=True) == 1000


@pytest.mark.root
def test_capabilities_are_gone_for_good() -> None:
    def attempts() -> list[int | None]:
        libc = ctypes.CDLL(None, use_errno=True)
        header, every = struct.pack("Ii", 0x20080522, 0), struct.pack("6I", *[0xFFFFFFFF] * 6)

        def regain() -> None:
            if libc.capset(header, every):
                raise OSError(ctypes.get_errno(), "capset")

        return refusals(regain, lambda: os.setuid(1000), lambda: os.nice(-1))

    found = in_worker(attempts)
    assert found == [errno.EPERM, errno.EPERM, errno.EPERM]


# -------------------------------------------------------------------------------------------------- resources


def test_limits_hold() -> None:
    def attempts() -> list[object]:
        found: list[object] = []
        opened: list[int] = []
        try:
            while len(opened) < 2000:
                opened.append(os.dup(0))
        except OSError as error:
            found.append(error.errno)
        for fd in opened:
            os.close(fd)
        try:
            mmap.mmap(-1, 8 << 30, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
        except OSError as error:
            found.append(error.errno)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
        except (OSError, ValueError):
            found.append("cannot be raised")
        return [*found, resource.getrlimit(resource.RLIMIT_CORE)]

    assert in_worker(attempts) == [errno.EMFILE, errno.ENOMEM, "cannot be raised", (1, 1)]


def test_a_crash_leaves_no_core(tmp_path: Path) -> None:
    """However the machine is set up: cores may go to a file or to a program."""

    def dumps_core(*, confined: bool) -> bool:
        child = os.fork()
        if not child:
            signal.signal(signal.SIGSEGV, signal.SIG_DFL)
            os.chdir(tmp_path)
            _, hard = resource.getrlimit(resource.RLIMIT_CORE)
            resource.setrlimit(resource.RLIMIT_CORE, (hard if hard != resource.RLIM_INFINITY else 1 << 20, hard))
            if confined:
                confine(Reach((str(tmp_path),)))
            ctypes.string_at(0)
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == signal.SIGSEGV
        return os.WCOREDUMP(status)

    assert not dumps_core(confined=True)
    if not dumps_core(confined=False):
        pytest.skip("this machine makes no cores anyway")


def test_of_the_environment_only_what_python_reads_is_handed_on() -> None:
    environment = {"AWS_SECRET_ACCESS_KEY": "s", "https_proxy": "http://u:p@h", "HOME": "/h", "REGISTRY_AUTH_FILE": "a"}
    needed = {"PYTHONHASHSEED": "0", "LD_LIBRARY_PATH": "/l", "LC_ALL": "C", "LANG": "C", "PATH": "/bin"}
    assert worker_environment(environment | needed) == needed


# ---------------------------------------------------------------------------------------------- real workers


async def test_a_worker_of_a_pool_is_confined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_PASSWORD", "secret")
    layer = Layer(tmp_path / "layer", tar({"f": b"x"}))
    async with WorkerPool(Reach((str(tmp_path),)), 1) as pool:
        assert isinstance(await pool.run(layer.job, (layer.fd,)), Extracted)
        (worker,) = workers()
        confinement = await pool.confinement()
        process = Path(f"/proc/{worker}")
        status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines())
        capabilities = int(status["CapEff"], 16)
        assert status["NoNewPrivs"] == "1"
        assert confinement.no_new_privs
        assert int(status["Seccomp_filters"]) - _own_filters() == (2 if confinement.seccomp else 0)
        assert confinement.landlock == max(landlock.abi(), 0)
        assert capabilities.bit_count() == len(confinement.capabilities) <= len(CAPABILITIES)
        assert capabilities == int(status["CapPrm"], 16)
        own, theirs = (os.readlink(f"/proc/{pid}/ns/net") for pid in ("self", worker))
        assert (own != theirs) == confinement.network_namespace
        assert b"secret" not in (process / "environ").read_bytes()
        assert "Max core file size        1  " in (process / "limits").read_text()
    os.close(layer.fd)


async def test_what_lies_outside_of_the_reach_is_an_error_of_the_job(tmp_path: Path) -> None:
    """And the same worker does the next job."""
    inside, outside = (Layer(tmp_path / name, tar({"f": b"x"})) for name in ("inside", "outside"))
    if (await _confinement()).landlock:
        async with WorkerPool(Reach((str(tmp_path / "inside"),)), 1) as pool:
            with pytest.raises(AsyncpullError, match="Permission denied"):
                await pool.run(outside.job, (outside.fd,))
            assert os.listdir(outside.diff) == []
            assert isinstance(await pool.run(inside.job, (inside.fd,)), Extracted)
    for layer in (inside, outside):
        os.close(layer.fd)


def test_a_nursery_that_nobody_waits_for_ends_without_a_word(capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        Nursery(NOTHING).close()
    assert capfd.readouterr() == ("", "")


async def test_workers_end_with_their_nursery_even_when_they_are_stopped(tmp_path: Path) -> None:
    layer = Layer(tmp_path / "layer", tar({"f": b"x"}))
    pool = WorkerPool(Reach((str(tmp_path),)), 1)
    async with pool:
        await pool.run(layer.job, (layer.fd,))
        (worker,) = workers()
        (nursery,) = [child for child in children(os.getpid()) if worker in children(child)]
        os.kill(worker, signal.SIGSTOP)
        os.kill(nursery, signal.SIGKILL)
        await workers_are(set())
        while is_alive(worker):
            os.sched_yield()
    os.close(layer.fd)


async def _confinement() -> Confinement:
    async with WorkerPool(Reach(()), 1) as pool:
        return await pool.confinement()


def _own_filters() -> int:
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["Seccomp_filters"])


# ------------------------------------------------------------------------------------- where less is possible


@needs_filter
@pytest.mark.root
def test_what_the_kernel_has_not_is_left_out_and_told(area: Path) -> None:
    """A kernel without Landlock, and a container that permits no namespaces: both made by a filter."""

    def attempt() -> tuple[Confinement, list[int | None]]:
        forgo_privileges()
        filter_system_calls(_refusing({444: errno.ENOSYS, _unshare(): errno.EPERM}))
        confinement = confine(Reach(()))
        return confinement, refusals(lambda: (area / "staging/new").write_text("x"), socket.socket)

    confinement, found = in_child(attempt)
    assert (confinement.landlock, confinement.network_namespace) == (0, False)
    assert confinement.seccomp
    assert confinement.no_new_privs
    assert [reason.partition(":")[0] for reason in confinement.missing] == ["network namespace", "Landlock"]
    assert found == [None, errno.EPERM]


def test_root_of_a_user_namespace_is_confined_like_root(tmp_path: Path) -> None:
    confinement = call_in_user_namespace(lambda: confine(Reach((str(tmp_path),))), tmp_path)
    assert confinement.network_namespace
    assert set(confinement.capabilities) == CAPABILITIES - {"sys_admin"}
    assert confinement.missing == () or landlock.abi() < landlock.LEAST_ABI or os.uname().machine not in MACHINES


@pytest.mark.root
def test_an_ordinary_user_has_all_but_the_namespace() -> None:
    def attempt() -> Confinement:
        os.setgroups([])
        os.setresgid(1000, 1000, 1000)
        os.setresuid(1000, 1000, 1000)
        return confine(Reach(()))

    confinement = in_child(attempt)
    assert confinement.capabilities == ()
    assert not confinement.network_namespace
    assert confinement.no_new_privs
    assert confinement.missing[0].startswith("network namespace: ")
    assert confinement.landlock == (landlock.abi() if landlock.abi() >= landlock.LEAST_ABI else 0)


def _unshare() -> int:
    return 272 if os.uname().machine == "x86_64" else 97


def _refusing(errors: dict[int, int]) -> bytes:
    program = [(0x20, 0, 0, 0)]
    for number, error in errors.items():
        program += [(0x15, 0, 1, number), (0x06, 0, 0, 0x50000 | error)]
    return b"".join(struct.pack("=HBBI", *each) for each in [*program, (0x06, 0, 0, 0x7FFF0000)])


# ------------------------------------------------------------------------------------------- what workers say


@pytest.mark.parametrize(
    "nonsense",
    [
        pickle.dumps(print),
        b"cos\nsystem\n(S'true'\ntR.",
        b"\x80\x04\x8c\x10asyncpull.errors\x8c\x1dAsyncpullError.__init__.__globals__\x93.",
        b"casyncpull.extract.protocol\npickle\n.",
        b"not a pickle",
        b"",
    ],
)
def test_nothing_is_made_of_what_a_worker_must_not_say(nonsense: bytes) -> None:
    with pytest.raises(WorkerError, match="nonsense"):
        AnswerDecoder().feed(struct.pack(">I", len(nonsense)) + nonsense)


def test_no_endless_answer_is_awaited() -> None:
    with pytest.raises(WorkerError, match="4294967295 bytes"):
        AnswerDecoder().feed(b"\xff\xff\xff\xff")


def test_answers_and_errors_arrive_as_they_were() -> None:
    answers = [
        Extracted(1, 2, (0,), (0, 5), (b"a", b"\xff")),
        (b"a", b"b"),
        None,
        Failed(DigestMismatchError("blob", "a", "b", "hint")),
        Failed(LayerError("bad", b"\xff/x", 512, "hint")),
    ]
    received = AnswerDecoder().feed(b"".join(map(encode, answers)))
    assert list(map(repr, received)) == list(map(repr, answers))
