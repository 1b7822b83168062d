# The stages that all recipes share: 1 download, 2 prepare, 3 train, 4 evaluate. Sourced by recipes/*/run.sh, which sets
# `corpus` and `recipe` first. A stage that has ended is not run again, unless its options or inputs changed.
set -euo pipefail
evaluate_options+=() inspect_options+=()  # of `speechattn evaluate` and `inspect`; a recipe may set them, too
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
corpus_dir=$root/data/$corpus exp_dir=$root/exp/$recipe conf=$root/recipes/$recipe/conf/base.yaml
mirror=${SPEECHATTN_MIRROR:-} init='' stage=1 stop_stage=4 jobs=1
corpus_options=()  # of `speechattn download` and `prepare`: what follows --

usage="options: --corpus-dir DIR, --exp-dir DIR, --mirror BASE, --conf FILE, --init MODEL, --stage N, --stop-stage N, --jobs N (of ablation.sh), -- OPTIONS (of the corpus)"
refuse() {
  echo "run.sh: error: $1" >&2
  exit 2
}
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h)
      echo "$usage"
      exit ;;
    --corpus-dir | --exp-dir | --mirror | --conf | --init | --stage | --stop-stage | --jobs)
      [ $# -ge 2 ] || refuse "$1 needs a value"
      name=${1#--}
      declare "${name//-/_}=$2"
      shift 2 ;;
    --)
      corpus_options=("${@:2}")
      break ;;
    *) refuse "unknown option $1; $usage" ;;
  esac
done
[[ $stage$stop_stage =~ ^[1-4][1-4]$ && $stage -le $stop_stage ]] ||
  refuse "--stage and --stop-stage must be 1 to 4 and in order, got $stage and $stop_stage"
[[ $jobs =~ ^[1-9][0-9]*$ ]] || refuse "--jobs must be 1 or more, got $jobs"

if ! command -v speechattn > /dev/null; then
  make -C "$root" install
  PATH=$root/.venv/bin:$PATH
fi

# Whether stage $1, called $2, is to run; says so.
runs() {
  [ "$stage" -le "$1" ] && [ "$1" -le "$stop_stage" ] || return 1
  echo "Stage $1: $2"
}

# Train by the configuration $1 into the folder $2; further arguments are options of `speechattn train`.
train() {
  speechattn train --config "$1" "${@:3}" --output "$2" \
    --data.train "$exp_dir/data/train.jsonl.gz" --data.dev "$exp_dir/data/dev.jsonl.gz"
}

# Score the model in the folder $1/model on the splits $2 ...
evaluate() {
  for split in "${@:2}"; do
    speechattn evaluate "$1/model" --cuts "$exp_dir/data/$split.jsonl.gz" --report "$1/report" "${evaluate_options[@]}"
  done
}

# Download the corpus $1 into the folder $2 and prepare its cuts in the folder $3; by default the recipe's own.
download_and_prepare() {
  local name=${1:-$corpus} folder=${2:-$corpus_dir} output=${3:-$exp_dir/data}
  if runs 1 "download $name"; then
    speechattn download "$name" --corpus-dir "$folder" ${mirror:+--mirror "$mirror"} "${corpus_options[@]}"
  fi
  if runs 2 "prepare $name"; then
    speechattn prepare "$name" --corpus-dir "$folder" --output "$output" "${corpus_options[@]}"
    # Stops here, with what is wrong, on a missing split, shared speakers, or a class that swallows the others.
    speechattn inspect "$output"/{train,dev,test}.jsonl.gz --strict "${inspect_options[@]}"
  fi
}

train_and_evaluate() {
  if runs 3 train; then
    train "$conf" "$exp_dir/model" ${init:+--init "$init"}
  fi
  if runs 4 evaluate; then
    evaluate "$exp_dir" dev test
    speechattn predict --cuts "$exp_dir/data/test.jsonl.gz" --model "$exp_dir/model" --output "$exp_dir/textgrid"
  fi
}

# Train $conf, with conf/ablation.yaml over it and each of the settings $2 ... over that, once for every seed in $1; as
# many at a time as --jobs says, one thread each. Then the table of the dev figures, and a plot of them over look-ahead.
ablate() {
  local overlay=$root/recipes/$recipe/conf/ablation.yaml seed setting folder
  export OMP_NUM_THREADS=1
  for seed in $1; do
    for setting in "${@:2}"; do
      folder=$exp_dir/ablation/$(basename "$setting" .yaml)/seed-$seed
      while [ "$(jobs -pr | wc -l)" -ge "$jobs" ]; do wait -n; done
      train "$conf" "$folder" --config "$overlay" --config "$setting" --seed "$seed" &
    done
  done
  while [ "$(jobs -pr | wc -l)" -ge 1 ]; do wait -n; done
  python -m speechattn.reports.ablation "$exp_dir/ablation"
}

# Train each of the recipe's configurations $2 ... once for every seed in $1, one after the other, and score what comes of
# it on test.
compare_models() {
  local conf seed folder
  for conf in "${@:2}"; do
    for seed in $1; do
      folder=$exp_dir/models/$conf/seed-$seed
      train "$root/recipes/$recipe/conf/$conf.yaml" "$folder" --seed "$seed"
      speechattn evaluate "$folder" --cuts "$exp_dir/data/test.jsonl.gz" --report "$folder/report" "${evaluate_options[@]}"
    done
  done
}
