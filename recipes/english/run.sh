#!/usr/bin/env bash
# english-small, the model that comes with the package: trained on train-clean-5 and on speechocean762's training set.
# Below --corpus-dir, each corpus has a folder of its own, as in data/.
corpus=. recipe=english
source "$(dirname "${BASH_SOURCE[0]}")/../stages.sh"
corpora=(librispeech speechocean762)
for name in "${corpora[@]}"; do
  download_and_prepare "$name" "$corpus_dir/$name" "$exp_dir/data/$name"
done
if runs 2 "join the corpora"; then
  for split in train dev test; do
    cat "$exp_dir"/data/{librispeech,speechocean762}/$split.jsonl.gz > "$exp_dir/data/$split.jsonl.gz" # gzip allows it
  done
fi
train_and_evaluate
if runs 4 "evaluate each corpus"; then
  for name in "${corpora[@]}"; do
    speechattn evaluate "$exp_dir/model" --cuts "$exp_dir/data/$name/test.jsonl.gz" --smooth --report "$exp_dir/report/$name"
  done
fi
