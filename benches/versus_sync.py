"""What `versus_sync.sh` does at the other sides: it fills a database with records of 2 KiB of text, has another one pull
them, and times that. Prints one JSON object a run.

    versus_sync.py pouch SOURCE_URL TARGET_URL RECORDS
    versus_sync.py kolibri-fill RECORDS
    versus_sync.py kolibri-pull SOURCE_URL RECORDS USER PASSWORD

The last two run by the Python that Kolibri is installed for, with KOLIBRI_HOME set.
"""

import json
import random
import sys
import time
import urllib.request
import uuid

TEXT_BYTES, GROUP = 2048, 500


def texts():
    """Words without end: made-up ones, so that they compress as written text does."""
    chance = random.Random(3)

    def syllable():
        return chance.choice("bcdfghjklmnprstvw") + chance.choice("aeiou")

    known = ["".join(syllable() for _ in range(chance.randint(1, 4))) for _ in range(4000)]
    while True:
        text = ""
        while len(text) < TEXT_BYTES:
            text += chance.choice(known) + " "
        yield text[:TEXT_BYTES]


def told(records, took_s, **more):
    print(json.dumps({"records": records, "took_s": round(took_s, 2), "per_second": round(records / took_s), **more}))


def ask(method, url, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=300) as answer:
        return json.load(answer)


def pouch(source, target, records):
    """The time of one answer of the target: it has pulled all documents."""
    text, database = texts(), f"versus{time.time_ns()}"
    ask("PUT", f"{source}/{database}")
    for first in range(0, records, GROUP):
        numbers = range(first, min(first + GROUP, records))
        docs = [{"_id": f"{n:08}", "title": f"Post {n}", "body": next(text)} for n in numbers]
        ask("POST", f"{source}/{database}/_bulk_docs", {"docs": docs})
    ask("PUT", f"{target}/{database}")
    begun = time.monotonic()
    ask("POST", f"{target}/_replicate", {"source": f"{source}/{database}", "target": database, "batch_size": GROUP})
    took_s = time.monotonic() - begun
    came = ask("GET", f"{target}/{database}")["doc_count"]
    if came != records:
        sys.exit(f"PouchDB pulled {came} documents of {records}")
    told(records, took_s)


def kolibri_fill(records):
    """Attempts at exercises, each with an answer of 2 KiB, as the one user has made them."""
    from django.utils import timezone
    from kolibri.core.auth.models import FacilityUser
    from kolibri.core.logger.models import AttemptLog, ContentSessionLog

    text, now, user = texts(), timezone.now(), FacilityUser.objects.get()
    content, channel = uuid.uuid4().hex, uuid.uuid4().hex
    session = ContentSessionLog.objects.create(
        user=user, content_id=content, channel_id=channel, start_timestamp=now, kind="exercise"
    )
    for first in range(0, records, GROUP):
        logs = []
        for n in range(first, min(first + GROUP, records)):
            answer = {"text": next(text)}
            log = AttemptLog(item=f"item {n}", start_timestamp=now, end_timestamp=now, correct=1, answer=answer)
            log.user, log.sessionlog, log.dataset_id = user, session, user.dataset_id
            log.id = log.calculate_uuid()
            logs.append(log)
        AttemptLog.objects.bulk_create(logs)


def kolibri_pull(source, records, username, password):
    """`kolibri manage sync` into an empty home. What counts is from the order to pull until the records are in the tables of
    the application; the start of the program, certificates and the account of the device are not in it. How much of it the
    client sleeps between requests is told apart."""
    from django.core.management import call_command
    from kolibri.core.logger.models import AttemptLog
    from morango.sync import controller
    from morango.sync.syncsession import PullClient

    stages, pauses = {}, []

    def pause(seconds):
        pauses.append(seconds)
        time.sleep(seconds)

    controller.sleep = pause

    def timed(name, stage):
        does = getattr(PullClient, name)

        def do(self, *args, **more):
            begun = time.monotonic()
            done = does(self, *args, **more)
            stages[stage] = time.monotonic() - begun
            return done

        setattr(PullClient, name, do)

    timed("initialize", "queue_s")
    timed("run", "transfer_s")
    timed("finalize", "dequeue_s")
    call_command("sync", baseurl=source, username=username, password=password, noninteractive=True, no_push=True)
    came = AttemptLog.objects.count()
    if came != records:
        sys.exit(f"Kolibri pulled {came} records of {records}")
    parts = {**stages, "of_it_paused_s": sum(pauses)}
    told(records, sum(stages.values()), **{part: round(part_s, 2) for part, part_s in parts.items()})


def main():
    what, *args = sys.argv[1:] or [""]
    if what == "pouch" and len(args) == 3:
        pouch(args[0], args[1], int(args[2]))
    elif what in ("kolibri-fill", "kolibri-pull"):
        from kolibri.main import initialize

        initialize()
        if what == "kolibri-fill":
            kolibri_fill(int(args[0]))
        else:
            kolibri_pull(args[0], int(args[1]), args[2], args[3])
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
