#!/usr/bin/env python3
"""Measures what the design budgets and prints one table: run by hand, never a timed test.

    tests/bench.py                                  a server of its own, about two minutes
    tests/bench.py --quick                          about forty seconds, rougher
    tests/bench.py --server 127.0.0.1:8080:9443 --pid 1234        a server that runs already (limits lifted, see below)
    tests/bench.py --load ./blynk_load              a compiled load generator instead of the built-in one
    tests/bench.py store forward                    only the measurements whose names begin so

The load comes from other processes, on another core than the server's when there are two; its bytes are made
beforehand. It still is Python: when the load, not the server, is at its limit, the line says so, and the figure to
compare is the server's CPU time per message (`on one core` = its inverse). Loopback figures of a shared machine are
noisy: repeat, compare medians, quote ratios. An own server runs with `limits.messages_per_s` lifted and logs errors
only.

A load generator for --load takes: MODE HOST PORT TLS_PORT TOKENS_FILE APP_INIT_FILE MESSAGES DEPTH, MODE one of store,
forward, command, and prints a line with `rate NUMBER`.

Standard library only.
"""

import argparse
import multiprocessing
import os
import resource
import selectors
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from clients import OK, App, Hardware, connect, connect_tls, new_email, password_hash, widget
from servers import HOST, Server, rss_kb_of

# The Java server's figures on the machine the budgets were written for: messages a second on one core.
JAVA = {
    ("store", 1, 100): 3_800_000,
    ("store", 100, 10): 2_550_000,
    ("store", 100, 1): 300_000,
    ("forward", 100, 1): 120_000,
    ("forward", 1, 1): 235_000,
    ("forward", 1, 10): 194_000,
    ("forward", 1, 100): 172_000,
    ("command", 1, 10): 140_000,
}
JAVA_LATENCY_P99_US = 827
JAVA_HTTP = 75_000

HARDWARE, PING, PING_ID = 20, 6, 65535
PINS = 8


class Row:
    """A line of the table. `better`: +1 when more is better, -1 when less is; budget None: for information."""

    def __init__(self, name, value, unit, budget=None, better=-1, note=""):
        self.name, self.value, self.unit, self.budget, self.better, self.note = name, value, unit, budget, better, note

    @property
    def verdict(self):
        if self.budget is None or self.value is None:
            return ""
        return "ok" if (self.value - self.budget) * self.better >= 0 else "OVER" if self.better < 0 else "SHORT"


def figure(value):
    if value is None:
        return "-"
    if abs(value) >= 10000:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.2f}"


def print_table(rows):
    lines = [("what", "measured", "unit", "budget", "verdict", "note")]
    for row in rows:
        sign = "" if row.budget is None else "≥ " if row.better > 0 else "≤ "
        budget = sign + figure(row.budget) if row.budget is not None else ""
        lines.append((row.name, figure(row.value), row.unit, budget, row.verdict, row.note))
    widths = [max(len(line[i]) for line in lines) for i in range(6)]
    for i, line in enumerate(lines):
        cells = [line[0].ljust(widths[0]), line[1].rjust(widths[1]), line[2].ljust(widths[2])]
        cells += [line[3].rjust(widths[3]), line[4].ljust(widths[4]), line[5]]
        print("  ".join(cells).rstrip())
        if i == 0:
            print("  ".join("-" * w for w in widths[:5]))


# ---------------------------------------------------------------------------------------------------------------
# The server under test
# ---------------------------------------------------------------------------------------------------------------


