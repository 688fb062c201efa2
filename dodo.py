"""The task graph: what exists. How a stage works: pipeline/stages/; which guests: guests/."""

from pipeline import words
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


def task_build():
    """build guests up to their artifact folder"""
    yield from GRAPH.word("build", words.say_built, after="config", doc="build the guest")


def task_create():
    """write guests/NAME.toml from key=value words, and build it"""
    yield from GRAPH.word("create", words.say_built, after="config", doc="write a spec, build it")


def task_why():
    """say why each stage would or would not run"""
    yield from GRAPH.word("why", words.explain, doc="say why each stage would run")


def task_check():
    """read the finished image and verify it, without mounting or booting"""
    yield from GRAPH.word("check", words.check, doc="verify the finished image")


def task_prove():
    """boot the artifact under real Xen and ask the guest"""
    yield from GRAPH.word("prove", words.prove, doc="boot under real Xen, ask the guest")


def task_guests():
    """list the guests and what to type next"""
    return GRAPH.single(words.list_guests, doc="list the guests and what to type next")


def task_test():
    """run the tests"""
    return GRAPH.single(words.run_tests, doc="run the tests")
