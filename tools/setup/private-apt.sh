# shellcheck shell=bash
# An apt of our own, beside the machine's. Sourced by tools/setup/assets.
#
# It reads the machine's package sources (both one-line and deb822 files), keeps
# the entries of the Debian release that the machine runs, and holds lists,
# caches and an empty package database in a directory of its own. So packages
# can be downloaded and unpacked as data, without root, and neither the
# machine's apt state nor its installed packages are touched or consulted.
#
# Proxies and other Acquire settings, keyrings and mirror credentials are the
# machine's own; no mirror is written down here.

# codename of the running release, such as "bookworm".
host_codename() {
    # shellcheck disable=SC1091
    (. /etc/os-release && printf '%s\n' "${VERSION_CODENAME:-}")
}

# host_sources KEYDIR: prints the machine's binary sources, one suite a line:
#   deb [options] URI SUITE COMPONENT...
# A key that is embedded in a deb822 file is written to KEYDIR.
host_sources() {
    local keydir=$1 list parts file
    local -a files=()
    eval "$(apt-config shell list Dir::Etc::sourcelist/f parts Dir::Etc::sourceparts/d)"
    # shellcheck disable=SC2154
    for file in "$list" "${parts%/}"/*.list "${parts%/}"/*.sources; do
        if [[ -f $file && -r $file ]]; then
            files+=("$file")
        fi
    done
    if ((${#files[@]} == 0)); then
        return
    fi
    awk -v keydir="$keydir" '
        # One-line format.
        FILENAME ~ /\.list$/ {
            line = $0
            sub(/#.*/, "", line)
            if (line !~ /^[ \t]*deb[ \t]/) next
            sub(/^[ \t]*deb[ \t]+/, "", line)
            options = ""
            if (line ~ /^\[/) {
                options = line
                sub(/\].*/, "", options)
                sub(/^\[[ \t]*/, "", options)
                sub(/^[^]]*\][ \t]*/, "", line)
            }
            n = split(line, word, /[ \t]+/)
            components = ""
            for (i = 3; i <= n; i++) components = components " " word[i]
            emit(word[1], word[2], components, kept(options))
            next
        }
        # deb822 format: stanzas of fields, continuation lines start with a blank.
        FNR == 1 { flush() }
        /^#/ { next }
        /^[ \t]*$/ { flush(); next }
        /^[ \t]/ { field[name] = field[name] "\n" substr($0, 2); next }
        {
            name = tolower($0)
            sub(/[ \t]*:.*/, "", name)
            value = $0
            sub(/^[^:]*:[ \t]*/, "", value)
            field[name] = value
        }
        END { flush() }

        function flush(    types, signed, options, key, nu, ns, nl, uri, suite, lines, i, j) {
            types = " " field["types"] " "
            if (types ~ /[ \n]deb[ \n]/ && tolower(field["enabled"]) != "no") {
                options = ""
                signed = field["signed-by"]
                if (signed ~ /BEGIN PGP/) {
                    key = keydir "/embedded-" (++keys) ".asc"
                    nl = split(signed, lines, "\n")
                    for (i = 1; i <= nl; i++) {
                        if (lines[i] == "" && i == 1) continue
                        print (lines[i] == "." ? "" : lines[i]) > key
                    }
                    close(key)
                    signed = key
                }
                if (signed != "") { gsub(/[ \n]+/, ",", signed); options = "signed-by=" signed }
                if (tolower(field["trusted"]) == "yes") options = options " trusted=yes"
                nu = split(field["uris"], uri, /[ \n]+/)
                ns = split(field["suites"], suite, /[ \n]+/)
                gsub(/\n/, " ", field["components"])
                for (i = 1; i <= nu; i++)
                    for (j = 1; j <= ns; j++)
                        emit(uri[i], suite[j], " " field["components"], options)
            }
            delete field
            name = ""
        }
        # Only options that say how a source is trusted are carried over.
        function kept(options,    n, word, i, out) {
            n = split(options, word, /[ \t]+/)
            for (i = 1; i <= n; i++)
                if (word[i] ~ /^(signed-by|trusted)=/) out = out " " word[i]
            return out
        }
        function emit(uri, suite, components, options) {
            sub(/^ /, "", options)
            if (uri == "" || suite == "" || seen[uri, suite]++) return
            print "deb" (options == "" ? "" : " [" options "]"), uri, suite components
        }
    ' "${files[@]}"
}

