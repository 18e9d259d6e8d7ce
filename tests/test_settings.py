"""Settings: the table, blynk.toml and its example, the Java server's files, the command line, and every error line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import blynk_pi
from blynk_pi import Settings, SettingsError, load_settings, parse_properties

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty program folder; no settings of this machine interfere."""
    monkeypatch.setattr(blynk_pi, "SYSTEM_SETTINGS_FILE", str(tmp_path / "etc-blynk.toml"))
    return tmp_path


def load(folder: Path, *argv: str, **files: str) -> Settings:
    """Writes the files (`blynk_toml`, `server_properties` …) into the program folder and loads."""
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text, encoding="utf-8")
    return load_settings(list(argv), str(folder))


def refused(folder: Path, *argv: str, **files: str) -> str:
    """The one line of the error."""
    with pytest.raises(SettingsError) as caught:
        load(folder, *argv, **files)
    line = str(caught.value)
    assert "\n" not in line
    return line


def values(settings: Settings) -> dict[str, object]:
    return {f"{row[0]}_{row[1]}": getattr(settings, f"{row[0]}_{row[1]}") for row in blynk_pi.SETTINGS}


# --- the table, the example and the defaults agree --------------------------------------------------------------------


def test_the_example_is_the_table() -> None:
    assert (ROOT / "blynk.toml.example").read_text(encoding="utf-8") == blynk_pi.settings_text()


def test_the_example_with_every_comment_sign_taken_away_sets_the_defaults(folder: Path) -> None:
    text = blynk_pi.settings_text()
    lines = [line[1:] if line.startswith("#") and not line.startswith("# ") else line for line in text.split("\n")]
    assert lines.count("") and len([line for line in lines if " = " in line and line[0] != "#"]) == len(
        blynk_pi.SETTINGS
    )
    assert values(load(folder, blynk_toml="\n".join(lines))) == values(Settings())


def test_the_example_as_it_is_changes_nothing(folder: Path) -> None:
    assert values(load(folder, blynk_toml=blynk_pi.settings_text())) == values(Settings())


def test_every_default_is_allowed_and_every_setting_has_a_line_of_help() -> None:
    names = set()
    for section, key, kind, default, allowed, legacy, text in blynk_pi.SETTINGS:
        value = list(default) if isinstance(default, tuple) else default
        assert blynk_pi.SETTING_KINDS[kind][1](value, allowed) == value, (section, key)
        assert text and "\n" not in text
        assert isinstance(legacy, tuple)
        names.add(f"{section}_{key}")
    assert len(names) == len(blynk_pi.SETTINGS)


def test_sections_stand_together_in_the_table() -> None:
    sections = [row[0] for row in blynk_pi.SETTINGS]
    assert len(set(sections)) == sum(a != b for a, b in zip(sections, [*sections[1:], ""]))


def test_a_setting_that_does_not_exist_cannot_be_set() -> None:
    with pytest.raises(AttributeError):
        Settings().ports_htpp = 1


def test_lists_are_not_shared_between_settings() -> None:
    Settings().admin_allowed_ips.append("1.2.3.4")
    assert "1.2.3.4" not in Settings().admin_allowed_ips


def test_the_admin_page_is_for_this_host_and_private_networks() -> None:
    networks = Settings().admin_allowed_ips
    inside = "127.0.0.1 ::1 10.1.2.3 172.31.0.1 192.168.178.20 fe80::1%eth0 fd00::7 ::ffff:192.168.1.1".split()
    outside = "8.8.8.8 172.32.0.1 2001:db8::1 ::ffff:8.8.8.8 nonsense".split()
    assert [a for a in inside if not blynk_pi.address_in(a, networks)] == []
    assert [a for a in outside if blynk_pi.address_in(a, networks)] == []
    assert blynk_pi.address_in("8.8.8.8", ["0.0.0.0/0"]) and not blynk_pi.address_in("2001:db8::1", ["0.0.0.0/0"])
    assert blynk_pi.address_in("2001:db8::1", ["::/0"])


# --- blynk.toml -------------------------------------------------------------------------------------------------------

