"""The parts of dom0.toml, in the order in which their files are written and taken up."""

from pipeline.dom0.setup.boot_files import BOOT
from pipeline.dom0.setup.bridges import NETWORK
from pipeline.dom0.setup.host_file import Part
from pipeline.dom0.setup.lvm_files import LVM
from pipeline.dom0.setup.toolstack_files import TOOLSTACK

PARTS: tuple[Part, ...] = (BOOT, TOOLSTACK, LVM, NETWORK)
