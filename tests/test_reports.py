"""Reports: when they run, what is in them, how they reach their reader (spec 05 §8)."""

import io
import os
import struct
import zipfile
from datetime import datetime, timezone
from zoneinfo import ZoneInfo

import pytest
from clients import ILLEGAL_COMMAND, OK, QUOTA_LIMIT, until, widget
from desk import ANNA, DAY, HOUR, MINUTE, NOON, Clock, Desk, project_of

import blynk_pi

BERLIN = "Europe/Berlin"


def at(zone, *moment):
    """A wall-clock time of a zone in ms."""
    return int(datetime(*moment, tzinfo=ZoneInfo(zone)).timestamp() * 1000)


def text(ms, zone):
    return datetime.fromtimestamp(ms / 1000, ZoneInfo(zone)).strftime("%a %Y-%m-%d %H:%M")


def report_of(type="DAILY", zone=BERLIN, **fields):
    kind = {"type": type, "atTime": at(zone, 2018, 6, 26, 10, 30), "durationType": "INFINITE", "startTs": 0, "endTs": 0}
    if type == "ONE_TIME":
        kind = {"type": type, "rangeMillis": DAY}
    kind.update(fields.pop("kind", {}))
    stream = {"pin": 1, "pinType": "VIRTUAL", "label": "Temp", "isSelected": True}
    document = {
        "id": 1,
        "name": "My report",
        "reportSources": [{"type": "DEVICE", "reportDataStreams": [stream], "deviceIds": [0]}],
        "reportType": kind,
        "recipients": "a@example.com",
        "isActive": True,
        "tzName": zone,
    }
    document.update(fields)
    return blynk_pi.read_document("REPORT", document)


def next_runs(report, now, count):
    zone, found = report.get("tzName", "UTC"), []
    for _ in range(count):
        now = blynk_pi.next_run(report, now)
        found.append(text(now, zone))
    return found


# -- when --------------------------------------------------------------------------------------------------------------


def test_daily_today_if_it_is_still_to_come_else_tomorrow():
    report = report_of()
    assert next_runs(report, at(BERLIN, 2026, 11, 24, 10, 29, 59), 2) == [
        "Tue 2026-11-24 10:30",
        "Wed 2026-11-25 10:30",
    ]
    assert next_runs(report, at(BERLIN, 2026, 11, 24, 10, 30), 1) == ["Wed 2026-11-25 10:30"]


def test_daily_keeps_its_wall_clock_time_across_summer_time():
    report = report_of()
    runs = next_runs(report, at(BERLIN, 2026, 3, 27, 12), 3)
    assert runs == ["Sat 2026-03-28 10:30", "Sun 2026-03-29 10:30", "Mon 2026-03-30 10:30"]
    first = blynk_pi.next_run(report, at(BERLIN, 2026, 3, 27, 12))
    assert blynk_pi.next_run(report, first) - first == 23 * HOUR
    runs = next_runs(report, at(BERLIN, 2026, 10, 24, 12), 2)
    assert runs == ["Sun 2026-10-25 10:30", "Mon 2026-10-26 10:30"]


def test_a_time_the_change_of_clocks_leaves_out_comes_an_hour_later_once():
    report = report_of(kind={"atTime": at(BERLIN, 2018, 6, 26, 2, 30)})
    runs = next_runs(report, at(BERLIN, 2026, 3, 28, 12), 3)
    assert runs == ["Sun 2026-03-29 03:30", "Mon 2026-03-30 02:30", "Tue 2026-03-31 02:30"]


def test_a_time_that_comes_twice_runs_once():
    report = report_of(kind={"atTime": at(BERLIN, 2018, 6, 26, 2, 30)})
    runs = next_runs(report, at(BERLIN, 2026, 10, 24, 12), 2)
    assert runs == ["Sun 2026-10-25 02:30", "Mon 2026-10-26 02:30"]


@pytest.mark.parametrize(
    ("day", "expected"),
    [(2, "Tue 2026-11-24 10:30"), (1, "Mon 2026-11-30 10:30"), (3, "Wed 2026-11-25 10:30")],
)
def test_weekly_on_its_day(day, expected):
    report = report_of("WEEKLY", kind={"dayOfTheWeek": day})
    assert next_runs(report, at(BERLIN, 2026, 11, 24, 9), 1) == [expected]


