"""The caching proxy that `doit mirror-proxy` runs: where it listens, what it fetches from.

`mirrors/proxy.toml` may say otherwise than the defaults below.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from pipeline.mirror.definition import check_valid_until, read_table

MANAGED = "proxy"
LOCALHOST = "127.0.0.1"
Engine = Literal["approx", "apt-cacher-ng"]


class ProxySettings(BaseModel):
    """The managed proxy's settings, each with its default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    proxy: Engine = "approx"
    port: Annotated[int, Field(ge=1, le=65535)] = 9999
    upstream: str = "host"
    valid_until: Annotated[str, BeforeValidator(check_valid_until)] = "check"

    @model_validator(mode="after")
    def _fit_engine(self) -> Self:
        if self.proxy == "apt-cacher-ng" and self.port > 32767:
            raise ValueError("apt-cacher-ng cannot listen on ports above 32767 (as of 3.7.4)")
        return self

    @property
    def address(self) -> str:
        """host:port."""
        return f"{LOCALHOST}:{self.port}"


def read_settings(mirrors: Path) -> ProxySettings:
    """The settings in mirrors/proxy.toml, or the defaults; raises SpecError with every mistake."""
    path = mirrors / f"{MANAGED}.toml"
    return read_table(path, ProxySettings) if path.is_file() else ProxySettings()
