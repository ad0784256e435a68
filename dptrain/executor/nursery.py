"""Worker processes that are born with everything imported: forks of one process that does nothing else.

    nursery = Nursery(work.function.__module__, root, threads=1)    # begins to import, and comes back at once
    process = nursery.born()                                        # as a subprocess.Popen with pipes; also at once
    nursery.close()

Three workers that import torch for themselves cost as many times what one does, and a sweep of small models is over before
that has paid. The nursery is a fresh interpreter, ``python -m`` the work's module, that imports what jobs need and then waits;
for each worker it is handed three pipes and forks. It says by a message which process that is, and later how it ended.

A fork has one thread alone, so that a lock which another thread held would stay locked for good, and OpenMP's threads would be
missing. Therefore the nursery imports and computes nothing; a library that starts threads when it is imported (OpenBLAS) is
told to have one; and where it has more than one thread all the same, the worker is a fresh interpreter instead. Each fork takes
new randomness where a process carries some; noise, batches and keys are drawn from the system's in any case.

Each end of a pipe is held by one process: a worker's input ends with whoever started it, and its output with the worker. The
nursery ends with its channel.
"""

import contextlib
import gc
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import dptrain

LONGEST = 4096
"""Bytes of a message."""
PATIENCE = 30.0
"""Seconds that the nursery is waited for, to say how a worker ended that has ended. It says it at once, or ends, which is seen;
where a machine is overloaded its turn may take a while to come."""
LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def environment(threads: int) -> dict[str, str]:
    """Of a worker that is a fresh interpreter."""
    paths = [str(Path(dptrain.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, **dict.fromkeys(LIMITS, str(threads)), "PYTHONPATH": os.pathsep.join(paths)}


def is_possible() -> bool:
    """Whether processes are forked here: on Linux. Elsewhere system libraries do not bear it."""
    return sys.platform == "linux" and hasattr(os, "pidfd_open")


# -- whoever starts workers -------------------------------------------------------------------------------------------


class Born:
    """A process of the nursery, with the part of ``subprocess.Popen`` that is needed."""

    def __init__(self, stdin: IO[str], stdout: IO[str], stderr: IO[bytes]):
        self.stdin, self.stdout, self.stderr = stdin, stdout, stderr
        self.is_born = False
        self.returncode: int | None = None
        """None also where nobody saw how it ended: it outlived the nursery."""
        self._handle: int | None = None
        """Of the process; a number may be another one's when it is over."""
        self._told = threading.Event()
        self._lock = threading.Lock()
        self._ended = False

    def begins(self, handle: int) -> None:
        """The nursery says that it is there."""
        with self._lock:
            self.is_born = True
            if self._ended:
                os.close(handle)
            else:
                self._handle = handle

    def ends(self, returncode: int | None) -> None:
        """The nursery says how it ended; or it has ended itself, and will not say it."""
        self.returncode = self.returncode if returncode is None else returncode
        self._told.set()

    def send_signal(self, number: int) -> None:
        """Before it is born it has nothing to stop."""
        with self._lock, contextlib.suppress(ProcessLookupError):
            if self._handle is not None:
                signal.pidfd_send_signal(self._handle, number)

    def wait(self) -> int | None:
        """Until it is over, or its nursery is, and it is known how it ended."""
        with self._lock:  # of its own, since another thread may close the other one meanwhile
            handle = None if self._handle is None else os.dup(self._handle)
        if handle is not None:
            try:
                select.select([handle], [], [])
            finally:
                os.close(handle)
        self._told.wait(PATIENCE)
        return self.returncode

    def end(self) -> None:
        """At once, whatever it does; before it is born, by the end of its input."""
        self.send_signal(signal.SIGKILL)
        if self.is_born:
            self.wait()
        with self._lock:
            self._ended = True
            if self._handle is not None:
                os.close(self._handle)
            self._handle = None
        for stream in (self.stdin, self.stderr):  # its output is closed by whoever reads it
            with contextlib.suppress(OSError):
                stream.close()


class Nursery:
    """See the module's text.

    Args:
        module: that ends in ``worker.serve(...)``.
        root: which its workers are told.
        threads: of each of them.
    """

    def __init__(self, module: str, root: Path, threads: int):
        self._channel, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed by close()
        with there:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, str(root), str(there.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=self.errors,
                stderr=self.errors,
                env=environment(threads) | {"OPENBLAS_NUM_THREADS": "1"},
                pass_fds=[there.fileno()],
                start_new_session=True,
            )
        self._children: dict[int, Born] = {}
        self._count = 0
        self._lock = threading.Lock()
        self._over = False
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def has_borne(self) -> bool:
        """Whether there has been a worker of it, so that another nursery would do as well."""
        with self._lock:
            return any(child.is_born for child in self._children.values())

    def is_over(self) -> bool:
        """Whether it bears nobody any more, as far as is known."""
        return self._over or self._process.poll() is not None

    def ended(self) -> int | None:
        """Exit code of the nursery itself, where it has ended before its time."""
        if self._over:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self._process.wait(PATIENCE)
        return self._process.poll()

    def born(self) -> Born:
        """A new worker, which reads as soon as it can."""
        (mine_in, its_in), (its_out, mine_out) = os.pipe()[::-1], os.pipe()[::-1]
        errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed by Born.end()
        born = Born(os.fdopen(mine_in, "w"), os.fdopen(mine_out), errors)
        with self._lock:
            self._count += 1
            number, self._children[self._count] = self._count, born
            over = self._over
        try:
            socket.send_fds(self._channel, [json.dumps(number).encode()], [its_in, its_out, errors.fileno()])
        except OSError:  # it has ended
            over = True
        finally:
            os.close(its_in)
            os.close(its_out)
        if over:
            born.ends(None)
        return born

    def _listen(self) -> None:
        while True:
            try:
                said, handles, _, _ = socket.recv_fds(self._channel, LONGEST, 1)
            except OSError:
                said, handles = b"", []
            if not said:
                break
            told: dict[str, int] = json.loads(said)
            with self._lock:
                child = self._children[told["number"]]
                if "code" in told:
                    child.ends(told["code"])
                elif handles:
                    child.begins(handles[0])
        with self._lock:
            self._over = True
            for child in self._children.values():
                child.ends(None)

    def close(self) -> None:
        """Ends it; workers end with their input."""
        self._process.kill()
        self._process.wait()
        self._listener.join(PATIENCE)
        self._channel.close()
        self.errors.close()


_begun: dict[tuple[str, Path, int], Nursery] = {}


@contextlib.contextmanager
def begun(module: str, root: Path, threads: int) -> Iterator[None]:
    """A nursery that begins to import now, for whoever asks for the same one by :func:`taken` in the block; it ends with the
    block where nobody did."""
    wanted = module, root, threads
    if is_possible():
        _begun[wanted] = Nursery(*wanted)
    try:
        yield
    finally:
        if (nursery := _begun.pop(wanted, None)) is not None:
            nursery.close()


def taken(module: str, root: Path, threads: int) -> Nursery:
    """The one that was begun; or a new one. Whoever takes it closes it."""
    nursery = _begun.pop((module, root, threads), None)
    if nursery is not None and not nursery.is_over():
        return nursery
    if nursery is not None:
        nursery.close()
    return Nursery(module, root, threads)


# -- the nursery's own process ----------------------------------------------------------------------------------------


def tend(channel: int, warm: Callable[[], object]) -> None:
    """Forks for whoever holds the other end of the channel; comes back in each of the forks, and never in the nursery."""
    warm()
    gc.collect()
    gc.freeze()  # what is imported stays: no fork looks through all of it again, and copies its pages for that
    for number in (signal.SIGINT, signal.SIGTERM):  # to a whole group of processes: others go by it, and this one tells of them
        signal.signal(number, signal.SIG_IGN)
    os.set_inheritable(channel, False)
    with socket.socket(fileno=channel) as asked:
        running: dict[int, tuple[int, int]] = {}
        """Handle of a process to its id and its number."""
        while True:
            ready, _, _ = select.select([asked, *running], [], [])
            for handle in [each for each in ready if isinstance(each, int)]:
                process, number = running.pop(handle)
                _, status = os.waitpid(process, 0)
                os.close(handle)
                _say(asked, {"number": number, "code": os.waitstatus_to_exitcode(status)})
            if asked not in ready:
                continue
            said, pipes, _, _ = socket.recv_fds(asked, LONGEST, 3)
            if not said:
                sys.exit()
            process = _forked(pipes)
            if process == 0:
                for handle in running:
                    os.close(handle)
                return
            number, handle = json.loads(said), os.pidfd_open(process)
            running[handle] = process, number
            for pipe in pipes:
                os.close(pipe)
            _say(asked, {"number": number, "process": process}, handle)


def _say(channel: socket.socket, told: dict[str, Any], *handles: int) -> None:
    with contextlib.suppress(OSError):  # nobody listens any more, which the next look says
        socket.send_fds(channel, [json.dumps(told).encode()], handles)


def _forked(pipes: list[int]) -> int:
    """The new process; 0 in it, with these pipes as its input, output and errors."""
    sys.stdout.flush()
    sys.stderr.flush()
    alone = len(os.listdir("/proc/self/task")) == 1
    process = os.fork()
    if process:
        return process
    os.setsid()
    for number, pipe in enumerate(pipes):
        os.dup2(pipe, number)
        os.close(pipe)
    threads = os.environ["OMP_NUM_THREADS"]
    os.environ["OPENBLAS_NUM_THREADS"] = threads
    if not alone:  # nothing but a fresh interpreter is safe from here on
        os.execv(sys.executable, [sys.executable, "-m", _module(), sys.argv[1]])
    _renew()
    if threads != "1":
        from threadpoolctl import threadpool_limits

        threadpool_limits(int(threads), "blas")
    return 0


def _module() -> str:
    """That this process was begun with."""
    spec = sys.modules["__main__"].__spec__
    assert spec is not None
    return spec.name


def _renew() -> None:
    """New randomness for whatever would otherwise repeat in every fork; torch's own generator begins in every process alike."""
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
