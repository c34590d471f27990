#!/usr/bin/env python3
"""Two nodes, each in a network namespace of its own, become equal over a path like a satellite's, a Wi-Fi's, a 3G's and a
LAN's, with CUBIC and with BBR. Between the namespaces is no cable, but a TUN device in each and `shaper`, which carries their
packets late, narrow and with losses, as netem would. Before each path is used, it is measured from outside the nodes: the
round trip, the losses, and what plain UDP and the kernel's TCP get through. Prints one JSON object.

    cargo build --release -p atoll-benches && benches/paths.py [--bin DIR] [--only cubic|bbr] [--notes N] [NAME]...

It needs root, `ip`, network namespaces and /dev/net/tun. Without them it says so and ends with status 77.
"""

import argparse
import contextlib
import ctypes
import fcntl
import json
import os
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time

SKIPPED = 77
PATHS = ["satellite", "wifi", "3g", "lan"]
TUN = "/dev/net/tun"
# linux/if_tun.h, sched.h
TUNSETIFF, IFF_TUN, IFF_NO_PI, CLONE_NEWNET = 0x400454CA, 0x0001, 0x1000, 0x40000000
ECHOES, ECHO_PAUSE_S = 400, 0.005
UDP_S, TCP_S = 4, 10
LIBC = ctypes.CDLL(None, use_errno=True)


def ip(*args):
    done = subprocess.run(["ip", *args], capture_output=True, text=True, timeout=30)
    if done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(args)}: {done.stderr.strip()}")


def reason_to_skip():
    if os.geteuid() != 0:
        return "it needs root, to make network namespaces"
    if not shutil.which("ip"):
        return "it needs `ip`, of the package iproute2"
    if not os.path.exists(TUN):
        return f"it needs {TUN}: load the kernel's module `tun`"
    return None


@contextlib.contextmanager
def entered(name):
    """Sockets and devices that this thread makes meanwhile are of the namespace."""
    with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{name}") as there:
        enter(there)
        try:
            yield
        finally:
            enter(home)


def enter(space):
    if LIBC.setns(space.fileno(), CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), f"cannot enter {space.name}")


class Space:
    def __init__(self, number):
        self.name = f"atoll-path-{os.getpid()}-{number}"
        self.ip = f"10.77.0.{number}"
        ip("netns", "add", self.name)
        ip("-n", self.name, "link", "set", "lo", "up")
        with entered(self.name):
            self.tun = os.open(TUN, os.O_RDWR)
            fcntl.ioctl(self.tun, TUNSETIFF, struct.pack("16sH22x", b"path0", IFF_TUN | IFF_NO_PI))
        ip("-n", self.name, "addr", "add", f"{self.ip}/24", "dev", "path0")
        # What the shaper has no time to take yet waits here, as at a network card.
        ip("-n", self.name, "link", "set", "path0", "txqueuelen", "4000", "up")

    def socket(self, kind):
        with entered(self.name):
            made = socket.socket(socket.AF_INET, kind)
        made.settimeout(3)
        return made

    def listen(self, kind):
        made = self.socket(kind)
        made.bind((self.ip, 0))
        return made

    def remove(self):
        os.close(self.tun)
        ip("netns", "del", self.name)


def start(task, *args):
    thread = threading.Thread(target=task, args=args, daemon=True)
    thread.start()
    return thread


def echoes(here, there):
    """The round trip, and what part of the packets did not come back: one may be lost on either way."""
    far, near, trips = there.listen(socket.SOCK_DGRAM), here.socket(socket.SOCK_DGRAM), []
    near.connect(far.getsockname())

    def answer():
        with contextlib.suppress(TimeoutError):
            while True:
                data, sender = far.recvfrom(100)
                far.sendto(data, sender)

    def take():
        with contextlib.suppress(TimeoutError):
            while True:
                (sent,) = struct.unpack("d", near.recv(100))
                trips.append(1000 * (time.monotonic() - sent))

    threads = [start(answer), start(take)]
    for _ in range(ECHOES):
        near.send(struct.pack("d", time.monotonic()))
        time.sleep(ECHO_PAUSE_S)
    for thread in threads:
        thread.join()
    return {
        "round_trip_ms": round(statistics.median(trips), 2),
        "least_ms": round(min(trips), 2),
        "most_ms": round(max(trips), 2),
        "not_answered": round(1 - len(trips) / ECHOES, 3),
    }


