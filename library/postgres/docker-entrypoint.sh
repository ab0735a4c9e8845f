#!/bin/bash
# Starts PostgreSQL the way users of this image's name expect:
#   - options alone are arguments of postgres
#   - the server does not run as root: it takes over PGDATA, then becomes user postgres (not when --user was given)
#   - an empty PGDATA becomes a cluster: POSTGRES_PASSWORD (or POSTGRES_HOST_AUTH_METHOD=trust), POSTGRES_USER,
#     POSTGRES_DB, POSTGRES_INITDB_ARGS, POSTGRES_INITDB_WALDIR; each of them can come from a file, NAME_FILE
#   - then *.sh, *.sql, *.sql.gz, *.sql.xz, *.sql.zst of /docker-entrypoint-initdb.d run once, in order of their names,
#     on a server that only this container can reach
# Any other command runs as it is.
set -Eeuo pipefail

fail() {
    echo "$1" >&2
    exit 1
}

# Set variable $1 from itself, or from the file that $1_FILE names, or to $2.
setting() {
    local name=$1 file=${1}_FILE
    if [ -n "${!name:-}" ] && [ -n "${!file:-}" ]; then
        fail "error: both $name and $file are set (but are exclusive)"
    fi
    local value=${!name:-${2:-}}
    if [ -n "${!file:-}" ]; then
        value=$(<"${!file}")
    fi
    export "$name=$value"
    unset "$file"
}

read_settings() {
    setting POSTGRES_PASSWORD
    setting POSTGRES_USER postgres
    setting POSTGRES_DB "$POSTGRES_USER"
    setting POSTGRES_INITDB_ARGS
    : "${POSTGRES_HOST_AUTH_METHOD:=}"
}

# A superuser without a password that the whole network can reach must be somebody's decision.
check_password() {
    if [ -z "$POSTGRES_PASSWORD" ] && [ "$POSTGRES_HOST_AUTH_METHOD" != trust ]; then
        fail "Error: Database is uninitialized and superuser password is not specified.
       Set POSTGRES_PASSWORD to a non-empty value, for example -e POSTGRES_PASSWORD=password,
       or POSTGRES_HOST_AUTH_METHOD=trust to let everybody in who can reach the port."
    fi
}

make_directories() {
    mkdir -p "$PGDATA"
    chmod 00700 "$PGDATA" || :
    mkdir -p /var/run/postgresql || :
    chmod 03775 /var/run/postgresql || :
    if [ "$(id -u)" = 0 ]; then
        find "$PGDATA" /var/run/postgresql ! -user postgres -exec chown postgres {} +
    fi
    if [ -n "${POSTGRES_INITDB_WALDIR:-}" ]; then
        mkdir -p "$POSTGRES_INITDB_WALDIR"
        if [ "$(id -u)" = 0 ]; then
            find "$POSTGRES_INITDB_WALDIR" ! -user postgres -exec chown postgres {} +
        fi
        chmod 700 "$POSTGRES_INITDB_WALDIR"
    fi
}

make_cluster() {
    # initdb wants a name for its user, and --user may have given us one that no file knows.
    if ! getent passwd "$(id -u)" >/dev/null; then
        fail "error: user $(id -u) is not in /etc/passwd: run as root or postgres, or mount a passwd file"
    fi
    local arguments=(--username="$POSTGRES_USER") password_file=''
    if [ -n "$POSTGRES_PASSWORD" ]; then
        password_file="--pwfile=<(printf '%s\n' \"\$POSTGRES_PASSWORD\")"
    fi
    if [ -n "${POSTGRES_INITDB_WALDIR:-}" ]; then
        arguments+=(--waldir="$POSTGRES_INITDB_WALDIR")
    fi
    # Words as a shell would read them, which is what the variable has always meant.
    eval "initdb \"\${arguments[@]}\" $password_file $POSTGRES_INITDB_ARGS"
    local method=$POSTGRES_HOST_AUTH_METHOD
    if [ -z "$method" ]; then
        method=$(postgres -C password_encryption)
    fi
    {
        echo
        [ "$method" != trust ] || echo "# POSTGRES_HOST_AUTH_METHOD=trust: no password asked"
        echo "host all all all $method"
    } >>"$PGDATA/pg_hba.conf"
}

sql() {
    PGHOST='' PGHOSTADDR='' PGPASSWORD=${PGPASSWORD:-$POSTGRES_PASSWORD} psql -v ON_ERROR_STOP=1 \
        --username "$POSTGRES_USER" --no-password --no-psqlrc "$@"
}

run_init_files() {
    local file
    for file in /docker-entrypoint-initdb.d/*; do
        case $file in
            *.sh)
                echo "$0: running $file"
                # Executable ones have a life of their own; others may use our functions and settings.
                if [ -x "$file" ]; then "$file"; else . "$file"; fi
                ;;
            *.sql) echo "$0: running $file"; sql --dbname "$POSTGRES_DB" -f "$file" ;;
            *.sql.gz) echo "$0: running $file"; gunzip -c "$file" | sql --dbname "$POSTGRES_DB" ;;
            *.sql.xz) echo "$0: running $file"; xzcat "$file" | sql --dbname "$POSTGRES_DB" ;;
            *.sql.zst) echo "$0: running $file"; zstd -dc "$file" | sql --dbname "$POSTGRES_DB" ;;
            */\*) ;;
            *) echo "$0: ignoring $file" ;;
        esac
    done
}

# Databases and init files, on a server that listens on its socket alone.
fill_cluster() {
    local options="-c listen_addresses='' -p ${PGPORT:-5432}"
    pg_ctl -D "$PGDATA" -o "$options" -w start
    if [ -z "$(sql --dbname postgres --set db="$POSTGRES_DB" --tuples-only <<<"SELECT 1 FROM pg_database WHERE datname = :'db';")" ]; then
        sql --dbname postgres --set db="$POSTGRES_DB" <<<'CREATE DATABASE :"db";'
    fi
    run_init_files
    pg_ctl -D "$PGDATA" -m fast -w stop
    echo
    echo 'PostgreSQL init process complete; ready for start up.'
    echo
}

# Whether the arguments only ask postgres for something that needs no cluster.
asks_only() {
    local argument
    for argument in "$@"; do
        case $argument in
            -'?'|--help|--describe-config|-V|--version) return 0 ;;
        esac
    done
    return 1
}

if [ "${1:0:1}" = - ]; then
    set -- postgres "$@"
fi

if [ "$1" = postgres ] && ! asks_only "$@"; then
    read_settings
    make_directories
    if [ "$(id -u)" = 0 ]; then
        export HOME=/var/lib/postgresql
        exec setpriv --reuid=postgres --regid=postgres --init-groups -- "${BASH_SOURCE[0]}" "$@"
    fi
    if [ -s "$PGDATA/PG_VERSION" ]; then
        echo
        echo 'PostgreSQL Database directory appears to contain a database; Skipping initialization'
        echo
    else
        check_password
        # Before the cluster is there: init files that postgres may not see must not be passed over in silence.
        ls /docker-entrypoint-initdb.d >/dev/null
        make_cluster
        fill_cluster
    fi
fi

exec "$@"
