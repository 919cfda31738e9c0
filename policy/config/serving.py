"""The section `serving`: what every endpoint asks of its clients."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from policy.config.section import Count, Duration, Positive, Section

Pixels = Annotated[int, Field(ge=1, le=50_000_000)]  # model.serve decodes no more
Connections = Annotated[int, Field(ge=10, le=8_000)]  # each is an open file


class Serving(Section):
    """What every endpoint asks of its clients."""

    tokens: str = Field(
        description="file of the accepted bearer tokens; '': whoever reaches the port may ask"
    )
    rate_per_s: Count = Field(
        description="requests a second of each token's name, of all without tokens; more get "
        "429; 0: no limit"
    )
    request_bytes_max: Positive
    request_s_max: Duration = Field(
        description="for a client to send all of a request; slower ones get 408"
    )
    unfinished_bytes_max: Positive = Field(
        description="of all requests over 32 KB under way at an endpoint; more get 429"
    )
    connections_max: Connections = Field(
        description="of clients to an endpoint; more are closed at once"
    )
    picture_pixels_max: Pixels = Field(
        description="width times height of a picture; a larger one gets 400, undecoded"
    )
    request_pixels_max: Pixels = Field(description="of all pictures of a request together")
    sticky_header: str = Field(
        description="equal values of this header keep their version as weights grow; '': none"
    )

    def problems(self) -> Iterator[str]:
        if self.request_pixels_max < self.picture_pixels_max:
            yield (
                f"request_pixels_max (={self.request_pixels_max}) is less than "
                f"picture_pixels_max (={self.picture_pixels_max}): the largest picture would "
                "never get in"
            )
        if "://" in self.tokens or not (
            self.tokens.isprintable() and self.tokens == self.tokens.strip()
        ):
            yield f"tokens (={self.tokens!r}) must be a file on this machine, or ''"
        if self.unfinished_bytes_max < 2 * self.request_bytes_max:
            yield (
                f"unfinished_bytes_max (={self.unfinished_bytes_max}) is less than twice "
                f"request_bytes_max (={self.request_bytes_max}): Envoy's two threads have half "
                "of it each, so a largest request would never get in"
            )
