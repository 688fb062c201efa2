"""What Xen's toolstacks read: one domain model, its renderings and parsers, and the boot lint.

Everything here is pure: text and bytes in, text and findings out; no files, no processes.
`domain` is the model; `xl`, `xm` and `libvirt` each offer `render` and `parse`; `keys` says which
keys a toolstack would ignore; `bootability` judges facts that a caller read from a guest.
"""
