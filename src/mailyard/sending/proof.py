"""Building and proving a template before it is stored, in a process with walls.

The subset of `language.py` bounds a template by reasoning; this is the second wall, should the
reasoning or an engine be wrong. The child builds the sources (`build/`: layouts, MJML, styles),
compiles them and renders them with made-up data, under a limit on its memory and without a file
descriptor to open a file or a socket with; the parent limits its time. It is started when the
first template is published (a new interpreter, never a fork), ends when it has been idle, and dies
with its parent.

Messages are a length (four bytes, big end first) and JSON.
"""

import asyncio
import ctypes
import os
import resource
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from mailyard.core import limits
from mailyard.core.errors import InvalidInput, MailyardError
from mailyard.sending.build.source import EMAIL, Built, Part, Source
from mailyard.sending.render import Compiled, TooMuch

_IDLE_S = 30.0
_START_S = 20.0  # a new interpreter on a loaded machine
_PR_SET_PDEATHSIG = 1
_MESSAGE_BYTES = 16 * limits.MIB
_ANSWER_BYTES = 64 * limits.MIB
_ROOT = Path(__file__).parents[2]  # the child runs the code that runs here, whatever is installed
_CHILD = (
    "import sys; sys.path.insert(0, sys.argv[1]); from mailyard.sending import proof; proof.child()"
)
_WARMING = (
    "<style>p{color:red}</style><p>{{ 1|money('EUR') }} {{ 1|number }} {{ 0|datetime }}</p>",
    "{% if %}",
)
_SAMPLES = ("sample", "<&\"'>" * 400)


class Task(msgspec.Struct, frozen=True):
    """What to build and prove; `library`: the layouts and blocks that it may name."""

    source: Source
    library: dict[str, Part] = {}


class Verdict(msgspec.Struct, frozen=True):
    """What was built and the variables that it uses, or what is wrong."""

    built: Built = Built()
    variables: tuple[str, ...] = ()
    error: str = ""
    field: str = ""


# The child ---------------------------------------------------------------------------------------


def judge(task: Task) -> Verdict:
    """Build, compile and render with made-up data. Only what no data could cure is an error."""
    from mailyard.sending.build.build import build, unusable_text  # which the parent never loads

    try:
        built = build(task.source, task.library)
        made_text = "text" in built.origins and not task.source.text.strip()
        try:
            compiled = Compiled(built.subject, built.html, built.text, built.origins)
        except InvalidInput as error:
            raise unusable_text(error) if made_text and error.field == "text" else error from None
        for sample in _SAMPLES if task.source.kind == EMAIL else ():
            _try(compiled, sample)
    except MailyardError as error:
        return Verdict(error=error.message, field=error.field or "")
    except MemoryError:
        raise  # the process is done with
    except BaseException as error:  # a panic of an engine is no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        return Verdict(error=f"it cannot be built: {error}", field=task.source.body)
    return Verdict(built, compiled.variables)


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


def child() -> None:
    """The whole life of the child: `_CHILD` calls it."""
    for html in _WARMING:  # loads what needs files
        judge(Task(Source("s", html)))
    _wall_in(int(sys.argv[2]))
    serve(sys.stdin.buffer, sys.stdout.buffer)


def _wall_in(parent: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    memory = limits.TEMPLATE_PROOF_MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))  # nothing can be opened, read or dialled
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

    async def prove(
        self, source: Source, library: Mapping[str, Part] | None = None
    ) -> tuple[Built, tuple[str, ...]]:
        """What the source becomes, and the variables that it uses.

        Raises InvalidInput with the source and place.
        """
        task = msgspec.json.encode(Task(source, dict(library or {})))
        if len(task) > _MESSAGE_BYTES:
            raise InvalidInput("the template and what it includes are too large")
        async with self._turn:
            self._stay_awake()
            try:
                verdict = await self._ask(task)
            except TimeoutError:
                await self._end()
                raise InvalidInput(
                    "the template takes too long to prove", field=source.body
                ) from None
            except (asyncio.IncompleteReadError, ConnectionError):
                await self._end()
                raise InvalidInput(
                    "it takes too much memory, or nests too deep", field=source.body
                ) from None
            except BaseException:  # cancelled in the middle: the pipe holds half an answer
                await self._end()
                raise
            self._idle = asyncio.get_running_loop().call_later(_IDLE_S, self._doze)
        if verdict.error:
            raise InvalidInput(verdict.error, field=verdict.field or None)
        return verdict.built, verdict.variables

    async def close(self) -> None:
        """End the child."""
        async with self._turn:
            self._stay_awake()
            await self._end()

    async def _ask(self, task: bytes) -> Verdict:
        child = self._child
        if child is None or child.returncode is not None:
            child = await self._start()
        async with asyncio.timeout(self._timeout_s):
            answer = await _exchange(child, task)
        return msgspec.json.decode(answer, type=Verdict)

    async def _start(self) -> asyncio.subprocess.Process:
        """A new child, ready: it has proven an empty template."""
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-c", _CHILD, str(_ROOT), str(os.getpid()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=2 * limits.MIB,
        )  # fmt: skip
        self._child = child
        async with asyncio.timeout(_START_S):
            await _exchange(child, msgspec.json.encode(Task(Source())))
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


async def _exchange(child: asyncio.subprocess.Process, task: bytes) -> bytes:
    """Send a task, read its answer. Raises IncompleteReadError when the child has ended."""
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(len(task).to_bytes(4, "big") + task)
    await child.stdin.drain()
    size = int.from_bytes(await child.stdout.readexactly(4), "big")
    if size > _ANSWER_BYTES:
        raise ConnectionError("an answer of the prover is too large")
    return await child.stdout.readexactly(size)
