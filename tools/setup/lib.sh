# shellcheck shell=bash
# Messages shared by the set-up scripts. Sourced, never run.
#
# Everything that a person reads goes to stderr, so that a script's stdout
# stays free for its result.

quiet=${quiet:-}

# say TEXT...: one line of progress, unless --quiet.
say() {
    if [[ -z $quiet ]]; then
        printf '%s\n' "$*" >&2
    fi
}

# die WHAT [WHY [NEXT]]: what failed, why, and what to do next; then exit 1.
die() {
    printf 'error: %s\n' "$1" >&2
    if [[ -n ${2:-} ]]; then
        printf '  why:  %s\n' "$2" >&2
    fi
    if [[ -n ${3:-} ]]; then
        printf '  next: %s\n' "$3" >&2
    fi
    exit 1
}

# usage_of SCRIPT: prints the comment at the top of a script as its help text.
usage_of() {
    awk 'NR == 1 { next } /^#/ { sub(/^# ?/, ""); print; next } { exit }' "$1"
}

# need_commands PURPOSE COMMAND...: stops unless every command can be found.
need_commands() {
    local purpose=$1 command missing=()
    shift
    for command in "$@"; do
        command -v "$command" >/dev/null 2>&1 || missing+=("$command")
    done
    if ((${#missing[@]} > 0)); then
        # An installed caisson has its package's dependencies instead of the lists.
        # shellcheck disable=SC2154
        if [[ -x $here/packages ]]; then
            die "cannot $purpose" "these programs are missing: ${missing[*]}" "run tools/setup/packages --for run"
        fi
        die "cannot $purpose" "these programs are missing: ${missing[*]}" \
            "install the Debian packages that hold them (mmdebstrap, xz-utils, zstd)"
    fi
}
