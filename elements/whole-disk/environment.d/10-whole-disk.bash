DIB_WHOLE_DISK_MODULES_DEFAULT="part_gpt fat ext2 xfs btrfs search_fs_file normal configfile linux echo test halt reboot ls cat"
export DIB_WHOLE_DISK_MODULES=${DIB_WHOLE_DISK_MODULES:-$DIB_WHOLE_DISK_MODULES_DEFAULT}
export DIB_WHOLE_DISK_LOADERS=${DIB_WHOLE_DISK_LOADERS:-grub-pc-bin grub-efi-amd64-bin}
