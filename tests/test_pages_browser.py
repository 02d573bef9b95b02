"""The pages in a real browser: typing, keys, links, without script, no other hosts, no console messages."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from browser_fixtures import AXE, axe_source, browser, fill_lived_in, serious_issues, served_at
from npm_packages import MODULES

PAGES = (
    "/", "/-/search?q=django", "/-/search?q=djnago", "/-/r/jespern/django-piston", "/-/u/bluebox",
    "/-/changes", "/-/questions", "/-/mirror-status", "/-/mirror-login", "/-/r/no/body",
    "/-/refs?q=m",
)  # fmt: skip
DATASETTES = (
    "/mirror", "/mirror/repositories?_size=5", "/mirror/repositories/1", "/mirror/stale",
    "/mirror?sql=select+1", "/mirror/nothing",
)  # fmt: skip
"""Pages of Datasette itself, in the mirror's colours."""


class Seen:
    """A page of a browser, with its console messages and requests."""

    def __init__(self, page: Any, address: str) -> None:
        self.page = page
        self.address = address
        self.said = list[str]()
        self.asked = list[str]()
        page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))

    def open(self, path: str) -> Any:
        """Go to a path of the mirror."""
        self.page.goto(self.address + path)
        return self.page

    def check(self) -> None:
        """Fail if the console has messages, or a request went to another host."""
        problems = [one for one in self.said if "404 (Not Found)" not in one and "403 (Forbidden)" not in one]
        assert not problems
        host = urlsplit(self.address).netloc
        assert not [one for one in self.asked if urlsplit(one).netloc != host]


@pytest.fixture(scope="module")
def lived_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, str, str]]:
    """A browser, the address of a mirror with private rows, and a token to it."""
    with browser() as running:
        path = tmp_path_factory.mktemp("lived-in") / "mirror.db"
        token = fill_lived_in(path)
        with served_at(path) as address:
            yield running, address, token


@contextlib.contextmanager
def new_page(lived_in: tuple[Any, str, str]) -> Iterator[Seen]:
    """Open a page without cookies, which takes four times as long as loading another address."""
    running, address, _ = lived_in
    context = running.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(10_000)
    yield Seen(context.new_page(), address)
    context.close()


@pytest.fixture(scope="module")
def one_page(lived_in: tuple[Any, str, str]) -> Iterator[Seen]:
    """The page that most tests use, one after the other."""
    with new_page(lived_in) as made:
        yield made


@pytest.fixture
def seen(one_page: Seen) -> Iterator[Seen]:
    """An empty page without a login, checked at the end."""
    one_page.page.context.clear_cookies()
    one_page.page.unroute_all(behavior="ignoreErrors")
    one_page.page.goto("about:blank")
    one_page.said.clear()
    one_page.asked.clear()
    yield one_page
    one_page.check()


def test_typing_finds_and_enter_opens(seen: Seen) -> None:
    """Results appear below the box while typing; arrows choose, Enter opens, Escape closes."""
    page = seen.open("/")
    assert page.evaluate("document.activeElement.id") == "q"
    page.keyboard.type("piston")
    page.wait_for_selector("form[data-answered=piston]")
    assert page.locator("[role=option] mark").count()
    box = page.get_by_role("combobox")
    assert box.get_attribute("aria-expanded") == "true"
    assert "jespern/django-piston" in page.locator("[role=option]").first.inner_text()
    page.keyboard.press("Escape")
    assert box.get_attribute("aria-expanded") == "false"
    page.keyboard.press("ArrowDown")
    assert page.locator("[role=option][aria-selected=true]").count() == 1
    assert box.get_attribute("aria-activedescendant") == "option-1"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    page.wait_for_url("**/-/r/jespern/django-piston")
    assert "0.3.0" in page.locator(".lead").inner_text()


def test_the_slash_key_focuses_the_search_box(seen: Seen) -> None:
    """On any page; screen readers hear the number of results."""
    page = seen.open("/-/changes")
    page.keyboard.press("/")
    page.keyboard.type("django")
    page.wait_for_selector("form[data-answered=django]")
    assert "repositories" in page.locator("[aria-live=polite]").inner_text()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    page.wait_for_url("**/-/search?q=django")
    assert page.locator("article.hit").count() > 5


