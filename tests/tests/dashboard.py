"""What a person sees and does on the dashboard, in a real browser against a real daemon.

    dashboard.py house         signed in by a token: everything but what an experiment found
    dashboard.py laboratory    over HTTPS, signed in by a certificate: experiments

dashboard.rs sets the stages and starts this once for each. Figures on the page are compared with what
`hvctl --json` says of the same daemon; screenshots go to VENDUE_SHOTS for who wants to look.
"""

import json
import os
import subprocess
import sys
import time

from playwright.sync_api import expect, sync_playwright

ORIGIN = os.environ["VENDUE_HTTP"]
HOSTILE = os.environ["VENDUE_HOSTILE"]
SHOTS = os.environ["VENDUE_SHOTS"]
PATIENCE_S = 60
FLAGS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]


def hvctl(*arguments):
    """Objects that hvctl prints."""
    command = [os.environ["VENDUE_HVCTL"], "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return [json.loads(line) for line in done.stdout.splitlines()]


def eventually(what, look):
    """Looks until it is true; what it found then."""
    end = time.monotonic() + PATIENCE_S
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < end, f"{what} did not happen"
        time.sleep(0.1)


def grouped(value, decimals=0):
    """As the page writes an integer of 10^-decimals."""
    whole, rest = divmod(int(value), 10**decimals)
    return f"{whole:,}" + (f".{rest:0{decimals}}" if decimals else "")


class Browser:
    """A page and what it said and asked."""

    def __init__(self, browser, **kind):
        self.context = browser.new_context(**kind)
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE_S * 1000)
        self.complaints, self.asked = [], []
        self.page.on("console", lambda said: said.type in ("error", "warning") and self.complaints.append(said.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append(f"a dialog: {dialog.message}"), dialog.dismiss()))
        self.page.on("request", lambda request: self.asked.append(request.url))

    def sign_in(self, token):
        """By the keyboard alone."""
        self.page.goto(ORIGIN)
        expect(self.page.get_by_label("Token")).to_be_focused()
        self.page.keyboard.type(token)
        self.page.keyboard.press("Enter")
        expect(self.page.locator("#link")).to_have_text("live")

    def view(self, name):
        """Goes to a view and waits until it is drawn."""
        self.page.get_by_role("navigation").get_by_role("link", name=name).click()
        expect(self.page.get_by_role("heading", level=1, name=name)).to_be_attached()

    def table(self, caption):
        """The table of this caption."""
        return self.page.get_by_role("table", name=caption, exact=True)

    def rows(self, caption):
        """Its cells' texts by heading, a dictionary a row, as drawn."""
        return self.table(caption).evaluate("""(table) => {
            const heads = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
            return [...table.tBodies[0].rows].map((row) =>
                Object.fromEntries([...row.cells].map((cell, at) => [heads[at], cell.textContent])));
        }""")

    def shows(self, caption, tell):
        """Waits until a table has a row with the cells that `tell()` says."""
        def has():
            expected = tell()
            return any(all(row.get(head) == text for head, text in expected.items()) for row in self.rows(caption))
        try:
            eventually("a row", has)
        except AssertionError as error:
            raise AssertionError(f"{caption}: no {tell()} in {self.rows(caption)[:8]}") from error

    def shot(self, name):
        """A picture for who wants to look."""
        self.page.screenshot(path=os.path.join(SHOTS, f"{name}.png"), full_page=True)

    def close(self):
        """Nothing went wrong, and nothing was asked of anybody else."""
        assert self.complaints == [], self.complaints
        strangers = [url for url in self.asked if not url.startswith(ORIGIN + "/")]
        assert strangers == [], strangers
        self.context.close()


