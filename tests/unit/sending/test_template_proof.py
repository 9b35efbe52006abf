"""A template is proven in a process with walls, which is restarted when it falls."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest

from mailyard.core.errors import InvalidInput
from mailyard.sending.build.source import Source
from mailyard.sending.proof import Prover, Task, judge


@pytest.fixture
async def prover() -> AsyncIterator[Prover]:
    made = Prover()
    yield made
    await made.close()


async def variables(prover: Prover, subject: str, html: str, text: str) -> tuple[str, ...]:
    _, found = await prover.prove(Source(subject, html, "", text))
    return found


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_good_template_names_its_variables(prover: Prover) -> None:
    assert prover.pid is None
    found = await variables(
        prover,
        "Hi {{ name }}",
        "{% for line in order.lines %}{{ line.sku }}{% endfor %}",
        "{{ city }}",
    )
    assert found == ("city", "name", "order")


@pytest.mark.parametrize(
    ("html", "reason"),
    [
        ("a\n{% if %}", "html, line 2, column 7: unexpected end of block"),
        ("a\n{{ x|nofilter }}", "html, line 2, column 1: unknown filter 'nofilter'"),
        ("{% for i in range(100000) %}" * 3 + "{% endfor %}" * 3, "too much work"),
        ("{% for i in range(100000) %}{{ 'abcdefgh' }}" + "b" * 9_000 + "{% endfor %}", "html"),
        ("{% set x = 'ab' %}" + "{% set x = x ~ x %}" * 30 + "{{ x }}", "repeats values"),
    ],
)
async def test_a_bad_template_is_refused_with_its_source(
    prover: Prover, html: str, reason: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        await variables(prover, "s", html, "")
    assert refused.value.field == "html"
    assert reason in refused.value.message


async def test_the_process_is_one_and_serves_many(prover: Prover) -> None:
    await variables(prover, "a", "b", "")
    pid = prover.pid
    await asyncio.gather(*(variables(prover, "{{ a }}", f"{{{{ v{n} }}}}", "") for n in range(20)))
    assert prover.pid == pid


async def test_a_process_that_dies_is_refusal_and_the_next_template_gets_a_new_one(
    prover: Prover,
) -> None:
    await variables(prover, "a", "b", "")
    first = prover.pid
    assert first is not None
    os.kill(first, signal.SIGSTOP)
    asked = asyncio.create_task(variables(prover, "a", "b", ""))
    await asyncio.sleep(0)
    os.kill(first, signal.SIGKILL)
    with pytest.raises(InvalidInput):
        await asked
    assert await variables(prover, "{{ a }}", "b", "") == ("a",)
    assert prover.pid not in (None, first)
    assert not alive(first)


async def test_a_proof_that_takes_too_long_is_stopped() -> None:
    prover = Prover(timeout_s=0.2)
    try:
        await variables(prover, "a", "b", "")
        first = prover.pid
        assert first is not None
        os.kill(first, signal.SIGSTOP)
        with pytest.raises(InvalidInput) as refused:
            await variables(prover, "a", "b", "")
        assert "too long" in refused.value.message
        assert prover.pid is None
        assert not alive(first)
    finally:
        await prover.close()


async def test_a_cancelled_proof_leaves_no_half_answer_behind(prover: Prover) -> None:
    await variables(prover, "a", "b", "")
    assert prover.pid is not None
    os.kill(prover.pid, signal.SIGSTOP)
    asked = asyncio.create_task(variables(prover, "{{ lost }}", "b", ""))
    await asyncio.sleep(0.01)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert await variables(prover, "{{ kept }}", "b", "") == ("kept",)


async def test_the_process_has_a_memory_limit_and_leaves_no_core(prover: Prover) -> None:
    await variables(prover, "a", "b", "")
    assert prover.pid is not None
    with open(f"/proc/{prover.pid}/limits") as limits:  # noqa: PTH123
        lines = {line[:26].strip(): line[26:].split()[0] for line in limits}
    assert lines["Max address space"] == str(512 * 1024 * 1024)
    assert lines["Max core file size"] == "0"
    assert lines["Max open files"] == "3"  # standard input, output and error are there already


async def test_closing_ends_the_process() -> None:
    prover = Prover()
    await variables(prover, "a", "b", "")
    pid = prover.pid
    assert pid is not None
    await prover.close()
    assert not alive(pid)


def test_made_up_data_of_the_wrong_type_is_no_fault_of_the_template() -> None:
    verdict = judge(Task(Source("{{ n|times(2) }}", "{{ user.name.first }}{{ date + 1 }}")))
    assert verdict.error == ""
    assert verdict.variables == ("date", "n", "user")


MJML = "<mjml><mj-body><mj-section><mj-column><mj-text>{}</mj-text></mj-column></mj-section>"
HOSTILE = [
    (Source("s", "", MJML.format("<div>" * 20_000) + "</mj-body></mjml>"), "nest deeper"),
    (Source("s", "", MJML.format("<mj-include path='/etc/passwd'/>") + "</mj-body></mjml>"),
     "mj-include reads files"),
    (Source("s", "<style>p{color:red}</style>" + "<table><tr><td>" * 5_000), "nest deeper"),
    (Source("s", "<a " * 100_000), ""),
    (Source("s", "<!--" * 100_000 + "{{ x }}"), ""),
    (Source("s", "<style>" + ".a " * 20_000 + "{color:red}</style><p class=a>" * 20), ""),
    (Source("s", "<style>@import 'file:///etc/passwd';@import url(http://127.0.0.1:9/a);p{margin:0}"
     "</style><link rel=stylesheet href=/etc/passwd><p>x</p>"), ""),
]  # fmt: skip


async def test_hostile_markup_is_refused_or_harmless_and_the_next_template_is_built(
    prover: Prover,
) -> None:
    for source, reason in HOSTILE:
        try:
            built, _ = await prover.prove(source)
        except InvalidInput as refused:
            assert reason and reason in refused.message, source.body[:80]
        else:
            assert not reason
            assert "root:" not in built.html
    built, found = await prover.prove(
        Source("s", "<style>p{margin:0}</style><p>{{ 1|money('EUR') }} {{ x|date }}</p>")
    )
    assert built.html.endswith(
        "<p style=\"margin: 0;\">{{ 1|money('EUR') }} {{ x|date }}</p></body></html>"
    )
    assert found == ("x",)
