"""The stages, in order. Read this first.

    mirror ─┬─ base ───┬─ rootfs ── image ── volume ── config
            └─ kernel ─┘  (and kernel again for config: vmlinuz and initrd)

mirror to image are the golden half: shared by every guest with the same inputs, kept in the store,
without any identity or secret. volume and config are the guest half: one per guest.
"""

from pipeline.stage import Stage
from pipeline.stages import base, config, image, kernel, mirror, rootfs, volume

STAGES: tuple[Stage, ...] = (
    mirror.STAGE,
    base.STAGE,
    kernel.STAGE,
    rootfs.STAGE,
    image.STAGE,
    volume.STAGE,
    config.STAGE,
)
