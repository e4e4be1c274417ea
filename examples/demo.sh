#!/usr/bin/env bash
# The tiny model on its own word problems, offline: 16 attempts per question, sampled plainly, with
# random soft prompts, and with a control that injects embeddings of random real tokens instead.
set -euo pipefail
out=${OUT:-out/demo}
limit=${LIMIT:-200}
rm -rf "$out"/{sampled,rsp,real_tokens}

evaluate() { # evaluate NAME MODEL MODEL_ARGS
    echo "== $1: lm_eval --model $2 --model_args $3 --tasks tiny_gsm8k_passn --limit $limit"
    lm_eval --model "$2" --model_args "$3" --tasks tiny_gsm8k_passn --limit "$limit" \
        --batch_size auto --output_path "$out/$1" --log_samples >"$out/$1.log" 2>&1 ||
        { tail -n 20 "$out/$1.log" >&2; exit 1; }
}

mkdir -p "$out"/{sampled,rsp,real_tokens}
evaluate sampled sampled pretrained=tiny
evaluate rsp rsp pretrained=tiny,length=8
evaluate real_tokens rsp pretrained=tiny,length=8,control=real_tokens

lm-eval-ext leaderboard compare "$out/sampled" "$out/rsp" "$out/real_tokens" \
    --metrics 'pass@*,maj@*,invalid_rate,truncated_rate,mean_tokens' --plot "$out/pass_at_k.png"
lm-eval-ext leaderboard build "$out"/{sampled,rsp,real_tokens} --output "$out/board"
