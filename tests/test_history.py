"""History: what a pin sent, by minute, hour and day, in the Java server's files (spec 05 §5-7)."""

import contextlib
import gzip
import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import zlib

import pytest
from desk import ANNA, DAY, HOUR, MINUTE, NOON, Clock, Desk, project_of

import blynk_pi

FIXTURES = os.path.join(os.path.dirname(__file__), "fixtures")
JAVA_DATA = os.path.join(FIXTURES, "java-data")


@pytest.fixture
def desk(tmp_path):
    made = []

    def make(*args, **kwargs):
        made.append(Desk(tmp_path, *args, **kwargs))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def java_data(tmp_path):
    shutil.copytree(JAVA_DATA, tmp_path, dirs_exist_ok=True)
    for folder, _, files in os.walk(tmp_path):
        os.chmod(folder, 0o755)
        for name in files:
            os.chmod(os.path.join(folder, name), 0o644)
    return tmp_path


# -- collecting --------------------------------------------------------------------------------------------------------


def test_a_minute_gives_one_record_with_the_mean_at_the_start_of_the_minute(desk):
    desk = desk()
    for value in (1, 2, 6):
        desk.add(value)
    desk.minute()
    assert desk.file() == []
    desk.clock.pass_by(MINUTE)
    desk.minute()
    assert desk.file() == [(NOON, 3.0)]
    assert desk.file(kind="hourly") == []


def test_hour_and_day_appear_when_they_are_over(desk):
    desk = desk(Clock(NOON + 11 * HOUR + 58 * MINUTE))
    desk.live(4, 5.0)
    assert [ts for ts, _ in desk.file(kind="hourly")] == [NOON + 11 * HOUR]
    assert desk.file(kind="daily") == [(NOON - 12 * HOUR, 5.0)]


def test_a_record_has_the_bytes_of_the_specification(desk):
    desk = desk(Clock(1_700_000_040_000))
    desk.add(1.5)
    desk.clock.pass_by(MINUTE)
    desk.minute()
    path = os.path.join(desk.settings.data_folder, "data", ANNA, "history_1-0_v1_minute.bin")
    with open(path, "rb") as file:
        assert file.read().hex(" ").upper() == "3F F8 00 00 00 00 00 00 00 00 01 8B CF E6 04 40"


def test_values_between_two_drains_of_different_minutes_stay_apart(desk):
    desk = desk()
    desk.add(1)
    desk.clock.pass_by(MINUTE)
    desk.add(3)
    desk.clock.pass_by(MINUTE)
    desk.minute()
    assert desk.file() == [(NOON, 1.0), (NOON + MINUTE, 3.0)]


def test_a_value_with_a_timestamp_of_its_own_finds_its_minute(desk):
    desk = desk()
    desk.live(3, 7.0)
    desk.add(1, ms=desk.clock.ms - 90 * MINUTE)
    desk.add(3, ms=desk.clock.ms - 90 * MINUTE)
    desk.add(9)
    desk.clock.pass_by(MINUTE)
    desk.minute()
    times = [ts for ts, _ in desk.file()]
    assert times == sorted(times)
    assert dict(desk.file())[NOON + 3 * MINUTE - 90 * MINUTE] == 2.0


@pytest.mark.parametrize("ms", [0, -5, -(1 << 60), 1 << 62, 1 << 70])
def test_an_impossible_timestamp_counts_for_now(desk, ms):
    desk = desk()
    desk.history._series(ANNA, 1, 0, "v1").live = True
    desk.add(4, ms=ms)
    desk.clock.pass_by(MINUTE)
    desk.minute()
    desk.clock.pass_by(MINUTE)
    desk.minute()
    assert [value for _, value in desk.file()] == [4.0]
    assert all(NOON <= ts <= NOON + 2 * MINUTE for ts, _ in desk.file())


# -- journal and snapshot ----------------------------------------------------------------------------------------------


