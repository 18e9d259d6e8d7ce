"""Back-ups: one archive of the data folder, checked, and put back whole or for one account."""

import json
import os
import shutil
import stat
import tarfile

import pytest

import blynk_pi
from blynk_pi import BackupError, make_backup, restore_backup

JAVA_DATA = os.path.join(os.path.dirname(__file__), "fixtures", "java-data")
ANNA = "anna@example.com"


@pytest.fixture
def data(tmp_path):
    """A data folder with something of everything."""
    folder = tmp_path / "Blynk"
    shutil.copytree(JAVA_DATA, folder)
    for home, _, files in os.walk(folder):
        os.chmod(home, 0o755)
        for name in files:
            os.chmod(os.path.join(home, name), 0o644)
    (folder / "cert.pem").write_text("certificate")
    (folder / "journal.log").write_bytes(blynk_pi.journal_line(7, [["v", ANNA, "Blynk", 1, 0, "v5", "31"]]))
    averages = {"saved": 1, "java": {}, "series": [[ANNA, 1, 0, "v5", []], ["other", 1, 0, "v1", []]], "journal": 7}
    (folder / "aggregation_temp.json").write_text(json.dumps(averages))
    return folder


def content(folder):
    """Every file of a data folder, without what a restore keeps there."""
    found = {}
    for home, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith("before-restore-")]
        for name in names:
            path = os.path.join(home, name)
            with open(path, "rb") as file:
                found[os.path.relpath(path, folder)] = file.read()
    return found


def test_a_backup_put_back_gives_the_same_files(data, tmp_path):
    archive = str(tmp_path / "b.tar.gz")
    before = content(data)
    assert "4 accounts" in make_backup(str(data), archive)[0]
    empty = tmp_path / "new"
    empty.mkdir()
    lines = restore_backup(str(empty), archive)
    assert len(lines) == 1 and content(empty) == before


def test_a_backup_may_be_read_by_its_owner_only_and_leaves_nothing_else(data, tmp_path):
    archive = tmp_path / "b.tar.gz"
    make_backup(str(data), str(archive))
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    assert sorted(os.listdir(tmp_path)) == ["Blynk", "b.tar.gz"]


def test_raw_data_locks_and_older_states_stay_out(data, tmp_path):
    for name in ("raw_data.db", "raw_data.db-wal", ".lock", "control.json"):
        (data / name).write_text("x")
    for name in ("raw", "before-restore-1", ".restore-2"):
        (data / name).mkdir()
        (data / name / "f").write_text("x")
    (data / "rawhide@example.com.Blynk.user").write_text('{"email":"rawhide@example.com"}')
    archive = str(tmp_path / "b.tar.gz")
    make_backup(str(data), archive)
    names = blynk_pi.check_backup(archive)
    assert not [n for n in names if n.startswith((".", "raw_", "raw/", "before", "control"))]
    assert "rawhide@example.com.Blynk.user" in names and f"data/{ANNA}/history_1-0_v5_minute.bin" in names


def test_the_journal_is_read_before_what_it_is_folded_into(data):
    names = blynk_pi.archived_files(str(data))
    assert names[0] == "journal.log" and names[1] == "aggregation_temp.json"


def test_a_backup_within_the_data_folder_does_not_hold_itself(data):
    archive = str(data / "b.tar.gz")
    make_backup(str(data), archive)
    make_backup(str(data), archive)
    assert "b.tar.gz" not in blynk_pi.check_backup(archive)


def test_what_was_there_is_kept(data, tmp_path):
    archive = str(tmp_path / "b.tar.gz")
    make_backup(str(data), archive)
    before = content(data)
    (data / f"{ANNA}.Blynk.user").write_text("changed")
    (data / "newcomer@example.com.Blynk.user").write_text("{}")
    kept = restore_backup(str(data), archive)[1].split()[-1]
    assert content(data) == before
    assert (data / kept / f"{ANNA}.Blynk.user").read_text() == "changed"
    assert (data / kept / "newcomer@example.com.Blynk.user").exists()


