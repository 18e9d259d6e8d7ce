"""LAN: addresses, certificates made and used over real TLS, their reload, the announcement heard by real mDNS peers."""

import datetime
import os
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
import types
import uuid
from functools import partial

import pytest
from clients import until

import blynk_pi
from blynk_pi import Announcer, Certificates, Loop, Settings, SettingsError

LONG = 30  # seconds; making an RSA key takes its time


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def make_pair(folder, name="own", kind="ec", subject="/CN=first", password=None, days=30):
    """An operator's certificate and key -> their paths."""
    folder.mkdir(exist_ok=True)
    cert, key = folder / f"{name}.crt", folder / f"{name}.key"
    how = ["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"] if kind == "ec" else [kind]
    secret = ["-passout", f"pass:{password}"] if password else ["-nodes"]
    openssl("req", "-x509", "-newkey", *how, *secret, "-days", days, "-subj", subject, "-keyout", key, "-out", cert)
    return str(cert), str(key)


class Home:
    """A loop that runs in a thread, with the room's objects on it and an echo port behind the certificate."""

    def __init__(self, folder, **settings):
        self.settings = Settings()
        self.settings.data_folder = str(folder)
        for name, value in settings.items():
            setattr(self.settings, name, value)
        self.loop = Loop()
        self.ready = threading.Event()
        self.certificates = Certificates(self)
        self.certificates.on_ready = self.ready.set
        self.port = self.loop.listen("127.0.0.1", 0, self.accept, tls=lambda: self.certificates.context).port
        self.thread = threading.Thread(target=self.loop.run, daemon=True)

    @staticmethod
    def accept(stream):
        stream.protocol = types.SimpleNamespace(received=stream.write, closed=lambda: None)

    def start(self):
        self.certificates.start()
        self.thread.start()
        return self

    def call(self, fn, *args):
        """Runs fn(*args) in the loop and waits for it."""
        done, result = threading.Event(), []
        self.loop.from_thread(lambda: (result.append(fn(*args)), done.set()))
        assert done.wait(LONG)
        return result[0]

    def wait_for_both(self):
        until(lambda: len(self.certificates.pairs) == 2 and not self.certificates.making, LONG, "both certificates")

    def close(self):
        if self.thread.is_alive():
            self.call(self.certificates.stop)
            self.loop.from_thread(self.loop.stop)
            self.thread.join(LONG)
        self.loop.close()

    def connect(self, **how):
        """A TLS connection that has echoed a word."""
        sock = context_of(**how).wrap_socket(socket.create_connection(("127.0.0.1", self.port), LONG))
        self.echo(sock)
        return sock

    @staticmethod
    def echo(sock):
        sock.sendall(b"ping")
        assert sock.recv(4) == b"ping"

    def subject(self, **how):
        """The common name of the certificate that a new connection sees."""
        with self.connect(**how) as sock:
            pem = ssl.DER_cert_to_PEM_cert(sock.getpeercert(True))
        done = subprocess.run(
            ["openssl", "x509", "-noout", "-subject"], input=pem, capture_output=True, text=True, check=True
        )
        return done.stdout.strip().partition("CN = ")[2].partition(",")[0]


