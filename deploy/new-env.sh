#!/usr/bin/env bash
# Create .env from .env.example, with a random value for each secret inside the stack: new-env.sh [--sandbox]
# With --sandbox, the account's values are generated as well, and the sandbox gateway replaces Atlassian's.
set -euo pipefail
umask 077

case ${1:-} in
    "") account=real ;;
    --sandbox) account=stand-in ;;
    *)
        echo "unknown argument $1: new-env.sh [--sandbox]" >&2
        exit 2
        ;;
esac
if ! command -v openssl >/dev/null; then
    echo "openssl is missing: it generates the secrets" >&2
    exit 1
fi
if [[ -e .env ]]; then
    echo ".env already exists; to create a new one, remove it and the volumes that use its passwords" >&2
    exit 1
fi

value_of() {
    case $1 in
        AIRFLOW_FERNET_KEY) openssl rand -base64 32 | tr '+/' '-_' ;;
        FORGE_EMAIL) [[ $account == real ]] || echo dev@example.com ;;
        FORGE_APP_ID) [[ $account == real ]] || echo ari:cloud:ecosystem::app/8ce114f4-d82c-45e2-b4fb-c6a0751d7d57 ;;
        FORGE_API_TOKEN) [[ $account == real ]] || openssl rand -hex 24 ;;
        *) openssl rand -hex 24 ;;
    esac
}

# The services' users read these files, whatever umask the clone was made with.
here=$(dirname "${BASH_SOURCE[0]}")
chmod -R a+rX "$here" "$here/../dags"
# A run that is interrupted leaves no .env that looks complete.
trap 'rm -f .env.new' EXIT
while IFS= read -r line; do
    if [[ $line =~ ^([A-Z_]+)=$ ]]; then
        line+=$(value_of "${BASH_REMATCH[1]}")
    elif [[ $account == stand-in && $line =~ ^#(COMPOSE_PROFILES|FORGE_GATEWAY_URL|FORGE_ALLOW_CLEARTEXT)= ]]; then
        line=${line#\#}
    fi
    printf '%s\n' "$line"
done <.env.example >.env.new
mv .env.new .env
