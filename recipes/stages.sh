# The stages shared by all recipes: 1 download, 2 prepare, 3 train, 4 evaluate. recipes/*/run.sh sets `corpus` and
# `recipe`, then sources this file. A finished stage runs again only if its options or inputs have changed.
set -euo pipefail
evaluate_options+=() inspect_options+=() # for `speechattn evaluate` and `inspect`; a recipe may set them first
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
corpus_dir=$root/data/$corpus exp_dir=$root/exp/$recipe
mirror=${SPEECHATTN_MIRROR:-} init='' stage=1 stop_stage=4 jobs=1
conf=()           # from --conf; later files override earlier ones
corpus_options=() # for `speechattn download` and `prepare`: everything after --

usage="options: --corpus-dir DIR, --exp-dir DIR, --mirror BASE, --conf FILE (repeatable), --init MODEL, --stage N, --stop-stage N, --jobs N (ablation.sh only), -- OPTIONS (for the corpus)"
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
      if [ "$name" = conf ]; then conf+=("$2"); else declare "${name//-/_}=$2"; fi
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
[ ${#conf[@]} -gt 0 ] || conf=("$root/recipes/$recipe/conf/base.yaml")

if ! command -v speechattn > /dev/null; then
  make -C "$root" install
  PATH=$root/.venv/bin:$PATH
fi

# Whether to run stage $1. Prints its name, $2, if so.
runs() {
  [ "$stage" -le "$1" ] && [ "$1" -le "$stop_stage" ] || return 1
  echo "Stage $1: $2"
}

# train FOLDER CONF ... [OPTIONS of `speechattn train`]
# Each configuration overrides the ones before it. The first one is applied over the base.yaml in its folder, if there is one.
train() {
  local folder=$1 base configs=()
  base=$(dirname "$2")/base.yaml
  [[ $2 -ef $base || ! -e $base ]] || configs=(--config "$base")
  shift
  while [ $# -gt 0 ] && [[ $1 != --* ]]; do
    configs+=(--config "$1")
    shift
  done
  speechattn train "${configs[@]}" "$@" --output "$folder" \
    --data.train "$exp_dir/data/train.jsonl.gz" --data.dev "$exp_dir/data/dev.jsonl.gz"
}

# Score the model in folder $1/model on the splits $2 ...
evaluate() {
  for split in "${@:2}"; do
    speechattn evaluate "$1/model" --cuts "$exp_dir/data/$split.jsonl.gz" --report "$1/report" "${evaluate_options[@]}"
  done
}

# Download corpus $1 into folder $2 and prepare its cuts in folder $3. The defaults are those of the recipe.
download_and_prepare() {
  local name=${1:-$corpus} folder=${2:-$corpus_dir} output=${3:-$exp_dir/data}
  if runs 1 "download $name"; then
    speechattn download "$name" --corpus-dir "$folder" ${mirror:+--mirror "$mirror"} "${corpus_options[@]}"
  fi
  if runs 2 "prepare $name"; then
    speechattn prepare "$name" --corpus-dir "$folder" --output "$output" "${corpus_options[@]}"
    # Stops with an error on an empty split, shared speakers, or a class that dominates the labels.
    speechattn inspect "$output"/{train,dev,test}.jsonl.gz --strict "${inspect_options[@]}"
  fi
}

train_and_evaluate() {
  if runs 3 train; then
    train "$exp_dir/model" "${conf[@]}" ${init:+--init "$init"}
  fi
  if runs 4 evaluate; then
    evaluate "$exp_dir" dev test
    speechattn predict --cuts "$exp_dir/data/test.jsonl.gz" --model "$exp_dir/model" --output "$exp_dir/textgrid"
  fi
}

# For each seed in $1 and each setting in $2 ..., train --conf overridden by conf/ablation.yaml and then by the setting.
# Runs --jobs trainings at a time, one thread each. Then tabulates accuracy on dev and plots it against look-ahead.
ablate() {
  local overlay=$root/recipes/$recipe/conf/ablation.yaml seed setting folder
  export OMP_NUM_THREADS=1
  for seed in $1; do
    for setting in "${@:2}"; do
      folder=$exp_dir/ablation/$(basename "$setting" .yaml)/seed-$seed
      while [ "$(jobs -pr | wc -l)" -ge "$jobs" ]; do wait -n; done
      train "$folder" "${conf[@]}" "$overlay" "$setting" --seed "$seed" &
    done
  done
  while [ "$(jobs -pr | wc -l)" -ge 1 ]; do wait -n; done
  python -m speechattn.reports.ablation "$exp_dir/ablation"
}

# For each of the recipe's configurations in $2 ... and each seed in $1, train a model and score it on test.
compare_models() {
  local name seed folder
  for name in "${@:2}"; do
    for seed in $1; do
      folder=$exp_dir/models/$name/seed-$seed
      train "$folder" "$root/recipes/$recipe/conf/$name.yaml" --seed "$seed"
      speechattn evaluate "$folder" --cuts "$exp_dir/data/test.jsonl.gz" --report "$folder/report" "${evaluate_options[@]}"
    done
  done
}
