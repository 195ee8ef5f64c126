"""A program outside the tree, built against an installed library, runs a box; so does the installed command line."""
import os
import pathlib
import shutil
import subprocess

import pytest

import boxes
from installed import SOURCE, build_with_pkg_config, install


@pytest.fixture(scope="module")
def prefix():
    """Below the test's home, where root's service user can reach it."""
    place = boxes.WORK / "installed"
    shutil.rmtree(place, ignore_errors=True)
    yield install(place)
    shutil.rmtree(place)


def test_an_embedding_program_finds_its_library_s_own_helpers(prefix, tmp_path):
    """The program lies where there is no libexec beside it."""
    program = build_with_pkg_config(prefix, SOURCE / "examples/run_code.cc", tmp_path / "program")
    ended = subprocess.run([program, "print(6 * 7)"], capture_output=True, text=True,
                           env=boxes.environment(LD_LIBRARY_PATH=str(prefix / "lib")))
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("output: 42\nexit code: 0")


def test_the_installed_command_line_runs_a_box(prefix):
    ended = subprocess.run([prefix / "bin/caisson", "run", "--rm", boxes.BASE, "echo", "installed"], capture_output=True,
                           text=True, env=boxes.environment())
    assert (ended.returncode, ended.stdout) == (0, "installed\n"), ended.stderr
