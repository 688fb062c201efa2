"""The files of a proof, beside the artifact."""

FOLDER = "proof"
PROOF = "proof.json"
CONSOLE = "console.log"
SCREENSHOT = "screenshot.png"
# 2: digests are seals (kind, digest, size, mtime_ns), by name below the artifact folder
FORM = 2
