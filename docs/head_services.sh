#!/usr/bin/env bash
# The study database (PostgreSQL) and the tracking server (MLflow) of a cluster, on its head, both on 127.0.0.1 alone.
#
#   head_services.sh /mnt/marginlab        the folder on the storage that outlives the head: database and artifacts lie there
#
# Starts what does not run, and changes nothing where all does: after the head was replaced, run it again. It needs PostgreSQL's
# programs (Debian, Ubuntu: postgresql) and must not run as root. It writes secrets.env there and in ~/.config/marginlab (mode 0600),
# which submitted jobs read, whatever their workspace: the addresses of both, without a password, and where the password file is.
set -euo pipefail

shared=${1:?which folder on the shared storage?}
bin=${BIN:-$HOME/env/bin}   # the environment that the locks were installed into
port=${PGPORT:-5432}
mlflow_port=${MLFLOW_PORT:-5000}
pg=${PG_BIN:-$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -1)}
data=$shared/postgresql
unset PGPASSWORD PGHOST PGUSER PGDATABASE
export PGPASSFILE=$shared/pgpass MLFLOW_DISABLE_TELEMETRY=true DO_NOT_TRACK=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
umask 077

# -- PostgreSQL: made once; its password is random and in no command line -----------------------------------------------------
if [ ! -e "$data/PG_VERSION" ]; then
  mkdir -p "$shared"
  password=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
  printf '127.0.0.1:*:*:marginlab:%s\n' "$password" > "$PGPASSFILE"
  rm -rf "$data.partial"
  "$pg/initdb" -D "$data.partial" -U marginlab -A scram-sha-256 --pwfile=<(printf '%s' "$password") > /dev/null
  mv "$data.partial" "$data"
fi
if ! "$pg/pg_isready" -q -t 30 -h 127.0.0.1 -p "$port"; then
  "$pg/pg_ctl" start -w -t 120 -D "$data" -l "$data.log" \
    -o "-c listen_addresses=127.0.0.1 -c port=$port -c unix_socket_directories=''" > /dev/null
fi
for name in marginlab mlflow; do
  there=$("$pg/psql" -h 127.0.0.1 -p "$port" -U marginlab -d postgres -tAc "SELECT 1 FROM pg_database WHERE datname = '$name'")
  [ "$there" = 1 ] || "$pg/createdb" -h 127.0.0.1 -p "$port" -U marginlab "$name"
done

# -- what submitted jobs read --------------------------------------------------------------------------------------------------
mkdir -p ~/.config/marginlab
for secrets in "$shared/secrets.env" ~/.config/marginlab/secrets.env; do
  touch "$secrets"
  for line in "MARGINLAB_STUDY_DATABASE=postgresql://marginlab@127.0.0.1:$port/marginlab" "PGPASSFILE=$PGPASSFILE" \
    "MARGINLAB_TRACKING_URI=http://127.0.0.1:$mlflow_port"; do
    grep -q "^${line%%=*}=" "$secrets" || printf '%s\n' "$line" >> "$secrets"
  done
done

# -- MLflow: its tables are made before its workers start, which would make them at once -----------------------------------------
answers() { "$bin/python" -c 'import sys, urllib.request as u; u.urlopen(f"http://127.0.0.1:{sys.argv[1]}/health", timeout=20)' "$mlflow_port" 2> /dev/null; }
if ! answers; then
  store=postgresql+psycopg2://marginlab@127.0.0.1:$port/mlflow
  "$bin/mlflow" db upgrade "$store" > "$shared/mlflow.log" 2>&1 || { tail -5 "$shared/mlflow.log" >&2; exit 1; }
  setsid nohup "$bin/mlflow" server --host 127.0.0.1 --port "$mlflow_port" --workers 2 --backend-store-uri "$store" \
    --artifacts-destination "$shared/mlflow-artifacts" >> "$shared/mlflow.log" 2>&1 < /dev/null &
  for _ in $(seq 300); do answers && break; sleep 1; done
  answers || { echo "MLflow does not answer at 127.0.0.1:$mlflow_port: see $shared/mlflow.log" >&2; exit 1; }
fi
echo "Study database at 127.0.0.1:$port, MLflow at http://127.0.0.1:$mlflow_port, both kept in $shared"
