#!/usr/bin/env bash
# On a spot machine of AWS, beside Ray: when the machine is to be taken back, tells Ray, two minutes ahead. Runs on it are then kept
# every few seconds and go on elsewhere; nothing new begins there. Other clouds announce it in other places: change `announced`.
#
#   spot_notice.sh HEAD:6379 [RAY]         RAY: the program, by default that of the PATH
set -euo pipefail

head=${1:?the address of the head, such as 10.0.0.1:6379}
ray=${2:-ray}
metadata=${METADATA:-http://169.254.169.254}
every=${EVERY_S:-5}

announced() {
  local token
  token=$(curl -sf -m 2 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$metadata/latest/api/token") || return 1
  curl -sf -m 2 -o /dev/null -H "X-aws-ec2-metadata-token: $token" "$metadata/latest/meta-data/spot/instance-action"
}

until announced; do sleep "$every"; done
"$ray" drain-node --address "$head" --reason DRAIN_NODE_REASON_PREEMPTION --reason-message 'The spot machine is taken back' \
  --deadline-remaining-seconds 110
