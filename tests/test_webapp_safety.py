# ruff: noqa: E501 - tables and scripts for the page in long lines
"""The browser app and what it must not do: run a stranger's text, or lose a part of a project it does not know."""

import json
import os
import uuid

import pytest
from page import Keys, needs_browser, pages  # noqa: F401 - a fixture
from servers import HOST, ROOT

pytestmark = needs_browser

NASTY = [
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    '"><svg onload=alert(1)>',
    "javascript:alert(1)",
    "'-alert(1)-'",
    "&lt;b&gt; {{7*7}} ${alert(1)}",
    "</textarea><iframe srcdoc='<script>parent.alert(1)</script>'>",
    "data:text/html,<script>alert(1)</script>",
]
BAD_URLS = ["javascript:alert(1)", " java\tscript:alert(1)", "JAVASCRIPT:alert(1)", "data:text/html,<script>alert(1)</script>", "vbscript:x", "data:image/svg+xml,<svg onload=alert(1)>"]  # fmt: skip


@pytest.fixture
def page(server, pages):  # noqa: F811
    found = pages(f"http://{HOST}:{server.http_port}/")
    found.email = f"{uuid.uuid4().hex[:12]}@example.com"
    found.register(found.email)
    return found


def looks_clean(page, where):
    """Nothing ran, and nothing but the page's own elements is there."""
    hurt = page.js("""
      const bad = [...document.querySelectorAll('script, iframe, object, embed, [onerror], [onload]')].filter((el) => !/static\\/(app\\.js|vendor\\/uPlot\\.iife\\.min\\.js)$/.test(el.src || ''));
      const links = [...document.querySelectorAll('[href], [src]')].map((el) => el.getAttribute('href') || el.getAttribute('src') || '').filter((u) => /^\\s*(java|vb|data:text|data:image\\/svg)/i.test(u));
      return [window.hurt || 0, bad.map((el) => el.outerHTML.slice(0, 200)), links]""")
    assert hurt == [0, [], []], f"{where}: {hurt}"