def a_stranger_is_told(browser):
    """Who shows a token that nobody knows reads the daemon's own words."""
    it = Browser(browser)
    it.page.goto(ORIGIN)
    expect(it.page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert it.complaints == [], it.complaints
    api = [url for url in it.asked if url.endswith("/status")]
    assert api == [], "it asked before it could show a token"
    it.page.get_by_label("Token").fill("ab" * 32)
    it.page.get_by_role("button", name="Sign in").click()
    expect(it.page.get_by_role("alert")).to_contain_text("no such token")
    # The browser tells of the refused request itself, and nothing else is wrong.
    assert all("401" in said for said in it.complaints), it.complaints
    it.context.close()


def the_figures_are_the_daemons(it):
    """Overview, holdings, limits and leases."""
    status = hvctl("status")[0]
    expect(it.page.locator("#dry-run")).to_be_visible()
    expect(it.page.locator("#facts")).to_contain_text(
        f"{grouped(status['instances'])} instances of {grouped(status['accounts'])} accounts")
    tier = next(row for row in hvctl("tier", "list") if row["book"] == 0)
    it.shows("Tiers", lambda: {"Tier": tier["name"], "Resource": "cpu", "Reserved": f"{grouped(tier['reserved_vru'] * 10)}m"})
    it.shot("overview-light")

    it.view("Holdings")
    for at, name in enumerate(["seller", "buyer"]):
        def account(at=at, name=name):
            row = hvctl("account", "list")[at]
            return {"Account": name, "Free funds": grouped(row["free_micro"], 6), "Held funds": grouped(row["held_micro"], 6),
                    "Instances": grouped(row["instances"])}
        it.shows("Accounts", account)
    token = hvctl("token", "list")[0]
    it.shows("Tokens", lambda: {"Token": str(token["id"]), "Reserves": f"{token['vru'] * 10}m", "Generation": str(token["generation"])})
    it.shot("holdings-light")

    it.view("Limits")
    it.page.get_by_label("Filter Limits", exact=True).fill("seller cpu.max")
    def limit():
        row = next(row for row in hvctl("limits", "seller") if row["file"] == "cpu.max")
        return {"Whose": "seller", "Limit": "cpu.max", "Wanted": row["wanted"], "Read back": row["read_back"], "State": "dry run"}
    it.shows("Limits", limit)
    def memory():
        row = next(row for row in hvctl("instance", "sensors") if row["instance"] == 0)
        return {"Instance": "seller", "Memory": f"{row['memory_bytes'] / 2**20:.{1 if row['memory_bytes'] < 10 * 2**20 else 0}f} MiB"}
    it.shows("How instances fare", memory)

    it.view("Leases and margins")
    def lease():
        row = hvctl("lease", "list")[0]
        return {"Instance": "buyer", "Has (VRU)": str(row["granted_vru"]), "Pays at most": str(row["rent_ticks"]), "Paid": grouped(row["paid_micro"], 6)}
    it.shows("Leases", lease)
    def task():
        row = hvctl("task", "list")[0]
        return {"Task": "render", "VRUs": f"{row['vru']} of {row['vru_max']}", "Margin a second": grouped(row["margin_micro"], 6)}
    it.shows("Tasks", task)
    it.shot("leases-light")


def the_market_is_drawn(it):
    """Books, depth, trades and prices."""
    it.view("Market")
    market, book = hvctl("market")[0], hvctl("book", "0")[0]
    it.shows("Books", lambda: {
        "Book": "bronze cpu", "Last": str(market["last_ticks"]), "Bid": str(market["bid_ticks"]),
        "Ask": str(market["ask_ticks"]), "Offered": grouped(market["ask_credits"]), "Trades": str(market["trades"]),
    })
    for side, caption, head in (("bids", "Bids", "Bid"), ("asks", "Asks", "Ask")):
        shown = [(row[head], row["Credits"]) for row in it.rows(caption)]
        told = [(str(row["price_ticks"]), grouped(row["quantity_credits"])) for row in book[side]]
        assert shown == told, (shown, told)
    trade = hvctl("trades")[-1]
    it.shows("Newest trades", lambda: {"Trade": str(trade["trade"]), "Seller": "seller", "Buyer": "buyer", "Price": str(trade["price_ticks"])})
    colours = """(canvas) => {
        const all = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        const seen = new Set();
        for (let at = 0; at < all.length; at += 4) if (all[at + 3] > 0) seen.add(all[at] << 16 | all[at + 1] << 8 | all[at + 2]);
        return seen.size;
    }"""
    eventually("a drawn chart", lambda: it.page.locator("canvas").first.evaluate(colours) > 10)
    it.shot("market-light")
    # Another book, chosen.
    it.page.get_by_role("button", name="gold cpu").click()
    expect(it.page.get_by_text("gold cpu, continuous")).to_be_visible()
    expect(it.page.get_by_text("nobody buys")).to_be_visible()


def names_are_text(it):
    """An instance called as markup is shown as called, wherever it is shown."""
    for view, caption in (("Holdings", "Instances"), ("Limits", "Limits"), ("Forecasts", "Planned events"), ("Experiments", "Experiments")):
        it.view(view)
        it.page.get_by_label(f"Filter {caption}", exact=True).fill(HOSTILE)
        cell = it.table(caption).get_by_role("rowheader").first
        expect(cell).to_have_text(HOSTILE)
        assert it.page.locator("main img, main script").count() == 0


def a_thousand_are_paged(it):
    """However many there are, few lines are drawn; they sort, filter and turn."""
    it.view("Holdings")
    many = it.page.get_by_role("region", name="Instances", exact=True)
    instances = hvctl("instance", "list")
    assert len(instances) > 1000
    expect(many.locator(".count")).to_contain_text("1 to 25 of ")
    assert it.page.locator("main tr").count() < 200
    many.get_by_role("button", name="Next").click()
    expect(many.locator(".count")).to_contain_text("26 to 50 of ")
    head = it.table("Instances").get_by_role("columnheader", name="Free credits")
    head.get_by_role("button").click()
    expect(head).to_have_attribute("aria-sort", "descending")
    most = max(part["free_millicredits"] for row in instances for part in row["resources"])
    expect(it.table("Instances").locator("tbody tr").first).to_contain_text(grouped(most, 3))
    many.get_by_label("Filter Instances").fill("crowd-0777")
    expect(it.table("Instances").locator("tbody tr")).to_have_count(1)


def marked(chart):
    """If the chart has the edges of something that is planned, in the colour they alone have there."""
    return chart.locator("canvas").evaluate("""(canvas) => {
        const probe = document.createElement("span");
        document.body.append(probe);
        probe.style.color = "var(--warn)";
        const [r, g, b] = getComputedStyle(probe).color.match(/\\d+/g).map(Number);
        probe.remove();
        // A copy may be read as often as one likes.
        const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
        copy.drawImage(canvas, 0, 0);
        const all = copy.getImageData(0, 0, canvas.width, canvas.height).data;
        let found = 0;
        for (let at = 0; at < all.length; at += 4) if (all[at] === r && all[at + 1] === g && all[at + 2] === b && all[at + 3] === 255) found += 1;
        return found > 100;
    }""")


def what_is_planned_is_shown(it):
    """Each event that hvctl tells of, and whom it shifts."""
    events = hvctl("forecast", "events")
    assert len(events) == 2, events
    for row in events:
        shift = [f"{row['percent']}%" if row["percent"] != 100 else "", f"+{row['add_vru'] * 10}m" if row["add_vru"] else ""]
        it.shows("Planned events", lambda row=row, shift=shift: {
            "Event": row["name"], "Instance": "seller", "Resource": "cpu", "Lasts": f"{row['lasts_ms'] // 60_000} min",
            "Shifts": " ".join(filter(None, shift)), "Again after": f"{row['every_days']} d" if row["every_days"] else "once",
        })
    shown = {row["Event"]: row["Next"] for row in it.rows("Planned events")}
    assert shown[HOSTILE].startswith("goes on until ") and not shown["backup"].startswith("goes on"), shown


def a_forecast_has_its_bands(it):
    """The riskiest first; its chart says what it shows also to who does not see it, what was measured too."""
    it.view("Forecasts")
    forecast = next(row for row in hvctl("forecast", "list") if row["instance"] == 1)
    it.shows("Forecasts", lambda: {
        "Instance": "buyer", "Median": f"{grouped(forecast['p50_vru'] * 10)}m", "80% up to": f"{grouped(forecast['p90_vru'] * 10)}m",
        "95% up to": f"{grouped(forecast['p975_vru'] * 10)}m", "Risk": str(forecast["risk"]),
    })
    chart = it.page.get_by_role("img")
    expect(chart).to_have_attribute("aria-label", f"buyer: cpu, hour (user). With 90% at most {grouped(forecast['p90_vru'] * 10)}m, risk {forecast['risk']}")
    expect(chart.locator("canvas")).to_be_visible()
    assert not marked(chart), "nothing is planned for the buyer"
    what_is_planned_is_shown(it)
    it.page.get_by_role("button", name="seller").click()
    expect(it.page.get_by_text(f"shaded is what is planned: {HOSTILE}, backup.")).to_be_visible()
    eventually("events on the chart", lambda: marked(chart))
    it.shot("forecasts-planned-light")
    it.page.get_by_role("button", name="seconds").click()
    # By seconds it does not reach so far ahead.
    expect(it.page.get_by_text(f"shaded is what is planned: {HOSTILE}.")).to_be_visible()

    def compared():
        used = [row["used_milli_vru"] for row in hvctl("forecast", "history", "seller", "cpu", "--step", "second")]
        label = chart.get_attribute("aria-label")
        ends = [f", planned {HOSTILE}, measured last {grouped(round(milli / 100))}m" for milli in used if milli]
        return any(label.endswith(end) for end in ends)
    eventually("what was measured beside the forecast", compared)
    it.shot("forecasts-light")


def swap(number):
    """A swap, as hvctl knows it."""
    return next(row for row in hvctl("swap", "list") if row["id"] == number)


def press(it, verb, number, words=None):
    """Decides about a swap, and is sure of it."""
    it.page.get_by_role("button", name=f"{verb} swap {number}", exact=True).click()
    if words is not None:
        it.page.get_by_label("Why").fill(words)
    it.page.get_by_role("dialog").get_by_role("button", name=f"{verb} swap {number}").click()


def refused(it, status):
    """The browser told of one refused request, and of nothing else."""
    assert len(it.complaints) == 1 and str(status) in it.complaints[0], it.complaints
    it.complaints.clear()


def swaps_are_decided(it):
    """A click really lends VRUs; a second thought, a refusal and somebody else's decision are told as they are."""
    it.view("Swaps")
    waiting = [row for row in hvctl("swap", "list") if row["state"] == "proposed"]
    assert [row["id"] for row in waiting] == [1, 2, 3], waiting
    for row in waiting:
        it.shows("Swaps that wait for approval", lambda row=row: {
            "Swap": str(row["id"]), "Amount": f"{row['vru'] * 10}m", "Lends": f"seller (token {row['source']})", "Has it meanwhile": f"buyer (token {row['destination']})", "For": "10 min", "Pays": grouped(row["incentive_micro"], 6)})
    it.shot("swaps-light")
    tokens = {row["id"]: row["vru"] for row in hvctl("token", "list")}

    it.page.get_by_role("button", name="Approve swap 1", exact=True).click()
    dialog = it.page.get_by_role("dialog", name="Approve swap 1?")
    expect(dialog).to_contain_text("seller lends 100m of bronze cpu")
    it.shot("swaps-dialog")
    dialog.get_by_role("button", name="Go back").click()
    expect(dialog).to_be_hidden()
    assert swap(1)["state"] == "proposed", "nobody was sure"
    press(it, "Approve", 1)
    expect(it.page.get_by_text("Swap 1 is approved")).to_be_visible()
    it.shows("Swaps under way and over", lambda: {"Swap": "1", "State": swap(1)["state"]})
    assert swap(1)["state"] == "active"
    now = {row["id"]: row["vru"] for row in hvctl("token", "list")}
    assert (now[1], now[2]) == (tokens[1] - 10, tokens[2] + 10), (tokens, now)

    press(it, "Reject", 2, "not today")
    expect(it.page.get_by_text("Swap 2 is rejected")).to_be_visible()
    assert (swap(2)["state"], swap(2)["words"]) == ("rejected", "not today"), swap(2)
    it.shows("Swaps under way and over", lambda: {"Swap": "2", "State": "rejected", "Why": f"{swap(2)['reason']}: not today"})

    # An observer sees it too, and is refused.
    other = Browser(it.context.browser, viewport={"width": 1280, "height": 800})
    other.sign_in(os.environ["VENDUE_OBSERVER"])
    other.view("Swaps")
    press(other, "Approve", 3)
    expect(other.page.get_by_text("not permitted")).to_be_visible()
    assert swap(3)["state"] == "proposed", swap(3)
    refused(other, 403)
    other.close()

    # Somebody else was faster.
    it.page.get_by_role("button", name="Approve swap 3", exact=True).click()
    hvctl("swap", "reject", "3")
    it.page.get_by_role("dialog").get_by_role("button", name="Approve swap 3").click()
    expect(it.page.get_by_text("swap is settled")).to_be_visible()
    refused(it, 409)
    it.shot("swaps-decided")


def the_trail_is_searched(it):
    """What the daemon finds is what hvctl prints of it."""
    it.view("Audit")
    it.page.get_by_label("What was done").fill("trade")
    it.page.get_by_label("Instance (name or number)").fill("seller")
    it.page.get_by_label("From record").fill("1")
    it.page.get_by_role("button", name="Search").click()
    expect(it.page.get_by_text("the chain holds")).to_be_visible()
    trades = [row for row in hvctl("audit") if row["what"] == "trade"]
    shown = it.rows("Transactions")
    assert [row["Chain"] for row in shown] == [row["chain"] for row in reversed(trades)], (shown, trades)
    assert shown[0]["Amount"] == f"{grouped(trades[-1]['amount_credits'])} credits", shown[0]
    it.shot("audit-light")
    it.page.get_by_label("Instance (name or number)").fill("nobody of this name")
    it.page.get_by_role("button", name="Search").click()
    expect(it.page.get_by_text("no instance is called")).to_be_visible()


def the_keyboard_is_enough(it):
    """From the top of the page to a sorted table, and every stop is seen."""
    keys = it.page.keyboard
    it.view("Overview")
    it.page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    it.page.reload()
    expect(it.page.locator("#link")).to_have_text("live")
    keys.press("Tab")
    expect(it.page.get_by_text("Skip to the content")).to_be_focused()
    keys.press("Enter")
    expect(it.page.locator("main")).to_be_focused()
    keys.press("Tab")
    outlined = "getComputedStyle(document.activeElement).outlineStyle"
    sort = it.table("Tiers").get_by_role("button", name="Capacity")
    for _ in range(40):
        assert it.page.evaluate(outlined) != "none", it.page.evaluate("document.activeElement.outerHTML")
        if sort.evaluate("(button) => button === document.activeElement"):
            break
        keys.press("Tab")
    keys.press("Space")
    expect(it.table("Tiers").get_by_role("columnheader", name="Capacity")).to_have_attribute("aria-sort", "descending")
    # It is still there after the figures came anew.
    before = len(it.asked)
    eventually("another look", lambda: it.page.wait_for_timeout(100) or len(it.asked) > before + 6)
    expect(sort).to_be_focused()
    link = it.page.get_by_role("link", name="Market")
    link.focus()
    keys.press("Enter")
    expect(it.page.get_by_role("heading", level=1, name="Market")).to_be_attached()
    expect(link).to_have_attribute("aria-current", "page")


LUMINANCE = """([text, page]) => {
    const luminance = (colour) => {
        const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).map((c) => c / 255).map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const probe = document.createElement("span");
    document.body.append(probe);
    const of = (name) => { probe.style.color = `var(--${name})`; return luminance(getComputedStyle(probe).color); };
    const [a, b] = [of(text), of(page)].sort((x, y) => y - x);
    probe.remove();
    return (a + 0.05) / (b + 0.05);
}"""


def it_is_legible(it, scheme):
    """Each pair of colours has the contrast that small text needs (WCAG 2, 4.5:1)."""
    pairs = [(ink, page) for ink in ("text", "quiet", "good", "warn", "bad", "accent") for page in ("page", "raised")]
    pairs += [("on-accent", "accent"), ("warn", "warn-page"), ("bad", "bad-page"), ("good", "good-page"), ("text", "picked"),
              ("text", "bid-page"), ("text", "ask-page"), ("accent", "picked")]
    for pair in pairs:
        ratio = it.page.evaluate(LUMINANCE, pair)
        assert ratio >= 4.5, f"{scheme}: {pair[0]} on {pair[1]} has {ratio:.2f}"


BRIGHT = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number).reduce((a, b) => a + b) > 382"


