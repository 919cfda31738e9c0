"""The section `signing`: whose releases serve here."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from policy.config.section import Items, Section

_KEY_SOURCE = r"^(made-here|environment|secret/[a-z0-9-]+)$"
_PUBLIC_KEY = r"^-----BEGIN PUBLIC KEY-----\n"


class Signing(Section):
    """Whose releases serve here: only those that one of the trusted keys signed."""

    private_key: Annotated[str, Field(pattern=_KEY_SOURCE)] = Field(
        description="what signs new releases; made-here: made at first use below root; "
        "environment: PEM in ARR_COC_SIGNING_KEY; secret/NAME: PEM in a Prefect secret block"
    )
    trusted: Items[Annotated[str, Field(pattern=_PUBLIC_KEY)]] = Field(
        description="public keys in PEM, of today's signer and of those whose releases may "
        "still serve; a key made here is trusted without standing here"
    )

    def problems(self) -> Iterator[str]:
        if self.private_key != "made-here" and not self.trusted:
            yield (
                f"trusted is empty, but private_key (={self.private_key}) needs its public key "
                "there: no release that it signs could serve"
            )
