# ruff: noqa: E501 - tables and scripts for the page in long lines
"""The browser app's modules that need no browser, in Node against a real server; and what the folder web/ promises."""

import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess

import pytest
from clients import until
from servers import HOST, ROOT

WEB = os.path.join(ROOT, "web")
NODE = shutil.which("node")
BUDGET = 150_000  # bytes of the app, each file gzipped as it travels
NOT_THE_APP = ("admin", "reset")  # pages of their own
SAME = set("X|Y|GET|POST|PUT|DELETE|HTML|SMS|LED|LCD|Pin|Token|Firmware|Webhook|Webhooks|Bluetooth LE".split("|"))


def files():
    for folder, folders, names in os.walk(WEB):
        folders[:] = [name for name in folders if not (folder == WEB and name in NOT_THE_APP)]
        for name in sorted(names):
            yield os.path.relpath(os.path.join(folder, name), WEB)


def read(name):
    with open(os.path.join(WEB, name), encoding="utf-8") as f:
        return f.read()


def modules():
    return [name for name in files() if name.endswith(".js") and not name.startswith("vendor")]


@pytest.fixture
def web(tmp_path):
    """The modules where any Node takes them for modules."""
    copy = tmp_path / "web"
    shutil.copytree(WEB, copy)
    (copy / "package.json").write_text('{"type": "module"}')
    return str(copy)


def node(web, *arguments, **environment):
    return subprocess.run(
        [NODE, *arguments],
        env={**os.environ, "BLYNK_WEB": web, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.skipif(not NODE, reason="needs node")
def test_the_protocol_module_in_node(server, web):
    flag = "--experimental-websocket"
    able = node(web, flag, "-e", "process.exit(typeof WebSocket === 'function' ? 0 : 1)").returncode == 0
    url = {"BLYNK_URL": f"ws://{HOST}:{server.http_port}/dashws"} if able else {}
    test = os.path.join(ROOT, "tests", "web", "protocol.test.mjs")
    done = node(web, *([flag] if able else []), "--test", "--test-reporter=tap", test, **url)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]


def test_the_whole_app_is_at_most_150_kb_gzipped():
    sizes = {}
    for name in files():
        with open(os.path.join(WEB, name), "rb") as f:
            sizes[name] = len(gzip.compress(f.read(), 9))
    total = sum(sizes.values())
    print(
        f"\n{total} bytes gzipped in {len(sizes)} files; the biggest: {sorted(sizes.items(), key=lambda x: -x[1])[:5]}"
    )
    assert total <= BUDGET


def test_nothing_comes_from_elsewhere_and_nothing_is_inline():
    page = read("index.html")
    assert "http:" not in page and "https:" not in page
    assert not re.search(r"\son\w+=|\sstyle=|<style|<script(?![^>]*\ssrc=)", page)
    for name in modules():
        text = read(name)
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), (
            name
        )
        assert not re.search(r"""(?:from|import\()\s*["'](?:https?:)?//""", text), name


@pytest.mark.skipif(not NODE, reason="needs node")
def test_every_text_is_there_in_every_language(web):
    script = """
      const at = (name) => import(process.env.BLYNK_WEB + '/' + name);
      const { WIDGETS, GROUPS } = await at('widgets.js'), { TEXTS } = await at('texts.js');
      const used = new Set(GROUPS);
      for (const w of Object.values(WIDGETS)) {
        used.add(w.name);
        for (const f of w.fields) for (const x of [f.label, f.help, f.apart, ...(f.labels || []), ...(f.options || []).map((o) => o[1])]) if (x) used.add(x);
      }
      console.log(JSON.stringify([[...used], TEXTS]))"""
    done = node(web, "--input-type=module", "-e", script)
    assert done.returncode == 0, done.stderr
    used, texts = json.loads(done.stdout)
    used = set(used)
    for name in modules():
        used |= set(re.findall(r'\bt\(\s*"((?:[^"\\]|\\.)*)"', read(name)))
    reasons = re.search(r"const REASONS = \{(.*?)\};", read("session.js"), re.DOTALL)[1]
    used |= set(re.findall(r': "((?:[^"\\]|\\.)*)"', reasons))
    used = {text for text in used if not re.fullmatch(r"[\d.]+ (s|min|h)", text)}
    assert sorted(used - set(texts) - SAME) == [], "without translation"
    assert sorted(set(texts) - used) == [], "translated, but not used"
    for english, translations in texts.items():
        assert len(translations) == 2 and all(translations), english
        for other in translations:
            assert sorted(re.findall(r"\{\d\}", english)) == sorted(re.findall(r"\{\d\}", other)), english
            assert re.findall(r"/pin\S*?/", english) == re.findall(r"/pin\S*?/", other), english


def test_vendored_files_are_what_their_readme_says():
    text = read("vendor/README")
    names = {name.split("/", 1)[1] for name in files() if name.startswith("vendor/")} - {"README"}
    for name in names:
        with open(os.path.join(WEB, "vendor", name), "rb") as f:
            digest = hashlib.sha256(f.read()).hexdigest()
        assert f"{digest}  {name}" in text, f"{name}: {digest}"
    for word in ("uPlot 1.6.16", "MIT"):
        assert word in text


def test_the_manifest_and_its_icons():
    manifest = json.loads(read("manifest.webmanifest"))
    assert manifest["display"] == "standalone" and manifest["name"]
    for icon in manifest["icons"]:
        assert os.path.exists(os.path.join(WEB, icon["src"]))


def test_the_app_travels_compressed_and_is_asked_for_again(server):
    """Each file is compressed once, into the data folder; its ETag answers 304; the page is told the server's ports."""
    path = os.path.join(WEB, "controls.js")
    with open(path, "rb") as f:
        content = f.read()
    with server.http() as user:
        first = user.get("/static/controls.js")
        assert first.body == content and "content-encoding" not in first.headers
        packed = until(
            lambda: (
                (answer := user.get("/static/controls.js", {"Accept-Encoding": "gzip"})).headers.get("content-encoding")
                and answer
            )
        )
        assert gzip.decompress(packed.body) == content and packed.headers["vary"] == "accept-encoding"
        assert packed.headers["cache-control"] == "no-cache" and packed.headers["etag"] != first.headers["etag"]
        again = {"Accept-Encoding": "gzip", "If-None-Match": packed.headers["etag"]}
        assert user.get("/static/controls.js", again).status == 304
        assert user.get("/static/controls.js", {"If-None-Match": first.headers["etag"]}).status == 304
        assert user.get("/static/controls.js", {"Accept-Encoding": "gzip;q=0"}).body == content
        assert user.get("/").headers["x-blynk-ports"] == f"{server.http_port} {server.https_port}"
        assert user.get("/static/sw.js").headers["service-worker-allowed"] == "/"
        policy = user.get("/").headers["content-security-policy"]
        assert "unsafe" not in policy and "default-src 'self'" in policy