def dark_and_light(it):
    """As the system has it, and as somebody chose; that stays."""
    it_is_legible(it, "light")
    assert it.page.evaluate(BRIGHT)
    it.page.emulate_media(color_scheme="dark")
    assert not it.page.evaluate(BRIGHT)
    it_is_legible(it, "dark")
    it.shot("market-dark")
    it.page.get_by_label("Colours").select_option("light")
    assert it.page.evaluate(BRIGHT)
    it.page.reload()
    expect(it.page.locator("#link")).to_have_text("live")
    assert it.page.evaluate(BRIGHT), "what was chosen is forgotten"
    it.page.get_by_label("Colours").select_option("auto")


def no_wider_than_the_screen(it, name):
    """The page has nothing to be scrolled to on the right."""
    wide = it.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1], f"{name} is {wide[0]} wide where there are {wide[1]}"


def it_fits_a_telephone(it):
    """Tables scroll by themselves; the page does not."""
    it.page.set_viewport_size({"width": 360, "height": 740})
    for name in ("Overview", "Market", "Holdings", "Limits", "Leases and margins", "Forecasts", "Experiments", "Swaps", "Audit"):
        it.view(name)
        expect(it.page.locator("#link")).to_have_text("live")
        no_wider_than_the_screen(it, name)
    it.view("Market")
    it.page.wait_for_timeout(500)
    it.shot("market-narrow-dark")
    it.page.set_viewport_size({"width": 1280, "height": 800})