def test_old_answers_never_overtake_new_ones(seen: Seen) -> None:
    """The first answer arrives after the second; the second stays."""
    page = seen.open("/")
    held = list[Any]()

    def hold(route: Any) -> None:
        held.append(route)

    page.route("**/-/search/options?q=pis", hold)
    with page.expect_request("**/-/search/options?q=pis"):
        page.keyboard.type("pis")
    page.keyboard.type("ton")
    page.wait_for_selector("form[data-answered=piston]")
    assert held, "the first question was not held back"
    shown = page.locator("[role=listbox]").inner_text()
    with contextlib.suppress(Exception):  # the browser has called the question off already
        held[0].fulfill(status=200, content_type="text/html", body='<a role="option" href="/x">old</a>')
    page.wait_for_timeout(250)
    assert page.locator("[role=listbox]").inner_text() == shown


def test_quick_typing_sends_one_request(lived_in: tuple[Any, str, str]) -> None:
    """It is sent after a short pause in typing."""
    with new_page(lived_in) as seen:  # a clock that was replaced once stays so
        seen.page.clock.install(time=0)
        page = seen.open("/")
        page.clock.pause_at(60_000)
        for letter in "piston":
            page.clock.run_for(59)
            page.keyboard.type(letter)
        page.clock.run_for(59)
        assert not [one for one in seen.asked if "/options?" in one]
        page.clock.run_for(1)
        page.wait_for_selector("form[data-answered=piston]")
        assert [urlsplit(one).query for one in seen.asked if "/options?" in one] == ["q=piston"]
        seen.check()


def test_an_unreachable_mirror_is_reported(seen: Seen) -> None:
    """Below the box and beside the results; the next answer removes the message."""
    page = seen.open("/")
    page.route("**/-/search/options?*", lambda route: route.abort("internetdisconnected"))
    page.type("#q", "pis")
    page.wait_for_selector(".options .note")
    assert "does not answer" in page.locator("[role=listbox]").inner_text()
    assert "does not answer" in page.locator("[aria-live=polite]").inner_text()
    page.unroute("**/-/search/options?*")
    page.keyboard.type("ton")
    page.wait_for_selector("form[data-answered=piston]")
    assert not page.locator(".options .note").count()
    seen.open("/-/search")
    page.route("**/-/search?*", lambda route: route.fulfill(status=503, body="busy"))
    page.fill("#q", "pis")
    page.wait_for_selector("#results .note")
    assert "busy" in page.locator("#results .note").inner_text()
    seen.said.clear()  # the browser's own lines about the two


def test_going_back_keeps_the_query(seen: Seen) -> None:
    """In the box of the page that a result was opened from, and on the search page."""
    page = seen.open("/")
    page.fill("#q", "piston")
    page.wait_for_selector("[role=option]")
    page.keyboard.press("Enter")
    page.wait_for_url("**/-/search?q=piston")
    page.fill("#q", "django")
    page.wait_for_url("**/-/search?q=django")
    page.locator("article.hit a").first.click()
    page.wait_for_url("**/-/r/**")
    page.go_back()
    assert page.input_value("#q") == "django"
    page.go_back()
    assert page.input_value("#q") == "piston"


def test_results_and_address_follow_the_form(seen: Seen) -> None:
    """On the search page, the list changes while typing, and the address reproduces it."""
    page = seen.open("/-/search")
    page.fill("#q", "piston")
    page.wait_for_url("**/-/search?q=piston")
    assert page.locator("article.hit").count() == 2
    page.select_option("select[name=forks]", "only")
    page.wait_for_url("**/-/search?*forks=only")
    assert page.locator("article.hit").count() == 1
    page.reload()
    assert page.locator("article.hit").count() == 1
    assert page.input_value("#q") == "piston"


def test_refs_are_filtered_while_typing(seen: Seen) -> None:
    """Without leaving the page."""
    page = seen.open("/-/r/jespern/django-piston")
    page.fill("#find-branches", "oauth")
    page.wait_for_selector("form[data-answered=oauth]")
    assert page.locator("#branches-list tbody tr").count() == 1
    assert page.locator("#branches-list tbody th").inner_text() == "feature/oauth"


