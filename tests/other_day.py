"""What a build must not depend on: another day, folder, time zone, language, host name, user."""

import subprocess
from pathlib import Path

from tests.workshop import Workshop

LATER_DAYS = 40  # the security archive's Release is valid for 7
_LATER_C = """\
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t id, struct timespec *now) {
    int status = syscall(SYS_clock_gettime, id, now);
    if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) now->tv_sec += %d;
    return status;
}
int gettimeofday(struct timeval *now, void *zone) {
    struct timespec exact;
    int status = clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return status;
}
time_t time(time_t *now) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (now) *now = exact.tv_sec;
    return exact.tv_sec;
}
"""
OTHERWISE = {"TZ": "Pacific/Auckland", "LANG": "de_DE.UTF-8", "LC_ALL": "tr_TR.UTF-8"}


def elsewhere(work: Path) -> list[str]:
    """The words before a command that run it on another day and host, without a network."""
    script = 'umask 077; hostname elsewhere; test "$(ls /sys/class/net)" = lo || exit 9; exec "$@"'
    script = f"mount -t sysfs sys /sys; {_another_day(work)}; {script}"
    return ["unshare", "--net", "--uts", "--mount", "sh", "-euc", script, "sh"]


def _another_day(work: Path) -> str:
    """Shell words after which every program of this mount namespace has another date.

    Through /etc, because the pipeline hands no variable of its caller down to its programs.
    (libfaketime wants /dev/shm, which the namespaces of a build have not.)
    """
    source, library = work / "later.c", work / "later.so"
    source.write_text(_LATER_C % (LATER_DAYS * 86400))
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source], check=True)
    upper, own = work / "etc", work / "etc.work"
    options = f"lowerdir=/etc,upperdir={upper},workdir={own}"
    return (
        f"mkdir {upper} {own}; mount -t overlay -o {options} overlay /etc; "
        f"echo {library} > /etc/ld.so.preload; date +%s > {work}/date"
    )


def keep_locked(workshop: Workshop, output: Path) -> None:
    """An output folder that holds what locks keep, and the identities; nothing that was built."""
    (output / "cache").mkdir(parents=True)
    for name in ("locked", "cache/debs", "identity"):
        subprocess.run(["cp", "-a", workshop.output / name, output / name], check=True)
