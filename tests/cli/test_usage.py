"""The command line: help, refusals with exit code 2 and a hint, lists, doctor."""
import json
import re
import subprocess

import pytest
from boxes import BASE, BIN, HOME, box_ids, caisson, environment, run

COMMANDS = ["run", "create", "start", "stop", "restart", "kill", "exec", "attach", "logs", "cp", "ls", "inspect",
            "info", "wait", "rename", "pause", "resume", "rm", "prune", "net explain", "image load", "image import", "image ls",
            "image rm", "template ls", "template build", "template rm", "doctor"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(command):
    result = caisson(*command.split(), "--help").ok()
    assert "Example" in result.text and f"caisson {command}" in result.text and result.err == b""


def test_the_usage_of_run_shows_image_and_command():
    assert "Usage: caisson run [OPTIONS] IMAGE [COMMAND...]\n" in caisson("run", "--help").ok().text


def test_help_names_every_command_and_option():
    top = caisson("--help").ok().text
    for command in {command.split()[0] for command in COMMANDS} | {"version"}:
        assert re.search(rf"^  {command}\b", top, flags=re.M), command
    options = caisson("run", "--help").ok().text
    for option in ("--rm", "--name", "--hostname", "-i", "-e", "--env-file", "-w", "-u", "--entrypoint", "--cpus", "--memory",
                   "--disk-size", "--pids-limit", "--tmpfs", "--read-only", "--timeout", "--timings", "--dry-run", "--cold", "-q", "--net"):
        assert option in options, option
    assert re.fullmatch(r"caisson \d+\.\d+\.\d+\n", caisson("version").ok().text)
    assert caisson("--version").ok().text == caisson("version").text


@pytest.mark.parametrize("arguments, message", [
    ([], "subcommand"),
    (["frobnicate"], "frobnicate"),
    (["--frobnicate"], "--frobnicate"),
    (["run"], "image"),
    (["run", "--rm"], "image"),
    (["run", "--frobnicate", BASE, "true"], "--frobnicate"),
    (["run", "-x", BASE, "true"], "-x"),
    (["run", "--name"], "--name"),
    (["run", "--cpus", "0", BASE, "true"], "--cpus"),
    (["run", "--cpus", "two", BASE, "true"], "--cpus"),
    (["run", "--cpus", "900", BASE, "true"], "CPU"),
    (["run", "--memory", "12", BASE, "true"], "128M"),
    (["run", "--memory", "lots", BASE, "true"], "512M"),
    (["run", "--memory", "900G", BASE, "true"], "emory"),
    (["run", "--disk-size", "1M", BASE, "true"], "64M"),
    (["run", "--disk-size", "9000T", BASE, "true"], "--disk-size"),
    (["run", "--pids-limit", "-2", BASE, "true"], "--pids-limit"),
    (["run", "--pids-limit", "many", BASE, "true"], "--pids-limit"),
    (["run", "--pids-limit", "4194305", BASE, "true"], "4194304"),
    (["run", "--pids-limit", "99999999999", BASE, "true"], "--pids-limit"),
    (["run", "--timeout", "soon", BASE, "true"], "30s"),
    (["run", "--timeout", "0", BASE, "true"], "--timeout"),
    (["run", "--timeout", "99d", BASE, "true"], "--timeout"),
    (["run", "-w", "relative", BASE, "true"], "absolute"),
    (["run", "-w", "/a/../b", BASE, "true"], "'..'"),
    (["run", "--tmpfs", "relative", BASE, "true"], "absolute"),
    (["run", "--tmpfs", "/", BASE, "true"], "'/'"),
    (["run", "--tmpfs", "/a:size=x", BASE, "true"], "size"),
    (["run", "--tmpfs", "/a:mode=9", BASE, "true"], "octal"),
    (["run", "--tmpfs", "/a:colour=red", BASE, "true"], "known are"),
    (["run", "--tmpfs", "/a", "--tmpfs", "/a", BASE, "true"], "twice"),
    (["run", "--name", "a b", BASE, "true"], "letters"),
    (["run", "--name", "-", BASE, "true"], "letters"),
    (["run", "--name", "x" * 65, BASE, "true"], "64"),
    (["run", "--hostname", "under_score", BASE, "true"], "host name"),
    (["run", "-e", "=value", BASE, "true"], "NAME=value"),
    (["ls", "--format", "yaml"], "json"),
    (["image"], "subcommand"),
    (["image", "frobnicate"], "frobnicate"),
    (["image", "rm"], "IMAGE"),
    (["image", "import", "-"], "--name"),
    (["rm"], "BOX"),
])
def test_a_wrong_command_line_is_code_2_with_a_hint(arguments, message):
    result = caisson(*arguments)
    assert result.code == 2, result
    assert result.out == b"" and result.said.startswith("caisson: ")
    assert message in result.said, result
    assert not box_ids()


@pytest.mark.parametrize("network", ["bridge", "host", "", "None"])
def test_other_networks_are_refused(network):
    result = run("--net", network, BASE, "true")
    assert result.code == 2 and "none, public or open" in result.said, result


def test_net_none_is_accepted():
    assert run("--net", "none", BASE, "true").code == 0


def test_env_file_errors_name_the_line(tmp_path):
    bad = tmp_path / "bad"
    bad.write_text("A=1\n\n# comment\n=2\n")
    result = run("--env-file", bad, BASE, "true")
    assert result.code == 2 and f"{bad}, line 4" in result.said
    missing = run("--env-file", tmp_path / "missing", BASE, "true")
    assert missing.code == 125 and str(tmp_path / "missing") in missing.said and "--env-file" in missing.said
    bad.write_bytes(b"A=1\nB=x\0y\n")
    result = run("--env-file", bad, BASE, "true")
    assert result.code == 2, result


def test_options_end_at_the_image():
    # What looks like an option of caisson behind the image is the command's.
    assert run(BASE, "echo", "--rm", "-q", "--help").ok().text == "--rm -q --help\n"


def test_an_unknown_image_is_refused_before_anything_happens():
    before = sorted(path.name for path in HOME.iterdir())
    result = run("--disk-size", "2G", "--memory", "1G", "missing/image", "true")
    assert result.code == 125
    assert sorted(path.name for path in HOME.iterdir()) == before and not box_ids()


def test_objects_that_do_not_exist():
    for arguments in (["rm", "no-such-box"], ["image", "rm", "no-such-image"], ["template", "rm", "0" * 32],
                      ["image", "load", "/no/such/file"]):
        result = caisson(*arguments)
        assert result.code == 125 and arguments[-1] in result.said, result


def test_lists_have_stable_keys():
    image = next(image for image in caisson("image", "ls", "--format", "json").json() if image["name"].startswith(BASE))
    assert set(image) >= {"name", "id", "digest", "created", "platform", "size_bytes", "layers"}
    assert image["platform"] == "linux/amd64" and image["digest"].startswith("sha256:") and image["layers"] == 1
    template = caisson("template", "ls", "--format", "json").json()[0]
    assert set(template) >= {"key", "cpus", "memory_mib", "accelerator", "vmm_version", "kernel_version", "created_unix",
                             "disk_bytes", "current"}
    assert isinstance(caisson("ls", "--all", "--format", "json").json(), list)
    for arguments, title in ((["ls"], "ID"), (["image", "ls"], "NAME"), (["template", "ls"], "KEY"), (["ps"], "ID")):
        assert caisson(*arguments).ok().text.startswith(title)


def test_doctor(tmp_path):
    answer = caisson("doctor", "--format", "json").json()
    assert set(answer) == {"checks", "layers"}
    checks = answer["checks"]
    assert {"version", "bubblewrap", "user_namespaces", "home", "accelerator", "vmm", "guest_kernel", "images"} \
        <= {check["name"] for check in checks}
    for check in checks:
        assert set(check) == {"name", "level", "found", "remedy"} and check["level"] in ("good", "info"), check
    layers = {layer["name"]: layer for layer in answer["layers"]}
    assert {"user_namespaces", "no_nested_user_namespaces", "system_call_filters", "landlock", "no_new_privs", "empty_keyring",
            "no_core_dumps", "cgroup_limits", "apparmor", "kvm"} == set(layers)
    for layer in answer["layers"]:
        assert set(layer) == {"name", "state", "detail", "fix"} and layer["state"] in ("on", "off", "impossible"), layer
        assert layer["detail"]
    for name in ("user_namespaces", "no_new_privs", "no_core_dumps"):
        assert layers[name]["state"] == "on" and not layers[name]["fix"], layers[name]
    text = caisson("doctor").ok().text
    assert all(re.search(rf"^(on|off|impossible) +{name} ", text, re.M) for name in layers), text
    assert "QEMU" in text and ("KVM" in text or "/dev/kvm" in text or "TCG" in text)
    bad = caisson("doctor", "--format", "json", env=environment(CAISSON_ASSETS=str(tmp_path)))
    assert bad.code == 1
    engine = next(check for check in json.loads(bad.out)["checks"] if check["level"] == "bad")
    assert engine["remedy"], "says what to do"


def test_an_engine_that_cannot_work_is_an_error_in_time():
    result = run(BASE, "true", env=environment(CAISSON_ACCEL="nonsense"))
    assert result.code in (2, 125) and "nonsense" in result.said


def test_output_that_cannot_be_written():
    with open("/dev/full", "wb") as full:
        done = subprocess.run([BIN, "image", "ls"], stdout=full, stderr=subprocess.PIPE, env=environment())
    assert done.returncode == 125 and b"cannot write" in done.stderr