def it_says_when_the_daemon_is_away(it):
    """And goes on by itself once it is back; nothing jumps meanwhile; a hidden page asks nothing."""
    it.view("Overview")
    it.page.wait_for_timeout(1000)
    it.page.evaluate("""() => {
        window.shifted = 0;
        new PerformanceObserver((list) => { for (const entry of list.getEntries()) window.shifted += entry.value; }).observe({ type: "layout-shift" });
    }""")
    complaints = list(it.complaints)
    it.context.set_offline(True)
    expect(it.page.locator("#link")).to_contain_text("The daemon is away")
    expect(it.page.get_by_role("status").first).to_contain_text("away")
    expect(it.page.locator("body")).to_have_class("stale")
    it.context.set_offline(False)
    expect(it.page.locator("#link")).to_have_text("live")
    it.complaints[:] = complaints
    assert it.page.evaluate("shifted") < 0.1, it.page.evaluate("shifted")
    hide = """(hidden) => {
        Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    it.page.evaluate(hide, True)
    it.page.wait_for_timeout(500)
    before = len(it.asked)
    it.page.wait_for_timeout(2500)
    assert len(it.asked) == before, it.asked[before:]
    it.page.evaluate(hide, False)
    eventually("another look", lambda: it.page.wait_for_timeout(50) or len(it.asked) > before)


def an_experiment_that_knows_nothing_yet(it):
    """It says so, and who only watches cannot end it."""
    it.view("Experiments")
    row = hvctl("experiment", "list")[0]
    it.shows("Experiments", lambda: {
        "Experiment": HOSTILE, "State": "running", "B − A": "–", "With 95%": "–", "Measure": "latency, less is better", "Of": "nobody",
    })
    expect(it.page.get_by_text("of each arm four instances have to be measured")).to_be_visible()
    expect(it.page.locator(".effect")).to_be_hidden()
    other = Browser(it.context.browser, viewport={"width": 1280, "height": 800})
    other.sign_in(os.environ["VENDUE_OBSERVER"])
    other.view("Experiments")
    stop(other, row["experiment"])
    expect(other.page.get_by_text("not permitted")).to_be_visible()
    assert hvctl("experiment", "list")[0]["end"] == "running"
    refused(other, 403)
    other.close()


def stop(it, number):
    """Ends an experiment, and is sure of it."""
    it.page.get_by_role("button", name=f"Stop experiment {number}", exact=True).click()
    it.page.get_by_role("dialog").get_by_role("button", name=f"Stop experiment {number}").click()


PKI = os.environ.get("VENDUE_PKI")


def over_https(browser, name=None, **kind):
    """A browser that has somebody's certificate, or none."""
    shown = {"origin": ORIGIN, "certPath": f"{PKI}/{name}/cert.pem", "keyPath": f"{PKI}/{name}/key.pem"}
    return Browser(browser, ignore_https_errors=True, client_certificates=[shown] if name else [], **kind)


