"""Run Prefect's own command without the integrations that are installed beside it.

    python -m deployments.local.stack.lean server start …

Its server and its worker import every installed integration at their start. Nothing on one
machine uses them, and the one for Google Cloud alone costs each of the two 200 MB and seconds
of processor time. Flows run in processes of their own, which import what they ask for.
"""

import importlib.metadata
import runpy
from importlib.metadata import EntryPoints
from typing import Any

_INTEGRATIONS = "prefect.collections"


def main() -> None:
    every = importlib.metadata.entry_points

    def without_integrations(**wanted: Any) -> Any:
        found = every(**wanted)
        return found if wanted.get("group") != _INTEGRATIONS else EntryPoints()

    importlib.metadata.entry_points = without_integrations
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
