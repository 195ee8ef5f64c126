"""QEMU's virtio-9p and virtiofs beside a box's own volumes: what bench/share adds to the virtual machine of one box.

A caisson box has no device for a directory of the host, and no option for one. So the benchmark gives caisson assets of its own
(CAISSON_ASSETS): the same QEMU behind a program that adds two devices to its command line, and a guest kernel that knows 9p.
virtiofs needs the guest's memory shared with its server; that and a kernel of its own is why the box is booted cold. QEMU has
to see the host's directories, hence --security none.
"""
import os
import shutil
import stat
import subprocess
import tempfile
import time

from rivals import TOP

VIRTIOFSD_PLACES = ("/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd")
LOADER = "usr/lib64/ld-linux-x86-64.so.2"

# Runs in the place of the dynamic loader by which caisson starts QEMU without a jail, and becomes that loader.
WRAPPER = """#!/usr/bin/python3
import os, sys
loader, more = {loader!r}, {more!r}
arguments = sys.argv[1:]
for place, word in enumerate(arguments):
    if word.startswith("memory-backend-ram,"):
        arguments[place] = word.replace("memory-backend-ram,", "memory-backend-memfd,") + ",share=on"
        arguments += more
os.execv(loader, [loader] + arguments)
"""


def find_virtiofsd(named):
    for path in [named] if named else VIRTIOFSD_PLACES:
        if os.access(path, os.X_OK):
            return os.path.abspath(path)
    return None


def link_all(source, target, but):
    """Makes `target` a directory of links to what `source` has, except for `but`, which becomes a directory."""
    os.makedirs(target)
    for name in os.listdir(source):
        if name != but:
            os.symlink(f"{source}/{name}", f"{target}/{name}")


class Rivals:
    """Their directories, the assets and virtiofsd, below a temporary directory. close() removes all of it."""

    def __init__(self, assets, virtiofsd, virtiofsd_options):
        self.work = tempfile.mkdtemp(prefix="caisson-bench-", dir="/var/tmp")
        # As root caisson runs QEMU as another user, who must find these.
        os.chmod(self.work, 0o711)
        self.server, self.tags = None, {}
        self.about = []
        try:
            self._begin(assets, virtiofsd, virtiofsd_options)
        except BaseException:
            self.close()
            raise

    def _begin(self, assets, virtiofsd, virtiofsd_options):
        # Both on the file system of the volumes, or the disks would be compared.
        shared = self._directory("9p")
        more = ["-fsdev", f"local,id=bench9p,path={shared},security_model=mapped-xattr",
                "-device", "virtio-9p-device,fsdev=bench9p,mount_tag=bench9p"]
        self.tags["9p"] = "bench9p"
        self.about.append("9p        QEMU's virtio-9p, security_model=mapped-xattr")
        program = find_virtiofsd(virtiofsd)
        if program:
            socket = self._serve(program, virtiofsd_options)
            more += ["-chardev", f"socket,id=benchfs,path={socket}", "-device", "vhost-user-fs-device,chardev=benchfs,tag=benchfs"]
            self.tags["virtiofs"] = "benchfs"
        else:
            self.about.append(f"virtiofs  none: no {' and no '.join([virtiofsd] if virtiofsd else VIRTIOFSD_PLACES)}. To get one without "
                              "installing it:\n          apt-get download qemu-system-common (Debian 12) or virtiofsd (Debian 13), "
                              "dpkg-deb -x ...deb DIR, and --virtiofsd DIR/usr/...")
        self.assets = self._assets(assets, more)

    def _directory(self, name):
        path = f"{self.work}/{name}"
        os.mkdir(path)
        os.chmod(path, 0o777)
        return path

    def _serve(self, program, options):
        shared, socket = self._directory("virtiofs"), f"{self.work}/virtiofsd.sock"
        words = f"source={shared},sandbox=chroot" + (f",{options}" if options else "")
        # chroot needs privileges, and QEMU's own virtiofsd a /run to write to: those of a user namespace do.
        as_root = [] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs /run && exec "$0" "$@"']
        command = as_root + [program, f"--socket-path={socket}", "-o", words]
        log = open(f"{self.work}/virtiofsd.log", "wb")
        self.server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 10
        while not (os.path.exists(socket) and stat.S_ISSOCK(os.stat(socket).st_mode)):
            if self.server.poll() is not None or time.monotonic() > deadline:
                with open(log.name, errors="replace") as file:
                    raise RuntimeError(f"{program} did not start: {file.read().strip()[-500:]}")
            time.sleep(0.01)
        os.chmod(socket, 0o666)
        version = subprocess.run([program, "--version"], capture_output=True, text=True).stdout.splitlines()[:1]
        self.about.append(f"virtiofs  {' '.join(command)} ({''.join(version)})")
        return socket

    def _assets(self, assets, more):
        made = f"{TOP}/build/bench-share"
        subprocess.run([f"{TOP}/bench/share-assets", made], check=True)
        target = f"{self.work}/assets"
        link_all(assets, target, "vmm")
        os.unlink(f"{target}/kernel")
        os.symlink(f"{made}/kernel", f"{target}/kernel")
        link_all(f"{assets}/vmm", f"{target}/vmm", "usr")
        link_all(f"{assets}/vmm/usr", f"{target}/vmm/usr", "lib64")
        wrapper = f"{target}/vmm/{LOADER}"
        os.makedirs(os.path.dirname(wrapper))
        with open(wrapper, "w") as file:
            file.write(WRAPPER.format(loader=f"{assets}/vmm/{LOADER}", more=more))
        os.chmod(wrapper, 0o755)
        return target

    def close(self):
        if self.server:
            self.server.terminate()
            self.server.wait()
        shutil.rmtree(self.work, ignore_errors=True)
