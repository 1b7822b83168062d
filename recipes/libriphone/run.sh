#!/usr/bin/env bash
corpus=libriphone recipe=libriphone inspect_options=(--allow-unlabelled)
source "$(dirname "${BASH_SOURCE[0]}")/../stages.sh"
download_and_prepare
if runs 3 train; then
  train "$exp_dir/model" "${conf[@]}" ${init:+--init "$init"}
fi
if runs 4 evaluate; then
  evaluate "$exp_dir" dev # the labels of test are not published
  speechattn predict --cuts "$exp_dir/data/test.jsonl.gz" --model "$exp_dir/model" --frames "$exp_dir/submission.csv"
fi
