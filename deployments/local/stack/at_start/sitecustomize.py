"""What every Python runs at its start that finds this folder in PYTHONPATH.

The worker starts flows by commands of Prefect's own, two processes for each run, which send
the login before any code of ours is imported.
"""

import os

if os.environ.get("PREFECT_API_AUTH_STRING"):
    from deployments.local.stack.listener import guard_login

    guard_login()
