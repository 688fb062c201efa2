"""The task graph: what exists. How a stage works: pipeline/stages/; which guests: guests/."""

from pipeline.graph import Graph, Tasks

GRAPH = Graph.load()
DOIT_CONFIG = GRAPH.config


def task_mirror() -> Tasks:
    """the mirror's signed state, verified"""
    yield from GRAPH.stage_tasks("mirror")


def task_base() -> Tasks:
    """minimal tree of a suite"""
    yield from GRAPH.stage_tasks("base")


def task_kernel() -> Tasks:
    """kernel, initrd and modules of one ABI"""
    yield from GRAPH.stage_tasks("kernel")


def task_rootfs() -> Tasks:
    """base tree plus the guest's elements"""
    yield from GRAPH.stage_tasks("rootfs")


def task_image() -> Tasks:
    """golden image, no identity in it"""
    yield from GRAPH.stage_tasks("image")


def task_volume() -> Tasks:
    """disks with the guest's identity"""
    yield from GRAPH.stage_tasks("volume")


def task_config() -> Tasks:
    """artifact folder, ready to boot"""
    yield from GRAPH.stage_tasks("config")


def task_commands() -> Tasks:
    """what is no stage: pipeline/commands/__init__.py"""
    yield from GRAPH.command_tasks()
