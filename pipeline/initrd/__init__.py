"""The initial ramdisk of a direct-kernel guest: busybox, a few modules, one script."""
