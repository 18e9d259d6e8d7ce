# ruff: noqa: E501 - tables and scripts for the page in long lines
"""A user's day with the browser app, in a real Chromium against a real server and a real Blynk Python client."""

import os
import re
import statistics
import struct
import threading
import time
import uuid

import pytest
from clients import OK
from page import Keys, needs_browser, pages  # noqa: F401 - a fixture
from servers import HOST, ROOT

blynklib = pytest.importorskip("blynklib")
pytestmark = needs_browser


def someone():
    return f"{uuid.uuid4().hex[:12]}@example.com"


class Board:
    """blynklib, the Python client of the Blynk library, running as a program of its own would."""

    def __init__(self, token, port):
        self.got, self.arrived, self.running = [], threading.Event(), True
        self.blynk = blynklib.Blynk(token, server=HOST, port=port, heartbeat=5, log=lambda *_: None)
        self.blynk.handle_event("write V*")(self.written)
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while self.running:
            self.blynk.run()
        self.blynk.disconnect()

    def written(self, pin, values):
        self.got.append((pin, values, time.time()))
        self.arrived.set()

    def next(self):
        assert self.arrived.wait(10), f"nothing reached the board; so far {self.got}"
        self.arrived.clear()
        return self.got[-1]

    def send(self, pin, value):
        self.blynk.virtual_write(pin, value)

    def unplug(self):
        self.running = False
        self.thread.join(5)


def make_project(page, name="Green house"):
    """A project with a button on V1 and a gauge on V2, made by hand; returns the token that the page shows."""
    page.press("New project")
    page.fill("Name", name + Keys.ENTER)
    page.wait(".editor")
    for kind in ("Button", "Gauge"):
        page.wait(f'.box-item[data-type="{kind.upper()}"]').click()
        page.wait("dialog.side")
        page.press("Save")
        page.until(lambda: not page.find("dialog[open]"), "the sheet to close")
    page.press("Done")
    page.see("Your device has not connected yet")
    page.press("Show me")
    token = page.wait("[data-token]").text
    assert re.fullmatch(r"[\w-]{32}", token)
    assert token in page.wait("pre.sketch").text
    return token


def gauge(page):
    return page.find(".gauge-value")[0].text


def day(server, pages, base):  # noqa: F811
    """First account to the unplugged board; returns the latencies (ms) of presses and of values."""
    mine = pages(base)
    email = someone()
    mine.open("")
    mine.press("New here? Make an account")
    mine.fill("E-mail", email)
    mine.fill("Password", "secret")
    mine.press("Make the account")
    mine.see("Welcome!")
    token = make_project(mine)

    board = Board(token, server.http_port)
    mine.until(lambda: "online" in mine.find(".device-summary")[0].text, "the board online")
    project = re.search(r"project/(\d+)/", mine.driver.current_url)[1]
    mine.open(f"project/{project}")
    mine.until(lambda: mine.find(".chip.on"), "the board online in the project")

    # a press reaches the board
    presses = []
    for i in range(11):
        clicked = mine.js("const t = Date.now(); document.querySelector('.push').click(); return t")
        pin, values, at = board.next()
        assert (pin, values) == (1, ["1" if i % 2 == 0 else "0"])
        presses.append(at * 1000 - clicked)

    # its value reaches the gauge
    mine.js("""
      window.seen = []; const el = document.querySelector('.gauge-value');
      new MutationObserver(() => seen.push([el.textContent, Date.now()])).observe(el, { childList: true, subtree: true, characterData: true })""")
    values = []
    for i in range(11):
        sent = time.time() * 1000
        board.send(2, 20 + i)
        text, at = mine.until(lambda: mine.js("return seen.pop()"), f"{20 + i} on the gauge")
        assert text == str(20 + i)
        values.append(at - sent)

    # a second browser sees it too, and what is done in it
    second = pages(base, width=420, height=800)
    second.log_in(email)
    second.open(f"project/{project}")
    second.until(lambda: gauge(second) == "30", "30 on the second gauge")
    assert second.wait(".push").get_attribute("aria-pressed") == "true"
    second.wait(".push").click()
    assert board.next()[1] == ["0"]
    mine.until(lambda: mine.find(".push")[0].get_attribute("aria-pressed") == "false", "the press of the other browser")

    # a guest sees, and controls as long as the owner allows it
    mine.open(f"project/{project}/share")
    mine.press("Share this project")
    link = mine.wait("[data-link]").text
    guest = pages(link.split("#")[0], width=420, height=800)
    guest.driver.get(link)
    guest.until(lambda: gauge(guest) == "30", "the guest's gauge")
    assert not guest.find('[aria-label="Edit"]')
    board.send(2, 44)
    guest.until(lambda: gauge(guest) == "44", "44 on the guest's gauge")
    guest.wait(".push").click()
    assert board.next()[1] == ["1"]
    mine.press("Stop sharing")
    mine.see("Show it to others")
    before = len(board.got)
    guest.wait(".push").click()
    guest.see("The owner does not share this project at the moment.")
    assert len(board.got) == before
    mine.press("Share this project")
    mine.press("New link")
    mine.press("New link")
    guest.see("This link does not work any more")

    # the server is killed and started again: the page recovers and shows the truth
    mine.open(f"project/{project}")
    mine.until(lambda: gauge(mine) == "44", "44")
    time.sleep(1.2)  # what is older than a second survives the kill
    server.kill()
    mine.see("No connection to the server.")
    assert mine.find("body.lost")
    server.start()
    mine.until(lambda: not mine.find("body.lost"), "the connection to come back", 25)
    mine.until(
        lambda: gauge(mine) == "44" and mine.find(".push")[0].get_attribute("aria-pressed") == "true", "what was there"
    )
    mine.until(lambda: mine.find(".chip.on"), "the board to come back", 30)
    board.send(2, 55)
    mine.until(lambda: gauge(mine) == "55", "55 after the restart")

    # the board is unplugged
    board.unplug()
    mine.until(lambda: not mine.find(".chip.on") and "offline" in mine.find(".chip")[0].text, "the board offline")
    assert "away" in mine.widget("GAUGE").get_attribute("class")
    mine.wait(".push").click()
    mine.see("is offline: it will not get this now")
    assert mine.problems() == []
    return presses, values


