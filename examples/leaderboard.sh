#!/usr/bin/env bash
# Every shipped wrapper on every shipped model and tiny task, offline, and the board over them.
#
#   LIMIT=200       questions of each task (default: 200)
#   ATTEMPTS=16     attempts per question of the _passn tasks (default: 16)
#   RUNS=folder     where lm_eval writes (default: runs/leaderboard); runs that are there are kept
#   BOARD=folder    where the board is written (default: leaderboards), entries in its results/;
#                   the page, with every attempt, is written beside the runs
set -euo pipefail
limit=${LIMIT:-200}
attempts=${ATTEMPTS:-16}
runs=${RUNS:-runs/leaderboard}
board=${BOARD:-leaderboards}
folders=()

evaluate() { # evaluate NAME MODEL MODEL_ARGS
    local folder="$runs/$1"
    folders+=("$folder")
    if compgen -G "$folder/*/results_*.json" >/dev/null; then
        echo "== $1: is there already"
        return
    fi
    echo "== $1: lm_eval --model $2 --model_args $3 --tasks tiny --limit $limit"
    mkdir -p "$folder"
    lm_eval --model "$2" --model_args "$3" --tasks tiny --limit "$limit" \
        --metadata "{\"attempts\": $attempts}" --batch_size auto --confirm_run_unsafe_code \
        --output_path "$folder" --log_samples >"$folder.log" 2>&1 ||
        { tail -n 20 "$folder.log" >&2; exit 1; }
}

for model in tiny tiny-sink; do
    evaluate "$model-sampled" sampled "pretrained=$model"
    evaluate "$model-rsp" rsp "pretrained=$model,length=8"
    evaluate "$model-epicar" epicar "pretrained=$model"
    evaluate "$model-draft-eu" draft-eu "pretrained=$model,drafts=tiny-drafts"
    evaluate "$model-sink-pruned" sink-pruned "pretrained=$model,ratio=0.25"
done
for model in tiny-star tiny-epicar; do # trained to judge their own answers, or not to
    evaluate "$model-epicar" epicar "pretrained=$model"
done

lm-eval-ext leaderboard add "$runs" --results "$board/results" --replace
lm-eval-ext leaderboard build "${folders[@]}" --output "$board" --formats json,md
lm-eval-ext leaderboard build "${folders[@]}" --output "$runs" --formats html