EXAMPLE_OF_THE_SPEC = """
[server]
host = "blynk.example.org"
interface = "wlan"
[ports]
http = 8081
hardware_plain_legacy = 8442
[data]
folder = "/home/pi/Blynk"
[admin]
allowed_ips = ["192.168.0.0/16", "127.0.0.1"]
[mail]
host = "smtp.example.org"
username = "pi@example.org"
password = "secret"
from = "Küche <pi@example.org>"
"""


def test_blynk_toml_beside_the_program_is_read(folder: Path) -> None:
    settings = load(folder, blynk_toml=EXAMPLE_OF_THE_SPEC)
    assert (settings.server_host, settings.server_interface) == ("blynk.example.org", "wlan")
    assert (settings.ports_http, settings.ports_https, settings.ports_hardware_plain_legacy) == (8081, 9443, 8442)
    assert settings.admin_allowed_ips == ["192.168.0.0/16", "127.0.0.1"]
    assert settings.mail_from == "Küche <pi@example.org>"
    assert settings.files == [str(folder / "blynk.toml")]
    assert settings.limits_energy == "unlimited"


def test_config_names_another_file_and_etc_is_the_last_resort(folder: Path) -> None:
    (folder / "etc-blynk.toml").write_text("[ports]\nhttp = 1111\n")
    (folder / "other.toml").write_text("[ports]\nhttp = 2222\n")
    assert load(folder).ports_http == 1111
    assert load(folder, blynk_toml="[ports]\nhttp = 3333\n").ports_http == 3333
    assert load(folder, "--config", str(folder / "other.toml")).ports_http == 2222


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ("[ports]\nhttp = 70000", "ports.http = 70000 is not allowed: it must be a whole number from 0 to 65535"),
        ('[ports]\nhttp = "8080"', 'ports.http = "8080" is not allowed: it must be a whole number'),
        ("[ports]\nhttp = 80.5", "ports.http = 80.5 is not allowed: it must be a whole number"),
        ("[ports]\nhttp = true", "ports.http = true is not allowed: it must be a whole number"),
        ("[ports]\nhtpp = 8080", "ports.htpp = 8080 is not a setting: [ports] has http, https, mqtt"),
        ("[port]\nhttp = 8080", "[port] is not a section: there are server, ports,"),
        ("http = 8080", "[http] is not a section"),
        ('[data]\nstore_ip = "yes"', 'data.store_ip = "yes" is not allowed: it must be true or false'),
        ("[data]\nfolder = 7", "data.folder = 7 is not allowed: it must be a text"),
        ('[data]\nfolder = "a\\nb"', "it must be a text of one line"),
        ('[log]\nlevel = "loud"', 'log.level = "loud" is not allowed: it must be one of "trace", "debug"'),
        ('[admin]\nallowed_ips = "10.0.0.1"', 'admin.allowed_ips = "10.0.0.1" is not allowed: it must be a list'),
        ('[admin]\nallowed_ips = ["10.0.0.300"]', "a list of addresses and networks"),
        ('[admin]\nallowed_ips = ["10.0.0.0/33"]', "a list of addresses and networks"),
        ('[admin]\npath = "admin"', 'admin.path = "admin" is not allowed: it must be a path that starts with /'),
        ("[limits]\nenergy = -1", 'limits.energy = -1 is not allowed: it must be "unlimited" or a whole number'),
        ("[limits]\nallowed_users = [1]", "it must be a list of texts"),
        ('[push]\nntfy_url = "ntfy.sh"', "it must be a URL that starts with http:// or https://"),
        ('[tls]\ncert = "/no/such.pem"', 'tls.cert = "/no/such.pem" is not allowed: it must be the path of a file'),
        (
            "[acme]\nenabled = true",
            "acme.enabled = true is not allowed: the built-in client is a later step; use certbot",
        ),
        ("[ports]\nhttp = 9000\nhttps = 9000", "ports.https = 9000 is not allowed: ports.http is the same port"),
        ("[legacy]\nread_properties = 1", "legacy.read_properties = 1 is not allowed: it must be true or false"),
        ("[ports\nhttp = 1", "Expected ']' at the end of a table declaration (at line 1"),
    ],
)
def test_a_wrong_blynk_toml_is_refused_with_file_key_value_and_what_is_allowed(
    folder: Path, toml: str, says: str
) -> None:
    line = refused(folder, blynk_toml=toml)
    assert line.startswith(str(folder / "blynk.toml") + ": ")
    assert says in line