def test_markup_and_script_addresses_stay_text(page, server):
    page.driver.execute_cdp_cmd(
        "Page.addScriptToEvaluateOnNewDocument", {"source": "window.hurt = 0; window.alert = () => { window.hurt++; };"}
    )
    page.driver.refresh()
    token = page.run(
        """
      const s = await at('session.js'), { WIDGETS, newWidget } = await at('widgets.js'), { arrange, firstFree } = await at('layout.js'), { streamsOf } = await at('model.js');
      const [nasty, urls] = args;
      await s.addEnergy(1000000);
      const p = await s.createProject({ name: nasty[0], theme: 'Blynk', board: 'ESP8266', connection: 'WI_FI' });
      await s.updateDevice(p, p.devices[0], { name: nasty[2] });
      await s.createDevice(p, { name: nasty[0], boardType: 'ESP8266', vendor: nasty[1] });
      await s.saveTag(p, { name: nasty[1], deviceIds: [0, 1] });
      let n = 0;
      const taken = [];
      for (const type of Object.keys(WIDGETS)) {
        if (type === 'TABS') continue;
        const place = firstFree(WIDGETS[type].size[0], WIDGETS[type].size[1], taken);
        taken.push(place);
        const w = newWidget(type, s.widgetId(p, type), place);
        streamsOf(w).forEach((stream) => Object.assign(stream, { pin: 1, pinType: 'VIRTUAL' }));
        const text = nasty[n++ % nasty.length];
        Object.assign(w, { label: text, hint: text, suffix: text, valueFormatting: '/pin/' + text, onLabel: text, offLabel: text, text, to: text, username: text, tzName: 'UTC' });
        for (const key of ['onButtonState', 'offButtonState']) if (w[key]) w[key].text = text;
        if (w.labels) w.labels = nasty;
        if ('url' in w) w.url = urls[n % urls.length];
        if (w.urls) w.urls = urls;
        if (Array.isArray(w.columns)) w.columns = [{ name: text }, { name: text }];
        if (type === 'ENHANCED_GRAPH') w.dataStreams = [{ title: text, graphType: 'LINE', targetId: 0, color: 0, suffix: text, pin: { pin: 1, pinType: 'VIRTUAL' } }];
        if (type === 'DEVICE_SELECTOR') w.deviceIds = [0, 1];
        if (type === 'EVENTOR') w.rules = [{ isActive: true, triggerPin: { pin: 1, pinType: 'VIRTUAL' }, condition: { type: 'STR_EQUAL', value: text }, actions: [{ type: 'NOTIFY', message: text }, { type: 'MAIL', subject: text, message: text }] }];
        await s.createWidget(p, w, null).catch((e) => { throw new Error(type + e + JSON.stringify(w)); });
        if (type === 'DEVICE_TILES') await s.saveTemplate(p, w, { mode: 'PAGE', id: 1, name: text, deviceIds: [0, 1], valueName: text, valueSuffix: text, pin: { pin: 3, pinType: 'VIRTUAL', min: 0, max: 1 }, widgets: [] }, true);
      }
      return p.devices[0].token""",
        NASTY,
        BAD_URLS,
    )
    page.open("project/1")
    page.widget("BUTTON")
    hw = server.hardware(token)
    for text in NASTY:
        hw.send("vw", "1", text)
        hw.send("vw", "1", "add", "1", text, text)
        hw.send("vw", "1", "1", "48", "11", text)
        hw.send("vw", "3", text)
        for name in ("label", "onLabel", "offLabel", "valueFormatting", "suffix", "url"):
            hw.command("SET_WIDGET_PROPERTY", "1", name, text)
        hw.command("SET_WIDGET_PROPERTY", "1", "labels", text, text)
        hw.command("PUSH_NOTIFICATION", text)
    for url in BAD_URLS:
        hw.command("SET_WIDGET_PROPERTY", "1", "url", url)
        hw.command("SET_WIDGET_PROPERTY", "1", "urls", url, url)
        for index in range(1, 7):
            hw.send("vw", "1", str(index))
    hw.send("vw", "1", NASTY[0])
    page.see(NASTY[0])
    page.painted()
    looks_clean(page, "project")
    assert page.js(
        "return [...document.querySelectorAll('a[target=_blank]')].every((a) => !a.hasAttribute('href') || /^http/.test(a.href))"
    )
    for path in (
        "", "project/1/edit", "project/1/devices", "project/1/device/0", "project/1/tags", "project/1/rules", "project/1/reports", "project/1/settings",
        "notifications", "project/1/share",
    ):  # fmt: skip
        page.open(path)
        page.until(lambda: page.js("return document.querySelector('main').textContent.length") > 3, path)
        page.painted()
        looks_clean(page, path)
    chart = page.run(
        "const s = await at('session.js'); return s.session.model.projects.get(1).first('ENHANCED_GRAPH').id"
    )
    page.open(f"project/1/chart/{chart}")
    page.wait(".plot")
    page.painted()
    looks_clean(page, "chart")
    hw.close()


def test_only_safe_addresses_become_links(page):
    answers = page.run(
        """
      const { safeUrl } = await at('dom.js');
      return args[0].map((u) => ['link', 'media', 'image'].map((kind) => safeUrl(u, kind)))""",
        [
            *BAD_URLS,
            "http://a/b",
            "https://a/",
            "data:image/png;base64,AA",
            "//host/x",
            "",
            "rtsp://cam/1",
            "pics/a.png",
        ],
    )
    assert all(answer == ["", "", ""] for answer in answers[: len(BAD_URLS)])
    rest = answers[len(BAD_URLS) :]
    assert rest[0] == ["http://a/b"] * 3 and rest[1] == ["https://a/"] * 3
    assert rest[2] == ["", "", "data:image/png;base64,AA"]
    assert rest[3][0] == "http://host/x" and rest[4] == ["", "", ""] and rest[5] == ["", "rtsp://cam/1", ""]
    assert rest[6][2].endswith("/pics/a.png")


