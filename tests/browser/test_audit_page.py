"""The audit's page in Chromium: five labels by clicks and by keys, and hostile text that stays text."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlencode

import pytest
from harness.audit_page import serving, write_labels
from harness.browser import Screen, phone_or_desk

from flows.orchestration.audit_web import audit_app
from judges import Ledger
from judges.audit import shown_order
from judges.ledger.reading import find_label_set, labelled_pairs

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PASSWORD = "someone:a-secret-of-the-test"
RUN = "runs/microworld"
HOSTILE = (
    "<script>window.pwned=1</script>",
    "<img src=x onerror=window.pwned=1>",
    "[x](javascript:window.pwned=1) ![x](x) {{ 7*7 }} http://evil.example/a someone@evil.example",
    '"></textarea></div></details></form><h1>free</h1><form action=http://evil.example><button autofocus>',
    "y" * 20_000,
    "\u202eevil\u202c \x1b[31m " + "e" + "\u0301" * 400,
)
HARM = """() => ({
    ran: window.pwned !== undefined,
    pictures: document.images.length,
    scripts: document.querySelectorAll('script').length,
    headings: document.querySelectorAll('h1').length,
    links: [...document.querySelectorAll('a, form')].filter(
        one => new URL(one.href ?? one.getAttribute('action'), location).origin !== location.origin).length,
    wider: document.scrollingElement.scrollWidth > innerWidth,
})"""
NONE = {"ran": False, "pictures": 0, "scripts": 1, "headings": 1, "links": 0, "wider": False}


@pytest.fixture
def page_url(tmp_path, monkeypatch, request) -> Iterator[str]:
    """The page with a password, over a ledger of plain or of hostile texts."""
    monkeypatch.chdir(tmp_path)
    texts = getattr(request, "param", None) or [f"text {i}" for i in range(30)]
    write_labels(tmp_path / RUN / "ledger.db", texts, name="test", judge=HOSTILE[1])
    with serving(audit_app(password=PASSWORD)) as url:
        yield f"{url}/?run={RUN}"


def kept(who: str) -> list[tuple[str, str, str]]:
    """(pair, letter that the reviewer saw, note) of every verdict."""
    with Ledger.open(f"{RUN}/ledger.db") as ledger:
        found = [
            x
            for x in labelled_pairs(ledger, find_label_set(ledger))
            if x.verdict is not None and x.verdict.who == who
        ]
    letters = {"tie": "tie"}
    return [
        (
            x.pair.id,
            letters.get(x.verdict.winner)
            or "AB"[shown_order(x.pair.id, who, seed=0).index(x.verdict.winner)],
            x.verdict.why,
        )
        for x in sorted(found, key=lambda x: x.verdict.created_at)
    ]


class Counting(Screen):
    """Counts what a hand does."""

    clicks = presses = 0

    def click(self, name: str) -> None:
        self.page.get_by_role("button", name=name).click()
        self.clicks += 1

    def key(self, key: str) -> None:
        self.page.keyboard.press(key)
        self.presses += 1

    def log_in(self, url: str, reviewer: str) -> None:
        self.page.goto(url)
        for field, text in (("password", PASSWORD), ("reviewer", reviewer)):
            # The field has the focus by itself: nobody has to click there.
            self.page.wait_for_function("name => document.activeElement?.name === name", arg=field)
            self.page.keyboard.type(text)
            if field == "password":
                self.key("Enter")


def test_five_labels_in_six_clicks(page_url, browser, shots):
    with phone_or_desk(browser, 1200, "light") as page:
        hand = Counting(page, shots)
        hand.log_in(page_url, "Ada")
        hand.click("Start")
        hand.shot("audit-pair-page")
        for number, button in enumerate(
            ("A is better", "B is better", "Tie", "A is better", "B is better"), 1
        ):
            hand.sees(f"Pair {number} of 20")
            hand.click(button)
        hand.sees("Pair 6 of 20")
        assert hand.clicks == 6 <= 8
        assert [letter for _, letter, _ in kept("Ada")] == ["A", "B", "tie", "A", "B"]
        # Whoever has logged in and given a name begins with the first pair.
        page.goto(f"{page_url}&reviewer=Ada")
        hand.sees("Pair 6 of 20")
        assert hand.alarms == []


def test_five_labels_in_five_presses_and_a_note_and_undo(page_url, browser, shots):
    with phone_or_desk(browser, 1200, "dark") as page:
        hand = Counting(page, shots)
        hand.log_in(page_url, "Bob")
        hand.key("Enter")
        hand.presses = 0
        for number, key in enumerate("abtAB", 1):
            hand.sees(f"Pair {number} of 20")
            hand.key(key)
        hand.sees("Pair 6 of 20")
        assert hand.presses == 5
        assert [letter for _, letter, _ in kept("Bob")] == ["A", "B", "tie", "A", "B"]
        # Letters in a note are letters; Enter or N goes there, Escape comes back.
        hand.key("n")
        page.keyboard.type("a bat sat")
        hand.key("Escape")
        hand.key("b")
        hand.sees("Pair 7 of 20")
        assert kept("Bob")[-1][1:] == ("B", "a bat sat")
        hand.key("s")
        hand.sees("Pair 8 of 20")
        hand.key("u")
        hand.sees("Pair 7 of 20")
        hand.key("u")
        hand.sees("You said B.")
        hand.key("Enter")
        assert page.evaluate("document.activeElement.name") == "note"
        page.keyboard.type(" twice")
        hand.key("Escape")
        hand.key("t")
        hand.sees("Pair 8 of 20")
        assert kept("Bob")[-1][1:] == ("tie", "a bat sat twice") and len(kept("Bob")) == 6
        # A key that is held down, or goes with Control, judges nothing; neither do keys that are switched off.
        for event in ({"repeat": True}, {"ctrlKey": True}, {"isComposing": True}):
            made = "new KeyboardEvent('keydown', {key: 'a', bubbles: true, ...event})"
            page.evaluate(f"event => document.body.dispatchEvent({made})", event)
        page.get_by_label("Single keys").uncheck()
        hand.key("a")
        page.reload()
        hand.sees("Pair 8 of 20")
        hand.key("a")
        page.wait_for_timeout(300)
        hand.sees("Pair 8 of 20")
        assert len(kept("Bob")) == 6
        # By the keyboard alone: Tab reaches each button, and what has the focus can be seen.
        names = []
        page.evaluate("document.querySelector('h1').focus()")
        for _ in range(8):
            hand.key("Tab")
            names.append(
                page.evaluate("document.activeElement.innerText || document.activeElement.name || ''")
            )
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
        assert [n.split()[0] for n in names if n][:7] == ["Stop", "A", "B", "Tie", "Skip", "Undo", "note"]


def test_a_double_click_is_one_verdict(page_url, browser, shots):
    with phone_or_desk(browser, 1200, "light") as page:
        hand = Counting(page, shots)
        hand.log_in(page_url, "Eve")
        hand.click("Start")
        hand.sees("Pair 1 of 20")
        box = page.get_by_role("button", name="A is better").bounding_box()
        page.wait_for_timeout(300)
        for _ in range(2):
            page.mouse.click(box["x"] + 20, box["y"] + 20)
            page.wait_for_timeout(120)
        page.wait_for_timeout(400)
        hand.sees("Pair 2 of 20")
        assert len(kept("Eve")) == 1


def test_without_scripts_a_click_is_a_verdict_too(page_url, browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(page_url)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.get_by_label("Your name").fill("Dan")
    page.get_by_role("button", name="Start").click()
    page.get_by_role("button", name="Tie").click()
    page.get_by_text("Pair 2 of 20").wait_for()
    assert len(kept("Dan")) == 1
    context.close()


@pytest.mark.parametrize("page_url", [HOSTILE], indirect=True)
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1200, "light")])
def test_hostile_text_is_only_text_at_any_width(page_url, browser, shots, width, scheme):
    who = HOSTILE[3]
    asked: list[str] = []
    with phone_or_desk(browser, width, scheme) as page:
        hand = Counting(page, shots)
        page.on("request", lambda request: asked.append(request.url))
        hand.log_in(page_url, who)
        hand.key("Enter")
        for number in range(1, len(HOSTILE) + 1):
            hand.sees(f"Pair {number} of {len(HOSTILE)}")
            assert page.evaluate(HARM) == NONE
            if page.locator("summary").count():
                hand.sees("more characters")
                page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
            else:
                assert "yyyy" not in page.inner_text("main")
            assert page.evaluate(HARM) == NONE
            assert "\u202e" not in page.content()
            hand.shot(f"audit-hostile-{number}-{width}-{scheme}")
            page.get_by_label("Note").fill(HOSTILE[3])
            hand.click("B is better")
        hand.sees("pairs are done")
        page.get_by_text("Your verdicts beside the judge's").click()
        assert page.evaluate(HARM) == NONE
        hand.shot(f"audit-end-{width}-{scheme}")
        page.get_by_role("link", name="Undo").click()
        hand.sees("You said B.")
        assert page.get_by_label("Note").input_value() == HOSTILE[3] and page.evaluate(HARM) == NONE
        page.goto(f"{page_url.split('?')[0]}?{urlencode({'run': HOSTILE[0], 'reviewer': who})}")
        hand.sees("no ledger at")
        assert page.evaluate(HARM) == NONE and hand.alarms == []
    own = page_url.split("?")[0]
    assert asked and all(url.startswith(own) for url in asked)
    assert len(kept(who)) == len(HOSTILE)
