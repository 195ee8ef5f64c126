"""Streams: as they are produced, binary-safe, apart, with back-pressure, never a lost byte."""
import hashlib
import os
import signal
import subprocess
import threading
import time

import pytest
from boxes import BASE, BIN, MEMORY_FACTOR, Started, caisson, environment, of_role, one_box, pipeline, run, start, until


def test_output_arrives_as_it_is_produced():
    with Started("run", "--rm", BASE, "sh", "-c", "echo a; sleep 1; echo b") as box:
        assert box.line() == b"a\n"
        first = time.monotonic()
        assert box.line() == b"b\n"
        assert time.monotonic() - first >= 0.8
        assert box.end().code == 0


def test_every_byte_on_both_streams_apart():
    code = ("import os\ndata = bytes(range(256)) * 300\n"
            "for i in range(0, len(data), 7777):\n  os.write(1, data[i:i+7777]); os.write(2, data[i:i+7777][::-1])")
    result = run(BASE, "python3", "-c", code).ok()
    data = bytes(range(256)) * 300
    assert result.out == data
    assert result.err == b"".join(data[i:i + 7777][::-1] for i in range(0, len(data), 7777))


def test_a_million_lines_in_order():
    result = run(BASE, "seq", "1000000", timeout=120).ok()
    assert hashlib.sha256(result.out).digest() == hashlib.sha256(b"".join(b"%d\n" % i for i in range(1, 1000001))).digest()


def test_the_end_of_output_is_never_lost():
    # The command ends at once behind its last byte; a child writes on after it is gone from the shell's view.
    for size in (1, 4095, 65536, 1 << 20):
        result = run(BASE, "sh", "-c", f"head -c {size} /dev/zero; echo end >&2; exit 9")
        assert (result.code, len(result.out), result.err) == (9, size, b"end\n")


def test_random_input_with_a_slow_reader_of_output():
    data = os.urandom(16 << 20)
    # The box echoes its input; its output is read late, and slowly at first.
    with Started("run", "--rm", "-i", BASE, "sh", "-c", "cat", stdin=subprocess.PIPE) as box:
        def feed():
            box.process.stdin.write(data)
            box.process.stdin.close()

        feeder = threading.Thread(target=feed)
        feeder.start()
        time.sleep(1)
        assert feeder.is_alive(), "nobody reads, so nothing may be taken in beyond a few buffers"
        received = bytearray()
        while len(received) < len(data):
            received += os.read(box.process.stdout.fileno(), 1 << 16) or pytest.fail("the output ended early")
            if len(received) < 1 << 20:
                time.sleep(0.02)
        feeder.join()
        box.process.stdin = None
        result = box.end()
    assert result.code == 0 and bytes(received) == data


def test_a_digest_of_random_input():
    data = os.urandom(16 << 20)
    result = run("-i", BASE, "sha256sum", input=data, timeout=120).ok()
    assert result.text.split()[0] == hashlib.sha256(data).hexdigest()


def test_output_that_nobody_reads_waits_in_the_box():
    with Started("run", "--rm", BASE, "sh", "-c", "yes 0123456789 | head -c 50000000; echo done >&2") as box:
        assert box.line() == b"0123456789\n"
        time.sleep(2)
        for process in of_role("shim", one_box()) + of_role("cli", one_box()):
            resident = int(process.status()["VmRSS"].split()[0])
            assert resident < (40 << 10) * MEMORY_FACTOR, f"{process} holds {resident} KiB: the output must stay in the box"
        result = box.end(120)
    assert result.code == 0 and len(result.out) == 50000000 - 11 and result.err == b"done\n"
    assert result.out == (b"0123456789\n" * 4545455)[11:50000000]


def test_a_reader_that_leaves_ends_the_command():
    for command, first in (("yes", "y"), ("seq 100000000", "1"), ("sh -c 'while echo line; do :; done'", "line")):
        result = pipeline(f'"$0" run --rm {BASE} {command} | head -1')
        assert (result.code, result.text) == (0, first + "\n") and result.seconds < 10, result
        assert b"caisson" not in result.err, result
    # The code is what a pipe's writer gets.
    with Started("run", "--rm", BASE, "yes") as box:
        box.line()
        box.process.stdout.close()
        assert box.process.wait(10) == 128 + 13


def test_without_i_the_command_has_no_input():
    with Started("run", "--rm", BASE, "sh", "-c", "wc -c; readlink /proc/self/fd/0", stdin=subprocess.PIPE) as box:
        result = box.end()  # although our end stays open until then
    assert result.lines[0] == "0" and result.lines[1].endswith("/dev/null")