def test_weekly_after_todays_time_is_next_week():
    report = report_of("WEEKLY", kind={"dayOfTheWeek": 2})
    assert next_runs(report, at(BERLIN, 2026, 11, 24, 11), 2) == ["Tue 2026-12-01 10:30", "Tue 2026-12-08 10:30"]


def test_monthly_on_the_first_and_on_the_last_day():
    first = report_of("MONTHLY", kind={"dayOfMonth": "FIRST"})
    assert next_runs(first, at(BERLIN, 2026, 11, 30, 11), 2) == ["Tue 2026-12-01 10:30", "Fri 2027-01-01 10:30"]
    last = report_of("MONTHLY", kind={"dayOfMonth": "LAST"})
    runs = next_runs(last, at(BERLIN, 2027, 1, 31, 10), 3)
    assert runs == ["Sun 2027-01-31 10:30", "Sun 2027-02-28 10:30", "Wed 2027-03-31 10:30"]
    assert next_runs(last, at(BERLIN, 2028, 2, 1, 10), 1) == ["Tue 2028-02-29 10:30"]


def test_a_custom_report_starts_at_its_date_and_ends_after_its_last_day():
    custom = {"durationType": "CUSTOM", "startTs": at(BERLIN, 2026, 12, 3, 15), "endTs": at(BERLIN, 2026, 12, 4, 1)}
    report = report_of(kind=custom)
    assert next_runs(report, at(BERLIN, 2026, 11, 24, 9), 2) == ["Thu 2026-12-03 10:30", "Fri 2026-12-04 10:30"]
    with pytest.raises(blynk_pi.ReportExpired):
        blynk_pi.next_run(report, at(BERLIN, 2026, 12, 4, 10, 30))


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Asia/Kathmandu", "America/St_Johns"])
def test_days_are_those_of_the_reports_zone(zone):
    report = report_of(zone=zone)
    assert next_runs(report, at(zone, 2026, 11, 24, 10), 1) == ["Tue 2026-11-24 10:30"]


def test_times_beyond_any_calendar_do_not_raise():
    far = {"durationType": "CUSTOM", "startTs": 0, "endTs": 1 << 62, "atTime": 1 << 62}
    assert blynk_pi.next_run(report_of(kind=far), NOON) > NOON
    far["startTs"] = 1 << 61
    assert blynk_pi.next_run(report_of(kind=far), NOON) > NOON
    with pytest.raises(blynk_pi.DocumentError):
        blynk_pi.next_run(report_of("WEEKLY", kind={"dayOfTheWeek": 0}), NOON)


def test_which_reports_are_valid():
    valid = blynk_pi.valid_report
    assert valid(report_of()) and valid(report_of("ONE_TIME"))
    assert not valid(report_of("ONE_TIME", kind={"rangeMillis": DAY - 1}))
    assert not valid(report_of(kind={"startTs": 2, "endTs": 1}))
    assert not valid(report_of(reportSources=[])) and not valid(report_of(reportType=None))
    assert valid(report_of(recipients="a@b.de, c@d.org"))
    assert not valid(report_of(recipients=",".join(f"a{n}@b.de" for n in range(6))))
    for bad in ("", "nobody", "a@b.de,", "a@b.de,nobody"):
        assert not valid(report_of(recipients=bad))


# -- running by the clock ----------------------------------------------------------------------------------------------


class Messages:
    """Stands where the messengers do: keeps what is to be mailed."""

    def __init__(self, works=True):
        self.sent, self.works = [], works

    def mail(self, to, subject, body, html=False, account=None, done=None):
        self.sent.append((to, subject, body))
        done(self.works)

    def text(self, name, values, raw):
        return "\n".join(f"{key}: {value}" for key, value in {**values, **raw}.items())


