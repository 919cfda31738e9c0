"""Run Prefect's own command without the integrations that are installed beside it.

    python -m deployments.local.stack.lean server start …

Its server and its worker import every installed integration at their start. Nothing on one
machine uses them, and the one for Google Cloud alone costs each of the two 200 MB and seconds
of processor time. Flows run in processes of their own, which import what they ask for.

What they write for a while lies in ARR_COC_TEMPORARY: Prefect's worker makes its folders
below a fixed name in the machine's, where whoever comes first could lock it out. The flows
that it starts know nothing of that.

Neither they nor the flows connect to the server's port while another user listens there, who
would be told the login: see listener.py.

The server's pages also load nothing from anywhere else, and tell nobody else anything: the
browser keeps the login for them.
"""

import importlib.metadata
import os
import runpy
import tempfile
from functools import partial
from importlib.metadata import EntryPoints
from pathlib import Path
from typing import Any

import uvicorn

from deployments.local.stack.listener import guard_login

_INTEGRATIONS = "prefect.collections"
_AT_START = Path(__file__).with_name("at_start")
# Prefect's newer pages report to an analytics service, whatever its settings say, and those of
# its API's documentation run scripts of a public network. Within this origin all is allowed.
_OWN_ORIGIN = "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'"
_HEADERS = [
    ("Content-Security-Policy",
     f"{_OWN_ORIGIN}; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
]  # fmt: skip


def main() -> None:
    every = importlib.metadata.entry_points

    def without_integrations(**wanted: Any) -> Any:
        found = every(**wanted)
        return found if wanted.get("group") != _INTEGRATIONS else EntryPoints()

    if folder := os.environ.pop("ARR_COC_TEMPORARY", ""):
        Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        tempfile.tempdir = folder
    guard_login()
    known = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_AT_START), known]))
    importlib.metadata.entry_points = without_integrations
    uvicorn.run = partial(uvicorn.run, headers=_HEADERS)
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
