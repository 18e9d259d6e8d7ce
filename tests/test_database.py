"""PostgreSQL mode against a real PostgreSQL that the test starts (spec 05 §10)."""

import glob
import os
import shutil
import subprocess
import tempfile
import time

import pytest
from clients import OK
from desk import ANNA, MINUTE, NOON, Desk, project_of
from servers import HOST, free_ports

import blynk_pi

psycopg = pytest.importorskip("psycopg")
pytestmark = pytest.mark.xdist_group("postgres")
PROGRAMS = sorted(glob.glob("/usr/lib/postgresql/*/bin") + glob.glob("/usr/local/bin/initdb"))
CODE = "c" * 32


def programs():
    for place in [os.path.dirname(p) if p.endswith("initdb") else p for p in PROGRAMS]:
        if os.path.exists(os.path.join(place, "initdb")) and os.path.exists(os.path.join(place, "pg_ctl")):
            return place
    pytest.skip("no PostgreSQL on this machine")
    return None


class Postgres:
    """A PostgreSQL of its own; it does not run as root, so as root the user postgres runs it."""

    def __init__(self):
        self.bin, self.folder = programs(), tempfile.mkdtemp(prefix="pg-")
        os.chmod(self.folder, 0o777)
        (self.port,) = free_ports(1)
        self.user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
        self.run("initdb", "-D", self.data, "-A", "trust", "-U", "blynk", "-N", "-E", "UTF8")
        with open(os.path.join(self.data, "postgresql.conf"), "a") as file:
            file.write("fsync = off\nmax_connections = 20\n")

    @property
    def data(self):
        return os.path.join(self.folder, "data")

    def run(self, program, *words):
        command = [*self.user, os.path.join(self.bin, program), *words]
        done = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self):
        options = f"-p {self.port} -k {self.folder} -c listen_addresses={HOST}"
        log = os.path.join(self.folder, "log")
        self.run("pg_ctl", "start", "-w", "-D", self.data, "-l", log, "-o", options)

    def stop(self):
        self.run("pg_ctl", "stop", "-w", "-m", "immediate", "-D", self.data)

    def url(self, name):
        return f"postgresql://{HOST}:{self.port}/{name}"

    def make(self, name):
        with psycopg.connect(self.url("postgres"), user="blynk", autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            connection.execute(f"CREATE DATABASE {name}")

    def rows(self, sql, *values, name="blynk"):
        with psycopg.connect(self.url(name), user="blynk") as connection:
            cursor = connection.execute(sql, values)
            return cursor.fetchall() if cursor.description else []


@pytest.fixture(scope="module")
def cluster():
    postgres = Postgres()
    postgres.start()
    yield postgres
    postgres.stop()
    shutil.rmtree(postgres.folder, ignore_errors=True)


@pytest.fixture
def postgres(cluster):
    for name in ("blynk", "blynk_reporting"):
        cluster.make(name)
    return cluster


def settings_of(postgres, host=HOST):
    return {
        "database_enabled": True,
        "database_url": f"jdbc:{postgres.url('blynk')}?tcpKeepAlive=true&socketTimeout=150",
        "database_user": "blynk",
        "database_password": "secret",
        "database_reporting_url": f"jdbc:{postgres.url('blynk_reporting')}?tcpKeepAlive=true",
        "server_host": host,
    }


class Link:
    """A Desk with a Database."""

    def __init__(self, folder, postgres, host=HOST):
        self.desk = Desk(str(folder))
        self.desk.host = host
        for name, value in settings_of(postgres, host).items():
            setattr(self.desk.settings, name, value)
        self.database = self.desk.database = blynk_pi.open_database(self.desk)

    def ask(self, name, *words):
        """What a method of the database gives to its `done`."""
        answers = []
        assert getattr(self.database, name)(*words, lambda *answer: answers.append(answer))
        self.wait_for(lambda: answers)
        return answers[0] if len(answers[0]) > 1 else answers[0][0]

    def settled(self):
        """All work that was given has been done."""
        done = []
        self.database.submit(lambda cursor: None, lambda *_: done.append(1), reporting=False)
        self.wait_for(lambda: done)

    def wait_for(self, condition, seconds=20):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "nothing came back from the database"
            self.desk.loop.run_once(0.1)


@pytest.fixture
def link(tmp_path, postgres):
    made = []

    def make(host=HOST):
        made.append(Link(tmp_path, postgres, host))
        return made[-1]

    yield make
    for one in made:
        one.database.stop()
        one.desk.close()


# -- the pieces --------------------------------------------------------------------------------------------------------


def test_accounts_are_mirrored_with_all_columns_and_written_over(link, postgres):
    link = link("10.0.0.1")
    account = project_of(link.desk, name="Häuschen\0x").account
    account.document.update({"pass": "hash", "energy": 5, "lastModifiedTs": NOON, "isSuperAdmin": True})
    for energy in (5, 99_999_999_999):
        account.document["energy"] = energy
        link.database.user_saved(account)
        link.desk.clock.pass_by(2000)
        link.desk.turn()
        link.settled()
    sql = "SELECT email, appname, region, ip, name, pass, last_modified::text, is_super_admin, energy, json FROM users"
    (row,) = postgres.rows(sql)
    assert row[:6] == (ANNA, "Blynk", "local", "10.0.0.1", ANNA, "hash")
    assert row[6] == time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(NOON / 1000)) and row[7:9] == (True, 2147483647)
    assert '"Häuschen\\u0000x"' in row[9]
    (user,) = link.database.restore_users()
    assert user["email"] == ANNA and user["lastModifiedTs"] == NOON
    assert user["profile"]["dashBoards"][0]["name"] == "Häuschen\0x"
    assert link.ask("server_of", ANNA, "Blynk") == "10.0.0.1"
    assert link.ask("server_of", ANNA, "Other") is None
    link.database.user_deleted(ANNA, "Blynk")
    link.settled()
    assert postgres.rows("SELECT * FROM users") == []


