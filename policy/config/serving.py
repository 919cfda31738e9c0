"""The section `serving`: what every endpoint asks of its clients."""

from pydantic import Field

from policy.config.section import Count, Positive, Section


class Serving(Section):
    """What every endpoint asks of its clients."""

    tokens_required: bool = Field(
        description="/predict asks for one of the bearer tokens in ARR_COC_TOKENS"
    )
    rate_per_s: Count = Field(description="requests a second; more get 429; 0: no limit")
    request_bytes_max: Positive
    sticky_header: str = Field(
        description="equal values of this header keep their version as weights grow; '': none"
    )
