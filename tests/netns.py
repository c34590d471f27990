#!/usr/bin/env python3
"""Real nodes in network namespaces of their own: people write on all of them while links fail in every way, packets are
lost, processes are killed and disks are full. Then all is healed, and every write that was answered must be there, in the
inbox, or overwritten by somebody who had seen it; all nodes must be equal and verify.

    tests/netns.py [--atoll FILE] [--nodes N] [--seconds N] [--seed N] [--keep]

It needs root, `ip` and network namespaces; `nft`, if there is one, loses packets too. Without them it says so and ends
with status 77. A run is told by its seed: what befalls whom and when is drawn from it, what the nodes make of it is not.
"""

import argparse
import collections
import http.client
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

SKIPPED = 77
EMAIL, PASSWORD = "admin@example.org", "a long enough password"
HTTP, SYNC = 8080, 8081
DISK_MIB = 96
SHARED = 4
# With one peer within a second, when both ends begin anew.
MOST_LINKS = 5
START_S, HEAL_S, ANSWER_S = 60, 240, 20


def say(text):
    print(f"[{time.monotonic() - BEGUN:7.1f}] {text}", flush=True)


BEGUN = time.monotonic()


def run(*command, check=True, **more):
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, **more)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done


def reason_to_skip():
    if os.geteuid() != 0:
        return "it needs root, to make network namespaces"
    if not shutil.which("ip"):
        return "it needs `ip`, of the package iproute2"
    name = f"atoll-try-{os.getpid()}"
    made = run("ip", "netns", "add", name, check=False)
    if made.returncode != 0:
        return f"no network namespace can be made here: {made.stderr.strip()}"
    run("ip", "netns", "del", name, check=False)
    link = run("ip", "link", "add", "atry0", "type", "veth", "peer", "name", "atry1", check=False)
    if link.returncode != 0:
        return f"no virtual link can be made here: {link.stderr.strip()}"
    run("ip", "link", "del", "atry0", check=False)
    return None


class Refused(Exception):
    """The node answered, and said no."""

    def __init__(self, status, body):
        super().__init__(f"{status}: {body}")
        self.status = status


class Node:
    def __init__(self, number, net, folder, atoll):
        self.number, self.atoll = number, atoll
        self.space = f"atoll-{os.getpid()}-{number}"
        self.link = f"at{os.getpid() % 100000}v{number}"
        self.ip = f"{net.prefix}.{number + 1}"
        self.data = os.path.join(folder, f"n{number}")
        self.log = open(os.path.join(folder, f"n{number}.log"), "ab")
        self.process = None
        self.token = None
        self.is_down = False
        os.mkdir(self.data)
        run("mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", f"atoll-{number}", self.data)
        run("ip", "netns", "add", self.space)
        run("ip", "link", "add", self.link, "type", "veth", "peer", "name", "eth0", "netns", self.space)
        run("ip", "link", "set", self.link, "master", net.bridge, "up")
        self.inside("ip", "link", "set", "lo", "up")
        self.inside("ip", "addr", "add", f"{self.ip}/24", "dev", "eth0")
        self.inside("ip", "link", "set", "eth0", "up")

    def inside(self, *command, check=True):
        return run("ip", "netns", "exec", self.space, *command, check=check)

    def command(self, *args):
        return [
            "ip", "netns", "exec", self.space, self.atoll, "--data", os.path.join(self.data, "data"),
            "--name", f"n{self.number}", "--listen", f"{self.ip}:{HTTP}", "--sync-listen", f"{self.ip}:{SYNC}",
            "--set", "limits.rate=0", "--set", "blobs.keep_free_bytes=1000000", "--log-level", "info", *args,
        ]

    def ask(self, *args):
        done = run(*self.command(*args, "--json"), env=ENVIRONMENT)
        return json.loads(done.stdout)

    def start(self, *args):
        self.process = subprocess.Popen(
            self.command("serve", *args), env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log
        )

    def kill(self, how=signal.SIGKILL):
        """`ip netns exec` becomes the node, so this is the node's own id."""
        self.process.send_signal(how)
        self.process.wait(timeout=60)

    def http(self, method, path, body=None, headers=None, timeout=ANSWER_S):
        """The status, the headers and the JSON; `OSError` or `HTTPException` if no answer came whole."""
        connection = http.client.HTTPConnection(self.ip, HTTP, timeout=timeout)
        try:
            sent = {"content-type": "application/json", **(headers or {})}
            if self.token:
                sent["authorization"] = f"Bearer {self.token}"
            connection.request(method, path, json.dumps(body) if body is not None else None, sent)
            answer = connection.getresponse()
            text = answer.read()
            is_json = "json" in (answer.headers["content-type"] or "")
            return answer.status, answer.headers, json.loads(text) if text and is_json else None
        finally:
            connection.close()

    def call(self, method, path, body=None, headers=None):
        status, told, data = self.http(method, path, body, headers)
        if status >= 300:
            raise Refused(status, data)
        return (data or {}).get("data"), told

    def sign_in(self):
        data, _ = self.call("POST", "/api/v1/auth/login", {"login": EMAIL, "password": PASSWORD})
        self.token = data["access_token"]

    def until_ready(self):
        def is_ready():
            if self.process.poll() is not None:
                raise RuntimeError(f"node {self.number} ended with status {self.process.returncode}: see its log")
            try:
                return self.http("GET", "/readyz", timeout=2)[0] == 200
            except (OSError, http.client.HTTPException, ValueError):
                return False

        until(f"node {self.number} is ready", START_S, is_ready)

    def lines(self):
        with open(self.log.name, encoding="utf-8", errors="replace") as log:
            return log.read().splitlines()

    def last_line(self):
        return (self.lines() or [""])[-1]

    def most_links_a_second(self):
        linked = (line.split(".")[0] for line in self.lines() if " linked to a peer " in line)
        return max(collections.Counter(linked).values(), default=0)

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def remove(self):
        if self.is_running():
            self.kill()
        run("ip", "netns", "del", self.space, check=False)
        run("ip", "link", "del", self.link, check=False)
        run("umount", "-l", self.data, check=False)
        self.log.close()


