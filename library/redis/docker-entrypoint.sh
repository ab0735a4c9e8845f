#!/bin/sh
# Starts Redis the way users of this image's name expect:
#   - options alone, or a *.conf file alone, are arguments of redis-server
#   - the server does not run as root: it takes over /data, then becomes user redis (not when --user was given)
#   - it answers the network; see wants_open_network
# Any other command runs as it is.
set -eu

# Whether configuration file $1, or a file it includes, says something about protected-mode.
looked_at=
mentions_protected_mode() {
    case " $looked_at " in *" $1 "*) return 1 ;; esac
    looked_at="$looked_at $1"
    [ -r "$1" ] || return 1
    if grep -qiE '^[[:space:]]*protected-mode[[:space:]]' "$1"; then
        return 0
    fi
    for included in $(sed -nE 's/^[[:space:]]*[iI][nN][cC][lL][uU][dD][eE][[:space:]]+"?([^"]+)"?[[:space:]]*$/\1/p' "$1"); do
        if mentions_protected_mode "$included"; then
            return 0
        fi
    done
    return 1
}

# Redis refuses clients from other machines unless it has a password or protected-mode is off. In a container every
# client is on another machine and what is published is decided outside, so the default here is off. Whoever sets
# protected-mode, as an option or in the configuration file, is obeyed.
wants_open_network() {
    shift
    for argument in "$@"; do
        case $argument in
            --protected-mode|--sentinel|--test-memory|--check-system|--version|-v|--help|-h) return 1 ;;
        esac
    done
    case ${1-} in
        ''|-*) ;;
        *) if mentions_protected_mode "$1"; then return 1; fi ;;
    esac
}

case ${1-} in
    -*|*.conf) set -- redis-server "$@" ;;
esac

if [ "${1-}" = redis-server ]; then
    if [ "$(id -u)" = 0 ]; then
        find . ! -user redis -exec chown redis:redis {} +
        export HOME=/data
        exec setpriv --reuid=redis --regid=redis --clear-groups -- "$0" "$@"
    fi
    if wants_open_network "$@"; then
        set -- "$@" --protected-mode no
    fi
    # Data files are nobody else's business, unless whoever started the container set a umask.
    if [ "$(umask)" = 0022 ]; then
        umask 0077
    fi
fi

exec "$@"
