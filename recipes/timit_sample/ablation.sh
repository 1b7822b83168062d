#!/usr/bin/env bash
# Changes one thing at a time (context, positions, score, heads, training), three seeds each. Takes three hours on one core.
corpus=timit_sample recipe=timit_sample
source "$(dirname "${BASH_SOURCE[0]}")/../stages.sh"
download_and_prepare
ablate "0 1 2" "$root"/recipes/timit_sample/conf/ablation/*.yaml
