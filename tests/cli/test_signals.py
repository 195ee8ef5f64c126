"""SIGINT and SIGTERM reach the command; a second one stops the box."""
import os
import signal
import time

import pytest
from boxes import BASE, Started, one_box, processes, wait_until_gone

CODE = """
import os, signal, sys, time
def say(number, frame):
    os.write(1, signal.Signals(number).name.encode() + b'\\n')
    if number == signal.SIGTERM: os._exit(21)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT): signal.signal(number, say)
os.write(1, b'ready\\n')
while True: time.sleep(1)
"""


def test_signals_reach_the_command():
    with Started("run", "--rm", BASE, "python3", "-c", CODE) as box:
        assert box.line() == b"ready\n"
        for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGINT):
            box.send(number)
            assert box.line() == number.name.encode() + b"\n"
        # SIGTERM is the second one that ends things: it stops the box.
        box.send(signal.SIGTERM)
        assert box.end().code == 128 + 15


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_command_that_does_not_catch_it_ends_by_it(number, code):
    with Started("run", "--rm", BASE, "sh", "-c", "echo ready; exec sleep 100") as box:
        box.line()
        box.send(number)
        assert box.end().code == code


def test_a_command_may_end_in_its_own_way():
    with Started("run", "--rm", BASE, "python3", "-c", CODE) as box:
        box.line()
        box.send(signal.SIGTERM)
        ended = box.end()
        assert (ended.code, ended.out) == (21, b"SIGTERM\n")


def test_a_second_signal_stops_the_box():
    with Started("run", "--rm", BASE, "sh", "-c", "trap '' INT TERM; echo ready; sleep 100; sleep 100") as box:
        box.line()
        box.send(signal.SIGINT)
        time.sleep(0.5)
        assert box.process.poll() is None
        box.send(signal.SIGINT)
        ended = box.end(5)
        assert ended.code == 130 and "stopped" in ended.said
        wait_until_gone(2)


def test_a_signal_while_the_box_starts_ends_it():
    # Nothing catches it yet, or it is forwarded: either way the box goes, and soon.
    for delay in (0.05, 0.2, 0.4):
        with Started("run", "--rm", BASE, "sleep", "100") as box:
            time.sleep(delay)
            box.send(signal.SIGTERM)
            ended = box.end(10)
            assert ended.code in (-15, 143, 125), ended
        wait_until_gone(3)


def test_a_terminal_s_interrupt_reaches_the_command_once():
    # A terminal sends SIGINT to its whole foreground group; the supervisor has a session of its own.
    with Started("run", "--rm", BASE, "python3", "-c", CODE, process_group=0) as box:
        box.line()
        assert all(os.getsid(process.pid) != os.getsid(box.pid) for process in processes(one_box()) if process.pid != box.pid)
        os.killpg(box.pid, signal.SIGINT)
        assert box.line() == b"SIGINT\n"
        time.sleep(0.3)
        assert box.process.poll() is None
        box.send(signal.SIGTERM)
        assert box.end().code == 143
