"""A search's language: what it means, and where an error is."""

from datetime import UTC, datetime

import pytest

from mailyard.mailbox.search.grams import part_query, parts_vector
from mailyard.mailbox.search.language import language_of, languages
from mailyard.mailbox.search.parse import DEPTH, parse
from mailyard.mailbox.search.tokens import SearchError
from mailyard.mailbox.search.tree import (
    And,
    Field,
    HasAttachment,
    Is,
    Label,
    Not,
    Or,
    Part,
    Phrase,
    Received,
    Size,
    State,
    Word,
)

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)


def day(year: int, month: int, of_month: int) -> int:
    return int(datetime(year, month, of_month, tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("invoice", Word("invoice")),
        ("inv*", Word("inv", prefix=True)),
        ("*voice*", Part("voice")),
        ('"final offer"', Phrase("final offer")),
        ("a b or c", Or((And((Word("a"), Word("b", place=2))), Word("c", place=7)))),
        ("a AND (b OR c)", And((Word("a"), Or((Word("b", place=7), Word("c", place=12)))))),
        ("not a", Not(Word("a", place=4))),
        ("-a", Not(Word("a", place=1))),
        ("well-known", Word("well-known")),
        ("from: ann", Word("ann", field=Field.FROM, place=6)),
        ('subject:"a b"', Phrase("a b", Field.SUBJECT, 8)),
        ("to:(a or b)", Or((Word("a", False, Field.TO, 4), Word("b", False, Field.TO, 9)))),
        ("has:attachment", HasAttachment()),
        ("is:unread", Is(State.UNREAD)),
        ('label:"to do"', Label("to do")),
        ("after:2026-02", Received(since_ms=day(2026, 2, 1))),
        ("before:2026", Received(until_ms=day(2026, 1, 1))),
        ("after:7d", Received(since_ms=day(2026, 3, 8))),
        ("before:yesterday", Received(until_ms=day(2026, 3, 14))),
        ("larger:1.5M", Size(True, 1_572_864)),
        ("smaller:10k", Size(False, 10_240)),
        ("https://example.org/x", Word("https://example.org/x")),
        ("10:30", Word("10:30")),
        ("a - b", And((Word("a"), Word("b", place=4)))),
        ("", Received()),
    ],
)
def test_what_a_search_means(text: str, tree: object) -> None:
    assert parse(text, NOW) == tree


@pytest.mark.parametrize(
    ("text", "column", "says"),
    [
        ("(a or b", 8, r"expected \), found the end"),
        ("a or", 5, "expected a word or a phrase"),
        ("a )", 3, "expected the end"),
        ("form:ann", 1, "there is no field form:"),
        ("after:soon", 7, "expected a day"),
        ("after:2026-02-30", 7, "expected a day"),
        ("larger:huge", 8, "expected a size"),
        ("is:new", 4, "expected unread"),
        ("has:wings", 5, "expected attachment"),
        ('a "b', 3, "not closed"),
        ("a*b", 1, "stars stand"),
        ("*ab*", 1, "at least 3 characters"),
        ("from:(to:a)", 7, "expected a word or a phrase behind from:"),
        ("label:", 7, "expected a value behind label:"),
        ('""', 1, "nothing between"),
        ("a\0", 2, "NUL"),
        ("(" * (DEPTH + 2), DEPTH + 2, "nested"),
        ("a " * 51, 101, "at most 50 terms"),
        ("a" * 1_001, 1_001, "at most 1000 characters"),
    ],
)
def test_an_error_says_where_and_what(text: str, column: int, says: str) -> None:
    with pytest.raises(SearchError, match=says) as refused:
        parse(text, NOW)
    assert (refused.value.column, refused.value.field) == (column, "q")


