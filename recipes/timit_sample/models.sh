#!/usr/bin/env bash
# Trains and scores the encoder and every baseline, three seeds each.
corpus=timit_sample recipe=timit_sample
source "$(dirname "${BASH_SOURCE[0]}")/../stages.sh"
download_and_prepare
compare_models "0 1 2" base linear mlp window_mlp blstm tdnn full_attention
python -m speechattn.reports.results "$exp_dir/models"
