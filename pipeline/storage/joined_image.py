"""Several ext file systems read as the one tree that they are in the guest."""

from collections.abc import Mapping
from dataclasses import replace

from pipeline.storage.ext import ROOT, ExtImage, Inode
from pipeline.storage.root_place import Place

_ONE = 1 << 32  # an inode's number begins with that of its file system; the root's is 0


class JoinedImage(ExtImage):
    """The root file system, the others where they are mounted; raises DamagedImage where one's
    mount point is no folder."""

    def __init__(self, root: Place, others: Mapping[str, Place]) -> None:
        self._mounted: list[ExtImage] = []
        self._covered: dict[int, int] = {}
        super().__init__(root.disk, offset=root.offset)
        try:
            for mountpoint in sorted(others, key=lambda point: point.count("/")):
                self._mount(mountpoint, others[mountpoint])
        except BaseException:
            self.close()
            raise

    def _mount(self, mountpoint: str, place: Place) -> None:
        folder = self.find(mountpoint)
        if folder is None or folder.kind != "folder":
            raise self._damaged(f"no folder {mountpoint}, where a file system is mounted")
        image = ExtImage(place.disk, offset=place.offset)
        image.odd_names = self.odd_names
        self._mounted.append(image)
        self._covered[folder.number] = len(self._mounted) * _ONE + ROOT

    def close(self) -> None:
        """Let all of them go."""
        for image in self._mounted:
            image.close()
        super().close()

    def inode(self, number: int) -> Inode:
        """An inode by its number in the tree."""
        home, own = divmod(number, _ONE)
        if not home:
            return super().inode(own)
        return replace(self._mounted[home - 1].inode(own), number=number)

    def entries(self, folder: int) -> dict[str, int]:
        """A folder's, where what is mounted covers what is below."""
        home, own = divmod(folder, _ONE)
        inside = self._mounted[home - 1].entries(own) if home else super().entries(own)
        numbers = ((name, home * _ONE + number) for name, number in inside.items())
        return {name: self._covered.get(number, number) for name, number in numbers}

    def read(self, inode: Inode, *, limit: int) -> bytes:
        """As that of the file system that the inode is in."""
        home = inode.number // _ONE
        if home:
            return self._mounted[home - 1].read(inode, limit=limit)
        return super().read(inode, limit=limit)
