"""Links, parcels, orders, days and sums, each with the place where it stands."""

# ruff: noqa: E501 (a case a line)

import pytest

from mailyard.protocol.meaning.amount import amounts_of, decimal_of
from mailyard.protocol.meaning.day import days_of
from mailyard.protocol.meaning.letter import Letter, read_letter
from mailyard.protocol.meaning.link import links_of
from mailyard.protocol.meaning.order import orders_of
from mailyard.protocol.meaning.parcel import parcels_of
from mailyard.protocol.meaning.read import findings_of

LINKS = [
    ("Sign in to Example: https://example.org/auth/magic?token=9fJ2kLmQ8rT4vX1z", "sign_in"),
    ("Bitte bestätigen Sie Ihre Adresse:\nhttps://example.org/c/8f14e45fceea167a5a36dedd4bea2543", "confirm"),
    ("Pour réinitialiser votre mot de passe, cliquez ici : https://example.org/u/AbCdEf123456GhIj", "reset"),
    ("Ada has invited you. Accept: https://example.org/invitations/5b1f8c2e-7d1a-4a51-9e0b-0d8f3a1c2b4d", "invite"),
    ("Подтвердите адрес: https://example.org/x?k=a81bc81bdead4e5d", "confirm"),
    ("点击以下链接登录：https://example.org/l/eyJhbGciOiJIUzI1NiJ9abc123DEF", "sign_in"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "purpose"), LINKS)
def test_a_link_that_does_something_once_is_found(text: str, purpose: str) -> None:
    links, off = links_of(Letter(text=text))
    assert [one.purpose for one in links] == [purpose]
    assert off == ()
    seen = links[0].evidence
    assert text[seen.start : seen.end] == links[0].url == seen.quote


@pytest.mark.parametrize(
    "text",
    [
        "Read more at https://example.org/blog/how-we-verify-backups",
        "Log in at https://example.org/login as usual.",
        "The logo: https://cdn.example.org/confirm/8f14e45fceea167a5a36dedd4bea2543.png",
        "See https://example.org/docs/2026/05/12345678 for the report",
    ],
)
def test_a_link_without_a_token_or_a_purpose_is_not(text: str) -> None:
    assert links_of(Letter(text=text))[0] == ()


def test_the_label_of_a_button_says_what_its_link_does() -> None:
    raw = (
        b"Content-Type: text/html; charset=utf-8\r\n"
        b"List-Unsubscribe: <mailto:off@example.org>, <https://example.org/u/1>\r\n"
        b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n\r\n"
        b"<p>Welcome!</p><a href='https://t.example.org/ls/click?upn=Zk3J9xQ2bN7vLr8T'>Verify email"
        b"</a><p><a href='https://example.org/x?u=7'>Se d\xc3\xa9sabonner</a></p>"
        b"<span style='display:none'>https://evil.example/reset?token=aaaaaaaa11111111</span>"
    )
    found = findings_of(raw)
    assert [(one.purpose, one.label, one.evidence.part) for one in found.links] == [
        ("confirm", "Verify email", "html")
    ]
    assert [(one.method, one.url) for one in found.unsubscribe] == [
        ("mail", "mailto:off@example.org"),
        ("one_click", "https://example.org/u/1"),
        ("link", "https://example.org/x?u=7"),
    ]


PARCELS = [
    ("Your UPS parcel 1Z999AA10123456784 is on its way", "1Z999AA10123456784", "ups"),
    ("Suivi : RB123456785GB", "RB123456785GB", "post"),
    ("FedEx tracking 9999 9999 9999", None, ""),
    ("FedEx tracking number: 986578788855", "986578788855", "fedex"),
    ("USPS 9400 1118 9922 3197 4284 97", "9400111899223197428497", "usps"),
    ("DHL waybill 1234567890", None, ""),
    ("DHL Express AWB 1234567891", "1234567891", "dhl_express"),
    ("our number is 1234567891", None, ""),
    ("TBA123456789012 by Amazon", "TBA123456789012", "amazon"),
    ("1Z999AA10123456785", None, ""),
    ("RB123456784GB", None, ""),
]


@pytest.mark.parametrize(("text", "number", "carrier"), PARCELS)
def test_a_tracking_number_is_one_only_if_its_check_digit_holds(
    text: str, number: str | None, carrier: str
) -> None:
    found = [(one.number, one.carrier) for one in parcels_of(Letter(text=text))]
    assert found == ([] if number is None else [(number, carrier)])


