# shellcheck shell=sh
# The functions that xen-tools' role scripts call, for a tree that is being built in a cage.
# Their names and arguments are those of xen-tools 4.9.2; $1 is the tree's path throughout.

logMessage() {
    if [ -n "${verbose:-}" ]; then echo "$*"; fi
}

# assert LINE TEST...: the text of the test is what is looked at, as ever
assert() {
    xt_line=$1
    shift
    if [ -z "$*" ]; then
        echo "assert failed: $0, line $xt_line" >&2
        exit 1
    fi
}

isDeb() { [ -x "$1/usr/bin/apt-get" ] && [ -x "$1/usr/bin/dpkg" ]; }

isYum() { [ -x "$1/usr/bin/yum" ]; }

# no service starts: the build's own policy-rc.d says so, and stays
xt_apt_get() {
    xt_tree=$1
    shift
    DEBIAN_FRONTEND=noninteractive chroot "$xt_tree" /usr/bin/apt-get --yes "$@"
}

installDebianPackageAndRecommends() {
    xt_prefix=$1
    shift
    logMessage "Installing Debian packages $* to prefix $xt_prefix"
    xt_apt_get "$xt_prefix" -o APT::Install-Recommends=true install "$@"
}

installDebianPackage() {
    xt_prefix=$1
    shift
    logMessage "Installing Debian packages $* to prefix $xt_prefix"
    xt_apt_get "$xt_prefix" -o APT::Install-Recommends=false install "$@"
}

removeDebianPackage() {
    xt_prefix=$1
    shift
    logMessage "Purging Debian package $* from prefix $xt_prefix"
    xt_apt_get "$xt_prefix" remove --purge "$@"
}

installRPMPackage() { chroot "$1" /usr/bin/yum -y install "$2"; }

installCentOS4Package() { installRPMPackage "$@"; }

installGentooPackage() { logMessage "no package of Gentoo is installed: $2"; }

installPackage() {
    if isDeb "$1"; then
        installDebianPackage "$@"
    elif isYum "$1"; then
        installRPMPackage "$@"
    else
        logMessage "Unable to install package $2; no package manager found"
    fi
}

disableStartStopDaemon() {
    for xt_starter in start-stop-daemon initctl; do
        xt_file=$1/sbin/$xt_starter
        if [ -e "$xt_file" ]; then
            mv "$xt_file" "$xt_file.REAL"
            printf '#!/bin/sh\necho "Warning: Fake %s called, doing nothing"\n' "$xt_starter" >"$xt_file"
            chmod 755 "$xt_file"
        fi
    done
}

enableStartStopDaemon() {
    for xt_starter in start-stop-daemon initctl; do
        if [ -e "$1/sbin/$xt_starter.REAL" ]; then mv "$1/sbin/$xt_starter.REAL" "$1/sbin/$xt_starter"; fi
    done
}

generateDebianGrubMenuLst() {
    logMessage "no menu.lst is written into $1: how the guest boots is its spec's affair"
}
