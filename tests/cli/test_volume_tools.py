"""What developers do all day, on a volume: git clone and npm install."""
import os
import re
import shutil
import subprocess

import pytest
from boxes import ASSETS, WORK, caisson, run, sections

IMAGE = "test/developer"


def libraries_of(*programs):
    """Shared libraries that they load, but the C library, which the base image has."""
    found = set()
    for program in programs:
        said = subprocess.run(["ldd", program], check=True, stdout=subprocess.PIPE).stdout.decode()
        found |= {path for path in re.findall(r"=> (/\S+)", said) if not re.search(r"/(libc|libm|libpthread|libdl|librt)\.so", path)}
    return sorted(found)


@pytest.fixture(scope="module")
def developer():
    """The base image with this host's git and npm."""
    node, npm, git = (shutil.which(name) for name in ("node", "npm", "git"))
    if not (node and npm and git):
        pytest.skip("git, node and npm of this host are what the test runs in a box, and they are not all here")
    npm_directory = os.path.dirname(os.path.dirname(os.path.realpath(npm)))
    if not os.path.isdir(f"{npm_directory}/node_modules"):
        pytest.skip(f"the npm of this host is spread over many packages, and not all in {npm_directory}")
    place = WORK / "developer"
    shutil.rmtree(place, ignore_errors=True)
    libraries = place / "tree/usr/lib/x86_64-linux-gnu"
    libraries.mkdir(parents=True)
    for path in libraries_of(os.path.realpath(node), git):
        shutil.copy(path, libraries)
    (place / "tree/usr/bin").mkdir()
    shutil.copy(os.path.realpath(node), place / "tree/usr/bin/node")
    shutil.copy(git, place / "tree/usr/bin/git")
    shutil.copytree("/usr/lib/git-core", place / "tree/usr/lib/git-core", symlinks=True)
    shutil.copytree("/usr/share/git-core", place / "tree/usr/share/git-core", symlinks=True)
    shutil.copytree(npm_directory, place / "tree/opt/npm", symlinks=True)
    archive = place / "image.tar"
    shutil.copy(f"{ASSETS}/base/rootfs.tar", archive)
    subprocess.run(["tar", "--append", "--file", archive, "--owner=0", "--group=0", "-C", place / "tree", "usr", "opt"], check=True)
    with open(archive, "rb") as content:
        caisson("image", "import", "--name", IMAGE, "-", stdin=content, timeout=120).ok()
    shutil.rmtree(place)
    yield IMAGE
    caisson("image", "rm", IMAGE)
    for volume in ("work", "cache"):
        caisson("volume", "rm", volume)


def test_git_clone_of_a_local_repository(developer):
    said = sections(run("-v", "work:/work", developer, "sh", "-c", """
        export HOME=/tmp; git config --global user.email a@b; git config --global user.name n; git config --global init.defaultBranch main
        set -e; mkdir /work/source; cd /work/source; git init -q
        for i in $(seq 40); do mkdir -p d$((i % 7)); seq $i > d$((i % 7))/f$i; done
        git add .; git commit -qm one; for i in $(seq 5); do echo $i >> d1/f1; git commit -qam "$i"; done; git gc -q
        git clone -q /work/source /work/clone; git clone -q --no-local /work/source /work/far; cd /work/clone
        echo '## log'; git log --oneline | wc -l; echo '## status'; git status --porcelain; echo '## fsck'; git fsck 2>&1 | grep -v '^Checking\\|notice' || true
        echo '## far'; git -C /work/far rev-parse HEAD; git rev-parse HEAD
    """, timeout=120).ok().text)
    assert said["log"] == "6" and said["status"] == "" and said["fsck"] == ""
    assert len(set(said["far"].split())) == 1


def test_npm_install_of_a_local_tree(developer):
    said = sections(run("--memory", "1g", "-v", "work:/work", "-v", "cache:/cache", developer, "sh", "-c", """
        set -e; mkdir -p /work/app /work/lib/src; cd /work/lib
        echo '{"name": "lib", "version": "1.0.0", "bin": {"lib": "src/run.js"}, "main": "src/index.js"}' > package.json
        echo 'module.exports = (n) => n * 7;' > src/index.js; printf '#!/usr/bin/env node\\nconsole.log(require("./index.js")(6))\\n' > src/run.js
        cd /work/app; echo '{"name": "app", "version": "1.0.0", "dependencies": {"lib": "file:../lib"}}' > package.json
        npm="node /opt/npm/bin/npm-cli.js --cache /cache --offline --no-audit --no-fund --no-update-notifier"
        $npm install --install-links >/dev/null
        echo '## run'; node -e 'console.log(require("lib")(6))'; node_modules/.bin/lib
        echo '## ls'; $npm ls --parseable | wc -l; ls node_modules
        $npm install >/dev/null; echo '## linked'; readlink node_modules/lib
    """, timeout=240).ok().text)
    assert said["run"].split() == ["42", "42"] and "lib" in said["ls"].split() and said["linked"] == "../../lib"
