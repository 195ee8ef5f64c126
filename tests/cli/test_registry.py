"""Images from real registries: names, logins, TLS, tokens, resuming, sharing, saving."""
import base64
import json
import os
import signal
import stat
import subprocess
import tarfile
import time

import boxes
import pytest
import registries
from boxes import SANITIZED
from registries import PASSWORD, USER, Authority, Home, Image, Registry, Server, SlowRelay, TokenServer, push_image, tool


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    registries.check_tools()
    return tmp_path_factory.mktemp("registries")


@pytest.fixture(scope="module")
def authority(place):
    return Authority(place / "authority", "caisson test")


@pytest.fixture(scope="module")
def plain(place):
    """Open, without TLS: test/tiny:1, test/many:1 (two platforms), test/zstd:1, test/layers:1 (20 layers)."""
    registry = Registry(place / "plain")
    tiny = registries.tiny_layout(place)
    registry.push(tiny, "test/tiny:1")
    tool("skopeo", "--insecure-policy", "copy", "--quiet", "--dest-compress", "--dest-compress-format", "zstd", tiny, f"oci:{place}/zstd:x")
    registry.push(f"oci:{place}/zstd:x", "test/zstd:1")
    for architecture in ("amd64", "arm64"):
        image = Image([registries.tar_of([("etc/architecture", "file", architecture.encode())])], architecture=architecture, Cmd=["true"])
        push_image(registry, image, f"test/many:{architecture}", place / architecture)
    push_list(registry, "test/many", "1", {"amd64": "amd64", "arm64": "arm64"})
    layers = [registries.tar_of([(f"layers/{number}", "file", os.urandom(20000))]) for number in range(20)]
    push_image(registry, Image(layers), "test/layers:1", place / "layers")
    yield registry
    registry.stop()


def http(registry, method, path, data=None, headers=()):
    import http.client
    connection = http.client.HTTPConnection("127.0.0.1", registry.port, timeout=20)
    connection.request(method, path, data, dict(headers))
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status < 300, (answer.status, body)
    return answer, body


def push_list(registry, repository, tag, tags):
    manifests = []
    for architecture, source in tags.items():
        kind = "application/vnd.oci.image.manifest.v1+json"
        _, body = http(registry, "GET", f"/v2/{repository}/manifests/{source}", headers={"Accept": kind})
        manifests.append({"mediaType": kind, "digest": registries.digest_of(body), "size": len(body),
                          "platform": {"os": "linux", "architecture": architecture}})
    kind = "application/vnd.oci.image.index.v1+json"
    text = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": manifests}).encode()
    http(registry, "PUT", f"/v2/{repository}/manifests/{tag}", text, {"Content-Type": kind})
    return registries.digest_of(text)


@pytest.fixture
def fresh():
    with registries.fresh_home() as home:
        yield home


@pytest.fixture
def slow_big(place):
    """A registry that gives out one large layer slowly, and may be cut off: what docker-registry cannot be told to do.
    It stands before a real one and passes its bytes on."""
    layer = registries.tar_of([("big", "file", os.urandom(6 << 20))])
    image = Image([layer], Cmd=["true"])
    directory = place / f"slow-{time.monotonic_ns()}"
    registry = Registry(directory)
    push_image(registry, image, "test/slow:1", directory / "layout")
    relay = SlowRelay(registry)
    relay.layer = image.layer_digests[0]
    yield relay
    relay.stop()
    registry.stop()


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


# ---- pulling -------------------------------------------------------------------------------------------------------

def test_pull_by_tag_runs_offline_afterwards(plain, fresh):
    name = f"{plain.name}/test/tiny:1"
    result = fresh("image", "pull", name).ok()
    assert result.text == name + "\n" and result.err == b""  # silent in a pipe
    assert fresh.downloads() == []
    plain.stop()
    try:
        assert fresh("run", "--rm", name, timeout=120).ok().text == "entrypoint blue cmd\n"
        always = fresh("run", "--rm", "--pull", "always", name)
        assert always.code == 125 and f"127.0.0.1:{plain.port}" in always.said
    finally:
        plain.start()


