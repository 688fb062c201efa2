"""A folder of a guest's own in a shared store, between two machines and for one job.

Whoever put it there removes it, however the job ended; what is left all the same, `doit gc store=`
removes a day later.
"""

import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from pipeline.remote.place import Place
from pipeline.scratch import scratch_folder
from pipeline.shared.entry import MOST_STATEMENT, Part, new_upload
from pipeline.shared.parcel import pack, unpack, write_pieces
from pipeline.shared.sealed import seal, sealed_bytes, unseal

FOLDER = "sealed"
_INDEX = "index"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,150}")


class _Index(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    upload: str
    parts: list[Part]


def put_sealed(place: Place, name: str, folder: Path, key: bytes, scratch: Path) -> int:
    """Encrypt and upload all files below a folder; returns how many bytes went."""
    base, upload = _base(name), new_upload()
    parts: list[Part] = []
    with scratch_folder(scratch, "seal", mode=0o700) as room:
        packed, sealed = room / "packed", room / "sealed"
        for path in sorted(folder.rglob("*")):
            if path.is_dir():
                continue
            there = f"{base}/{upload}-{len(parts)}"
            parts.append(pack(folder.parent, path.relative_to(folder.parent).as_posix(), packed))
            seal(packed, sealed, key, there)
            place.put(sealed, there)
            packed.unlink()
            sealed.unlink()
        packed.write_text(_Index(upload=upload, parts=parts).model_dump_json())
        seal(packed, sealed, key, base)
        # what names them is last: whoever finds it finds all
        place.replace(f"{base}/{_INDEX}", sealed.read_bytes())
    return sum(part.packed_size for part in parts)


def take_sealed(place: Place, name: str, target: Path, key: bytes, scratch: Path) -> int:
    """Make the folder below `target`, under its own name; returns how many bytes came.

    FileNotFoundError where there are none, VerificationError for all that this key did not seal.
    """
    base = _base(name)
    where = f"{place.shown}/{base}"
    with scratch_folder(scratch, "unseal", mode=0o700) as room:
        packed, sealed = room / "packed", room / "sealed"
        sealed.write_bytes(place.read(f"{base}/{_INDEX}", limit=MOST_STATEMENT))
        unseal(sealed, packed, key, base)
        index = _Index.model_validate_json(packed.read_bytes())
        names = [f"{base}/{index.upload}-{number}" for number in range(len(index.parts))]
        for there, part in zip(names, index.parts, strict=True):
            packed.unlink()
            most = sealed_bytes(part.packed_size)
            write_pieces(place.pieces(there, most), sealed, most, f"{where}: {part.name}")
            unseal(sealed, packed, key, there)
            unpack(packed, target, part, where)
    return sum(part.packed_size for part in index.parts)


def remove_sealed(place: Place, name: str) -> None:
    """All of it, whether it was put there as a whole or not."""
    for file in place.list(_base(name)):
        place.remove(file.name)


def _base(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(name)
    return f"{FOLDER}/{name}"
