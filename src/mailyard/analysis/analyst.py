"""One mail, one ask, one answer: the models in their order, then the rules.

    kept before? ── else for each model: rested? in its limits? room in the day's budget?
                 ── ask ── through the walls ── keep ── answer
    none of them: later, while it may help; at last the rules, with the reasons

Nothing is held in the database while a model is asked.
"""

import asyncio
from collections.abc import Callable, Mapping
from random import Random
from typing import Any, NamedTuple
from uuid import UUID

from msgspec import Struct

from mailyard.analysis.book import ModelBook, OpenModel
from mailyard.analysis.breakers import MODELS_KEPT, Breakers, Rest
from mailyard.analysis.model import Model, ModelFailure, Said
from mailyard.analysis.models import rules
from mailyard.analysis.policy import Budget, Policies, Policy
from mailyard.analysis.prompt import Prompt, prompt_of
from mailyard.analysis.results import Results, Sealed
from mailyard.analysis.shown import Shown, shown_of
from mailyard.analysis.task import Ask
from mailyard.analysis.wall import NotAnAnswer, Passed, passed
from mailyard.core.clock import Clock
from mailyard.observe.limit_use import LIMIT_USE
from mailyard.observe.metrics import ANALYSIS_CALLS, ANALYSIS_SECONDS, ANALYSIS_TOKENS
from mailyard.protocol.meaning.finding import Findings
from mailyard.protocol.meaning.letter import Letter
from mailyard.ratelimit.ratelimit import RateLimit
from mailyard.storage.database import Connection, Database

_TRIES = 2  # of one model that answers something else than was asked for

Make = Callable[[OpenModel], Model]


class Outcome(Struct, frozen=True):
    """What came of an ask. `model`: its name, or `rules`. `kept`: answered before, at no cost.

    `withheld`: places whose text was taken out, and why. `notes`: why other models did not answer.
    """

    answer: dict[str, Any]
    model: str
    kept: bool = False
    withheld: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    input_tokens: int = 0
    output_tokens: int = 0
    micros: int = 0


class Answered(NamedTuple):
    """An outcome. `key`: of the kept answer that it comes from; `sealed`: of one to be kept now."""

    outcome: Outcome
    key: bytes | None = None
    sealed: Sealed | None = None


class Later(Exception):
    """No model answers now, and one may in `delay_s` seconds."""

    def __init__(self, delay_s: float, why: str) -> None:
        super().__init__(why)
        self.delay_s = delay_s
        self.why = why


