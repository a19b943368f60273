#!/usr/bin/env bash
# A password for every user of the definitions, and the files that carry them:
#
#   FOLDER/<user>.conf        [DEFAULT] transport_url with that user's login, mode 0600; the process reads it after its own files
#   FOLDER/definitions.json   the definitions with salted hashes in the place of passwords, for `rabbitmqctl import_definitions`
#
# A user whose file is there keeps the password, so that a second run changes nothing but the salts. Passwords are in no argument
# and in no variable of the environment. Hashes are RabbitMQ's: base64(salt of 4 bytes + SHA-256(salt + password)),
# https://www.rabbitmq.com/docs/passwords.
set -euo pipefail

usage="usage: passwords.sh DEFINITIONS FOLDER [HOST:PORT[,HOST:PORT...]]"
definitions=${1:?$usage}
folder=${2:?$usage}
brokers=${3:-127.0.0.1:5672}
vhost=lite

# Writes the bytes that are given as hexadecimal digits.
bytes() {
    # shellcheck disable=SC2001  # before bash 5.2, ${//} cannot repeat what it found
    printf '%b' "$(sed 's/../\\x&/g' <<<"$1")"
}

# Hexadecimal digits of as many random bytes.
random_hex() {
    od -An -N "$1" -tx1 /dev/urandom | tr -d ' \n'
}

# The password of a user: the one in its file, or a new one.
password_of() {
    local file="$folder/$1.conf"
    if [ -f "$file" ]; then
        sed -n "s|^transport_url = rabbit://$1:\([0-9a-f]*\)@.*|\1|p" "$file"
    else
        random_hex 24
    fi
}

# The transport URL of a user; every broker of a cluster gets the login.
url_of() {
    local user=$1 password=$2 logins="" broker
    for broker in ${brokers//,/ }; do
        logins+="${logins:+,}$user:$password@$broker"
    done
    printf 'rabbit://%s/%s' "$logins" "$vhost"
}

hash_of() {
    local password=$1 salt digest
    salt=$(random_hex 4)
    digest=$({ bytes "$salt"; printf '%s' "$password"; } | sha256sum)
    bytes "$salt${digest%% *}" | base64 --wrap=0
}

umask 077
mkdir -p "$folder"
text=$(<"$definitions")
users=$(sed -n 's/.*"name": "\([^"]*\)", "password_hash": "".*/\1/p' <<<"$text")
[ -n "$users" ] || { echo "error: $definitions has no user without a password" >&2; exit 65; }
for user in $users; do
    password=$(password_of "$user")
    [ -n "$password" ] || { echo "error: $folder/$user.conf has no login of $user; remove it to get a new one" >&2; exit 65; }
    printf '# Login of %s, written by passwords.sh.\n[DEFAULT]\ntransport_url = %s\n' "$user" "$(url_of "$user" "$password")" \
        >"$folder/$user.conf.new"
    mv "$folder/$user.conf.new" "$folder/$user.conf"
    empty="\"name\": \"$user\", \"password_hash\": \"\""
    text=${text/"$empty"/"\"name\": \"$user\", \"password_hash\": \"$(hash_of "$password")\""}
done
printf '%s\n' "$text" >"$folder/definitions.json"
# Salted hashes of random passwords are no secret, and the broker's own user has to read them.
chmod 0644 "$folder/definitions.json"