def context_of(ca=None, ciphers=None, version=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_verify_locations(ca)
    if ciphers:
        context.set_ciphers(ciphers)
    if version:
        context.maximum_version = version
    return context


@pytest.fixture
def home(tmp_path, monkeypatch):
    """home(**settings) -> a started Home; the working directory is empty."""
    monkeypatch.chdir(tmp_path)
    made = []

    def make(start=True, **settings):
        made.append(Home(tmp_path / "data", **settings))
        return made[-1].start() if start else made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def lines(monkeypatch):
    """The log of this process."""
    monkeypatch.setattr(blynk_pi.log, "console", False)
    blynk_pi.log.recent.clear()
    return blynk_pi.log.recent


def said(lines, word):
    return [line for line in list(lines) if word in line]


# ----------------------------------------------------------------------------------------------------------------------
# Addresses
# ----------------------------------------------------------------------------------------------------------------------


def test_the_addresses_are_those_of_the_system():
    found = blynk_pi.interface_addresses()
    assert ("lo", "127.0.0.1") in found or sys.platform != "linux"
    for address in blynk_pi.lan_addresses():
        assert not address.startswith("127.")
        socket.create_server((address, 0)).close()  # it is really ours


@pytest.mark.parametrize(
    ("interfaces", "settings", "host"),
    [
        ([("lo", "127.0.0.1"), ("wlan0", "10.0.0.5"), ("eth0", "10.0.0.6")], {}, "10.0.0.6"),
        ([("wlan0", "10.0.0.5"), ("eth0", "10.0.0.6")], {"server_interface": "wlan"}, "10.0.0.5"),
        ([("wlan0", "10.0.0.5")], {}, "10.9.9.9"),  # no eth: the default route's
        ([("wlan0", "10.0.0.5")], {"server_interface": ""}, "10.9.9.9"),
        ([("eth0", "169.254.3.4"), ("wlan0", "10.0.0.5")], {}, "10.9.9.9"),
        ([("eth0", "10.0.0.6")], {"server_host": "pi.example.org"}, "pi.example.org"),
    ],
)
def test_the_host_in_links_is_an_address_never_an_interface(monkeypatch, interfaces, settings, host):
    monkeypatch.setattr(blynk_pi, "interface_addresses", lambda: interfaces)
    monkeypatch.setattr(blynk_pi, "default_route_address", lambda: "10.9.9.9")
    wanted = Settings()
    for name, value in settings.items():
        setattr(wanted, name, value)
    assert blynk_pi.detect_host(wanted) == host


def test_without_a_network_the_host_is_this_machine(monkeypatch):
    monkeypatch.setattr(blynk_pi, "default_route_address", lambda: "")
    monkeypatch.setattr(blynk_pi, "interface_addresses", lambda: [("lo", "127.0.0.1")])
    assert blynk_pi.detect_host(Settings()) == "127.0.0.1"
    monkeypatch.setattr(blynk_pi, "interface_addresses", lambda: [("lo", "127.0.0.1"), ("wlan0", "10.0.0.5")])
    assert blynk_pi.detect_host(Settings()) == "10.0.0.5"


def test_bridges_of_containers_are_no_lan_addresses(monkeypatch):
    found = [("lo", "127.0.0.1"), ("docker0", "172.17.0.1"), ("br-1a2b", "172.18.0.1"), ("eth0", "10.0.0.6")]
    monkeypatch.setattr(blynk_pi, "interface_addresses", lambda: [*found, ("wlan0", "169.254.1.1")])
    assert blynk_pi.lan_addresses() == ["10.0.0.6"]
    monkeypatch.setattr(blynk_pi, "interface_addresses", lambda: [("wlan0", "169.254.1.1")])
    assert blynk_pi.lan_addresses() == ["169.254.1.1"]


# ----------------------------------------------------------------------------------------------------------------------
# This installation's own certificates
# ----------------------------------------------------------------------------------------------------------------------


def test_own_certificates_are_made_in_the_background_and_both_kinds_are_offered(home, tmp_path):
    one = home()
    assert one.certificates.context is None  # start() has not waited
    assert one.ready.wait(LONG)
    one.wait_for_both()
    with one.connect() as sock:
        assert sock.version() == "TLSv1.3"
    for ciphers in ("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256", "AES128-SHA", "AES256-SHA256"):
        with one.connect(ciphers=ciphers, version=ssl.TLSVersion.TLSv1_2) as sock:  # the last two: axTLS of old boards
            assert sock.cipher()[0] == ciphers
    with one.connect(version=ssl.TLSVersion.TLSv1_2) as sock:  # who knows EC gets it, it is much cheaper
        assert "ECDSA" in sock.cipher()[0]
    folder = tmp_path / "data" / "tls"
    assert sorted(path.name for path in folder.iterdir()) == ["ec.crt", "ec.key", "rsa.crt", "rsa.key"]
    for key in folder.glob("*.key"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_an_own_certificate_names_this_host_and_can_be_trusted(home):
    one = home(server_host="pi.example.org")
    one.wait_for_both()
    name = blynk_pi.host_name()
    for kind in ("ec", "rsa"):
        path = os.path.join(one.certificates.folder, f"{kind}.crt")
        facts = blynk_pi.certificate_facts(path)
        wanted = {name, f"{name}.local", "blynk.local", "localhost", "127.0.0.1", "pi.example.org"}
        assert wanted | set(blynk_pi.lan_addresses()) <= set(facts["names"])
        assert facts["ends"] > datetime.datetime(2049, 12, 30).timestamp()
        ciphers = {"ec": "ECDHE+ECDSA", "rsa": "ECDHE+aRSA"}[kind]
        for host in ("blynk.local", "127.0.0.1"):
            context = context_of(path, ciphers, ssl.TLSVersion.TLSv1_2)
            sock = socket.create_connection(("127.0.0.1", one.port), LONG)
            with context.wrap_socket(sock, server_hostname=host) as trusted:
                one.echo(trusted)


def test_own_certificates_stay_the_same_at_the_next_start(home, lines):
    first = home()
    first.wait_for_both()
    pem = [open(cert).read() for cert, _ in first.certificates.pairs]
    first.close()
    second = home(start=False)
    second.start()
    assert second.ready.is_set() and not second.certificates.making  # at once
    assert [open(cert).read() for cert, _ in second.certificates.pairs] == pem
    assert not said(lines, "ERROR")


def test_a_torn_own_certificate_is_set_aside_and_made_anew(home, tmp_path, lines):
    first = home()
    first.wait_for_both()
    first.close()
    folder = tmp_path / "data" / "tls"
    (folder / "ec.crt").write_bytes((folder / "ec.crt").read_bytes()[:100])
    (folder / "rsa.key").write_bytes(b"")
    second = home()
    second.wait_for_both()
    second.connect().close()
    assert (folder / "ec.crt.old").exists()
    assert len(said(lines, "is set aside")) == 2


def test_without_openssl_one_line_says_so_and_it_is_tried_again(home, lines, monkeypatch, tmp_path):
    path = os.environ["PATH"]
    monkeypatch.setenv("PATH", str(tmp_path))
    one = home(tls_reload_check_s=0.05)
    until(lambda: said(lines, "openssl"), LONG)
    time.sleep(0.3)  # several checks: still one line
    assert len(said(lines, "sudo apt install openssl")) == 1
    assert one.certificates.context is None
    with pytest.raises(OSError):
        one.connect()
    monkeypatch.setenv("PATH", path)
    assert one.ready.wait(LONG)
    one.connect().close()


def test_a_folder_that_cannot_be_written_is_one_line(home, lines, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "tls").write_text("not a folder")
    home()
    until(lambda: said(lines, "no certificate could be made"), LONG)


@pytest.mark.parametrize("t", [0, 951782399, 951782400, 1709164800, 2524607999, 4102444800, 253402300799])
def test_certificate_times(t):
    text = datetime.datetime.fromtimestamp(t, datetime.timezone.utc).strftime("%b %e %H:%M:%S %Y GMT")
    assert blynk_pi.certificate_time(text) == t


# ----------------------------------------------------------------------------------------------------------------------
# The operator's certificates
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_given_files_are_used_at_once(home, tmp_path, kind):
    cert, key = make_pair(tmp_path / "pem", kind=kind)
    one = home(tls_cert=cert, tls_key=key)
    assert one.ready.is_set()
    assert one.subject() == "first"
    assert not (tmp_path / "data" / "tls").exists()


def test_old_key_forms_and_one_file_for_both(home, tmp_path):
    cert, key = make_pair(tmp_path / "pem", kind="rsa")
    openssl("rsa", "-in", key, "-out", f"{key}1", "-traditional")  # PKCS#1
    assert "BEGIN RSA PRIVATE KEY" in open(f"{key}1").read()
    assert home(tls_cert=cert, tls_key=f"{key}1").subject() == "first"
    both = tmp_path / "both.pem"
    both.write_text(open(key).read() + open(cert).read())
    assert home(tls_cert=str(both)).subject() == "first"


def test_an_encrypted_key_needs_its_password(home, tmp_path):
    cert, key = make_pair(tmp_path / "pem", password="geheim")
    assert home(tls_cert=cert, tls_key=key, tls_key_password="geheim").subject() == "first"
    for wrong in ("", "falsch"):
        one = home(start=False, tls_cert=cert, tls_key=key, tls_key_password=wrong)
        with pytest.raises(SettingsError, match=r"tls\.key_password"):
            one.certificates.start()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda cert, key, other: shutil.copy(other[1], key), "the private key does not belong to the certificate"),
        (lambda cert, key, other: open(cert, "w").close(), "holds no certificate or no private key in PEM form"),
        (
            lambda cert, key, other: open(key, "w").write("garbage"),
            "holds no certificate or no private key in PEM form",
        ),
        (lambda cert, key, other: os.unlink(key), "own.key: cannot be used for TLS: No such file"),
    ],
)
def test_a_broken_certificate_stops_the_start_with_one_line(home, tmp_path, spoil, says):
    cert, key = make_pair(tmp_path / "pem")
    spoil(cert, key, make_pair(tmp_path / "pem", "other"))
    one = home(start=False, tls_cert=cert, tls_key=key)
    with pytest.raises(SettingsError) as caught:
        one.certificates.start()
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert str(tmp_path / "pem" / "own.") in str(caught.value)


