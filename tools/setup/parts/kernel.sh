# shellcheck shell=bash disable=SC2034,SC2154
# The guest kernel: Debian's, unpacked. Sourced by tools/setup/assets.
#
# A box boots the uncompressed ELF image through PVH, which saves the guest the
# decompression; so it is taken out of the packaged bzImage here. The modules
# that a box needs are decompressed and listed in the order to load them.

kernel_recipe=1 # raise it when an older directory must be made again
kernel_minimum=6.12
kernel_about="the guest kernel"

# Flavours, best first: "cloud" is smaller and boots faster.
kernel_flavours=(linux-image-cloud-amd64 linux-image-amd64)

# Must be built in.
kernel_builtin=(64BIT PVH ACPI INET DEVTMPFS TMPFS PROC_FS SYSFS BINFMT_ELF BINFMT_SCRIPT
    NAMESPACES USER_NS PID_NS NET_NS UTS_NS IPC_NS CGROUPS MEMCG CGROUP_PIDS SECCOMP_FILTER
    VIRTIO_CONSOLE)

# May be built in or a module; "OPTION MODULE". A module's dependencies are
# added by themselves.
kernel_features=(
    "VIRTIO_MMIO virtio_mmio"
    "VIRTIO_BLK virtio_blk"
    "VIRTIO_NET virtio_net"
    "HW_RANDOM_VIRTIO virtio_rng"
    "CRYPTO_CRC32C crc32c_generic"
    "EXT4_FS ext4"
    "OVERLAY_FS overlay"
    "FUSE_FS fuse"
    "UNIX unix"
    "PACKET af_packet"
)

# make_kernel WORK OUT: leaves OUT/kernel.
make_kernel() {
    local work=$1 out=$2 kernel=$2/kernel flavour image tree release feature option module missing why=""
    for flavour in "${kernel_flavours[@]}"; do
        private_apt_need "$flavour" "$kernel_minimum" linux linux-signed-amd64
        image=$(apt-cache depends "$flavour" |
            awk '!n && $1 == "Depends:" && $2 ~ /^linux-image-/ { print $2; n++ }')
        if [[ -z $image ]]; then
            why+="$flavour names no kernel package; "
            continue
        fi
        tree=$work/$flavour
        private_apt_fetch_alone "$tree.debs" "$image"
        unpack_packages "$tree.debs" "$tree"
        release=$(find "$tree/boot" -name 'vmlinuz-*' -printf '%f\n' -quit)
        release=${release#vmlinuz-}
        missing=$(kernel_missing "$tree/boot/config-$release")
        if [[ -z $missing ]]; then
            break
        fi
        why+="$image lacks$missing; "
        release=
    done
    if [[ -z ${release:-} ]]; then
        die "found no usable guest kernel" "${why%; }" "use Debian 12 or 13"
    fi

    mkdir -p "$kernel/modules"
    install -m 0644 "$tree/boot/config-$release" "$kernel/config"
    printf '%s\n' "$release" >"$kernel/version"
    # shellcheck disable=SC2016
    dpkg-deb -W --showformat='${Package} ${Version}\n' "$tree.debs"/*.deb >"$kernel/package"
    extract_vmlinux "$tree/boot/vmlinuz-$release" "$kernel/vmlinux" "$work"

    : >"$kernel/modules.list"
    for feature in "${kernel_features[@]}"; do
        read -r option module <<<"$feature"
        if grep -qx "CONFIG_$option=m" "$kernel/config"; then
            add_module "$module" "$tree" "$kernel"
        fi
    done
}

# kernel_missing CONFIG: the options that this configuration lacks, each with a
# space before it.
kernel_missing() {
    local option feature
    for option in "${kernel_builtin[@]}"; do
        grep -qx "CONFIG_$option=y" "$1" || printf ' %s' "$option"
    done
    for feature in "${kernel_features[@]}"; do
        grep -qx "CONFIG_${feature%% *}=[ym]" "$1" || printf ' %s' "${feature%% *}"
    done
}

# add_module NAME TREE KERNEL: decompresses a module and, before it, those that
# it depends on, and appends them to the load order. The dependencies are the
# module's own record of them: the packages ship no modules.dep.
add_module() {
    local name=${1//-/_} tree=$2 kernel=$3 file target dependency
    local -a dependencies
    # In file names "-" and "_" stand for each other.
    file=$(find "$tree" -path '*/modules/*' -regextype posix-extended \
        -regex ".*/${name//_/[-_]}\.ko(\.(xz|zst|gz))?" -print -quit)
    if [[ -z $file ]]; then
        die "cannot find the kernel module $name" "the kernel package does not hold it" \
            "report this, with the contents of $kernel/version"
    fi
    target=$(basename "$file")
    target=${target%.ko*}.ko
    if grep -qxF "$target" "$kernel/modules.list"; then
        return
    fi
    case $file in
        *.xz) xz -dc "$file" ;;
        *.zst) zstd -qdc "$file" ;;
        *.gz) gzip -dc "$file" ;;
        *) cat "$file" ;;
    esac >"$kernel/modules/$target"
    IFS=, read -r -a dependencies < <(tr '\0' '\n' <"$kernel/modules/$target" | sed -n 's/^depends=//p;t')
    for dependency in "${dependencies[@]}"; do
        add_module "$dependency" "$tree" "$kernel"
    done
    printf '%s\n' "$target" >>"$kernel/modules.list"
}

