#!/usr/bin/env bash
corpus=timit recipe=timit evaluate_options=(--phones timit39)
source "$(dirname "${BASH_SOURCE[0]}")/../stages.sh"
download_and_prepare
train_and_evaluate