def who_has_no_certificate_signs_in(browser):
    """Nothing is shown to who shows nothing; whose certificate is not in the table reads why that does not do."""
    for name, told in ((None, False), ("mallory", True)):
        it = over_https(browser, name)
        it.page.goto(ORIGIN)
        expect(it.page.get_by_role("heading", name="Sign in")).to_be_visible()
        expect(it.page.get_by_role("alert")).to_have_count(int(told))
        if told:
            expect(it.page.get_by_role("alert")).to_contain_text("knows no such token or certificate")
        assert it.page.locator("main table").count() == 0
        assert it.complaints and all("401" in said for said in it.complaints), it.complaints
        it.context.close()


def a_certificate_is_enough(it):
    """Its operator is in without a word, and there is nothing to sign out of."""
    it.page.goto(ORIGIN)
    expect(it.page.locator("#link")).to_have_text("live")
    expect(it.page.get_by_role("button", name="Sign out")).to_be_hidden()
    assert it.page.evaluate("sessionStorage.length + localStorage.length") == 0
    status = hvctl("status")[0]
    expect(it.page.locator("#facts")).to_contain_text(f"{status['instances']} instances of {status['accounts']} accounts")


def experiment(number):
    """An experiment with who takes part, as hvctl knows it."""
    return hvctl("experiment", "show", str(number))[0]