def test_a_redeem_code_counts_once(link, postgres):
    link = link()
    link.settled()
    postgres.rows("INSERT INTO redeem (token, company, reward) VALUES (%s, 'us', 50000)", CODE)
    assert link.ask("redeem", "x" * 32, ANNA) == (6, 0)
    assert link.ask("redeem", CODE, ANNA) == (OK, 50000)
    assert link.ask("redeem", CODE, ANNA) == (OK, 0)
    assert link.ask("redeem", CODE, "other@example.com") == (6, 0)
    assert postgres.rows("SELECT email, isredeemed, version FROM redeem") == [(ANNA, True, 2)]


def test_flashed_tokens_are_found_and_activated_once(link):
    link = link()
    assert link.ask("find_flashed", CODE) is None
    assert link.ask("insert_flashed", [(CODE, "blynkabc", ANNA, 1, 7)]) is True
    assert link.ask("insert_flashed", [(CODE, "blynkabc", ANNA, 1, 7)]) is False
    found = {"token": CODE, "app": "blynkabc", "email": ANNA, "project": 1, "device": 7, "activated": False}
    assert link.ask("find_flashed", CODE) == found
    assert link.ask("activate_flashed", CODE, "blynkabc") is True
    assert link.ask("activate_flashed", CODE, "blynkabc") is False
    assert link.ask("find_flashed", CODE)["activated"] is True


def test_clone_codes_and_purchases(link, postgres):
    link = link()
    assert link.ask("insert_clone", CODE, '{"id":1}') is True
    assert link.ask("find_clone", CODE) == '{"id":1}'
    assert link.ask("find_clone", "x" * 32) is None
    for reward, transaction in ((1000, "a"), (7, "b"), (200, "AdColonyAward")):
        link.database.purchase(ANNA, reward, transaction)
    link.settled()
    assert postgres.rows("SELECT reward, price FROM purchase ORDER BY reward") == [(7, -1.0), (1000, 0.99)]


def test_averages_go_to_the_reporting_database_and_old_ones_leave(link, postgres):
    link = link()
    desk = link.desk
    project_of(desk)
    desk.live(3, 4.0)
    link.settled()
    sql = """SELECT email, project_id, device_id, pin, pin_type, extract(epoch FROM ts)::int8 * 1000, value
        FROM reporting_average_minute ORDER BY ts"""
    expected = [(ANNA, 1, 0, 1, 1, NOON + n * MINUTE, 4.0) for n in range(3)]
    assert postgres.rows(sql, name="blynk_reporting") == expected
    postgres.rows("UPDATE reporting_average_minute SET ts = ts - interval '10 years'", name="blynk_reporting")
    link.database._clean()
    link.settled()
    assert postgres.rows(sql, name="blynk_reporting") == []


def test_raw_values_numbers_texts_and_two_in_a_millisecond(link, postgres):
    link = link()
    value = (ANNA, "Blynk", 1, 2, "v", 5)
    link.database.insert_raw([(*value, "1.5", NOON), (*value, "a\0b", NOON + 1), (*value, "2", NOON)])
    sql = "SELECT pin, pintype, stringvalue, doublevalue FROM reporting_raw_data ORDER BY ts"
    assert postgres.rows(sql, name="blynk_reporting") == [(5, "v", None, 2.0), (5, "v", "a\\0b", None)]


def test_statistics_have_a_row_a_period(link, postgres):
    link = link()
    report = {
        "commands": {"hardware": 7, "mqttTotal": 3, "getSharedDash": 2},
        "http": {"updatePinData": 4, "notify": 1},
        "oneMinRate": 9,
        "registrations": 11,
    }
    link.database.stats(report)
    link.settled()
    assert postgres.rows(
        "SELECT minute_rate, registrations FROM reporting_app_stat_minute", name="blynk_reporting"
    ) == [(9, 11)]
    sql = "SELECT hardware, hardtotal, get_share_dash, login FROM reporting_app_command_stat_minute"
    assert postgres.rows(sql, name="blynk_reporting") == [(7, 3, 2, 0)]
    sql = "SELECT update_pin, push, total FROM reporting_http_command_stat_minute"
    assert postgres.rows(sql, name="blynk_reporting") == [(4, 1, 0)]


