"""What the tests of an installation share. They install a finished build below a directory of their own, as a package
would be put together, and use what lies there.

The environment names what is tested:
  CAISSON_BUILD   the build directory, with everything built
  CAISSON_SOURCE  the source tree
"""
import os
import pathlib
import shutil
import subprocess


def setting(name):
    value = os.environ.get(name, "")
    if not value:
        raise RuntimeError(f"{name} is not set; run these tests with ctest")
    return pathlib.Path(value)


BUILD = setting("CAISSON_BUILD")
SOURCE = setting("CAISSON_SOURCE")


def run(*command, **options):
    """Runs a command that must succeed; its standard output."""
    ended = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    assert ended.returncode == 0, f"{' '.join(map(str, command))} failed:\n{ended.stdout}{ended.stderr}"
    return ended.stdout


def install(destination, prefix="/usr/local"):
    """The prefix's directory below `destination`."""
    run("cmake", "--install", BUILD, "--prefix", prefix, env={**os.environ, "DESTDIR": str(destination)})
    return pathlib.Path(f"{destination}{prefix}")


def build_with_pkg_config(prefix, source, program):
    environment = {**os.environ, "PKG_CONFIG_PATH": str(prefix / "lib/pkgconfig")}
    flags = run("pkg-config", "--cflags", "--libs", "caisson", env=environment).split()
    run("g++", "-std=c++20", "-o", program, source, *flags)
    return program


def build_with_cmake(prefix, source, directory):
    shutil.copy(source, directory / "program.cc")
    (directory / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.25)\n"
        "project(embedding LANGUAGES CXX)\n"
        "find_package(caisson 0.1 REQUIRED)\n"
        "add_executable(program program.cc)\n"
        "target_link_libraries(program PRIVATE caisson::caisson)\n")
    run("cmake", "-S", directory, "-B", directory / "build", f"-DCMAKE_PREFIX_PATH={prefix}")
    run("cmake", "--build", directory / "build")
    return directory / "build/program"
