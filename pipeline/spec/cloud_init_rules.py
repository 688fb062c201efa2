"""A template and its seed: what does not go together with them."""

from collections.abc import Iterator

from pipeline.errors import Finding
from pipeline.spec.cloud_init import SEED, SUITES
from pipeline.spec.model import Spec
from pipeline.spec.ssh_keys import find_keys

_KEYS = "ssh_authorized_keys"
# what a volume would say of one guest alone, and cloud-init does not
_IDENTITY = {
    "root_password_file": "a template has no password",
    "root_password_hash": "a template has no password",
    "hosts": "a template knows no hosts",
    "replicated": "the nodes of a replicated disk are no templates",
}


def check_cloud_init(spec: Spec) -> Iterator[Finding]:
    """Whether cloud-init is there, and what only a seed can tell the guest."""
    if not spec.cloud_init:
        for key in ("seed", "user_data"):
            if getattr(spec, key) not in (None, ""):
                yield _clash(key, "nothing reads it", "write cloud_init = true too", "cloud_init")
        return
    if spec.suite not in SUITES or spec.init != "systemd":
        hint = f"write suite = {', '.join(SUITES)}, with systemd"
        message = f"not in {spec.suite} with {spec.init}"
        yield _clash("cloud_init", message, hint, "suite", "init")
    if spec.adopted:
        hint = "leave it out: the tree is taken as it is"
        yield _clash("cloud_init", "an adopted tree is no template", hint, "adopted")
    for key, message in _IDENTITY.items():
        if getattr(spec, key):
            yield _clash(key, message, "write it into user_data", "cloud_init")
    yield from _check_seed(spec)


def _check_seed(spec: Spec) -> Iterator[Finding]:
    """Its two forms; what is given and no seed says."""
    if spec.seed is not None and spec.user_data:
        yield _clash("user_data", "there is a seed too", "keep one of the two", "seed")
    wants_seed = "write seed = {} too"
    if spec.authorized_keys and not spec.has_seed:
        hint = f"{wants_seed}, or authorized_keys = []"
        yield _clash("authorized_keys", "a template has no keys", hint, "cloud_init")
    if spec.authorized_keys and spec.user_data:
        hint = "write them there, and authorized_keys = [] here"
        message = "the keys are those of user_data"
        yield _clash("authorized_keys", message, hint, "user_data")
    if spec.seed is not None and spec.seed.users and spec.seed.ssh_authorized_keys:
        message = "the suite's own user is not made where there are users"
        yield _clash(f"seed.{_KEYS}", message, "give the keys to one of the users")
    if not spec.has_seed and any(card.addresses for card in spec.cards):
        yield _clash("address", "a template has no address", wants_seed, "cloud_init")
    if sum(part.name == SEED for part in spec.parts) > 1:
        yield _clash("seed", f"'{SEED}' is another disk's name", "name that one else")


def find_seed_problems(spec: Spec, *, source: str) -> list[Finding]:
    """A problem for each unsound SSH key in the seed."""
    problems = []
    if spec.seed is not None:
        listed = [(_KEYS, spec.seed.ssh_authorized_keys)]
        listed += [
            (f"users[{number}].{_KEYS}", user.ssh_authorized_keys)
            for number, user in enumerate(spec.seed.users)
        ]
        for key, entries in listed:
            subject = f"seed.{key}"
            problems += find_keys(entries, spec.suite_facts, source=source, key=subject)[1]
    return problems


def _clash(key: str, message: str, hint: str, *others: str) -> Finding:
    return Finding("error", key, message, hint, others=others)
