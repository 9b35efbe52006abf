"""A person in a browser: signs in, runs the demo by its button, reads a mail, works by keyboard.

Screenshots are kept in `test-output/screenshots/`.
"""

import smtplib
from email.message import EmailMessage
from typing import Literal

import pytest
from browser.conftest import Visitor
from browser.content import DOMAIN, fill
from playwright.async_api import Page, expect

pytestmark = pytest.mark.timeout(240)
RECIPIENTS = "1000"
_SIZES: tuple[tuple[int, int, Literal["light", "dark"]], ...] = (
    (1280, 900, "light"),
    (390, 844, "dark"),
)


async def _figure(page: Page, label: str) -> int:
    stat = page.locator("#verdict .stat").filter(has=page.get_by_text(label, exact=True))
    text = await stat.locator(".value").inner_text()
    return int("".join(character for character in text if character.isdigit()))


async def test_a_person_runs_the_demo_by_its_button_and_reads_a_mail(visitor: Visitor) -> None:
    page = await visitor.open(viewport={"width": 1280, "height": 900})
    await page.select_option("#recipients", RECIPIENTS)
    await page.click("#run-demo")
    await expect(page.locator("#verdict")).to_be_visible(timeout=120_000)
    await visitor.shot(page, "overview")
    figures = {name: await _figure(page, name) for name in ("Received", "Lost", "Twice")}
    assert figures == {"Received": 1000, "Lost": 0, "Twice": 0}

    await page.get_by_role("link", name="Inboxes").click()
    await page.locator("tbody a.row").first.click()
    await page.locator("tbody a.row").first.click()
    frame = page.frame_locator("iframe.mail")
    await expect(frame.get_by_role("heading", level=1)).to_contain_text("Hello")
    await visitor.shot(page, "mail")


async def _looks_well(visitor: Visitor, page: Page, name: str) -> list[str]:
    """What is wrong with the page as it stands: at a desk in the light, by phone in the dark."""
    wrong = []
    for width, height, scheme in _SIZES:
        await page.set_viewport_size({"width": width, "height": height})
        await page.emulate_media(color_scheme=scheme)
        wider = await page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        if wider > 0:
            wrong.append(f"{name} is {wider} px wider than {width} px")
        await visitor.shot(page, f"{name}-{width}")
    await page.set_viewport_size({"width": 1280, "height": 900})
    await page.emulate_media(color_scheme="light")
    return wrong


async def test_every_page_opens_with_something_on_it(visitor: Visitor) -> None:
    page = await visitor.open(viewport={"width": 1280, "height": 900})
    said: list[str] = []
    page.on("console", lambda one: said.append(one.text) if one.type == "error" else None)
    content = await fill(visitor, page)
    wrong: list[str] = []
    links = page.get_by_role("navigation", name="Main").get_by_role("link")
    found: dict[str, str] = {}
    for place in range(await links.count()):
        name = await links.nth(place).inner_text()
        await links.nth(place).click()
        await expect(page.get_by_role("heading", level=1, name=name)).to_be_visible()
        short = name.lower().replace(" ", "-")
        wrong += await _looks_well(visitor, page, short)
        first = page.locator("main a.row").first
        if await first.count():
            found[f"{short}-one"] = await first.get_attribute("href") or ""
    box = f"/inboxes/{content.inbox['id']}"
    found |= {
        "inbox": box,
        "inbox-settings": f"{box}/settings",
        "inbox-senders": f"{box}/senders",
        "reserved-addresses": "/inboxes/reserved",
        "receiving-domain": f"/receiving/{content.receiving_domain}",
        "report": f"/reports/{DOMAIN}",
        "template-new": "/templates/new",
    }
    for name, path in found.items():
        answer = await page.goto(path)
        assert answer is not None and answer.status == 200, path
        await expect(page.get_by_role("heading", level=1)).to_be_visible()
        if name == "report":
            await expect(page.locator(".chart canvas")).to_be_visible()
        wrong += await _looks_well(visitor, page, name)
    await page.goto(box)
    await page.get_by_role("link", name="Your order 4711").first.click()
    wrong += await _looks_well(visitor, page, "thread")
    await page.get_by_role("link", name="Details").first.click()
    await expect(page.get_by_text("482913").first).to_be_visible()
    wrong += await _looks_well(visitor, page, "message")
    assert wrong == []
    assert said == []


async def test_the_pages_fit_a_phone_in_the_dark_and_work_by_keyboard(visitor: Visitor) -> None:
    page = await visitor.open(viewport={"width": 390, "height": 844}, color_scheme="dark")
    for path in ("/", "/inboxes", "/campaigns", "/deliveries", "/access", "/audit"):
        await page.goto(path)
        wider = await page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert wider <= 0, f"{path} is {wider} px wider than a phone"
    await page.goto("/inboxes")
    await visitor.shot(page, "inboxes-phone-dark")
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.className") == "skip"
    await page.keyboard.press("Enter")
    assert await page.evaluate("document.activeElement.id") == "main"


async def test_new_mail_appears_without_reload(visitor: Visitor) -> None:
    page = await visitor.open()
    await page.goto("/inboxes")
    await page.get_by_role("textbox", name="Address").nth(1).fill("live-page")
    await page.get_by_role("button", name="Make inbox").click()
    await expect(page.get_by_text("No mail here")).to_be_visible()
    mail = EmailMessage()
    mail["From"], mail["Subject"] = "someone@elsewhere.example", "It came by itself"
    mail["To"] = await page.get_by_role("heading", level=1).inner_text()
    mail.set_content("Without a reload.")
    with smtplib.SMTP("127.0.0.1", visitor.platform.smtp_port) as smtp:
        smtp.send_message(mail)
    await expect(page.get_by_role("link", name="It came by itself")).to_be_visible(timeout=15_000)


