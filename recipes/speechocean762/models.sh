#!/usr/bin/env bash
# Trains and scores the encoder and every baseline: three seeds for the first three, at most half an hour each on two
# cores, then longer runs of the encoder and the BLSTM.
corpus=speechocean762 recipe=speechocean762
source "$(dirname "${BASH_SOURCE[0]}")/../stages.sh"
export OMP_NUM_THREADS=2
download_and_prepare
compare_models "0 1 2" base window_mlp blstm
compare_models 0 linear mlp tdnn full_attention long blstm_long
python -m speechattn.reports.results "$exp_dir/models"
for seed in 0 1 2; do
  for other in window_mlp blstm; do
    speechattn compare "$exp_dir"/models/{base,$other}/seed-$seed --cuts "$exp_dir/data/test.jsonl.gz"
  done
done
speechattn compare "$exp_dir"/models/{long,blstm_long}/seed-0 --cuts "$exp_dir/data/test.jsonl.gz"
