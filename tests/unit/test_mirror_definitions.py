"""mirrors/NAME.toml: every key, every mistake at once with file and key."""

import math
from pathlib import Path

import pytest

from pipeline.errors import SpecError, UsageError
from pipeline.mirror.definition import read_definition
from pipeline.mirror.mirrors import find_archives, sources_of
from pipeline.mirror.proxy.settings import ProxySettings, read_settings
from pipeline.spec import Spec
from tests.specs import make_spec

WHOLE = """
url = ["http://near:9999/debian", "http://far.example.org/debian"]
security_url = ["http://near:9999/debian-security", "http://sec.example.org/debian-security"]
suites = ["bookworm", "trixie"]
components = ["main", "contrib"]
backports = true
updates = false
keyring = "lab.gpg"
credentials = "lab.conf"
proxy = "http://gate:3128"
valid_until = "30d"
max_lag = "12h"
"""


def spec_of(**keys: object) -> Spec:
    return make_spec(**{"mirror": "lab", **keys})


def write(folder: Path, text: str) -> Path:
    for name, mode in (("lab.gpg", 0o644), ("lab.conf", 0o600)):
        (folder / name).touch()
        (folder / name).chmod(mode)
    path = folder / "lab.toml"
    path.write_text(text)
    return path


def problems_of(path: Path) -> list[str]:
    with pytest.raises(SpecError) as caught:
        read_definition(path)
    return [f"{one.source}: {one.subject}: {one.message}" for one in caught.value.problems]


def test_each_url_is_a_mirror_in_the_order_of_preference(tmp_path: Path) -> None:
    write(tmp_path, WHOLE)
    near, far = find_archives(spec_of(), tmp_path)
    assert (near.root, near.security_root) == (
        "http://near:9999/debian",
        "http://near:9999/debian-security",
    )
    assert far.security_root == "http://sec.example.org/debian-security"
    assert near.way.proxy == "http://gate:3128"
    assert near.way.credentials == str(tmp_path / "lab.conf")
    assert (near.terms.grace_s, near.terms.max_lag_s) == (30 * 86400, 12 * 3600)
    roles = [(source.role, source.suite) for source in sources_of(spec_of(), near)]
    assert roles == [
        ("main", "bookworm"),
        ("security", "bookworm-security"),
        ("backports", "bookworm-backports"),
    ]


def test_every_mistake_is_reported_at_once_with_file_and_key(tmp_path: Path) -> None:
    found = problems_of(
        write(
            tmp_path,
            'urll = "x"\nsuites = ["bokworm"]\nupdates = "yes"\nproxy = "gate"\n'
            'valid_until = "never"\nstate = "dead"\nkeyring = "gone.gpg"\n',
        )
    )
    keys = {line.split(": ")[1] for line in found}
    assert keys == {
        *("urll", "url", "suites", "updates", "proxy", "valid_until", "state", "keyring")
    }
    assert all(line.startswith(f"{tmp_path.name}/lab.toml: ") for line in found)


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ('url = "http://m/debian"\ncredentials = "lab.conf"\n', "credentials", "others can read"),
        (
            'url = ["http://a/d", "http://b/d", "http://c/d"]\nsecurity_url = ["http://a/s",'
            ' "http://b/s"]\n',
            "security_url",
            "2 addresses beside 3",
        ),
        ('url = "debian"\n', "url", "is not a URL"),
        ("url = []\n", "url", "at least 1"),
        ('url = "http://m/d"\nstate = "archived"\nvalid_until = "1d"\n', "valid_until", "never"),
    ],
    ids=["readable secret", "lists that do not fit", "no url", "empty", "archived"],
)
def test_what_cannot_be_is_refused(tmp_path: Path, text: str, key: str, message: str) -> None:
    path = write(tmp_path, text)
    (tmp_path / "lab.conf").chmod(0o644)
    found = problems_of(path)
    assert len(found) == 1 and f": {key}: " in found[0] and message in found[0], found


def test_a_password_in_any_url_is_refused_and_never_shown(tmp_path: Path) -> None:
    for key in ("url", "security_url", "updates_url", "backports_url", "proxy"):
        other = "" if key == "url" else 'url = "http://m/debian"\n'
        path = write(tmp_path, f'{other}{key} = "http://me:se3cret@m/debian"\n')
        found = problems_of(path)
        assert "user or password" in found[0] and "se3cret" not in found[0]


def test_a_suite_or_component_that_the_mirror_lacks_is_told_before_anything_is_fetched(
    tmp_path: Path,
) -> None:
    write(tmp_path, WHOLE)
    with pytest.raises(UsageError, match="suites: this mirror has no bullseye"):
        find_archives(spec_of(suite="bullseye"), tmp_path)
    with pytest.raises(UsageError, match="components: this mirror has no non-free"):
        find_archives(spec_of(components=("main", "non-free")), tmp_path)


def test_an_archived_mirror_and_an_archived_suite_forgive_the_same(tmp_path: Path) -> None:
    write(tmp_path, 'url = "http://m/debian"\nstate = "archived"\n')
    by_state = find_archives(spec_of(), tmp_path)[0].terms
    write(tmp_path, 'url = "http://m/debian"\n')
    by_suite = find_archives(spec_of(suite="buster"), tmp_path)[0].terms
    assert by_state == by_suite
    assert (by_state.is_archived, by_state.grace_s) == (True, math.inf)


def test_the_managed_proxy_listens_where_the_notes_have_it_unless_told_otherwise(
    tmp_path: Path,
) -> None:
    assert read_settings(tmp_path) == ProxySettings(proxy="approx", port=9999, upstream="host")
    spec = spec_of(mirror="proxy")
    assert find_archives(spec, tmp_path)[0].root == "http://127.0.0.1:9999/debian"
    (tmp_path / "proxy.toml").write_text('proxy = "apt-cacher-ng"\nport = 3142\n')
    assert read_settings(tmp_path).address == "127.0.0.1:3142"
    (tmp_path / "proxy.toml").write_text('proxy = "squid"\nport = 0\n')
    with pytest.raises(SpecError) as caught:
        read_settings(tmp_path)
    assert {one.subject for one in caught.value.problems} == {"proxy", "port"}
    (tmp_path / "proxy.toml").write_text('proxy = "apt-cacher-ng"\nport = 40000\n')
    with pytest.raises(SpecError, match="above 32767"):
        read_settings(tmp_path)
