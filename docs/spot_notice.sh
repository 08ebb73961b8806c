#!/usr/bin/env bash
# On a spot machine of AWS, beside Ray: when the machine is to be taken back, tells Ray, two minutes ahead. Runs on it are then kept
# within seconds and go on elsewhere; nothing new begins there. Other clouds announce it in other places: change `announced`.
#
#   spot_notice.sh HEAD:6379 [RAY]         RAY: the program, by default that of the PATH
set -euo pipefail

head=${1:?the address of the head, such as 10.0.0.1:6379}
ray=${2:-ray}
metadata=${METADATA:-http://169.254.169.254}
every=${EVERY_S:-5}

exec 9>>"${TMPDIR:-/tmp}/marginlab_spot_notice-$(id -u).lock"
flock -n 9 || exit 0 # one is enough, however often Ray is started

announced() {
  local token
  token=$(curl -sf -m 2 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$metadata/latest/api/token") || return 1
  curl -sf -m 2 -o /dev/null -H "X-aws-ec2-metadata-token: $token" "$metadata/latest/meta-data/spot/instance-action"
}

# What Ray calls this machine. Not left to `ray drain-node`: without a node's id it may take another one.
node() {
  local pid said address
  for pid in $(pgrep -f /raylet/raylet); do
    said=$(tr '\0' '\n' <"/proc/$pid/cmdline") || continue
    for address in $(hostname -I); do
      if grep -qxF -- "--node_ip_address=$address" <<<"$said"; then
        sed -n 's/^--node_id=//p' <<<"$said"
        return
      fi
    done
  done
  echo "spot_notice.sh: no Ray runs on this machine" >&2
  return 1
}

until announced; do sleep "$every"; done
"$ray" drain-node --address "$head" --node-id "$(node)" --reason DRAIN_NODE_REASON_PREEMPTION \
  --reason-message 'The spot machine is taken back' --deadline-remaining-seconds 110
