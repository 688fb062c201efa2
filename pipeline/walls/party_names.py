"""What a machine of a fleet is called: also the name of its files, and of a host."""

import re

PARTY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,62}")