@pytest.mark.parametrize(
    "toml", ["[mail]\npassword = 4711", "[mail]\npassword2 = 4711", "[push]\napprise_urls = [4711]"]
)
def test_a_secret_is_not_shown_in_the_error(folder: Path, toml: str) -> None:
    line = refused(folder, blynk_toml=toml)
    assert "= *** is not" in line and "4711" not in line


def test_a_key_without_its_certificate_is_refused(folder: Path) -> None:
    (folder / "key.pem").write_text("")
    key = (folder / "key.pem").as_posix()
    assert "needs tls.cert" in refused(folder, blynk_toml=f'[tls]\nkey = "{key}"')


def test_files_that_cannot_be_read(folder: Path) -> None:
    missing = str(folder / "none.toml")
    assert refused(folder, "--config", missing) == f"{missing}: cannot be read: No such file or directory"
    assert "must end in .toml or .properties" in refused(folder, "--config", "blynk.ini")
    (folder / "bad.toml").write_bytes(b'[server]\nhost = "\xfc"')
    assert "must be UTF-8" in refused(folder, "--config", str(folder / "bad.toml"))
    assert "cannot be read" in refused(folder, "-serverConfig", str(folder / "none.properties"))
    assert "cannot be read: Is a directory" in refused(folder, "-mailConfig", str(folder))


def test_a_byte_order_mark_does_no_harm(folder: Path) -> None:
    (folder / "blynk.toml").write_bytes(b"\xef\xbb\xbf[ports]\r\nhttp = 8088\r\n")
    assert load(folder).ports_http == 8088


def test_without_a_toml_reader_the_line_names_the_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tomllib", None)
    monkeypatch.setitem(sys.modules, "tomli", None)
    assert "pip install tomli" in refused(folder, blynk_toml="")
    (folder / "blynk.toml").unlink()
    load(folder)  # without the file nothing is imported


# --- .properties ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"a=1\nb:2\nc 3\nd = 4 \ne\t:\t5\r\nf=\ng", dict(a="1", b="2", c="3", d="4", e="5", f="", g="")),
        (b"# a=1\n  ! b=2\n\n  c=3", dict(c="3")),
        (b"a=1\na=2", dict(a="2")),
        (b"a=one, \\\n    two,\\\r\n\tthree\nb=1", dict(a="one, two,three", b="1")),
        (b"a=x\\\\\nb=1", dict(a="x\\", b="1")),
        (b"a=x\\\n# not a comment\nb=1", dict(a="x# not a comment", b="1")),
        (b"# comment \\\na=1", dict(a="1")),
        (b"a=last\\", dict(a="last")),
        (b"p=C:\\\\blynk\\\\data", dict(p="C:\\blynk\\data")),
        (b"a=\\t|\\n|\\r|\\f|\\q|\\u00e4\\u20AC", dict(a="\t|\n|\r|\f|q|ä€")),
        (b"a\\=b\\ c\\:d=1=2:3", {"a=b c:d": "1=2:3"}),
        ("a=Küche".encode(), dict(a="Küche")),
        ("a=Küche".encode("iso-8859-1"), dict(a="Küche")),
        ("\ufeffa=1".encode(), dict(a="1")),
        (b"", {}),
        (b"a==1", dict(a="=1")),
    ],
)
def test_the_java_properties_format(raw: bytes, expected: dict[str, str]) -> None:
    assert parse_properties(raw) == expected


def test_a_broken_unicode_escape_is_one_line(folder: Path) -> None:
    assert "four hexadecimal digits" in refused(folder, server_properties="server.host=\\u12x")


def test_every_old_key_sets_its_setting(folder: Path) -> None:
    samples = {"int": ("7", 7), "energy": ("7", 7), "list": ("A@b.c, d@e.f", ["a@b.c", "d@e.f"])}
    samples |= {"text": ("x", "x"), "url": ("https://x", "https://x"), "path": ("/x", "/x")}
    samples |= {"networks": ("10.0.0.0/8,::1", ["10.0.0.0/8", "::1"]), "choice": ("DEBUG", "debug")}
    samples["file"] = ((folder / "file").as_posix(), (folder / "file").as_posix())
    (folder / "file").write_text("")
    for section, key, kind, default, allowed, legacy, _ in blynk_pi.SETTINGS:
        if kind == "int":
            samples["int"] = (str(allowed[0] + 7), allowed[0] + 7)
        for name in legacy:
            text, value = samples.get(kind, ("TRUE" if default is False else "false", not default))
            pair = f"server.ssl.cert={text}\nserver.ssl.key={text}\n" if kind == "file" else ""  # it takes both
            settings = load(folder, server_properties=f"{pair}{name}={text}")
            assert getattr(settings, f"{section}_{key}") == value, name
            assert settings.warnings == [], name


