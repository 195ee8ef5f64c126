# shellcheck shell=bash disable=SC2034,SC2154
# The VMM: QEMU with its libraries and firmware, as the small root file system
# that its jail sees as "/". Sourced by tools/setup/assets.
#
# The tree is put together from a list of what is needed (the programs, the
# closure of their shared libraries, six firmware files), not by deleting from
# what the packages hold: nothing gets into the jail by accident, and no
# maintainer script, password file or configuration is in it.

vmm_recipe=2 # raise it when an older tree must be made again
vmm_minimum=1:10.0
vmm_about="QEMU, its libraries and firmware"

# Loaded from outside the list of shared libraries: the C library opens it when
# a thread is cancelled.
vmm_extra_libraries=(libgcc_s.so.1)

# Firmware of `-M microvm`: the BIOS (with and without ACPI), the loaders for
# PVH and bzImage kernels, and the APIC helper. Paths below /usr/share.
vmm_firmware=(
    seabios/bios-microvm.bin
    qemu/qboot.rom
    qemu/pvh.bin
    qemu/linuxboot.bin
    qemu/linuxboot_dma.bin
    qemu/kvmvapic.bin
)

# Loading these first makes QEMU start 2-3 ms sooner (of 16 in the loader): most
# symbols are found in them, and the loader searches in the order of loading.
# For the full program only; the small one does not use most of them.
vmm_preload=(libc.so.6 libcrypto.so.3 libgnutls.so.30 libgio-2.0.so.0 libglib-2.0.so.0
    libgobject-2.0.so.0 libnettle.so.8)

# Where the jail mounts things.
vmm_mount_points=(proc dev tmp template box disk run)

# make_vmm WORK OUT: leaves OUT/vmm, OUT/vmm.version, OUT/vmm.packages and
# OUT/vmm.preload, a value for LD_PRELOAD.
make_vmm() {
    local work=$1 out=$2 tree=$1/vmm-tree debs=$1/vmm-debs root=$2/vmm
    local triplet=x86_64-linux-gnu library file program package=qemu-system-x86 preload=""

    private_apt_need "$package" "$vmm_minimum" qemu seabios
    private_apt_fetch "$debs" "$package"
    unpack_packages "$debs" "$tree"

    # Merged /usr and all libraries in one directory, the first that the loader
    # tries: so it starts as fast without an ld.so.cache as with one (measured).
    mkdir -p "$root/usr/bin" "$root/usr/lib/$triplet" "$root/usr/lib64" "$root/usr/share" "$root/etc"
    ln -s usr/lib "$root/lib"
    ln -s usr/lib64 "$root/lib64"
    ln -s usr/bin "$root/bin"
    (cd "$root" && mkdir -p "${vmm_mount_points[@]}")

    # qemu-system-x86_64-microvm is Debian's small build: KVM only, a few
    # libraries, starts several times faster. Not every release has it.
    for program in qemu-system-x86_64 qemu-system-x86_64-microvm; do
        if [[ -f $tree/usr/bin/$program ]]; then
            install -m 0755 "$tree/usr/bin/$program" "$root/usr/bin/$program"
            vmm_libraries "$tree" "$tree/usr/bin/$program"
        fi
    done >"$work/vmm-libraries"
    for library in "${vmm_extra_libraries[@]}"; do
        find "$tree/lib/$triplet" "$tree/usr/lib/$triplet" -maxdepth 1 -name "$library" 2>/dev/null || true
    done >>"$work/vmm-libraries"
    while read -r library; do
        install -m 0644 "$library" "$root/usr/lib/$triplet/${library##*/}"
    done < <(sort -u "$work/vmm-libraries")

    # The loader itself, under the name that programs ask for and beside the C library.
    file=$(find "$tree" -name ld-linux-x86-64.so.2 -type f -print -quit)
    file=${file:-$(find "$tree" -path "*/$triplet/ld-linux-x86-64.so.2" -print -quit)}
    install -m 0755 "$file" "$root/usr/lib64/ld-linux-x86-64.so.2"
    rm -f "$root/usr/lib/$triplet/ld-linux-x86-64.so.2"

    for file in "${vmm_firmware[@]}"; do
        if [[ -f $tree/usr/share/$file ]]; then
            install -D -m 0644 "$tree/usr/share/$file" "$root/usr/share/$file"
        fi
    done
    mkdir -p "$root/usr/share/qemu" "$root/usr/share/seabios"
    if [[ ! -f $root/usr/share/seabios/bios-microvm.bin ]]; then
        die "cannot make the VMM's root" "the packages hold no firmware for the microvm machine" \
            "report this, with the output of: apt-cache policy qemu-system-x86 seabios"
    fi

    for library in "${vmm_preload[@]}"; do
        if [[ -f $root/usr/lib/$triplet/$library ]]; then
            preload+=${preload:+:}$library
        fi
    done
    printf '%s\n' "$preload" >"$out/vmm.preload"
    dpkg-deb -f "$debs/${package}_"*.deb Version >"$out/vmm.version"
    describe_packages "$debs" >"$out/vmm.packages"
}

# vmm_libraries TREE PROGRAM: the files of all shared libraries of PROGRAM,
# found by the tree's own loader inside the tree.
vmm_libraries() {
    local tree=$1 program=$2 path loader listing
    path=$tree/usr/lib/x86_64-linux-gnu:$tree/lib/x86_64-linux-gnu:$tree/usr/lib:$tree/lib
    loader=$(find "$tree" -name 'ld-linux-x86-64.so.2' -print -quit)
    if ! listing=$(env -i "$(readlink -f "$loader")" --inhibit-cache --library-path "$path" --list "$program" 2>&1) ||
        [[ $listing == *"not found"* ]]; then
        die "cannot find the libraries of ${program##*/}" "$(grep -m 1 -E 'not found|error' <<<"$listing")" \
            "make sure that the assets directory is not on a file system mounted noexec"
    fi
    awk -v tree="$tree/" '$2 == "=>" && index($3, tree) == 1 { print $3 }' <<<"$listing"
}