def until(what, seconds, is_so):
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {seconds} s: {what}")
        time.sleep(0.1)


class Net:
    """A bridge of this machine: it reaches all nodes, whatever keeps them apart."""

    def __init__(self):
        self.bridge = f"at{os.getpid() % 100000}br"
        self.prefix = f"10.{64 + os.getpid() % 128}.{os.getpid() // 128 % 256}"
        run("ip", "link", "add", "name", self.bridge, "type", "bridge")
        run("ip", "addr", "add", f"{self.prefix}.254/24", "dev", self.bridge)
        run("ip", "link", "set", self.bridge, "up")

    def remove(self):
        run("ip", "link", "del", self.bridge, check=False)


class Book:
    """What was answered. Each post is its own lock, so that a writer's look and its write are one step of the book."""

    def __init__(self):
        self.lock = threading.Lock()
        self.posts = {}
        self.shared = {}
        self.acknowledged = collections.Counter()
        self.refused = collections.Counter()

    def count(self, what):
        with self.lock:
            self.acknowledged[what] += 1

    def no(self, what):
        with self.lock:
            self.refused[what] += 1


class Writer(threading.Thread):
    """Writes at one node: posts of its own, and the posts that all share, each time after it has looked."""

    def __init__(self, node, book, seed, stop):
        super().__init__(daemon=True)
        self.node, self.book, self.stop = node, book, stop
        self.random = random.Random(seed)
        self.number = 0
        self.failure = None

    def run(self):
        try:
            while not self.stop.is_set():
                self.step()
                self.stop.wait(self.random.uniform(0.0, 0.05))
        except Exception as error:  # told by the main thread
            self.failure = error

    def step(self):
        action = self.random.choice(["create", "edit", "edit", "comment", "like", "delete", "title", "title", "word"])
        try:
            getattr(self, action)()
        except Refused as refused:
            # A full disk, somebody else who was quicker, a record that has not come yet: no promise was made.
            self.book.no(f"{action} {refused.status}")
            if refused.status not in (404, 409, 412, 421, 503, 507):
                raise
            if self.node.is_running() and refused.status in (503, 507):
                self.stop.wait(0.3)
        except (OSError, http.client.HTTPException, ValueError):
            self.book.no(f"{action} unanswered")
            self.stop.wait(0.1)

    def own(self):
        with self.book.lock:
            posts = list(self.book.posts.values())
        mine = [post for post in posts if post["at"] == self.node.number and post["alive"] is True]
        return self.random.choice(mine) if mine else None

    def create(self):
        self.number += 1
        draft = {"title": f"n{self.node.number} {self.number}", "body": f"body {self.number}\n" + "text " * 60}
        made, _ = self.node.call("POST", "/api/v1/posts", draft)
        post = {
            "id": made["id"], "at": self.node.number, "alive": True, "liked": False, "comments": [],
            "title": [draft["title"]], "body": [draft["body"]],
        }
        with self.book.lock:
            self.book.posts[made["id"]] = post
        self.node.call("POST", f"/api/v1/posts/{made['id']}/publish", {})
        self.book.count("create")

    def edit(self):
        post = self.own()
        if not post:
            return
        self.number += 1
        field = self.random.choice(["title", "body"])
        value = f"edit {self.node.number} {self.number}" + (" text" * 40 if field == "body" else "")
        # Until it is answered, both may be.
        post[field].append(value)
        self.node.call("PUT", f"/api/v1/posts/{post['id']}", {field: value})
        post[field] = [value]
        self.book.count("edit")

    def comment(self):
        post = self.own()
        if not post:
            return
        self.number += 1
        text = f"said at {self.node.number} {self.number}"
        made, _ = self.node.call("POST", "/api/v1/comments", {"post_id": post["id"], "text": text})
        post["comments"].append((made["id"], text))
        self.book.count("comment")

    def like(self):
        post = self.own()
        if not post or post["liked"] is not False:
            return
        post["liked"] = None
        self.node.call("POST", f"/api/v1/posts/{post['id']}/like", {})
        post["liked"] = True
        self.book.count("like")

    def delete(self):
        if self.random.random() > 0.3:
            return
        post = self.own()
        if not post:
            return
        post["alive"] = None
        self.node.call("DELETE", f"/api/v1/posts/{post['id']}?purge=true")
        post["alive"] = False
        self.book.count("delete")

    def look(self):
        """A shared post as it stands here, its ETag, and what the inbox holds of its title."""
        shared = self.book.shared[self.random.choice(sorted(self.book.shared))]
        data, told = self.node.call("GET", f"/api/v1/posts/{shared['id']}")
        return shared, data, told["etag"], inbox_of(self.node, shared["id"])

    def title(self):
        shared, data, etag, values = self.look()
        self.number += 1
        value = f"title {self.node.number} {self.number}"
        seen = {data["title"], *values}
        with self.book.lock:
            shared["tried"][value] = seen
        self.node.call("PUT", f"/api/v1/posts/{shared['id']}", {"title": value}, {"if-match": etag})
        with self.book.lock:
            shared["titles"].add(value)
        self.book.count("title")

    def word(self):
        shared, data, etag, _ = self.look()
        self.number += 1
        word = f"w{self.node.number}x{self.number}"
        lines = data["body"].split("\n")
        lines.insert(self.random.randrange(len(lines) + 1), word)
        self.node.call("PUT", f"/api/v1/posts/{shared['id']}", {"body": "\n".join(lines)}, {"if-match": etag})
        with self.book.lock:
            shared["words"].add(word)
        self.book.count("word")