# private_apt_init DIR LOG: makes the private apt in DIR and reads the package
# lists. Afterwards APT_CONFIG points every apt program at it.
private_apt_init() {
    local dir=$1 codename suites
    private_apt_dir=$dir
    private_apt_log=$2
    codename=$(host_codename)
    if [[ -z $codename ]]; then
        die "cannot tell which Debian release this machine runs" \
            "/etc/os-release has no VERSION_CODENAME" "use Debian 12 or 13"
    fi
    mkdir -p "$dir/state/lists/partial" "$dir/cache/archives/partial" "$dir/etc/apt.conf.d" \
        "$dir/etc/preferences.d" "$dir/keys" "$dir/log"
    : >"$dir/status"
    # A proxy's address may hold a password that only root can read. (What an
    # ordinary user can read, mmdebstrap must read as another one.)
    if ((EUID == 0)); then
        install -m 0600 /dev/null "$dir/apt.conf"
        install -m 0600 /dev/null "$dir/etc/acquire.conf"
    fi
    # How to reach the mirrors is the machine's business: proxies, time-outs and
    # date checks carry over. Hooks and package selections do not.
    apt-config dump |
        grep -E '^Acquire::' |
        grep -vE '^Acquire::(IndexTargets|Languages|CompressionTypes|Changelogs|GzipIndexes)' \
            >"$dir/etc/acquire.conf" || true
    # Suites of this release; "stable" and the like are also its names.
    suites="$codename|stable|oldstable|oldoldstable|testing|unstable|sid"
    host_sources "$dir/keys" |
        grep -E " ($suites)(-updates|-security|-backports|/updates)? .*\bmain\b" \
            >"$dir/sources.list" || true
    if ! grep -qE " ($suites) " "$dir/sources.list"; then
        die "found no package source for Debian $codename" \
            "neither /etc/apt/sources.list nor /etc/apt/sources.list.d has an enabled one with component main" \
            "add the release's source there (see sources.list(5)) and run this again"
    fi
    cat "$dir/etc/acquire.conf" - >"$dir/apt.conf" <<EOF
Acquire::Languages "none";
Acquire::Retries "3";
APT::Install-Recommends "false";
APT::Install-Suggests "false";
APT::Sandbox::User "";
Debug::NoLocking "true";
Dir::State "$dir/state";
Dir::State::status "$dir/status";
Dir::Cache "$dir/cache";
Dir::Log "$dir/log";
Dir::Etc::sourcelist "$dir/sources.list";
Dir::Etc::sourceparts "$dir/etc/none";
Dir::Etc::main "$dir/etc/none";
Dir::Etc::parts "$dir/etc/apt.conf.d";
Dir::Etc::preferences "$dir/etc/none";
Dir::Etc::preferencesparts "$dir/etc/preferences.d";
EOF
    export APT_CONFIG="$dir/apt.conf"
    private_apt_update
}

private_apt_update() {
    if ! apt-get -q update --error-on=any >>"$private_apt_log" 2>&1; then
        die "cannot read the package lists of this machine's Debian mirrors" \
            "$(grep -m 1 -E '^(E|W):' "$private_apt_log")" \
            "check the network, the proxy settings and /etc/apt/sources.list*, then run this again"
    fi
}

