"""Which failed step is tried again: what might pass is let out, because Prefect retries only
what raises; what will not pass (a refused gate, a broken chain) is never tried again.
"""

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from policy.errors import ArrCocError, EndpointSilent, StoreError


def transient(_task: Any, _run: Any, state: Any) -> bool:
    """Whether a failed call may pass when it is made again."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, StoreError | EndpointSilent) or not isinstance(error, ArrCocError)


remote = task(
    retries=3,
    retry_delay_seconds=[2, 5, 10],
    retry_jitter_factor=1,
    retry_condition_fn=transient,
    cache_policy=NO_CACHE,
)
patient = task(
    retries=60,
    retry_delay_seconds=10,
    retry_jitter_factor=0.5,
    retry_condition_fn=transient,
    cache_policy=NO_CACHE,
)
"""For steps that wait for what goes on without them: ten minutes without a store end none."""
once = task(cache_policy=NO_CACHE)
"""For steps whose own program already resumes and retries: another try would hide a fault."""
