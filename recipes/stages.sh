# The stages that all recipes share: 1 download, 2 prepare, 3 train, 4 evaluate. Sourced by recipes/*/run.sh, which sets
# `corpus` and `recipe` first. A stage that has ended is not run again, unless its options or inputs changed.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
corpus_dir=$root/data/$corpus exp_dir=$root/exp/$recipe conf=$root/recipes/$recipe/conf/base.yaml
mirror=${SPEECHATTN_MIRROR:-} stage=1 stop_stage=4

usage="options: --corpus-dir DIR, --exp-dir DIR, --mirror BASE, --conf FILE, --stage N, --stop-stage N"
refuse() {
  echo "run.sh: error: $1" >&2
  exit 2
}
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h)
      echo "$usage"
      exit ;;
    --corpus-dir | --exp-dir | --mirror | --conf | --stage | --stop-stage)
      [ $# -ge 2 ] || refuse "$1 needs a value"
      name=${1#--}
      declare "${name//-/_}=$2"
      shift 2 ;;
    *) refuse "unknown option $1; $usage" ;;
  esac
done
[[ $stage$stop_stage =~ ^[1-4][1-4]$ && $stage -le $stop_stage ]] ||
  refuse "--stage and --stop-stage must be 1 to 4 and in order, got $stage and $stop_stage"

if ! command -v speechattn > /dev/null; then
  make -C "$root" install
  PATH=$root/.venv/bin:$PATH
fi

# Whether stage $1, called $2, is to run; says so.
runs() {
  [ "$stage" -le "$1" ] && [ "$1" -le "$stop_stage" ] || return 1
  echo "Stage $1: $2"
}

# Train by the configuration $1 into the folder $2.
train() {
  speechattn train --config "$1" --output "$2" \
    --data.train "$exp_dir/data/train.jsonl.gz" --data.dev "$exp_dir/data/dev.jsonl.gz"
}

# Score the model in the folder $1/model on the splits $2 ...
evaluate() {
  for split in "${@:2}"; do
    speechattn evaluate "$1/model" --cuts "$exp_dir/data/$split.jsonl.gz" --report "$1/report"
  done
}

download_and_prepare() {
  if runs 1 download; then
    speechattn download "$corpus" --corpus-dir "$corpus_dir" ${mirror:+--mirror "$mirror"}
  fi
  if runs 2 prepare; then
    speechattn prepare "$corpus" --corpus-dir "$corpus_dir" --output "$exp_dir/data"
  fi
}

train_and_evaluate() {
  if runs 3 train; then
    train "$conf" "$exp_dir/model"
  fi
  if runs 4 evaluate; then
    evaluate "$exp_dir" dev test
    speechattn predict --cuts "$exp_dir/data/test.jsonl.gz" --model "$exp_dir/model" --output "$exp_dir/textgrid"
  fi
}
