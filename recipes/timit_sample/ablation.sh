#!/usr/bin/env bash
# One change at a time, three seeds each: what context, positions, scores, heads and each part of the training are worth. Some three hours on one core.
corpus=timit_sample recipe=timit_sample
source "$(dirname "${BASH_SOURCE[0]}")/../stages.sh"
download_and_prepare
ablate "0 1 2" "$root"/recipes/timit_sample/conf/ablation/*.yaml