def all_pages(node, path):
    cursor, rows = None, []
    while True:
        page = path + ("&" if "?" in path else "?") + "limit=100" + (f"&cursor={cursor}" if cursor else "")
        status, _, answer = node.http("GET", page)
        if status != 200:
            raise Refused(status, answer)
        rows.extend(answer["data"])
        cursor = (answer.get("page") or {}).get("next")
        if not cursor:
            return rows


def inbox_of(node, key):
    rows = all_pages(node, "/api/v1/sync/conflicts")
    titles = [row for row in rows if key in json.dumps(row) and row.get("field") == "title"]
    return {value["value"] for row in titles for value in row["values"]}


class Evil:
    """What befalls nodes and links. Each has an end, told by a time."""

    def __init__(self, nodes, seed, can_lose):
        self.nodes, self.random = nodes, random.Random(seed)
        self.ends = []
        self.can_lose = can_lose
        self.counts = collections.Counter()

    def strike(self):
        kinds = ["part", "part", "one_way", "unplug", "kill", "kill", "fill"] + ["lose"] * 2 * self.can_lose
        kind = self.random.choice(kinds)
        length = self.random.uniform(0.5, 8.0)
        a, b = self.random.sample(self.nodes, 2)
        end = getattr(self, kind)(a, b)
        if end:
            self.counts[kind] += 1
            self.ends.append((time.monotonic() + length, end))

    def pass_time(self, until_time):
        while time.monotonic() < until_time:
            now = time.monotonic()
            due = [end for end in self.ends if end[0] <= now]
            self.ends = [end for end in self.ends if end[0] > now]
            for _, end in due:
                end()
            self.keep_running()
            time.sleep(0.05)

    def keep_running(self):
        """As a service manager does: a node that cannot start on a full disk is started again."""
        for node in self.nodes:
            if node.is_down or node.is_running():
                continue
            if "the disk is full" not in node.last_line():
                raise RuntimeError(f"node {node.number} ended by itself: {node.process.returncode}, see its log")
            self.counts["no start on a full disk"] += 1
            node.start()

    def heal(self):
        for _, end in self.ends:
            end()
        self.ends = []
        self.keep_running()

    @staticmethod
    def block(a, b):
        return a.inside("ip", "route", "add", "blackhole", f"{b.ip}/32", check=False).returncode == 0

    @staticmethod
    def unblock(a, b):
        a.inside("ip", "route", "del", "blackhole", f"{b.ip}/32", check=False)

    def part(self, a, b):
        say(f"{a.number} and {b.number} are parted")
        done = [pair for pair in ((a, b), (b, a)) if self.block(*pair)]
        return lambda: [self.unblock(*pair) for pair in done]

    def one_way(self, a, b):
        say(f"nothing of {a.number} reaches {b.number}")
        return (lambda: self.unblock(a, b)) if self.block(a, b) else None

    def unplug(self, a, _):
        say(f"{a.number} is unplugged")
        run("ip", "link", "set", a.link, "down")
        return lambda: run("ip", "link", "set", a.link, "up")

    def lose(self, a, _):
        percent = self.random.choice([3, 10, 30])
        say(f"{a.number} loses {percent} % of what comes")
        lines = ["table inet atoll {", "chain input {", "type filter hook input priority 0"]
        lines += [f"udp {port} {SYNC} numgen random mod 100 < {percent} drop" for port in ("dport", "sport")]
        rules = "\n".join([*lines, "}", "}", ""])
        a.inside("nft", "delete", "table", "inet", "atoll", check=False)
        made = run("ip", "netns", "exec", a.space, "nft", "-f", "-", input=rules, check=False)
        if made.returncode != 0:
            raise RuntimeError(f"nft: {made.stderr}")
        return lambda: a.inside("nft", "delete", "table", "inet", "atoll", check=False)

    def kill(self, a, _):
        if a.is_down:
            return None
        say(f"{a.number} is killed")
        a.is_down = True
        a.kill()

        def start():
            say(f"{a.number} starts again")
            a.start()
            a.is_down = False

        return start

    def fill(self, a, _):
        ballast = os.path.join(a.data, "ballast")
        if os.path.exists(ballast):
            return None
        free = os.statvfs(a.data)
        left = self.random.choice([0, 40_000, 600_000])
        size = max(0, free.f_bavail * free.f_bsize - left)
        say(f"{a.number} has {left} bytes of disk left")
        with open(ballast, "wb") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, size)
            except OSError:
                pass
        return lambda: os.path.exists(ballast) and os.remove(ballast)


