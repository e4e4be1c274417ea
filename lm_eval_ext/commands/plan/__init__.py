"""What a run with N attempts per question takes, before it is started or from its first minute.

`hardware` describes the machine, `model_shape` the model, `workload` and `task_workload` the task;
`cost` has rows, memory and the least time, `measure` times a real run, and `command` is
``lm-eval-ext plan``. The formulas are in docs/scaling.md.
"""