def test_a_slider_leads_through_the_past(seen: Seen) -> None:
    """By keys: it shows each moment and loads the page once; after going back it has the same position."""
    page = seen.open("/-/r/jespern/django-piston")
    slider = page.get_by_role("slider", name="When it changed")
    assert slider.get_attribute("aria-valuetext") == "today"
    slider.press("ArrowLeft")
    told = slider.get_attribute("aria-valuetext")
    page.wait_for_url("**at=**")
    assert page.evaluate("document.activeElement.id") == "moment"
    assert slider.get_attribute("aria-valuetext") == told == page.locator(".slide output").inner_text()
    slider.press("End")
    slider.press("Enter")
    page.wait_for_url(lambda url: "at=" not in url)
    page.go_back()
    page.wait_for_url("**at=**")
    assert slider.get_attribute("aria-valuetext") == told


def test_links_lead_through_the_mirror(seen: Seen) -> None:
    """From a repository to its owner, to a fork, to the changes, to the status."""
    page = seen.open("/-/r/jespern/django-piston")
    page.click("h1 a")
    page.wait_for_url("**/-/u/jespern")
    page.click("text=django-piston")
    page.click("text=dchambers/django-piston")
    page.wait_for_url("**/-/r/dchambers/django-piston")
    page.click("nav >> text=Changes")
    page.click("nav >> text=Status")
    page.wait_for_url("**/-/mirror-status")


def test_a_token_logs_in_and_shows_what_is_private(lived_in: tuple[Any, str, str], seen: Seen) -> None:
    """By the form; then budget, private rows and tables are visible."""
    page = seen.open("/-/mirror-status")
    assert page.locator("text=The budget of this hour").count() == 0
    page.click("header >> text=Log in")
    page.fill("#mirror-token", lived_in[2])
    page.click("main button")
    page.wait_for_url("**/-/mirror-status")
    assert page.locator("text=The budget of this hour").count() == 1
    page.click("figure >> text=SQL >> nth=0")
    page.wait_for_url("**/mirror?sql=*")
    seen.open("/mirror/repositories")
    page.wait_for_selector("details.column-notes")
    page.click("td a[href='/-/r/jespern/django-piston']")
    page.wait_for_url("**/-/r/jespern/django-piston")


def test_everything_works_without_javascript(lived_in: tuple[Any, str, str]) -> None:
    """Forms and filters are submitted, pages are links; keys that a script handles are not promised."""
    running, address, _ = lived_in
    context = running.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    assert not page.locator(".keys").is_visible()
    page.fill("#q", "django")
    page.click("main button")
    assert page.url.endswith("/-/search?q=django")
    page.select_option("select[name=forks]", "only")
    page.click("main button")
    page.click("article.hit a")
    assert page.locator("h1").inner_text() == "dchambers/django-piston"
    context.close()


@pytest.mark.parametrize("path", ["/-/r/jespern/django-piston", "/-/search?q=django", "/-/changes"])
def test_every_control_is_reached_by_keyboard_with_visible_focus(seen: Seen, path: str) -> None:
    """The first Tab skips to the content; the focused element is visible and outlined.

    A field for a date has parts, each reached by a Tab of its own.
    """
    page = seen.open(path)
    reached = 0
    for turn in range(200):
        page.keyboard.press("Tab")
        focus = page.evaluate("""() => {
            const element = document.activeElement, box = element.getBoundingClientRect();
            if (element === document.body) return null;
            const outline = getComputedStyle(element).outlineStyle;
            const again = element === window.focusedBefore;
            window.focusedBefore = element;
            return {again, name: element.textContent, seen: box.width > 0 && box.bottom > 0, outline};
        }""")
        if focus is None:
            break
        assert turn or focus["name"] == "Skip to the content"
        assert focus["seen"]
        assert focus["outline"] != "none", focus["name"]
        reached += not focus["again"]
    links = page.locator("a, button, select, input:not([type=hidden]), [tabindex='0']")
    assert reached == links.count()


