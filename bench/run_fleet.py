"""Every bench of the fleet, as bench/run.py does it for the rest.

python bench/run_fleet.py [NAME …]     FULL=1 for the long forms
"""

import sys

import run

BENCHES = (
    "fleet_history",
    "fleet_replica",
    "fleet_limits",
    "fleet_queue",
    "fleet_emails",
    "fleet_campaign",
    "fleet_regions",
    "fleet_scale",
    "fleet_shard_guard",
)

if __name__ == "__main__":
    raise SystemExit(run.main(sys.argv[1:], BENCHES))
