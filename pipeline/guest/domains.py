"""The domain of a guest whose disks have their places."""

from pipeline.project import Project
from pipeline.spec import Spec
from pipeline.spec.domain import make_disk, make_domain
from pipeline.storage.disks import targets_of
from pipeline.xen.domain import Domain


def domain_of(spec: Spec, project: Project) -> Domain:
    """The domain of a guest of this project.

    Raises WrongValueError when the spec asks for what no domain can be.
    """
    disks = [
        make_disk(target.part, str(target.path), target.format)
        for target in targets_of(spec, project)
    ]
    return make_domain(spec, project.artifact(spec.name), disks)
