"""Raw data: every value as it came, in SQLite or CSV files; PostgreSQL in test_database.py."""

import csv
import os
import sqlite3
import time

import pytest
from desk import ANNA, Desk, project_of

import blynk_pi


@pytest.fixture
def raw(tmp_path):
    made = []

    def make(store, **settings):
        desk = Desk(tmp_path)
        desk.settings.raw_data_store = store
        for name, value in settings.items():
            setattr(desk.settings, name, value)
        desk.account = project_of(desk).account
        desk.raw_data = desk.history.raw_data = blynk_pi.open_raw_data(desk)
        made.append(desk)
        return desk

    yield make
    for desk in made:
        if desk.raw_data:
            desk.raw_data.close()
        desk.close()


def put(desk, text, name="v1", device=0, ms=None):
    desk.turn()
    ms = desk.clock.ms if ms is None else ms
    desk.history.raw(desk.account, 1, device, name[0], int(name[1:]), text, ms)


def written(desk):
    """Lets a journal interval pass and waits for the batch."""
    desk.clock.pass_by(1500)
    desk.turn()
    while desk.raw_data.busy:
        desk.loop.run_once(1)


def rows(path, sql="SELECT project_id, device_id, pin_type, pin, ts, value FROM raw ORDER BY ts"):
    with sqlite3.connect(path) as db:
        found = db.execute(sql).fetchall()
    db.close()
    return found


def test_raw_data_are_off_unless_asked_for(raw, tmp_path):
    desk = raw("off")
    assert desk.raw_data is None
    put(desk, "1")
    assert not (tmp_path / "raw_data.db").exists()


def test_sqlite_keeps_numbers_and_texts_of_the_same_millisecond(raw, tmp_path):
    desk = raw("sqlite")
    for text in ("1.5", "hello, world", "1\x002", "1.5"):
        put(desk, text)
    put(desk, "7", "d13", 2)
    written(desk)
    ms = desk.clock.ms - 1500
    assert rows(tmp_path / "raw_data.db", "SELECT value FROM raw WHERE pin_type = 'v' ORDER BY rowid") == [
        (1.5,), ("hello, world",), ("1\x002",), (1.5,),
    ]  # fmt: skip
    assert (1, 2, "d", 13, ms, 7.0) in rows(tmp_path / "raw_data.db")


@pytest.mark.parametrize("ms", [-1, 1 << 70])
def test_wild_timestamps_and_broken_text_do_not_stop_the_store(raw, tmp_path, ms):
    desk = raw("sqlite")
    put(desk, "\ud800 half a pair", ms=ms)
    put(desk, "2")
    written(desk)
    assert "raw data" not in desk.health
    assert 2.0 in [row[-1] for row in rows(tmp_path / "raw_data.db")]


def test_sqlite_goes_on_after_a_restart_and_after_a_kill(raw, tmp_path):
    first = raw("sqlite")
    put(first, "1")
    written(first)
    again = raw("sqlite")  # the first was never closed
    put(again, "2")
    again.raw_data.stop()
    assert [row[-1] for row in rows(tmp_path / "raw_data.db")] == [1.0, 2.0]
    assert rows(tmp_path / "raw_data.db", "SELECT count(*) FROM pins") == [(1,)]


def test_sqlite_forgets_what_is_too_old(raw, tmp_path):
    desk = raw("sqlite", raw_data_keep_days=3)
    now = int(time.time() * 1000)
    for days in (9, 4, 2, 0):
        put(desk, str(days), ms=now - days * 86_400_000)
    written(desk)
    desk.raw_data._shorten()
    assert [row[-1] for row in rows(tmp_path / "raw_data.db")] == [2.0, 0.0]


