#!/usr/bin/env bash
corpus=speechocean762 recipe=speechocean762
source "$(dirname "${BASH_SOURCE[0]}")/../stages.sh"
download_and_prepare
train_and_evaluate
