"""What the writer wrote, without the mail that it answers and the signature."""

# ruff: noqa: E501 (a case a line)

import pytest

from mailyard.protocol.meaning.finding import TEXT
from mailyard.protocol.meaning.reply import reply_in

BEHIND = [
    "On Tue, 3 Mar 2026 at 10:12, Ada Lovelace <ada@example.org> wrote:\n> old",
    "Am Di., 3. März 2026 um 10:12 Uhr schrieb Ada <ada@example.org>:\n\n> alt",
    "Le mar. 3 mars 2026 à 10:12, Ada <ada@example.org> a écrit :\n> vieux",
    "El mar, 3 mar 2026 a las 10:12, Ada (<ada@example.org>) escribió:\n> viejo",
    "Il giorno mar 3 mar 2026 alle ore 10:12 Ada <ada@example.org> ha scritto:\n> vecchio",
    "Op di 3 mrt 2026 om 10:12 schreef Ada <ada@example.org>:\n> oud",
    "W dniu wt., 3 mar 2026 o 10:12 Ada <ada@example.org> napisał(a):\n> stare",
    "вт, 3 мар. 2026 г. в 10:12, Ада <ada@example.org>:\n> старое",
    "3 Mar 2026 Salı, 10:12 tarihinde Ada <ada@example.org> şunları yazdı:\n> eski",
    "在 2026年3月3日，上午10:12，Ada <ada@example.org> 写道：\n> 旧",
    "-----Original Message-----\nFrom: Ada\nSent: Tuesday\nTo: Bob\nSubject: x\n\nold",
    "________________________________\nVon: Ada <ada@example.org>\nGesendet: Dienstag\nAn: Bob\nBetreff: x\n\nalt",
    "发件人: Ada <ada@example.org>\n发送时间: 2026年3月3日\n收件人: Bob\n主题: x\n\n旧",
    "Sent from my iPhone\n\n> On 3 Mar 2026, at 10:12, Ada <ada@example.org> wrote:\n> \n> old",
    "-- \nBob\nExample Ltd",
    "Von meinem iPhone gesendet",
    "Envoyé de mon téléphone",
]  # fmt: skip


@pytest.mark.parametrize("behind", BEHIND)
def test_what_stands_behind_an_answer_is_cut_away(behind: str) -> None:
    text = f"Yes, let us do that.\n\nSee you there!\n\n{behind}\n"
    reply = reply_in(text, TEXT)
    assert reply.text == "Yes, let us do that.\n\nSee you there!"
    assert "".join(text[one.start : one.end] for one in reply.spans).strip() == reply.text


WHOLE = [
    "On the whole I agree.\n\nOn 3 March 2026 we wrote a plan, and it stands.",
    "The fields are:\n\nFrom: where it starts\n\nNothing more.",
    "> a question\n\nMy answer\n\n> another question\n\nMy other answer",
    "Totals\n-------\n12 apples\n\n3 pears",
    "I sent this from my desk to the archive yesterday, as you asked, and it came back.",
]


@pytest.mark.parametrize("text", WHOLE)
def test_what_only_looks_like_a_quote_stays(text: str) -> None:
    assert reply_in(text, TEXT).text == text


def test_an_answer_below_its_quote_is_the_answer() -> None:
    text = "On 3 Mar 2026, Ada <ada@example.org> wrote:\n> Shall we?\n\nYes."
    assert reply_in(text, TEXT).text == "Yes."


def test_a_mail_that_only_forwards_another_keeps_that_one() -> None:
    text = "---------- Forwarded message ---------\nFrom: Ada\nDate: 3 Mar 2026\nSubject: x\nTo: Bob\n\nThe plan."
    assert reply_in(text, TEXT).text == "The plan."


def test_how_a_letter_ends_is_told_as_its_signature() -> None:
    text = "Please call me.\n\nKind regards,\nAda Lovelace\nExample Ltd"
    reply = reply_in(text, TEXT)
    assert reply.text == text
    assert reply.signature is not None
    assert text[reply.signature.start : reply.signature.end].startswith("Kind regards")


def test_a_line_of_any_length_and_any_number_of_lines_is_read_once() -> None:
    """Not a matter of time: what lies behind the bound is not read, and nothing is read twice."""
    assert reply_in("a" * 100_000, TEXT).text == "a" * 100_000
    assert reply_in("On 3 Mar 2026\n" * 20_000, TEXT).text.count("\n") == 4_999
