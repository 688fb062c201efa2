"""The image repository copied to real servers of s3 and sftp."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.remote.place import PlaceTrouble, open_place
from pipeline.repository.metadata import TIMESTAMP
from pipeline.repository.upload import upload
from tests.host.repository_bench import Site
from tests.host.store_servers import BUCKET, Server, make_bucket, s3_server, sftp_server
from tests.wire import LOCALHOST

pytestmark = pytest.mark.integration


@pytest.fixture(params=["s3", "sftp"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Server, str]]:
    if request.param == "s3":
        with s3_server(monkeypatch) as server:
            yield server, f"s3://{BUCKET}/images"
    else:
        with sftp_server(tmp_path, monkeypatch) as server:
            yield server, f"sftp://{LOCALHOST}:{server.port}{tmp_path}/www/images"


def test_a_repository_is_copied_whole_and_what_is_old_goes(
    tmp_path: Path, place: tuple[Server, str]
) -> None:
    server, url = place
    site = Site(tmp_path / "site")
    site.night("one")
    upload(site.project, url)
    require_same(site, url)
    site.night("two")
    site.sign()
    upload(site.project, url)
    require_same(site, url)
    assert upload(site.project, url) < 2000, "the same again is the timestamp alone"

    before = open_place(url).read(TIMESTAMP, limit=1 << 20)
    site.sign()
    server.kill()
    with pytest.raises(PlaceTrouble) as trouble:
        upload(site.project, url)
    assert "what is served there is the state before" in trouble.value.hint
    server.start()
    if url.startswith("s3"):
        make_bucket()  # moto keeps nothing
    else:
        assert open_place(url).read(TIMESTAMP, limit=1 << 20) == before
    upload(site.project, url)
    require_same(site, url)


def require_same(site: Site, url: str) -> None:
    """All files there, and no other."""
    there = open_place(url)
    own = {
        path.relative_to(site.served).as_posix(): path
        for path in site.served.rglob("*")
        if path.is_file()
    }
    assert {listed.name for listed in there.list("")} == own.keys()
    for name, path in own.items():
        assert b"".join(there.pieces(name, path.stat().st_size)) == path.read_bytes(), name