def say(how, presses, values):
    press, value = statistics.median(presses), statistics.median(values)
    print(f"\n{how}: press to board {press:.0f} ms, value to gauge {value:.0f} ms (medians)")
    assert press < 200 and value < 200


def test_a_day_over_http(make_server, pages):  # noqa: F811
    server = make_server()
    say("http", *day(server, pages, f"http://{HOST}:{server.http_port}/"))


@pytest.mark.slow
def test_a_day_over_https(make_server, pages):  # noqa: F811
    server = make_server()
    say("https", *day(server, pages, f"https://localhost:{server.https_port}/"))


def test_wrong_password_and_unknown_account_are_told_apart(server, pages):  # noqa: F811
    page = pages(f"http://{HOST}:{server.http_port}/")
    email = someone()
    page.open("login")
    page.fill("E-mail", email)
    page.fill("Password", "secret" + Keys.ENTER)
    page.see("There is no account with this e-mail address.")
    page.register(email)
    page.press("Menu")
    page.press("Log out")
    page.wait("input[type=email]")
    page.fill("E-mail", email)
    page.fill("Password", "other" + Keys.ENTER)
    page.see("The password is wrong.")
    page.open("register")
    page.fill("E-mail", email)
    page.fill("Password", "secret" + Keys.ENTER)
    page.see("There is an account with this e-mail address already.")


