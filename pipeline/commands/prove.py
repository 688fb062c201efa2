"""Guests judged: their images read, themselves booted under real Xen."""

from pathlib import Path

from pipeline.check import check_guest
from pipeline.commands.options import Check, Login, Prove, ProveCfg
from pipeline.proof import prove as proofs
from pipeline.proof.readiness import find_password_file
from pipeline.proof.session import Asked
from pipeline.recipe import Recipe
from pipeline.spec import Spec


def check(recipe: Recipe, spec: Spec, options: Check) -> None:
    """Every check of the finished image; raises VerificationError when one fails."""
    check_guest(recipe, spec, as_json=options.json_form)


def prove(recipe: Recipe, spec: Spec, options: Prove) -> None:
    """Boot the artifact under real Xen; raises VerificationError when a check fails there."""
    password = find_password_file(spec, recipe.project.guests)
    asked = ask(options, password, with_xl=options.prove_with == "xl", as_is=options.prove_as_is)
    proofs.prove(recipe, spec, asked)


def prove_foreign(recipe: Recipe, _specs: object, options: ProveCfg) -> None:
    """Boot a guest that was not built here from its own configuration, and ask it."""
    proofs.prove_foreign(recipe, options.cfg, options.prove_xen, ask(options, None))


def ask(
    options: Login, password: Path | None, *, with_xl: bool = False, as_is: bool = False
) -> Asked:
    """What the options say about entering a guest and asking it."""
    return Asked(
        options.prove_key,
        thorough=options.prove_long,
        as_is=as_is,
        password=options.prove_password or password,
        with_xl=with_xl,
        as_json=options.json_form,
        netboot=options.prove_netboot,
    )
