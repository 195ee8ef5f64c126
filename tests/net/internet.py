"""A private internet: two network namespaces, a host's and that of everything else, with servers at public-looking
addresses. What runs in the host's namespace reaches those servers and nothing of the real world."""
import json
import os
import pathlib
import shutil
import signal
import ssl
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).parent
IP = shutil.which("ip", path="/usr/sbin:/usr/bin:/sbin:/bin") or "ip"
HOST, ROUTER = "198.18.0.2", "198.18.0.1"  # the link between the two
HOST6, ROUTER6 = "2001:200:0:1::2", "2001:200:0:1::1"
WEB, OTHER, DNS, SILENT = "93.184.216.34", "93.184.216.35", "9.9.9.9", "93.184.216.99"
WEB6 = "2606:2800:21f::1"
METADATA, PRIVATE, CGNAT = "169.254.169.254", "10.20.30.40", "100.64.1.1"
ADDRESSES = (WEB, OTHER, DNS, METADATA, PRIVATE, CGNAT)
ZONE = {
    "example.test": [WEB, WEB6], "www.example.test": [WEB, WEB6], "deep.www.example.test": [WEB], "badexample.test": [WEB],
    "other.test": [OTHER], "inside.test": [PRIVATE], "metadata.test": [METADATA], "mixed.test": [PRIVATE, WEB],
    "closed.test": [OTHER], "loopback.test": ["127.0.0.1"], "rebind.test": [WEB],
}


def unavailable():
    """Why there can be none; empty: there can."""
    if os.geteuid() != 0:
        return "network namespaces with a link between them need root"
    if subprocess.run(["unshare", "--net", "true"], stderr=subprocess.DEVNULL).returncode != 0:
        return "this root may make no network namespace"
    return ""


def run(*words, namespace=None):
    words = [IP if word == "ip" else word for word in words]
    words = ["nsenter", f"--net=/proc/{namespace}/ns/net", *words] if namespace else words
    subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL)


class Internet:
    """`ports`: (of TCP, of UDP); then every address there is, the host's loopback among them, sends back what comes to these,
    and there are no other servers."""

    def __init__(self, place, ports=None):
        self.place, self.processes = pathlib.Path(place), []
        self.host, self.world = self.namespace(), self.namespace()
        self.wire()
        self.log = self.place / "requests"
        self.forget()
        self.names(ZONE)
        if ports is None:
            certificate(self.place)
            self.serve(self.world)
            return
        self.hold_every_address()
        words = [",".join(map(str, numbers)) for numbers in ports]
        self.serve(self.world, *words)
        self.serve(self.host, *words)

    def namespace(self):
        """A process that does nothing but hold one."""
        process = subprocess.Popen(["unshare", "--net", "sleep", "1000000"], stdin=subprocess.DEVNULL)
        self.processes.append(process)
        own = os.readlink("/proc/self/ns/net")
        deadline = time.monotonic() + 5
        while os.readlink(f"/proc/{process.pid}/ns/net") == own:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return process.pid

    def wire(self):
        run("ip", "link", "add", "out", "netns", self.host, "type", "veth", "peer", "name", "in", "netns", self.world)
        for namespace, link, own, own6 in ((self.host, "out", HOST, HOST6), (self.world, "in", ROUTER, ROUTER6)):
            for words in (("link", "set", "lo", "up"), ("addr", "add", f"{own}/30", "dev", link), ("addr", "add", f"{own6}/64", "dev", link, "nodad"),
                          ("link", "set", link, "up")):
                run("ip", *words, namespace=namespace)
        run("ip", "route", "add", "default", "via", ROUTER, namespace=self.host)
        run("ip", "-6", "route", "add", "default", "via", ROUTER6, namespace=self.host)
        for address in ADDRESSES:
            run("ip", "addr", "add", f"{address}/32", "dev", "lo", namespace=self.world)
        run("ip", "addr", "add", f"{WEB6}/128", "dev", "lo", namespace=self.world)
        # What is not there is unreachable, and one address says nothing at all.
        run("ip", "route", "add", "unreachable", "default", "metric", "4000", namespace=self.world)
        run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward", namespace=self.world)
        run("ip", "route", "add", "blackhole", SILENT, namespace=self.world)

    def hold_every_address(self):
        """Whatever is sent there arrives, but for the way back."""
        for words, everything, ways_back in ((("ip",), "0.0.0.0/0", (f"{HOST}/32",)), (("ip", "-6"), "::/0", (f"{HOST6}/128", "fe80::/64"))):
            for back in ways_back:
                run(*words, "route", "add", back, "dev", "in", "table", "local", namespace=self.world)
            run(*words, "route", "add", "local", everything, "dev", "lo", "table", "local", namespace=self.world)

    def names(self, zone):
        """What the name servers answer from now on."""
        (self.place / "zone").write_text(json.dumps(zone))

    def serve(self, namespace, *ports):
        self.start(namespace, "servers.py", *ports)

    def proxy(self, kind, port):
        """One of the host's: "http" or "socks5" at a port of its loopback. What it answers to each is `refuse`, while there is one."""
        return self.start(self.host, "proxies.py", kind, port)

    def start(self, namespace, program, *arguments):
        words = ["nsenter", f"--net=/proc/{namespace}/ns/net", sys.executable, "-B", HERE / program, self.place, *arguments]
        process = subprocess.Popen(list(map(str, words)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self.processes.append(process)
        assert process.stdout.readline() == b"ready\n", words
        return process

    def requests(self):
        """What the servers were asked, a line each: what, server's address, peer, more."""
        return [line.split(" ") for line in self.log.read_text().splitlines()]

    def forget(self):
        self.log.write_text("")

    def close(self):
        for process in reversed(self.processes):
            process.send_signal(signal.SIGKILL)
            process.wait()


def certificate(place):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=test",
                    "-addext", "subjectAltName=DNS:example.test,DNS:*.example.test,DNS:other.test,DNS:badexample.test", "-keyout", place / "key.pem",
                    "-out", place / "cert.pem"], check=True, stderr=subprocess.DEVNULL)


def server_context(place):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(place / "cert.pem", place / "key.pem")
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context
