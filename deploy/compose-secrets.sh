#!/usr/bin/env bash
# Makes what compose.yaml needs and nobody else may have: deploy/secrets, and deploy/.env beside it. What is there stays.
#
#   deploy/compose-secrets.sh [HOST]     # HOST: what proxies dial; default: this machine's full name
set -euo pipefail
cd "$(dirname "$0")"
umask 077

mkdir -p secrets
if [[ ! -s secrets/secret.key ]]; then
    # Opens the keys that the database keeps sealed. Lost, the fleet must be founded anew.
    openssl rand -base64 32 >secrets/secret.key
fi
if [[ ! -s secrets/database_password ]]; then
    openssl rand -hex 24 >secrets/database_password
fi
if [[ ! -s secrets/database.crt ]]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=database" \
        -addext "subjectAltName=DNS:database" -keyout secrets/database.key -out secrets/database.crt 2>/dev/null
    # PostgreSQL's own user reads it where it is mounted.
    chmod 644 secrets/database.crt
fi
if [[ ! -s .env || -n ${1:-} ]]; then
    host=${1:-$(hostname -f 2>/dev/null || hostname)}
    printf 'PULSE_PUBLIC_ADDRESS=%s\nPULSE_UID=%s\nPULSE_GID=%s\n' "$host" "$(id -u)" "$(id -g)" >.env
fi
echo "deploy/secrets and deploy/.env are there; proxies dial $(sed -n 's/^PULSE_PUBLIC_ADDRESS=//p' .env)"