def test_editing_by_mouse_keys_and_undo(server, pages):  # noqa: F811
    page = pages(f"http://{HOST}:{server.http_port}/")
    page.register(someone())
    make_project(page)
    page.open("project/1/edit")
    button = page.widget("BUTTON")

    def place(kind="BUTTON"):
        return page.run(
            "const { session } = await at('session.js'); const w = session.model.projects.get(1).widgets.find((x) => x.type === args[0]);"
            "return w ? [w.x, w.y, w.width, w.height] : null",
            kind,
        )

    cell = page.js("return document.querySelector('.grid').getBoundingClientRect().width / 8")
    assert place() == [0, 0, 2, 2] and place("GAUGE") == [2, 0, 4, 3]
    page.drag(button, 0, round(3 * cell))
    page.until(lambda: place() == [0, 3, 2, 2], "the button three rows down")
    page.drag(page.widget("BUTTON"), round(2 * cell), -round(3 * cell))  # onto the gauge: it stays where there was room
    assert place() == [0, 3, 2, 2]
    page.keys(Keys.CONTROL, "z")
    page.until(lambda: place() == [0, 0, 2, 2], "the button back")
    page.keys(Keys.CONTROL, "y")
    page.until(lambda: place() == [0, 3, 2, 2], "the button down again")
    page.js("document.querySelector('.widget[data-type=BUTTON]').focus()")
    page.keys(Keys.ARROW_RIGHT)
    page.until(lambda: place() == [1, 3, 2, 2], "one column to the right")
    page.keys(Keys.SHIFT, Keys.ARROW_DOWN)
    page.until(lambda: place() == [1, 3, 2, 3], "one row higher")
    page.keys(Keys.DELETE)
    page.until(lambda: place() is None, "the button gone")
    page.press("Undo")
    page.until(lambda: place() == [1, 3, 2, 3], "the button back from the dead")
    page.widget("GAUGE").click()
    page.fill("Title", "Warmth")
    page.fill("Value format", "/pin.#/ °C")
    page.press("Save")
    page.until(lambda: page.find('.widget[data-type="GAUGE"][aria-label="Warmth"]'), "the new title")
    # all of it is on the server
    page.driver.refresh()
    page.until(lambda: page.find('.widget[data-type="GAUGE"][aria-label="Warmth"]'), "the title after a reload")
    assert place() == [1, 3, 2, 3]
    assert page.problems() == []


def test_projects_are_renamed_duplicated_ordered_and_deleted(server, pages):  # noqa: F811
    page = pages(f"http://{HOST}:{server.http_port}/")
    page.register(someone())
    make_project(page, "First")
    page.open("project/1/settings")
    page.fill("Name", "Renamed")
    page.choose("Look", "Dark")
    page.press("Save")
    page.until(lambda: page.js("return document.documentElement.dataset.theme") == "dark", "the dark look")
    page.open("")

    def names():
        return [el.text for el in page.find(".project-text strong")]

    page.until(lambda: names() == ["Renamed"], "the new name")
    page.press("More")
    page.press("Duplicate")
    page.until(lambda: names() == ["Renamed", "Renamed (copy)"], "the copy")
    page.find(".project-card > .icon-button")[1].click()
    page.press("Move up")
    page.until(lambda: names() == ["Renamed (copy)", "Renamed"], "the other order")
    page.driver.refresh()
    page.until(lambda: names() == ["Renamed (copy)", "Renamed"], "the order after a reload")
    page.press("More")
    page.press("Delete")
    page.press("Delete")
    page.until(lambda: names() == ["Renamed"], "one project left")
    assert page.problems() == []


def test_devices_tags_rules_timers_webhooks_reports(server, pages):  # noqa: F811
    page = pages(f"http://{HOST}:{server.http_port}/")
    email = someone()
    page.register(email)
    make_project(page)
    # a second device, and its token is renewed
    page.open("project/1/devices")
    page.press("New device")
    page.fill("Name", "Node 2")
    page.press("Create")
    old = page.wait("[data-token]").text
    page.press("More")
    page.press("New token")
    page.press("New token")
    page.until(lambda: page.find("[data-token]")[0].text != old, "a new token")
    # a tag
    page.open("project/1/tags")
    page.press("New tag")
    page.fill("Name", "All")
    for name in ("ESP8266", "Node 2"):
        page.field(name).click()
    page.press("Save")
    page.see("ESP8266, Node 2")
    # a rule, in a sentence
    page.open("project/1/rules")
    page.press("New rule")
    page.fill("Value", "30")
    page.fill("Message", "Hot: /pin/")
    page.press("Save")
    page.see("When V1 is higher than 30: notify me: “Hot: /pin/”")
    page.see("Notifications need the Notifications widget in the project.")
    page.press("New timer")
    page.wait("dialog input[type=time]")
    page.js(
        "const el = document.querySelector('dialog input[type=time]'); el.value = '06:30'; el.dispatchEvent(new Event('input'))"
    )
    page.press("Save")
    page.see("at 06:30 set V1 to 1")
    page.press("New webhook")
    page.fill("Address", "http://127.0.0.1:9/x?v=/pin/")
    page.press("Save")
    page.see("GET http://127.0.0.1:9/x?v=/pin/")
    # a report
    page.open("project/1/reports")
    page.press("Set up reports")
    page.press("Choose the pins")
    page.press("Add")
    page.js(
        "const el = document.querySelector('dialog fieldset.pin select'); el.value = 'v'; el.dispatchEvent(new Event('change'))"
    )
    page.press("Save")
    page.see("Pins logged for reports: 1")
    page.press("New report")
    page.press("Save")
    page.see("Every day at 08:00")
    # the server has it all
    profile = page.run(
        "const { session } = await at('session.js'); await session.load(); return session.model.projects.get(1).document"
    )
    assert [tag["name"] for tag in profile["tags"]] == ["All"]
    kinds = {w["type"]: w for w in profile["widgets"]}
    assert kinds["EVENTOR"]["rules"][0]["condition"] == {"type": "GT", "value": 30}
    assert kinds["TIMER"]["startValue"] == "1" and kinds["TIMER"]["startTime"] >= 0
    assert kinds["REPORT"]["reports"][0]["reportType"]["type"] == "DAILY"
    assert page.problems() == []