def test_a_kill_loses_only_what_was_not_drained(desk):
    first = desk()
    first.add(1)
    snapshot = first.minute()
    first.add(2)
    first.second()
    first.add(100)  # lost
    again = desk(first.clock, snapshot=snapshot)
    for record in first.journal:
        again.history.replay(record)
    again.clock.pass_by(MINUTE)
    again.minute()
    assert again.file() == [(NOON, 1.5)]


def test_doing_a_flush_again_after_a_kill_writes_nothing_twice(desk):
    first = desk(Clock(NOON + 59 * MINUTE))
    first.add(0.1)
    snapshot = first.minute()
    first.add(0.2)
    first.second()
    journal = first.journal
    first.clock.pass_by(MINUTE)
    first.minute()  # the files have it, the snapshot is not yet written: now the kill
    again = desk(first.clock, snapshot=snapshot)
    for record in journal:
        again.history.replay(record)
    again.minute()
    assert len(again.file()) == len(again.file(kind="hourly")) == 1
    assert again.file()[0][1] == (0.1 + 0.2) / 2


@pytest.mark.parametrize("snapshot", [None, 5, [], {}, {"series": [[1]]}, {"series": "x", "saved": "y", "java": 3}])
def test_a_damaged_snapshot_does_not_stop_the_server(desk, snapshot):
    desk = desk(snapshot=snapshot)
    desk.live(2)
    assert len(desk.file()) == 2


def test_foreign_journal_records_are_skipped(desk):
    desk = desk()
    broken = [["h"], ["h", 1, 2, 3], ["h", "x", ANNA, [[1, 2]]], ["h", "gone", ANNA, 4]]
    for record in [*broken, ["h", 60000, ANNA, [[1, 0, "v1", "x", 1]]]]:
        desk.history.replay(record)
    desk.live(1)
    assert len(desk.file()) == 1


# -- what the Java server left -----------------------------------------------------------------------------------------


def test_unfinished_averages_of_the_java_server_are_carried_on(desk, java_data):
    desk = desk(Clock(29919897 * MINUTE + 30_000))
    desk.add(31, "v5")  # the same minute goes on here
    desk.clock.set_to(desk.clock.ms + DAY)
    desk.clock.seconds += 300
    desk.minute()
    assert desk.file("v5")[-1] == (1795193820000, 25.0)
    assert desk.file("v5", "hourly")[-1] == (1795190400000, (90.5 + 31) / 5)
    assert desk.file("v5", "daily")[-1] == (1795132800000, (90.5 + 31) / 5)
    assert desk.file("v31", "hourly", 1)[-1] == (1795190400000, 77.0)
    assert len(desk.file("v5")) == 1980


def test_the_fixture_readme_holds_without_new_values(desk, java_data):
    desk = desk(Clock(1795193820000 + 2 * DAY))
    desk.minute()
    assert desk.file("v5")[-1] == (1795193820000, 23.0)
    assert desk.file("v5", "hourly")[-1] == (1795190400000, 22.625)
    assert desk.file("v5", "daily")[-1] == (1795132800000, 22.625)


def test_the_files_of_the_java_server_go_once_a_snapshot_has_them_and_count_once(desk, java_data):
    first = desk(Clock(1795193900000))
    snapshot = first.minute()
    assert os.path.exists(java_data / "data" / "minute_temp.bin")
    again = desk(first.clock, snapshot=snapshot)  # killed before they were removed
    first.clock.pass_by(5 * MINUTE)
    again.minute()
    again.history.check_disk()
    again.clock.pass_by(MINUTE)
    again.turn()
    again.history.check_disk()
    assert not [name for name in os.listdir(java_data / "data") if name in ("minute_temp.bin", "daily_temp.bin")]
    again.clock.pass_by(2 * HOUR)
    again.minute()
    assert again.file("v5", "hourly")[-1] == (1795190400000, 22.625)