def test_run_pulls_what_is_missing_and_only_that(plain, fresh):
    name = f"{plain.name}/test/tiny:1"
    never = fresh("run", "--rm", "--pull", "never", name)
    assert never.code == 125 and "there is no image" in never.said
    assert fresh("run", "--rm", name, timeout=120).ok().text == "entrypoint blue cmd\n"
    before = plain.requests("/v2/test/tiny/manifests")
    fresh("run", "--rm", name).ok()
    assert plain.requests("/v2/test/tiny/manifests") == before
    fresh("run", "--rm", "--pull", "always", name).ok()
    assert plain.requests("/v2/test/tiny/manifests") > before
    assert fresh("run", "--pull", "sometimes", name).code == 2


def test_pull_by_digest_and_platform(plain, fresh):
    repository = f"{plain.name}/test/many"
    fresh("image", "pull", repository + ":1").ok()
    here = fresh("image", "inspect", "--format", "json", repository + ":1").json()[0]
    assert here["platform"] == "linux/amd64" and here["source_digest"] != here["digest"]
    # By the digest of the list, and by that of the manifest in it.
    fresh("image", "pull", f"{repository}@{here['source_digest']}").ok()
    fresh("image", "pull", f"{repository}@{here['digest']}").ok()
    for digest in (here["source_digest"], here["digest"]):
        found = fresh("image", "inspect", "--format", "json", f"{repository}@{digest}").json()[0]
        assert found["digest"] == here["digest"] and found["id"] == here["id"]
    fresh("image", "pull", "--platform", "linux/arm64", repository + ":1").ok()
    there = fresh("image", "inspect", "--format", "json", repository + ":1").json()[0]
    assert there["platform"] == "linux/arm64" and there["source_digest"] == here["source_digest"]
    refused = fresh("run", "--rm", "--pull", "never", repository + ":1", "true")
    assert refused.code == 125 and "linux/arm64" in refused.said
    missing = fresh("image", "pull", "--platform", "linux/s390x", repository + ":1")
    assert missing.code == 125 and "linux/s390x" in missing.said and "linux/amd64, linux/arm64" in missing.said
    assert fresh("image", "pull", "--platform", "windows", repository + ":1").code == 2
    # A single manifest for another machine is not taken by mistake.
    wrong = fresh("image", "pull", repository + ":arm64")
    assert wrong.code == 125 and "arm64" in wrong.said


def test_zstd_layers(plain, fresh):
    name = f"{plain.name}/test/zstd:1"
    fresh("image", "pull", name).ok()
    assert "zstd" in fresh("image", "inspect", "--format", "json", name).json()[0]["layers"][0]["media_type"]
    assert fresh("run", "--rm", name, timeout=120).ok().text == "entrypoint blue cmd\n"


def test_many_layers(plain, fresh):
    fresh("image", "pull", f"{plain.name}/test/layers:1").ok()
    assert fresh.images()[f"{plain.name}/test/layers:1"]["layers"] == 20


def test_what_is_here_is_not_downloaded_again(plain, fresh):
    fresh("image", "pull", f"{plain.name}/test/tiny:1").ok()
    before = plain.requests("/blobs/")
    fresh("image", "pull", f"{plain.name}/test/tiny:1").ok()
    assert plain.requests("/blobs/") == before


@pytest.mark.parametrize("wrong", ["test/tiny:2", "test/nothing:1", "test/tiny@sha256:" + "0" * 64])
def test_what_the_registry_does_not_have(plain, fresh, wrong):
    result = fresh("image", "pull", f"{plain.name}/{wrong}")
    assert result.code == 125 and "has no image" in result.said and wrong.split(":")[-1][:10] in result.said, result
    assert fresh.images() == {} and fresh.downloads() == []


