#!/bin/sh
# Slurm HealthCheckProgram: drains this node when the audit finds something of high severity.
# Nothing else drains it: not what could not be read, not a run that failed or took too long.
#   slurm.conf: HealthCheckProgram=/etc/slurm/slurm-health.sh  HealthCheckInterval=600  HealthCheckNodeState=IDLE
out=$(timeout 50 diagnose audit --profile training --fail-on high --format json 2>/dev/null)
[ $? -eq 1 ] || exit 0
reason=$(printf '%s' "$out" | python3 -c '
import json, sys
found = json.load(sys.stdin)["findings"]
print(" ".join(f["check"] for f in found if f["severity"] == "high")[:120])') || exit 0
scontrol update nodename="$(hostname -s)" state=drain reason="diagnose: $reason"