def digest(node):
    data, _ = node.call("GET", "/api/v1/sync/status")
    return data["digest"]


def are_equal(nodes):
    try:
        digests = {digest(node) for node in nodes}
    except Refused as refused:
        if refused.status == 401:
            for node in nodes:
                node.sign_in()
        return False
    except (OSError, http.client.HTTPException, ValueError):
        return False
    return len(digests) == 1


def check(nodes, book):
    """Every acknowledged write, on every node."""
    lacking = []

    def expect(is_so, text):
        if not is_so:
            lacking.append(text)

    for node in nodes:
        for post in book.posts.values():
            path = f"/api/v1/posts/{post['id']}"
            status, _, answer = node.http("GET", f"{path}?expand=counts")
            where = f"on {node.number}: {post}"
            if post["alive"] is False:
                expect(status == 404, f"a deleted post is there {where}")
            elif post["alive"] is True:
                expect(status == 200, f"{status} {where}")
            if status != 200:
                continue
            found = answer["data"]
            expect(found["title"] in post["title"], f"title {found['title']!r} {where}")
            expect(found["body"] in post["body"], f"body {found['body']!r} {where}")
            if post["liked"] is not None:
                expect(found["like_count"] == int(post["liked"]), f"likes {found['like_count']} {where}")
            for key, text in post["comments"]:
                status, _, answer = node.http("GET", f"/api/v1/comments/{key}")
                expect(status == 200 and answer["data"]["text"] == text, f"comment {text} {where}")
        for shared in book.shared.values():
            found, _ = node.call("GET", f"/api/v1/posts/{shared['id']}")
            missing = [word for word in shared["words"] if word not in found["body"].split("\n")]
            expect(not missing, f"words {missing} of {shared['id']} on {node.number}")
            stands = {found["title"], *inbox_of(node, shared["id"])}
            # Writes that were not answered may have come about too: those did that somebody saw.
            tried = shared["tried"]
            happened = shared["titles"] | stands | set().union(*tried.values())
            seen = set().union(*(tried[title] for title in happened if title in tried))
            for title in sorted(shared["titles"] - stands - seen):
                lacking.append(f"title {title!r} of {shared['id']} on {node.number}: not there, in no inbox, seen by nobody")
    return lacking


