# Looks after what the machine needs; sourced by ./quickstart, ./test and .ci/run, not run by itself.
# shellcheck shell=bash

# Says what happens next, apart from what the programs say.
say() { printf '\n== %s\n' "$*"; }

# Ends with a sentence that says what to do.
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }

# Installs Debian packages. Root and CI just do it; anybody else is asked, because it takes root.
install_packages() {
    local packages=("$@") root=()
    if ! has apt-get; then
        die "please install what Debian calls: ${packages[*]}"
    fi
    if [ "$(id -u)" -ne 0 ]; then
        has sudo || die "please install as root: apt-get install ${packages[*]}"
        root=(sudo)
        if [ -z "${CI:-}" ]; then
            [ -t 0 ] || die "please install first: sudo apt-get install ${packages[*]}"
            read -r -p "Install ${packages[*]} with sudo apt-get? [y/N] " answer
            [[ "$answer" == [yY]* ]] || die "not without: ${packages[*]}"
        fi
    fi
    say "installing ${packages[*]} (apt-get)"
    "${root[@]}" apt-get update -q
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${packages[@]}"
}

# Says how to get a Rust toolchain, or goes on if there is one that can build this.
need_rust() {
    local wanted found
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    has cargo || die "no Rust toolchain found; see https://rustup.rs, then: rustup toolchain install $wanted"
    found=$(rustc --version | cut -d' ' -f2)
    if [ "$(printf '%s\n' "$wanted" "$found" | sort -V | head -n 1)" != "$wanted" ]; then
        die "Rust $found is too old; get $wanted or newer, for instance with: rustup update stable"
    fi
}

# A C compiler builds SQLite and the cryptography; python3 runs python steps.
need_tools() {
    local packages=()
    has cc || packages+=(gcc libc6-dev)
    has python3 || packages+=(python3)
    if [ "${#packages[@]}" -gt 0 ]; then
        install_packages "${packages[@]}"
    fi
}