async def test_mail_that_wants_to_run_scripts_or_fetch_images_does_neither(
    visitor: Visitor,
) -> None:
    page = await visitor.open()
    fetched: list[str] = []
    page.on("request", lambda request: fetched.append(request.url))
    await page.goto("/inboxes")
    await page.get_by_role("textbox", name="Address").nth(1).fill("hostile")
    await page.get_by_role("button", name="Make inbox").click()
    mail = EmailMessage()
    mail["From"], mail["Subject"] = "evil@elsewhere.example", "Look at me"
    mail["To"] = await page.get_by_role("heading", level=1).inner_text()
    mail.set_content("x")
    mail.add_alternative(
        "<p>Shown</p><script>top.document.title='owned'</script>"
        "<img src=https://tracker.example/p.png onerror=alert(1)>"
        "<a href='javascript:alert(1)'>press</a><form action=/sign-out><input></form>",
        subtype="html",
    )
    with smtplib.SMTP("127.0.0.1", visitor.platform.smtp_port) as smtp:
        smtp.send_message(mail)
    await page.get_by_role("link", name="Look at me").click(timeout=15_000)
    frame = page.frame_locator("iframe.mail")
    await expect(frame.get_by_text("Shown")).to_be_visible()
    await expect(page.get_by_text("1 remote images are not loaded")).to_be_visible()
    assert "owned" not in await page.title()
    assert await frame.locator("form, script").count() == 0
    assert not [url for url in fetched if "tracker.example" in url]


async def test_a_person_adds_a_domain_and_copies_its_records_on_a_phone(visitor: Visitor) -> None:
    page = await visitor.open(
        viewport={"width": 390, "height": 844}, permissions=["clipboard-read", "clipboard-write"]
    )
    await page.goto("/domains")
    await page.get_by_role("textbox", name="A domain to send from").fill("Kiosk.Example")
    await page.get_by_role("button", name="Add domain").click()
    await expect(page.get_by_role("heading", level=1, name="kiosk.example")).to_be_visible()
    record = page.get_by_role("region", name="TXT _dmarc.kiosk.example")
    await record.get_by_role("button").nth(1).click()
    await expect(record.get_by_role("button").nth(1)).to_have_text("Copied")
    copied = await page.evaluate("navigator.clipboard.readText()")
    assert copied == "v=DMARC1; p=none; rua=mailto:postmaster@kiosk.example"
    await visitor.shot(page, "domain-phone")
    wider = await page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    assert wider <= 0


async def test_a_change_without_the_csrf_token_is_refused(visitor: Visitor) -> None:
    page = await visitor.open()
    answer = await page.request.post("/inboxes", form={"address": "forged"}, max_redirects=0)
    assert answer.status == 403


async def test_a_template_is_written_seen_as_anybody_gets_it_and_published(
    visitor: Visitor,
) -> None:
    page = await visitor.open(viewport={"width": 1280, "height": 900})
    images: set[str | None] = set()
    page.on("requestfailed", lambda request: images.add(request.failure))
    await page.goto("/templates/new")
    await page.get_by_label("Name").fill("welcome")
    await page.get_by_label("Subject").fill("Hello {{ name }}")
    await page.get_by_label("Body", exact=True).fill(
        "<style>h1{color:rgb(1,2,3)} @media (max-width:400px){h1{letter-spacing:9px}}"
        "@media (prefers-color-scheme:dark){h1{color:rgb(4,5,6)!important}}</style>"
        "<h1>Dear {{ name }}</h1><script>top.document.title='owned'</script>"
        "<img src='https://tracker.example/p.png' alt='A logo'>"
    )
    await page.get_by_role("button", name="Make a draft").click()
    await expect(page.get_by_text("not published")).to_be_visible()

    frame = page.frame_locator("iframe[name=preview]")
    await expect(frame.get_by_text("`name` is undefined")).to_be_visible()
    await page.get_by_label("No images").check()
    images.clear()
    await page.get_by_label("Data (JSON)").fill('{"name": "<Ann>"}')
    heading = frame.get_by_role("heading", name="Dear <Ann>")
    await expect(heading).to_have_css("color", "rgb(1, 2, 3)")
    await expect(heading).to_have_css("letter-spacing", "normal")
    await visitor.shot(page, "template-desktop")
    await page.get_by_label("Dark").check()
    await expect(heading).to_have_css("color", "rgb(4, 5, 6)")
    await page.get_by_label("Phone").check()
    await expect(heading).to_have_css("letter-spacing", "9px")
    await visitor.shot(page, "template-phone-dark")
    await page.get_by_role("radio", name="Text").check()
    await expect(frame.get_by_text("Dear <Ann>\n==========")).to_be_visible()
    assert "owned" not in await page.title()
    assert images == {"csp"}  # never asked for

    await page.get_by_role("button", name="Publish").click()
    await expect(page.get_by_text("version 1 in use")).to_be_visible()
    await page.get_by_label("Subject").fill("{{ wrong")
    await page.get_by_role("button", name="Publish").click()
    await expect(page.get_by_role("alert")).to_contain_text("subject, line 1, column 1")
