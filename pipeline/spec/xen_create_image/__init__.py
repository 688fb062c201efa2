"""xen-create-image's dialect: its options and partition files as spec keys."""
