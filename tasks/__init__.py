"""Steps: one retried, visible call each.

Tasks take and return small values (a config, a version, a record), never clients, tensors
or data frames. `retries` says what is tried again, `places` connects once per process. What
also works without Prefect (the controller in rollout/) does not import it.
"""
