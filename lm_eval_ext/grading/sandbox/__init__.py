"""Run programs nobody has read, and call their functions from outside.

`lm_eval_ext.grading.sandbox.pool` is the entrance. The modules fall into two halves:

- outside, in the user's process: `pool`, `session`, `launch`, `layers`;
- inside, in the isolated interpreter, with nothing but the standard library: `zygote`, `candidate`,
  `confinement`, `private_root`, `kernel`, `seccomp`, `landlock`.

`wire` and `limits` are used by both. See docs/sandbox.md for what holds and what does not.
"""
