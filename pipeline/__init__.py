"""The DomU image and appliance pipeline: from a short text file to a Xen guest known to boot."""
