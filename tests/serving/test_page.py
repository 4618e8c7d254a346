"""The web page in a real Chromium against a real server: what it shows is held against the catalogue and the Python interface.

Skipped without a browser. Every page is also watched: no error in its console, and nothing asked of any other server.
"""

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from browser import NARROW, browser
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, expect, sync_playwright
from servers import Running, free_port, serving

from genrec import Recommender
from genrec.bundle import read_bundle
from genrec.serving.client import Client
from genrec.serving.security import make_key
from genrec.serving.server import ServerSettings

WIDE = 1400
TALK = "skin care or hair care, not by Lumen, waterproof"
expect.set_options(timeout=30_000)  # a busy machine is no mistake


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=browser(), args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield started
        started.close()


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Callable[..., Page]]:
    """Open the page of a server. told: texts of the console that are expected, such as "401"."""
    with contextlib.ExitStack() as stack:

        def visited(server: Running, width: int = WIDE, dark: bool = False, told: str = "nothing") -> Page:
            context = chromium.new_context(
                viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light", reduced_motion="reduce"
            )
            stack.callback(context.close)
            context.set_default_timeout(30_000)
            page = context.new_page()
            elsewhere: list[str] = []
            wrong: list[str] = []

            def listen(message: ConsoleMessage) -> None:
                if message.type in ("error", "warning") and told not in message.text:
                    wrong.append(message.text)

            page.on("request", lambda request: None if request.url.startswith(server.url) else elsewhere.append(request.url))
            page.on("console", listen)
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.goto(server.url)
            stack.callback(check, page, elsewhere, wrong)
            return page

        def check(page: Page, elsewhere: list[str], wrong: list[str]) -> None:
            assert elsewhere == []
            assert wrong == []

        yield visited


@pytest.fixture
def rows(bundle: Path) -> dict[str, dict]:
    return {row["item_id"]: row for row in read_bundle(bundle).catalogue.table.to_pylist()}


def found(page: Page) -> Locator:
    return page.locator("#recommendations [data-item]")


def shown(items: Locator) -> list[str]:
    return [str(one.get_attribute("data-item")) for one in items.all()]


def told(page: Page, count: int, history: str = "for a new customer") -> list[str]:
    """The ids recommended, once the page says that there are so many."""
    page.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")  # what was changed is drawn now
    many = "1 item" if count == 1 else f"{count} items"
    expect(page.locator("#recommendations").get_by_role("status")).to_have_text(f"{many} {history}, best first.")
    return shown(found(page))


def say(page: Page, text: str) -> list[str]:
    """Send a message; the ids of the items in the answer."""
    answers = page.locator("li.assistant")
    before = answers.count()
    page.get_by_label("Message").fill(text)
    page.get_by_role("button", name="Send").click()
    expect(answers).to_have_count(before + 1)
    return shown(answers.last.locator("[data-item]"))


def pick(page: Page, words: str) -> str:
    """Find an item by its title and add the first. Returns its title."""
    page.get_by_label("Find items by title").fill(words)
    first = page.get_by_role("list", name="Items found").get_by_role("button").first
    expect(first).to_contain_text(re.compile(re.escape(words), re.I))
    title = re.sub(r"^Add\s+", "", first.inner_text())
    page.get_by_label("Find items by title").press("Enter")
    expect(page.get_by_role("list", name="Items of the history")).to_contain_text(title)
    return title


def set_price(page: Page, most: int) -> None:
    page.get_by_label("Column").select_option("price")
    page.get_by_label("Up to").fill(str(most))
    page.get_by_role("button", name="Add filter").click()
    expect(page.get_by_role("list", name="Filters set")).to_have_text(re.compile(f"price: up to {most}"))


