#!/usr/bin/env bash
# The tiny model on its own word problems, offline: 16 attempts per question, sampled plainly, with
# random soft prompts, and with a control that injects embeddings of random real tokens instead.
#
#   LIMIT=60        questions (default: 60)
#   OUT=out/demo    where everything is written (default: out/demo)
set -euo pipefail
out=${OUT:-out/demo}
limit=${LIMIT:-60}
export LMEVAL_LOG_LEVEL=${LMEVAL_LOG_LEVEL:-ERROR} # leaves the progress bars and the tables

evaluate() { # evaluate NAME MODEL MODEL_ARGS
    echo "== $1: lm_eval --model $2 --model_args $3 --tasks tiny_gsm8k_passn --limit $limit"
    lm_eval --model "$2" --model_args "$3" --tasks tiny_gsm8k_passn --limit "$limit" \
        --batch_size auto --output_path "$out/$1" --log_samples
}

rm -rf "$out"/{sampled,rsp,real_tokens}
mkdir -p "$out"/{sampled,rsp,real_tokens}
evaluate sampled sampled pretrained=tiny
evaluate rsp rsp pretrained=tiny,length=8
evaluate real_tokens rsp pretrained=tiny,length=8,control=real_tokens

lm-eval-ext leaderboard compare "$out"/{sampled,rsp,real_tokens} --plot "$out/pass_at_k.png"
lm-eval-ext leaderboard build "$out"/{sampled,rsp,real_tokens} --output "$out/board"
echo "The page with every attempt: open $out/board/index.html in a browser."