def test_one_account_comes_back_with_its_history_and_nothing_else_moves(data, tmp_path):
    archive = str(tmp_path / "b.tar.gz")
    make_backup(str(data), archive)
    before = content(data)
    clara = data / "clara@example.com.Blynk.user"
    clara.write_text("newer than the back-up")
    (data / f"{ANNA}.Blynk.user").unlink()
    (data / "data" / ANNA / "history_1-0_v5_minute.bin").unlink()
    (data / "data" / ANNA / "history_1-0_v77_minute.bin").write_bytes(bytes(16))
    (data / "journal.log").write_bytes(blynk_pi.journal_line(99, []))
    averages = {"saved": 5, "java": {}, "series": [[ANNA, 9, 9, "v9", []], ["other", 1, 0, "v1", [1]]], "journal": 9}
    (data / "aggregation_temp.json").write_text(json.dumps(averages))
    restore_backup(str(data), archive, ANNA)
    assert clara.read_text() == "newer than the back-up"
    user = json.loads((data / f"{ANNA}.Blynk.user").read_text())
    assert user.pop("journal") == 99  # what the journal here has is not of this account's state
    assert user == json.loads(before[f"{ANNA}.Blynk.user"])
    assert sorted(os.listdir(data / "data" / ANNA)) == sorted(os.listdir(os.path.join(JAVA_DATA, "data", ANNA)))
    merged = json.loads((data / "aggregation_temp.json").read_text())
    assert sorted(merged["series"]) == [[ANNA, 1, 0, "v5", []], ["other", 1, 0, "v1", [1]]] and merged["journal"] == 9


def test_an_account_that_is_not_in_it_changes_nothing(data, tmp_path):
    archive = str(tmp_path / "b.tar.gz")
    make_backup(str(data), archive)
    before = content(data)
    with pytest.raises(BackupError, match="no account of nobody"):
        restore_backup(str(data), archive, "nobody@example.com")
    assert content(data) == before and not [n for n in os.listdir(data) if "restore" in n]


def damaged(archive, how):
    with open(archive, "rb") as file:
        raw = file.read()
    raw = how(raw)
    with open(archive, "wb") as file:
        file.write(raw)


@pytest.mark.parametrize(
    "how",
    [
        lambda raw: raw[: len(raw) // 2],
        lambda raw: raw[:-1],
        lambda raw: raw[:-30],
        lambda raw: raw[: len(raw) // 2] + b"x" * 10 + raw[len(raw) // 2 + 10 :],
        lambda raw: b"",
        lambda raw: b"not an archive at all" * 100,
    ],
    ids=["half", "a byte short", "end missing", "bytes changed", "empty", "foreign"],
)
def test_a_damaged_archive_changes_nothing(data, tmp_path, how):
    archive = str(tmp_path / "b.tar.gz")
    make_backup(str(data), archive)
    damaged(archive, how)
    before = content(data)
    with pytest.raises(BackupError):
        restore_backup(str(data), archive)
    assert content(data) == before and not [n for n in os.listdir(data) if "restore" in n]


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "data/../../evil", ".lock", "a\\..\\b"])
def test_an_archive_that_would_write_elsewhere_is_refused(tmp_path, name):
    archive = tmp_path / "evil.tar.gz"
    with tarfile.open(archive, "w:gz") as out:
        out.addfile(tarfile.TarInfo(name))
    with pytest.raises(BackupError, match="does not belong"):
        restore_backup(str(tmp_path), str(archive))
    with tarfile.open(archive, "w:gz") as out:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        out.addfile(link)
    with pytest.raises(BackupError, match="does not belong"):
        restore_backup(str(tmp_path), str(archive))


def test_an_archive_without_its_list_is_refused(data, tmp_path):
    archive = tmp_path / "mine.tar.gz"
    with tarfile.open(archive, "w:gz") as out:
        out.add(data / "cert.pem", "cert.pem")
    with pytest.raises(BackupError, match="no list"):
        restore_backup(str(data), str(archive))


def test_a_failure_half_way_puts_everything_back(data, tmp_path, monkeypatch):
    archive = str(tmp_path / "b.tar.gz")
    make_backup(str(data), archive)
    (data / f"{ANNA}.Blynk.user").write_text("now")
    before, rename, left = content(data), os.rename, [12]

    def failing(source, target):
        left[0] -= 1
        if left[0] == 0:
            raise OSError(5, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(BackupError, match="nothing was changed"):
        restore_backup(str(data), archive)
    assert left[0] < 0 and content(data) == before


def test_a_place_that_cannot_be_written_is_named(data, tmp_path):
    with pytest.raises(BackupError, match="cannot be written: No such file or directory"):
        make_backup(str(data), str(tmp_path / "nowhere" / "b.tar.gz"))
    with pytest.raises(BackupError, match="no data folder"):
        make_backup(str(tmp_path / "nothing"), str(tmp_path / "b.tar.gz"))
    with pytest.raises(BackupError, match="no such file"):
        restore_backup(str(data), str(tmp_path / "nothing.tar.gz"))