def test_filters_and_rules_hold_in_list_and_chat_until_they_are_taken_back(
    server: Running, visit: Callable[..., Page], bundle: Path, rows: dict[str, dict]
) -> None:
    page = visit(server)
    best = told(page, 10)
    assert best == [item.item_id for item in Recommender.load(bundle).recommend([[]], k=10)[0]]
    set_price(page, 20)
    cheap = {item_id for item_id, row in rows.items() if (row["price"] or 99) <= 20}
    page.get_by_label("How many").select_option("20")
    assert set(told(page, min(20, len(cheap)))) <= cheap
    page.get_by_label("How many").select_option("10")

    offers = say(page, TALK)
    care = {i for i in cheap if "Skin care" in rows[i]["category"] or "Hair care" in rows[i]["category"]}
    allowed = {i for i in care if rows[i]["brand"] != "Lumen"}
    assert set(offers) <= allowed
    assert len(offers) == min(5, len(allowed))
    expect(page.locator(".missed")).to_have_text('I did not understand: "waterproof".')
    for item_id in offers:
        card = page.locator(f'.offers [data-item="{item_id}"]')
        expect(card).to_contain_text(rows[item_id]["title"])
        expect(card.get_by_role("list", name="Why")).to_contain_text(f"category {rows[item_id]['category']} (rule 1)")

    rules = page.get_by_role("list", name="Rules in force")
    expect(rules.get_by_role("listitem")).to_have_count(2)
    rules.get_by_role("button", name="Remove brand: not Lumen").click()
    expect(rules.get_by_role("listitem")).to_have_count(1)
    answer = page.locator("li.assistant").last
    expect(answer).to_contain_text("No longer a rule: brand: not Lumen.")
    assert set(shown(answer.locator("[data-item]"))) <= care

    page.get_by_role("button", name="Remove price: up to 20").click()
    assert told(page, 10) == best
    assert len(say(page, "from Lumen or Norvik over $20")) > 0
    assert all(rows[i]["price"] > 20 for i in shown(answer.locator("[data-item]")))
    page.get_by_role("button", name="Start over").click()
    expect(page.locator("li.turn")).to_have_count(0)
    expect(rules).to_have_count(0)


def test_values_of_one_column_are_alternatives_and_what_no_item_has_is_said(
    server: Running, visit: Callable[..., Page], rows: dict[str, dict]
) -> None:
    page = visit(server)
    page.get_by_label("Column").select_option("brand")
    for brand in ("lumen", "Norvik"):  # as the catalogue spells it, whatever was typed
        page.get_by_label("Value").fill(brand)
        page.get_by_label("Value").press("Enter")
    expect(page.get_by_role("list", name="Filters set").get_by_role("listitem")).to_have_text(
        ["brand: Lumen×", "brand: Norvik×"]
    )
    page.get_by_label("Value").fill("Nobody")
    page.get_by_label("Value").press("Enter")
    expect(page.locator("#filter-wrong")).to_have_text("No item has brand “Nobody”.")
    two = {i for i, row in rows.items() if row["brand"] in ("Lumen", "Norvik")}
    assert set(told(page, min(10, len(two)))) <= two
    page.get_by_label("cheap").check()
    cheap = {i for i in two if (rows[i]["price"] or 99) < 15}
    assert set(told(page, min(10, len(cheap)))) <= cheap
    page.get_by_text("Write a rule").click()
    page.get_by_label("Such as price").fill("price < 0")
    page.get_by_role("button", name="Use this rule").click()
    expect(page.locator("#recommendations").get_by_role("status")).to_have_text("No item obeys all filters. Remove one.")
    page.get_by_role("button", name="Remove price < 0").click()
    assert set(told(page, min(10, len(cheap)))) <= cheap


def test_a_rule_that_cannot_be_read_is_explained(server: Running, visit: Callable[..., Page]) -> None:
    page = visit(server, told="422")
    page.get_by_text("Write a rule").click()
    page.get_by_label("Such as price").fill("pric < 20")
    page.get_by_role("button", name="Use this rule").click()
    expect(page.locator("#recommendations").get_by_role("alert")).to_contain_text("Did you mean 'price'")


