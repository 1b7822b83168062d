#!/usr/bin/env bash
corpus=librispeech recipe=librispeech
source "$(dirname "${BASH_SOURCE[0]}")/../stages.sh"
download_and_prepare
train_and_evaluate
