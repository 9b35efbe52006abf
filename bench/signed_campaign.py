"""A campaign whose every mail is signed, beside what the machine's cores can sign at all.

The mail, the two worker processes, Postfix's smtp-sink and the embedded PostgreSQL with fsync on
are those of bench/campaign.py. The limit is RSA-2048 with SHA-256 on every core and nothing else,
measured in the same rounds; unsigned campaigns run between the signed ones.
"""

import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from uuid import UUID

import uvloop
from campaign import WORKERS, one_campaign, sink, work
from measure import FULL, Row, free_port, note, report, wait_for_port
from platform_parts import Parts, cpu_seconds, product_postgres

from mailyard.protocol.dkim.key import PrivateKey, generate_ed25519, generate_rsa
from mailyard.protocol.dns_records import Purpose, State, Verdict
from mailyard.sending.domain import Domains

RECIPIENTS = int(os.environ.get("RECIPIENTS", 200_000 if FULL else 30_000))
ROUNDS = int(os.environ.get("ROUNDS", 3))
LIMIT_S = 3.0
DOMAIN = "example.org"
KINDS: dict[str, tuple[Callable[[], PrivateKey], ...]] = {
    "unsigned": (),
    "RSA-2048": (generate_rsa,),
    "RSA-2048 + Ed25519": (generate_rsa, generate_ed25519),
    "Ed25519": (generate_ed25519,),
}


def sign_for(seconds: float) -> int:
    """How many digests one process signs in so long."""
    key, digest, count = generate_rsa(), sha256(b"x").digest(), 0
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends:
        for _ in range(50):
            key.sign(digest)
        count += 50
    return count


def limit_per_s() -> float:
    """RSA-2048 signatures a second of all cores."""
    cores = os.cpu_count() or 1
    with multiprocessing.get_context("spawn").Pool(cores) as pool:
        pool.map(sign_for, [0.05] * cores)  # the processes are there
        return sum(pool.map(sign_for, [LIMIT_S] * cores)) / LIMIT_S


def signing_with(keys: Sequence[PrivateKey]) -> Callable[[Parts, UUID], Awaitable[None]]:
    """Gives the campaign's workspace its sending domain, with the records of `keys` in DNS."""

    async def prepare(parts: Parts, workspace_id: UUID) -> None:
        if not keys:
            return
        domains = Domains(database=parts.database, vault=parts.vault)
        async with parts.database.transaction() as tx:
            domain = await domains.create(workspace_id, DOMAIN, keys, tx)
            stand = [
                Verdict(Purpose.DKIM, key.record_name, "TXT", State.GOOD) for key in domain.keys
            ]
            await domains.note(workspace_id, domain.id, stand, tx)

    return prepare


def main() -> int:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mailyard-bench-")))
        folder.chmod(0o755)
        server = stack.enter_context(product_postgres(folder))
        port = free_port()
        stack.enter_context(sink(port))
        wait_for_port(port)
        context = multiprocessing.get_context("spawn")
        workers: list[int] = []
        for _ in range(WORKERS):
            ready = context.Event()
            worker = context.Process(target=work, args=(server.url, port, ready), daemon=True)
            worker.start()
            stack.callback(worker.terminate)
            ready.wait(30)
            workers.append(worker.pid or 0)
        keys = {name: [make() for make in makers] for name, makers in KINDS.items()}

        def rate(name: str) -> float:
            before = sum(map(cpu_seconds, workers))
            prepare = signing_with(keys[name])
            figure = uvloop.run(one_campaign(server.url, RECIPIENTS, prepare=prepare))
            used = (sum(map(cpu_seconds, workers)) - before) / RECIPIENTS * 1e6
            note(f"  {name}: {figure:,.0f}/s, {used:.1f} us of workers' CPU each")
            return figure

        rate("unsigned")  # warm
        limits: list[float] = []
        rates: dict[str, list[float]] = {name: [] for name in KINDS}
        for _ in range(ROUNDS):
            limits.append(limit_per_s())
            note(f"  RSA-2048 on all cores: {limits[-1]:,.0f}/s")
            for name in KINDS:
                rates[name].append(rate(name))

    def share(name: str, of: Sequence[float]) -> float:
        return statistics.median(a / b for a, b in zip(rates[name], of, strict=True))

    both = "RSA-2048 + Ed25519"
    return report(
        [
            Row(
                "campaign signed with RSA-2048: share of the machine's signing limit",
                share("RSA-2048", limits), "", 0.6,
            ),
            Row(
                "campaign signed with RSA-2048 and Ed25519: share of the same limit",
                share(both, limits), "", 0.55,
            ),
            Row(
                "campaign signed with Ed25519: share of unsigned",
                share("Ed25519", rates["unsigned"]), "", 0.5,
            ),
        ]
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