class Office:
    """A Desk with reports and one project that has a REPORT widget."""

    def __init__(self, folder, *reports, clock=None, mail="smtp.example.com"):
        self.desk = desk = Desk(str(folder), clock)
        desk.host, desk.settings.mail_host, desk.messengers = "127.0.0.1", mail, Messages()
        self.project = project_of(desk, widgets=[{"id": 9, "type": "REPORT", "reports": list(reports)}])
        self.reports = desk.reports = blynk_pi.Reports(desk)
        self.sent = desk.messengers.sent

    @property
    def report(self):
        return blynk_pi.project_reports(self.project)[0]

    def wait(self):
        """All reports that are due are made."""
        self.desk.turn()
        while self.reports.running or self.reports.queue:
            self.desk.loop.run_once(1)

    def pass_by(self, ms, step=HOUR):
        while ms > 0:
            self.desk.clock.pass_by(min(step, ms))
            ms -= step
            self.wait()

    def put(self, records, name="v1", device=0, kind="minute"):
        path = os.path.join(self.desk.settings.data_folder, "data", ANNA)
        os.makedirs(path, exist_ok=True)
        with open(os.path.join(path, f"history_1-{device}_{name}_{kind}.bin"), "wb") as file:
            file.write(b"".join(struct.pack(">dq", value, ts) for ts, value in records))

    def make(self, report):
        """Makes a report; {name in the zip: bytes}, None when there are no data."""
        plan = blynk_pi.report_plan(self.desk, self.project, report, self.desk.clock.ms)
        name = blynk_pi.make_report(plan)
        if name is None:
            return None
        with zipfile.ZipFile(os.path.join(self.desk.settings.data_csv_folder, name)) as archive:
            return {entry: archive.read(entry) for entry in archive.namelist()}


@pytest.fixture
def office(tmp_path):
    made = []

    def make(*reports, **how):
        made.append(Office(tmp_path, *reports, **how))
        return made[-1]

    yield make
    for one in made:
        one.desk.close()


def test_a_daily_report_runs_once_a_day_also_when_clocks_change(office):
    office = office(report_of(), clock=Clock(at(BERLIN, 2026, 3, 27, 12)))
    office.put([(at(BERLIN, 2026, 3, 1, 12) + n * HOUR, 1.0) for n in range(2000)])
    office.reports.start()
    days = []
    for _ in range(5 * 24):
        office.pass_by(HOUR)
        if len(office.sent) > len(days):
            days.append(text(office.desk.clock.ms, BERLIN))
    assert [day[:14] for day in days] == [
        "Sat 2026-03-28", "Sun 2026-03-29", "Mon 2026-03-30", "Tue 2026-03-31", "Wed 2026-04-01",
    ]  # fmt: skip
    assert office.report["lastRunResult"] == "OK"
    assert office.report["nextReportAt"] == at(BERLIN, 2026, 4, 2, 10, 30)


def test_a_report_that_was_missed_runs_at_the_start(office):
    office = office(report_of(nextReportAt=NOON - 5 * DAY), clock=Clock(NOON))
    office.put([(NOON - HOUR, 1.0)])
    office.reports.start()
    office.wait()
    assert len(office.sent) == 1 and office.report["nextReportAt"] > NOON


@pytest.mark.parametrize(
    "fields",
    [
        {"isActive": False},
        {"lastRunResult": "EXPIRED", "kind": {"durationType": "CUSTOM", "endTs": 5}},
        {"recipients": "x"},
    ],
    ids=["not active", "expired", "not valid"],
)
def test_reports_that_do_not_run_at_the_start(office, fields):
    office = office(report_of(nextReportAt=NOON - DAY, **fields))
    office.reports.start()
    office.pass_by(3 * DAY)
    assert not office.sent and not office.reports.made


def test_a_custom_report_expires_after_its_last_run(office):
    kind = {"durationType": "CUSTOM", "startTs": NOON - DAY, "endTs": NOON + 2 * DAY}
    office = office(report_of(kind=kind))
    office.put([(NOON + n * HOUR, 1.0) for n in range(-24, 24 * 5)])
    office.reports.start()
    office.pass_by(6 * DAY)
    assert len(office.sent) == 2 and office.report["lastRunResult"] == "EXPIRED" and not office.reports.timers


def test_before_the_clock_is_set_nothing_runs(office):
    office = office(report_of(nextReportAt=NOON + DAY), clock=Clock(60_000))
    office.reports.start()
    office.pass_by(2 * HOUR)
    assert not office.reports.made
    office.desk.clock.set_to(NOON)
    office.pass_by(HOUR)
    assert not office.reports.made and office.report["nextReportAt"] > NOON


