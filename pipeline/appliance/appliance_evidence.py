"""The evidence of an appliance: one proof.json for all its guests, beside it their consoles."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.files import write_durably
from pipeline.project import Project
from pipeline.proof.artifact import Artifact
from pipeline.proof.evidence import Evidence
from pipeline.proof.seals import Seal

_OF_MEMBER = ("guest", "facts", "seconds", "injected")
_OF_PLACE = ("xen", "test host", "accelerator")


def appliance_folder(project: Project, name: str) -> Path:
    """What was made of an appliance as a whole; its proof is in proof/ there."""
    return project.output / "appliances" / name


@dataclass
class ApplianceEvidence(Evidence):
    """`members` by their keys; their checks are among its own, with the key before the name."""

    members: dict[str, Evidence] = field(default_factory=dict)

    def take_over(self) -> None:
        """The members' checks into its own, and the console of the first that failed."""
        for key, member in self.members.items():
            self.checks += [
                replace(check, subject=f"{key}: {check.subject}") for check in member.checks
            ]
            if member.failed and not self.console:
                self.console = member.console

    def to_json(self) -> dict[str, Any]:
        """As a guest's, with `members`: guest, facts, seconds and injected key of each."""
        table = super().to_json()
        members = {key: member.to_json() for key, member in self.members.items()}
        table["members"] = {
            key: {name: record[name] for name in _OF_MEMBER} for key, record in members.items()
        }
        return table

    def write(self, folder: Path) -> None:
        """proof.json, and console-KEY.log for each."""
        super().write(folder)
        for key, member in self.members.items():
            write_durably(folder / f"console-{key}.log", member.console.encode())

    def seal_members(self, folder: Path, artifacts: Mapping[str, Artifact]) -> dict[str, Seal]:
        """A seal on everything that boots, by its name as seen from `folder`; each has its own."""
        for key, artifact in artifacts.items():
            self.members[key].digests = artifact.digests()
        return {
            os.path.relpath(artifact.folder / name, folder): seal
            for key, artifact in artifacts.items()
            for name, seal in self.members[key].digests.items()
        }

    def write_members(self, artifacts: Mapping[str, Artifact]) -> None:
        """A proof beside each artifact, as of a guest alone: its verdict is that of the whole."""
        for key, artifact in artifacts.items():
            member = self.members[key]
            member.verdict, member.is_unchanged = self.verdict, self.is_unchanged
            member.reason = f"appliance {self.guest}: {self.reason}" if self.reason else ""
            member.facts |= {name: self.facts[name] for name in _OF_PLACE if name in self.facts}
            member.facts["member of"] = self.guest
            member.seconds["total"] = self.seconds["total"]
            member.write(artifact.evidence)