def test_a_chart_in_full_screen_its_periods_and_its_csv(make_server, pages, tmp_path):  # noqa: F811
    server = make_server(data=os.path.join(ROOT, "tests", "fixtures", "java-data"))
    page = pages(f"http://{HOST}:{server.http_port}/")
    page.log_in("anna@example.com", "anna-secret")
    page.driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    page.open("project/1/chart/400")
    page.wait(".plot")
    periods = [el.text for el in page.find(".periods button")]
    assert "Live" in periods and len(periods) > 2

    def shown():
        return page.js("return document.querySelector('.chart-range').textContent")

    page.until(lambda: page.find(".plot canvas") and shown(), "the curves")
    first = shown()
    page.press("Older")
    page.until(lambda: shown() != first, "the page before")
    page.press("Newer")
    page.until(lambda: shown() == first, "the newest page again")
    page.press("CSV of what is shown")
    page.until(lambda: [name for name in os.listdir(tmp_path) if name.endswith(".csv")], "the file")
    (name,) = [name for name in os.listdir(tmp_path) if name.endswith(".csv")]
    lines = (tmp_path / name).read_text().splitlines()
    assert lines[0].startswith("time,T,H") and len(lines) > 10
    assert re.match(r"20\d\d-\d\d-\d\dT[\d:.]+Z,[-\d.]*,", lines[1])
    page.press("More")
    page.press("All minutes of T (.csv.gz)")
    page.until(lambda: [name for name in os.listdir(tmp_path) if name.endswith(".gz")], "every minute, from the server")
    # LIVE: what comes in is drawn at once, also when nothing else of the project was opened
    page.driver.refresh()
    page.press("Live")
    hw = server.hardware("3eR4e86e58jZFLnOV6CiywmWxIeifaaL")
    for value in ("21", "22", "23"):
        hw.send("vw", "5", value)
    page.until(lambda: page.find(".plot canvas"), "the live curve")
    hw.close()
    assert page.problems() == []


def test_a_report_is_sent_at_once_and_its_file_can_be_downloaded(make_server, mailbox, pages, tmp_path):  # noqa: F811
    server = make_server(**mailbox.settings)
    page = pages(f"http://{HOST}:{server.http_port}/")
    page.driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    email = someone()
    page.register(email)
    make_project(page)
    page.run("""
      const s = await at('session.js'), { newWidget } = await at('widgets.js'); const p = s.session.model.projects.get(1);
      const source = { type: 'DEVICE', deviceIds: [0], reportDataStreams: [{ pin: 2, pinType: 'VIRTUAL', label: 'Temp', isSelected: true }] };
      await s.createWidget(p, { ...newWidget('REPORT', 9, { x: 0, y: 8, width: 4, height: 1 }), reportSources: [source] }, null);""")
    minute = int(time.time()) // 60 * 60_000
    folder = os.path.join(server.data, "data", email)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "history_1-0_v2_minute.bin"), "wb") as f:
        for back in range(9, 1, -1):
            f.write(struct.pack(">dq", 21.5, minute - back * 60_000))
    page.open("project/1/reports")
    page.press("New report")
    page.fill("Name", "Daily warmth")
    page.choose("One line per", "minute")
    page.press("Save")
    page.see("Every day at 08:00")
    page.press("Send now")
    page.until(lambda: page.find(".list-item .icon-button[download]"), "the file", 30)
    page.press("Download")
    page.until(lambda: [name for name in os.listdir(tmp_path) if name.endswith(".zip")], "the zip file")
    while "Daily warmth" not in mailbox.next_to(email)["subject"]:
        pass  # the greeting