def test_nobody_answers(fresh):
    result = fresh("image", "pull", f"127.0.0.1:{registries.free_port()}/test/tiny:1")
    assert result.code == 125 and "connect" in result.said.lower(), result
    result = fresh("image", "pull", "no-such-host.invalid/test/tiny:1")
    assert result.code == 125 and "no-such-host.invalid" in result.said and "resolved" in result.said, result


def test_names_of_this_host_are_never_pulled(fresh):
    result = fresh("image", "pull", "caisson/other")
    assert result.code == 125 and "never pulled" in result.said


# ---- TLS and logins ------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def secure(place, authority, plain):
    """With TLS and a password, on the storage of the plain one."""
    registry = Registry(place / "secure", authority=authority, password=True, storage=place / "plain/data")
    yield registry
    registry.stop()


def log_in(fresh, registry, authority, password=PASSWORD, *more):
    return fresh("registry", "login", "-u", USER, "--password-stdin", "--tls-ca", authority.pem, *more, registry.name, input=password.encode() + b"\n")


def test_tls_and_basic(secure, authority, place, fresh):
    name = f"{secure.name}/test/tiny:1"
    unknown = fresh("image", "pull", name)
    assert unknown.code == 125 and "certificate" in unknown.said and "--tls-ca" in unknown.said, unknown
    other = Authority(place / f"other-{time.monotonic_ns()}", "somebody else")
    wrong_ca = fresh("image", "pull", "--tls-ca", other.pem, name)
    assert wrong_ca.code == 125 and "is not trusted" in wrong_ca.said, wrong_ca
    anonymous = fresh("image", "pull", "--tls-ca", authority.pem, name)
    assert anonymous.code == 125 and f"caisson registry login {secure.name}" in anonymous.said, anonymous
    refused = log_in(fresh, secure, authority, "wrong")
    assert refused.code == 125 and f"user {USER}" in refused.said and "wrong" not in refused.said, refused
    assert not (fresh.user / ".docker/config.json").exists()
    assert "logged in" in log_in(fresh, secure, authority).ok().text
    config = fresh.user / ".docker/config.json"
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert json.loads(config.read_text())["auths"][secure.name]["auth"] == base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    fresh("image", "pull", "--tls-ca", authority.pem, name).ok()
    assert name in fresh.images()
    # skopeo reads the same file.
    tool("skopeo", "inspect", "--tls-verify=false", "--authfile", config, f"docker://{name}")
    assert fresh("registry", "logout", secure.name).code == 0
    assert json.loads(config.read_text())["auths"] == {}
    assert fresh("registry", "logout", secure.name).code == 125
    assert fresh("image", "pull", "--tls-ca", authority.pem, name).code == 125


def test_a_stored_password_that_is_wrong(secure, authority, fresh):
    (fresh.user / ".docker").mkdir()
    (fresh.user / ".docker/config.json").write_text(json.dumps({"auths": {secure.name: {"auth": base64.b64encode(b"robot:old").decode()}}}))
    result = fresh("image", "pull", "--tls-ca", authority.pem, f"{secure.name}/test/tiny:1")
    assert result.code == 125 and "does not accept" in result.said and "log in again" in result.said, result


def test_a_token_server(place, authority, plain, fresh):
    tokens = TokenServer(authority)
    registry = Registry(place / "tokens", authority=authority, tokens=tokens, storage=place / "plain/data")
    try:
        name = f"{registry.name}/test/tiny:1"
        anonymous = fresh("image", "pull", "--tls-ca", authority.pem, name)
        assert anonymous.code == 125 and "login" in anonymous.said, anonymous
        refused = log_in(fresh, registry, authority, "wrong")
        assert refused.code == 125 and "wrong password" in refused.said, refused
        log_in(fresh, registry, authority).ok()
        fresh("image", "pull", "--tls-ca", authority.pem, name).ok()
        assert name in fresh.images()
        scopes = [path for path, _ in tokens.seen if "scope=" in path]
        assert any("repository%3Atest%2Ftiny%3Apull" in path for path in scopes), scopes
    finally:
        registry.stop()
        tokens.stop()


