"""How to build, not what: no fingerprint depends on it."""

from pydantic import BaseModel, ConfigDict, Field, StrictBool


class NetworkOptions(BaseModel):
    """Whether a run may use the network."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    offline: StrictBool = Field(default=False, description="Without any network.")


class SourceOptions(NetworkOptions):
    """How packages are got, for a run."""

    locked: StrictBool = Field(
        default=False,
        description="From exactly the packages of the guest's lock (docs/how-to/store.md).",
    )


class BuildOptions(SourceOptions):
    """How to build, not what: no fingerprint depends on it."""

    replace: StrictBool = Field(
        default=False,
        description="Overwrite a disk that its guest has written to since it was built.",
    )
