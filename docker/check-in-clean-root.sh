#!/usr/bin/env bash
# The steps of an image without a container engine: in a clean root of the Debian that the image starts from.
#
#   sudo docker/check-in-clean-root.sh [--image cpu|cuda] [--build-arg NAME=VALUE ...] [COMMAND ...]
#
# Every RUN, COPY, ARG, ENV, WORKDIR and USER of docker/IMAGE.Dockerfile is taken as it stands there; then the image's
# user runs `splatsweep COMMAND` in it, or else what shows that command line, compiled kernels and datasets work.  The
# CUDA image compiles its rasterisers without a GPU, but draws with them only on one.
# It needs root, debootstrap, some 10 GB below TMPDIR (25 GB for cuda), and a network; the folder is removed at the end.
#
# pip and git find what they fetch as they do outside: PIP_* and GIT_CONFIG_* variables and /etc/pip.conf are handed on.
# BIND lists folders that they name, if there are any: BIND="/opt/wheels /opt/mirror".
set -euo pipefail

repository=$(cd "$(dirname "$0")/.." && pwd)
all=("$@")
image=cpu
declare -A given=()
while [[ ${1-} = --* ]]; do
    case $1 in
        --image) image=$2 ;;
        --build-arg) given[${2%%=*}]=${2#*=} ;;
        *) echo "$1: an option that this script does not know" >&2 && exit 2 ;;
    esac
    shift 2
done
dockerfile=$repository/docker/$image.Dockerfile
[ -f "$dockerfile" ] || { echo "--image $image: there is no $dockerfile" >&2; exit 2; }

if [ -z "${INSIDE_NAMESPACES-}" ]; then
    [ "$(id -u)" = 0 ] || { echo "run it as root: it makes a file system of its own" >&2; exit 2; }
    command -v debootstrap > /dev/null || { echo "debootstrap is missing: apt-get install debootstrap" >&2; exit 2; }
    # What is mounted and started below vanishes with its namespaces, however this ends.
    folder=$(mktemp --directory --tmpdir splatsweep-root-XXXXXX)
    trap 'rm -rf --one-file-system "$folder" "$folder.log"' EXIT
    INSIDE_NAMESPACES=$folder unshare --mount --pid --fork --kill-child "$0" "${all[@]}"
    exit
fi
root=$INSIDE_NAMESPACES

step() { printf '\n[%4d s] %s\n' "$SECONDS" "$*"; }

instructions() { # One a line, without comments.
    sed '/^[[:space:]]*#/d' "$dockerfile" | sed -e ':join' -e '/\\$/{N;s/\\\n[[:space:]]*/ /;b join' -e '}'
}

from() { # python:3.11-slim-bookworm -> that Debian with its own Python, which has to be the same.
    [[ $1 =~ ^python:([0-9.]+)-slim-([a-z]+)$ ]] || { echo "FROM $1: expected python:VERSION-slim-SUITE" >&2; exit 2; }
    local python=python${BASH_REMATCH[1]} suite=${BASH_REMATCH[2]}
    debootstrap --variant=minbase "$suite" "$root" > "$root.log" 2>&1 || { tail "$root.log" >&2; exit 2; }
    rm "$root.log"
    chmod 755 "$root"
    cp /etc/resolv.conf /etc/hosts "$root/etc/"
    mount -t proc none "$root/proc"
    mount --rbind /dev "$root/dev"
    inside apt-get install --yes --quiet=2 --no-install-recommends ca-certificates "$python-dev" "$python-venv"
    inside "$python" -m venv /usr/local
    cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
    [ ! -e /etc/pip.conf ] || cp /etc/pip.conf "$root/etc/"
    for each in ${BIND-}; do
        mkdir -p "$root$each"
        mount --bind -o ro "$each" "$root$each"
    done
}

copy() { # SOURCE ... TARGET: what git tracks, as a context without build products.
    local target=${*: -1} source
    [[ $target = /* ]] || target=$workdir/$target
    for source in "${@:1:$#-1}"; do
        if [ -d "$repository/$source" ]; then
            mkdir -p "$root$target"
            git -C "$repository" ls-files -z -- "$source" \
                | tar --create --directory="$repository" --null --files-from=- \
                | tar --extract --no-same-owner --strip-components=1 --directory="$root$target"
        else
            cp "$repository/$source" "$root$target/"
        fi
    done
}

inside() { # COMMAND ...: as the image's user, in its environment and folder.
    # shellcheck disable=SC2016 # the inner shell's arguments
    chroot --userspec="$user" "$root" env -i "${environment[@]}" sh -c 'cd "$0" && "$@"' "$workdir" "$@"
}

user=0 workdir=/
environment=(PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8)
while IFS='=' read -r name value; do environment+=("$name=$value"); done < <(env | grep -E '^(PIP|GIT_CONFIG)_' || true)

argument() { # NAME=DEFAULT, perhaps in quotes: in the environment of what follows, like ENV.
    local name=${1%%=*} default=${1#*=}
    default=${default#\"} default=${default%\"}
    environment+=("$name=${given[$name]-$default}")
}

while read -r word rest; do
    [ -z "$word" ] || step "$word $rest"
    read -ra words <<< "$rest"
    case $word in
        "" | ENTRYPOINT | CMD | VOLUME) ;;
        FROM) from "$rest" ;;
        WORKDIR) workdir=$rest && mkdir -p "$root$rest" ;;
        COPY) copy "${words[@]}" ;;
        ENV) environment+=("${words[@]/\$COMMIT/${given[COMMIT]-}}") ;;
        ARG) argument "$rest" ;;
        USER) user=$rest:$rest environment+=(HOME=/tmp) ;;
        RUN) inside sh -ec "$rest" < /dev/null ;;
        *) echo "$word: an instruction that this script does not know" >&2 && exit 2 ;;
    esac
done < <(instructions)

if [ $# -gt 0 ]; then
    step "splatsweep $*" && inside splatsweep "$@"
else
    step "splatsweep doctor" && inside splatsweep doctor
    step "splatsweep validate" && inside splatsweep validate sweep/presets/quick.yaml
    if [ "$image" = cuda ]; then
        step "splatsweep validate paper" && inside splatsweep validate sweep/presets/paper.yaml
        step "the compiled rasterisers" && inside python -c \
            "import diff_gaussian_rasterization._C, gsplat.csrc; print('both load')"
    fi
    step "a chair, drawn by the compiled kernels" && inside splatsweep render data chairs --set image_size=32 \
        --set train=2 --set val=1 --set test=1 --set views=4 --size 64 --out /runs/ring.png
fi
step "all well"