def test_the_files_of_a_java_installation_load_whole(folder: Path) -> None:
    settings = load(
        folder,
        server_properties="http.port=8085\nserver.worker.threads=4\nredis.host=x\ninitial.energy=5000\nlogs.folder=./logs\n",
        mail_properties="mail.smtp.username=me@gmail.com\nmail.smtp.password=p \nmail.smtp.starttls.enable=true\n",
        sms_properties="nexmo.api.key=k\nnexmo.api.secret=s\n",
        gcm_properties="gcm.api.key=g\nnotification.body={DEVICE_NAME} is off\n",
        twitter4j_properties="oauth.consumerKey=c\n",
        db_properties="jdbc.url=jdbc:postgresql://localhost:5432/blynk\nuser=u\npassword=p\nconnection.timeout.millis=3\n",
    )
    assert len(settings.files) == 6 and settings.warnings == []
    assert (settings.ports_http, settings.limits_energy, settings.log_folder) == (8085, 5000, "./logs")
    assert (settings.mail_host, settings.mail_username, settings.mail_password) == (
        "smtp.gmail.com",
        "me@gmail.com",
        "p",
    )
    assert (settings.sms_nexmo_key, settings.push_api_key, settings.twitter_consumer_key) == ("k", "g", "c")
    assert settings.push_offline_body == "{DEVICE_NAME} is off"
    assert (settings.database_user, settings.database_enabled) == ("u", False)


def test_one_properties_file_may_hold_everything(folder: Path) -> None:
    path = folder / "all.properties"
    path.write_text("http.port=8086\nmail.smtp.host=h\nnexmo.api.key=k\ngcm.api.key=g\nenable.db=true\nuser=u\n")
    settings = load(folder, "--config", str(path))
    assert (settings.ports_http, settings.mail_host, settings.sms_nexmo_key, settings.push_api_key) == (
        8086,
        "h",
        "k",
        "g",
    )
    assert (settings.database_enabled, settings.database_user) == (True, "u")


def test_an_unknown_old_key_is_a_warning_and_a_wrong_value_an_error(folder: Path) -> None:
    settings = load(
        folder, server_properties="client.ssl.cert=x\nno.such.key=1\nenable.native.openssl=true\nserver2.x=1"
    )
    assert len(settings.warnings) == 2
    assert settings.warnings[1] == f"{folder / 'server.properties'}: no.such.key is not known here and has no effect"
    line = refused(folder, server_properties="http.port=eighty")
    assert line.startswith(
        f'{folder / "server.properties"}: http.port = "eighty" is not allowed: it must be a whole number'
    )
    assert "log.level" in refused(folder, server_properties="log.level=loud")


@pytest.mark.parametrize(
    ("text", "attribute", "value"),
    [
        ("latest.tls=true", "tls_min_version", "1.2"),
        ("latest.tls=false", "tls_min_version", ""),
        ("renewal.disabled=TRUE", "acme_renew", False),
        ("mail.smtp.starttls.enable=false", "mail_security", "none"),
        ("mail.smtp.starttls.enable=true\nmail.smtp.starttls.required=true", "mail_security", "starttls-required"),
        ("mail.smtp.starttls.enable=true\nmail.smtp.ssl.enable=true", "mail_security", "tls"),
        ("mail.smtp.starttls.enable=false\nmail.smtp.ssl.enable=true", "mail_security", "tls"),
        ("enable.raw.data.store=true", "raw_data_store", "csv"),
        ("enable.raw.db.data.store=true", "raw_data_store", "off"),
        ("enable.raw.db.data.store=true\nenable.db=true", "raw_data_store", "postgres"),
        ("initial.energy=", "limits_energy", 2000),
        ("user.widget.max.size.limit=", "limits_widget_kb", 10),
        ("user.profile.max.size=", "limits_profile_kb", 64),
        ("hard.socket.idle.timeout=", "timeouts_hardware_idle_s", 10),
        ("notifications.frequency.user.quota.limit=", "notifications_min_interval_s", 15),
        ("notifications.user.quota.limit=60", "notifications_min_interval_s", 60),
        (
            "notifications.user.quota.limit=60\nnotifications.frequency.user.quota.limit=7",
            "notifications_min_interval_s",
            7,
        ),
        ("allowed.administrator.ips=", "admin_allowed_ips", []),
        ("allowed.administrator.ips=0.0.0.0/0,::/0", "admin_allowed_ips", ["0.0.0.0/0", "::/0"]),
        ("hardware.default.port=8442", "ports_hardware_plain_legacy", 8442),
        ("admin.rootPath=/", "admin_path", None),
    ],
)
def test_old_keys_that_mean_more_than_their_value(folder: Path, text: str, attribute: str, value: object) -> None:
    if value is None:
        refused(folder, server_properties=text)
    else:
        assert getattr(load(folder, server_properties=text), attribute) == value