def test_changed_files_are_taken_up_without_dropping_connections(home, tmp_path, lines):
    cert, key = make_pair(tmp_path / "pem")
    one = home(tls_cert=cert, tls_key=key, tls_reload_check_s=0.05)
    old = one.connect()
    make_pair(tmp_path / "pem", subject="/CN=second")
    until(lambda: one.subject() == "second", LONG)
    one.echo(old)
    old.close()
    open(cert, "w").close()  # broken: what was there before stays
    until(lambda: said(lines, "the certificate from before stays in use"), LONG)
    time.sleep(0.2)
    assert len(said(lines, "stays in use")) == 1
    assert one.subject() == "second"
    make_pair(tmp_path / "pem", subject="/CN=third")
    until(lambda: one.subject() == "third", LONG)


def test_reload_does_not_wait_for_the_next_check(home, tmp_path):
    cert, key = make_pair(tmp_path / "pem")
    one = home(tls_cert=cert, tls_key=key)
    make_pair(tmp_path / "pem", subject="/CN=second")
    one.call(one.certificates.reload)  # what SIGHUP does
    assert one.subject() == "second"


def test_the_acme_files_of_the_working_directory_win(home, tmp_path):
    cert, key = make_pair(tmp_path / "pem")
    acme, acme_key = make_pair(tmp_path / "pem", "acme", subject="/CN=acme")
    one = home(tls_cert=cert, tls_key=key)
    assert one.subject() == "first"
    shutil.copy(acme, tmp_path / "fullchain.crt")
    shutil.copy(acme_key, tmp_path / "privkey.pem")
    one.call(one.certificates.reload)
    assert one.subject() == "acme"
    assert home(tls_cert=cert, tls_key=key).subject() == "acme"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_the_oldest_version_can_be_set(home, tmp_path):
    cert, key = make_pair(tmp_path / "pem")
    one = home(tls_cert=cert, tls_key=key, tls_min_version="1.3")
    with pytest.raises(OSError):
        one.connect(version=ssl.TLSVersion.TLSv1_2)
    with one.connect() as sock:
        assert sock.version() == "TLSv1.3"
    two = home(tls_cert=cert, tls_key=key, tls_min_version="1.0")
    context = context_of(ciphers="DEFAULT:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1
    with context.wrap_socket(socket.create_connection(("127.0.0.1", two.port), LONG)) as sock:
        two.echo(sock)
        assert sock.version() == "TLSv1"


# ----------------------------------------------------------------------------------------------------------------------
# mDNS
# ----------------------------------------------------------------------------------------------------------------------


def test_what_is_announced():
    settings = Settings()
    text = {"version": blynk_pi.__version__, "http": "8080", "tls": "9443", "path": "/"}
    kinds = [("_blynk._tcp", 8080, text), ("_blynk-tls._tcp", 9443, text), ("_http._tcp", 8080, text)]
    assert blynk_pi.announced_services(settings) == kinds
    settings.ports_https = 0
    assert [kind for kind, _, _ in blynk_pi.announced_services(settings)] == ["_blynk._tcp", "_http._tcp"]


def test_a_foreign_mdns_packet_does_no_harm():
    name = b"\x05blynk\x05local\0"
    head = bytes.fromhex("0001 8400 0001 0001 0000 0000")
    answer = bytes.fromhex("c00c 0001 8001 0000003c 0004 0a000007")
    packet = head + name + b"\0\1\0\1" + answer
    assert blynk_pi.mdns_addresses(packet, "blynk.local") == {"10.0.0.7"}
    assert blynk_pi.mdns_addresses(packet, "Blynk.LOCAL") == {"10.0.0.7"}
    assert blynk_pi.mdns_addresses(packet, "other.local") == set()
    loop = head[:12] + b"\xc0\x0c" + b"\0\1\0\1"
    for broken in [packet[:n] for n in range(len(packet))] + [loop]:
        try:
            blynk_pi.mdns_addresses(broken, "blynk.local")
        except (ValueError, IndexError, blynk_pi.struct.error):
            pass


class Ears:
    """A python-zeroconf peer that notes who comes and goes."""

    def __init__(self, kinds):
        import zeroconf

        self.zeroconf = zeroconf.Zeroconf(interfaces=blynk_pi.lan_addresses(), ip_version=zeroconf.IPVersion.V4Only)
        self.here, self.gone = {}, set()
        zeroconf.ServiceBrowser(self.zeroconf, [f"{kind}.local." for kind in kinds], self)

    def add_service(self, zc, kind, name):
        self.here[name] = zc.get_service_info(kind, name)

    update_service = add_service

    def remove_service(self, zc, kind, name):
        self.gone.add(name)

    def close(self):
        self.zeroconf.close()


needs_zeroconf = pytest.mark.skipif(
    not blynk_pi.lan_addresses() or pytest.importorskip("zeroconf", reason="no zeroconf") is None, reason="no network"
)


@pytest.fixture
def announcer(home, monkeypatch):
    """announcer(**settings) -> an Announcer that begins at once, on a loop that runs."""
    monkeypatch.setattr(blynk_pi, "ANNOUNCE_AFTER_SECONDS", 0)
    monkeypatch.setattr(blynk_pi, "NETWORK_CHECK_SECONDS", 0.1)
    monkeypatch.setattr(blynk_pi, "AVAHI_SERVICE_FILE", "/nowhere")
    made = []

    def make(**settings):
        one = home(discovery_name=f"test-{uuid.uuid4().hex[:8]}", start=False, **settings)
        one.thread.start()
        made.append(Announcer(one))
        one.call(made[-1].start)
        return made[-1]

    yield make
    for one in made:
        one.stop()


@needs_zeroconf
def test_a_peer_in_the_lan_sees_the_server_come_and_go(announcer, lines):
    kinds = ("_blynk._tcp", "_blynk-tls._tcp", "_http._tcp")
    ears = Ears(kinds)
    try:
        one = announcer(ports_http=8085)
        names = {f"{one.settings.discovery_name}.{kind}.local." for kind in kinds}
        until(lambda: names <= {name for name, info in ears.here.items() if info}, LONG, "the announcement")
        info = ears.here[f"{one.settings.discovery_name}._blynk._tcp.local."]
        assert info.port == 8085
        assert info.properties == {
            b"version": blynk_pi.__version__.encode(),
            b"http": b"8085",
            b"tls": b"9443",
            b"path": b"/",
        }
        assert info.parsed_addresses() == sorted(blynk_pi.lan_addresses())
        assert ears.here[f"{one.settings.discovery_name}._blynk-tls._tcp.local."].port == 9443
        assert info.server == "blynk.local."
        assert blynk_pi.mdns_lookup("blynk.local") >= set(blynk_pi.lan_addresses())
        assert said(lines, f"announced in the LAN as {one.settings.discovery_name}")
        began = time.monotonic()
        one.stop()
        assert time.monotonic() - began < 1
        until(lambda: names <= ears.gone, LONG, "the withdrawal")
    finally:
        ears.close()


@needs_zeroconf
def test_blynk_local_is_left_to_the_host_that_has_it(announcer, monkeypatch, lines):
    monkeypatch.setattr(blynk_pi, "mdns_lookup", lambda name, seconds=1: {"203.0.113.7"})
    one = announcer()
    until(lambda: said(lines, "announced in the LAN"), LONG)
    assert f"{blynk_pi.host_name()}.local" in said(lines, f"announced in the LAN as {one.settings.discovery_name}")[0]


@needs_zeroconf
def test_a_network_that_comes_later_is_followed(announcer, monkeypatch, lines):
    real = blynk_pi.lan_addresses()
    monkeypatch.setattr(blynk_pi, "lan_addresses", list)
    one = announcer()
    ears_of = []
    time.sleep(0.3)
    assert one.zeroconf is None and not said(lines, "announced")
    monkeypatch.setattr(blynk_pi, "lan_addresses", lambda: real)
    ears_of.append(Ears(["_blynk._tcp"]))
    try:
        name = f"{one.settings.discovery_name}._blynk._tcp.local."
        until(lambda: ears_of[0].here.get(name), LONG, "the announcement")
        monkeypatch.setattr(blynk_pi, "lan_addresses", list)
        until(lambda: name in ears_of[0].gone, LONG, "the withdrawal")
    finally:
        ears_of[0].close()


def test_a_missing_package_is_one_line(announcer, monkeypatch, lines):
    monkeypatch.setattr(blynk_pi, "lan_addresses", lambda: ["127.0.0.1"])
    monkeypatch.setitem(sys.modules, "zeroconf", None)
    announcer()
    until(lambda: said(lines, "pip install zeroconf"), LONG)
    time.sleep(0.3)
    assert len(said(lines, "apt install python3-zeroconf")) == 1


def test_discovery_off_and_loopback_only_announce_nothing(announcer, monkeypatch, lines):
    assert announcer(discovery_mode="off").timer is None
    one = announcer(server_listen="127.0.0.1")
    time.sleep(0.3)
    assert one.thread is None and not list(lines)
    monkeypatch.setattr(blynk_pi, "AVAHI_SERVICE_FILE", __file__)
    assert announcer().timer is None
    assert said(lines, "the avahi daemon announces this server")


AVAHI = """
ip link set lo up; ip link set eth0 up; ip addr add 10.213.7.2/24 dev eth0
mount -t tmpfs none /run && mkdir -p /run/dbus /run/avahi-daemon
dbus-daemon --system --fork && avahi-daemon --daemonize --no-drop-root --no-rlimits --no-chroot || exit 1
exec stdbuf -oL avahi-browse --parsable --all --resolve --no-db-lookup
"""
SERVER = """
ip link set lo up; ip link set eth0 up; ip addr add 10.213.7.1/24 dev eth0
exec "$@"
"""


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or not all(map(shutil.which, ("avahi-daemon", "avahi-browse", "ip"))),
    reason="takes root, avahi-daemon, avahi-browse and ip",
)
def test_avahi_browse_in_a_network_of_its_own_sees_the_server_come_and_go(make_server, tmp_path):
    tag = uuid.uuid4().hex[:6]
    spaces = [f"bp-{tag}-{i}" for i in range(2)]
    for space in spaces:
        if subprocess.run(["ip", "netns", "add", space], capture_output=True).returncode:
            pytest.skip("no network namespaces on this machine")
    processes = []
    try:
        link = [
            "ip",
            "link",
            "add",
            "eth0",
            "netns",
            spaces[0],
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            spaces[1],
        ]
        subprocess.run(link, check=True)
        browse = ["ip", "netns", "exec", spaces[0], "unshare", "-m", "sh", "-c", AVAHI]
        avahi = subprocess.Popen(
            browse, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        processes.append(avahi)
        heard = []
        threading.Thread(target=lambda: heard.extend(iter(avahi.stdout.readline, "")), daemon=True).start()
        server = make_server(
            start=False, server_host="", server_listen="", discovery_mode="zeroconf", discovery_name=tag
        )
        command = ["ip", "netns", "exec", spaces[1], "sh", "-c", SERVER, "sh", *server.command()]
        with open(tmp_path / "log", "wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        processes.append(process)
        for kind in ("_blynk._tcp", "_blynk-tls._tcp", "_http._tcp"):
            until(partial(seen, heard, "=", tag, kind), LONG, kind)
        record = seen(heard, "=", tag, "_blynk._tcp")
        assert record[6:9] == ["blynk.local", "10.213.7.1", str(server.http_port)]
        assert f'"tls={server.https_port}"' in record[9] and '"path=/"' in record[9]
        process.terminate()
        assert process.wait(LONG) == 0
        for kind in ("_blynk._tcp", "_blynk-tls._tcp", "_http._tcp"):
            until(partial(seen, heard, "-", tag, kind), LONG, f"withdrawal of {kind}")
    finally:
        for process in processes:
            process.kill()
            process.wait()
        for space in spaces:
            for pid in subprocess.run(["ip", "netns", "pids", space], capture_output=True, text=True).stdout.split():
                os.kill(int(pid), 15)
            subprocess.run(["ip", "netns", "del", space], check=False)


def seen(heard, sign, name, kind):
    """The record of avahi-browse: sign;interface;protocol;name;type;domain[;host;address;port;text]."""
    for line in list(heard):
        fields = line.rstrip("\n").split(";")
        if fields[0] == sign and fields[3:5] == [name, kind] and fields[2] == "IPv4":
            return fields
    return None


def test_the_avahi_service_file_is_what_avahi_reads():
    import xml.etree.ElementTree

    settings = Settings()
    settings.discovery_name = "Küche & <Bad>"
    settings.ports_http = 8085
    root = xml.etree.ElementTree.fromstring(blynk_pi.avahi_service(settings).encode())
    assert root.findtext("name") == "Küche & <Bad>"
    services = {s.findtext("type"): s for s in root.findall("service")}
    assert sorted(services) == ["_blynk-tls._tcp", "_blynk._tcp", "_http._tcp"]
    assert services["_blynk._tcp"].findtext("port") == "8085"
    assert "http=8085" in [record.text for record in services["_http._tcp"].findall("txt-record")]
