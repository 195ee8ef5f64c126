"""What `make install` puts where, and what the library shows of itself. Needs no home and starts no box."""
import os
import pathlib
import re
import stat
import subprocess

import pytest

from installed import BUILD, SOURCE, build_with_cmake, build_with_pkg_config, install, run

SYMBOLS = pathlib.Path(__file__).with_name("symbols.txt")


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    return install(tmp_path_factory.mktemp("destination"))


def below(prefix):
    return {str(path.relative_to(prefix)) for path in prefix.rglob("*") if not path.is_dir()}


def test_programs_library_headers_and_their_descriptions_are_there(prefix):
    assert {"bin/caisson", "libexec/caisson/caisson-shim", "libexec/caisson/caisson-unpack",
            "libexec/caisson/caisson-agent", "include/caisson/runtime.h", "lib/libcaisson.so",
            "lib/pkgconfig/caisson.pc", "lib/cmake/caisson/caisson-config.cmake"} <= below(prefix)


def test_everybody_may_read_and_nobody_else_may_write(prefix):
    for path in prefix.rglob("*"):
        if path.is_symlink():
            continue
        mode = stat.S_IMODE(path.stat().st_mode)
        program = path.is_dir() or path.parent.name == "bin" or path.read_bytes()[:2] == b"#!" or path.name in (
            "caisson-shim", "caisson-unpack", "caisson-agent")
        assert mode == (0o755 if program else 0o644), f"{path} has mode {mode:o}"


def test_no_file_names_the_place_it_was_built_or_installed_in(prefix):
    """An installation can be moved as a whole. (Programs may name source files in messages of failed checks.)"""
    for name in below(prefix):
        path = prefix / name
        content = path.read_bytes()
        if content.startswith(b"\x7fELF"):
            continue
        for place in (BUILD, prefix):
            assert str(place).encode() not in content, f"{name} names {place}"


def exported(library):
    return sorted(line.split()[-1] for line in run("nm", "-D", "--defined-only", library).splitlines())


def test_the_library_exports_the_api_and_nothing_else(prefix):
    """A changed list is a changed ABI: adjust symbols.txt, and the version when it is released."""
    expected = sorted(line.split(" ")[0] for line in SYMBOLS.read_text().splitlines() if line and line[0] != "#")
    found = exported(prefix / "lib/libcaisson.so")
    names = dict(zip(found, run("c++filt", *found).splitlines()))
    new = [f"{symbol} {names[symbol]}" for symbol in found if symbol not in expected]
    assert not new, "exported but not in symbols.txt:\n" + "\n".join(new)
    assert not set(expected) - set(found), "in symbols.txt but no longer exported"


def test_the_library_is_named_by_its_api(prefix):
    dynamic = run("readelf", "--dynamic", "--wide", prefix / "lib/libcaisson.so")
    version = re.search(r"Version: (\d+\.\d+)\.\d+", (prefix / "lib/pkgconfig/caisson.pc").read_text())[1]
    assert f"[libcaisson.so.{version}]" in dynamic
    assert "RPATH" not in dynamic and "RUNPATH" not in dynamic
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic)
    assert {re.sub(r"\.so.*", "", name) for name in needed} <= {
        "libc", "libm", "libstdc++", "libgcc_s", "libprotobuf-lite", "ld-linux-x86-64"}, needed


def test_a_program_outside_the_tree_builds_with_pkg_config(prefix, tmp_path):
    program = build_with_pkg_config(prefix, SOURCE / "examples/run_code.cc", tmp_path / "program")
    assert "libcaisson.so." in run("readelf", "--dynamic", program)


def test_a_program_outside_the_tree_builds_with_cmake(prefix, tmp_path):
    program = build_with_cmake(prefix, SOURCE / "examples/run_code.cc", tmp_path)
    assert "libcaisson.so." in run("readelf", "--dynamic", program)


def test_another_minor_version_is_not_found(prefix, tmp_path):
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.25)\nproject(other LANGUAGES CXX)\nfind_package(caisson 0.0.9 REQUIRED)\n")
    ended = subprocess.run(["cmake", "-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={prefix}"],
                           capture_output=True, text=True)
    assert ended.returncode != 0 and "0.0.9" in ended.stderr


def test_make_uninstall_removes_every_file(tmp_path):
    place = {**os.environ, "DESTDIR": str(tmp_path)}
    run("cmake", "--install", BUILD, "--prefix", "/usr/local", env=place)
    (tmp_path / "usr/local/bin/other").write_text("not ours")
    run("make", "-C", SOURCE, "uninstall", f"DESTDIR={tmp_path}", f"INSTALLED={BUILD}/install_manifest.txt")
    assert below(tmp_path) == {"usr/local/bin/other"}
    assert not (tmp_path / "usr/local/libexec").exists() and not (tmp_path / "usr/local/include/caisson").exists()
