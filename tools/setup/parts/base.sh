# shellcheck shell=bash disable=SC2034,SC2154
# The root file system of the image "caisson/base": a small Debian of the same
# release as this machine, with Python, curl and certificates.
# Sourced by tools/setup/assets.
#
# The same archive state gives the same bytes: every time stamp is at most the
# date of the newest package list.

base_recipe=1 # raise it when an older archive must be made again
base_about="the root file system of caisson/base"
base_packages=python3,ca-certificates,curl

# make_base WORK OUT: leaves OUT/base/rootfs.tar.
make_base() {
    local work=$1 out=$2 mode modes=(auto) log=$1/base.log
    need_commands "make the base image" mmdebstrap
    mkdir -p "$out/base" "$work/base-tmp"
    # mmdebstrap reads no apt configuration of the machine; hand it the sources
    # and the way to the mirrors. Backports are for the VMM, not for the image.
    grep -v -- '-backports ' "$private_apt_dir/sources.list" >"$work/caisson.list"
    SOURCE_DATE_EPOCH=$(newest_release_date)
    export SOURCE_DATE_EPOCH
    # Without root, fakechroot and fakeroot need nothing from the administrator;
    # user namespaces need subordinate ids in /etc/subuid.
    if ((EUID != 0)); then
        modes=(fakechroot unshare)
    fi
    for mode in "${modes[@]}"; do
        if build_base "$mode" "$work" "$out/base/rootfs.tar" >>"$log" 2>&1; then
            return
        fi
    done
    cat "$log" >>"$private_apt_log"
    if ((EUID != 0)); then
        die "cannot make the base image as an ordinary user" "$(grep -E '^E:' "$log" | tail -n 1)" \
            "install fakechroot and fakeroot, or let root run: $assets_program --only base ${assets_dir@Q}"
    fi
    die "cannot make the base image" "$(grep -E '^E:' "$log" | tail -n 1)" \
        "check the network and the free disk space, then run this again"
}

# build_base MODE WORK TAR
build_base() {
    local mode=$1 work=$2 tar=$3
    # In a user namespace root is another user, who must get at its files: that
    # mode keeps the system's own temporary directory.
    if [[ $mode != unshare ]]; then
        local -x TMPDIR=$work/base-tmp
    fi
    # The image keeps the rule that leaves documentation out; packages that are
    # added in a box follow it, as in other small images. What the machine told
    # us about itself (host name, resolver, proxy) goes.
    # shellcheck disable=SC2016
    env -u APT_CONFIG mmdebstrap --mode="$mode" --variant=minbase --include="$base_packages" \
        --skip=output/dev \
        --aptopt="$private_apt_dir/etc/acquire.conf" \
        --aptopt='Acquire::Languages "none"' \
        --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/info/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-include=/usr/share/locale/locale.alias' \
        --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        --dpkgopt='path-exclude=/usr/share/lintian/*' \
        --customize-hook='rm -f "$1/etc/apt/apt.conf.d/99mmdebstrap"' \
        --customize-hook='if [ -f "$1/etc/dpkg/dpkg.cfg.d/99mmdebstrap" ]; then mv "$1/etc/dpkg/dpkg.cfg.d/99mmdebstrap" "$1/etc/dpkg/dpkg.cfg.d/no-documentation"; fi' \
        --customize-hook='echo localhost >"$1/etc/hostname"; : >"$1/etc/resolv.conf"' \
        --customize-hook='printf "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" >"$1/etc/hosts"' \
        --customize-hook='rm -rf "$1"/var/log/*.log "$1"/var/log/apt/* "$1"/var/cache/debconf/*-old "$1"/var/lib/dpkg/*-old' \
        --format=tar "" "$tar" "$work/caisson.list"
}

# newest_release_date: seconds since 1970 of the newest package list read.
newest_release_date() {
    local file date newest=0
    for file in "$private_apt_dir"/state/lists/*Release; do
        if [[ $file == *-backports_* ]]; then
            continue
        fi
        date=$(date -d "$(sed -n 's/^Date: //p;T;q' "$file")" +%s)
        if ((date > newest)); then
            newest=$date
        fi
    done
    printf '%s\n' "$newest"
}
