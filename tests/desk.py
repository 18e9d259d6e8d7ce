"""A desk to try the rooms of the data on: real History, real loop, clocks that a test moves."""

import json
import os
import struct

import blynk_pi

ANNA = "anna@example.com"
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
NOON = 1_800_014_400_000 // DAY * DAY + 12 * HOUR  # some day's noon in 2027


class Clock:
    """Two clocks that stand until a test moves them."""

    def __init__(self, ms=NOON):
        self.ms, self.seconds = ms, 1000.0

    def pass_by(self, ms):
        self.ms += ms
        self.seconds += ms / 1000

    def set_to(self, ms):
        """Somebody sets the wall clock; no time passes."""
        self.ms = ms


class Desk:
    """A History with a real loop on false clocks; store() does what the store does each minute."""

    def __init__(self, folder, clock=None, snapshot=None):
        self.clock = clock or Clock()
        self.loop = blynk_pi.Loop(monotonic=lambda: self.clock.seconds, wall=lambda: self.clock.ms / 1000)
        self.settings = blynk_pi.Settings()
        self.settings.data_folder, self.settings.data_csv_folder = str(folder), os.path.join(folder, "csv")
        self.health, self.accounts, self.database = {}, {}, None
        self.ledger = blynk_pi.Ledger(self.loop, {"TERMINAL": 25, "LCD": 6, "TABLE": 100, "MAP": 25})
        self.history = blynk_pi.History(self)
        self.journal = []
        self.history.restore(snapshot)

    def add(self, value, name="v1", device=0, ms=None):
        self.turn()
        self.history._series(ANNA, 1, device, name).add(value, self.clock.ms if ms is None else ms)

    def turn(self):
        self.loop.run_once(0)

    def second(self):
        """What the store does each second."""
        self.turn()
        self.journal += json.loads(json.dumps(self.history.drain()))

    def minute(self):
        """What the store does each minute; gives the snapshot as it is read again."""
        self.second()
        work = self.history.flush(self.clock.ms)
        snapshot = json.loads(json.dumps(self.history.snapshot()))
        self.history.write(work)
        self.journal = []
        return snapshot

    def live(self, minutes, value=None, step=MINUTE // 2):
        """Lets so many minutes pass: a value each half minute, stored each minute."""
        for n in range(minutes * MINUTE // step):
            self.add(n if value is None else value)
            self.clock.pass_by(step)
            if self.clock.ms % MINUTE < step:
                self.minute()

    def file(self, name="v1", kind="minute", device=0):
        path = os.path.join(self.settings.data_folder, "data", ANNA, f"history_1-{device}_{name}_{kind}.bin")
        if not os.path.exists(path):
            return []
        with open(path, "rb") as file:
            data = file.read()
        assert len(data) % 16 == 0
        return [(ts, value) for value, ts in struct.iter_unpack(">dq", data)]

    def close(self):
        self.loop.close()


def project_of(desk, **document):
    devices = [{"id": n, "name": f"D{n}", "boardType": "ESP8266"} for n in range(4)]
    raw = {
        "email": ANNA,
        "name": ANNA,
        "appName": "Blynk",
        "profile": {"dashBoards": [{"id": 1, "devices": devices, **document}]},
    }
    account = blynk_pi.Account(desk.ledger, blynk_pi.read_document("USER", raw))
    desk.accounts[ANNA, "Blynk"] = account
    return account.projects[1]
