"""What a spec does not want of its packages, by dpkg's own rules."""

import pytest

from pipeline.bootstrap.deb import Member
from pipeline.bootstrap.filters import PathFilter
from pipeline.spec import Spec
from pipeline.stages.base import filter_of
from tests.specs import make_spec


def entry(path: str, kind: str = "0") -> Member:
    return Member(path, kind, 0o644, 0, 0, 0, 0, 0, "")


def skipped(found: PathFilter, *paths: str) -> list[str]:
    return [path for path in paths if found.skips(entry(path))]


LEAN = PathFilter.wanted(documentation=False, locale="C.UTF-8")


def test_documentation_stays_out_and_copyright_comes() -> None:
    out = ["/usr/share/doc/bash/README.gz", "/usr/share/man/man1/bash.1.gz", "/usr/share/info/dir"]
    assert skipped(LEAN, *out) == out
    assert not skipped(LEAN, "/usr/share/doc/bash/copyright", "/usr/bin/man", "/usr/share/manual")


def test_folders_and_links_stay_where_a_copyright_may_be_below() -> None:
    assert not LEAN.skips(entry("/usr/share/doc/bash", "5"))
    assert not LEAN.skips(entry("/usr/share/doc/libudev1", "2"))
    assert LEAN.skips(entry("/usr/share/man/man1", "5"))
    assert not LEAN.skips(entry("/usr/share/man", "5"))


def test_messages_come_where_the_locale_names_a_language() -> None:
    messages = "/usr/share/locale/de/LC_MESSAGES/bash.mo"
    assert skipped(LEAN, messages) == [messages]
    assert not LEAN.skips(entry("/usr/share/locale/locale.alias"))
    assert not PathFilter.wanted(documentation=False, locale="de_DE.UTF-8").skips(entry(messages))


def test_a_spec_that_wants_all_gets_all_and_so_does_a_dpkg_without_filters() -> None:
    assert filter_of(make_spec(documentation=True)).rules == ()
    old = {"name": "a", "suite": "lenny", "security": False}
    assert filter_of(Spec.model_validate(old)).rules == ()


@pytest.mark.parametrize("pattern", ["/a/*", "/a/[bc]*", "/a/b?/c"])
def test_the_last_rule_that_matches_counts(pattern: str) -> None:
    found = PathFilter((("exclude", "/a/*"), ("include", pattern), ("exclude", "/a/bz/c")))
    assert found.skips(entry("/a/bz/c"))
    assert not found.skips(entry("/a/bx/c"))