def helper(fresh, text):
    """A credential helper on PATH, configured for everything."""
    programs = fresh.base / "programs"
    programs.mkdir()
    program = programs / "docker-credential-test"
    program.write_text("#!/bin/sh\n" + text)
    program.chmod(0o755)
    (fresh.user / ".docker").mkdir()
    (fresh.user / ".docker/config.json").write_text('{"credsStore": "test", "other": [1, 2]}')
    fresh.more["PATH"] = f"{programs}:/usr/bin:/bin"
    return programs


def test_a_credential_helper(secure, authority, fresh):
    place = helper(fresh, f'input=$(cat); echo "$1 $input" >> {fresh.base}/asked; case $1 in get) cat {fresh.base}/answer;; esac\n')
    (fresh.base / "answer").write_text(json.dumps({"ServerURL": secure.name, "Username": USER, "Secret": PASSWORD}))
    fresh("image", "pull", "--tls-ca", authority.pem, f"{secure.name}/test/tiny:1").ok()
    assert f"get {secure.name}" in (fresh.base / "asked").read_text()
    log_in(fresh, secure, authority).ok()
    stored = [line for line in (fresh.base / "asked").read_text().splitlines() if line.startswith("store ")]
    assert json.loads(stored[0][6:]) == {"ServerURL": secure.name, "Username": USER, "Secret": PASSWORD}
    assert json.loads((fresh.user / ".docker/config.json").read_text()) == {"credsStore": "test", "other": [1, 2]}
    fresh("registry", "logout", secure.name).ok()
    assert f"erase {secure.name}" in (fresh.base / "asked").read_text()
    assert place.exists()


def test_a_credential_helper_that_is_missing(secure, authority, fresh):
    (fresh.user / ".docker").mkdir()
    (fresh.user / ".docker/config.json").write_text(json.dumps({"credHelpers": {secure.name: "absent"}}))
    result = fresh("image", "pull", "--tls-ca", authority.pem, f"{secure.name}/test/tiny:1")
    assert result.code == 125 and "docker-credential-absent" in result.said, result


def test_the_password_shows_nowhere(slow_big, fresh):
    """Neither in a command line nor in an environment, while a pull runs."""
    (fresh.user / ".docker").mkdir()
    secret = "hunter2-" + "x" * 20
    (fresh.user / ".docker/config.json").write_text(json.dumps({"auths": {slow_big.name: {"auth": base64.b64encode(f"u:{secret}".encode()).decode()}}}))
    with fresh.start("image", "pull", f"{slow_big.name}/test/slow:1") as pull:
        wait_for(lambda: fresh.partial_bytes() > 0)
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) != os.getpid():
                for file in ("cmdline", "environ"):
                    try:
                        content = open(f"/proc/{name}/{file}", "rb").read()
                    except OSError:
                        continue
                    assert secret.encode() not in content, (name, file)
        assert pull.end().code == 0


