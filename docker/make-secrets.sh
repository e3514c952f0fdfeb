#!/bin/sh
# make-secrets.sh [FOLDER [HOST …]]: draw the passwords, keys and the certificate of compose.yaml.
#
# FOLDER is by default `secrets` beside this script. HOSTs are further names of the machine, which
# the certificate shall have (beside localhost, 127.0.0.1 and proxy). The folder is open to its
# owner alone; the files in it can be read by all, since the containers have users of their own.
# An existing folder is left as it is: servers that have begun with its passwords need them.
set -eu
folder=${1:-$(dirname "$0")/secrets}
[ $# -gt 0 ] && shift
if [ -e "$folder" ]; then
  echo "$folder exists; its servers need its passwords, so it stays as it is" >&2
  exit 2
fi
umask 077
new=$folder.new.$$
mkdir -p "$(dirname "$folder")"
mkdir "$new"
trap 'rm -rf "$new"' EXIT
draw() { openssl rand -hex 24; }

draw >"$new/postgres_password"
draw >"$new/admin_password"
draw >"$new/session_key"
draw >"$new/s3_key"
draw >"$new/s3_secret"
draw >"$new/ray_token"
store="postgresql+psycopg2://mlflow:$(cat "$new/postgres_password")@postgres:5432/mlflow"
echo "$store" >"$new/store_uri"
cat >"$new/users.json" <<JSON
{"users": [{"name": "admin", "role": "admin", "token": "tuner_$(openssl rand -hex 8)_$(openssl rand -hex 32)"}]}
JSON
cat >"$new/auth.ini" <<INI
[mlflow]
database_uri = $store
admin_username = admin
default_permission = NO_PERMISSIONS
# without it every request costs a PBKDF2, 0.5 s; a changed password is known everywhere after this
auth_cache_ttl_seconds = 60
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
INI
cat >"$new/s3.json" <<JSON
{"identities": [{"name": "mlflow", "actions": ["Read:mlflow", "Write:mlflow", "List:mlflow", "Tagging:mlflow"],
  "credentials": [{"accessKey": "$(cat "$new/s3_key")", "secretKey": "$(cat "$new/s3_secret")"}]}]}
JSON

names="DNS:localhost,DNS:proxy,IP:127.0.0.1"
for host in "$@"; do names="$names,DNS:$host"; done
openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj "/CN=tuner, own authority" \
  -addext "keyUsage=critical,keyCertSign,cRLSign" \
  -keyout "$new/ca.key" -out "$new/ca.crt" 2>/dev/null
openssl req -newkey rsa:2048 -nodes -subj "/CN=tuner" \
  -keyout "$new/tls.key" -out "$new/tls.csr" 2>/dev/null
printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n' "$names" \
  >"$new/tls.ext"
openssl x509 -req -in "$new/tls.csr" -CA "$new/ca.crt" -CAkey "$new/ca.key" -CAcreateserial \
  -days 825 -extfile "$new/tls.ext" -out "$new/tls.crt" 2>/dev/null
rm "$new/tls.csr" "$new/tls.ext" "$new/ca.srl"
chmod 444 "$new"/*
chmod 400 "$new/ca.key"
mv "$new" "$folder"
trap - EXIT
echo "made $folder; the password of the user admin is in admin_password, clients trust ca.crt"
