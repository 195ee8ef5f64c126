"""The image store: loading in every format, importing, listing, removing. skopeo makes what other tools make."""
import gzip
import io
import json
import os
import re
import shutil
import subprocess
import tarfile

import pytest
from boxes import BASE, HOME, TINY_ARCHIVE, caisson, run


def tool(*arguments, **more):
    done = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **more)
    assert done.returncode == 0, done.stdout.decode(errors="replace")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """The tiny image in every form in which images travel."""
    assert shutil.which("skopeo"), "skopeo is missing: sudo apt-get install skopeo"
    place = tmp_path_factory.mktemp("images")
    with tarfile.open(TINY_ARCHIVE) as archive:
        archive.extractall(place / "source")
    oci = f"oci:{place}/source:latest"
    tool("skopeo", "--insecure-policy", "copy", "--quiet", oci, f"oci:{place}/layout:latest")
    tool("skopeo", "--insecure-policy", "copy", "--quiet", oci, f"docker-archive:{place}/docker.tar:test/docker:7")
    tool("skopeo", "--insecure-policy", "copy", "--quiet", "--dest-compress", oci, f"oci:{place}/compressed:latest")
    with gzip.open(place / "docker.tar.gz", "wb", compresslevel=1) as packed:
        packed.write((place / "docker.tar").read_bytes())
    return place


@pytest.fixture
def loaded():
    """Removes every image that a test has added."""
    before = names()
    yield
    for name in names() - before:
        caisson("image", "rm", name)


def names():
    return {image["name"] for image in caisson("image", "ls", "--format", "json").json()}


def blobs():
    return sorted(os.listdir(HOME / "images/blobs/sha256"))


def test_every_format_gives_the_same_image(sources, loaded):
    given = {
        "layout": ["--name", "load/layout", str(sources / "layout")],
        "compressed": ["--name", "load/compressed", str(sources / "compressed")],
        "archive": ["--name", "load/archive:2", str(TINY_ARCHIVE)],
        "docker": [str(sources / "docker.tar")],
    }
    said = {kind: caisson("image", "load", *arguments).ok().text for kind, arguments in given.items()}
    assert said["layout"].startswith("load/layout") and said["archive"] == "load/archive:2\n" and said["docker"] == "test/docker:7\n"
    with open(sources / "docker.tar.gz", "rb") as packed:
        assert caisson("image", "load", "--name", "load/stdin", stdin=packed).ok().text.startswith("load/stdin")
    with open(TINY_ARCHIVE, "rb") as archive:
        assert caisson("image", "load", "--name", "load/dash", "-", stdin=archive).ok().text.startswith("load/dash")
    listed = {image["name"].partition(":")[0]: image for image in caisson("image", "ls", "--format", "json").json()}
    assert {"load/layout", "load/compressed", "load/archive", "test/docker", "load/stdin", "load/dash"} <= set(listed)
    assert listed["load/layout"]["id"] == listed["load/archive"]["id"] == listed["load/dash"]["id"]
    assert all(listed[name]["layers"] == 1 for name in listed)
    # One of them, by each of its names, runs with its configuration.
    for image in ("load/compressed", "test/docker:7"):
        assert run(image).ok().text == "entrypoint blue cmd\n"


def test_an_image_is_found_by_its_id_too(sources, loaded):
    caisson("image", "load", "--name", "load/byid", TINY_ARCHIVE).ok()
    image = next(image for image in caisson("image", "ls", "--format", "json").json() if image["name"].startswith("load/byid"))
    short = image["id"].split(":")[1][:12]
    assert run("--dry-run", short).code == 0
    assert run("--dry-run", image["id"]).code == 0


def test_an_imported_root_file_system(loaded, sources):
    with tarfile.open(TINY_ARCHIVE) as archive:
        manifest = json.load(archive.extractfile("index.json"))["manifests"][0]["digest"][7:]
        layer = json.load(archive.extractfile("blobs/sha256/" + manifest))["layers"][0]["digest"][7:]
        rootfs = archive.extractfile("blobs/sha256/" + layer).read()
    result = caisson("image", "import", "--name", "my/import:1", "--cmd", "sh", "--cmd", "-c", "--cmd", "echo $A; pwd; id -un",
                     "-e", "A=from import", "-e", "PATH=/usr/bin", "-w", "/opt", "-u", "bob", "-", input=rootfs).ok()
    assert result.text == "my/import:1\n"
    assert run("my/import:1").ok().lines == ["from import", "/opt", "bob"]
    assert caisson("image", "rm", "my/import:1").ok().text == "my/import:1\n"
    assert run("my/import:1").code == 125