@pytest.mark.parametrize("cut", [0, 3, 4, 40, 700, 1500])
def test_a_damaged_file_of_the_java_server_is_set_aside(desk, java_data, cut):
    path = java_data / "data" / "minute_temp.bin"
    path.write_bytes(path.read_bytes()[:cut])
    desk = desk(Clock(1795193900000))
    assert not path.exists()
    assert [name for name in os.listdir(java_data / "data") if name.startswith("minute_temp.bin.corrupt-")]
    assert desk.history._series(ANNA, 1, 0, "v5").periods  # hour and day are there all the same


def test_no_garbled_java_stream_does_more_than_raise_value_error():
    import random

    chance = random.Random(5)
    with open(os.path.join(JAVA_DATA, "data", "hourly_temp.bin"), "rb") as file:
        original = file.read()
    for _ in range(2000):
        data = bytearray(original)
        for _ in range(chance.randrange(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            blynk_pi.JavaReader(bytes(data)).read()
        except ValueError:
            pass


def test_reset_tokens_of_the_java_server_are_read(java_data):
    path = str(java_data / "data" / "tokens_pool_temp.bin")
    assert blynk_pi.read_java_tokens(path) == {
        "i5fXMica5tTtvPDDMpHzv3RBxJg0xujI": {
            "email": "clara@example.com",
            "appName": "Blynk",
            "expireAt": 1795196502510,
        }
    }
    assert blynk_pi.read_java_tokens(path + "x") == {}
    with open(path, "wb") as file:
        file.write(b"\xac\xed\0\5rubbish")
    assert blynk_pi.read_java_tokens(path) == {}
    assert not os.path.exists(path)


# -- clocks ------------------------------------------------------------------------------------------------------------


def times(records):
    return [ts for ts, _ in records]


def check_order(records):
    """No period twice, none before the epoch, in order."""
    assert times(records) == sorted(set(times(records)))
    assert all(ts > blynk_pi.CLOCK_NOT_SET for ts in times(records))


def test_a_clock_that_jumps_forward_leaves_a_gap_and_loses_nothing(desk):
    desk = desk()
    desk.live(3, 1.0)
    desk.add(8)
    desk.clock.set_to(desk.clock.ms + 5 * HOUR)
    desk.live(3, 1.0)
    check_order(desk.file())
    assert times(desk.file()) == [NOON + n * MINUTE for n in (0, 1, 2, 3, 303, 304, 305)]
    assert dict(desk.file())[NOON + 3 * MINUTE] == 8.0
    check_order(desk.file(kind="hourly"))
    assert len(desk.file(kind="hourly")) == 1


@pytest.mark.parametrize("minutes", [1, 5, 59, 60, 61, 600])
def test_a_clock_that_jumps_back_writes_no_period_twice(desk, minutes):
    desk = desk(Clock(NOON - 30_000))
    desk.live(10, 1.0)
    desk.add(50)
    desk.clock.set_to(desk.clock.ms - minutes * MINUTE)
    desk.live(minutes + 2, 3.0)
    check_order(desk.file())
    assert 50.0 in [v for _, v in desk.file()] or any(v not in (1.0, 2.0, 3.0) for _, v in desk.file())
    desk.clock.pass_by(3 * HOUR)
    desk.minute()
    check_order(desk.file(kind="hourly"))
    assert not desk.history._series(ANNA, 1, 0, "v1").periods.keys() - {NOON - 12 * HOUR + 2, NOON + 12 * HOUR + 2}


def test_a_clock_that_starts_in_1970_and_is_set_later(desk):
    desk = desk(Clock(5000))
    desk.live(3, 4.0)
    assert desk.file() == []
    desk.clock.set_to(NOON)
    desk.live(2, 4.0)
    desk.clock.pass_by(DAY)
    desk.minute()
    check_order(desk.file())
    assert times(desk.file()) == [NOON, NOON + MINUTE]
    series = desk.history._series(ANNA, 1, 0, "v1")
    assert not series.periods
    assert times(desk.file(kind="daily")) == [NOON - 12 * HOUR]


def test_after_a_restart_a_clock_far_behind_is_waited_for(desk):
    first = desk()
    first.live(3, 1.0)
    snapshot = first.minute()
    again = desk(Clock(NOON - 100 * DAY), snapshot=snapshot)
    again.live(4, 2.0)
    assert times(again.file()) == [NOON + n * MINUTE for n in range(3)]
    again.clock.set_to(NOON + HOUR)
    again.live(2, 2.0)
    check_order(again.file())
    assert times(again.file())[3:] == [NOON + HOUR, NOON + HOUR + MINUTE]


def test_a_clock_that_was_far_ahead_and_is_put_right_is_believed_after_ten_minutes(desk):
    desk = desk(Clock(NOON + 400 * DAY))
    desk.live(3, 1.0)
    desk.clock.set_to(NOON)
    desk.live(20, 2.0)
    records = desk.file()
    assert times(records)[:3] == [NOON + 400 * DAY + n * MINUTE for n in range(3)]
    later = records[3:]
    check_order(later)
    assert times(later)[-1] == NOON + 19 * MINUTE and 8 <= len(later) <= 11
    held = desk.history._series(ANNA, 1, 0, "v1").periods
    assert all(key < NOON + DAY for key in held)
    hours = sum(count for key, (_, count) in held.items() if key % MINUTE == 1)
    assert hours == 46  # all values, those of the wrong year too


def test_a_clock_that_stays_in_1970_is_used_in_the_end(desk):
    desk = desk(Clock(5 * MINUTE))
    desk.live(30, 2.0)
    assert len(desk.file()) > 15
    assert times(desk.file()) == sorted(set(times(desk.file())))


# -- files that are not as they should be ------------------------------------------------------------------------------


def test_half_a_record_at_the_end_of_a_file_is_written_over(desk):
    desk = desk()
    desk.live(2, 1.0)
    path = os.path.join(desk.settings.data_folder, "data", ANNA, "history_1-0_v1_minute.bin")
    with open(path, "ab") as file:
        file.write(b"torn rec")
    assert len(blynk_pi.read_history(path, 60)) == 32
    desk.live(2, 1.0)
    check_order(desk.file())
    assert len(desk.file()) == 4


def test_a_foreign_file_does_not_disturb(desk):
    desk = desk()
    folder = os.path.join(desk.settings.data_folder, "data", ANNA)
    os.makedirs(folder)
    path = os.path.join(folder, "history_1-0_v1_minute.bin")
    with open(path, "wb") as file:
        file.write(os.urandom(16 * 200 + 5))
    desk.live(3, 1.0)
    assert times(desk.file())[-3:] == [NOON + n * MINUTE for n in range(3)] or len(desk.file()) >= 200
    blynk_pi.graph_bytes(1, [([path], "AVG", 1440, 0)])


def test_a_folder_that_cannot_be_written_keeps_history_in_memory_until_it_can(desk, tmp_path):
    desk = desk()
    data = tmp_path / "data"
    data.write_text("a file where the folder should be")
    desk.live(3, 1.0)
    assert "history files" in desk.health
    data.unlink()
    desk.live(1, 1.0)
    assert len(desk.file()) == 4
    check_order(desk.file())
    assert "history files" not in desk.health


def small_disk(folder, kilobytes):
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    return done.returncode == 0


def test_a_full_disk_stops_history_and_room_lets_it_go_on(desk, tmp_path):
    if sys.platform != "linux" or os.geteuid() != 0 or not small_disk(tmp_path, 512):
        pytest.skip("cannot mount a small file system here")
    try:
        desk = desk()
        desk.live(2, 1.0)
        ballast = tmp_path / "ballast"
        with open(ballast, "wb", 0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        desk.history.check_disk()
        assert desk.history.disk_full and "disk" in desk.health
        for name in ("v1", "v2"):
            desk.add(1, name)
        desk.live(3, 1.0)
        assert len(desk.file()) == 2
        desk.history.disk_full = False  # what if nobody had looked: the append itself fails
        desk.live(300, 1.0)
        assert "history files" in desk.health
        ballast.unlink()
        desk.history.check_disk()
        assert "disk" not in desk.health
        desk.live(2, 1.0)
        check_order(desk.file())
        assert len(desk.file()) == 2 + 3 + 300 + 2
        assert len(desk.file("v2")) == 1
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=False)


# -- reading -----------------------------------------------------------------------------------------------------------


def test_the_live_ring_gives_the_last_sixty_values_and_pages(desk):
    desk = desk()
    series = desk.history._series(ANNA, 1, 0, "v1")
    assert series.newest(60, 0) == b""
    series.live = True
    for n in range(3):
        series.add(n, NOON + n)
    assert [v for v, _ in struct.iter_unpack(">dq", series.newest(60, 0))] == [0, 1, 2]
    assert [v for v, _ in struct.iter_unpack(">dq", series.newest(2, 1))] == [0, 1]
    assert series.newest(60, 60) == b""
    for n in range(3, 200):
        series.add(n, NOON + n)
    assert [v for v, _ in struct.iter_unpack(">dq", series.newest(60, 0))] == list(range(140, 200))


@pytest.mark.parametrize(
    ("function", "expected"),
    [("AVG", 3.5), ("SUM", 14.0), ("MIN", 1.0), ("MAX", 7.0), ("MED", 3.0), ("", 3.5)],
)
def test_functions_of_a_tag(function, expected):
    parts = [struct.pack(">dq", v, 5) for v in (7.0, 1.0, 2.0, 4.0)]
    assert struct.unpack(">dq", blynk_pi.merge_records(parts, function)) == (expected, 5)


def test_the_maximum_of_negative_values_is_one_of_them():
    parts = [struct.pack(">dq", v, 5) for v in (-7.0, -1.5)]
    assert struct.unpack(">dq", blynk_pi.merge_records(parts, "MAX")) == (-1.5, 5)


def anna(desk):
    """The account of the fixtures, as the server loads it."""
    with open(os.path.join(desk.settings.data_folder, f"{ANNA}.Blynk.user"), encoding="utf-8") as file:
        raw = json.load(file)
    return blynk_pi.Account(desk.ledger, blynk_pi.read_document("USER", raw, True))


def graph_requests():
    with open(os.path.join(FIXTURES, "graph-answers.json"), encoding="utf-8") as file:
        return json.load(file)


@pytest.mark.parametrize("case", graph_requests(), ids=lambda case: case["request"])
def test_the_java_servers_graph_answers_are_given_to_the_byte(desk, java_data, case):
    desk = desk()
    account = anna(desk)
    parts = case["request"].replace("\\0", "\0").split("\0")
    dash, _, target = parts[0].partition("-")
    project = account.projects[int(dash)]
    widget = next(w for w, _ in project.all_widgets() if w["id"] == int(parts[1]))
    page = int(parts[3]) if len(parts) == 4 else 0
    reply = desk.history.graph_reply(project, widget, int(target) if target else None, parts[2], page)
    if "response" in case:
        assert reply is None and case["response"] == 17
        return
    body = zlib.decompress(reply)
    assert hashlib.sha256(body).hexdigest() == case["sha256 of the uncompressed body"]


def test_csv_of_a_device_is_that_of_the_java_server(desk, java_data):
    desk = desk()
    device = anna(desk).projects[1].devices[0]
    for pin, letter in ((5, "d"), (0, "a")):
        name = desk.history.http_csv(device, letter, pin)
        assert name.startswith(f"{ANNA}_1_0_{letter}{pin}_1") and name.endswith(".csv.gz")
        with gzip.open(os.path.join(desk.settings.data_csv_folder, name), "rb") as file:
            text = file.read()
        with open(os.path.join(FIXTURES, f"export-{letter}{pin}.csv"), "rb") as file:
            assert text == file.read()
    name = desk.history.http_csv(anna(desk).projects[1].devices[1], "v", 5)
    with gzip.open(os.path.join(desk.settings.data_csv_folder, name), "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    assert digest == "fbe6ba4a83f9525fa4f5f08f59c087b99b34fada14663abded723b93437bb328"


def test_a_csv_without_data_leaves_no_file_behind(desk, java_data):
    desk = desk()
    assert desk.history.http_csv(anna(desk).projects[1].devices[0], "v", 77) is None
    assert os.listdir(desk.settings.data_csv_folder) == []


# -- who logs a pin ----------------------------------------------------------------------------------------------------


def graph(target, pin=1, pin_type="VIRTUAL", **more):
    stream = {"targetId": target, "pin": {"pin": pin, "pinType": pin_type, **more.pop("pin_fields", {})}}
    return {"id": 10, "type": "ENHANCED_GRAPH", "dataStreams": [stream], **more}


def logs(project, device, letter="v", pin=1):
    return blynk_pi.logging_widget(project, device, letter, pin) is not None


def test_a_graph_logs_the_pins_of_its_streams(desk):
    project = project_of(desk(), widgets=[graph(2)])
    assert logs(project, 2)
    assert not logs(project, 1) and not logs(project, 2, "a") and not logs(project, 2, "v", 2)


def test_an_analog_value_is_logged_by_a_pwm_stream(desk):
    project = project_of(desk(), widgets=[graph(2, 3, "DIGITAL", pin_fields={"pwmMode": True})])
    assert logs(project, 2, "a", 3) and logs(project, 2, "d", 3)
    assert not logs(project, 2, "v", 3)


def test_a_graph_of_a_tag_or_selector_logs_its_devices(desk):
    tag = {"id": 100_000, "name": "T", "deviceIds": [1, 2]}
    project = project_of(desk(), widgets=[graph(100_000)], tags=[tag])
    assert logs(project, 1) and logs(project, 2) and not logs(project, 0)
    selector = {"id": 200_000, "type": "DEVICE_SELECTOR", "deviceIds": [0, 3], "value": 0}
    project = project_of(desk(), widgets=[graph(200_000), selector])
    assert logs(project, 0) and logs(project, 3) and not logs(project, 1)


def test_a_graph_in_a_tile_template_logs_the_templates_devices(desk):
    template = {"id": 1, "mode": "PAGE", "deviceIds": [1, 3], "widgets": [graph(0)]}
    project = project_of(desk(), widgets=[{"id": 5, "type": "DEVICE_TILES", "templates": [template]}])
    assert [logs(project, n) for n in range(4)] == [True, True, False, True]


def test_the_report_widgets_own_sources_log_a_pin_of_any_device(desk):
    stream = {"pin": 1, "pinType": "VIRTUAL", "isSelected": False}
    source = {"type": "DEVICE", "deviceIds": [2], "reportDataStreams": [stream]}
    project = project_of(desk(), widgets=[{"id": 5, "type": "REPORT", "reportSources": [source]}])
    assert logs(project, 0) and logs(project, 2) and not logs(project, 2, "d")


def test_only_the_first_logging_widget_says_whether_values_are_kept_live(desk):
    desk = desk()
    first = graph(0, selectedPeriods=["ONE_HOUR"])
    project = project_of(desk, widgets=[first, dict(graph(0), id=11)])
    series = desk.history.series_for(project, 0, "v", 1)
    assert series.live is False
    project = project_of(desk, widgets=[dict(graph(0), id=11), first])
    assert desk.history.series_for(project, 0, "v", 1) is series and series.live is True
    assert desk.history.series_for(project, 0, "v", 2) is None


# -- deleting and cleaning ---------------------------------------------------------------------------------------------


def delete(desk, *args):
    answers = []
    assert desk.history.delete(*args, done=lambda gone, problem: answers.append((gone, problem)))
    while not answers:
        desk.loop.run_once(1)
    return answers[0]


def test_deleting_takes_files_live_ring_and_running_averages(desk, java_data):
    desk = desk(Clock(1795193900000))
    series = desk.history._series(ANNA, 1, 0, "v5")
    series.live = True
    desk.add(1, "v5")
    assert delete(desk, ANNA, 1, 0, ["v5"]) == (3, None)
    desk.clock.pass_by(3 * DAY)
    desk.minute()
    assert desk.file("v5") == desk.file("v5", "hourly") == desk.file("v5", "daily") == []
    assert series.newest(60, 0) == b""
    assert desk.file("d5") and len(desk.file("v5", device=1)) == 1350


def test_deleting_a_device_spares_those_whose_number_begins_alike(desk, tmp_path):
    desk = desk()
    for device in (1, 11):
        desk.add(1, device=device)
    desk.clock.pass_by(MINUTE)
    desk.minute()
    assert delete(desk, ANNA, 1, 1) == (1, None)
    assert desk.file(device=11) and not desk.file(device=1)


def test_deleting_an_account_takes_its_folder(desk, java_data):
    desk = desk()
    assert delete(desk, ANNA)[1] is None
    assert not (java_data / "data" / ANNA).exists()


def test_a_deletion_survives_a_kill(desk):
    first = desk()
    first.add(1)
    first.second()
    assert delete(first, ANNA, 1, 0) == (0, None)
    first.add(5)
    first.second()
    again = desk(first.clock)
    for record in first.journal:
        again.history.replay(record)
    again.clock.pass_by(MINUTE)
    again.minute()
    assert again.file() == [(NOON, 5.0)]


def test_truncation_keeps_the_newest_days_of_minutes(desk, tmp_path):
    desk = desk()
    desk.settings.data_minute_history_days = 1
    folder = tmp_path / "data" / ANNA
    folder.mkdir(parents=True)
    minutes, hours = folder / "history_1-0_v1_minute.bin", folder / "history_1-0_v1_hourly.bin"
    records = b"".join(struct.pack(">dq", n, NOON + n * MINUTE) for n in range(3000))
    minutes.write_bytes(records + b"torn")
    hours.write_bytes(records)
    desk.history.truncate(ANNA)
    assert minutes.read_bytes() == records[-1440 * 16 :]
    assert hours.read_bytes() == records
    (tmp_path / "data" / "empty@example.com").mkdir()
    desk.history.truncate("empty@example.com")
    assert desk.history.user_folders() == [ANNA]


def test_old_exports_and_reports_are_cleaned(desk):
    desk = desk()
    folder = blynk_pi.csv_folder(desk.settings)
    for name in ("a.csv.gz", "b.zip", "keep.csv.gz", "other.txt"):
        with open(os.path.join(folder, name), "w") as file:
            file.write("x")
        if name != "keep.csv.gz":
            os.utime(os.path.join(folder, name), (1e9, 1e9))
    desk.history.clean_exports()
    assert sorted(os.listdir(folder)) == ["keep.csv.gz", "other.txt"]


def test_files_of_pins_nobody_shows_are_cleaned(desk, tmp_path):
    desk = desk()
    tag = {"id": 100_000, "name": "T", "deviceIds": [1, 2]}
    report = {
        "id": 1,
        "reportSources": [
            {"type": "DEVICE", "deviceIds": [3], "reportDataStreams": [{"pin": 9, "pinType": "DIGITAL"}]}
        ],
    }
    widgets = [graph(100_000), {"id": 7, "type": "REPORT", "reports": [report]}]
    project = project_of(desk, widgets=widgets, tags=[tag])
    folder = tmp_path / "data" / ANNA
    folder.mkdir(parents=True)
    for name in ("1-1_v1", "1-2_v1", "1-3_v1", "1-3_d9", "1-1_v2", "2-1_v1"):
        (folder / f"history_{name}_minute.bin").write_bytes(bytes(16))
    (folder / "notes.txt").write_text("mine")
    desk.history.clean_unused(ANNA, blynk_pi.used_files(project.account))
    kept = sorted(name[8:-11] for name in os.listdir(folder) if name != "notes.txt")
    assert kept == ["1-1_v1", "1-2_v1", "1-3_d9"] and (folder / "notes.txt").exists()