def milli(value):
    """Thousandths as the page writes them."""
    sign = "-" if value < 0 else ""
    return f"{sign}{grouped(abs(value), 3)}"


def an_effect_is_drawn(it):
    """The numbers are hvctl's, and the drawing is of them."""
    it.view("Experiments")
    eventually("harm has ended it", lambda: experiment(1)["end"] == "harm")
    harmed, lead = experiment(1), experiment(2)
    for row in (harmed, lead):
        low, high = row["interval_95_milli"]
        it.shows("Experiments", lambda row=row, low=low, high=high: {
            "Experiment": row["name"], "Number": str(row["experiment"]), "State": row["end"], "B − A": milli(row["effect_milli"]),
            "With 95%": f"{milli(low)} to {milli(high)}", "Mean of A": milli(row["arms"][0]["mean_milli"]),
            "Mean of B": milli(row["arms"][1]["mean_milli"]), "Resource": row["resource"], "Of": "lab",
        })
    assert [row["Experiment"] for row in it.rows("Experiments")] == ["lead", "worse"], "the newest first"
    # The newest is chosen.
    for arm, (name, given) in zip(lead["arms"], (("A", "nothing: they stay as they are"), ("B", "budget 3.000000, cover p90"))):
        it.shows("Arms", lambda arm=arm, name=name, given=given: {
            "Arm": name, "Its instances are given": given, "Follow it now": str(arm["exposed"]), "Measured": str(arm["sample"]),
            "Values": str(arm["values"]), "Mean": milli(arm["mean_milli"]),
        })
    assert [row["exposed"] for row in lead["arms"]] == [5, 4], lead
    names = {row["instance"]: row["name"] for row in hvctl("instance", "list")}
    told = {(names[row["instance"]], row["arm"].upper(), milli(row["mean_milli"]) if row["mean_milli"] is not None else "–", row["left"])
            for row in lead["instances"]}
    eventually("who takes part", lambda: told == {
        (row["Instance"], row["Arm"], row["Mean"], row["State"].startswith("has left")) for row in it.rows("Who takes part")})
    assert len(told) == 10 and sum(left for *_, left in told) == 1, told

    drawn = it.page.get_by_role("img", name="B − A is")
    expect(drawn).to_have_attribute("aria-label", f"B − A is {milli(lead['effect_milli'])}, with 95% from {milli(lead['interval_95_milli'][0])} to "
                                    f"{milli(lead['interval_95_milli'][1])}: B is worse than A.")
    # Where things are is to scale: no effect, the interval, the effect in it, then what counts as harm.
    places = drawn.evaluate("""(drawing) => {
        const of = (name) => drawing.querySelector(name).getBoundingClientRect();
        const [zero, harm, interval, dot] = [".zero", ".harm", ".interval", ".dot"].map(of);
        return [zero.left, interval.left, (dot.left + dot.right) / 2, interval.right, harm.left];
    }""")
    values = [0, lead["interval_95_milli"][0], lead["effect_milli"], lead["interval_95_milli"][1], lead["harm_milli"]]
    scale = (places[-1] - places[0]) / (values[-1] - values[0])
    for place, value in zip(places, values):
        assert abs(place - places[0] - scale * value) < 2, (places, values)
    expect(it.page.get_by_text("until ").first).to_be_visible()
    it.shot("experiments-light")

    it.page.get_by_role("button", name="worse").click()
    expect(it.page.get_by_text(f"worse: harm, B was worse than A by more than {milli(harmed['harm_milli'])}, beyond doubt.")).to_be_visible()
    eventually("nobody takes part", lambda: not experiment(1)["instances"] and not it.rows("Who takes part"))
    expect(it.page.get_by_text("nobody any more")).to_be_visible()
    assert it.page.get_by_role("button", name="Stop experiment 1").count() == 0
    it.page.get_by_role("button", name="lead").click()
    expect(it.page.get_by_text("lead: running")).to_be_visible()