def test_one_key_leads_to_the_upstream(seen: Seen) -> None:
    """`o` on a page, Ctrl-Enter in the results; letters in a box stay letters."""
    there = "https://bitbucket.org/jespern/django-piston"
    seen.page.route("https://bitbucket.org/**", lambda route: route.fulfill(body="upstream"))
    page = seen.open("/-/r/jespern/django-piston")
    page.keyboard.press("o")
    page.wait_for_url(there)
    page = seen.open("/")
    # Another site was open just now: a busy browser may not have put the cursor into the box yet.
    page.locator("#q").press_sequentially("jespern/django-piston")
    page.wait_for_selector("[role=option][data-there]")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Control+Enter")
    page.wait_for_url(there)
    seen.asked[:] = [one for one in seen.asked if not one.startswith(there)]


CUT_TABS = """() => [...document.querySelectorAll(".bar nav a")]
    .filter((tab) => tab.getBoundingClientRect().right > innerWidth).map((tab) => tab.textContent)"""
CUT_REFS = """[...document.querySelectorAll(".refs .scroll")]
    .filter(table => table.scrollWidth > table.clientWidth).map(table => table.ariaLabel)"""
"""Finds the tables of branches and tags of which only a part is seen."""


def test_nothing_overflows_and_the_console_is_clean(lived_in: tuple[Any, str, str]) -> None:
    """No page is wider than a phone's screen (in dark colours) or a desktop's."""
    running, address, _ = lived_in
    context = running.new_context()
    watched = Seen(context.new_page(), address)
    for path in PAGES:
        open_in_both_sizes(watched, path)
    check_inventory(watched)
    context.close()


def test_a_holder_sees_no_overflow_and_axe_finds_no_serious_issue(lived_in: tuple[Any, str, str]) -> None:
    """The same with a token, which shows more, and WCAG 2 A and AA of each page while it is open.

    Also with open results; in dark colours, the contrast. Without axe-core, the rest is checked all the same.
    """
    running, address, token = lived_in
    axe = axe_source() if (MODULES / AXE).exists() else ""
    headers = {"Authorization": f"Bearer {token}"}
    # Without motion: colours that fade from light to dark would be judged halfway.
    context = running.new_context(extra_http_headers=headers, reduced_motion="reduce")
    watched = Seen(context.new_page(), address)
    for path in (*PAGES, *DATASETTES):
        page = open_in_both_sizes(watched, path)
        if axe:
            judge(page, path, axe)
    check_inventory(watched)
    context.close()
    axe_source()


def open_in_both_sizes(watched: Seen, path: str) -> Any:
    """Open a page on a phone, then look at it on a desktop, in light colours."""
    watched.page.set_viewport_size({"width": 360, "height": 800})
    watched.page.emulate_media(color_scheme="dark")
    page = watched.open(path)
    assert page.evaluate(CUT_TABS) == [], path
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
    assert page.evaluate(CUT_REFS) == [], path
    page.set_viewport_size({"width": 1280, "height": 800})
    page.emulate_media(color_scheme="light")
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280, path
    return page


def judge(page: Any, path: str, axe: str) -> None:
    """Let axe-core look at a page in light and in dark colours."""
    if path == "/":
        page.keyboard.type("django")
        page.wait_for_selector("[role=option]")
        page.keyboard.press("ArrowDown")
    page.evaluate(axe)
    assert serious_issues(page, {}) == [], path
    page.emulate_media(color_scheme="dark")
    assert serious_issues(page, {"runOnly": ["color-contrast"]}) == [], path


def check_inventory(watched: Seen) -> None:
    """Look at its table on a desktop, and at what the browser said of all pages."""
    inventory = watched.open("/-/inventory").locator(".scroll")
    assert inventory.evaluate("table => table.scrollWidth <= table.clientWidth")
    watched.check()


def test_the_script_is_small() -> None:
    """A few kilobytes before a phone can search."""
    folder = Path(__file__).parent.parent / "mirror/serve/static"
    assert (folder / "mirror.js").stat().st_size < 10_000
    assert (folder / "mirror.css").stat().st_size < 20_000