def test_a_history_is_picked_and_pasted_and_moves_the_list_with_reasons(
    server: Running, visit: Callable[..., Page], bundle: Path, rows: dict[str, dict], ids: list[str]
) -> None:
    page = visit(server)
    title = pick(page, "lumen")
    picked = next(item_id for item_id, row in rows.items() if row["title"] == title)
    page.get_by_text("Paste item ids").click()
    pasted = [item_id for item_id in ids if item_id != picked][:2]
    page.get_by_label("Ids, one a line").fill(f"{pasted[0]}, nope\n{pasted[1]}")
    page.get_by_role("button", name="Add these").click()
    expect(page.get_by_role("alert")).to_have_text("Not in the catalogue, so not added: nope.")
    history = [picked, *pasted]
    assert page.locator("ol.chips .chip > span").all_inner_texts() == [rows[item_id]["title"] for item_id in history]
    [expected] = Recommender.load(bundle).recommend([history], k=10, explain=True)
    assert told(page, 10, "after 3 items") == [item.item_id for item in expected]

    card = found(page).first
    card.get_by_text("Why").click()
    reasons = card.locator("details")
    expect(reasons).to_contain_text(f"score {expected[0].score:.2f}")
    assert expected[0].explanation is not None
    expect(reasons.locator("tbody tr")).to_have_count(len(expected[0].explanation.levels))
    best = max(expected[0].explanation.history, key=lambda one: one.change)
    expect(reasons.locator(".influences li")).to_have_count(3)
    expect(reasons.locator(".influences")).to_contain_text(f"{abs(best.change):.2f} {best.title}")

    card.get_by_role("button", name="Had it").click()
    longer = told(page, 10, "after 4 items")
    assert longer == [item.item_id for item in Recommender.load(bundle).recommend([[*history, expected[0].item_id]], k=10)[0]]
    assert not {*history, expected[0].item_id} & set(say(page, "recommend something"))


# The element that has the focus, where nothing shows that it has; past the last one the focus is on the body for one step.
UNSEEN = """() => {
  const e = document.activeElement;
  const seen = e === document.body || (getComputedStyle(e).outlineStyle !== "none" && e.getBoundingClientRect().width > 1);
  return seen ? "" : e.outerHTML;
}"""


def test_everything_can_be_done_with_the_keyboard(server: Running, visit: Callable[..., Page]) -> None:
    page = visit(server)
    told(page, 10)

    def press(*keys: str) -> None:
        for one in keys:
            page.keyboard.press(one)

    def focus() -> Locator:
        return page.locator(":focus")

    def tab_to(wanted: Locator) -> None:
        for _ in range(120):
            if wanted.evaluate("e => e === document.activeElement"):
                return
            press("Tab")
            assert page.evaluate(UNSEEN) == ""
        raise AssertionError(f"{wanted} cannot be reached by the Tab key")

    press("Tab", "Enter")  # the first thing on the page leads past the rest
    search = page.get_by_label("Find items by title")
    expect(search).to_be_focused()
    page.keyboard.type("sun")
    expect(page.get_by_role("list", name="Items found").get_by_role("button").first).to_be_visible()
    press("Tab", "Tab")
    expect(page.get_by_role("list", name="Items found").get_by_role("button").nth(1)).to_be_focused()
    press("Enter")
    expect(search).to_be_focused()
    told(page, 10, "after 1 item")
    press("Shift+Tab")
    expect(focus()).to_have_accessible_name(re.compile("^Remove .*Sun"))
    press("Enter")
    expect(search).to_be_focused()
    told(page, 10)

    tab_to(page.get_by_label("Column"))
    page.keyboard.type("price")
    press("Tab", "Tab")
    expect(page.get_by_label("Up to")).to_be_focused()
    page.keyboard.type("20")
    press("Enter")
    expect(page.get_by_role("list", name="Filters set")).to_contain_text("price: up to 20")
    told(page, 10)
    why = found(page).first.locator("summary")
    tab_to(why)
    press("Enter")
    expect(found(page).first.get_by_role("table")).to_be_visible()
    message = page.get_by_label("Message")
    tab_to(message)
    page.keyboard.type("not by Lumen")
    press("Enter")
    expect(page.locator("li.assistant")).to_have_count(1)
    expect(message).to_be_focused()
    press("Shift+Tab")
    expect(focus()).to_have_accessible_name("Remove brand: not Lumen")
    press("Enter")
    expect(page.locator("li.assistant")).to_have_count(2)
    expect(message).to_be_focused()


