"""The texts that xl, xm and libvirt read of a guest.

Apart from domains.py because of Jinja2, which is loaded only where something is rendered.
"""

from collections.abc import Iterator

from pipeline.guest.domains import domain_of
from pipeline.project import Project
from pipeline.spec import Spec
from pipeline.spec.domain import without_ahci, xl_version, xm_version
from pipeline.xen.render import render_libvirt, render_xl, render_xm
from pipeline.xen.values import Unsupported


def render_all(spec: Spec, project: Project) -> Iterator[tuple[str, str]]:
    """The files and their texts: xl's always, xm's and libvirt's or why they cannot be."""
    domain = domain_of(spec, project)
    yield f"{spec.name}.cfg", render_xl(domain, xen=xl_version(spec))
    plain = without_ahci(domain)
    for suffix in ("xm", "xml"):
        name = f"{spec.name}.{suffix}"
        try:
            xm = suffix == "xm"
            yield name, render_xm(plain, xen=xm_version(spec)) if xm else render_libvirt(plain)
        except Unsupported as error:
            yield f"{name}.unsupported", f"{error}\n"
