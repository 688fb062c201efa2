"""The guest spec: what a guest is to be, read from guests/*.toml and the command line."""

from pipeline.spec.devices import GuestCard, derive_mac
from pipeline.spec.layers import is_key, known_variables, parse_overrides
from pipeline.spec.load import Specs, draft_spec, list_guests, load_all, load_guest
from pipeline.spec.model import SECRET_KEYS, Spec, values_of
from pipeline.spec.ssh_keys import read_authorized_keys
from pipeline.spec.xen_create_image.options import Translation, translate_options

__all__ = [
    "SECRET_KEYS",
    "GuestCard",
    "Spec",
    "Specs",
    "Translation",
    "derive_mac",
    "draft_spec",
    "is_key",
    "known_variables",
    "list_guests",
    "load_all",
    "load_guest",
    "parse_overrides",
    "read_authorized_keys",
    "translate_options",
    "values_of",
]
