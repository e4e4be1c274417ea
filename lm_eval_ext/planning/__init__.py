"""How long a run with N attempts per question takes, and how much memory, before it is started.

`hardware` and `cpu` describe the machine, `model_shape` the model, `workload` and `task_workload`
the task; `cost` combines them, and `command` is ``lm-eval-ext plan``. The formulas are in
docs/scaling.md.
"""
