#!/bin/sh
# The fix as a learner lays it over the running lab.
set -eu
exec "${VPCLAB:-vpclab}" apply -l "${VPCLAB_LAB:?the running lab}" --patch "$(dirname "$0")/fix.patch.yaml"
