"""Guests judged: their images read, themselves booted under real Xen."""

from dataclasses import replace
from pathlib import Path

from pipeline.appliance.appliance_proof import prove_appliance
from pipeline.appliance.members import Appliance
from pipeline.check import check_guest
from pipeline.commands.options import Check, Login, Prove, ProveCfg
from pipeline.errors import UsageError
from pipeline.proof import prove as proofs
from pipeline.proof.readiness import find_password_file
from pipeline.proof.session import Asked
from pipeline.recipe import Recipe
from pipeline.spec import Spec
from pipeline.spec.domain import FIRMWARE_FILE
from pipeline.stages import firmware


def check(recipe: Recipe, spec: Spec, options: Check) -> None:
    """Every check of the finished image; raises VerificationError when one fails."""
    check_guest(recipe, spec, as_json=options.json_form)


def prove(recipe: Recipe, spec: Spec, options: Prove) -> None:
    """Boot the artifact under real Xen; raises VerificationError when a check fails there."""
    password = find_password_file(spec, recipe.project.guests)
    asked = ask(options, password, with_xl=options.prove_with == "xl", as_is=options.prove_as_is)

    def make_firmware(of: Spec) -> Path:
        return recipe.build_beside(firmware.STAGE, firmware.own_spec(of)) / FIRMWARE_FILE

    proofs.prove(recipe, spec, replace(asked, boots=options.boots), make_firmware)


def prove_whole(recipe: Recipe, appliance: Appliance, options: Prove) -> None:
    """Boot all members of an appliance in one test host, and see what must hold between them."""
    of_one = {
        "prove_with=xl": options.prove_with == "xl",
        "prove_long=yes": options.prove_long,
        "prove_netboot": options.prove_netboot is not None,
        "prove_password": options.prove_password is not None,
        "boots": options.boots != ("own",),
    }
    for words in (words for words, is_asked in of_one.items() if is_asked):
        raise UsageError(
            f"{words} is about one guest: {appliance.name} is an appliance",
            hint=f"leave it out, or name one: name={next(iter(appliance.members.values())).name}",
        )
    prove_appliance(recipe, appliance, ask(options, None, as_is=options.prove_as_is))


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
