"""A stand-in model server whose faults begin under traffic; see tests/local/answers.py.

More in `behaviour.json`: {"after": requests answered well first, "late_fails_every",
"wrong_every", "dies_every", "late_delay_s", "fails_once_there_is": file, "schema": a field,
"says": the body of every answer, "lives_s": until it dies by itself}.
"""

import os
import sys
import time
from pathlib import Path

from typing_extensions import override

from tests.local import answers


class Handler(answers.Handler):
    seen = 0

    @override
    def do_POST(self):
        told = self.behaviour
        type(self).seen += 1
        since = self.seen - told.get("after", 0)
        if not (since > 0 and self._fault(told, since)):
            super().do_POST()

    def _fault(self, told, since):
        """Whether the request was answered by a fault."""
        if _is(told, "dies_every", since):
            os._exit(3)
        flag = told.get("fails_once_there_is")
        if _is(told, "late_fails_every", since) or (flag and Path(flag).exists()):
            return self._told({"error": "told to fail"}, 500)
        if _is(told, "wrong_every", since):
            return self._told({"predictions": [{"answer": "nonsense"}]}, 200)
        if "says" in told:
            return self._told(told["says"], 200)
        if "schema" in told:
            return self._told({"error": f"the field {told['schema']!r} is missing"}, 400)
        time.sleep(told.get("late_delay_s", 0))
        return False

    def _told(self, body, status):
        self.rfile.read(int(self.headers["content-length"]))
        self.reply(status, body)
        return True


def _is(told, name, since):
    return name in told and since % told[name] == 0


class Server(answers.Server):
    @override
    def service_actions(self):
        if time.monotonic() - answers.STARTED > Handler.behaviour.get("lives_s", 1e9):
            os._exit(3)


if __name__ == "__main__":
    answers.Server = Server
    answers.Handler = Handler  # the base class's main serves by this name
    answers.main(Path(sys.argv[sys.argv.index("--release") + 1]))
