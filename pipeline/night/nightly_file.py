"""nightly.toml, beside guests/: which guests a night makes, and on what terms."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
)

from pipeline.errors import UsageError, WrongValueError, show_value, suggest_nearest
from pipeline.spec import values
from pipeline.spec.table_file import read_table_file

EXAMPLE = 'guests = "all"\nstable_after = 3\nkeep = 7\nlimit = "6h"\n'


def _read_guests(value: object) -> object:
    """No names stand for all."""
    if value == "all":
        return ()
    if not isinstance(value, list) or not value:
        raise WrongValueError(
            f"{show_value(value)} is no list of guests", 'write "all", or ["web1", "db1"]'
        )
    return tuple(dict.fromkeys(value))


def _check_file(text: str) -> str:
    """A path that was made absolute, unless it begins with the home of nobody."""
    if not text.startswith("/"):
        raise WrongValueError(f"{text!r} is no path here", 'write it as "/root/secrets/keys"')
    return os.path.normpath(values.check_build_path(text))


NamedFile = Annotated[StrictStr, AfterValidator(_check_file)]
Count = Annotated[StrictInt, Field(ge=1, le=1000)]
Nights = Annotated[StrictInt, Field(ge=0, le=100)]
Bound = Annotated[str, BeforeValidator(values.check_bound)]
Words = Annotated[tuple[values.Text, ...], Field(min_length=1)]
Guests = Annotated[tuple[values.GuestName, ...], BeforeValidator(_read_guests)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Terms(_Table):
    """What may differ from guest to guest. docs/reference/nightly.md has each key."""

    stable_after: Nights = 3
    keep: Count = 7
    keep_size: Bound = "0"
    unproven: StrictBool = False
    prove_long: StrictBool = False

    @property
    def keep_bytes(self) -> int:
        """The bound in bytes, 0 for none."""
        return 0 if self.keep_size == "0" else values.parse_size(self.keep_size) << 20


class OwnTerms(_Table):
    """[guest.NAME]: what is otherwise for one guest."""

    stable_after: Nights | None = None
    keep: Count | None = None
    keep_size: Bound | None = None
    unproven: StrictBool | None = None
    prove_long: StrictBool | None = None


class NightlyFile(Terms):
    """The whole file; `folder` is where it is."""

    guests: Guests
    limit: values.Duration = "0"
    keep_reports: Annotated[StrictInt, Field(ge=31, le=10_000)] = 90
    notify: Words | None = None
    passphrase_file: NamedFile | None = None
    scan: NamedFile | None = None
    guest: dict[values.GuestName, OwnTerms] = {}

    @property
    def passphrase(self) -> Path | None:
        """The file with the passphrase of the keys that sign."""
        return Path(self.passphrase_file) if self.passphrase_file else None

    def terms_of(self, guest: str) -> Terms:
        """The file's terms with those that are the guest's own."""
        own = self.guest.get(guest, OwnTerms()).model_dump(exclude_none=True)
        general = {key: getattr(self, key) for key in Terms.model_fields}
        return Terms.model_validate({**general, **own})

    def choose(self, known: Sequence[str], only: Sequence[str] = ()) -> tuple[str, ...]:
        """The guests of a night in order: `only` these, where some are asked for.

        Raises UsageError for one of them that the file does not name.
        """
        named = self.guests or tuple(known)
        for name in only:
            if name not in named:
                near = suggest_nearest(name, named)
                raise UsageError(
                    f"{name} is none of the guests of nightly.toml",
                    hint=near or f"they are: {', '.join(named)}",
                )
        return tuple(name for name in named if not only or name in only)


def read_nightly_file(path: Path) -> NightlyFile:
    """The file; UsageError where there is none, SpecError with every mistake in it."""
    if not path.exists():
        raise UsageError(
            f"{path} is not there: it says which guests a night makes",
            details=EXAMPLE.rstrip(),
            hint="write it, as above for example (docs/reference/nightly.md)",
        )
    return read_table_file(
        path,
        NightlyFile,
        prepare=_with_folders,
        missing={"guests": 'write guests = "all", or guests = ["web1", "db1"]'},
    )


def _with_folders(table: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Paths are meant from where the file is."""
    for key in ("passphrase_file", "scan"):
        if isinstance(table.get(key), str) and table[key]:
            with suppress(RuntimeError):  # the home of nobody: then it is no absolute path
                table[key] = str(folder.absolute() / Path(table[key]).expanduser())
    words = table.get("notify")
    if isinstance(words, list) and words and "/" in str(words[0]):
        table["notify"] = [str(folder.absolute() / str(words[0])), *words[1:]]
    return table