def test_editing_with_a_finger(server, pages):  # noqa: F811
    page = pages(f"http://{HOST}:{server.http_port}/", width=390, height=800, phone=True)
    page.register(someone())
    make_project_by_script(page)
    page.open("project/1/edit")
    page.widget("GAUGE")
    box = page.js(
        "const r = document.querySelector('.widget[data-type=GAUGE]').getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2, r.width / 4]"
    )

    def touch(kind, *points):
        points = [{"x": x, "y": y} for x, y in points]
        page.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    def row():
        return page.run("const s = await at('session.js'); return s.session.model.projects.get(1).first('GAUGE').y")

    x, y, cell = box
    touch("touchStart", (x, y))  # a swipe scrolls
    touch("touchMove", (x, y - 40))
    touch("touchEnd")
    assert row() == 0 and not page.find("dialog")
    touch("touchStart", (x, y))  # a finger that rests drags
    page.wait(".widget.dragged")
    for step in range(1, 9):
        touch("touchMove", (x, y + step * cell / 2))
    touch("touchEnd")
    page.until(lambda: row() == 4, "the gauge four rows down")
    touch("touchStart", (x, y + 4 * cell))  # a tap opens the settings
    touch("touchEnd")
    page.wait("dialog.side")


def make_project_by_script(page):
    page.run("""
      const s = await at('session.js'), { newWidget } = await at('widgets.js');
      const p = await s.createProject({ name: 'Touch', theme: 'Blynk', board: 'ESP8266', connection: 'WI_FI' });
      await s.createWidget(p, Object.assign(newWidget('GAUGE', 1, { x: 0, y: 0, width: 4, height: 3 }), { pin: 2, pinType: 'VIRTUAL' }), null);""")


def test_a_forgotten_password_is_reset_by_mail(make_server, mailbox, pages):  # noqa: F811
    server = make_server(**mailbox.settings)
    page = pages(f"http://{HOST}:{server.http_port}/")
    email = someone()
    page.register(email)
    page.press("Menu")
    page.press("Log out")
    page.wait("input[type=password]")
    page.open("reset")
    page.fill("E-mail", email)
    page.press("Send the mail")
    page.see("A mail with a link is on its way.")
    mail = mailbox.next_to(email)
    while not (token := re.search(r"token=3?D?([\w-]{32,64})", mail.as_string().replace("=\n", ""))):
        mail = mailbox.next_to(email)
    page.fill("Token", f"http://host/restore?token={token[1]}&email=x")
    page.fill("New password", "another" + Keys.ENTER)
    page.see("Welcome!")
    page.press("Menu")
    page.press("Log out")
    page.wait("input[type=password]")
    page.log_in(email, "another")


def test_the_installed_app_opens_without_the_server_and_says_so(make_server, pages):  # noqa: F811
    server = make_server()
    page = pages(f"http://{HOST}:{server.http_port}/")
    page.register(someone())
    page.run(
        "await navigator.serviceWorker.ready; if (!navigator.serviceWorker.controller) await new Promise((r) => navigator.serviceWorker.addEventListener('controllerchange', r))"
    )
    page.driver.refresh()  # what is loaded now is kept
    page.see("Welcome!")
    manifest = page.run("return (await fetch(document.querySelector('link[rel=manifest]').href)).json()")
    assert manifest["display"] == "standalone"
    server.kill()
    page.driver.refresh()
    page.see("No connection to the server.")
    server.start()
    page.see("Welcome!")


def test_first_paint_is_under_a_second(server, pages):  # noqa: F811
    page = pages(f"http://{HOST}:{server.http_port}/")
    page.open("login")
    page.wait("form")
    paint = page.js("return performance.getEntriesByName('first-contentful-paint')[0].startTime")
    form = page.js("return performance.now()")
    print(f"\nfirst contentful paint {paint:.0f} ms; the form is there after {form:.0f} ms at most")
    assert paint < 1000


