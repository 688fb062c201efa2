"""Before a proof: whether there is an artifact, whether it is the spec's, whether the key fits."""

from pathlib import Path
from typing import Any

from pipeline.artifact.record import describe_values, read_record
from pipeline.console.progress import print_line
from pipeline.errors import PipelineError, UsageError
from pipeline.files import Damaged, fingerprint, read_table
from pipeline.guest.host_keys import derive_public_key
from pipeline.guest.identity import authorized_lines
from pipeline.recipe import INDIFFERENT, Recipe
from pipeline.spec import Spec

AS_IS = "prove_as_is=yes"
_KEYS = "authorized_keys"


def choose_spec(recipe: Recipe, spec: Spec, *, as_is: bool) -> Spec:
    """The spec that the artifact is judged by: the given one, which it must be built from.

    With `as_is` it is the one that the artifact was built from. Raises UsageError when the artifact
    does not exist, or was built from another spec and nobody asked to prove it as it is.
    """
    folder = recipe.project.artifact(spec.name)
    if as_is:
        return read_built_spec(folder, spec.name)
    recorded = _read_spec(folder, spec.name)
    changes = find_changes(recorded, spec)
    if not _are_keys_the_same(folder, recorded, spec):
        changes.append(f"{_KEYS} changed")
    if changes:
        raise UsageError(
            f"{spec.name}: its artifact was built from another spec",
            details="\n".join(changes),
            hint=f"build it first, with the same words: doit build name={spec.name} ...  "
            f"or prove it as it was built: {AS_IS}",
        )
    _note_older_recipe(recipe, spec)
    return spec


def read_built_spec(folder: Path, name: str) -> Spec:
    """The spec that an artifact was built from, without secrets. Raises as choose_spec does."""
    return Spec.model_validate(_without_digests(_read_spec(folder, name)))


def find_changes(recorded: dict[str, Any], spec: Spec) -> list[str]:
    """Each key of the spec that is not as recorded; one that was not there then had its default."""
    now = spec.as_json()
    skipped = {_KEYS, *INDIFFERENT}
    before = {key: recorded.get(key, _default(key)) for key in now}
    return describe_values(
        {key: value for key, value in before.items() if key not in skipped},
        {key: value for key, value in now.items() if key not in skipped},
    )


def refuse_wrong_key(spec: Spec, key: bytes, path: Path) -> None:
    """Raise UsageError when nobody in the spec's authorized_keys has this private key."""
    own = read_public_half(key, path)
    lines = authorized_lines(spec)
    if any(own in line.split() for line in lines):
        return
    who = f"its {len(lines)} keys" if len(lines) > 1 else "its only key" if lines else "it has none"
    raise UsageError(
        f"prove_key={path}: this key does not open {spec.name} ({who}: {_KEYS} in the spec)",
        hint=f"name the private half of one of them, build the guest with {_KEYS}={path}.pub, or"
        " leave prove_key out: then the proof makes a key of its own",
    )


def read_public_half(key: bytes, path: Path) -> str:
    """The public key in base64, as a line of authorized_keys has it; raises UsageError."""
    hint = "name a private key without a passphrase: ssh-keygen -t ed25519 -N '' -f KEY"
    if key.startswith((b"ssh-", b"ecdsa-", b"sk-")):
        raise UsageError(f"prove_key={path} is a public key", hint="name the file beside it")
    try:
        return derive_public_key(key).split()[1].decode()
    except TypeError as error:
        raise UsageError(f"prove_key={path} has a passphrase", hint=hint) from error
    except ValueError as error:
        raise UsageError(f"prove_key={path} is no private SSH key", hint=hint) from error


def _read_spec(folder: Path, name: str) -> dict[str, Any]:
    try:
        return read_table(folder / "spec.json", "a spec")
    except FileNotFoundError as error:
        raise UsageError(
            f"{name}: there is no artifact to prove", hint=f"build it first: doit build name={name}"
        ) from error
    except Damaged as error:
        error.hint = f"build it again: doit build name={name}"
        raise


def _without_digests(recorded: dict[str, Any]) -> dict[str, Any]:
    """The recorded keys that are known today; of a password only that there is one.

    Left out is what was not given: the empty text that stands for it is no value of its own.
    """
    known = {
        key: value
        for key, value in recorded.items()
        if key in Spec.model_fields and value != _default(key)
    }
    if known.pop("root_password_hash", ""):
        known["root_password_file"] = "-"
    return known


def _default(key: str) -> Any:
    default = Spec.model_fields[key].default
    return list(default) if isinstance(default, tuple) else default


def _are_keys_the_same(folder: Path, recorded: dict[str, Any], spec: Spec) -> bool:
    """Whether the same keys may enter, whatever files they come from."""
    volume = read_record(folder).get("volume")
    if volume is None:
        return bool(recorded.get(_KEYS) == spec.as_json()[_KEYS])
    return bool(volume.inputs.get(_KEYS) == fingerprint(authorized_lines(spec)))


def _note_older_recipe(recipe: Recipe, spec: Spec) -> None:
    """One line when a build would give something else today, although the spec is the same."""
    try:
        late = next((name for name in recipe.stages if not recipe.state(name, spec).is_current), "")
    except PipelineError:
        return  # this host knows no mirror for it, for instance: it does not build
    if late:
        print_line(
            f"  note: {spec.name} is proven as it was built; today {late} would differ:"
            f" doit why name={spec.name}"
        )


def find_password_file(spec: Spec, guests: Path) -> Path | None:
    """The file with root's password that the spec names, if it names one."""
    return guests / spec.root_password_file if spec.root_password_file not in ("", "-") else None
