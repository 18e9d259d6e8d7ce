"""The file itself: its rooms are where the front matter says, and the import costs the standard library only."""

import ast
import json
import os
import re
import subprocess
import sys

import pytest
from servers import PROGRAM, ROOT

HEAVY = (  # each would cost 0.6 to 4 MB more than the server needs to start
    *("dataclasses", "typing", "asyncio", "logging", "http.server", "http.client", "urllib.request", "argparse"),
    *("smtplib", "email", "sqlite3", "gzip", "tomllib", "tomli", "zoneinfo", "datetime", "pickle", "subprocess"),
    *("unittest", "ctypes", "multiprocessing", "concurrent", "inspect", "csv", "zeroconf", "segno", "psycopg"),
)


@pytest.fixture(scope="module")
def source():
    with open(PROGRAM, encoding="utf-8") as f:
        return f.read()


def test_the_rooms_stand_in_the_order_the_front_matter_lists(source):
    front = ast.get_docstring(ast.parse(source))
    listed = re.findall(r"^ +(\d+) (\w+) {2,}\S", front, re.M)
    banners = re.findall(r"^# =+\n# (\d+)\. (.+)\n# =+$", source, re.M)
    assert [(number, name) for number, name in listed] == [(number, name.strip()) for number, name in banners]
    assert [int(number) for number, _ in listed] == list(range(1, 15))


def test_every_room_has_a_note_at_its_head(source):
    for number, name, after in re.findall(r"^# =+\n# (\d+)\. (.+)\n# =+\n(.*)$", source, re.M):
        assert after.startswith("# "), f"room {number} {name} has no note"


def test_the_import_loads_nothing_heavy_and_nothing_foreign():
    """Also: no thread, no socket, no output."""
    code = (
        "import sys, threading, os\n"
        "before = set(sys.modules)\n"
        "import blynk_pi\n"
        "import json\n"
        "new = sorted(set(sys.modules) - before)\n"
        "print(json.dumps([new, threading.active_count(), len(os.listdir('/proc/self/fd'))]))"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    modules, threads, files = json.loads(done.stdout)
    assert [m for m in modules if m in HEAVY] == []
    foreign = {m.partition(".")[0] for m in modules} - set(sys.stdlib_module_names) - {"blynk_pi"}
    assert foreign == set()
    assert threads == 1
    assert files <= 5


def test_a_running_server_has_loaded_nothing_heavy(make_server):
    """What is mapped into the process tells: no sqlite, no curses, no database driver."""
    server = make_server()
    with open(f"/proc/{server.pid}/maps") as f:
        maps = f.read()
    for library in ("_sqlite3", "_asyncio", "_ctypes", "_decimal", "_multiprocessing", "_curses", "psycopg"):
        assert library not in maps, library


def test_no_function_is_longer_than_a_screen_or_two(source):
    long = [
        f"{node.name} ({node.end_lineno - node.lineno + 1} lines, line {node.lineno})"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 80
    ]
    assert long == []


def test_public_names_that_are_never_used_are_not_there(source):
    """A function nobody calls is a function nobody reads. Handlers are called through their tables."""
    tree = ast.parse(source)
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and not node.decorator_list}
    words = re.findall(r"\w+", source)
    counts = {name: words.count(name) for name in defined}
    tests = " ".join(
        open(os.path.join(ROOT, "tests", n)).read()
        for n in os.listdir(os.path.join(ROOT, "tests"))
        if n.endswith(".py")
    )
    unused = [name for name, count in counts.items() if count == 1 and name != "main" and name not in tests]
    assert unused == []