def test_sixty_widgets_with_fifty_updates_a_second_do_not_stutter(server, pages):  # noqa: F811
    page = pages(f"http://{HOST}:{server.http_port}/")
    page.register(someone())
    page.run("""
      const s = await at('session.js'), w = await at('widgets.js');
      const p = await s.createProject({ name: 'Many', theme: 'Blynk', board: 'ESP8266', connection: 'WI_FI' });
      const kinds = ['GAUGE', 'LEVEL_DISPLAY', 'DIGIT4_DISPLAY', 'SLIDER', 'LED', 'LABELED_VALUE_DISPLAY'];
      for (let i = 0; i < 60; i++) {
        const doc = w.newWidget(kinds[i % 6], i + 1, { x: (i % 4) * 2, y: Math.floor(i / 4) * 2, width: 2, height: 2 });
        await s.createWidget(p, Object.assign(doc, { pin: i + 1, pinType: 'VIRTUAL' }), null);
      }""")
    token = page.run("const s = await at('session.js'); return s.session.model.projects.get(1).devices[0].token")
    page.open("project/1")
    page.until(lambda: len(page.find(".widget")) == 60, "60 widgets")
    page.js("""
      window.frames60 = []; let last = performance.now();
      const look = (now) => { frames60.push(now - last); last = now; window.looking !== false && requestAnimationFrame(look); };
      requestAnimationFrame(look)""")
    hw = server.hardware(token)
    begin = time.monotonic()
    for i in range(100):
        hw.send("vw", str(i % 60 + 1), str(i))
        pause = begin + (i + 1) / 50 - time.monotonic()
        time.sleep(max(0, pause))
    page.painted()
    frames = page.js("window.looking = false; return frames60.slice(2)")
    hw.close()
    longest = sorted(frames)[int(len(frames) * 0.99)]
    print(f"\n{len(frames)} frames in 2 s, median {statistics.median(frames):.1f} ms, p99 {longest:.1f} ms")
    assert statistics.median(frames) < 34 and longest < 150
    assert page.problems() == []


AXE = os.environ.get("BLYNK_AXE") or os.path.join(
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
    ".venv",
    "node",
    "node_modules",
    "axe-core",
    "axe.min.js",
)


@pytest.mark.skipif(not os.path.exists(AXE), reason="needs axe-core")
def test_axe_finds_nothing_serious(server, pages):  # noqa: F811
    page = pages(f"http://{HOST}:{server.http_port}/")
    with open(AXE, encoding="utf-8") as f:
        axe = f.read()

    def check(what):
        page.js(axe)
        found = page.driver.execute_async_script(
            "const done = arguments[0]; axe.run(document, { resultTypes: ['violations'] }).then((r) => done(r.violations"
            ".filter((v) => ['serious', 'critical'].includes(v.impact)).map((v) => [v.id, v.nodes.slice(0, 3).map((n) => n.html.slice(0, 160) + ' ' + n.failureSummary.slice(0, 300))])))"
        )
        assert found == [], f"{what}: {found}"

    page.open("login")
    page.wait("form")
    check("login")
    page.register(someone())
    check("no projects")
    make_project(page)
    check("device")
    for path in (
        "", "project/1", "project/1/edit", "project/1/devices", "project/1/tags", "project/1/share", "project/1/rules",
        "project/1/reports", "project/1/settings", "account", "notifications", "certificate",
    ):  # fmt: skip
        page.open(path)
        page.until(lambda: page.js("return document.querySelector('main').children.length") > 0, path)
        time.sleep(0.2)
        check(path)
    page.open("project/1/edit")
    page.widget("GAUGE").click()
    page.wait("dialog")
    check("settings sheet")


def test_the_page_speaks_the_users_language(server, pages):  # noqa: F811
    page = pages(f"http://{HOST}:{server.http_port}/", language="de-DE")
    page.open("login")
    page.see("Anmelden")
    page.press("Español")
    page.see("Contraseña")


def test_board_notifications_appear_in_the_page(server, pages):  # noqa: F811
    page = pages(f"http://{HOST}:{server.http_port}/")
    page.register(someone())
    token = make_project(page)
    page.open("project/1/edit")
    page.wait('.box-item[data-type="NOTIFICATION"]').click()
    page.press("Save")
    page.until(lambda: not page.find("dialog[open]"), "the sheet to close")
    page.open("project/1")
    page.widget("NOTIFICATION")
    hw = server.hardware(token)
    assert hw.ask("PUSH_NOTIFICATION", "The <b>door</b> is open") == OK
    page.see("The <b>door</b> is open")
    hw.close()
    page.open("notifications")
    page.see("Received in this page")
    page.see("Sent by the server")
    assert page.find(".list-item")[0].text.startswith("The <b>door</b> is open")
    assert page.problems() == []
