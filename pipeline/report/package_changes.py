"""Which packages a guest has got, lost and upgraded, by the source that they were built from."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pipeline.mirror.versions import is_newer
from pipeline.report.disk_contents import Installed
from pipeline.report.night_model import PackageKind


@dataclass
class SourceChange:
    """The packages of one source, before and after; each list holds (before, after) pairs."""

    source: str
    upgraded: list[tuple[Installed, Installed]] = field(default_factory=list)
    added: list[Installed] = field(default_factory=list)
    removed: list[Installed] = field(default_factory=list)

    @property
    def packages(self) -> list[Installed]:
        """All of them, before and after."""
        return [*(one for pair in self.upgraded for one in pair), *self.added, *self.removed]

    @property
    def before(self) -> Installed | None:
        """What stood there, of one of its packages."""
        return self.upgraded[0][0] if self.upgraded else next(iter(self.removed), None)

    @property
    def after(self) -> Installed | None:
        """What stands there now, of the same package if there is one."""
        return self.upgraded[0][1] if self.upgraded else next(iter(self.added), None)

    @property
    def kind(self) -> PackageKind:
        """A kernel's new package with the old one gone is an upgrade of their source."""
        before, after = self.before, self.after
        if before is None or after is None:
            return "removed" if after is None else "added"
        if not self.upgraded and before.version == after.version:
            return "added"  # of a source that was there already: others of its packages
        if before.source_version == after.source_version:
            return "rebuilt"
        return "upgraded" if is_newer(after.version, before.version) else "downgraded"


def compare_packages(
    before: Mapping[str, Installed], after: Mapping[str, Installed]
) -> list[SourceChange]:
    """Every source whose packages are not the same, by name."""
    changes: dict[str, SourceChange] = {}
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        either = new or old
        if either is None or (old and new and old.version == new.version):
            continue
        change = changes.setdefault(either.source, SourceChange(either.source))
        if old and new:
            change.upgraded.append((old, new))
        elif new:
            change.added.append(new)
        elif old:
            change.removed.append(old)
    return [changes[source] for source in sorted(changes)]


def changed_names(changes: list[SourceChange]) -> Iterator[tuple[str, str]]:
    """Each package that is there now and was changed or added, and which of the two."""
    for change in changes:
        yield from ((new.name, "changed") for _, new in change.upgraded)
        yield from ((new.name, "added") for new in change.added)
