"""Proving a template before it is stored, in a process with walls.

The subset of `language.py` bounds a template by reasoning; this is the second wall, should the
reasoning or the engine be wrong. The child compiles the sources and renders them with made-up data,
under a limit on its memory; the parent limits its time. It is started when the first template is
published (a new interpreter, never a fork), ends when it has been idle, and dies with its parent.

Messages are a length (four bytes, big end first) and JSON.
"""

import asyncio
import ctypes
import os
import resource
import signal
import sys
from typing import Any, BinaryIO

import msgspec

from mailyard.core import limits
from mailyard.core.errors import InvalidInput, MailyardError
from mailyard.sending.render import Compiled, TooMuch

_IDLE_S = 30.0
_START_S = 20.0  # a new interpreter on a loaded machine
_PR_SET_PDEATHSIG = 1
_MESSAGE_BYTES = 16 * limits.MIB
_SAMPLES = ("sample", "<&\"'>" * 400)


class Task(msgspec.Struct, frozen=True):
    subject: str
    html: str
    text: str


class Verdict(msgspec.Struct, frozen=True):
    """The variables that the sources use, or what is wrong with them."""

    variables: list[str] = []
    error: str = ""
    field: str = ""


# The child ---------------------------------------------------------------------------------------


def judge(task: Task) -> Verdict:
    """Compile and render with made-up data. Only what no data could cure is an error."""
    try:
        compiled = Compiled(task.subject, task.html, task.text)
        for sample in _SAMPLES:
            _try(compiled, sample)
    except MailyardError as error:
        return Verdict(error=error.message, field=error.field or "")
    return Verdict(variables=list(compiled.variables))


def _try(compiled: Compiled, sample: str) -> None:
    try:
        compiled.render(_made_up(compiled.paths, sample))
    except TooMuch:
        raise
    except InvalidInput:
        pass  # made-up data has not the types that the template wants


def _made_up(paths: frozenset[str], sample: str) -> dict[str, Any]:
    """`{"order": {"id": sample}}` for the path `order.id`."""
    data: dict[str, Any] = {}
    for path in sorted(paths):
        here = data
        names = path.split(".")[: limits.API_JSON_DEPTH // 2]
        for name in names[:-1]:
            inner = here.get(name)
            if not isinstance(inner, dict):
                inner = here[name] = {}
            here = inner
        here.setdefault(names[-1], sample)
    return data


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Answer tasks until the parent closes the pipe."""
    while len(head := source.read(4)) == 4:
        task = msgspec.json.decode(source.read(int.from_bytes(head, "big")), type=Task)
        answer = msgspec.json.encode(judge(task))
        sink.write(len(answer).to_bytes(4, "big") + answer)
        sink.flush()


def _wall_in(parent: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    memory = limits.TEMPLATE_PROOF_MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we asked
        sys.exit(1)


# The parent --------------------------------------------------------------------------------------


class Prover:
    """Proves templates one after the other in a child process. Close it at the end."""

    def __init__(self, *, timeout_s: float = limits.TEMPLATE_PROOF_TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._child: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._idle: asyncio.TimerHandle | None = None

    @property
    def pid(self) -> int | None:
        """The child's process id while there is one."""
        return self._child.pid if self._child is not None else None

    async def prove(self, subject: str, html: str, text: str) -> tuple[str, ...]:
        """The variables that the sources use. Raises InvalidInput with the source and line."""
        task = msgspec.json.encode(Task(subject, html, text))
        if len(task) > _MESSAGE_BYTES:
            raise InvalidInput("the template is too large")
        async with self._turn:
            self._stay_awake()
            try:
                verdict = await self._ask(task)
            except TimeoutError:
                await self._end()
                raise InvalidInput("the template takes too long to prove", field="html") from None
            except (asyncio.IncompleteReadError, ConnectionError):
                await self._end()
                raise InvalidInput("the template takes too much memory", field="html") from None
            except BaseException:  # cancelled in the middle: the pipe holds half an answer
                await self._end()
                raise
            self._idle = asyncio.get_running_loop().call_later(_IDLE_S, self._doze)
        if verdict.error:
            raise InvalidInput(verdict.error, field=verdict.field or None)
        return tuple(verdict.variables)

    async def close(self) -> None:
        """End the child."""
        async with self._turn:
            self._stay_awake()
            await self._end()

    async def _ask(self, task: bytes) -> Verdict:
        child = self._child
        if child is None or child.returncode is not None:
            child = await self._start()
        assert child.stdin is not None and child.stdout is not None
        async with asyncio.timeout(self._timeout_s):
            child.stdin.write(len(task).to_bytes(4, "big") + task)
            await child.stdin.drain()
            size = int.from_bytes(await child.stdout.readexactly(4), "big")
            answer = await child.stdout.readexactly(size)
        return msgspec.json.decode(answer, type=Verdict)

    async def _start(self) -> asyncio.subprocess.Process:
        """A new child, ready: it has proven an empty template."""
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-m", "mailyard.sending.proof", str(os.getpid()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=2 * limits.MIB,
        )  # fmt: skip
        self._child = child
        assert child.stdin is not None and child.stdout is not None
        task = msgspec.json.encode(Task("", "", ""))
        async with asyncio.timeout(_START_S):
            child.stdin.write(len(task).to_bytes(4, "big") + task)
            size = int.from_bytes(await child.stdout.readexactly(4), "big")
            await child.stdout.readexactly(size)
        return child

    async def _end(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        if child.returncode is None:
            child.kill()
        await child.wait()

    def _stay_awake(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _doze(self) -> None:
        """Idle long enough: end of the pipe is the child's sign to go."""
        if not self._turn.locked() and self._child is not None and self._child.stdin is not None:
            self._child.stdin.close()
            self._child = None


if __name__ == "__main__":
    _wall_in(int(sys.argv[1]))
    serve(sys.stdin.buffer, sys.stdout.buffer)