def rate(arrivals):
    """Bytes a second of (time, bytes), from the first on."""
    (first, _), (last, _) = arrivals[0], arrivals[-1]
    return round(sum(size for _, size in arrivals[1:]) / (last - first))


def take_all(of, arrivals):
    with contextlib.suppress(TimeoutError):
        while data := of.recv(1 << 16):
            arrivals.append((time.monotonic(), len(data)))


def plain_udp(here, there):
    """Far more is sent than there is room for; IP and UDP headers are counted."""
    far, near, arrivals = there.listen(socket.SOCK_DGRAM), here.socket(socket.SOCK_DGRAM), []
    near.connect(far.getsockname())
    taker, end = start(take_all, far, arrivals), time.monotonic() + UDP_S
    while time.monotonic() < end:
        for _ in range(20):
            near.send(b"." * 1400)
        time.sleep(0.0002)
    taker.join()
    return rate([(at, size + 28) for at, size in arrivals])


def congestion_control(space):
    probe = space.socket(socket.SOCK_STREAM)
    return probe.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()


def plain_tcp(here, there):
    """One connection, as the kernel governs congestion by default; payload alone."""
    door, near, arrivals = there.listen(socket.SOCK_STREAM), here.socket(socket.SOCK_STREAM), []
    door.listen()
    near.connect(door.getsockname())
    far, _ = door.accept()
    far.settimeout(3)
    near.settimeout(30)
    taker, end = start(take_all, far, arrivals), time.monotonic() + TCP_S
    while time.monotonic() < end:
        near.sendall(b"." * (1 << 16))
    near.close()
    taker.join()
    return rate(arrivals)


@contextlib.contextmanager
def shaped(binary, path, spaces):
    shaper = subprocess.Popen([binary, path], stdin=spaces[0].tun, stdout=spaces[1].tun)
    try:
        yield
        if shaper.poll() is not None:
            raise RuntimeError(f"the shaper ended by itself: {shaper.returncode}")
    finally:
        shaper.kill()
        shaper.wait()


def measure(args, path, spaces):
    with shaped(os.path.join(args.bin, "shaper"), path, spaces):
        told = {
            **echoes(*spaces),
            "plain_udp_bytes_per_s": plain_udp(*spaces),
            "plain_tcp_bytes_per_s": plain_tcp(*spaces),
            "tcp": congestion_control(spaces[0]),
        }
        between = [f"{space.name}={space.ip}" for space in spaces]
        command = [os.path.join(args.bin, "paths"), path, "--between", *between]
        if args.only:
            command += ["--only", args.only]
        if args.notes:
            command += ["--notes", args.notes]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=900)
        if done.returncode != 0:
            raise RuntimeError(f"paths ended with {done.returncode}")
    return {"path": told, **json.loads(done.stdout)[path]}


def main():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--bin", default=os.path.join(root, "target/release"), help="the folder of `paths` and `shaper`")
    parser.add_argument("--only", choices=["cubic", "bbr"], help="this one alone")
    parser.add_argument("--notes", help="how many go over each path, in the place of what suits it")
    parser.add_argument("paths", nargs="*", metavar="NAME", help=f"of {', '.join(PATHS)}; all if none is named")
    args = parser.parse_args()
    unknown = set(args.paths) - set(PATHS)
    if unknown:
        parser.error(f"there is no path {', '.join(unknown)}")
    reason = reason_to_skip()
    if reason:
        print(f"SKIPPED: {reason}")
        return SKIPPED
    # Whoever ends it finds no namespace left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended before it was done"))
    spaces, report = [], {}
    try:
        for number in (1, 2):
            spaces.append(Space(number))
        for path in args.paths or PATHS:
            report[path] = measure(args, path, spaces)
    finally:
        for space in spaces:
            space.remove()
    print(json.dumps(report, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