@pytest.mark.skipif(SANITIZED, reason="a sanitizer needs the host's root in this jail, see docs/security.md")
def test_what_the_registry_client_sees(slow_big, fresh):
    """Libraries, name resolution, certificates, blobs to read, downloads to write: nothing else of the host."""
    with fresh.start("image", "pull", f"{slow_big.name}/test/slow:1") as pull:
        wait_for(lambda: fresh.partial_bytes() > 0)
        client = next(process for process in boxes.processes(fresh.base.name) if process.role == "fetch")
        status = client.status()
        assert status["CapEff"] == status["CapBnd"] == "0000000000000000" and status["NoNewPrivs"] == "1"
        assert SANITIZED or status["Seccomp"] == "2", "Seccomp is off"
        if boxes.IS_ROOT:
            assert "0" not in status["Uid"].split()
            mounts = {line.split()[4]: line.split()[5] for line in client.mounts.decode().splitlines()}
            assert mounts.pop("/downloads").startswith("rw")
            assert all(options.startswith("ro") for options in mounts.values()), mounts
            assert "/etc/passwd" not in mounts and "/home" not in mounts and "/root" not in mounts and "/proc" not in mounts, mounts
            known = ("/usr/lib", "/lib", "/etc/", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates", "/caisson-fetch", "/caisson-enter", "/blobs")
            assert all(path == "/" or path.startswith(known) for path in mounts), mounts
            environment = open(f"/proc/{client.pid}/environ", "rb").read()
            assert environment in (b"", b"PWD=/\0"), environment
        assert pull.end().code == 0


# ---- broken and shared downloads -----------------------------------------------------------------------------------

def test_a_connection_that_breaks_is_taken_up_again(slow_big, fresh):
    with fresh.start("image", "pull", f"{slow_big.name}/test/slow:1") as pull:
        wait_for(lambda: fresh.partial_bytes() > 1 << 20)
        slow_big.cut()
        assert pull.end().code == 0
    ranges = [line for line in (slow_big.registry.place / "log").read_text().splitlines() if f"GET /v2/test/slow/blobs/{slow_big.layer}" in line and " 206 " in line]
    assert ranges, "nothing was resumed"


def test_a_registry_killed_in_mid_layer(slow_big, fresh):
    name = f"{slow_big.name}/test/slow:1"
    with fresh.start("image", "pull", name) as pull:
        wait_for(lambda: fresh.partial_bytes() > 2 << 20)
        slow_big.registry.stop()
        slow_big.cut()
        ended = pull.end(timeout=60)
    assert ended.code == 125 and "layer 1 of 1" in ended.said and "connection" in ended.said, ended
    assert fresh.images() == {}
    kept = fresh.partial_bytes()
    assert kept > 2 << 20
    slow_big.registry.start()
    slow_big.rate = None
    fresh("image", "pull", name).ok()
    log = (slow_big.registry.place / "log").read_text().splitlines()
    assert any(f"blobs/{slow_big.layer}" in line and " 206 " in line for line in log), "it began afresh"
    assert fresh.downloads() == []


def test_a_damaged_partial_file_is_noticed(slow_big, fresh):
    name = f"{slow_big.name}/test/slow:1"
    with fresh.start("image", "pull", name) as pull:
        wait_for(lambda: fresh.partial_bytes() > 1 << 20)
        pull.send(signal.SIGKILL)
        pull.end()
    partial = next(fresh.home / "images/downloads" / entry for entry in fresh.downloads() if entry.endswith(".part"))
    with open(partial, "r+b") as file:
        file.seek(1000)
        file.write(b"damage")
    slow_big.rate = None
    fresh("image", "pull", name).ok()
    assert name in fresh.images()


def test_two_processes_share_one_download(slow_big, fresh):
    name = f"{slow_big.name}/test/slow:1"
    with fresh.start("image", "pull", name) as one, fresh.start("image", "pull", name) as two:
        assert one.end().code == 0 and two.end().code == 0
    assert slow_big.registry.requests(f"/blobs/{slow_big.layer}") == 1
    assert fresh.downloads() == []


def test_one_of_two_is_killed(slow_big, fresh):
    name = f"{slow_big.name}/test/slow:1"
    with fresh.start("image", "pull", name) as one:
        wait_for(lambda: fresh.partial_bytes() > 1 << 20)
        with fresh.start("image", "pull", name) as two:
            wait_for(lambda: slow_big.registry.requests("/manifests/1") >= 2)
            one.send(signal.SIGKILL)
            assert two.end().code == 0
    assert name in fresh.images() and fresh.downloads() == []


def test_prune_removes_what_a_broken_pull_left(slow_big, fresh):
    with fresh.start("image", "pull", f"{slow_big.name}/test/slow:1") as pull:
        wait_for(lambda: fresh.partial_bytes() > 1 << 20)
        pull.send(signal.SIGKILL)
        pull.end()
    assert fresh.downloads()
    freed = fresh("image", "prune", "--format", "json").json()
    assert freed["freed_bytes"] > 1 << 20 and freed["images"] == [] and fresh.downloads() == []


# ---- mirrors -------------------------------------------------------------------------------------------------------

def test_mirrors(plain, fresh):
    fresh("image", "ls").ok()  # makes the home
    setting = fresh.home / "registries.json"
    dead = registries.free_port()
    setting.write_text(json.dumps({"registries": {"docker.io": {"mirrors": [f"http://127.0.0.1:{dead}", f"http://{plain.name}"]}}}))
    setting.chmod(0o644)
    assert fresh("image", "pull", "test/tiny:1").ok().text == "test/tiny:1\n"
    assert set(fresh.images()) == {"test/tiny:1"}
    setting.write_text('{"registries": {"docker.io": {"mirror": []}}}')
    wrong = fresh("image", "pull", "test/tiny:1")
    assert wrong.code == 2 and "registries.json" in wrong.said and '"mirror"' in wrong.said, wrong
    setting.write_text('{"registries": {"docker.io": {"mirrors": ["http://192.0.2.1"]}}}')
    wrong = fresh("image", "pull", "test/tiny:1")
    assert wrong.code == 2 and "has no TLS" in wrong.said, wrong


# ---- saving, naming, looking ---------------------------------------------------------------------------------------

def test_save_gives_what_was_pulled(plain, fresh, tmp_path):
    name = f"{plain.name}/test/zstd:1"
    fresh("image", "pull", name).ok()
    here = fresh("image", "inspect", "--format", "json", name).json()[0]
    archive = fresh.base / "saved.tar"
    fresh("image", "save", "-o", archive, name).ok()
    tool("skopeo", "--insecure-policy", "copy", "--quiet", f"oci-archive:{archive}", f"oci:{tmp_path}/out:x")
    inspected = json.loads(tool("skopeo", "inspect", "--raw", f"oci-archive:{archive}"))
    _, original = http(plain, "GET", "/v2/test/zstd/manifests/1", headers={"Accept": inspected["mediaType"]})
    assert registries.digest_of(original) == here["digest"]
    with tarfile.open(archive) as tar:
        assert tar.extractfile("blobs/sha256/" + here["digest"][7:]).read() == original
    # Into another store, by a pipe, under the same name and digests.
    again = Home(fresh.base / "again") if (fresh.base / "again").mkdir(mode=0o711) is None else None
    piped = fresh("image", "save", name).ok().out
    again("image", "load", input=piped).ok()
    assert again("image", "inspect", "--format", "json", name).json()[0]["digest"] == here["digest"]
    assert fresh("image", "save", "-o", archive, name).code == 125  # it would overwrite a file
    assert fresh("image", "save", "nothing").code == 125


def test_tag_and_inspect(plain, fresh):
    name = f"{plain.name}/test/tiny:1"
    fresh("image", "pull", name).ok()
    assert fresh("image", "tag", name, "mine").ok().text == "mine:latest\n"
    one, two = fresh("image", "inspect", "--format", "json", name, "mine").json()
    assert one["id"] == two["id"] and two["name"] == "mine:latest"
    assert set(one) == {"name", "id", "digest", "source_digest", "created", "platform", "size_bytes", "layers", "config"}
    assert set(one["config"]) == {"entrypoint", "cmd", "env", "working_directory", "user", "stop_signal", "labels", "volumes", "exposed_ports"}
    assert set(one["layers"][0]) == {"digest", "media_type", "diff_id", "size_bytes"}
    assert one["id"] in fresh("image", "inspect", name).ok().text
    fresh("image", "rm", name).ok()
    assert fresh("run", "--rm", "--pull", "never", "mine", timeout=120).ok().text == "entrypoint blue cmd\n"
    assert fresh("image", "prune", "--all").ok().text.startswith("mine:latest\n")
    assert fresh.images() == {}
    assert os.listdir(fresh.home / "images/blobs/sha256") == []


# ---- registries that are not to be trusted -------------------------------------------------------------------------

@pytest.fixture
def serve():
    servers = []

    def start(get, **more):
        servers.append(Server(get, **more))
        return servers[-1]
    yield start
    for server in servers:
        server.stop()


def small_image():
    return Image([registries.tar_of([("file", "file", b"x" * 100000)])], Cmd=["true"])


def refused(fresh, server, *words):
    """A pull that fails with these words and leaves the home as it was."""
    fresh("image", "ls").ok()
    before = registries.snapshot(fresh.home)
    result = fresh("image", "pull", f"{server.name}/evil/image:1")
    assert result.code == 125, result
    for word in words:
        assert word in result.said, result
    assert registries.snapshot(fresh.home) == before
    return result


def test_a_layer_with_other_bytes(serve, fresh):
    image = small_image()
    digest = image.layer_digests[0]
    image.blobs[digest] = b"y" + image.blobs[digest][1:]
    refused(fresh, serve(image.serve), digest, "layer 1 of 1")


def test_a_config_with_other_bytes(serve, fresh):
    image = small_image()
    digest = image.manifest["config"]["digest"]
    image.blobs[digest] = image.blobs[digest].replace(b"linux", b"linuX")
    refused(fresh, serve(image.serve), digest)


def test_a_manifest_with_another_digest(serve, fresh):
    image = small_image()
    server = serve(image.serve)
    wanted = "sha256:" + "1" * 64
    result = fresh("image", "pull", f"{server.name}/evil/image@{wanted}")
    assert result.code == 125 and wanted in result.said, result
    assert fresh.images() == {} and fresh.downloads() == []


@pytest.mark.parametrize("chunked", [False, True])
def test_a_layer_that_is_longer_than_it_says(serve, fresh, chunked):
    """The declared size is enforced while the bytes stream: the endless layer would fill the disk."""
    image = small_image()
    sent = []

    def get(handler):
        if "/blobs/" + image.layer_digests[0] not in handler.path:
            return image.serve(handler)
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked") if chunked else handler.send_header("Content-Length", str(1 << 40))
        handler.end_headers()
        data = b"z" * 65536
        while len(sent) < 2000:
            handler.wfile.write(b"10000\r\n" + data + b"\r\n" if chunked else data)
            sent.append(1)
    refused(fresh, serve(get), "more than the 102400 bytes" if chunked else str(1 << 40), "layer 1 of 1")
    assert len(sent) < 1000


def test_a_truncated_layer(serve, fresh):
    image = small_image()

    def get(handler):
        if "/blobs/" + image.layer_digests[0] not in handler.path:
            return image.serve(handler)
        return handler.answer(200, image.blobs[image.layer_digests[0]][:5000], [("Content-Length", "5000")])
    refused(fresh, serve(get), "5000 bytes", "layer 1 of 1")


def test_wrong_media_types_and_shapes(serve, fresh):
    image = small_image()
    good = image.text()
    cases = [
        (good.replace(b"layer.v1.tar", b"layer.v1.exe"), "which caisson cannot unpack"),
        (good.replace(b"image.config.v1", b"helm.config.v1"), "something else than a container image"),
        (b"[" * 10000 + b"]" * 10000, "deep"),
        (b'{"manifests":[],' + good[1:], "both a manifest and a list"),
        (b"not json at all", "not valid JSON"),
        (b"{}", "is not an image"),
        (b" " * (5 << 20), "larger than"),
        (good.replace(b'"layers": [', b'"layers": [' + b",".join([json.dumps(image.manifest["layers"][0]).encode()] * 300) + b","), "the limit is 256"),
    ]
    for text, words in cases:
        image.text = lambda text=text: text
        refused(fresh, serve(image.serve), words)


def test_a_config_that_does_not_fit(serve, fresh):
    image = small_image()
    image.config["rootfs"]["diff_ids"] = []
    image.build()
    refused(fresh, serve(image.serve), "1 layers", "describes 0")


def test_the_password_does_not_follow_a_redirect(serve, fresh, authority):
    """Blobs often lie with another host; the registry's password is none of its business."""
    image = small_image()
    storage = serve(image.serve)

    def get(handler):
        if handler.headers.get("Authorization") is None:
            return handler.answer(401, b"", [("WWW-Authenticate", 'Basic realm="x"')])
        if "/blobs/" in handler.path:
            return handler.answer(307, b"", [("Location", f"http://{storage.name}{handler.path}")])
        return image.serve(handler)
    server = serve(get)
    (fresh.user / ".docker").mkdir()
    (fresh.user / ".docker/config.json").write_text(json.dumps({"auths": {server.name: {"auth": base64.b64encode(b"u:p").decode()}}}))
    fresh("image", "pull", f"{server.name}/evil/image:1").ok()
    assert len(storage.seen) == 2
    assert all("Authorization" not in headers for _, headers in storage.seen), storage.seen
    assert any("Authorization" in headers for _, headers in server.seen)


@pytest.mark.parametrize("target, words", [
    ("http://192.0.2.1/blob", "plain HTTP"), ("ftp://127.0.0.1/blob", "https://"), ("https://user@127.0.0.1/blob", "user name"),
    ("file:///etc/passwd", "https://")])
def test_redirects_to_where_nobody_should_go(serve, fresh, target, words):
    image = small_image()

    def get(handler):
        if "/blobs/" in handler.path:
            return handler.answer(302, b"", [("Location", target)])
        return image.serve(handler)
    result = refused(fresh, serve(get), words)
    assert result.seconds < 10


def test_endless_redirects(serve, fresh):
    refused(fresh, serve(lambda handler: handler.answer(302, b"", [("Location", handler.path)])), "more than 5 times")


def test_endless_headers(serve, fresh):
    refused(fresh, serve(lambda handler: handler.answer(200, b"{}", [(f"X-{number}", "x" * 4000) for number in range(90)])), "headers")


def test_a_token_server_without_tls_is_not_asked(serve, fresh):
    server = serve(lambda handler: handler.answer(401, b"", [("WWW-Authenticate", 'Bearer realm="http://192.0.2.1/token",service="x"')]))
    assert refused(fresh, server, "has no TLS").seconds < 10


def test_a_malformed_challenge(serve, fresh):
    refused(fresh, serve(lambda handler: handler.answer(401, b"", [("WWW-Authenticate", 'Bearer realm="x')])), "WWW-Authenticate")


def test_a_registry_that_stalls(serve, fresh):
    """Slower than a hundred bytes a second for the time that registries.json allows."""
    image = small_image()

    def get(handler):
        if "/blobs/" + image.layer_digests[0] not in handler.path:
            return image.serve(handler)
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        time.sleep(30)
    server = serve(get)
    fresh("image", "ls").ok()  # makes the home
    setting = fresh.home / "registries.json"
    setting.write_text('{"stall_seconds": 1}')
    setting.chmod(0o644)
    result = fresh("image", "pull", f"{server.name}/evil/image:1")
    assert result.code == 125 and "slow" in result.said and result.seconds < 40, result


def test_a_busy_registry_is_asked_again(serve, fresh):
    image = small_image()
    times = []

    def get(handler):
        times.append(time.monotonic())
        if len(times) == 1:
            return handler.answer(429, b"", [("Retry-After", "2")])
        if len(times) == 2:
            return handler.answer(503)
        return image.serve(handler)
    fresh("image", "pull", f"{serve(get).name}/evil/image:1").ok()
    assert times[1] - times[0] > 1.9
