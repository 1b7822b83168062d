#!/usr/bin/env bash
corpus=librispeech recipe=librispeech
source "$(dirname "${BASH_SOURCE[0]}")/../stages.sh"
[ ${#corpus_options[@]} -gt 0 ] || corpus_options=(--subsets train-clean-5,test-clean --labels align)
download_and_prepare
train_and_evaluate