def cpu_of(pid):
    """CPU seconds of all threads of a process, to the microsecond."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/schedstat") as f:
                total += int(f.read().split()[0])
        except FileNotFoundError:
            pass  # the thread has ended meanwhile
    return total / 1e9


class Bench:
    """What the measurements share: where the server is, its account, the options."""

    def __init__(self, options):
        self.options, self.quick, self.load = options, options.quick, options.load
        self.own, self.pid = None, options.pid
        self.cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
        self.folder = tempfile.TemporaryDirectory(prefix="bp-bench-")
        if options.server:
            self.host, http, https = options.server.split(":")
            self.http_port, self.https_port = int(http), int(https)
        else:
            self.start_own()
        self.account = None

    def new_server(self, name, python=None, **settings):
        folder = os.path.join(self.folder.name, name)
        os.makedirs(folder)
        return Server(
            folder,
            python=python or self.options.python,
            limits_messages_per_s=100_000_000,
            limits_devices=5000,
            timeouts_hardware_idle_s=600,
            log_level="error",
            **settings,
        )

    def start_own(self):
        self.own = self.new_server("server")
        self.own.start()
        self.adopt()

    def adopt(self):
        self.host, self.http_port, self.https_port = HOST, self.own.http_port, self.own.https_port
        self.pid = self.own.pid
        if len(self.cores) > 1:
            for task in os.listdir(f"/proc/{self.pid}/task"):
                os.sched_setaffinity(int(task), {self.cores[0]})

    def load_core(self):
        """For child processes: away from the server's core."""
        if len(self.cores) > 1:
            os.sched_setaffinity(0, set(self.cores[1:]))

    def cpu(self):
        return cpu_of(self.pid) if self.pid else None

    def rss(self):
        return rss_kb_of(self.pid) if self.pid else None

    def prepare(self):
        """An account with an active project and a hundred devices: (email, tokens)."""
        if self.account is None:
            app = App(self.host, self.https_port)
            email = new_email("bench")
            assert app.register(email) == OK and app.login(email) == OK, "cannot make an account"
            app.make_project(1, devices=100)
            tokens = [device["token"] for device in app.json("GET_DEVICES", 1)]
            app.close()
            self.account = email, tokens
        return self.account

    def app(self):
        app = App(self.host, self.https_port)
        email, _ = self.prepare()
        assert app.login(email) == OK
        app.activate(1)
        return app

    def close(self):
        if self.own is not None:
            self.own.finish()
        self.folder.cleanup()


def in_process(bench, function, *args):
    """Runs function(pipe, *args) in a process of its own on the load's core; returns (process, our end of the pipe)."""
    ours, theirs = multiprocessing.Pipe()

    def run():
        bench.load_core()
        function(theirs, *args)

    process = multiprocessing.get_context("fork").Process(target=run, daemon=True)
    process.start()
    theirs.close()
    return process, ours


# ---------------------------------------------------------------------------------------------------------------
# The loads; each runs in a process of its own, says "ready", waits for "go", sends its figures
# ---------------------------------------------------------------------------------------------------------------


def hardware_frame(body, id):
    return struct.pack(">BHH", HARDWARE, id, len(body)) + body


def value_body(i):
    """Every body has the same length, so that a receiver can count messages by counting bytes."""
    return b"vw\x00%d\x00%07d" % (i % PINS + 1, i)


