"""Search by meaning: what it finds, what a query costs, what a mail costs.

Found: templates of well-known kinds (an invoice, a password reset, a sign-up code …) hidden among
the mails of the corpora (MAILYARD_CORPORA), each kind asked for in other words than its own. Of the
n mails of a kind, how many are among the first n; and how often one is among the first ten. The
corpora are not part of the repository; without them these rows are left out.

A query: over one mailbox of vectors drawn at random. The scan is the same for all.
"""

import os
import re
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from uuid import UUID

import msgspec
import uvloop
from measure import FULL, Row, note, percentile, report
from platform_parts import Parts, product_postgres

from mailyard.core import ids
from mailyard.mailbox.search.document import document_of
from mailyard.mailbox.search.embedders.wordllama import WordLlama
from mailyard.mailbox.search.statement import Scope, Span
from mailyard.mailbox.search.vectors import Vectors
from mailyard.storage.partitions import ensure_partitions

CORPORA = Path(os.environ.get("MAILYARD_CORPORA", "../shared/corpora"))
VECTORS = int(os.environ.get("VECTORS", 500_000 if FULL else 50_000))
QUERIES = 20
STEP = 25_000
# By the folder's name, what a person would ask.
ASKED = {
    "comment-notification": ("somebody answered in the discussion", "a reply to my remark"),
    "dunning": ("credit card was declined", "payment did not go through"),
    "invoice": ("how much do I have to pay", "bill for the subscription"),
    "password-reset": ("I cannot log in any more", "choose a new secret for the account"),
    "trial-expired": ("the evaluation period is over", "free use has ended"),
    "trial-expiring": ("the evaluation period ends soon", "few days of free use are left"),
    "user-invitation": ("a colleague asks me to join", "join the team workspace"),
    "welcome": ("getting started with a new service", "thanks for signing up"),
    "code": ("number to confirm a login", "one time pin"),
}
# Beside which kinds may stand among the first of another: they say the same.
ALIKE = {
    "password-reset-help": "password-reset",
    "trial-expired": "trial-expiring",
}
_OPEN = re.compile(r"\{\{[^}]*\}\}")
FILL = """
    INSERT INTO search_vector (
        inbox_id, message_id, retention_days, workspace_id, model, bits, vector
    )
    SELECT $1, (lpad(to_hex($3::bigint + n), 12, '0') || '70008000000000000000')::uuid, 0, $2, 1,
           binary_quantize(vector)::bit(256), vector
    FROM (
        SELECT n, (SELECT array_agg((random() - 0.5)::real) FROM generate_series(1, 256 + n * 0))
               ::halfvec(256) AS vector
        FROM generate_series(1, $4::integer) AS n
        OFFSET 0
    ) AS drawn
"""


def kind_of(name: str) -> str:
    return ALIKE.get(name, name)


def mail(text: str, kind: str = "plain") -> bytes:
    """A mail with a template's text, what it leaves open left out."""
    filled = _OPEN.sub("", text).replace("[Product Name]", "Acme")
    return f"Content-Type: text/{kind}; charset=utf-8\r\n\r\n{filled}".encode()


def labelled() -> Iterator[tuple[str, bytes]]:
    """Mails of known kinds."""
    for file in sorted((CORPORA / "html-templates/postmark").rglob("content.*")):
        kind = "html" if file.suffix == ".html" else "plain"
        yield kind_of(file.parent.name), mail(file.read_text("utf-8"), kind)
    for one in msgspec.json.decode((CORPORA / "otp/otp-messages.json").read_bytes()):
        yield "code", mail(one["message"])


def others() -> Iterator[bytes]:
    """The other mails of the corpora."""
    for family in sorted(CORPORA.glob("mime-*")):
        for file in sorted(family.rglob("*")):
            if file.name.endswith(".tar.xz"):
                with tarfile.open(file) as tar:
                    for member in tar:
                        content = tar.extractfile(member) if member.isfile() else None
                        if content is not None and member.size < 200_000:
                            yield content.read()
            elif file.is_file() and file.suffix in (".eml", ".txt"):
                yield file.read_bytes()


