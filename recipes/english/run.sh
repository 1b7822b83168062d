#!/usr/bin/env bash
# english-small, the model that comes with the package: trained on train-clean-5 and the training set of speechocean762.
# Each corpus has its own folder below --corpus-dir, as in data/.
corpus=. recipe=english # data/. holds both corpora
source "$(dirname "${BASH_SOURCE[0]}")/../stages.sh"
[ ${#corpus_options[@]} -eq 0 ] || refuse "the english recipe has no corpus options: nothing may follow --"
corpus_options=(--subsets train-clean-5,test-clean --labels align)
download_and_prepare librispeech "$corpus_dir/librispeech" "$exp_dir/data/librispeech"
corpus_options=()
download_and_prepare speechocean762 "$corpus_dir/speechocean762" "$exp_dir/data/speechocean762"
if runs 2 "join the corpora"; then
  for split in train dev test; do
    cat "$exp_dir"/data/{librispeech,speechocean762}/$split.jsonl.gz > "$exp_dir/data/$split.jsonl.gz" # concatenated gzip files are valid gzip
  done
  speechattn inspect "$exp_dir"/data/{train,dev,test}.jsonl.gz --strict
fi
train_and_evaluate
if runs 4 "evaluate on each corpus"; then
  for name in librispeech speechocean762; do
    speechattn evaluate "$exp_dir/model" --cuts "$exp_dir/data/$name/test.jsonl.gz" --smooth --report "$exp_dir/report/$name"
  done
fi