def push_boards(pipe, address, tokens, messages, depth):
    """Boards that write as fast as the server takes it, `depth` frames a write; each ends with a PING."""
    socks = [Hardware(*address, token).sock for token in tokens]
    each = messages // len(socks)
    blocks = [
        b"".join(hardware_frame(value_body(i * depth + k), 2 + k) for k in range(depth)) for i in range(min(64, each))
    ]
    ping = struct.pack(">BHH", PING, PING_ID, 0)
    answer = struct.pack(">BHH", 0, PING_ID, 200)
    left = dict.fromkeys(socks, each)
    for sock in socks:
        sock.setblocking(False)
    pipe.send("ready")
    pipe.recv()
    began, cpu = time.monotonic(), time.process_time()
    turn = 0
    rest = {}  # what a full socket buffer did not take
    while left:
        blocked = True
        for sock in list(left):
            data = rest.pop(sock, None)
            if data is None:
                if left[sock] <= 0:
                    data = ping
                else:
                    data = blocks[turn % len(blocks)]
                    if left[sock] < depth:
                        data = data[: len(data) // depth * left[sock]]
                    left[sock] -= depth
            turn += 1
            try:
                sent = sock.send(data)
                blocked = False
            except BlockingIOError:
                sent = 0
            if sent < len(data):
                rest[sock] = data[sent:]
            elif data is ping:
                del left[sock]
        if blocked:
            time.sleep(0.0001)
    for sock in socks:
        sock.settimeout(60)
        got = b""
        while answer not in got:
            piece = sock.recv(65536)
            assert piece, "the server closed a board's connection"
            got += piece
    pipe.send((each * len(socks), time.monotonic() - began, time.process_time() - cpu))
    pipe.recv()


def count_app(pipe, host, port, email, frame_size):
    """An app that counts the values it gets by their bytes."""
    app = App(host, port)
    assert app.login(email) == OK
    app.activate(1)
    pipe.send("ready")
    pipe.recv()
    app.sock.settimeout(0.5)
    total, last, began = 0, time.monotonic(), time.monotonic()
    while True:
        try:
            data = app.sock.recv(1 << 18)
        except OSError:
            if pipe.poll():
                break
            continue
        if not data:
            break
        total += len(data)
        last = time.monotonic()
    pipe.send((total / frame_size, last - began))


def push_app(pipe, host, port, email, messages, depth):
    """An app that writes to one board as fast as it may."""
    app = App(host, port)
    assert app.login(email) == OK
    app.activate(1)
    app.inbox.clear()
    body = b"1-0\x00" + value_body(1)
    block = (struct.pack(">BHI", HARDWARE, 2, len(body)) + body) * depth
    pipe.send("ready")
    pipe.recv()
    app.sock.settimeout(60)
    for _ in range(messages // depth):
        app.sock.sendall(block)
    pipe.send("sent")
    pipe.recv()


def count_board(pipe, address, token, messages):
    hw = Hardware(*address, token)
    size = 5 + len(value_body(1))
    pipe.send("ready")
    pipe.recv()
    began = time.monotonic()
    total = sum(len(frame.body) + 5 for frame in hw.inbox)
    hw.sock.settimeout(5)
    last = began
    try:
        while total < messages * size:
            data = hw.sock.recv(1 << 18)
            if not data:
                break
            total += len(data)
            last = time.monotonic()
    except TimeoutError:
        pass
    pipe.send((total / size, last - began))


def one_at_a_time(pipe, host, http_port, https_port, email, token, count, pause):
    """Sends one value after the other and takes the time until the app has it; microseconds."""
    app, hw = App(host, https_port), Hardware(host, http_port, token)
    assert app.login(email) == OK
    app.activate(1)
    app.inbox.clear()
    app.receive(0.2)
    app.inbox.clear()
    hw.sock.settimeout(5)
    app.sock.settimeout(5)
    took = []
    for i in range(count):
        frame = hardware_frame(value_body(i), 2)
        began = time.perf_counter()
        hw.sock.send(frame)
        app.sock.recv(4096)
        took.append((time.perf_counter() - began) * 1e6)
        time.sleep(pause)
    pipe.send(took)


def ask_http(pipe, address, path, requests, connections):
    """HTTP clients with one request at a time each, connections kept alive."""
    request = f"GET {path} HTTP/1.1\r\nHost: {address[0]}\r\n\r\n".encode()
    selector = selectors.DefaultSelector()
    socks = [connect(*address) for _ in range(connections)]
    for sock in socks:
        selector.register(sock, selectors.EVENT_READ)
    pipe.send("ready")
    pipe.recv()
    began, cpu = time.monotonic(), time.process_time()
    for sock in socks:
        sock.send(request)
    left, running = requests - connections, connections
    while running:
        for key, _ in selector.select():
            answer = key.fileobj.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200"), answer[:200]
            if left > 0:
                left -= 1
                key.fileobj.send(request)
            else:
                running -= 1
                selector.unregister(key.fileobj)
    pipe.send((requests, time.monotonic() - began, time.process_time() - cpu))


# ---------------------------------------------------------------------------------------------------------------
# Measurements: each is a generator of rows
# ---------------------------------------------------------------------------------------------------------------


def measure_start(bench):
    """From the start of the process to the first accepted connection, certificate and bytecode being there."""
    if bench.own is None:
        return
    times = []
    for _ in range(3 if bench.quick else 7):
        bench.own.stop(10)
        began = time.monotonic()
        bench.own.launch()
        while True:
            try:
                connect(HOST, bench.own.https_port).close()
                break
            except OSError:
                assert bench.own.running, f"the server ended:\n{bench.own.log()[-2000:]}"
                time.sleep(0.001)
        times.append(time.monotonic() - began)
        bench.own.wait_listening()
    bench.adopt()
    yield Row("start to listening", statistics.median(times), "s", 0.35)


def measure_memory(bench):
    if bench.pid is None:
        return
    time.sleep(1.5)
    yield Row("resident, idle", bench.rss() / 1024, "MB", 22, note="aim 20")
    if bench.own is not None:
        yield from memory_with_zeroconf(bench)
    email, tokens = bench.prepare()
    count = 200 if bench.quick else 1000
    warm = [Hardware(bench.host, bench.http_port, token) for token in tokens[:50]]
    before = bench.rss()
    boards = [Hardware(bench.host, bench.http_port, tokens[i % len(tokens)]) for i in range(count)]
    yield Row("resident per idle board", (bench.rss() - before) / count, "KB", 4, note=f"{count} logged in, plain")
    count = 50 if bench.quick else 200
    phones = [bench.app() for _ in range(5)]
    before = bench.rss()
    phones += [bench.app() for _ in range(count)]
    yield Row("resident per idle app", (bench.rss() - before) / count, "KB", 24, note=f"{count} logged in, TLS")
    for peer in warm + boards + phones:
        peer.close()


def memory_with_zeroconf(bench):
    try:
        import zeroconf  # noqa: F401
    except ImportError:
        return
    server = bench.new_server("zeroconf", python=sys.executable, discovery_mode="zeroconf")
    server.start()
    time.sleep(2)
    yield Row("resident, idle, zeroconf on", rss_kb_of(server.pid) / 1024, "MB", 32)
    server.finish()


def load_files(bench, connections):
    """What a compiled load generator reads: tokens and the app's opening frames."""
    email, tokens = bench.prepare()
    tokens_path = os.path.join(bench.folder.name, f"tokens{connections}")
    with open(tokens_path, "w") as f:
        f.write("\n".join(tokens[:connections]) + "\n")
    init_path = os.path.join(bench.folder.name, "init")
    packer = App.__new__(App)
    login = "\0".join([email, password_hash("pw", email), "Android", "2.27.0", "Blynk"])
    with open(init_path, "wb") as f:
        f.write(packer.pack("LOGIN", login.encode(), 1) + packer.pack("ACTIVATE_DASHBOARD", b"1", 2))
    return tokens_path, init_path


def compiled_load(bench, mode, connections, depth, messages):
    """(messages a second, server CPU seconds) of a run of the program given with --load."""
    tokens, init = load_files(bench, connections)
    cpu = bench.cpu()
    done = subprocess.run(
        [
            *(bench.load, mode, bench.host, str(bench.http_port), str(bench.https_port)),
            *(tokens, "-" if mode == "store" else init, str(messages), str(depth)),
        ],
        capture_output=True,
        text=True,
        preexec_fn=bench.load_core,
    )
    words = done.stdout.split()
    if done.returncode or "rate" not in words:
        print(f"{bench.load} {mode}: {done.stdout}{done.stderr}", file=sys.stderr)
        return None, None
    return float(words[words.index("rate") + 1]), bench.cpu() - cpu if bench.pid else None


def rate_row(name, rate, messages, cpu, java, factor, note=""):
    """A throughput row: the verdict goes by what one core of the server can do when the load was the limit."""
    value, notes = rate, [note] if note else []
    if rate and cpu:
        per_core = messages / cpu
        notes.append(f"{cpu / messages * 1e6:.2f} µs server CPU each")
        busy = cpu * rate / messages
        if busy < 0.85:
            notes.append(f"the load was the limit (server {busy:.0%} busy); on one core {figure(per_core)}")
            value = per_core
    if java:
        notes.append(f"{value / java:.2f} × Java" if value else "failed")
    return Row(name, value, "msg/s", java * factor if java and factor else None, +1, ", ".join(notes))


def measure_store(bench):
    """Boards to the server, nobody watching."""
    _, tokens = bench.prepare()
    scale = 1 if bench.quick else 4
    for connections, depth, messages, factor in [
        (1, 1, 300_000, None),
        (1, 10, 1_000_000, None),
        (1, 100, 1_000_000, None),
        (100, 1, 300_000, 1),
        (100, 10, 1_000_000, 0.5),
        (100, 100, 1_000_000, None),
    ]:
        messages *= scale
        name = f"store, {connections} board{'s' * (connections > 1)}, depth {depth}"
        java = JAVA.get(("store", connections, depth))
        if bench.load:
            rate, cpu = compiled_load(bench, "store", connections, depth, messages)
            yield rate_row(name, rate, messages, cpu, java, factor)
            continue
        process, pipe = in_process(
            bench, push_boards, (bench.host, bench.http_port), tokens[:connections], messages, depth
        )
        pipe.recv()
        cpu = bench.cpu()
        pipe.send("go")
        count, seconds, load_cpu = pipe.recv()
        cpu = bench.cpu() - cpu if bench.pid else None
        pipe.send("end")
        process.join()
        yield rate_row(name, count / seconds, count, cpu, java, factor)


def measure_forward(bench):
    """Boards to a TLS app."""
    email, tokens = bench.prepare()
    scale = 1 if bench.quick else 4
    for connections, depth, messages, factor in [
        (1, 1, 150_000, None),
        (1, 10, 500_000, 2),
        (1, 100, 600_000, 2),
        (100, 1, 150_000, None),
        (100, 10, 500_000, None),
    ]:
        messages *= scale
        name = f"forward, {connections} board{'s' * (connections > 1)}, depth {depth}"
        java = JAVA.get(("forward", connections, depth))
        if bench.load:
            rate, cpu = compiled_load(bench, "forward", connections, depth, messages)
            yield rate_row(name, rate, messages, cpu, java, factor)
            continue
        size = 7 + len(b"1-0\0") + len(value_body(1))
        pusher, push = in_process(
            bench, push_boards, (bench.host, bench.http_port), tokens[:1] * connections, messages, depth
        )
        push.recv()
        counter, counted = in_process(bench, count_app, bench.host, bench.https_port, email, size)
        counted.recv()
        counted.send("go")
        cpu = bench.cpu()
        push.send("go")
        sent, seconds, _ = push.recv()
        counted.send("end")
        got, until_last = counted.recv()
        cpu = bench.cpu() - cpu if bench.pid else None
        push.send("end")
        pusher.join()
        counter.join()
        note = "" if got >= sent * 0.999 else f"{got / sent:.0%} arrived"
        yield rate_row(name, got / max(seconds, until_last), int(got) or 1, cpu, java, factor, note)


def measure_command(bench):
    """A TLS app to one board."""
    email, tokens = bench.prepare()
    messages = 30_000 if bench.quick else 200_000
    for depth in (1, 10):
        name, java = f"command, app to board, depth {depth}", JAVA.get(("command", 1, depth))
        if bench.load:
            rate, cpu = compiled_load(bench, "command", 1, depth, messages)
            yield rate_row(name, rate, messages, cpu, java, None)
            continue
        counter, counted = in_process(bench, count_board, (bench.host, bench.http_port), tokens[0], messages)
        counted.recv()
        pusher, push = in_process(bench, push_app, bench.host, bench.https_port, email, messages, depth)
        push.recv()
        counted.send("go")
        cpu = bench.cpu()
        push.send("go")
        push.recv()
        got, seconds = counted.recv()
        cpu = bench.cpu() - cpu if bench.pid else None
        push.send("end")
        pusher.join()
        counter.join()
        note = "" if got >= messages * 0.999 else f"{got / messages:.0%} arrived"
        yield rate_row(name, got / max(seconds, 1e-9), int(got) or 1, cpu, java, None, note)


def measure_latency(bench):
    """Board to TLS app, one value at a time, a millisecond apart."""
    email, tokens = bench.prepare()
    count = 1000 if bench.quick else 5000
    process, pipe = in_process(
        bench, one_at_a_time, bench.host, bench.http_port, bench.https_port, email, tokens[0], count, 0.001
    )
    took = sorted(pipe.recv())
    process.join()
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        budget = JAVA_LATENCY_P99_US if name == "p99" else None
        yield Row(f"latency board to app, {name}", took[int(len(took) * share)], "µs", budget)
    yield Row("latency board to app, max", took[-1], "µs")


def latency_p99(bench, *where):
    process, pipe = in_process(bench, one_at_a_time, *where, 1500, 0.001)
    took = sorted(pipe.recv())
    process.join()
    return took[int(len(took) * 0.99)]


def measure_hanging(bench):
    """The same while every network worker hangs: a mail server and a webhook's server that never answer."""
    if bench.options.server:
        return
    with socket.create_server((HOST, 0)) as hole:
        port = hole.getsockname()[1]
        mail = {"mail_host": HOST, "mail_port": port, "mail_security": "none", "mail_username": "bench@example.com"}
        server = bench.new_server("hanging", mail_password="none", **mail)
        server.start()
        app = App(HOST, server.https_port)
        email = new_email("hanging")
        assert app.register(email) == OK and app.login(email) == OK  # the greeting mail holds one worker
        app.make_project(1, widgets=[widget("WEBHOOK", 1, pin=20, url=f"http://{HOST}:{port}/")])
        with Hardware(HOST, server.http_port, app.token()) as hw:
            hw.send("vw 20 1")  # and this call the other
            hw.ping()
            who, tokens = bench.prepare()
            quiet = latency_p99(bench, bench.host, bench.http_port, bench.https_port, who, tokens[0])
            hung = latency_p99(bench, HOST, server.http_port, server.https_port, email, app.token())
        app.close()
        server.finish()
    yield Row(
        "latency p99, network workers hang", hung, "µs", 2 * quiet, note=f"quiet {quiet:.0f} µs, budget twice that"
    )


def measure_http(bench):
    """HTTP on the plain port, sixteen connections."""
    _, tokens = bench.prepare()
    with Hardware(bench.host, bench.http_port, tokens[0]) as hw:
        hw.send("vw 1 12")
        hw.ping()
    requests = 5_000 if bench.quick else 30_000
    for name, path in (("get", f"/{tokens[0]}/get/V1"), ("update", f"/{tokens[0]}/update/V1?value=12")):
        process, pipe = in_process(bench, ask_http, (bench.host, bench.http_port), path, requests, 16)
        pipe.recv()
        cpu = bench.cpu()
        pipe.send("go")
        count, seconds, _ = pipe.recv()
        cpu = bench.cpu() - cpu if bench.pid else None
        process.join()
        yield rate_row(f"HTTP {name}", count / seconds, count, cpu, JAVA_HTTP, None)


def measure_idle(bench):
    """CPU with a hundred boards that send a PING every ten seconds."""
    if bench.pid is None:
        return
    _, tokens = bench.prepare()
    boards = [Hardware(bench.host, bench.http_port, token) for token in tokens]
    time.sleep(1.5)
    seconds = 10 if bench.quick else 30
    cpu, began = bench.cpu(), time.monotonic()
    i = 0
    while time.monotonic() - began < seconds:
        boards[i % len(boards)].ping()
        i += 1
        time.sleep(max(0.0, began + i * 0.1 - time.monotonic()))
    yield Row("CPU, 100 boards that ping", (bench.cpu() - cpu) / seconds * 100, "%", 0.2)
    for board in boards:
        board.close()


def measure_handshake(bench):
    """CPU of a TLS handshake of a fresh connection."""
    if bench.pid is None:
        return
    count = 50 if bench.quick else 300
    cpu = bench.cpu()
    for _ in range(count):
        connect_tls(bench.host, bench.https_port).close()
    yield Row("TLS handshake", (bench.cpu() - cpu) / count * 1000, "ms CPU")


def measure_graphs(bench):
    """A day of minutes out of a month of them, 200 pins, asked for by an app over TLS."""
    if bench.own is None:
        return
    email, _ = bench.prepare()
    app = bench.app()
    graph = {"type": "ENHANCED_GRAPH", "id": 77, "width": 8, "height": 4}
    graph["dataStreams"] = [{"targetId": 0, "pin": {"pin": 1, "pinType": "VIRTUAL"}}]
    assert app.ask("CREATE_WIDGET", 1, graph) == OK
    folder = os.path.join(bench.own.data, "data", email)
    os.makedirs(folder, exist_ok=True)
    first = int(time.time()) // 60 * 60_000 - 43_200 * 60_000
    month = b"".join(struct.pack(">dq", 20 + n % 100 * 0.37, first + n * 60_000) for n in range(43_200))
    for pin in range(200):
        with open(os.path.join(folder, f"history_1-{pin // 50}_v{pin % 50}_minute.bin"), "wb") as file:
            file.write(month)
    took = []
    for _ in range(50 if bench.quick else 300):
        began = time.perf_counter()
        assert isinstance(app.ask("GET_ENHANCED_GRAPH_DATA", "1", "77", "DAY"), bytes)
        took.append((time.perf_counter() - began) * 1000)
    assert app.ask("DELETE_WIDGET", 1, 77) == OK
    app.close()
    yield Row("graph, a day out of a month, 200 pins: median", statistics.median(took), "ms", 5)
    yield Row("graph, p99", sorted(took)[len(took) * 99 // 100], "ms")


MEASURES = (
    ("start", measure_start),
    ("memory", measure_memory),
    ("idle", measure_idle),
    ("store", measure_store),
    ("forward", measure_forward),
    ("command", measure_command),
    ("latency", measure_latency),
    ("hanging", measure_hanging),
    ("http", measure_http),
    ("graphs", measure_graphs),
    ("handshake", measure_handshake),
)


def measure_afterwards(bench):
    if bench.pid:
        yield Row("resident, after all that", bench.rss() / 1024, "MB")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "names", nargs="*", help=f"of {', '.join(name for name, _ in MEASURES)}; all when none is given"
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--server", metavar="HOST:HTTP_PORT:TLS_PORT", help="a server that runs already")
    parser.add_argument("--pid", type=int, help="its process, for memory and CPU")
    parser.add_argument("--load", metavar="PROGRAM", help="a compiled load generator")
    parser.add_argument(
        "--python", default="/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable
    )
    options = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    bench = Bench(options)
    rows = []
    try:
        for name, measure in (*MEASURES, ("", measure_afterwards)):
            if options.names and not any(name.startswith(wanted) for wanted in options.names):
                continue
            print(f"{name} …", end="\r", file=sys.stderr, flush=True)
            rows += measure(bench)
    finally:
        bench.close()
    print_table(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