def it_looks_well_anywhere(it):
    """In the dark, and on a telephone, nothing is lost."""
    it.page.emulate_media(color_scheme="dark")
    it_is_legible(it, "dark")
    it.shot("experiments-dark")
    it.page.set_viewport_size({"width": 360, "height": 740})
    no_wider_than_the_screen(it, "Experiments")
    it.shot("experiments-narrow-dark")
    it.page.emulate_media(color_scheme="light")
    it.shot("experiments-narrow-light")
    it.page.set_viewport_size({"width": 1280, "height": 800})


def a_click_ends_an_experiment(it):
    """By the keyboard, and not before somebody is sure; then every instance has its own policy back."""
    number = 2
    budgets = lambda: sorted(row["budget_micro"] for row in hvctl("policy", "list"))
    assert budgets() == [3_000_000] * 4 + [9_000_000], budgets()
    button = it.page.get_by_role("button", name=f"Stop experiment {number}", exact=True)
    button.focus()
    it.page.keyboard.press("Enter")
    dialog = it.page.get_by_role("dialog", name=f"Stop experiment {number}?")
    expect(dialog).to_contain_text("“lead” ends for good. 9 instances take part")
    it.shot("experiments-dialog")
    it.page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    assert experiment(number)["end"] == "running", "nobody was sure"
    stop(it, number)
    expect(it.page.get_by_text("Experiment 2 has ended")).to_be_visible()
    assert experiment(number)["end"] == "stopped"
    it.shows("Experiments", lambda: {"Experiment": "lead", "State": "stopped", "Why": "an operator ended it"})
    eventually("policies are as before", lambda: budgets() == [9_000_000])
    ended = lambda: [(row["role"], row["peer"]) for row in hvctl("audit") if row["what"] == f"experiment {number} stopped"]
    eventually("an entry in the audit trail", lambda: ended() == [("operator", "certificate root")])
    it.shot("experiments-stopped")


