"""What is said of a guest that was asked to shut down, by what the toolstack says of its end."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pipeline.dom0.layout import Layout
from pipeline.dom0.power import Guest, Host, shut_down
from pipeline.dom0.toolstack import Toolstack
from pipeline.errors import PipelineError
from pipeline.project import Project

HEAD = "Name  ID  Mem  VCPUs  State  Time(s)\nDomain-0  0  900  2  r-----  9.0\n"
BEFORE = "Domain 3 has shut down, reason code 1 0x1\nDone. Rebooting now\n"


@dataclass(frozen=True)
class OneGuest(Toolstack):
    """A host with web1, whose end is told in its log as xl does it."""

    layout: Layout = Layout()
    end: str = ""
    asked: list[str] = field(default_factory=list)

    def run(self, *words: object, env: Mapping[str, str] | None = None) -> str:
        if words[0] == "shutdown":
            self.asked.append(str(words[1]))
            if self.end:
                with self.layout.toolstack_log("web1").open("a") as log:
                    log.write(self.end)
        return HEAD if self.asked else f"{HEAD}web1  4  384  1  -b----  7.0\n"


def host_of(folder: Path, end: str) -> Host:
    layout = Layout(folder)
    layout.toolstack_log("web1").parent.mkdir(parents=True)
    if end:
        layout.toolstack_log("web1").write_text(BEFORE)
    project = Project(folder, folder / "output", folder / "guests")
    return Host(project, layout, OneGuest("xl", layout=layout, end=end), folder / "log")


WEB1 = Guest("web1", Path("/etc/xen/web1.cfg"), None)


@pytest.mark.parametrize("end", ["Action for shutdown reason code 0 is destroy\n", ""])
def test_a_guest_that_ends_is_shut_down(tmp_path: Path, end: str) -> None:
    assert shut_down(host_of(tmp_path, end), [WEB1], timeout_s=5) == ["web1"]


def test_a_guest_that_starts_again_is_not_shut_down(tmp_path: Path) -> None:
    host = host_of(tmp_path, "Action for shutdown reason code 1 is restart\nDone. Rebooting now\n")

    with pytest.raises(PipelineError, match=r"^web1 started again") as caught:
        shut_down(host, [WEB1], timeout_s=5)

    assert "doit shutdown name=web1" in caught.value.hint
