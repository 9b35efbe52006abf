"""Coverage-guided fuzzing of the parser of received mail: `python tests/fuzz/fuzz_mime.py`.

Arguments are those of libFuzzer (`-max_total_time=60`, a corpus folder). A finding is an exception,
text that cannot be stored, or work beyond the bound.
"""

import sys

import atheris

with atheris.instrument_imports(include=["mailyard.protocol"]):
    from mailyard.core import limits
    from mailyard.protocol.mime import parse, parse_summary, plain_text


def check(data: bytes) -> None:
    message = parse(data)
    texts = [*parse_summary(data), message.text, message.html, message.subject, message.message_id]
    texts += [value for field in message.headers for value in field]
    for boxes in (message.from_, message.to, message.cc, message.reply_to):
        texts += [text for box in boxes for text in (box.name, box.address)]
    for file in message.attachments:
        texts += [file.filename, file.content_type, file.content_id]
        message.content(file.index)
    texts += [*message.references, *message.in_reply_to]
    _ = message.date
    texts += [plain_text(data).text, *message.traits]
    texts += [value for event in message.events for value in event]
    for text in texts:
        if isinstance(text, str):
            text.encode()
            assert "\0" not in text
    assert message.work_units <= 2 * (limits.MIME_DEPTH + 4) * len(data) + 100


if __name__ == "__main__":
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()
