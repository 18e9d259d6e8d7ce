"""The browser app in a real Chromium, as a user sees it: by labels, buttons and what is written.

    page = Page(f"http://127.0.0.1:{server.http_port}/")
    page.open("register")
    page.fill("E-mail", "me@example.com")
    page.press("Make the account")
    page.see("Welcome!")

Every wait is for something to be there and ends at a deadline. The tests skip where Chromium, its driver or selenium
are missing.
"""

import atexit
import os
import shutil
import tempfile
import time
from urllib.parse import urlsplit

import pytest

webdriver = pytest.importorskip("selenium.webdriver")
from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
PATIENCE = float(os.environ.get("BLYNK_TEST_TIMEOUT", "10"))
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync --hide-scrollbars --disable-dev-shm-usage --mute-audio"
    " --ignore-certificate-errors --disable-features=Translate"
)
HARMLESS = ("favicon", "ERR_CONNECTION_REFUSED", "WebSocket connection to", "ERR_CERT", "SSL certificate error")

needs_browser = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver")


class Pages:
    """Browsers for the tests of this process: one that is given back is emptied and used again, as starting one takes a
    second."""

    def __init__(self):
        self.free, self.all = {}, []
        atexit.register(self.close)

    def take(self, base, **how):
        key = tuple(sorted(how.items()))
        page = self.free.get(key, []).pop() if self.free.get(key) else None
        if page is None:
            page = Page(base, **how)
            self.all.append(page)
            page.key = key
        page.base = base
        page.bases.add(base)
        return page

    def give_back(self, page):
        try:
            page.driver.get("about:blank")
            for base in page.bases:
                where = "{0.scheme}://{0.netloc}".format(urlsplit(base))
                page.driver.execute_cdp_cmd("Storage.clearDataForOrigin", {"origin": where, "storageTypes": "all"})
            page.bases.clear()
            page.problems()
            self.free.setdefault(page.key, []).append(page)
        except WebDriverException:
            self.all.remove(page)
            page.close()

    def close(self):
        while self.all:
            self.all.pop().close()


POOL = Pages()


@pytest.fixture
def pages():
    """pages(base, width=…, height=…, language=…, phone=…) -> a Page that nobody has used, until the end of the test."""
    taken = []

    def take(base, **how):
        taken.append(POOL.take(base, **how))
        return taken[-1]

    yield take
    for page in taken:
        POOL.give_back(page)


