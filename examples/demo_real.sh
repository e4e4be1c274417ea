#!/usr/bin/env bash
# A real model on grade-school problems: SmolLM2-135M-Instruct (Q4_1) on 32 single-step problems of
# MAWPS, 8 attempts each, sampled plainly, with random soft prompts, and with a control that injects
# embeddings of random real tokens instead. The model is fetched once; the problems come from the
# Hub, or from the folder that LM_EVAL_EXT_DATA names.
set -euo pipefail
out=${OUT:-out/demo-real}
limit=${LIMIT:-32}
attempts=${ATTEMPTS:-8}
export LMEVAL_LOG_LEVEL=${LMEVAL_LOG_LEVEL:-ERROR} # leaves the progress bars and the tables
task=mawps_singleop_passn

# Without the problems there is nothing to fetch a model for.
HF_HUB_VERBOSITY=error python - <<'END'
import sys
from lm_eval_ext.data import datasets
from lm_eval_ext import errors

try:
    datasets.load_split("mawps_singleop", "test")
except errors.UserError as error:
    sys.exit(f"demo-real: {error}")
END
lm-eval-ext fetch smollm2

# An answer takes some 30 tokens; what has none after 64 repeats itself.
evaluate() { # evaluate NAME MODEL MODEL_ARGS
    local command=(lm_eval --model "$2" --model_args "$3" --tasks $task --limit "$limit"
        --metadata "{\"attempts\":$attempts}" --gen_kwargs max_gen_toks=64)
    echo "== $1: ${command[*]}"
    "${command[@]}" --batch_size auto --output_path "$out/$1" --log_samples
}

rm -rf "$out"/{sampled,rsp,real_tokens}
mkdir -p "$out"/{sampled,rsp,real_tokens}
evaluate sampled sampled pretrained=smollm2
evaluate rsp rsp pretrained=smollm2,length=8
evaluate real_tokens rsp pretrained=smollm2,length=8,control=real_tokens

lm-eval-ext leaderboard compare "$out"/{sampled,rsp,real_tokens} --plot "$out/pass_at_k.png"
lm-eval-ext leaderboard build "$out"/{sampled,rsp,real_tokens} --output "$out/board"
echo "The page with every attempt: open $out/board/index.html in a browser."
