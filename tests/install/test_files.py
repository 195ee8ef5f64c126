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
        program = path.is_dir() or str(path.parent.relative_to(prefix)) in ("bin", "libexec/caisson") or (
            path.read_bytes()[:2] == b"#!")
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


def pages(prefix):
    return sorted((prefix / "share/man/man1").glob("*.1.gz"))


def test_every_command_has_a_manual_page(prefix):
    table = run(BUILD / "bin/caisson", "--help")
    commands = re.findall(r"^  ([a-z-]+)(?:, | {2,})", table.partition("Subcommands:")[2], re.M)
    assert len(commands) > 4
    names = {page.name for page in pages(prefix)}
    assert {"caisson.1.gz", "caisson-setup.1.gz"} | {f"caisson-{name}.1.gz" for name in commands} == names


def test_manual_pages_render_without_a_warning(prefix):
    for page in pages(prefix):
        shown = subprocess.run(["man", "--warnings", "-E", "UTF-8", "-l", page], capture_output=True, text=True,
                               env={**os.environ, "MANWIDTH": "100", "LC_ALL": "C.UTF-8"})
        assert (shown.returncode, shown.stderr) == (0, ""), f"{page}: {shown.stderr}"
        assert "NAME" in shown.stdout and "SYNOPSIS" in shown.stdout
        text = subprocess.run(["zcat", page], capture_output=True, text=True, check=True).stdout
        lint = subprocess.run(["mandoc", "-Tlint", "-W", "warning"], input=text, capture_output=True, text=True)
        assert lint.stdout == "", f"{page}: {lint.stdout}"


def test_every_option_is_on_its_page(prefix):
    text = run("man", "-l", prefix / "share/man/man1/caisson-run.1.gz", env={**os.environ, "LC_ALL": "C.UTF-8"})
    text = re.sub(r".\x08", "", text)
    for option in re.findall(r"--[a-z-]+", run(BUILD / "bin/caisson", "run", "--help").partition("Options:")[2].partition("Examples:")[0]):
        assert option in text


def test_what_is_generated_depends_on_nothing_else(prefix, tmp_path):
    version = run(BUILD / "bin/caisson", "--version").split()[1]
    for place in ("one", "two"):
        run(BUILD / "src/cli/caisson-generate", tmp_path / place, version, "2001-02-03", cwd=tmp_path)
    run("diff", "-r", tmp_path / "one", tmp_path / "two")
    shell = tmp_path / "one"
    run("bash", "-n", shell / "bash/caisson")
    run("zsh", "-n", shell / "zsh/_caisson")
    run("fish", "--no-execute", shell / "fish/caisson.fish")


def test_set_up_explains_itself_where_it_is_installed(prefix):
    assert "sudo caisson-setup" in run(prefix / "bin/caisson-setup", "--help")
    ended = subprocess.run([prefix / "bin/caisson-setup", "--check", prefix / "nowhere"], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", "")


def test_make_uninstall_removes_every_file(tmp_path):
    place = {**os.environ, "DESTDIR": str(tmp_path)}
    run("cmake", "--install", BUILD, "--prefix", "/usr/local", env=place)
    (tmp_path / "usr/local/bin/other").write_text("not ours")
    run("make", "-C", SOURCE, "uninstall", f"DESTDIR={tmp_path}", f"INSTALLED={BUILD}/install_manifest.txt")
    assert below(tmp_path) == {"usr/local/bin/other"}
    assert not (tmp_path / "usr/local/libexec").exists() and not (tmp_path / "usr/local/include/caisson").exists()
