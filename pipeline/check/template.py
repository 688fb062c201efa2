"""A template: nothing in it says which guest it is, and cloud-init will (A3, A4, A7, C6)."""

from collections.abc import Iterator

from pipeline.check.access import KEYS, check_sshd
from pipeline.check.facts import Facts, compare, judge
from pipeline.check.system import check_machine_id, check_names
from pipeline.errors import Finding

_PACKAGES = ("cloud-init", "cloud-guest-utils")
_NETWORKS = ("/etc/systemd/network/*.network", "/etc/netplan/*", "/etc/network/interfaces.d/*")


def check_identity(facts: Facts) -> Iterator[Finding]:
    """No name, machine id, key or address."""
    tree = facts.tree
    own = ["/etc/hostname", KEYS, *tree.glob("/etc/ssh/ssh_host_*")]
    faults = [path for path in own if tree.has(path)]
    yield judge("A3", "identity", faults, ok="none", hint="an element left it: remove it")
    seen = tree.text("/etc/machine-id").strip() if tree.has("/etc/machine-id") else "missing"
    yield compare("C6", "machine-id", expected="", seen=seen, hint="see the element domu")
    names = [line for line in tree.text("/etc/hosts").splitlines() if line.startswith("127.0.1.1")]
    yield judge("A4", "hosts", names, ok="localhost alone", hint="cloud-init adds its own name")
    networks = [path for pattern in _NETWORKS for path in tree.glob(pattern)]
    yield judge("A7", "network files", networks, ok="none", hint="cloud-init writes them")


def check_cloud_init(facts: Facts) -> Iterator[Finding]:
    """It is there, and starts whether it finds data or not."""
    tree = facts.tree
    installed = {line.partition(" ")[0] for line in facts.texts.get("manifest", "").splitlines()}
    hint = "the element cloud-init installs it"
    faults = [f"no package {name}" for name in _PACKAGES if name not in installed]
    if tree.has("/etc/cloud/cloud-init.disabled"):
        faults.append("/etc/cloud/cloud-init.disabled")
    if "notfound=enabled" not in tree.text("/etc/cloud/ds-identify.cfg"):
        faults.append("without data it would not run: /etc/cloud/ds-identify.cfg")
    yield judge("A4", "cloud-init", faults, ok="starts, with data and without", hint=hint)


IDENTITY = (check_names, check_machine_id)
CHECKS = (check_identity, check_cloud_init, check_sshd)
