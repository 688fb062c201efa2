export DIB_GRUB_BIOS_MODULES=${DIB_GRUB_BIOS_MODULES:-biosdisk ext2 xfs btrfs search_fs_file normal configfile linux serial terminal echo test halt reboot ls cat}
