DIB_LEAN_BOOT_UNITS_DEFAULT="e2scrub_reap.service e2scrub_all.timer fstrim.timer man-db.timer getty-static.service
systemd-hwdb-update.service systemd-binfmt.service systemd-pstore.service dpkg-db-backup.timer"
export DIB_LEAN_BOOT_UNITS=${DIB_LEAN_BOOT_UNITS:-$DIB_LEAN_BOOT_UNITS_DEFAULT}