def test_with_i_the_end_of_input_is_passed_on():
    assert run("-i", BASE, "wc", "-c", input=b"").ok().text == "0\n"
    assert run("-i", BASE, "cat", input=b"no newline at the end").ok().out == b"no newline at the end"
    # A regular file as input, a regular file as output.
    with open("/proc/self/exe", "rb") as program:
        content = program.read()
        program.seek(0)
        assert run("-i", BASE, "cat", stdin=program).ok().out == content


def test_a_dialogue():
    with Started("run", "--rm", "-i", BASE, "sh", "-c", "while read line; do echo \"<$line>\"; done; echo end",
                 stdin=subprocess.PIPE) as box:
        for word in (b"one", b"two", b"three"):
            box.process.stdin.write(word + b"\n")
            assert box.line() == b"<" + word + b">\n"
        box.process.stdin.close()
        box.process.stdin = None
        assert box.line() == b"end\n"
        assert box.end().code == 0


def test_a_command_that_does_not_read_its_input():
    with Started("run", "--rm", "-i", BASE, "sh", "-c", "head -c 5; exit 4", stdin=subprocess.PIPE) as box:
        def feed():
            try:
                while True:
                    box.process.stdin.write(b"x" * 65536)
            except OSError:
                pass

        feeder = threading.Thread(target=feed, daemon=True)
        feeder.start()
        assert box.process.wait(15) == 4
        assert box.process.stdout.read() == b"xxxxx"
        feeder.join(5)


def test_output_into_files(tmp_path):
    both = tmp_path / "both"
    with open(both, "wb") as file:
        done = subprocess.run([BIN, "run", "-q", "--rm", BASE, "sh", "-c", "echo out; sleep 0.2; echo err >&2"], stdout=file,
                              stderr=file, env=environment(), cwd="/", timeout=30)
    assert done.returncode == 0 and both.read_bytes() == b"out\nerr\n"
    with open("/dev/full", "wb") as full:
        done = subprocess.run([BIN, "run", "--rm", BASE, "echo", "x"], stdout=full, stderr=subprocess.PIPE,
                              env=environment(), cwd="/", timeout=30)
    assert done.returncode == 125 and b"No space left" in done.stderr
    # Closed from the start.
    closed = pipeline(f'"$0" run --rm {BASE} sh -c "echo x; echo y >&2; exit 6" >&- 2>&-')
    assert closed.out == b"" and closed.code in (6, 125, 128 + 13)


def cpu_ticks(pid):
    with open(f"/proc/{pid}/stat") as file:
        return sum(int(field) for field in file.read().rsplit(")", 1)[1].split()[11:13])


def test_the_supervisor_sleeps_while_nobody_reads():
    """With a client that was slow for a moment, so that output is queued, and then has a reader that takes nothing."""
    with Started("run", "--rm", BASE, "sh", "-c", "echo go; sleep 1; exec yes") as box:
        assert box.line() == b"go\n"
        supervisor, = of_role("shim", one_box())
        box.send(signal.SIGSTOP)
        time.sleep(3)
        box.send(signal.SIGCONT)
        time.sleep(1)
        before = cpu_ticks(supervisor.pid)
        time.sleep(2)
        # A tick is 10 ms: a loop that spins uses about 200 of them.
        assert cpu_ticks(supervisor.pid) - before < 40
        # What was queued is not lost: the stream goes on once somebody reads.
        left = 2_000_000
        while left > 0:
            taken = box.process.stdout.read(min(left, 65536))
            assert taken, "the output ended"
            left -= len(taken)


@pytest.mark.parametrize("how", ["attach", "exec"])
@pytest.mark.parametrize("end", ["stop", "rm"])
def test_a_client_that_slept_through_the_end_is_not_told_that_the_supervisor_died(how, end):
    """It is stopped until the supervisor has given up waiting for it, and left in order; its reader has left, too."""
    box = start("--name", "slept", BASE, "sh", "-c", "yes & sleep 1000")
    try:
        with Started(*(("attach", box) if how == "attach" else ("exec", box, "yes"))) as client:
            client.line()
            client.send(signal.SIGSTOP)
            time.sleep(1)
            client.process.stdout.close()
            client.process.stdout = None
            caisson(*(("stop", "-t", "0") if end == "stop" else ("rm", "-f")), box).ok()
            until(lambda: not of_role("shim", box), 20)
            client.send(signal.SIGCONT)
            said = client.process.stderr.read().decode()
            code = client.process.wait(10)
        assert "died" not in said, (code, said)
        assert code == (143 if how == "attach" and end == "stop" else 125) or (how, end, code) == ("attach", "rm", 143), (code, said)
    finally:
        caisson("rm", "-f", box)