def test_the_policy_forbids_foreign_script(page):
    outcome = page.run("""
      const s = document.createElement('script'); s.textContent = 'window.inline = 1'; document.head.append(s);
      const violated = new Promise((resolve) => document.addEventListener('securitypolicyviolation', (e) => resolve(e.effectiveDirective), { once: true }));
      await fetch('http://127.0.0.1:1/').catch(() => {});
      return [window.inline || 0, await violated]""")
    assert outcome[0] == 0 and outcome[1] in ("connect-src", "script-src-elem")
    page.problems()


def without_values(document):
    """A project as it is made: values and what the server adds left out."""
    drop = (
        "value",
        "updatedAt",
        "createdAt",
        "token",
        "status",
        "isActive",
        "tiles",
        "nextReportAt",
        "lastReportAt",
        "sharedToken",
        "isShared",
    )
    if isinstance(document, dict):
        return {
            key: without_values(value)
            for key, value in document.items()
            if key not in drop and value not in ([], {}, "")
        }
    return [without_values(x) for x in document] if isinstance(document, list) else document


def test_recorded_projects_open_without_loss(make_server, pages):  # noqa: F811
    """Anna's profile, as the Java server left it: every widget is drawn, and opening and saving loses nothing."""
    server = make_server(data=os.path.join(ROOT, "tests", "fixtures", "java-data"))
    page = pages(f"http://{HOST}:{server.http_port}/")
    page.log_in("anna@example.com", "anna-secret")
    before = page.run("const s = await at('session.js'); return JSON.parse((await s.session.link.request(24)).text)")
    for project in before["dashBoards"]:
        page.open(f"project/{project['id']}")
        wanted = [w for w in project["widgets"] if (w.get("tabId") or 0) <= 0]
        page.until(lambda: len(page.find(".widget")) == len(wanted), f"{len(wanted)} widgets of {project['name']}")  # noqa: B023
        assert not [el.text for el in page.find(".unknown")]
        # the settings sheet of each widget is opened and saved unchanged
        page.open(f"project/{project['id']}/edit")
        page.wait(".editor")
        page.run(
            """
          const s = await at('session.js'), { openSheet } = await at('sheet.js');
          const p = s.session.model.projects.get(args[0]);
          for (const widget of p.widgets) {
            const done = openSheet({ project: p, widget, place: null, save: (next) => s.updateWidget(p, widget, next), remove() {}, duplicate() {} });
            document.querySelector('dialog[open] form').requestSubmit();
            await done;
          }
          await s.session.link.request(6)""",
            project["id"],
        )
    after = page.run("const s = await at('session.js'); return JSON.parse((await s.session.link.request(24)).text)")
    for old, new in zip(before["dashBoards"], after["dashBoards"]):
        for one, other in zip(old["widgets"], new["widgets"]):
            assert without_values(tidy(other)) == without_values(tidy(one)), one["type"]


def tidy(widget):
    """A sheet may fill in what was not there: empty states, the second pin, a range of one's own for a colour not set."""
    copy = json.loads(json.dumps(widget))
    if not copy.get("color"):
        copy.pop("isDefaultColor", None)
    return copy


def test_a_project_made_here_is_what_the_phone_app_would_make(page, server):
    page.open("")
    page.press("New project")
    page.fill("Name", "Made here" + Keys.ENTER)
    page.wait(".editor")
    for kind in ("SLIDER", "RGB", "TERMINAL", "DEVICE_SELECTOR", "ENHANCED_GRAPH"):
        page.wait(f'.box-item[data-type="{kind}"]').click()
        page.press("Save")
        page.until(lambda: not page.find("dialog[open]"), "the sheet to close")
    app = server.app(page.email, "secret")
    made = app.project(1)
    assert made["name"] == "Made here" and made["isActive"] and len(made["devices"][0]["token"]) == 32
    assert [w["type"] for w in made["widgets"]] == ["SLIDER", "RGB", "TERMINAL", "DEVICE_SELECTOR", "ENHANCED_GRAPH"]
    assert made["widgets"][3]["id"] == 200000 and made["widgets"][3]["deviceIds"] == [0]
    # the same document, made again by the phone app's CREATE_DASH, comes back the same
    again = {**made, "id": 2}
    assert app.ask("CREATE_DASH", again) == 200
    copy = app.project(2)
    assert without_values({**copy, "id": 1}) == without_values(made)
    app.close()
