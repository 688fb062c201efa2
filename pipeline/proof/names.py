"""The files of a proof: beside the artifact, and where the guest is asked from."""

FOLDER = "proof"
PROOF = "proof.json"
CONSOLE = "console.log"
SCREENSHOT = "screenshot.png"
# 2: digests are seals (kind, digest, size, mtime_ns), by name below the artifact folder
FORM = 2
# in the test host, or in the namespace of a proof on a real dom0: sockets, leases, saved guest
ROOM = "/run/domu-proof"
# in memory there: the private key
SECRET = f"{ROOM}/secret"
HANDED = f"{ROOM}/handover"
