"""What a program is not told that has no business with it: keys and logins in the environment.

Programs of the model read pictures and data of strangers, and Envoy their requests. What they
are not told, they cannot give away.
"""

from collections.abc import Mapping

from deployments.releases.keys import VARIABLE as SIGNING_KEY

PREFECT_LOGIN = "PREFECT_API_AUTH_STRING"
PREFECT_SERVER_LOGIN = "PREFECT_SERVER_API_AUTH_STRING"


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without any of them."""
    others = without_logins(environment)
    others.pop(SIGNING_KEY, None)
    return others


def without_logins(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without what opens Prefect's server."""
    logins = (PREFECT_LOGIN, PREFECT_SERVER_LOGIN)
    return {name: value for name, value in environment.items() if name not in logins}
