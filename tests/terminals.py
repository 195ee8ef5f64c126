"""caisson in a terminal of its own, for tests of what it does with one."""
import fcntl
import os
import re
import pty
import select
import signal
import struct
import termios
import time

from boxes import BIN, environment

ROWS, COLUMNS = 33, 99


class Session:
    """caisson in a terminal of its own, as a shell would start it. Leaving the `with` block kills it."""

    def __init__(self, *arguments, env=None, rows=ROWS, columns=COLUMNS):
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            resize(0, rows, columns)
            os.execve(BIN, [BIN, *map(str, arguments)], env or environment())
        number = struct.unpack("I", fcntl.ioctl(self.master, 0x80045430, bytes(4)))[0]  # TIOCGPTN
        self.slave = os.open(f"/dev/pts/{number}", os.O_RDWR | os.O_NOCTTY)
        self.seen = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def wait_for(self, text, timeout=30):
        """Everything up to and including the text."""
        text = text if isinstance(text, bytes) else text.encode()
        end = time.monotonic() + timeout
        while text not in self.seen:
            assert select.select([self.master], [], [], max(0, end - time.monotonic()))[0], (text, self.seen)
            self.read()
        found, self.seen = self.seen.split(text, 1)
        return found.decode()

    def type_until(self, keys, text, timeout=30):
        """Types the keys, and again each second until the text is there: a shell loses a signal that comes between its last
        look for one and the call in which it waits for input."""
        end = time.monotonic() + timeout
        while True:
            self.type(keys)
            try:
                return self.wait_for(text, timeout=min(1, max(0, end - time.monotonic())))
            except AssertionError:
                if time.monotonic() >= end:
                    raise

    def read(self):
        self.seen += os.read(self.master, 65536)

    def type(self, text):
        os.write(self.master, text.encode())

    def settings(self):
        return termios.tcgetattr(self.slave)

    def resize(self, rows, columns):
        resize(self.master, rows, columns)

    def end(self, timeout=30):
        """The exit code, and what was left to read."""
        deadline = time.monotonic() + timeout
        ended = 0
        while ended == 0:
            assert time.monotonic() < deadline, ("caisson does not end", self.seen)
            if select.select([self.master], [], [], 0.05)[0]:
                self.read()
            ended, status = os.waitpid(self.pid, os.WNOHANG)
        self.pid = None
        while select.select([self.master], [], [], 0.2)[0]:
            self.read()
        # Whether this host limits an ordinary user's boxes is test_limits.py's.
        seen = re.sub(r"caisson: the host does not limit this box[^\r\n]*\r?\n", "", self.seen.decode())
        return os.waitstatus_to_exitcode(status), seen

    def close(self):
        if self.pid is not None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.slave)
        os.close(self.master)


def resize(fd, rows, columns):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
