#!/usr/bin/env python3
"""What two nodes send each other when they meet and nothing is new: Atoll beside Syncthing over QUIC, by turns, on loopback.
Prints one JSON object, and ends with status 1 if Atoll does not send less.

    apt-get install --no-install-recommends syncthing
    cargo build --release -p atoll-benches --bin network && benches/versus_greeting.py [--syncthing FILE] [--rounds N]
        [--bin DIR] [--parent DIR]

What counts is what each side says of the link itself, each way, from its beginning until both are level and it is silent:
    Atoll      all bytes of the link's stream, at 100 records and at 100,000 (`network greeting`)
    Syncthing  inBytesTotal and outBytesTotal of the connection (/rest/system/connections) after the other device was paused and
               resumed, with one shared folder of 2,000 files and short names; its hello, which comes before it counts,
               is not in it
Neither counts the handshake of QUIC. Everything lives in one new folder, and is stopped and removed at the end.
"""

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import xml.etree.ElementTree as xml

FILES, FILE_BYTES, FOLDER = 2_000, 256, "versus"
PATIENCE_S, SILENCE_S = 120, 5
# Nobody else is looked for, asked or told anything, and nothing is replaced.
OPTIONS = {
    "globalAnnounceEnabled": "false",
    "localAnnounceEnabled": "false",
    "relaysEnabled": "false",
    "natEnabled": "false",
    "urAccepted": "-1",
    "crashReportingEnabled": "false",
    "autoUpgradeIntervalH": "0",
    "startBrowser": "false",
    "reconnectionIntervalS": "5",
}


def free_port(kind):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(what, is_so):
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        if time.monotonic() > end:
            raise RuntimeError(f"{what} after {PATIENCE_S} s")
        time.sleep(0.1)


class Syncthing:
    def __init__(self, binary, home, name):
        self.binary, self.home, self.name = binary, home / name, name
        self.files = self.home / "files"
        self.files.mkdir(parents=True)
        self.quic = f"quic://127.0.0.1:{free_port(socket.SOCK_DGRAM)}"
        self.gui = f"127.0.0.1:{free_port(socket.SOCK_STREAM)}"
        made = [binary, "generate", "--home", self.home, "--no-default-folder", "--skip-port-probing"]
        subprocess.run(made, check=True, capture_output=True, timeout=PATIENCE_S)
        self.config = xml.parse(self.home / "config.xml")
        self.key = self.config.find("gui/apikey").text
        self.id = self.config.find("device").get("id")
        self.process = None

    def set_up(self, other):
        root = self.config.getroot()
        root.find("gui/address").text = self.gui
        options = root.find("options")
        for name, value in {**OPTIONS, "listenAddress": self.quic}.items():
            for old in options.findall(name):
                options.remove(old)
            xml.SubElement(options, name).text = value
        device = xml.SubElement(root, "device", id=other.id, name=other.name)
        xml.SubElement(device, "address").text = other.quic
        folder = xml.SubElement(root, "folder", id=FOLDER, path=str(self.files), type="sendreceive")
        for member in (self, other):
            xml.SubElement(folder, "device", id=member.id)
        self.config.write(self.home / "config.xml")

    def start(self):
        command = [self.binary, "serve", "--home", self.home, "--no-browser", "--no-restart", f"--logfile={self.home}/log"]
        away = {"STNOUPGRADE": "1", "HOME": str(self.home), "PATH": os.environ["PATH"]}
        self.process = subprocess.Popen(command, env=away, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(f"{self.name} does not answer", self.answers)

    def answers(self):
        with contextlib.suppress(OSError):
            return self.ask("GET", "system/ping")["ping"] == "pong"
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.name} ended by itself: {self.process.returncode}")
        return False

    def ask(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        headers = {"X-API-Key": self.key, "content-type": "application/json"}
        request = urllib.request.Request(f"http://{self.gui}/rest/{path}", data, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or "null")

    def is_level(self):
        status = self.ask("GET", f"db/status?folder={FOLDER}")
        return status["state"] == "idle" and status["needFiles"] == 0 and status["globalFiles"] == FILES

    def link(self, other):
        return self.ask("GET", "system/connections")["connections"][other.id]

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait(PATIENCE_S)


def meet(a, b):
    """Bytes from each to the other, on a link of its own."""
    a.ask("PATCH", f"config/devices/{b.id}", {"paused": True})
    until("they are still linked", lambda: not a.link(b)["connected"] and not b.link(a)["connected"])
    a.ask("PATCH", f"config/devices/{b.id}", {"paused": False})
    until("they do not meet again", lambda: a.link(b)["connected"] and b.link(a)["connected"])
    told, since = None, time.monotonic()
    while time.monotonic() < since + SILENCE_S:
        links = [a.link(b), b.link(a)]
        now = [(link["outBytesTotal"], link["inBytesTotal"]) for link in links]
        if now != told:
            told, since = now, time.monotonic()
        time.sleep(0.1)
    if not all(link["type"].startswith("quic") for link in links) or told[0] != told[1][::-1]:
        raise RuntimeError(f"no link over QUIC on whose bytes both agree: {links}")
    if not (a.is_level() and b.is_level()):
        raise RuntimeError("something was new")
    return list(told[0])


@contextlib.contextmanager
def syncthings(binary, home):
    a, b = (Syncthing(binary, home, name) for name in ("one", "other"))
    a.set_up(b)
    b.set_up(a)
    for number in range(FILES):
        (a.files / f"{number:04}.txt").write_bytes(os.urandom(FILE_BYTES))
    try:
        for node in (a, b):
            node.start()
        until("they are not level", lambda: a.link(b)["connected"] and a.is_level() and b.is_level())
        # Each tells the other what it has taken; only then nothing is new.
        until("one does not know that the other is level", lambda: all(knows(*pair) for pair in ((a, b), (b, a))))
        yield a, b
    finally:
        for node in (a, b):
            node.stop()


def knows(one, other):
    return one.ask("GET", f"db/completion?folder={FOLDER}&device={other.id}")["completion"] == 100


def atoll(binary, home):
    environment = {**os.environ, "TMPDIR": str(home)}
    done = subprocess.run([binary, "greeting"], env=environment, check=True, capture_output=True, text=True, timeout=900)
    return json.loads(done.stdout)["greeting"]["stream_bytes_each_way_by_records"]


def main():
    root = pathlib.Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--syncthing", default="syncthing", help="its binary")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bin", type=pathlib.Path, default=root / "target/release", help="the folder of `network`")
    parser.add_argument("--parent", default="/var/tmp", help="where the new folder is made")
    args = parser.parse_args()
    binary = shutil.which(args.syncthing) or parser.error(f"there is no {args.syncthing}: apt-get install syncthing")
    # Whoever ends it finds nothing left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended before it was done"))
    version = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=30).stdout.split()[1]
    report = {"syncthing_version": version, "atoll": [], "syncthing": []}
    with tempfile.TemporaryDirectory(prefix="atoll-versus-greeting.", dir=args.parent) as home:
        home = pathlib.Path(home)
        with syncthings(binary, home) as (a, b):
            for _ in range(args.rounds):
                report["syncthing"].append(meet(a, b))
                report["atoll"].append(atoll(args.bin / "network", home))
    most = max(bytes for told in report["atoll"] for each in told.values() for bytes in each)
    least = min(bytes for each in report["syncthing"] for bytes in each)
    report["atoll_sends_less"] = most < least
    print(json.dumps(report, indent=2))
    return 0 if report["atoll_sends_less"] else 1


if __name__ == "__main__":
    sys.exit(main())