def test_old_certificate_keys(folder: Path) -> None:
    for name in ("a.crt", "a.pem"):
        (folder / name).write_text("")
    cert, key = (folder / "a.crt").as_posix(), (folder / "a.pem").as_posix()
    settings = load(folder, server_properties=f"server.ssl.cert=\nhttps.cert={cert}\nhttps.key={key}\nhttps.key.pass=p")
    assert (settings.tls_cert, settings.tls_key, settings.tls_key_password) == (cert, key, "p")
    settings = load(folder, server_properties=f"server.ssl.cert={cert}")
    assert settings.tls_cert == ""
    settings = load(folder, server_properties="server.ssl.cert=/none.crt\nserver.ssl.key=/none.pem")
    assert (settings.tls_cert, settings.tls_key) == ("", "") and len(settings.warnings) == 2


def test_energy_is_unlimited_unless_only_old_files_are_read(folder: Path) -> None:
    assert load(folder).limits_energy == "unlimited"
    assert load(folder, server_properties="").limits_energy == 100000
    assert load(folder, blynk_toml="[legacy]\nread_properties = true").limits_energy == "unlimited"
    assert load(folder, server_properties="initial.energy=7").limits_energy == 7


# --- precedence -------------------------------------------------------------------------------------------------------


def test_later_wins_defaults_old_files_toml_command_line(folder: Path) -> None:
    old = "http.port=1001\nhttps.port=1002\nhardware.mqtt.port=1003\nproduct.name=Old\n"
    toml = "[ports]\nhttps = 2002\nmqtt = 2003\n[legacy]\nread_properties = true\n"
    settings = load(folder, "--mqtt-port", "3003", server_properties=old, blynk_toml=toml)
    assert (settings.ports_http, settings.ports_https, settings.ports_mqtt) == (1001, 2002, 3003)
    assert (settings.server_product_name, settings.server_region) == ("Old", "local")


def test_with_a_blynk_toml_old_files_are_not_read_unless_it_says_so(folder: Path) -> None:
    path = folder / "server.properties"
    settings = load(folder, blynk_toml="", server_properties="http.port=1001")
    assert settings.ports_http == 8080 and settings.warnings == [] and not settings.legacy_read_properties
    settings = load(folder, "-serverConfig", str(path))
    assert settings.ports_http == 8080 and "legacy.read_properties = true" in settings.warnings[0]
    (folder / "blynk.toml").unlink()
    assert load(folder).ports_http == 1001


def test_a_mail_file_given_is_read_in_place_of_the_one_beside_the_program(folder: Path) -> None:
    other = folder / "m2.properties"
    other.write_text("mail.smtp.host=other\n")
    settings = load(folder, "-mailConfig", str(other), mail_properties="mail.smtp.host=here\nmail.from=x\n")
    assert (settings.mail_host, settings.mail_from) == ("other", "")


# --- command line -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv",
    [
        ["--data", "/d", "--http-port", "1", "--https-port", "2", "--mqtt-port=0", "--listen", "127.0.0.1"],
        ["-dataFolder", "/d", "-hardPort", "1", "-appPort", "2", "--mqtt-port", "0", "-listen=127.0.0.1"],
        ["--dataFolder=/d", "--hardPort=1", "--appPort=2", "-mqtt-port", "0", "--listen=127.0.0.1"],
    ],
)
def test_options_have_one_or_two_dashes_and_the_value_next_or_after_the_sign(folder: Path, argv: list[str]) -> None:
    settings = load(folder, *argv)
    assert (settings.data_folder, settings.ports_http, settings.ports_https) == ("/d", 1, 2)
    assert (settings.ports_mqtt, settings.server_listen) == (0, "127.0.0.1")


