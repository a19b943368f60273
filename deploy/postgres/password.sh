#!/usr/bin/env bash
# The database's password, and the files that carry it, both mode 0600:
#
#   FOLDER/database.conf   [database] connection; every process but the users' commands reads it after its own files
#   FOLDER/database.env    LITE_DATABASE_PASSWORD for create.sql
#
# A password that is there is kept.
set -euo pipefail

usage="usage: password.sh FOLDER [HOST:PORT]"
folder=${1:?$usage}
server=${2:-127.0.0.1:5432}

umask 077
mkdir -p "$folder"
[ -f "$folder/database.env" ] || printf 'LITE_DATABASE_PASSWORD=%s\n' "$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')" >"$folder/database.env"
password=$(sed -n 's/^LITE_DATABASE_PASSWORD=\([0-9a-f]*\)$/\1/p' "$folder/database.env")
[ -n "$password" ] || { echo "error: $folder/database.env has no password; remove it to get a new one" >&2; exit 65; }
printf '# Login at the database, written by password.sh.\n[database]\nconnection = postgresql://lite:%s@%s/lite\n' "$password" "$server" \
    >"$folder/database.conf"
