"""The section `notifications`: who is told of a rollout."""

from typing import Annotated

from pydantic import Field

from policy.config.section import Items, Section


class Notifications(Section):
    """Who is told of a rollout that starts, waits for approval, is promoted or rolled back."""

    blocks: Items[Annotated[str, Field(pattern=r"^[a-z0-9-]+/[a-z0-9-]+$")]] = Field(
        description="Prefect notification blocks, as slack-webhook/ops; none: nobody"
    )