def test_log_options_and_worker_threads(folder: Path) -> None:
    settings = load(folder, "--log-level", "WARN", "--log-folder", "l", "-workerThreads", "9")
    assert (settings.log_level, settings.log_folder) == ("warn", "l")
    assert settings.warnings == ["command line: -workerThreads has no effect: this server needs no such threads"]


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (
            ["--http-port", "x"],
            'command line: --http-port = "x" is not allowed: it must be a whole number from 0 to 65535',
        ),
        (["-hardPort", "70000"], "command line: -hardPort = 70000 is not allowed"),
        (["--port", "1"], "command line: --port is not an option"),
        (["--data"], "command line: --data needs a value"),
        (["--data", "--listen", "x"], "command line: --data needs a value"),
        (["--log-level", "loud"], "it must be one of"),
        (["frobnicate"], "command line: frobnicate is not a command: there are passwd, users,"),
        (["-restore"], "it needs database.enabled = true"),
    ],
)
def test_a_wrong_command_line_is_refused(folder: Path, argv: list[str], says: str) -> None:
    assert says in refused(folder, *argv)


def test_sub_commands_take_options_before_and_after(folder: Path) -> None:
    settings = load(folder, "--data", "/d", "passwd", "a@b.c", "--log-level", "debug", "Blynk")
    assert (settings.command, settings.arguments) == ("passwd", ["a@b.c", "Blynk"])
    assert (settings.data_folder, settings.log_level) == ("/d", "debug")
    assert load(folder).command == ""


def test_help_and_version_come_before_everything(folder: Path) -> None:
    (folder / "blynk.toml").write_text("nonsense")
    assert load(folder, "--help").command == "help"
    assert load(folder, "users", "--version").command == "version"
    assert load(folder, "--help", "settings").arguments == ["settings"]
    text = blynk_pi.help_text()
    for option in blynk_pi.COMMAND_LINE_OPTIONS:
        assert option == "workerThreads" or option in text
    assert all(name in text for name in blynk_pi.SUB_COMMANDS)
    assert max(map(len, text.split("\n"))) < 120
    assert blynk_pi.help_text("settings") == blynk_pi.settings_text()


# --- the data folder --------------------------------------------------------------------------------------------------


def test_without_a_data_folder_a_temporary_one_is_used_with_the_warning_scripts_know(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(folder))
    for argv in ([], ["-dataFolder", "/path"]):
        where, lines = blynk_pi.choose_data_folder(load(folder, *argv))
        assert where == str(folder / "blynk") and os.path.isdir(where)
        assert "Please specify correct -dataFolder parameter." in lines[0]
        assert lines[1] == f"Your data may be lost during server restart. Using temp folder : {where}"


def test_a_data_folder_is_made_and_one_that_cannot_be_used_is_an_error(folder: Path) -> None:
    where, lines = blynk_pi.choose_data_folder(load(folder, "--data", str(folder / "a" / "b")))
    assert where == str(folder / "a" / "b") and os.path.isdir(where) and lines == []
    (folder / "file").write_text("")
    with pytest.raises(SettingsError) as caught:
        blynk_pi.choose_data_folder(load(folder, "--data", str(folder / "file" / "x")))
    assert str(caught.value).startswith(
        f'command line: --data = "{folder}/file/x" is not allowed: the folder cannot be made'
    )


def test_the_settings_of_the_recordings_load() -> None:
    folder = str(ROOT / "tests" / "replay" / "config")
    settings = load_settings(["--data", "x"], folder)
    assert len(settings.files) == 3 and settings.warnings == []


def test_a_wrong_setting_ends_the_program_with_code_2() -> None:
    program = [sys.executable, str(ROOT / "blynk_pi.py")]
    done = subprocess.run([*program, "--http-port", "x"], capture_output=True, text=True, timeout=20)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "--http-port" in done.stderr
    done = subprocess.run([*program, "--version"], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0 and blynk_pi.__version__ in done.stdout