def test_a_clock_that_was_ahead_does_not_silence_a_report_for_a_year(office):
    office = office(report_of(), clock=Clock(NOON + 365 * DAY))
    office.reports.start()
    office.desk.clock.set_to(NOON)
    office.pass_by(2 * HOUR)
    assert office.report["nextReportAt"] < NOON + 2 * DAY


def test_a_clock_set_back_a_little_does_not_run_a_report_twice(office):
    office = office(report_of(), clock=Clock(at(BERLIN, 2026, 11, 24, 10, 25)))
    office.put([(at(BERLIN, 2026, 11, 24, 1), 1.0)])
    office.reports.start()
    office.pass_by(6 * MINUTE, MINUTE)
    office.desk.clock.set_to(at(BERLIN, 2026, 11, 24, 10, 20))
    office.pass_by(3 * HOUR)
    assert len(office.sent) == 1


def test_a_deleted_project_or_report_runs_no_more(office):
    office = office(report_of())
    office.reports.start()
    office.reports.project_removed(office.project)
    assert not office.reports.timers
    office.reports.schedule(office.project, office.report, NOON)
    del office.project.widgets[0]["reports"]
    office.pass_by(3 * DAY)
    assert not office.reports.made


def test_reports_that_come_and_go_with_a_widget_are_planned_and_not_planned_any_more(office):
    office = office()
    office.reports.start()
    office.project.widgets[0]["reports"] = [report_of()]
    office.reports.project_changed(office.project)
    assert len(office.reports.timers) == 1 and office.report["nextReportAt"] == 0  # the document stays as it came
    office.project.document.pop("widgets")
    office.reports.project_changed(office.project)
    assert not office.reports.timers


def test_a_mail_that_fails_makes_the_result_error_and_the_file_stays(office):
    office = office(report_of())
    office.desk.messengers.works = False
    office.put([(NOON - HOUR, 1.0)])
    office.reports.run(office.project, 1)
    office.wait()
    assert office.report["lastRunResult"] == "ERROR"
    assert len(office.reports.list(office.project.devices[0])) == 1


def test_without_a_mail_server_the_report_is_there_for_download(office):
    office = office(report_of(), mail="")
    office.put([(NOON - HOUR, 1.0)])
    office.reports.run(office.project, 1)
    office.wait()
    (entry,) = office.reports.list(office.project.devices[0])
    assert office.report["lastRunResult"] == "OK" and not office.sent
    assert entry["report"] == 1 and entry["size"] > 100
    assert entry["name"].startswith(f"{ANNA}_Blynk_1_2") and len(entry["name"]) > 60


# -- what is in them ---------------------------------------------------------------------------------------------------


def lines(data):
    assert data[:2] == b"\xfe\xff"
    return data[2:].decode("utf-16-be").splitlines()


def two_devices(**fields):
    temp = {"pin": 1, "pinType": "VIRTUAL", "label": 'Te,mp "x" and much more', "isSelected": True}
    bare = {"pin": 2, "pinType": "DIGITAL", "isSelected": True}
    off = {"pin": 3, "pinType": "VIRTUAL", "label": "off", "isSelected": False}
    source = {"type": "DEVICE", "reportDataStreams": [temp, bare, off], "deviceIds": [0, 1, 77]}
    return report_of("ONE_TIME", reportSources=[source], **fields)


def fill(office):
    office.project.devices[0].document["name"] = 'De"v: one/with*a very long name'
    office.put([(NOON - HOUR, 1.5), (NOON - MINUTE, 1e7)])
    office.put([(NOON - MINUTE, 3)], "d2")
    office.put([(NOON - MINUTE, 4)], "v1", 1)
    office.put([(NOON - MINUTE, 5)], "v3")
    office.put([(NOON - MINUTE, 6)], "v1", 77)


def test_a_file_per_device_and_pin(office):
    office = office()
    fill(office)
    files = office.make(two_devices())
    assert list(files) == [
        "Devonewithaveryl_0_Tempxandmuchmore.csv",
        "Devonewithaveryl_0_d2.csv",
        "D1_1_Tempxandmuchmore.csv",
        "_77_Tempxandmuchmore.csv",
    ]
    assert lines(files["Devonewithaveryl_0_Tempxandmuchmore.csv"]) == [f"{NOON - HOUR},1.5", f"{NOON - MINUTE},1.0E7"]


