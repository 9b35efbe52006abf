"""One-time codes in the words of many languages, and numbers that are none."""

# ruff: noqa: E501 (a case a line)

import pytest

from mailyard.protocol.meaning.code import codes_of
from mailyard.protocol.meaning.letter import Letter

CODES = [
    ("Your Example login code", "Hi Ada,\n\nEnter this code to sign in:\n\n  483 920\n\nIt expires in 10 minutes.", "483920"),
    ("", "Dein Bestätigungscode lautet 774411. Er ist 15 Minuten gültig.", "774411"),
    ("Ihre TAN", "Bitte geben Sie die TAN 091827 ein, um die Überweisung freizugeben.", "091827"),
    ("Code de vérification", "Bonjour,\n\nVotre code de vérification est le suivant :\n\n550213\n\nIl est valable 10 minutes.", "550213"),
    ("", "Tu código de verificación es 402198. No lo compartas con nadie.", "402198"),
    ("", "Il tuo codice di accesso è: 7741", "7741"),
    ("", "Uw inlogcode is 118822", "118822"),
    ("", "Seu código de acesso: 553 918", "553918"),
    ("", "Twój kod weryfikacyjny to 662901", "662901"),
    ("", "Váš ověřovací kód je 330112.", "330112"),
    ("", "Ваш код подтверждения: 448812. Никому его не сообщайте.", "448812"),
    ("", "Ваш код підтвердження 118273", "118273"),
    ("", "Doğrulama kodunuz: 915522", "915522"),
    ("", "【示例】您的验证码是 582910，5分钟内有效，请勿泄露。", "582910"),
    ("", "認証コード：482913\nこのコードは10分間有効です。", "482913"),
    ("", "인증번호 [739201]를 입력해 주세요.", "739201"),
    ("", "รหัส OTP ของคุณคือ 204817", "204817"),
    ("", "رمز التحقق الخاص بك هو 661204", "661204"),
    ("", "קוד האימות שלך הוא 551209", "551209"),
    ("", "Kode verifikasi Anda adalah 330918. Jangan berikan kepada siapa pun.", "330918"),
    ("", "Vahvistuskoodisi on 4471", "4471"),
    ("", "Din bekräftelsekod är 882211", "882211"),
    ("Sign-in verification", "Your verification code\n\nX7KP-29QM\n\nDo not share it.", "X7KP-29QM"),
    ("", "First, copy your one-time code: WDJB-MJHT\nThen open the page.", "WDJB-MJHT"),
    ("[Example] Please verify your device", "A sign in attempt requires further verification.\n\nDevice: Chrome on Linux\nVerification code: 019283\n\nIf you did not sign in, reset your password at https://example.org/settings/123456.", "019283"),
    ("847201 is your Example code", "Someone tried to log in to your account 12 minutes ago from 10.0.4.17. If this was you, use\n\n847201", "847201"),
    ("", "Use 5521 as your password reset code. Call +1 800 555 0199 if you did not ask.", "5521"),
    ("", "Your code is 2024.", "2024"),
    ("", "PIN: 4 8 2 9 1 3", "482913"),
]  # fmt: skip

NONE = [
    ("Your order 448812 has shipped", "Order number: 448812\nTotal: 129.99 USD\nArrives on 12.06.2026"),
    ("20% off everything", "Use code SAVE20 at checkout. Promo code: SUMMER25. Your discount code is 448812."),
    ("Invoice 2026-0042", "Please pay invoice 20260042 until 30.06.2026. Account number 12345678, sort code 401122."),
    ("Card", "A purchase was made with your card ending in 4471 at 14:22."),
    ("Newsletter", "We were founded in 1998 and have 20000 customers in 2026. Call 0800 123456."),
    ("", "The postal code of the office is 10115, the area code 030."),
    ("", "HTTP status code 404 was answered 3000 times; error code 50012."),
    ("Re: code review", "I left 12 comments on pull request 4821, mostly on the code in parser.py line 2048."),
    ("", "Ihre Bestellnummer lautet 55012938. Rabattcode: HERBST15"),
    ("", "Your two-step verification has been switched off."),
    ("Meeting", "Let us meet on 12 June 2026 at 14:30, room 4021."),
    ("", "Seu cupom de desconto: BLACK2026"),
    ("", "快递单号 773012345678，客服电话 95554"),
    ("", "copyright 2026 Example Inc, 1600 Main Street, Suite 2100, 94043"),
]  # fmt: skip


@pytest.mark.parametrize(("subject", "text", "code"), CODES)
def test_the_code_is_found(subject: str, text: str, code: str) -> None:
    found = codes_of(Letter(subject=subject, text=text))
    assert [one.value for one in found] == [code]
    for seen in found[0].evidence:
        part = subject if seen.part == "subject" else text
        assert part[seen.start : seen.end] == seen.quote


@pytest.mark.parametrize(("subject", "text"), NONE)
def test_another_number_is_no_code(subject: str, text: str) -> None:
    assert codes_of(Letter(subject=subject, text=text)) == ()


def test_a_mail_full_of_numbers_takes_no_longer_than_it_must() -> None:
    """Tokens are read up to a number, whatever the mail holds: the rest is not looked at."""
    found = codes_of(Letter(text="code 123456 " * 20_000))
    assert [one.value for one in found] == ["123456"]
