"""The words for proofs under real Xen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.commands.command import Word
from pipeline.console.progress import leave_stdout
from pipeline.errors import UsageError
from pipeline.recipe import Recipe
from pipeline.spec import Spec

if TYPE_CHECKING:
    from pipeline.proof.session import Asked

# only these words pay for the imports of the proof
XEN = "4.17"
_ASKED = frozenset({"json", "prove_key", "prove_long", "prove_password"})


def prove(recipe: Recipe, spec: Spec) -> None:
    """Boot the artifact under real Xen; raises VerificationError when a check fails there."""
    from pipeline.proof.prove import prove

    prove(recipe, spec, _read_asked(recipe, spec))


def prove_foreign(recipe: Recipe, _specs: Mapping[str, Spec]) -> None:
    """Boot a guest that was not built here from its own configuration, and ask it."""
    from pipeline.proof.prove import prove_foreign

    text = recipe.options.get("cfg", "")
    if not text:
        raise UsageError("which configuration?", hint="doit prove-cfg cfg=/etc/xen/web1.cfg")
    xen = recipe.options.get("prove_xen", XEN)
    prove_foreign(recipe, Path(text).expanduser(), xen, _read_asked(recipe, None))


def _read_asked(recipe: Recipe, spec: Spec | None) -> Asked:
    from pipeline.proof.session import Asked

    options = recipe.options
    key, password = options.get("prove_key"), options.get("prove_password")
    if password is None and spec is not None and spec.root_password_file not in ("", "-"):
        password = str(recipe.project.guests / spec.root_password_file)
    as_json = options.get("json") == "yes"
    if as_json:
        leave_stdout()
    return Asked(
        Path(key).expanduser() if key else None,
        thorough=options.get("prove_long") == "yes",
        as_is=options.get("prove_as_is") == "yes",
        password=Path(password).expanduser() if password else None,
        with_xl=_is_with_xl(recipe),
        as_json=as_json,
    )


def _is_with_xl(recipe: Recipe) -> bool:
    tool = recipe.options.get("prove_with", "qemu")
    if tool not in ("qemu", "xl"):
        raise UsageError(
            f"prove_with={tool}: unknown", hint="write qemu (everywhere), or xl (on a dom0)"
        )
    return tool == "xl"


WORDS = (
    Word(
        "prove",
        "boot under real Xen, ask the guest",
        prove,
        options=_ASKED | {"prove_as_is", "prove_with"},
    ),
    Word(
        "prove-cfg",
        "boot a guest that was not built here: cfg=/etc/xen/web1.cfg",
        prove_foreign,
        options=_ASKED | {"cfg", "prove_xen"},
        is_single=True,
    ),
)
