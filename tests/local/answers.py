"""A model server that is all contract and no model: it answers the question itself.

The file `behaviour.json` of its release says how: {"answer", "fails_every": n-th request,
"refuses_every": the same with 429, "fails_on": text in a question that always fails,
"dies_on": text in one that ends it, "shows_headers": the answer is the headers that came,
"delay_s", "cold": [first requests, seconds that each of them takes longer], "exit",
"ready_after_s"}; like model.serve it refuses
a release whose MANIFEST does not hold.

    python -m tests.local.answers --release DIR
"""

import hashlib
import json
import os
import socket
import sys
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

STARTED = time.monotonic()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet
    behaviour: ClassVar[dict] = {}
    count = 0

    def do_GET(self):
        ready = time.monotonic() - STARTED >= self.behaviour.get("ready_after_s", 0)
        self.reply(200 if ready else 503, {})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        time.sleep(self.behaviour.get("delay_s", 0))
        type(self).count += 1
        cold, longer_s = self.behaviour.get("cold", (0, 0))
        time.sleep(longer_s if self.count <= cold else 0)
        every = self.behaviour.get("fails_every", 0)
        if every and self.count % every == 0:
            return self.reply(500, {"error": "told to fail"})
        every = self.behaviour.get("refuses_every", 0)
        if every and self.count % every == 0:
            return self.reply(429, {"error": "told that too many wait"})
        try:
            questions = [instance["question"] for instance in json.loads(body)["instances"]]
        except (ValueError, KeyError, TypeError) as error:
            return self.reply(400, {"error": repr(error)})
        fails_on = self.behaviour.get("fails_on")
        if fails_on and any(fails_on in question for question in questions):
            return self.reply(500, {"error": "told to fail on that question"})
        dies_on = self.behaviour.get("dies_on")
        if dies_on and any(dies_on in question for question in questions):
            os._exit(3)
        if self.behaviour.get("shows_headers"):
            return self.reply(
                200, {"predictions": [{k.lower(): v for k, v in self.headers.items()}]}
            )
        answer = self.behaviour.get("answer")
        predictions = [{"answer": answer or q, "confidence": 1.0} for q in questions]
        return self.reply(200, {"predictions": predictions})

    def reply(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.send_header("x-arr-version", os.environ["ARR_COC_VERSION"])
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format, *args):
        pass


class Server(ThreadingHTTPServer):
    address_family = socket.AF_UNIX
    request_queue_size = 128
    daemon_threads = True

    def server_bind(self):
        """On a path that is the owner's alone; a killed server's stays behind until now."""
        Path(self.server_address).unlink(missing_ok=True)
        before = os.umask(0o177)
        self.socket.bind(self.server_address)
        os.umask(before)


def main(release: Path) -> None:
    for line in (release / "MANIFEST").read_text().splitlines():
        digest, name = line.split("  ")
        if hashlib.sha256((release / name).read_bytes()).hexdigest() != digest:
            print(f"error: {name} is not what MANIFEST says", file=sys.stderr)
            sys.exit(2)
    Handler.behaviour = json.loads((release / "behaviour.json").read_text())
    if "exit" in Handler.behaviour:
        print(f"told to exit with {Handler.behaviour['exit']}", flush=True)
        sys.exit(Handler.behaviour["exit"])
    with suppress(OSError):  # what it says may not fit on a full disk
        print("serving", flush=True)
    Server(os.environ["ARR_COC_SOCKET"], Handler).serve_forever()


if __name__ == "__main__":
    main(Path(sys.argv[sys.argv.index("--release") + 1]))
