"""A guest's spec, as tests want one."""

from pipeline.spec import Spec


def make_spec(**keys: object) -> Spec:
    """web1, of bookworm, with these keys."""
    return Spec.model_validate({"name": "web1", "suite": "bookworm", **keys})