# private_apt_enable_backports: adds CODENAME-backports, on the mirror and with
# the keyring of the machine's own source for CODENAME.
private_apt_enable_backports() {
    local codename line mirror
    codename=$(host_codename)
    if grep -q " $codename-backports " "$private_apt_dir/sources.list"; then
        return
    fi
    # Among several sources of that name (third parties use it too) only the one
    # that signs itself as Debian has backports.
    # shellcheck disable=SC2016
    mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(ORIGIN) $(LABEL)' \
        'Created-By: Packages' | awk -v c="$codename" '!n && $2 == c && $3 == "Debian" && $4 == "Debian" { print $1; n++ }')
    line=$(awk -v m="${mirror%/}" '{ for (i = 2; i <= NF; i++) if ($i == m || $i == m "/") { print; exit } }' \
        "$private_apt_dir/sources.list")
    if [[ -z $mirror || -z $line ]]; then
        die "found no Debian mirror for $codename-backports" \
            "none of this machine's package sources says that it is Debian's $codename" \
            "add Debian's own archive to /etc/apt/sources.list.d and run this again"
    fi
    awk -v m="${mirror%/}" -v suite="$codename-backports" '{
        for (i = 2; i <= NF; i++)
            if ($i == m || $i == m "/") { $(i + 1) = suite; NF = i + 1; print $0, "main"; exit }
    }' <<<"$line" >>"$private_apt_dir/sources.list"
    private_apt_update
}

# candidate PACKAGE: the version that apt would take, or nothing.
candidate() {
    apt-cache policy "$1" | awk '$1 == "Candidate:" && $2 != "(none)" { print $2 }'
}

# private_apt_need PACKAGE MINIMUM SOURCE...: makes sure that PACKAGE is to be
# had in at least version MINIMUM. If the release is too old, everything that is
# built from the source packages SOURCE is taken from its backports.
private_apt_need() {
    local package=$1 minimum=$2 version
    shift 2
    version=$(candidate "$package")
    if [[ -n $version ]] && dpkg --compare-versions "$version" ge "$minimum"; then
        return
    fi
    private_apt_enable_backports
    printf 'Package: %s\nPin: release n=%s\nPin-Priority: 990\n' \
        "${*/#/src:}" "$(host_codename)-backports" >"$private_apt_dir/etc/preferences.d/$package.pref"
    version=$(candidate "$package")
    if [[ -z $version ]] || dpkg --compare-versions "$version" lt "$minimum"; then
        die "this Debian release has no $package in version $minimum or newer" \
            "its archive and backports offer ${version:-none}" "use Debian 12 or 13"
    fi
}

# private_apt_fetch DIR PACKAGE...: downloads the packages and everything that
# they depend on into DIR, as if nothing were installed.
private_apt_fetch() {
    local dir=$1
    shift
    mkdir -p "$dir/partial"
    if ! apt-get -qy -o Dir::Cache::archives="$dir" --download-only install "$@" \
        >>"$private_apt_log" 2>&1; then
        die "cannot download $*" "$(grep -E '^E:' "$private_apt_log" | tail -n 1)" \
            "check the network and the free disk space, then run this again"
    fi
}

# private_apt_fetch_alone DIR PACKAGE...: the same without dependencies.
private_apt_fetch_alone() {
    local dir=$1
    shift
    mkdir -p "$dir"
    if ! (cd "$dir" && apt-get -q download "$@") >>"$private_apt_log" 2>&1; then
        die "cannot download $*" "$(grep -E '^E:' "$private_apt_log" | tail -n 1)" \
            "check the network and the free disk space, then run this again"
    fi
}

# unpack_packages FROM TO: unpacks every package file in FROM below TO.
unpack_packages() {
    local file
    mkdir -p "$2"
    for file in "$1"/*.deb; do
        dpkg-deb -x "$file" "$2" 2>>"$private_apt_log" ||
            die "cannot unpack ${file##*/}" "$(tail -n 1 "$private_apt_log")" \
                "check the free disk space, then run this again"
    done
}

# describe_packages DIR: "name version" of every package file in DIR, sorted.
describe_packages() {
    local file
    for file in "$1"/*.deb; do
        # shellcheck disable=SC2016
        dpkg-deb -W --showformat='${Package} ${Version}\n' "$file"
    done | sort
}