def test_hosts_of_tokens_are_remembered_unknown_ones_too(link, postgres):
    link = link()
    assert link.ask("find_host", CODE) == (None, None)
    link.database.token_assigned(CODE, ANNA, 1, 0)
    link.settled()
    assert link.ask("find_host", CODE) == (None, None)  # still remembered
    link.desk.clock.pass_by(3_601_000)
    link.desk.turn()
    assert link.ask("find_host", CODE) == (HOST, None)
    link.database.tokens_removed([CODE, None])
    link.settled()
    assert postgres.rows("SELECT * FROM forwarding_tokens") == []
    for n in range(1100):
        link.database.hosts[str(n)] = None
    assert link.ask("find_host", "y" * 32) == (None, None)
    assert len(link.database.hosts) <= 1101


def test_a_database_that_is_away_keeps_accounts_for_later(link, postgres):
    link = link()
    account = project_of(link.desk).account
    postgres.stop()
    try:
        link.database.user_saved(account)
        link.desk.clock.pass_by(2000)
        link.wait_for(lambda: "database" in link.desk.health)
        assert not link.database.connected and link.database.users
        assert link.ask("find_host", CODE)[0] is None
        assert link.ask("redeem", CODE, ANNA) == (6, 0)
    finally:
        postgres.start()
    link.database.main.retry_at = 0
    link.desk.clock.pass_by(31_000)
    link.wait_for(lambda: link.database.connected)
    assert "database" not in link.desk.health
    assert postgres.rows("SELECT email FROM users") == [(ANNA,)]


def test_a_broken_connection_is_opened_again(link, postgres):
    link = link()
    link.settled()
    postgres.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'blynk-pi'")
    link.ask("find_clone", CODE)
    link.database.main.retry_at = 0
    assert link.ask("insert_clone", CODE, "{}") is True


def test_raw_data_wait_for_a_database_that_is_away(link, postgres):
    link = link()
    desk = link.desk
    account = project_of(desk).account
    desk.settings.raw_data_store = "postgres"
    desk.raw_data = desk.history.raw_data = blynk_pi.open_raw_data(desk)
    postgres.stop()
    try:
        desk.history.raw(account, 1, 0, "v", 1, "5", NOON)
        desk.clock.pass_by(1500)
        desk.turn()
        link.wait_for(lambda: "raw data" in desk.health)
    finally:
        postgres.start()
    link.database.reporting.retry_at = 0
    desk.clock.pass_by(11_000)
    desk.turn()
    link.wait_for(lambda: not desk.raw_data.busy)
    assert postgres.rows("SELECT doublevalue FROM reporting_raw_data", name="blynk_reporting") == [(5.0,)]


def test_tables_of_the_java_server_are_used_as_they_are(link, postgres):
    postgres.rows(
        """CREATE TABLE users (email text NOT NULL, appName text NOT NULL, region text, ip text, name text, pass text,
        last_modified timestamp, last_logged timestamp, last_logged_ip text, is_facebook_user bool, is_super_admin bool,
        energy int, json text, PRIMARY KEY (email, appName))"""
    )
    link = link()
    link.settled()
    assert link.database.connected


def test_without_the_driver_the_server_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
    desk = Desk(str(tmp_path))
    desk.settings.database_enabled = True
    assert blynk_pi.open_database(desk) is None
    assert "pip install 'psycopg[binary]'" in capsys.readouterr().err and "database" in desk.health
    desk.close()


# -- two servers behind one database -----------------------------------------------------------------------------------


def test_a_board_at_the_wrong_server_is_sent_to_the_right_one(make_server, postgres):
    right = make_server(**settings_of(postgres, "10.9.8.7"), server_redirect_port_80=False)
    wrong = make_server(**settings_of(postgres, "10.9.8.6"), server_redirect_port_80=False)
    app = right.app()
    app.make_project(1, devices=1)
    token = app.token(1, 0)
    deadline = time.monotonic() + 10
    while not postgres.rows("SELECT host FROM forwarding_tokens WHERE token = %s", token):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    board = wrong.hardware()
    number = board.command("HARDWARE_LOGIN", token.encode())
    board.expect(f"10.9.8.7 {wrong.http_port}", "CONNECT_REDIRECT", id=number)
    number = board.command("HARDWARE_LOGIN", b"z" * 32)
    board.expect_status(9, id=number)
    app.close()
    board.close()


def test_accounts_reach_the_database_and_come_back_from_it(make_server, postgres):
    server = make_server(**settings_of(postgres))
    app = server.app()
    app.make_project(1, devices=1)
    token, email = app.token(1, 0), app.email
    app.close()
    server.stop()
    assert postgres.rows("SELECT count(*) FROM users WHERE email = %s", email) == [(1,)]
    again = make_server(**settings_of(postgres), arguments=("-restore",))
    board = again.hardware(token)
    board.close()
