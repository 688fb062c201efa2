"""What sshd would do with its configuration files: sshd_config(5), as far as who may enter."""

from pipeline.check.tree import Tree
from pipeline.guest.sshd_config import Setting, read_settings

# Keyword to the values that keep passwords and other keys out; the first is sshd's default.
KEYS_ONLY = {
    "passwordauthentication": ("yes", "no"),
    "kbdinteractiveauthentication": ("yes", "no"),
    "permitrootlogin": ("prohibit-password", "without-password", "forced-commands-only"),
    "permitemptypasswords": ("no",),
    "pubkeyauthentication": ("yes",),
    "hostbasedauthentication": ("no",),
    "gssapiauthentication": ("no",),
    "kerberosauthentication": ("no",),
    "authorizedkeysfile": (
        ".ssh/authorized_keys .ssh/authorized_keys2",
        ".ssh/authorized_keys",
        "%h/.ssh/authorized_keys",
    ),
    "authorizedkeyscommand": ("none",),
    "trustedusercakeys": ("none",),
}
_MUST_BE_NO = ("passwordauthentication", "kbdinteractiveauthentication")


def find_openings(tree: Tree, openssh: tuple[int, int]) -> list[str]:
    """`keyword value` for each setting by which somebody without a listed key could enter."""
    openings = []
    settings = list(read_settings(tree))
    values = _global_values(settings)
    if openssh < (7, 0):  # before, root might enter with a password unless it was forbidden
        values.setdefault("permitrootlogin", "yes")
    for keyword, sound in KEYS_ONLY.items():
        value = values.get(keyword, sound[0])
        if value.lower() not in sound or (keyword in _MUST_BE_NO and value.lower() != "no"):
            openings.append(f"{keyword} {value}")
    for condition, keyword, value in settings:
        if condition and keyword in KEYS_ONLY:
            openings.append(f"Match {condition}: {keyword} {value}")
    return openings


def _global_values(settings: list[Setting]) -> dict[str, str]:
    """Keyword to value outside Match blocks; the first one counts."""
    values: dict[str, str] = {}
    for condition, keyword, value in settings:
        if not condition:
            values.setdefault(keyword, value)
    return values
