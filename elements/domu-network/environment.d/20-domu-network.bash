case "${DIB_INIT_SYSTEM:-}" in
    systemd) export DIB_DOMU_NETWORK_TOOL=${DIB_DOMU_NETWORK_TOOL:-networkd} ;;
    *) export DIB_DOMU_NETWORK_TOOL=${DIB_DOMU_NETWORK_TOOL:-ifupdown} ;;
esac
