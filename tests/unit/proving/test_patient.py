"""What got no answer is asked again, a change under its own key; a refusal is an answer."""

from typing import Any

import pytest

from mailyard.core.errors import Unavailable
from mailyard.proving.client import ApiProblem
from mailyard.proving.patient import PatientClient


class Flaky:
    """Answers what it is told, one after another."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.keys: list[str] = []
        self.files: list[bytes] = []

    def _next(self) -> object:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def get(self, _path: str, **_query: Any) -> object:
        return self._next()

    async def post(
        self, _path: str, _body: Any, *, idempotency_key: str = "", answer: Any = None
    ) -> object:
        self.keys.append(idempotency_key)
        return self._next()

    async def upload(self, _path: str, chunks: Any, _kind: str, **_query: Any) -> object:
        self.files.append(b"".join([chunk async for chunk in chunks]))
        return self._next()


def patient(flaky: Flaky, patience_s: float = 10.0) -> PatientClient:
    return PatientClient(flaky, patience_s)  # type: ignore[arg-type]


async def test_a_change_is_repeated_under_its_key() -> None:
    flaky = Flaky(
        Unavailable("cut"),
        ApiProblem(502, "bad_gateway", "nginx has nobody"),
        ApiProblem(409, "idempotency_key_in_progress", "the first try is at it"),
        {"id": "x"},
    )
    client = patient(flaky)
    assert await client.change("/v1/lists", {"name": "a"}) == {"id": "x"}
    assert len(flaky.keys) == 4 and len(set(flaky.keys)) == 1 and flaky.keys[0]
    assert client.repeated == 3
    flaky.answers = [{"id": "y"}]
    await client.change("/v1/lists", {"name": "b"})
    assert flaky.keys[-1] != flaky.keys[0]


async def test_a_refusal_is_an_answer() -> None:
    client = patient(Flaky(ApiProblem(422, "invalid", "no such list")))
    with pytest.raises(ApiProblem):
        await client.get("/v1/lists/x")
    assert client.repeated == 0


async def test_a_file_begins_anew() -> None:
    async def chunks() -> Any:
        yield b"a,b\n"
        yield b"1,2\n"

    flaky = Flaky(Unavailable("cut"), {"id": "imp"})
    await patient(flaky).upload("/v1/imports", chunks, "text/csv")
    assert flaky.files == [b"a,b\n1,2\n"] * 2


async def test_patience_has_an_end() -> None:
    client = patient(Flaky(*(Unavailable("away") for _ in range(99))), patience_s=0.3)
    with pytest.raises(Unavailable):
        await client.ask("/v1/inboxes/read", {}, Any)