# For every text on the page its contrast with what is painted behind it, the lowest first, as [ratio, text].
CONTRASTS = """() => {
  const numbers = text => text.match(/[\\d.]+/g).map(Number);
  const light = rgb => {
    const [r, g, b] = rgb.map(x => (x /= 255) <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const paper = element => {
    for (let e = element; e; e = e.parentElement) {
      const [r, g, b, alpha = 1] = numbers(getComputedStyle(e).backgroundColor);
      if (alpha === 1) return [r, g, b];
      if (alpha > 0) throw new Error("half transparent: " + e.outerHTML);
    }
    throw new Error("no background");
  };
  const ratio = element => {
    const pair = [light(numbers(getComputedStyle(element).color).slice(0, 3)), light(paper(element))];
    return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
  };
  return [...document.querySelectorAll("body *")]
    .filter(e => e.checkVisibility() && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
    .map(e => [ratio(e), e.textContent.trim().slice(0, 60)]).sort((a, b) => a[0] - b[0]);
}"""


@pytest.mark.parametrize(("width", "dark"), [(WIDE, False), (NARROW, True)])
def test_it_is_readable_on_a_desk_and_on_a_telephone_by_day_and_by_night(
    server: Running, visit: Callable[..., Page], width: int, dark: bool
) -> None:
    page = visit(server, width, dark, told="422")
    pick(page, "sun")
    set_price(page, 30)
    told(page, 10, "after 1 item")
    page.get_by_label("Find items by title").fill("e")
    expect(page.get_by_role("list", name="Items found")).to_be_visible()
    for closed in page.locator("summary").all()[:4]:
        closed.click()
    say(page, TALK)
    page.get_by_label("Such as price").fill("pric < 20")
    page.get_by_role("button", name="Use this rule").click()
    expect(page.locator("#recommendations").get_by_role("alert")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") == 0
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 40
    assert contrasts[0][0] >= 4.5, contrasts[0]
    background = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background))) < 3 * 128) == dark
    for part in ("banner", "main", "navigation", "log"):
        expect(page.get_by_role(part)).to_have_count(1)
    for region in ("History", "Filters", "Recommendations", "Chat"):
        expect(page.get_by_role("region", name=region)).to_be_visible()
    for control in page.locator("input:visible, select:visible, textarea:visible, button:visible, summary:visible").all():
        expect(control).to_have_accessible_name(re.compile(r"\w"))


