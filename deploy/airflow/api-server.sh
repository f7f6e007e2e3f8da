#!/usr/bin/env bash
# Airflow's simple auth manager reads passwords only from a file, which it also locks.
set -euo pipefail
umask 077
python - >"$AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE" <<'END'
import json, os
print(json.dumps({"admin": os.environ["AIRFLOW_ADMIN_PASSWORD"]}))
END
exec airflow api-server "$@"
