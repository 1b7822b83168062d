#!/usr/bin/env bash
corpus=librispeech recipe=librispeech
source "$(dirname "${BASH_SOURCE[0]}")/../stages.sh"
case " ${corpus_options[*]} " in
  *speaker*) ;;
  *cpc*) inspect_options+=(--allow-shared-speakers) ;; # the published split; prepare says so, and every figure
esac
download_and_prepare
train_and_evaluate
