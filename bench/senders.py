"""Who sent a mail: what its checks cost with remembered DNS answers, and without a signature.

A batch of mails as ingest has it: SPF with an include, DKIM, DMARC, by one process. Of a signed
mail the signature is most: OpenSSL needs 20 us for RSA-2048 and 110 us for Ed25519.
"""

import asyncio
import sys
import time
from pathlib import Path

from measure import Row, median_of, report

from mailyard.core.clock import SystemClock
from mailyard.core.ids import uuid7
from mailyard.net.dns import Resolver
from mailyard.net.special_names import unasked
from mailyard.protocol.authentication import Standing
from mailyard.protocol.dkim import Signer, generate_ed25519, generate_rsa, record_text
from mailyard.receiving.authenticate import Authenticator, Received

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from dns_server import ScriptedDns

MAILS = 1_000
BODY = b"Your code is 4711. It is good for ten minutes.\r\n" * 20
BARS_US = {"RSA-2048": 200.0, "Ed25519": 250.0, "no signature": 60.0}


def mail(number: int) -> bytes:
    return (
        b"Received: from out.good.org ([192.0.2.1])\r\n\tby mx.inbox.test with ESMTPS id %d;\r\n"
        b"From: Shop <no-reply@good.org>\r\nTo: you@inbox.test\r\nSubject: Your code %d\r\n"
        b"Date: Mon, 23 Nov 2026 12:00:00 +0000\r\nMessage-ID: <%d@good.org>\r\n"
        b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n%b"
    ) % (number, number, number, BODY)


def received(raw: bytes) -> Received:
    return Received(uuid7(), "192.0.2.1", "out.good.org", "no-reply@good.org", raw)


async def main() -> int:
    rsa, ed25519 = generate_rsa(), generate_ed25519()
    async with ScriptedDns() as dns:
        dns.add("good.org", "TXT", '"v=spf1 include:_spf.good.org -all"')
        dns.add("_spf.good.org", "TXT", '"v=spf1 ip4:198.51.100.0/24 ip4:192.0.2.0/24 ~all"')
        dns.add("_dmarc.good.org", "TXT", '"v=DMARC1; p=reject; rua=mailto:d@good.org"')
        for selector, key in (("r", rsa), ("e", ed25519)):
            text = record_text(key.public())
            parts = " ".join(f'"{text[at : at + 250]}"' for at in range(0, len(text), 250))
            dns.add(f"{selector}._domainkey.good.org", "TXT", parts)
        clock = SystemClock()
        resolver = Resolver([dns.address], clock)
        authenticator = Authenticator(
            dns=resolver, clock=clock, receiver="mx.inbox.test", unasked=unasked(own_servers=True)
        )

        async def cost_us(messages: list[Received]) -> float:
            started = time.perf_counter()
            verdicts = await authenticator.verdicts(messages, 5.0)
            spent_s = time.perf_counter() - started
            assert {one.standing for one in verdicts.values()} == {Standing.VERIFIED}
            assert len(verdicts) == len(messages)
            return spent_s / len(messages) * 1e6

        figures = {}
        now_s = clock.now().timestamp()
        for name, signer in (
            ("RSA-2048", Signer("good.org", "r", rsa)),
            ("Ed25519", Signer("good.org", "e", ed25519)),
            ("no signature", None),
        ):
            raws = [mail(number) for number in range(MAILS)]
            if signer is not None:
                raws = [signer.sign(raw, now_s) + raw for raw in raws]
            messages = [received(raw) for raw in raws]
            await cost_us(messages)  # everything is remembered after this
            rounds = [await cost_us(messages) for _ in range(5)]
            figures[name] = median_of(iter(rounds).__next__, len(rounds))
        await resolver.close()
    return report(
        [
            Row(
                f"verdict, {name}, DNS remembered",
                figure,
                "us/message",
                BARS_US[name],
                less_is_better=True,
            )
            for name, figure in figures.items()
        ]
    )


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
