"""The wheel: what `pip install` puts on a machine is enough to run, and the installed server finds its web files."""

import os
import shutil
import subprocess
import sys
import venv
import zipfile

import pytest
from servers import ROOT, Server

pytest.importorskip("setuptools")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    ignored = shutil.ignore_patterns(".git", ".venv", "tests", "__pycache__", ".*_cache", "build", "*.egg-info")
    shutil.copytree(ROOT, source, ignore=ignored)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "-q",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            str(folder),
            str(source),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return next(str(path) for path in folder.iterdir() if path.suffix == ".whl")


def test_every_web_file_is_in_the_wheel(wheel):
    names = {name.partition("share/blynk-pi/")[2] for name in zipfile.ZipFile(wheel).namelist()}
    for where, _, files in os.walk(os.path.join(ROOT, "web")):
        for name in files:
            path = os.path.relpath(os.path.join(where, name), ROOT).replace(os.sep, "/")
            assert path in names, f"{path} is not in the wheel: see data-files in pyproject.toml"


def test_the_installed_program_runs_and_finds_its_pages(wheel, folder, certificate):
    home = os.path.join(folder, "venv")
    venv.create(home, with_pip=False, symlinks=True)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "--python",
            os.path.join(home, "bin", "python"),
            "install",
            "-q",
            "--no-deps",
            wheel,
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    program = os.path.join(home, "bin", "blynk-pi")
    assert os.path.exists(os.path.join(home, "bin", "blynk-ser.py"))
    server = Server(folder, **certificate)
    server.command = lambda: [program, "--data", server.data, "--config", server.config]
    server.start()
    try:
        index = os.path.join(ROOT, "web", "index.html")
        if os.path.exists(index):
            with open(index, "rb") as f:
                assert server.get("/").body == f.read() or server.get("/").status in (301, 302, 307)
        assert server.app().ask("PING") == 200
    finally:
        server.finish()
