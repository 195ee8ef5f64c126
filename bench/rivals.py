"""What the benchmarks share: timing one command, and podman with the same root file system as caisson/base."""
import os
import resource
import shutil
import subprocess
import time

# Of a box with a network bench/net tells; the others measure boxes that have none, as their rivals have.
os.environ["CAISSON_NET"] = "none"
TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def run_once(command):
    """Milliseconds of the whole process. RuntimeError if it fails."""
    start = time.monotonic()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    took = (time.monotonic() - start) * 1000
    if done.returncode != 0:
        raise RuntimeError(f"exit {done.returncode}: {done.stderr.decode(errors='replace').strip()[-300:]}")
    return took


def works(command):
    try:
        run_once(command)
        return None
    except (OSError, RuntimeError) as error:
        return str(error)


def assets_directory():
    return os.environ.get("CAISSON_ASSETS") or subprocess.run(
        [f"{TOP}/tools/setup/assets", "--where"], capture_output=True, text=True, check=True).stdout.strip()


class Podman:
    """podman with a store of its own below `work`. `reason`: why it cannot be used here, or None."""

    def __init__(self, assets, work):
        self.command, self.image, self.options, self.reason = [], "", [], None
        if not shutil.which("podman"):
            self.reason = "podman is not installed"
            return
        self.command = ["podman", "--root", f"{work}/podman", "--runroot", f"{work}/podman-run", "--storage-driver", "overlay",
                        "--cgroup-manager", "cgroupfs", "--events-backend", "file", "--runtime", "runc"]
        done = subprocess.run(self.command + ["import", f"{assets}/base/rootfs.tar", "caisson-bench"], capture_output=True, text=True)
        if done.returncode != 0:
            self.reason = "podman import: " + done.stderr.strip()[-300:]
            return
        self.image = done.stdout.strip().splitlines()[-1]
        # Without CAP_SYS_RESOURCE (a root in some container) runc may not raise the limits that podman asks for by default.
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        reasons = []
        for more in ([], ["--ulimit", f"nofile={files}:{files}", "--ulimit", "nproc=1000:1000"]):
            self.options = ["--network", "none"] + more
            reason = works(self.run("--rm", command=["true"]))
            if reason is None:
                return
            reasons.append(reason)
        self.reason = "; ".join(reasons)

    def run(self, *options, command):
        return self.command + ["run", *options, *self.options, self.image, *command]