def test_a_file_per_device(office):
    office = office()
    fill(office)
    files = office.make(two_devices(reportOutput="CSV_FILE_PER_DEVICE"))
    assert list(files) == ["Devonewithaveryl_0.csv", "D1_1.csv", "_77.csv"]
    assert lines(files["Devonewithaveryl_0.csv"]) == [
        f'{NOON - HOUR},"Te,mp ""x"" and mu",1.5',
        f'{NOON - MINUTE},"Te,mp ""x"" and mu",1.0E7',
        f"{NOON - MINUTE},d2,3.0",
    ]


def test_a_device_without_data_has_an_empty_file_of_its_own(office):
    office = office()
    office.put([(NOON - MINUTE, 4)], "v1", 1)
    files = office.make(two_devices(reportOutput="CSV_FILE_PER_DEVICE"))
    assert files["D0_0.csv"] == b"" and len(lines(files["D1_1.csv"])) == 1


def test_one_merged_file(office):
    office = office()
    fill(office)
    files = office.make(two_devices(reportOutput="MERGED_CSV", name="Ein Bericht über: alles"))
    assert list(files) == ["EinBerichtüberal.csv"]
    found = lines(files["EinBerichtüberal.csv"])
    assert found[0] == f'{NOON - HOUR},"Te,mp ""x"" and mu","De""v: one/with*a very long name",1.5'
    assert found[-1] == f'{NOON - MINUTE},"Te,mp ""x"" and mu",77,6.0'
    assert len(found) == 5


@pytest.mark.parametrize(
    ("format", "zone", "expected"),
    [
        (None, BERLIN, "1528405280000"),
        ("TS", BERLIN, "1528405280000"),
        ("ISO_SIMPLE", "Europe/Kyiv", "2018-06-08 00:01:20"),
        ("ISO_INSTANT", "Europe/Kyiv", "2018-06-08T00:01:20+03:00"),
        ("ISO_INSTANT", "UTC", "2018-06-07T21:01:20Z"),
        ("ISO_INSTANT_Z", "Europe/Kyiv", "2018-06-08T00:01:20EEST"),
    ],
)
def test_formats_of_time(format, zone, expected):
    assert blynk_pi.time_format(format or "TS", blynk_pi.zone(zone))(1528405280000) == expected


@pytest.mark.parametrize(
    ("granularity", "kind", "step", "count"),
    [("MINUTE", "minute", MINUTE, 1440), ("HOURLY", "hourly", HOUR, 24), ("DAILY", "daily", DAY, 1)],
)
def test_a_day_of_each_granularity(office, granularity, kind, step, count):
    office = office(clock=Clock(NOON + 59_999))
    start = NOON - NOON % step
    office.put([(start - n * step, float(n)) for n in range(4 * count, -1, -1)], kind=kind)
    (data,) = office.make(report_of("ONE_TIME", granularityType=granularity)).values()
    found = lines(data)
    assert len(found) == count and found[-1].endswith(",0.0")


def test_what_is_older_than_the_range_stays_out(office):
    office = office()
    office.put([(NOON - DAY - MINUTE, 1.0), (NOON - DAY, 2.0), (NOON - 5, 3.0)])
    (data,) = office.make(report_of("ONE_TIME")).values()
    assert [line.split(",")[1] for line in lines(data)] == ["2.0", "3.0"]


def test_without_data_there_is_no_file(office):
    office = office()
    for output in ("CSV_FILE_PER_DEVICE_PER_PIN", "CSV_FILE_PER_DEVICE", "MERGED_CSV"):
        assert office.make(two_devices(reportOutput=output)) is None
    assert os.listdir(office.desk.settings.data_csv_folder) == []


