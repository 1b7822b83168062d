#!/usr/bin/env bash
corpus=timit_sample recipe=timit_sample
source "$(dirname "${BASH_SOURCE[0]}")/../stages.sh"
download_and_prepare
train_and_evaluate