def perform(it, steps):
    """Each step, and how long it took; where one fails, a picture of it."""
    for step in steps:
        began = time.monotonic()
        try:
            step(it)
        except BaseException:
            it.shot("failed")
            print(f"in {step.__name__}, complaints: {it.complaints}", file=sys.stderr)
            raise
        print(f"{step.__name__}: {time.monotonic() - began:.1f} s", flush=True)
    it.close()


WIDE = {"viewport": {"width": 1280, "height": 800}, "color_scheme": "light", "reduced_motion": "reduce"}


def house(browser):
    """Signed in by a token."""
    a_stranger_is_told(browser)
    it = Browser(browser, **WIDE)
    it.sign_in(os.environ["VENDUE_OPERATOR"])
    kept = it.page.evaluate("[JSON.stringify(localStorage), document.cookie]")
    assert os.environ["VENDUE_OPERATOR"] not in "".join(kept), "the token outlives its tab"
    perform(it, [
        the_figures_are_the_daemons, the_market_is_drawn, names_are_text, a_thousand_are_paged, a_forecast_has_its_bands,
        an_experiment_that_knows_nothing_yet, swaps_are_decided, the_trail_is_searched, the_keyboard_is_enough, dark_and_light,
        it_fits_a_telephone, it_says_when_the_daemon_is_away,
    ])


def laboratory(browser):
    """Signed in by a certificate."""
    who_has_no_certificate_signs_in(browser)
    it = over_https(browser, "root", **WIDE)
    perform(it, [a_certificate_is_enough, an_effect_is_drawn, it_looks_well_anywhere, a_click_ends_an_experiment])


def main():
    """All checks, with one browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=os.environ["VENDUE_CHROMIUM"], args=FLAGS)
        {"house": house, "laboratory": laboratory}[sys.argv[1]](browser)
        browser.close()


main()
