export DISTRO_NAME=${DISTRO_NAME:-debian}
export DIB_RELEASE=${DIB_RELEASE:-}
export DIB_DOMU_BASE=${DIB_DOMU_BASE:-}
export DIB_DOMU_EXPORT=${DIB_DOMU_EXPORT:-}
# DIB's own word for it is sysv: dib-init-system refuses any other.
export DIB_INIT_SYSTEM=${DIB_INIT_SYSTEM:-systemd}
export DIB_INIT_SYSTEM=${DIB_INIT_SYSTEM/#sysvinit/sysv}
# DIB believes that Debian has Python 2.
export DIB_PYTHON_VERSION=${DIB_PYTHON_VERSION:-3}
