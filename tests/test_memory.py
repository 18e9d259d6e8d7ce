"""Memory is a feature: what the README's command costs, however the program file lies there (DESIGN §9)."""

import os
import shutil
import stat
import sys

import pytest
from servers import PROGRAM, Server, distribution_python

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

BUDGET_KB = 22 * 1024  # 64-bit, the distribution's python3, all ports open


def idle_rss(server):
    """Resident KiB of a server that has been started for the second time on its folder and does nothing."""
    server.start()
    server.stop()
    server.start()
    with server.unknown() as peer:
        peer.quiet(1.5)
    kb = server.rss_kb()
    server.stop()
    server.check_log()
    return kb


@pytest.mark.skipif(sys.maxsize < 2**32, reason="the budget is for 64 bit")
def test_the_command_of_the_readme_stays_within_its_budget(folder):
    kb = idle_rss(Server(folder, python=distribution_python()))
    assert kb <= BUDGET_KB, f"{kb / 1024:.1f} MB"


def test_a_read_only_folder_costs_no_more(folder):
    """Where no bytecode can be kept beside the program, the compiler's leftovers must not stay either."""
    program = os.path.join(folder, "program", "blynk_pi.py")
    os.mkdir(os.path.dirname(program))
    shutil.copy(PROGRAM, program)
    os.chmod(program, stat.S_IREAD)
    os.chmod(os.path.dirname(program), stat.S_IREAD | stat.S_IEXEC)
    environment = dict(os.environ, PYTHONDONTWRITEBYTECODE="1")  # root may write anywhere
    try:
        kb = idle_rss(Server(folder, python=distribution_python(), program=program, environment=environment))
        assert os.listdir(os.path.dirname(program)) == ["blynk_pi.py"]
    finally:
        os.chmod(os.path.dirname(program), stat.S_IRWXU)
    assert kb <= BUDGET_KB, f"{kb / 1024:.1f} MB"


def test_idle_boards_and_apps_cost_little(make_server):
    server = make_server(python=distribution_python())
    app = server.app()
    app.make_project(1)
    token = app.token()
    warm = [server.hardware(token) for _ in range(20)]
    app.drain()
    before = server.rss_kb()
    boards = [server.hardware(token) for _ in range(200)]
    app.drain()
    per_board = (server.rss_kb() - before) / len(boards)
    assert per_board <= 6, f"{per_board:.1f} KB a board"  # budget 4, measured by the bench; here with noise
    assert warm


def test_memory_does_not_creep_with_connections_that_come_and_go(make_server):
    server = make_server(python=distribution_python())
    app = server.app()
    app.make_project(1)
    token = app.token()

    def come_and_go(times):
        for _ in range(times):
            with server.hardware(token) as hw:
                hw.send("vw 1 1")
                hw.ping()
            with server.hardware(token, tls=True) as hw:
                hw.ping()
            with server.http() as user:
                user.get(f"/{token}/get/V1")
        app.drain()

    come_and_go(150)
    before = server.rss_kb()
    come_and_go(300)
    assert server.rss_kb() - before <= 512
