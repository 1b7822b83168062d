#!/usr/bin/env bash
# The contexts of recipes/timit_sample/ablation.sh on more speech, one seed each. Takes two hours on one core.
corpus=speechocean762 recipe=speechocean762
source "$(dirname "${BASH_SOURCE[0]}")/../stages.sh"
conf=("$root/recipes/speechocean762/conf/small.yaml")
download_and_prepare
ablate 0 "$root"/recipes/timit_sample/conf/ablation/context-*.yaml
