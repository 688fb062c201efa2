DIB_LEAN_BOOT_UNITS_DEFAULT="e2scrub_reap.service e2scrub_all.timer fstrim.timer man-db.timer getty-static.service
systemd-hwdb-update.service systemd-binfmt.service systemd-pstore.service dpkg-db-backup.timer
modprobe@configfs.service modprobe@dm_mod.service modprobe@drm.service modprobe@fuse.service modprobe@loop.service
sys-fs-fuse-connections.mount sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount"
DIB_LEAN_BOOT_GENERATORS_DEFAULT="systemd-gpt-auto-generator systemd-hibernate-resume-generator
systemd-cryptsetup-generator systemd-veritysetup-generator systemd-integritysetup-generator systemd-bless-boot-generator"
export DIB_LEAN_BOOT_GENERATORS=${DIB_LEAN_BOOT_GENERATORS:-$DIB_LEAN_BOOT_GENERATORS_DEFAULT}
export DIB_LEAN_BOOT_UNITS=${DIB_LEAN_BOOT_UNITS:-$DIB_LEAN_BOOT_UNITS_DEFAULT}
DIB_LEAN_BOOT_SUBSYSTEMS_DEFAULT="block net xen pci input graphics drm sound rtc misc virtio usb"
export DIB_LEAN_BOOT_SUBSYSTEMS=${DIB_LEAN_BOOT_SUBSYSTEMS-$DIB_LEAN_BOOT_SUBSYSTEMS_DEFAULT}
export DIB_LEAN_BOOT_DEVICE_TIMEOUT=${DIB_LEAN_BOOT_DEVICE_TIMEOUT:-10min}
