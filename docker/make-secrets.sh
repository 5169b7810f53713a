#!/bin/sh
# Makes the secrets that compose.yaml reads, in docker/secrets: random passwords, and the URLs that hold them. What is
# there is kept: put your own in before, or change one later (README.md, "Rotating keys").
set -eu
cd "$(dirname "$0")"
mkdir -p secrets
# The folder is closed; the files aren't, since Docker mounts them as they are and the image's user must read them.
chmod 700 secrets
random() { od -An -tx1 -N24 /dev/urandom | tr -d ' \n'; }
put() {
  [ -s "secrets/$1" ] || printf %s "$2" > "secrets/$1"
  chmod 644 "secrets/$1"
}
put postgres_password "$(random)"
put redis_password "$(random)"
put database_url "postgresql://loracle:$(cat secrets/postgres_password)@postgres/loracle"
put redis_url "redis://:$(cat secrets/redis_password)@redis:6379/0"
put web_token "$(random)"
put grafana_password "$(random)"
# Of whom nobody asks anything until there is a key: compose --profile oracle needs it.
put openai_api_key "${OPENAI_API_KEY:-none}"
echo "docker/secrets is ready. The token of the page: docker/secrets/web_token"
