#!/usr/bin/env python3
"""Writes the seed corpus of the tar_reader fuzz target with GNU tar: usage: fuzz/tar_corpus.py"""
import os
import pathlib
import subprocess
import tempfile

CORPUS = pathlib.Path(__file__).resolve().parent / "corpus/tar_reader"
FORMS = {"v7": ["--format=v7"], "ustar": ["--format=ustar"], "gnu": ["--format=gnu"], "gnu-sparse": ["--format=gnu", "-S"],
         "posix": ["--format=posix"], "posix-sparse": ["--format=posix", "-S"],
         "posix-sparse-0.1": ["--format=posix", "-S", "--sparse-version=0.1"]}

CORPUS.mkdir(parents=True, exist_ok=True)
with tempfile.TemporaryDirectory() as place:
    tree = pathlib.Path(place, "d")
    tree.mkdir()
    tree.joinpath("a").write_bytes(b"text")
    os.link(tree / "a", tree / "b")
    os.symlink("a", tree / "l")
    os.mkfifo(tree / "p")
    with open(tree / "s", "wb") as file:
        for piece in range(6):
            file.seek(piece * 8192)
            file.write(b"x")
        file.truncate(65536)
    for number, (name, form) in enumerate(FORMS.items()):
        if not name.startswith("v7") and not name.startswith("ustar"):
            tree.joinpath("n" * 130).write_bytes(b"long")
            if not os.path.lexists(tree / "m"):
                os.symlink("t" * 130, tree / "m")
        archive = subprocess.run(["tar", "-c", "--sort=name", "--mtime=@1000000000", "--owner=0", "--group=0", "-b1", *form,
                                  "-C", place, *([] if "sparse" in name else ["--exclude=s"]), *(["--exclude=p"] if name == "v7" else []), "d"],
                                 check=True, stdout=subprocess.PIPE).stdout
        CORPUS.joinpath(name).write_bytes(bytes([number * 40]) + archive)
