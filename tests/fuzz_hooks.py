"""Hooks of the fuzzing (fuzz_openapi.sh): fills a node with one of everything, and puts the ids of what is there into
most requests, so that they come past the first look-up. What is made up by schemathesis stays in the rest.

FUZZ_BASE is the node's address, FUZZ_TOKEN a superadmin's access token, FUZZ_SEED the seed.
"""

import os
import random
import threading

import requests
import schemathesis

BASE = os.environ["FUZZ_BASE"]
API = BASE + "/api/v1"
AUTH = {"Authorization": "Bearer " + os.environ["FUZZ_TOKEN"]}
CHANCE = random.Random(os.environ.get("FUZZ_SEED", "1"))
LOCK = threading.Lock()
# How often a list is read again, counted in ids taken from it: what was removed must go, what was made must come.
READ_AGAIN = 40
LISTS = ["posts", "tags", "categories", "sub-categories", "comments", "users", "roles", "tenants", "api-keys",
         "redirects", "jobs", "imports", "exports", "sync/conflicts", "mail/templates"]
# Fields of bodies and query parameters that name a record of a list.
FIELDS = {"post_id": "posts", "category_id": "categories", "category": "categories", "sub_category": "sub-categories",
          "tag_ids": "tags", "tag": "tags", "author": "users", "author_id": "users", "author_ids": "users",
          "user_id": "users", "actor": "users", "target": "posts", "tenant": "tenants", "into": "tags",
          "cover_id": "posts"}


def ask(method, path, **kwargs):
    return requests.request(method, API + path, headers=AUTH, timeout=20, **kwargs)


def rows_of(noun):
    try:
        data = ask("GET", f"/{noun}?limit=100").json().get("data", [])
    except (requests.RequestException, ValueError):
        return []
    return data if isinstance(data, list) else []


class Pools:
    """What there is, by list. Never the caller and his tenant: the run would end with them."""

    def __init__(self):
        me = ask("GET", "/auth/me").json()["data"]
        self.spared = {me.get("id"), me.get("tenant_id"), "default"}
        self.rows, self.taken = {}, {}

    def pick(self, noun):
        with LOCK:
            taken = self.taken.get(noun, 0)
            if taken % READ_AGAIN == 0:
                self.rows[noun] = [r for r in rows_of(noun) if not self.spared & {r.get("id"), r.get("slug")}]
            self.taken[noun] = taken + 1
            rows = self.rows[noun]
            return CHANCE.choice(rows) if rows else None

    def name(self, noun, *fields):
        row = self.pick(noun)
        return next((row[f] for f in fields if row.get(f)), None) if row else None


def seed():
    """One of everything that has an id, several where a request removes one."""
    for number in range(8):
        tag = ask("POST", "/tags", json={"name": f"Tag {number}"}).json().get("data", {}).get("id")
        category = ask("POST", "/categories", json={"name": f"Category {number}"}).json().get("data", {}).get("id")
        ask("POST", f"/categories/{category}/approve")
        ask("POST", "/sub-categories", json={"name": f"Below {number}", "parent_id": category})
        post = {"title": f"Post {number}", "body": "# One\n\ntwo", "tag_ids": [tag], "category_id": category}
        post = ask("POST", "/posts", json=post).json().get("data", {}).get("id")
        if number % 2:
            ask("POST", f"/posts/{post}/publish", json={})
        ask("PUT", f"/posts/{post}", json={"body": f"changed {number}"})
        ask("PUT", f"/posts/{post}/autosave", json={"body": "not yet"})
        ask("POST", f"/posts/{post}/preview-links", json={})
        ask("POST", "/comments", json={"post_id": post, "text": "Well said."})
        user = {"email": f"user{number}@fuzz.example", "username": f"user{number}", "password": "a-long-password-77"}
        ask("POST", "/users", json=user | {"role": "editor"})
        ask("POST", "/roles", json={"name": f"role{number}", "permissions": ["posts.write"]})
        ask("POST", "/api-keys", json={"name": f"key {number}", "scopes": ["posts.write"]})
        ask("POST", "/redirects", json={"from": f"/old/{number}", "post_id": post})
        admin = {"email": f"head{number}@fuzz.example", "username": f"head{number}", "password": "a-long-password-77"}
        ask("POST", "/tenants", json={"name": f"Tenant {number}", "slug": f"tenant{number}", "admin": admin})
    ask("POST", "/exports")
    ask("POST", "/imports?format=csv&name=a.csv", data=b"title,body\nImported,text\n")


seed()
POOLS = Pools()


def in_path(path, name):
    """A value for the parameter of this path, if there is one that leads somewhere."""
    parts = path.strip("/").split("/")
    noun = "/".join(parts[2:parts.index("{" + name + "}")]) if path.startswith("/api/v1/") else parts[0]
    if noun.startswith("analytics/"):
        noun = "posts"
    if name == "version":
        return CHANCE.randint(1, 2)
    if name == "domain":
        return "localhost"
    if name == "part":
        return "posts-1.xml"
    if noun.startswith("posts/slug"):
        return POOLS.name("posts", "slug")
    if name == "name":
        return POOLS.name("users" if noun == "authors" else noun, "slug", "username", "name")
    return POOLS.name(noun, "id") if noun in LISTS else None


def link_of(post):
    links = ask("GET", f"/posts/{post}/preview-links").json().get("data") or [{}]
    return CHANCE.choice(links).get("id")


def fill(fields):
    """Ids in the place of those that were made up."""
    for key, value in list(fields.items()):
        noun = FIELDS.get(key)
        if noun and CHANCE.random() < 0.8:
            found = POOLS.name(noun, "id")
            if found:
                fields[key] = [found] if isinstance(value, list) else found


@schemathesis.hook
def before_call(context, case, kwargs):
    headers = case.headers or {}
    # A tenant or a version that was made up ends a request at once; some of them are enough.
    for name, kept in (("X-Tenant", 0.05), ("If-Match", 0.2), ("Idempotency-Key", 0.5), ("Last-Event-ID", 0.5)):
        if CHANCE.random() > kept:
            headers.pop(name, None)
    path = case.operation.path
    if case.path_parameters and CHANCE.random() < 0.85:
        for name in case.path_parameters:
            found = in_path(path, name)
            if found is not None:
                case.path_parameters[name] = found
        if "link" in case.path_parameters:
            case.path_parameters["link"] = link_of(case.path_parameters["id"]) or "none"
    # Ids that were seen in answers are tried too, in every form that is read as one.
    if case.method.upper() != "GET":
        for name, value in (case.path_parameters or {}).items():
            if any(spared and spared in str(value).lower() for spared in POOLS.spared):
                case.path_parameters[name] = "none"
    if isinstance(case.query, dict):
        fill(case.query)
    if isinstance(case.body, dict):
        fill(case.body)