class _Round:
    """What is learnt while the models are asked."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.waits_s: list[float] = []

    def note(self, model: OpenModel, why: str, wait_s: float | None = None) -> None:
        self.notes.append(f"{model.entry.name}: {why}"[:300])
        if wait_s is not None:
            self.waits_s.append(wait_s)


class _BudgetUsed(Exception):
    """The day has no room for another call."""


class Analyst:
    """Asks for all workspaces. One a process: it remembers how each model fares."""

    def __init__(
        self,
        *,
        database: Database,
        book: ModelBook,
        policies: Policies,
        results: Results,
        make: Make,
        rate: RateLimit,
        clock: Clock,
        random: Random,
    ) -> None:
        self._database = database
        self._book = book
        self._policies = policies
        self._budget = Budget(database=database)
        self._results = results
        self._make = make
        self._rate = rate
        self._clock = clock
        self._breakers = Breakers(database=database, clock=clock, random=random)
        self._places: dict[UUID, tuple[int, asyncio.Semaphore]] = {}

    async def answer(
        self, workspace_id: UUID, letter: Letter, findings: Findings, ask: Ask, *, final: bool
    ) -> Answered:
        """The answer about a letter, to be kept by `keep` in the commit that writes it down.

        Raises Later, unless it is the `final` try.
        """
        plain = rules.answer(ask, letter, findings)
        models = await self._book.open_enabled(workspace_id)
        if not models:
            return Answered(Outcome(plain, rules.NAME))
        shown = shown_of(letter)
        questions = [_question(model, ask, shown) for model in models]
        known = await self._results.find(workspace_id, questions)
        if known is not None:
            through = _through(ask, shown, known.answer, plain)
            if through is not None:
                await self._budget.count_kept(workspace_id, self._clock.now())
                name = models[known.question].entry.name
                kept = Outcome(through.answer, name, True, through.withheld)
                return Answered(kept, known.key)
        policy = await self._policies.get(workspace_id)
        prompt = prompt_of(ask, shown)
        found = _Round()
        try:
            for model, question in zip(models, questions, strict=True):
                about = (ask, shown, plain)
                answered = await self._ask(workspace_id, model, policy, prompt, found, about)
                if answered is not None:
                    said, outcome = answered
                    sealed = self._results.seal(workspace_id, question, said.text)
                    return Answered(outcome, sealed.key, sealed)
        except _BudgetUsed:
            found.notes.append("the day's budget is used up")
            found.waits_s.clear()  # rules answer now: tomorrow is too late for a mail
        if found.waits_s and not final:
            raise Later(min(found.waits_s), "; ".join(found.notes))
        return Answered(Outcome(plain, rules.NAME, notes=tuple(found.notes)))

    async def keep(self, workspace_id: UUID, answered: Answered, tx: Connection) -> None:
        """Keep what a model said, so that it need not be asked again."""
        if answered.sealed is not None:
            await self._results.keep(workspace_id, answered.sealed, tx)

    async def ask_once(self, workspace_id: UUID, model: OpenModel, letter: Letter) -> Outcome:
        """Try one model, whatever its breaker says; the answer is not kept. Raises ModelFailure."""
        from mailyard.analysis.task import EVERYTHING
        from mailyard.protocol.meaning.read import findings_in

        shown = shown_of(letter)
        plain = rules.answer(EVERYTHING, letter, findings_in(letter))
        policy = await self._policies.get(workspace_id)
        try:
            said = await self._call(workspace_id, model, policy, prompt_of(EVERYTHING, shown))
        except _BudgetUsed:
            raise ModelFailure("the day's budget is used up", charged=False) from None
        try:
            through = passed(EVERYTHING, shown, said.text, plain)
        except NotAnAnswer as error:
            raise ModelFailure(str(error)) from None
        return _outcome(model, through, said, ())

    # ----------------------------------------------------------------------------------------------

    async def _ask(
        self,
        workspace_id: UUID,
        model: OpenModel,
        policy: Policy,
        prompt: Prompt,
        found: _Round,
        about: tuple[Ask, Shown, Mapping[str, Any]],
    ) -> tuple[Said, Outcome] | None:
        """The answer of one model, or None with the reason noted. Raises _BudgetUsed."""
        for _ in range(_TRIES):
            ticket = self._breakers.admit(model)
            if isinstance(ticket, Rest):
                found.note(model, ticket.why, ticket.wait_s)
                return None
            if not await self._within_limits(model, prompt, found):
                return None
            try:
                async with self._place_of(model):
                    said = await self._call(workspace_id, model, policy, prompt)
            except ModelFailure as error:
                await self._breakers.failed(workspace_id, model, ticket, error)
                wait_s = max(error.retry_after_s, 1.0) if error.passing else None
                found.note(model, error.why, wait_s)
                return None
            try:
                through = passed(*about[:2], said.text, about[2])
            except NotAnAnswer as error:
                await self._breakers.note(workspace_id, model, ticket, str(error))
                found.note(model, str(error))
                continue
            await self._breakers.note(workspace_id, model, ticket, "")
            return said, _outcome(model, through, said, tuple(found.notes))
        return None

    async def _call(
        self, workspace_id: UUID, model: OpenModel, policy: Policy, prompt: Prompt
    ) -> Said:
        """One call within the budget, and what it used. Raises ModelFailure, _BudgetUsed."""
        settings = model.entry.settings
        began = self._clock.now()
        # No token is less than a byte: nobody's count of this question can be above it.
        most = (prompt.size_bytes, settings.max_output_tokens)
        tokens, micros = sum(most), settings.micros(*most)
        if not await self._budget.hold(workspace_id, began, policy, tokens, micros):
            raise _BudgetUsed
        used, cost, failed = tokens, micros, True
        started = self._clock.monotonic()
        try:
            said = await self._make(model).ask(prompt, settings.max_output_tokens)
            used, cost = _used(settings, said, most)
            failed = False
            return said
        except ModelFailure as error:
            if error.said is not None:
                used, cost = _used(settings, error.said, most)
            elif not error.charged:
                used, cost = 0, 0
            raise
        finally:
            kind = model.entry.kind
            ANALYSIS_SECONDS.labels(kind).observe(self._clock.monotonic() - started)
            ANALYSIS_CALLS.labels(kind, "failed" if failed else "answered").inc()
            ANALYSIS_TOKENS.labels(kind).inc(used)
            # Cancelled too: then the most stays counted, for the question may have been read.
            await asyncio.shield(
                self._budget.settle(
                    workspace_id, began, used - tokens, cost - micros, failed=failed
                )
            )

    async def _within_limits(self, model: OpenModel, prompt: Prompt, found: _Round) -> bool:
        settings = model.entry.settings
        for what, limit, amount in (
            ("requests", settings.requests_per_minute, 1.0),
            ("tokens", settings.tokens_per_minute, prompt.size_bytes / 3),
        ):
            if limit:
                key = f"analysis:{model.entry.id}:{what}"
                drawn = await self._rate.draw(key, amount, limit / 60, float(limit))
                wait_s, name = drawn.wait_s, f"model {model.entry.kind} {what}"
                LIMIT_USE.filled(name, 1.0 if wait_s > 0 else drawn.ahead_s / 60)
                if wait_s > 0:
                    found.note(model, f"its limit of {what} a minute is reached", wait_s)
                    return False
        return True

    def _place_of(self, model: OpenModel) -> asyncio.Semaphore:
        """As many calls of a model at once as its settings allow."""
        wanted = model.entry.settings.concurrency
        known = self._places.get(model.entry.id)
        if known is None or known[0] != wanted:
            if len(self._places) >= MODELS_KEPT:
                self._places.clear()
            known = (wanted, asyncio.Semaphore(wanted))
            self._places[model.entry.id] = known
        return known[1]


def _question(model: OpenModel, ask: Ask, shown: Shown) -> bytes:
    """What a kept answer is the answer to: content, task with its prompt's version, and model."""
    entry = model.entry
    name = f"{entry.kind}\n{entry.settings.base_url}\n{entry.settings.model}"
    return ask.task + shown.content + name.encode()


def _through(ask: Ask, shown: Shown, said: str, plain: Mapping[str, Any]) -> Passed | None:
    try:
        return passed(ask, shown, said, plain)
    except NotAnAnswer:
        return None


def _used(settings: Any, said: Said, most: tuple[int, int]) -> tuple[int, int]:
    """(tokens, micros) of a call; what was not counted is taken for the most that it can be."""
    inputs = most[0] if said.input_tokens is None else said.input_tokens
    outputs = most[1] if said.output_tokens is None else said.output_tokens
    return inputs + outputs, settings.micros(inputs, outputs)


def _outcome(model: OpenModel, through: Passed, said: Said, notes: tuple[str, ...]) -> Outcome:
    inputs, outputs = said.input_tokens or 0, said.output_tokens or 0
    return Outcome(
        through.answer,
        model.entry.name,
        withheld=through.withheld,
        notes=notes,
        input_tokens=inputs,
        output_tokens=outputs,
        micros=model.entry.settings.micros(inputs, outputs),
    )
