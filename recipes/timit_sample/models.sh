#!/usr/bin/env bash
# The encoder and what it must beat, side by side, three seeds of each; a row of RESULTS.md for each that is scored on test.
corpus=timit_sample recipe=timit_sample
source "$(dirname "${BASH_SOURCE[0]}")/../stages.sh"
download_and_prepare
compare_models "0 1 2" base linear mlp window_mlp blstm tdnn full_attention
python -m speechattn.reports.results "$exp_dir/models"