ORDERS = [
    ("Your order #10482 is confirmed", "10482", "order"),
    ("Bestellnummer: 302-1234567-1234567", "302-1234567-1234567", "order"),
    ("Votre commande n° FR-88213 est partie", "FR-88213", "order"),
    ("Su pedido 55019283 ha sido enviado", "55019283", "order"),
    ("Rechnung Nr. RE-2026-0042", "RE-2026-0042", "invoice"),
    ("Booking reference: XK7P2Q", "XK7P2Q", "booking"),
    ("[Ticket#88213] Printer", "88213", "ticket"),
    ("Номер заказа: 4481-22", "4481-22", "order"),
    ("ご注文番号：249-8812", "249-8812", "order"),
    ("Zamówienie nr 2026/05/118", "2026/05/118", "order"),
]


@pytest.mark.parametrize(("text", "number", "kind"), ORDERS)
def test_the_number_that_a_mail_is_about(text: str, number: str, kind: str) -> None:
    found = orders_of(Letter(text=text))
    assert [(one.number, one.kind) for one in found] == [(number, kind)]
    assert text[found[0].evidence.start : found[0].evidence.end] == number


@pytest.mark.parametrize(
    "text",
    [
        "in order to win 2026 prizes",
        "law and order 42",
        "The case for 100 changes",
        "order by 12 June 2026",
        "a request for 15 items",
    ],
)
def test_a_number_beside_such_a_word_is_not_always_its_own(text: str) -> None:
    assert orders_of(Letter(text=text)) == ()


DAYS = [
    ("on 2026-03-31", "2026-03-31", False),
    ("am 31. März 2026 um 14:00 Uhr", "2026-03-31T14:00", False),
    ("March 31, 2026 at 2:30 pm", "2026-03-31T14:30", False),
    ("le 1er avril 2026", "2026-04-01", False),
    ("el 5 de mayo de 2026", "2026-05-05", False),
    ("dnia 7 października 2026", "2026-10-07", False),
    ("9 октября 2026 г.", "2026-10-09", False),
    ("2026年1月31日", "2026-01-31", False),
    ("31/12/2026", "2026-12-31", False),
    ("12/31/2026", "2026-12-31", False),
    ("03/04/2026", "2026-04-03", True),
    ("03.04.2026", "2026-04-03", False),
    ("Sept. 9, 2026", "2026-09-09", False),
]


@pytest.mark.parametrize(("text", "value", "ambiguous"), DAYS)
def test_a_date_in_many_languages(text: str, value: str, ambiguous: bool) -> None:
    found = days_of(Letter(text=f"See you {text}!"))
    assert [(one.value, one.ambiguous) for one in found] == [(value, ambiguous)]


@pytest.mark.parametrize("text", ["31.02.2026", "13/13/2026", "version 1.2.2026.4", "Room 12 2026"])
def test_what_is_no_day_of_the_calendar_is_none(text: str) -> None:
    assert days_of(Letter(text=text)) == ()


AMOUNTS = [
    ("Total: $1,234.50", "1234.50", "$"),
    ("Summe 1.234,50 €", "1234.50", "EUR"),
    ("EUR 99", "99", "EUR"),
    ("CHF 1'200.00", "1200.00", "CHF"),
    ("£12", "12", "GBP"),
    ("1 299,00 kr", "1299.00", "kr"),
    ("249,99 zł", "249.99", "PLN"),
    ("R$ 15,90", "15.90", "BRL"),
    ("¥12,000", "12000", "¥"),
    ("12000円", "12000", "JPY"),
    ("1 500 руб.", "1500", "RUB"),
    ("₹1,00,000", "100000", "INR"),
]


@pytest.mark.parametrize(("text", "value", "currency"), AMOUNTS)
def test_a_sum_of_money(text: str, value: str, currency: str) -> None:
    assert [(one.value, one.currency) for one in amounts_of(Letter(text=text))] == [
        (value, currency)
    ]


def test_the_last_mark_of_a_number_is_the_decimal_one_unless_three_digits_follow() -> None:
    assert [decimal_of(one) for one in ("1.234", "1,234.5", "0.125", "1.234.567", "12,5")] == [
        "1234", "1234.5", "0.125", "1234567", "12.5",
    ]  # fmt: skip


def test_a_mail_of_any_bytes_raises_nothing() -> None:
    for raw in (b"", b"\xff" * 50, b"Subject: =?x?Q?=\r\n\r\n<a href=", b"\r\n\r\n" + b"> " * 9999):
        assert findings_of(raw).codes == ()
        assert read_letter(raw).parts() is not None