def test_data_in_any_stream_are_enough(office):
    office = office()
    office.put([(NOON - MINUTE, 4.0)])
    for output in ("CSV_FILE_PER_DEVICE", "MERGED_CSV"):
        assert office.make(two_devices(reportOutput=output))  # the last stream has none


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ({"type": "ONE_TIME"}, "Report name: My report<br>Period: One time"),
        ({"type": "DAILY"}, "Report name: My report<br>Period: Daily, at 10:30"),
        ({"type": "WEEKLY", "dayOfTheWeek": 1}, "Report name: My report<br>Period: Weekly, at 10:30 every Monday"),
        (
            {"type": "MONTHLY", "dayOfMonth": "LAST"},
            "Report name: My report<br>Period: Monthly, at 10:30 at the last day of every month",
        ),
        (
            {
                "type": "DAILY",
                "durationType": "CUSTOM",
                "startTs": at(BERLIN, 2026, 1, 2),
                "endTs": at(BERLIN, 2026, 3, 4),
            },
            "Report name: My report<br>Period: Daily, at 10:30<br>Start date: 2026-01-02<br>End date: 2026-03-04<br>",
        ),
    ],
)
def test_what_the_mail_says_of_the_report(kind, expected):
    assert blynk_pi.report_section(report_of(kind["type"], kind=kind)) == expected


# -- an app, a server, a mailbox ---------------------------------------------------------------------------------------


def full_server(make_server, **settings):
    """A server whose device 0 has minutes of V1 for the last hour, and an app that is logged in."""
    server = make_server(start=False, **settings)
    server.start()
    app = server.app()
    app.make_project(1, devices=1, widgets=[widget("REPORT", 9)])
    now = int(datetime.now(timezone.utc).timestamp() * 1000)
    folder = os.path.join(server.data, "data", app.email)
    os.makedirs(folder)
    with open(os.path.join(folder, "history_1-0_v1_minute.bin"), "wb") as file:
        file.write(b"".join(struct.pack(">dq", n, now - now % MINUTE - n * MINUTE) for n in range(60, 0, -1)))
    return server, app


def sent_report(**fields):
    document = dict(report_of("ONE_TIME", **fields))
    del document["nextReportAt"], document["lastReportAt"]
    return document


def test_a_report_is_mailed_with_a_link_that_works(make_server, mailbox):
    server, app = full_server(make_server, **mailbox.settings)
    app.json("CREATE_REPORT", 1, sent_report(recipients=app.email))
    made = app.json("EXPORT_REPORT", 1, 1)
    assert made["lastRunResult"] == "OK"
    assert app.ask("EXPORT_REPORT", 1, 1) == QUOTA_LIMIT
    mail = mailbox.next_to(app.email)
    while mail["subject"] != "Your one time My report is ready":  # the greeting
        mail = mailbox.next_to(app.email)
    body = mail.get_content()
    assert "Report name: My report<br>Period: One time" in body.splitlines()
    link = body.split('href="')[1].split('"')[0]
    reply = server.get(link.split(f":{server.http_port}", 1)[1])
    assert reply.status == 200
    with zipfile.ZipFile(io.BytesIO(reply.body)) as archive:
        assert len(lines(archive.read(archive.namelist()[0]))) == 60


def test_reports_of_an_account_survive_a_restart_and_are_deleted(make_server):
    server, app = full_server(make_server)
    created = app.json("CREATE_REPORT", 1, report_of())
    assert created["nextReportAt"] > created["lastReportAt"] == 0
    server.stop()
    server.start()
    again = server.app(app.email)
    assert again.widget(1, 9)["reports"][0]["nextReportAt"] == created["nextReportAt"]
    assert again.ask("DELETE_REPORT", 1, 1) == OK
    assert again.ask("DELETE_REPORT", 1, 1) == ILLEGAL_COMMAND
    assert "reports" not in again.widget(1, 9)


def test_history_of_a_killed_server_is_carried_on(make_server):
    server = make_server(data_journal_interval_ms=100)
    app = server.app()
    graph = widget("ENHANCED_GRAPH", 9, dataStreams=[{"targetId": 0, "pin": {"pin": 1, "pinType": "VIRTUAL"}}])
    app.make_project(1, devices=1, widgets=[graph])
    board = server.hardware(app.token(1, 0))
    for value in (1, 2, 6):
        board.send("vw", 1, value)
    board.ping()
    journal = os.path.join(server.data, "journal.log")
    until(lambda: os.path.exists(journal) and b'"h"' in open(journal, "rb").read(), what="the journal")
    server.kill()
    server.start()
    averages = os.path.join(server.data, "aggregation_temp.json")
    until(lambda: os.path.exists(averages) and '"v1"' in open(averages).read(), what="the averages")
    server.stop()
    with open(averages) as file:
        assert ",9.0,3]" in file.read()