def test_sqlite_stays_below_its_size(raw, tmp_path):
    desk = raw("sqlite", raw_data_max_mb=1)
    now = int(time.time() * 1000)
    for batch in range(40):
        for n in range(2000):
            put(desk, f"value {n} of batch {batch}", ms=now + n)
        written(desk)
        desk.raw_data._shorten()
    assert os.path.getsize(tmp_path / "raw_data.db") < 1.3e6
    kept = rows(tmp_path / "raw_data.db", "SELECT value FROM raw_data ORDER BY id DESC LIMIT 1")
    assert kept == [("value 1999 of batch 39",)]


def test_a_file_that_is_no_database_is_set_aside(raw, tmp_path):
    (tmp_path / "raw_data.db").write_bytes(b"something else entirely" * 100)
    desk = raw("sqlite")
    put(desk, "1")
    written(desk)
    assert "raw data" in desk.health
    desk.clock.pass_by(11_000)
    written(desk)
    assert [row[-1] for row in rows(tmp_path / "raw_data.db")] == [1.0]
    assert "raw data" not in desk.health
    assert [name for name in os.listdir(tmp_path) if name.startswith("raw_data.db.corrupt-")]


def read_csv(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_csv_has_a_file_per_pin_with_value_timestamp_device(raw, tmp_path):
    desk = raw("csv")
    put(desk, "1.5")
    put(desk, 'say "a, b"\n')
    put(desk, "1\x002")
    put(desk, "8", "a3", 1)
    written(desk)
    ms = str(desk.clock.ms - 1500)
    folder = tmp_path / "raw" / ANNA
    assert read_csv(folder / "raw_1-0_v1.csv") == [["1.5", ms, "0"], ['say "a, b"\n', ms, "0"], ["1\\02", ms, "0"]]
    assert read_csv(folder / "raw_1-1_a3.csv") == [["8", ms, "1"]]


def test_csv_files_are_put_away_when_full_and_go_when_all_take_too_much(raw, tmp_path):
    desk = raw("csv", raw_data_max_mb=1)
    for batch in range(60):
        for n in range(1000):
            put(desk, f"{batch:06}.{n:06}")
        written(desk)
    desk.raw_data._shorten()
    folder = tmp_path / "raw" / ANNA
    names = sorted(os.listdir(folder))
    assert len(names) > 1 and sum(os.path.getsize(folder / name) for name in names) <= 1 << 20
    newest = max(names, key=lambda name: os.path.getmtime(folder / name))
    assert read_csv(folder / newest)[-1][0] == "000059.000999"


def test_csv_files_nobody_wrote_to_for_long_go(raw, tmp_path):
    desk = raw("csv", raw_data_keep_days=2)
    put(desk, "1")
    put(desk, "2", "v2")
    written(desk)
    old = tmp_path / "raw" / ANNA / "raw_1-0_v1.csv"
    os.utime(old, (1e9, 1e9))
    desk.raw_data._shorten()
    assert not old.exists() and (tmp_path / "raw" / ANNA / "raw_1-0_v2.csv").exists()


def test_what_cannot_be_written_waits_and_then_is_dropped_with_a_count(raw, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(blynk_pi, "RAW_LIMIT", 100)
    (tmp_path / "raw").write_text("a file where the folder should be")
    desk = raw("csv")
    for n in range(60):
        put(desk, str(n))
    written(desk)
    assert "raw data" in desk.health and len(desk.raw_data.waiting) == 60
    for n in range(60, 200):
        put(desk, str(n))
    assert len(desk.raw_data.waiting) == 100
    os.unlink(tmp_path / "raw")
    desk.clock.pass_by(11_000)
    written(desk)
    assert len(read_csv(tmp_path / "raw" / ANNA / "raw_1-0_v1.csv")) == 100
    assert "100 values dropped" in capsys.readouterr().err


def test_a_full_disk_is_left_alone(raw, tmp_path):
    desk = raw("sqlite")
    desk.history.disk_full = True
    put(desk, "1")
    written(desk)
    assert desk.raw_data.dropped == 1 and not (tmp_path / "raw_data.db").exists()
