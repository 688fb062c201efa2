"""The files of a guest's seed, as cloud-init's NoCloud reads them (its documentation, NoCloud).

JSON is YAML: nothing here writes any other. The instance's id is made of the content, so that
cloud-init does its work again for a seed that says something else. The host keys are those that
the guest always has, so that whoever enters knows them: vendor-data, which user-data may overrule.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from pipeline.files import read_named_text
from pipeline.spec import GuestCard, Spec, read_authorized_keys
from pipeline.spec.cloud_init import NOTHING_SAID, UserKeys

CONFIG = "#cloud-config"
# cloud-init: user data formats
_FORMATS = (CONFIG, "#!", "#include", "#cloud-boothook", "## template: jinja", "Content-Type:")
_MOST_BYTES = 1 << 20


def read_user_data(spec: Spec) -> str:
    """What its seed says besides names and addresses: the file, or the table as cloud-config.

    Raises UsageError for a file that cloud-init would not know what to do with.
    """
    if not spec.user_data:
        return f"{CONFIG}\n{json.dumps(_as_config(spec), indent=1)}\n"
    path = Path(spec.user_data)
    text = read_named_text(path)
    if not text.startswith(_FORMATS):
        raise UsageError(
            f"{path}: line 1 does not say what it is",
            hint=f"begin it with {CONFIG}, or a script with #!/bin/sh",
        )
    if len(text.encode()) > _MOST_BYTES:
        raise UsageError(f"{path}: more than 1 MiB", hint="let it fetch what is large")
    return text


def seed_files(spec: Spec, user_data: str, host_keys: Mapping[str, bytes]) -> dict[str, bytes]:
    """Name to content of all files of the seed; `host_keys` are files below /etc/ssh."""
    keys = {_key_name(name): content.decode() for name, content in sorted(host_keys.items())}
    files = {
        "network-config": json.dumps(_as_network(spec), indent=1) + "\n",
        "user-data": user_data,
        "vendor-data": f"{CONFIG}\n{json.dumps({'ssh_keys': keys}, indent=1)}\n",
    }
    content = json.dumps([spec.fqdn, files])
    instance = f"{spec.name}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
    told = {"instance-id": instance, "local-hostname": spec.fqdn}
    files["meta-data"] = json.dumps(told, indent=1) + "\n"
    return {name: text.encode() for name, text in files.items()}


def _key_name(file: str) -> str:
    """ssh_host_ed25519_key.pub -> ed25519_public."""
    kind = file.removeprefix("ssh_host_").partition("_key")[0]
    return f"{kind}_{'public' if file.endswith('.pub') else 'private'}"


def _as_config(spec: Spec) -> dict[str, Any]:
    seed = spec.seed or NOTHING_SAID

    def lines(entries: Iterable[str]) -> list[str]:
        return list(read_authorized_keys(entries, spec.suite, source=spec.name))

    users: list[Any] = ["default"]
    if seed.users:
        users = [_as_user(user, lines(user.ssh_authorized_keys)) for user in seed.users]
    config: dict[str, Any] = {"users": users}
    if spec.authorized_keys:
        users.append({"name": "root", "ssh_authorized_keys": lines(spec.authorized_keys)})
        config["disable_root"] = False
    if seed.ssh_authorized_keys:
        config["ssh_authorized_keys"] = lines(seed.ssh_authorized_keys)
    if seed.packages:
        config |= {"package_update": True, "packages": list(seed.packages)}
    if seed.runcmd:
        config["runcmd"] = list(seed.runcmd)
    return config


def _as_user(user: UserKeys, keys: list[str]) -> dict[str, Any]:
    told = {
        "name": user.name,
        "ssh_authorized_keys": keys,
        "groups": list(user.groups),
        "sudo": user.sudo,
        "shell": user.shell,
    }
    return {key: value for key, value in told.items() if value}


def _as_network(spec: Spec) -> dict[str, Any]:
    """Version 2, each card by its MAC: what the guest calls it is its own affair."""
    cards = {f"eth{card.index}": _as_card(card, spec) for card in spec.cards}
    return {"version": 2, "ethernets": cards}


def _as_card(card: GuestCard, spec: Spec) -> dict[str, Any]:
    told: dict[str, Any] = {"match": {"macaddress": card.mac.lower()}}
    if card.dhcp:
        # asking for a name would start hostnamed at every boot
        told |= {"dhcp4": True, "dhcp6": True, "dhcp4-overrides": {"use-hostname": False}}
    if card.addresses:
        told["addresses"] = [str(address) for address in card.addresses]
    gateways = [("0.0.0.0/0", card.gateway), ("::/0", card.gateway6)]
    if routes := [{"to": to, "via": str(via)} for to, via in gateways if via]:
        told["routes"] = routes
    if card.nameservers:
        domain = spec.fqdn.partition(".")[2]
        search = {"search": [domain]} if domain else {}
        told["nameservers"] = {"addresses": list(card.nameservers), **search}
    if card.device.mtu:
        told["mtu"] = card.device.mtu
    return told
