"""What is in inside/ runs in User-Mode Linux: one boot for all of it."""

import os

IN_UML = "DOMU_IN_UML"
collect_ignore = [] if os.environ.get(IN_UML) else ["inside"]