def found() -> list[Row]:
    if not (CORPORA / "html-templates").is_dir():
        note(f"  no corpora in {CORPORA}: what is found is not measured")
        return []
    import numpy

    model = WordLlama()

    def vectors(texts: list[str]) -> tuple[list[int], "numpy.ndarray"]:
        made = [(at, one) for at, one in enumerate(model.embed(texts)) if one is not None]
        rows = [[float(number) for number in one.half[1:-1].split(",")] for _, one in made]
        return [at for at, _ in made], numpy.array(rows)

    known = list(labelled())
    mails = [content for _, content in known] + list(others())
    samples = [document_of(content).sample for content in mails]
    places, matrix = vectors(samples)
    kinds = [known[at][0] if at < len(known) else "" for at in places]
    note(f"  {len(known)} mails of {len(ASKED)} kinds among {len(places):,}")
    recalls, near = [], []
    for kind, texts in ASKED.items():
        wanted = kinds.count(kind_of(kind))
        for text in texts:
            _, asked = vectors([text])
            order = numpy.argsort(-(matrix @ asked[0]))
            best = [kinds[at] for at in order[:wanted]]
            recalls.append(best.count(kind_of(kind)) / wanted)
            near.append(kind_of(kind) in [kinds[at] for at in order[:10]])
            note(f"    {text}: {recalls[-1]:.0%} of {wanted}, first: {best[0] or 'another'}")
    return [
        Row("by meaning: of n mails of a kind among the first n", mean(recalls) * 100, "%", 30.0),
        Row("by meaning: one is among the first ten", mean(near) * 100, "%", 50.0),
        embedded(model, samples),
    ]


def mean(figures: list[float] | list[bool]) -> float:
    return sum(figures) / len(figures)


def embedded(model: WordLlama, samples: list[str]) -> Row:
    model.embed(samples[:64])
    began = time.process_time()
    for start in range(0, len(samples), 64):
        model.embed(samples[start : start + 64])
    spent = time.process_time() - began
    return Row("vectors made, a core", len(samples) / spent, "mails/s", 1_500)


async def queried(url: str) -> list[Row]:
    parts = Parts(url, 4)
    await parts.database.open()
    try:
        vectors = Vectors(database=parts.database, embedder=WordLlama())
        await vectors.prepare()
        workspace_id, inbox_id = ids.uuid7(), ids.uuid7()
        since = datetime.now(UTC)
        await ensure_partitions(parts.database, since)
        async with parts.database.connection() as connection:
            for done in range(0, VECTORS, STEP):
                at = int(since.timestamp() * 1000) + done
                step = min(STEP, VECTORS - done)
                await connection.execute(FILL, inbox_id, workspace_id, at, step, timeout=600)
            await connection.execute("VACUUM ANALYZE search_vector", timeout=600)
        whole = Span(UUID(int=0), ids.lowest_at(since + timedelta(days=1)))
        random = Random(3)
        words = [word for texts in ASKED.values() for text in texts for word in text.split()]
        rows = []
        for name, scope in (
            ("mailbox", Scope(workspace_id, inbox_id, 0, UUID(int=0))),
            ("workspace", Scope(workspace_id, None, None, UUID(int=0))),
        ):
            times = []
            for _ in range(QUERIES):
                text = " ".join(random.choices(words, k=4))
                began = time.perf_counter()
                await vectors.nearest(scope, whole, text, offset=0, limit=50)
                times.append(1_000 * (time.perf_counter() - began))
            figure = percentile(times[1:], 0.95)
            bar = 100.0 if name == "mailbox" else 300.0
            rows.append(Row(f"by meaning in a {name} of {VECTORS:,}, p95", figure, "ms", bar, True))
        return rows
    finally:
        await parts.database.close()


def main() -> int:
    with (
        tempfile.TemporaryDirectory(prefix="mailyard-bench-") as folder,
        product_postgres(Path(folder)) as server,
    ):
        return report([*found(), *uvloop.run(queried(server.url))])


if __name__ == "__main__":
    sys.exit(main())