def test_removing_gives_the_space_back(loaded):
    before = blobs()
    # An image of its own, so that no blob is shared.
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo("file")
        entry.size = 3000000
        tar.addfile(entry, io.BytesIO(os.urandom(3000000)))
    caisson("image", "import", "--name", "space/one", "-", input=buffer.getvalue()).ok()
    assert len(blobs()) == len(before) + 3
    result = caisson("image", "rm", "space/one").ok()
    assert result.text.startswith("space/one") and blobs() == before


@pytest.mark.keeps
def test_an_image_in_use_stays(sources, loaded, kept_boxes):
    caisson("image", "load", "--name", "load/used", TINY_ARCHIVE).ok()
    assert caisson("run", "--name", "keeper", "load/used", "true").code == 0
    refused = caisson("image", "rm", "load/used")
    assert refused.code == 125 and "keeper" in refused.said and "caisson rm" in refused.said
    caisson("rm", "keeper").ok()
    caisson("image", "rm", "load/used").ok()


@pytest.mark.keeps
def test_the_disk_of_a_kept_box_outlives_its_image(loaded, kept_boxes):
    with tarfile.open(TINY_ARCHIVE) as archive:
        manifest = json.load(archive.extractfile("index.json"))["manifests"][0]["digest"][7:]
        layer = json.load(archive.extractfile("blobs/sha256/" + manifest))["layers"][0]["digest"][7:]
        rootfs = io.BytesIO(archive.extractfile("blobs/sha256/" + layer).read())
    with tarfile.open(fileobj=rootfs, mode="a") as tar:
        tar.addfile(tarfile.TarInfo("a-disk-of-its-own"))
    disks = lambda: set((HOME / "disks").glob("*.ext4"))
    before = disks()
    caisson("image", "import", "--name", "moved/name", "-", input=rootfs.getvalue()).ok()
    assert caisson("run", "--name", "keeper", "moved/name", "true").code == 0
    disk, = disks() - before
    # The name moves to another image, and then goes: no image has these layers any more, but a box does.
    caisson("image", "load", "--name", "moved/name", TINY_ARCHIVE).ok()
    caisson("image", "rm", "moved/name").ok()
    assert disk in disks()
    caisson("rm", "keeper").ok()
    caisson("image", "load", "--name", "moved/name", TINY_ARCHIVE).ok()
    caisson("image", "rm", "moved/name").ok()
    assert disk not in disks()


def test_a_disk_that_is_too_small_is_refused_with_the_size_that_is_enough():
    refused = run("--disk-size", "64M", BASE, "true")
    assert refused.code == 125 and "does not fit into a disk of 64.0 MiB" in refused.said, refused
    size = re.search(r"--disk-size (\d+M)", refused.said)
    assert size, refused
    assert run("--disk-size", size[1], BASE, "echo", "enough").ok().text == "enough\n"


@pytest.mark.parametrize("content", [b"", b"not an archive", b"\0" * 10240, os.urandom(5000)])
def test_what_is_no_image_is_refused(content):
    before = names(), blobs()
    result = caisson("image", "load", "--name", "bad", "-", input=content)
    assert result.code == 125 and result.said.startswith("caisson: "), result
    assert (names(), blobs()) == before


def test_a_damaged_layer_is_noticed(tmp_path):
    data = bytearray(TINY_ARCHIVE.read_bytes())
    with tarfile.open(TINY_ARCHIVE) as archive:
        largest = max(archive.getmembers(), key=lambda member: member.size)
    data[largest.offset_data + largest.size // 2] ^= 1
    before = names(), blobs()
    result = caisson("image", "load", "--name", "bad", "-", input=bytes(data))
    assert result.code == 125 and "sha256" in result.said, result
    assert (names(), blobs()) == before


def test_a_truncated_archive_is_noticed():
    before = names(), blobs()
    result = caisson("image", "load", "--name", "bad", "-", input=TINY_ARCHIVE.read_bytes()[:1000000])
    assert result.code == 125, result
    assert (names(), blobs()) == before


def test_the_base_image_is_a_real_oci_image():
    image = next(image for image in caisson("image", "ls", "--format", "json").json() if image["name"].startswith(BASE))
    assert image["layers"] == 1 and image["size_bytes"] > 50 << 20
    manifest = json.loads((HOME / "images/blobs/sha256" / image["digest"][7:]).read_bytes())
    assert manifest["config"]["digest"] == image["id"]
