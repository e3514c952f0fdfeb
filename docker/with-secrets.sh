#!/bin/sh
# with-secrets COMMAND …: run a command with every file of /run/secrets whose name is that of a
# variable (MLFLOW_BACKEND_STORE_URI) in its environment. So no secret is in the settings of a
# container, which `docker inspect` shows, or on a command line, which `ps` shows.
set -eu
for path in "${SECRETS_FOLDER:-/run/secrets}"/*; do
  name=${path##*/}
  case "$name" in
    '*' | [!A-Z]* | *[!A-Z0-9_]*) continue ;;
  esac
  value=$(cat "$path")
  export "$name=$value"
done
exec "$@"