class Page:
    """One browser with one window and a profile of its own. base: the address of the page, with the slash."""

    def __init__(self, base, width=1280, height=900, language="en-US", phone=False):
        self.base, self.bases = base, set()
        self.profile = tempfile.mkdtemp(prefix="bp-chromium-")
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in (
            *FLAGS.split(),
            f"--user-data-dir={self.profile}",
            f"--window-size={width},{height}",
            f"--lang={language}",
        ):
            options.add_argument(flag)
        options.add_experimental_option("prefs", {"intl.accept_languages": language})
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        if phone:
            metrics = {"width": width, "height": height, "pixelRatio": 1, "touch": True}
            options.add_experimental_option("mobileEmulation", {"deviceMetrics": metrics})
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
        self.driver.set_script_timeout(20)
        if not phone:
            self.driver.set_window_size(width, height)

    def close(self):
        self.driver.quit()
        shutil.rmtree(self.profile, ignore_errors=True)

    def open(self, path=""):
        self.driver.get(f"{self.base}#/{path}")
        return self

    # looking

    def find(self, css):
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def until(self, look, what="", patience=PATIENCE):
        """The first true answer of look(); an element that has gone meanwhile is looked for again."""
        end = time.monotonic() + patience
        while True:
            try:
                found = look()
                if found:
                    return found
            except (StaleElementReferenceException, IndexError):
                pass
            if time.monotonic() > end:
                raise AssertionError(f"not on the page: {what or look}\n{self.text()[:1500]}\n{self.problems()}")
            time.sleep(0.01)

    def wait(self, css):
        """The first element of the selector, as soon as it is there and shown."""
        return self.until(lambda: next((el for el in self.find(css) if el.is_displayed()), None), css)

    def see(self, text):
        return self.until(lambda: text in self.text(), f"“{text}”")

    def text(self):
        try:
            return self.driver.execute_script("return document.body ? document.body.innerText : ''")
        except WebDriverException:
            return ""

    def js(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def run(self, script, *arguments):
        """The result of an async function body; `import()` paths are those of the page's modules: at("session.js")."""
        answer = self.driver.execute_async_script(
            "const done = arguments[arguments.length - 1], args = arguments;"
            "const at = (name) => import(new URL('static/' + name, location.origin + '/').href);"
            f"(async () => {{ {script} }})().then((x) => done([x]), (e) => done(String(e.stack || e)));",
            *arguments,
        )
        assert isinstance(answer, list), answer
        return answer[0]

    # doing

    def named(self, name, tags="button, a, [role=menuitem], summary"):
        """The element that is called so: by its text, its aria-label or its title. Those in an open dialog come first."""

        def look():
            script = """
              const [name, tags] = arguments;
              const open = [...document.querySelectorAll('dialog[open]')].pop();
              for (const root of [open, document].filter(Boolean)) for (const el of root.querySelectorAll(tags)) {
                const call = [el.getAttribute('aria-label'), el.innerText, el.title].map((x) => (x || '').trim());
                if (call.includes(name) && el.getClientRects().length) return el;
              }"""
            return self.js(script, name, tags)

        return self.until(look, f"something called “{name}”")

    def press(self, name):
        self.until(lambda: self._click(self.named(name)), f"“{name}”, to be pressed")

    @staticmethod
    def _click(element):
        try:
            element.click()
            return True
        except StaleElementReferenceException:
            raise
        except WebDriverException:
            return False

    def field(self, label):
        """The input that has this label."""

        def look():
            script = """
              const open = [...document.querySelectorAll('dialog[open]')].pop() || document;
              for (const el of open.querySelectorAll('label, legend')) {
                if (el.textContent.trim() !== arguments[0]) continue;
                return el.control || el.parentNode.querySelector('input, select, textarea');
              }"""
            return self.js(script, label)

        return self.until(look, f"a field “{label}”")

    def fill(self, label, value):
        element = self.field(label)
        element.clear()
        element.send_keys(value)

    def choose(self, label, text):
        from selenium.webdriver.support.ui import Select

        Select(self.field(label)).select_by_visible_text(text)

    def drag(self, element, dx, dy):
        actions = ActionChains(self.driver, duration=20)
        actions.click_and_hold(element).move_by_offset(dx // 2, dy // 2).move_by_offset(dx - dx // 2, dy - dy // 2)
        actions.release().perform()

    def keys(self, *keys):
        """Keys pressed together: keys(Keys.CONTROL, "z")."""
        actions = ActionChains(self.driver)
        for key in keys:
            actions.key_down(key)
        for key in reversed(keys):
            actions.key_up(key)
        actions.perform()

    # the app

    def register(self, email, password="secret"):
        self.open("register")
        self.fill("E-mail", email)
        self.fill("Password", password)
        self.press("Make the account")
        self.see("Welcome!")

    def log_in(self, email, password="secret"):
        self.open("login")
        self.fill("E-mail", email)
        self.fill("Password", password + Keys.ENTER)
        self.wait(".project-list")

    def widget(self, kind):
        return self.wait(f'.widget[data-type="{kind}"]')

    def problems(self):
        """What the browser's console complained about since the last look."""
        return [
            entry["message"]
            for entry in self.driver.get_log("browser")
            if entry["level"] == "SEVERE" and not any(word in entry["message"] for word in HARMLESS)
        ]

    def painted(self):
        """After the next two frames: what came in is drawn."""
        self.driver.execute_async_script(
            "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()))"
        )
