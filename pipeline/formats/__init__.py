"""Containers of disks that other systems take, written and read: XVA, VHD.

Writers stream the extents of a raw image and give the same bytes for the same input; readers take
strangers' files, so that their callers put them into a cage.
"""