def test_html_of_the_catalogue_and_of_people_is_shown_as_text(
    start: Callable[..., Running], visit: Callable[..., Page]
) -> None:
    evil = [
        "<img src=x onerror='window.hacked=1'>",
        "<script>window.hacked=1</script>",
        "[a](javascript:alert) **b** &lt;i&gt;",
    ]
    server = start()
    with Client(server.url) as client:
        [twin] = client.items([client.recommend([[]], k=1)[0].items[0].item_id])
        for number, text in enumerate(evil):
            client.add_items([twin | {"item_id": f"evil{number}", "title": f"Evil {text}", "brand": text, "category": text}])
        client.remove_items([twin["item_id"]])
    page = visit(server)
    titles = [pick(page, f"evil {text.split()[0]}") for text in evil]
    assert titles == [f"Evil {text}" for text in evil]
    page.get_by_role("button", name="Clear the history").click()
    page.get_by_label("Column").select_option("brand")
    for text in evil:
        page.get_by_label("Value").fill(text)
        page.get_by_role("button", name="Add filter").click()
    assert set(told(page, 3)) == {"evil0", "evil1", "evil2"}
    for number, text in enumerate(evil):
        expect(page.locator(f'[data-item="evil{number}"] h3 span').last).to_have_text(f"Evil {text}")
    assert set(say(page, f"I liked {evil[0]}")) <= {"evil0", "evil1", "evil2"}
    expect(page.locator(".bubble").last).to_contain_text(evil[0])
    assert page.evaluate("window.hacked") is None
    assert page.locator("main img, main script, main a").count() == 0


def test_a_server_with_keys_asks_for_one_and_keeps_it_in_the_tab_alone(
    start: Callable[..., Running], visit: Callable[..., Page], tmp_path: Path
) -> None:
    key = make_key(tmp_path / "keys.json", "web")
    page = visit(start(keys=tmp_path / "keys.json"), told="401")
    box = page.get_by_label("API key", exact=True)
    expect(page.get_by_role("alert")).to_have_text("This server asks for an API key.")
    expect(box).to_be_focused()
    expect(page.get_by_role("region", name="Chat")).to_have_count(0)
    box.fill("gr-wrong")
    box.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("This API key is not known here.")
    box.fill(key)
    box.press("Enter")
    told(page, 10)
    assert len(say(page, "under $30")) == 5
    page.reload()
    told(page, 10)
    assert key not in page.url
    assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
    page.get_by_role("button", name="Forget the API key").click()
    expect(box).to_be_visible()
    assert page.evaluate("sessionStorage.length") == 0


def test_a_server_that_is_gone_is_said_and_nothing_typed_is_lost(
    visit: Callable[..., Page], bundle: Path, tmp_path: Path
) -> None:
    settings = ServerSettings({"shop": bundle}, f"sqlite:///{tmp_path}/store.db", port=free_port())
    with serving(settings) as server:
        page = visit(server, told="ERR_")
        told(page, 10)
    page.get_by_label("How many").select_option("5")
    problem = page.locator("#recommendations").get_by_role("alert")
    expect(problem).to_contain_text("The server does not answer.")
    page.get_by_label("Message").fill("under $20")
    page.get_by_label("Message").press("Enter")
    expect(page.locator("#chat").get_by_role("alert")).to_contain_text("The server does not answer.")
    expect(page.get_by_label("Message")).to_have_value("under $20")
    with serving(settings):
        problem.get_by_role("button", name="Try again").click()
        told(page, 5)
        assert len(say(page, "under $20")) == 5
        expect(page.get_by_role("alert")).to_have_count(0)


def test_it_follows_a_bundle_that_is_swapped_a_catalogue_that_changes_and_the_model_chosen(
    start: Callable[..., Running], visit: Callable[..., Page], bundle: Path
) -> None:
    server = start(bundles={"shop": bundle, "books": bundle})
    page = visit(server)
    best = told(page, 10)
    with Client(server.url, model="shop") as client:
        client.reload("shop")
        client.remove_items([best[0]])
    page.get_by_label("How many").select_option("5")
    assert told(page, 5) == best[1:6]
    expect(page.get_by_role("banner")).to_contain_text("79 items")
    pick(page, "sun")
    say(page, "not Lumen")
    page.get_by_label("Model").select_option("books")
    assert told(page, 5) == best[:5]
    expect(page.get_by_role("banner")).to_contain_text("80 items")
    expect(page.get_by_role("list", name="Rules in force")).to_have_count(0)
    models = httpx.get(f"{server.url}/v1/models").json()
    assert [model["catalogue"]["items"] for model in models] == [79, 80]
