"""What Xen's toolstacks read: one domain model, its renderings and parsers, and the boot lint.

Everything here is pure: text and bytes in, text and findings out; no files but the templates, which
are read where `render` is imported, no processes. `values` checks what a spec has too; `domain` is
the model; `xl`, `xm` and `libvirt` say what a configuration holds (`fields`) and `parse` one, and
`render` writes it; `keys` says which keys a toolstack would ignore; `compatibility` which guest,
kernel and loader go with which Xen; `bootability` judges facts that a caller read from a guest.
"""
