"""The task graph: what exists. How a stage works: pipeline/stages/; which guests: guests/."""

from pipeline import commands
from pipeline.graph import Graph

GRAPH = Graph.load()
DOIT_CONFIG = GRAPH.config


def task_mirror():
    """the mirror's signed state, verified"""
    yield from GRAPH.stage_tasks("mirror")


def task_base():
    """minimal tree of a suite"""
    yield from GRAPH.stage_tasks("base")


def task_kernel():
    """kernel, initrd and modules of one ABI"""
    yield from GRAPH.stage_tasks("kernel")


def task_rootfs():
    """base tree plus the guest's elements"""
    yield from GRAPH.stage_tasks("rootfs")


def task_image():
    """golden image, no identity in it"""
    yield from GRAPH.stage_tasks("image")


def task_volume():
    """disks with the guest's identity"""
    yield from GRAPH.stage_tasks("volume")


def task_config():
    """artifact folder, ready to boot"""
    yield from GRAPH.stage_tasks("config")


def task_building():
    """build guests, and ask about them"""
    yield from GRAPH.words(commands.build.WORDS)


def task_proving():
    """boot under real Xen"""
    yield from GRAPH.words(commands.prove.WORDS)


def task_living():
    """publish guests, install them on a Xen host, and their life there"""
    yield from GRAPH.words(commands.install.WORDS)


def task_keeping():
    """what is kept: the store, the package cache, locks"""
    yield from GRAPH.words(commands.store.WORDS)


def task_supplying():
    """mirrors, the caching proxy, releases"""
    yield from GRAPH.words(commands.mirrors.WORDS)