MAILS = [
    ("arabic", "شكرا على الطلب، هذا هو الرقم الذي تم إرساله من المتجر إلى العنوان مع الفاتورة."),
    ("armenian", "Շնորհակալություն պատվերի համար, այն ճանապարհին է և շուտով կլինի ձեր մոտ։"),
    (
        "basque",
        "Eskerrik asko, zure eskaera bidean da eta gaur iritsiko da, baina ez dago faktura.",
    ),
    (
        "catalan",
        "Gràcies per la vostra comanda, els articles són en camí i també la factura, però tard.",
    ),
    (
        "danish",
        "Tak for din bestilling af bogen, den er på vej, "
        "og vi sender en faktura til dig, hvis du vil.",
    ),
    (
        "dutch",
        "Bedankt voor uw bestelling, het pakket is onderweg en wij sturen ook een factuur naar u.",
    ),
    ("english", "Thank you for your order. It is on the way to you."),
    (
        "estonian",
        "Aitäh tellimuse eest, see on teel ja meie saadame ka arve, kui te ei ole seda saanud.",
    ),
    (
        "finnish",
        "Kiitos tilauksesta, se on matkalla ja lähetämme myös laskun, mutta voi olla että ei heti.",
    ),
    ("french", "Merci pour votre commande, elle est en route et vous sera livrée."),
    ("german", "Vielen Dank für Ihre Bestellung, sie ist auf dem Weg und wird bald da sein."),
    ("greek", "Σας ευχαριστώ για την παραγγελία, θα είναι στο σπίτι σας."),
    ("hindi", "आपके ऑर्डर के लिए धन्यवाद, यह रास्ते में है और कल आप का पता पर होगा।"),
    (
        "hungarian",
        "Köszönjük a rendelést, az már úton van és egy számla is lesz, de még nem kell fizetni.",
    ),
    (
        "indonesian",
        "Terima kasih untuk pesanan anda, barang ini ada di jalan dan akan tiba dengan kurir kami.",
    ),
    (
        "irish",
        "Go raibh maith agat as an ordú, tá sé ar an mbealach agus beidh na sonraí ag an doras.",
    ),
    (
        "italian",
        "Grazie per il suo ordine, gli articoli sono "
        "in viaggio e anche la fattura della vostra spesa.",
    ),
    (
        "lithuanian",
        "Ačiū už jūsų užsakymą, jis yra kelyje ir bus pristatytas, bet tai dar ne sąskaita.",
    ),
    ("nepali", "तपाईं को अर्डर को लागि धन्यवाद, यो बाटो मा छ र भोलि आइपुग्ने छन् पनि।"),
    (
        "norwegian",
        "Takk for din bestilling, den er på vei og vi "
        "sender også en faktura til deg fra oss, hvis du vil.",
    ),
    (
        "portuguese",
        "Obrigado pelo seu pedido, os artigos estão a caminho "
        "e também uma fatura para você, mas não foi paga.",
    ),
    (
        "romanian",
        "Mulțumesc pentru comandă, produsele sunt pe drum și "
        "nu este nevoie de plată din partea dumneavoastră.",
    ),
    ("russian", "Спасибо за ваш заказ, мы отправили его и вы получите его на этой неделе."),
    (
        "serbian",
        "Хвала за поруџбину, пакет је на путу и биће код "
        "вас, али није плаћен што су рекли или се чека.",
    ),
    ("spanish", "Gracias por su pedido, los artículos están en camino para usted."),
    (
        "swedish",
        "Tack för din beställning, den är på väg och vi skickar "
        "även en faktura från oss om ni vill, det är inte allt.",
    ),
    ("tamil", "உங்கள் ஆர்டர் மற்றும் கட்டணம் கிடைத்தது, நன்றி. இந்த பொருள் வழியில் உள்ளது என்று நான் சொல்கிறேன்."),
    (
        "turkish",
        "Siparişiniz için teşekkür ederiz, paket yolda ve bir "
        "fatura da var, ancak çok değil, daha sonra gelecek.",
    ),
    (
        "yiddish",
        "א דאנק פאר דיר, די באשטעלונג איז אין וועג און איך האט נישט קיין רעכענונג פון דער קראם.",
    ),
    ("simple", "4711"),
    ("simple", ""),
]


@pytest.mark.parametrize(("language", "text"), MAILS)
def test_the_language_of_a_mail(language: str, text: str) -> None:
    assert language_of(text) == language


def test_each_language_has_its_mail() -> None:
    assert {language for language, _ in MAILS} == set(languages())


def test_the_languages_are_all_that_postgresql_has() -> None:
    assert len(languages()) == 30


def test_parts_stand_behind_one_another_and_runs_apart() -> None:
    assert parts_vector("abcd ef", "short 東京都") == (
        "'abc':1 'bcd':2 'ef':4 '東京':6 '京都':7 '都':8"
    )
    assert part_query("bcd") == "( 'bcd' )"
    assert part_query("東京都") == "( '東京' <-> '京都' )"
    assert part_query("京") == "( '京':* )"
    assert part_query("it's") == "( 'it':* ) & ( 's':* )"
    assert part_query("..") is None