def play(args, folder, net, nodes):
    rng = random.Random(args.seed)
    first = nodes[0]
    first.start()
    first.until_ready()
    for node in nodes[1:]:
        ticket = first.ask("peer", "ticket")["ticket"]
        node.start("--join", ticket)
        node.until_ready()
    # A ring beside the star: what is cut in one place has another way.
    for a, b in zip(nodes[1:], nodes[2:]):
        b.ask("peer", "join", a.ask("peer", "ticket")["ticket"])
    for node in nodes:
        until(f"somebody can sign in on {node.number}", START_S, lambda node=node: signed_in(node))
    book = Book()
    for n in range(SHARED):
        made, _ = first.call("POST", "/api/v1/posts", {"title": f"shared {n}", "body": "first line\nlast line"})
        first.call("POST", f"/api/v1/posts/{made['id']}/publish", {})
        book.shared[made["id"]] = {"id": made["id"], "titles": set(), "tried": {}, "words": set()}
    until("all nodes are equal", START_S, lambda: are_equal(nodes))
    say("all nodes are level; people write, and it begins")

    stop = threading.Event()
    writers = [Writer(node, book, rng.random(), stop) for node in nodes]
    for writer in writers:
        writer.start()
    evil = Evil(nodes, rng.random(), bool(shutil.which("nft")))
    end = time.monotonic() + args.seconds
    while time.monotonic() < end:
        evil.strike()
        evil.pass_time(min(end, time.monotonic() + rng.uniform(0.3, 4.0)))
        for writer in writers:
            if writer.failure:
                raise writer.failure
    evil.heal()
    stop.set()
    for writer in writers:
        writer.join(timeout=2 * ANSWER_S)
    say(f"healed. befell: {dict(evil.counts)}; answered: {dict(book.acknowledged)}; not: {dict(book.refused)}")

    for node in nodes:
        node.until_ready()
        node.sign_in()
    healed = time.monotonic()
    for node in nodes:
        node.ask("sync", "now")
    try:
        until("the nodes are equal", HEAL_S, lambda: are_equal(nodes))
    except RuntimeError:
        for node in nodes:
            say(f"{node.number}: {digest(node)} {json.dumps(node.ask('sync', 'plan'))}")
        raise
    say(f"equal {time.monotonic() - healed:.1f} s after the last evil")
    lacking = check(nodes, book)
    for node in nodes:
        links = node.most_links_a_second()
        if links > MOST_LINKS * len(nodes):
            lacking.append(f"{links} links began on {node.number} in one second: it dials without a pause")
        node.kill(signal.SIGTERM)
    for node in nodes:
        done = run(*node.command("verify"), check=False, env=ENVIRONMENT)
        if done.returncode != 0:
            lacking.append(f"verify on {node.number}: {done.stdout}{done.stderr}")
    return lacking


def signed_in(node):
    try:
        node.sign_in()
        return True
    except (Refused, OSError, http.client.HTTPException, ValueError):
        return False


ENVIRONMENT = {**os.environ, "ATOLL_ADMIN_EMAIL": EMAIL, "ATOLL_ADMIN_PASSWORD": PASSWORD}


def main():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--atoll", default=os.path.join(root, "target/debug/atoll"))
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--keep", action="store_true", help="leave the folder of a failed run")
    args = parser.parse_args()
    reason = reason_to_skip()
    if reason:
        print(f"SKIPPED: {reason}")
        return SKIPPED
    # Whoever ends it finds no namespace left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended before it was done"))
    say(f"seed {args.seed}, {args.nodes} nodes, {args.seconds:g} s")
    folder = tempfile.mkdtemp(prefix="atoll-netns-")
    nodes, net, lacking = [], None, ["it did not come to an end"]
    try:
        net = Net()
        for number in range(args.nodes):
            nodes.append(Node(number, net, folder, os.path.abspath(args.atoll)))
        lacking = play(args, folder, net, nodes)
    finally:
        if lacking and args.keep:
            for node in nodes:
                if node.is_running():
                    node.kill()
                shutil.copytree(node.data, f"{node.data}.kept", ignore=shutil.ignore_patterns("ballast"))
        for node in nodes:
            node.remove()
        if net:
            net.remove()
        if lacking:
            say(f"FAILED with seed {args.seed}; logs are in {folder}")
        else:
            shutil.rmtree(folder)
    for line in lacking[:20]:
        print(line[:2000])
    if lacking:
        return 1
    say("nothing is lost, all nodes are equal, and all verify")
    return 0


if __name__ == "__main__":
    sys.exit(main())