# extract_vmlinux BZIMAGE OUT WORK: takes the kernel's ELF image out of a
# bzImage, by the setup header of the x86 boot protocol
# (Documentation/arch/x86/boot.rst): after the real-mode part, whose length in
# sectors is at 0x1f1, the payload lies at the offset held at 0x248 and has the
# length held at 0x24c. Its own first bytes tell how it is compressed, and
# except for gzip its last four tell the size it unpacks to.
extract_vmlinux() {
    local image=$1 out=$2 payload=$3/payload sectors start length magic size
    # The header has these fields since version 2.08 of the protocol.
    if [[ $(field "$image" 0x202 4 x) != 53726448 ]] || (($(field "$image" 0x206 2 u) < 0x208)); then
        die "cannot unpack the kernel" "$image is not a bzImage" "report this"
    fi
    sectors=$(field "$image" 0x1f1 1 u)
    start=$((((sectors == 0 ? 4 : sectors) + 1) * 512 + $(field "$image" 0x248 4 u)))
    length=$(field "$image" 0x24c 4 u)
    slice "$image" "$start" "$length" >"$payload"
    magic=$(od -An -v -tx1 -N6 "$payload" | tr -d ' \n')
    if [[ $magic != 1f8b* ]]; then
        size=$(field "$payload" $((length - 4)) 4 u)
        truncate -s $((length - 4)) "$payload"
    fi
    case $magic in
        28b52ffd*) zstd -qdc "$payload" ;;
        fd377a585a00) xz -dc --single-stream "$payload" ;;
        1f8b*) gzip -qdc "$payload" ;;
        425a68*) bzip2 -dc "$payload" ;;
        02214c18*) lz4 -dcq "$payload" ;;
        5d0000*) xz -dc --format=lzma "$payload" ;;
        *) die "cannot unpack the kernel" "its compression (magic $magic) is not known here" "report this" ;;
    esac >"$out" 2>>"$private_apt_log" ||
        die "cannot unpack the kernel" "$(tail -n 1 "$private_apt_log")" \
            "check the free disk space, then run this again"
    rm -f "$payload"
    if [[ -n ${size:-} && $(stat -c %s "$out") != "$size" ]] ||
        [[ $(od -An -tx1 -N4 "$out" | tr -d ' \n') != 7f454c46 ]]; then
        die "cannot unpack the kernel" "what came out of $image is not the ELF image that its header announces" "report this"
    fi
}

# field FILE OFFSET BYTES x|u: a little-endian number, in hex or decimal.
field() {
    od -An -v -j "$(($2))" -N "$3" -t "$4$3" --endian=little "$1" | tr -d ' \n'
}

# slice FILE START LENGTH
slice() {
    dd if="$1" bs=1M iflag=skip_bytes,count_bytes skip="$2" count="$3" status=none
}
